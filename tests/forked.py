"""A process of its own for one call, forked from a server that has imported the libraries and this package already: `import torch` and
its like take most of the seconds of a short notebook, and there are many."""
import multiprocessing, os, traceback
from multiprocessing import forkserver
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).resolve().parents[1]

LIBRARIES = ('torch', 'anny', 'matplotlib.pyplot', 'pandas', 'seaborn', 'cv2', 'accelerate', 'pydantic', 'pycocotools.cocoeval',
             'execnb.shell', 'nbdev.process', 'nbdev.clean', 'nbdev.showdoc', 'pytest', 'torch._dynamo') # the last by every optimizer of torch
OURS = tuple('.'.join(p.relative_to(ROOT).with_suffix('').parts) for p in sorted((ROOT/'p2net').rglob('*.py')) if not p.stem.startswith('_'))
context = multiprocessing.get_context('forkserver')


def start():
    "The server, with the environment of now, one thread and this checkout; what tests change in theirs later doesn't reach it."
    context.set_forkserver_preload([*LIBRARIES, *OURS, 'timm.models.hrnet'])        # timm after ours: p2net.compat lets it be imported
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get('PYTHONPATH'))))
    # a process that has threads must not be forked: their locks stay taken in the child
    alone = dict(OMP_NUM_THREADS='1', OPENCV_FOR_THREADS_NUM='1', TQDM_DISABLE='1', PYTHONPATH=path)
    with mock.patch.dict(os.environ, alone): forkserver.ensure_running()


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
