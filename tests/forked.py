"""A process of its own for one call, forked from a server that has imported the libraries already: `import torch` and its
like take most of the seconds of a short notebook, and there are many."""
import multiprocessing, os, traceback
from multiprocessing import forkserver
from unittest import mock

LIBRARIES = ('torch', 'anny', 'matplotlib.pyplot', 'pandas', 'seaborn', 'cv2', 'accelerate', 'pydantic', 'pycocotools.cocoeval',
             'execnb.shell', 'nbdev.process', 'nbdev.clean', 'nbdev.showdoc', 'pytest')
context = multiprocessing.get_context('forkserver')


def start():
    "The server, with the environment of now and one thread; what tests change in theirs later doesn't reach it."
    context.set_forkserver_preload(list(LIBRARIES))
    with mock.patch.dict(os.environ, OMP_NUM_THREADS='1', TQDM_DISABLE='1'): forkserver.ensure_running()


def _answer(pipe, function, args):
    try: said = True, function(*args)
    except BaseException: said = False, traceback.format_exc()
    pipe.send(said)


def forked(function, *args):
    "What `function`, of a module, returns in a process of its own. RuntimeError with the traceback where it raises."
    start()
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(theirs, function, args))
    process.start()
    theirs.close()
    try: good, said = ours.recv()
    except EOFError: good, said = False, f"{function.__name__}{args}: the process died without a word"
    process.join()
    if not good: raise RuntimeError(said)
    return said
