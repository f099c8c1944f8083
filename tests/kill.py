"""SIGKILL at random moments, over rendering, packing, searching, training, evaluating and reporting: nothing is left half-written, and
the same command started again ends as the unbroken run did.

    python tests/kill.py --kills 200 --seed 0          # Linux; prints a table, ends with 1 if there is a fault
    python tests/kill.py --every --quick               # one kill at every event, instead

Each stage is a list of the project's commands in one folder. They run once unbroken, for reference. Then, again and again: a fresh copy
of the folder as it was before, the commands, a kill; what stands in the folder is looked at; the commands again, killed again or not,
until they end; what stands there now is compared with the reference, byte by byte without times and machine. A kill comes
  at `random`, any time of the run;
  at an `event`, right before the run opens a file for writing, renames, makes or removes one: at the n-th such event, exactly;
  `after` an event, at some time before the next one;
  `within` the first write after an event that brings a file over a size in bytes: the kernel ends the process there (SIGXFSZ).
One in four of the kills of a command that has processes of its own hits the first process `alone`, and a kill within a write always the
process that writes; else all of them.

Every run is forked from a process that has imported everything already, which spares it some seconds. The processes that rendering and
`reproduce` start are forked as well.
"""
import os
if __name__ == '__main__': os.environ |= {name: '1' for name in ('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS', 'TQDM_DISABLE')}
import argparse, ctypes, fcntl, gc, hashlib, json, mmap, random, re, resource, select, shutil, signal, struct, sys, tempfile, time, traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

sys.path.append(str(Path(__file__).resolve().parent))
SMALL = [f'--set={s}' for s in (
    'data.train_people=6', 'data.val_people=3', 'data.render_seed=5', 'data.input_size=[64,48]', 'network.width=8', 'network.base_channels=8',
    'search.batch=3', 'search.compared=1', 'search.candidates=2', 'search.warmup_steps=47', 'search.steps=6', 'search.log_every=2',
    'search.sub_policies=singles', 'search.ema=.5', 'search.project=true',
    'training.batch=4', 'training.warmup_steps=3', 'training.checkpoint_every=3', 'training.validate_every=5')]
STEPS = '--set=training.steps=12'
WEIGHTS = 'runs/work/tiny/p2net/0/model.safetensors'
QUICK = False                                                                           # less of everything, for the sample that the tests run
PATIENCE = 300.                                                                         # seconds until a run counts as hanging


# ------------------------------------------------------------------------------------------------------------------------ the stages
def p2net(*words):
    "A p2net command; SystemExit where it fails."
    from p2net.cli import main
    if code := main([*words, '--quiet']): sys.exit(code)


def render(): p2net('people', '--train', '6', '--val', '3', '--seed', '5', '--workers', '1')


def pack():
    "As every command packs, in two sizes; then as JPEG."
    from p2net.people.folder import find_people
    from p2net.people.pack import build_pack, pack_folder
    from p2net.runs.config import DataConfig
    from p2net.runs.data import load_people, people_folder
    data = DataConfig(train_people=6, val_people=3, render_seed=5)
    for size in ((64, 48), (96, 72)): load_people(data.model_copy(update=dict(input_size=size)), progress=False)
    found = find_people(people_folder(data))
    build_pack(found.train(), found.skeleton, (96, 72), pack_folder(), progress=False, store='jpeg')


def search(): p2net('search', *SMALL)


def train(): p2net('train', 'p2net', *SMALL, STEPS, '--replace')


def evaluate():
    p2net('evaluate', WEIGHTS, *SMALL)
    for experiment in ('mean-pose', *(() if QUICK else ('box-quality',))): p2net('train', experiment, *SMALL, STEPS)
    p2net('train', 'detected', *SMALL, STEPS, '--set=evaluation.boxes=boxes.json')


def report():
    p2net('reproduce', '--experiments', 'mean-pose', '--jobs', '1', *SMALL, STEPS, '--replace-committed')
    if not QUICK: p2net('card', 'runs/records/tiny/search/0', 'card.png')


def before_train(place):
    "The record of another training stands there, to be replaced; an invented one for the sample."
    if QUICK:
        from mini_records import write_history, write_mini
        write_history(write_mini(place/'runs/records', 'p2net'), 0)
    else: p2net('train', 'p2net', *SMALL, '--set=training.steps=2')


def before_evaluate(place):
    "A detector's boxes."
    file = next((place/'cache/people').glob('*/annotations/*val.json'))
    rows = [dict(image_id=a['image_id'], category_id=1, bbox=a['bbox'], score=.9) for a in json.loads(file.read_text())['annotations']]
    (place/'boxes.json').write_text(json.dumps(rows))


def before_report(place):
    "Records of other runs, invented, and of all of them in a repository, other ones."
    from mini_records import write_history, write_mini
    records, committed = place/'runs/records', place/'paper_results/runs'
    people = json.loads((records/'tiny/p2net/0/record.json').read_text())['data']['val']['fingerprint']
    for name in ('box-quality', 'detected', 'mean-pose'): shutil.rmtree(records/'tiny'/name, ignore_errors=True)
    for name in ('hand-made', 'no-attention'): write_history(write_mini(records, name, fingerprint=people), 0)
    for name in ('p2net', 'mean-pose', 'hand-made'): write_history(write_mini(committed, name, values=dict(AP=.5)), 1)


@dataclass
class Stage:
    "What is run, and what was there before."
    run: object
    after: str|None = None                                                              # the stage whose end it begins with
    before: object = None                                                               # what is done to that
    processes: bool = False                                                             # whether it starts some
    printed: bool = False                                                               # whether it prints results


STAGES = dict(render=Stage(render, processes=True), pack=Stage(pack, 'render'), search=Stage(search, 'render', printed=True),
              train=Stage(train, 'search', before_train, printed=True), evaluate=Stage(evaluate, 'train', before_evaluate, printed=True),
              report=Stage(report, 'evaluate', before_report, processes=True))


# ----------------------------------------------------------------------------------------------------------- a process for each run
def close(fd):
    try: os.close(fd)
    except OSError: pass                                                                # the one that listed them


class Forked:
    "Where rendering starts `python` for a worker: a fork with two pipes."
    keep = None                                                                         # the pipe that tells of an event
    def __init__(self, folder, config):
        from dataclasses import asdict
        from p2net.rendering import render as rendering
        (asked, ask), (answered, answer) = os.pipe(), os.pipe()
        self.pid = os.fork()
        if not self.pid:
            try:
                os.dup2(asked, 0); os.dup2(answer, 1)
                for fd in map(int, os.listdir('/proc/self/fd')):                        # the lock of the folder, for one: a process that was started has none
                    if fd > 2 and fd != Forked.keep: close(fd)
                sys.stdin, sys.stdout = open(0, closefd=False), open(1, 'w', closefd=False)
                rendering._work()
                os._exit(0)
            except BaseException: traceback.print_exc(); os._exit(1)
        os.close(asked); os.close(answer)
        self.stdin, self.stdout = open(ask, 'w', buffering=1), open(answered)
        self.stdin.write(json.dumps(dict(folder=str(folder), config=asdict(config))) + '\n')

    def terminate(self): os.kill(self.pid, signal.SIGTERM)
    def wait(self): return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def flat_frame(config, split, index):
    "A photograph of noise with a person or two, in no time."
    import numpy as np
    rng = np.random.default_rng([config.seed, split == 'val', index])
    person = lambda k: dict(category_id=1, iscrowd=0, keypoints=[v for j in range(17) for v in (70. + 5*j + k, 80. + 4*j, 2)], extra_keypoints=[100., 100., 2]*4,
                            num_keypoints=17, bbox=[60. + k, 70., 110., 90.], area=5000., head_box=[70., 80., 20., 20.], pose='stand')
    return rng.integers(0, 256, (256, 256, 3), np.uint8), 90, [person(k) for k in range(1 + index % 2)]


def import_all(quick):
    "What a run needs, once; and what a run in a fork does otherwise."
    global QUICK
    import multiprocessing, torch, torch._dynamo, p2net.cli, p2net.tools.predict, p2net.reproduce, p2net.report.card
    from p2net.rendering import render as rendering
    from p2net.report import figures, tables
    from p2net.runs import record, runners
    QUICK = quick
    torch.set_num_threads(1)
    rendering._start_worker = Forked
    p2net.reproduce.multiprocessing = SimpleNamespace(get_context=lambda kind: multiprocessing.get_context('fork'))
    record.git = lambda *words: 'c0ffee'                                                # others may commit meanwhile
    if quick:
        rendering.render_frame, rendering.anny_needs_build = flat_frame, lambda: False
        runners.size_of = lambda model, config: dict(parameters=1, gmac=1., hrnet_counter=1.)
        for found, keep in ((figures.FIGURES, ('policy_agreement', 'learning_curves')), (tables.TABLES, (1, 4))):
            for name in [n for n in found if n not in keep]: del found[name]
    else: rendering.get_studio()
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)                                             # orphans of a run become this process's
    gc.freeze()                                                                         # what is imported needs no look in every run


class Log:
    "Times of the changes to files that the processes of a run are about to make, in memory that they share."
    def __init__(self): self.memory = mmap.mmap(-1, 1 << 20)

    def __len__(self): return struct.unpack_from('q', self.memory)[0]

    def add(self):
        "One more, now; its number."
        n = len(self) + 1
        struct.pack_into('d', self.memory, 8*n, time.monotonic())
        struct.pack_into('q', self.memory, 0, n)
        return n

    def times(self): return struct.unpack_from(f'{len(self)}d', self.memory, 8)


CHANGES = ('os.rename', 'os.remove', 'os.rmdir', 'os.mkdir', 'os.truncate', 'os.link', 'os.symlink')

def listen(place, heard):
    "Call `heard` before each change to a file below `place`, by any process of this run."
    place = str(place)
    def hook(event, args):
        if event == 'open':
            if not isinstance(args[2], int) or not args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT): return
        elif event not in CHANGES: return
        if not isinstance(args[0], int) and os.path.abspath(os.fsdecode(args[0])).startswith(place): heard()
    sys.addaudithook(hook)


@dataclass
class Moment:
    "When a run is killed."
    kind: str                                                                           # 'random', 'event', 'after', 'within'
    event: int = 0                                                                      # number, from 1
    delay: float = 0.                                                                   # seconds after the start, or after the event
    size: int = 0                                                                       # bytes that a file may still have
    alone: bool = False                                                                 # the first process only
    def __str__(self):
        when = {'random': f'after {self.delay:.3f} s', 'event': f'at change {self.event}', 'after': f'{1000*self.delay:.1f} ms after change {self.event}',
                'within': f'at byte {self.size} of a file, after change {self.event}'}[self.kind]
        return when + ', alone'*self.alone


@dataclass
class Run:
    "A run that has ended or was killed."
    code: int                                                                           # below 0: of a signal
    killed: bool
    where: str                                                                          # 'start': before the first change; 'writing': within 5 ms of one; 'work'
    seconds: float
    events: list                                                                        # seconds from the start
    said: str                                                                           # standard output and error
    group: int                                                                          # its processes

    @property
    def results(self): return re.findall(r'^ *[\w@./-]+ -?\d+\.\d{4}$', self.said, re.M)


def run(stage, place, moment=None):
    "A stage in `place`, in a process of its own, until it ends or the moment has come."
    log, (bell, ring), (hear, say) = Log(), os.pipe(), os.pipe()
    fcntl.fcntl(hear, fcntl.F_SETPIPE_SZ, 1 << 20)                                      # read when all is over
    fcntl.fcntl(hear, fcntl.F_SETFL, os.O_NONBLOCK)
    start = time.monotonic()
    pid = os.fork()
    if not pid: in_fork(stage, place, say, log, ring, moment)
    for fd in (ring, say): os.close(fd)
    end_at(pid, bell, moment)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    now, events = time.monotonic(), log.times()
    if not moment or not moment.alone: end_group(pid)
    try: said = os.read(hear, 1 << 20).decode(errors='replace')
    except BlockingIOError: said = ''                                                   # nothing was said, and a process that was left alone can still
    for fd in (bell, hear): os.close(fd)
    if now - start > PATIENCE: code, said = code or 1, f'not done after {PATIENCE} s'
    killed = code in (-signal.SIGKILL, -signal.SIGXFSZ) or bool(code and moment and moment.kind == 'within')    # or one of its processes was
    near = events and (now - events[-1] < .005 or moment and moment.kind in ('event', 'within'))
    where = 'start' if not events else 'writing' if near else 'work'
    return Run(code, killed and now - start <= PATIENCE, where, now - start, [t - start for t in events], said, pid)


def in_fork(stage, place, say, log, ring, moment):
    "The run itself; doesn't return."
    code = 70
    try:
        os.setsid()
        os.dup2(say, 1); os.dup2(say, 2)
        Forked.keep = ring
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        sys.stdout, sys.stderr = open(1, 'w', closefd=False), open(2, 'w', closefd=False, buffering=1)
        os.environ['P2NET_CACHE'] = str(place/'cache')
        os.chdir(place)
        def heard():
            n = log.add()
            if moment is None or n != moment.event: return
            if moment.kind == 'after': os.write(ring, b'!')
            elif moment.kind == 'within': resource.setrlimit(resource.RLIMIT_FSIZE, (moment.size, resource.RLIM_INFINITY))
            else: (os.kill if moment.alone else os.killpg)(os.getsid(0), signal.SIGKILL)
        listen(place, heard)
        stage.run()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 2
        print(end.code, file=sys.stderr)
    except BaseException: traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def end_at(pid, bell, moment):
    "Wait until the process has ended or, if that is before, kill it at its moment; also if it has hung for a long time."
    fd = os.pidfd_open(pid)
    ended = lambda seconds, *others: fd in select.select([fd, *others], [], [], seconds)[0]
    if moment and moment.kind == 'random': ended(moment.delay)
    elif moment and moment.kind == 'after': ended(PATIENCE, bell) or ended(moment.delay)
    else: ended(PATIENCE)
    if not ended(0): (os.kill if moment and moment.alone else os.killpg)(pid, signal.SIGKILL)
    os.close(fd)


def end_group(pid):
    "End what is left of the processes of a run."
    try:
        os.killpg(pid, signal.SIGKILL)
        while True: os.waitpid(-pid, 0)
    except (ProcessLookupError, ChildProcessError): pass


# ------------------------------------------------------------------------------------------------------------- what stands in a folder
TIMES = ('wall_s', 'warmup_s', 'people_per_s', 'peak_memory_mib')
# what only a run that goes on reads
STATES = re.compile(r'(^|/)(checkpoint(\.old)?/.*|search\.pt|warm-ups/.*\.pt|frames/.*\.json|rendering\.json|images/.*\.jpg)$')
WHOLE = ('record.json', 'pack.json', 'fingerprint.json')                                # where one of them stands, all files of its folder do


def is_temporary(path): return any(part.startswith('.') or part.endswith('.new') for part in Path(path).parts)


def value(path):
    "What two runs must agree in: the bytes of a file, of a record all but times and machine."
    data = path.read_bytes()
    if path.name == 'record.json':
        try: record = json.loads(data)
        except ValueError: return 'half'
        record['cost'] = {k: v for k, v in record['cost'].items() if k not in TIMES}
        data = json.dumps(record | dict(environment=None), sort_keys=True).encode()
    return hashlib.sha256(data).hexdigest()


def contents(place):
    "Value of each file below a folder; names of the temporary files and folders."
    found, temporary = {}, []
    for path in sorted(place.rglob('*')):
        name = path.relative_to(place).as_posix()
        if is_temporary(name):
            if not name.endswith('.lock'): temporary.append(name)
        elif path.is_file():
            try: found[name] = value(path)
            except FileNotFoundError: pass                                              # a process that was left alone goes on
    return found, temporary


def trouble(path):
    "Why a file can't be read, by the project's own reader where it has one; '' where it can."
    import cv2, numpy as np, torch
    from PIL import Image
    from p2net.da2.policy import Policy
    from p2net.errors import read_json
    from p2net.network.backbone import read_tensors
    from p2net.runs.checkpoints import read_state
    from p2net.runs.record import read_record, read_rows
    def photograph(path):
        data = path.read_bytes()
        if not data.endswith(b'\xff\xd9') or cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) is None: raise ValueError('cut')
    def arrays(path):
        with np.load(path) as file: return [file[k] for k in file.files]
    weights = lambda path: torch.load(path, weights_only=False)
    readers = {'record.json': read_record, 'policy.json': Policy.from_json, '.json': read_json, '.csv': read_rows, '.pt': lambda path: read_state(path, {}),
               '.bin': weights, '.pkl': weights, '.safetensors': read_tensors, '.jpg': photograph, '.npz': arrays, '.png': lambda path: Image.open(path).load()}
    try: readers.get(path.name, readers.get(path.suffix, lambda path: None))(path)
    except FileNotFoundError: pass                                                      # a process that was left alone goes on
    except Exception as error: return f'{type(error).__name__}: {error}'
    return ''


def half_done(place, known):
    "Faults of a folder in which a run was killed: everything is as before, as at the end, or a whole state of a run that goes on."
    now, faults = contents(place)[0], []
    for name, is_now in now.items():
        if is_now in (known.was.get(name), known.will.get(name)): continue
        try: data = (place/name).read_bytes()
        except FileNotFoundError: continue                                              # a process that was left alone goes on
        cut = any(name in files and (folder/name).read_bytes().startswith(data) for folder, files in ((known.begin, known.was), (known.end, known.will)))
        if why := trouble(place/name) or 'cut'*cut: faults.append(('half-written', f'{name}: {why}'))
        elif not STATES.search(name): faults.append(('of neither run', name))
    for mark in (name for name in now if name.endswith(WHOLE)):
        of = lambda files: {k: v for k, v in files.items() if k.startswith(mark[:-len(Path(mark).name)])}
        if not any(now[mark] == files.get(mark) and of(files).items() <= now.items() for files in (known.was, known.will)):
            faults.append(('not all of one run', f'{mark} and the files beside it'))
    return faults


def done(place, known):
    "Faults of a folder in which a run has ended: everything is as in the unbroken one, and nothing else is there."
    now, temporary = contents(place)
    faults = [('differs', name) if name in now else ('missing', name) for name, will in known.will.items() if now.get(name) != will]
    return faults + [('left over', name) for name in [*sorted(now.keys() - known.will.keys()), *temporary]]


def age(place):
    "Make temporary files look two days old: what sweeps old ones away can take them."
    then = time.time() - 2*86_400
    for name in contents(place)[1]:
        try: os.utime(place/name, (then, then))
        except FileNotFoundError: pass


# ---------------------------------------------------------------------------------------------------------------------------- trials
def fresh(place, begin):
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(begin, place)


@dataclass
class Known:
    "The unbroken run of a stage."
    begin: Path                                                                         # the folder as it was before
    was: dict                                                                           # its contents
    end: Path                                                                           # the folder as it was after
    will: dict                                                                          # its contents
    run: Run


def unbroken(name, stage, folder, twice=True):
    "Run a stage for reference. The stage that it begins with has been run before."
    place, begin, end = folder/'place', folder/'begin'/name, folder/'end'/name
    place.mkdir(parents=True, exist_ok=True)
    if stage.after: fresh(place, folder/'end'/stage.after)
    if stage.before: whole(run(Stage(lambda: stage.before(place)), place))
    shutil.copytree(place, begin)
    first = whole(run(stage, place))
    shutil.copytree(place, end)
    known = Known(begin, contents(begin)[0], end, contents(end)[0], first)
    if twice:
        fresh(place, begin)
        whole(run(stage, place))
        if faults := done(place, known): raise RuntimeError(f'{name}: two unbroken runs are not the same: {faults}')
    return known


def whole(run):
    if run.code: raise RuntimeError(f'a run ended with {run.code} though nobody killed it:\n{run.said[-3000:]}')
    return run


def draw(rng, known, processes, kinds):
    "A moment."
    kind, events, alone = rng.choice(kinds), known.run.events, processes and rng.random() < .25
    if kind == 'random': return Moment(kind, delay=rng.uniform(0, known.run.seconds), alone=alone)
    if kind == 'event': return Moment(kind, rng.randint(1, len(events)), alone=alone)
    if kind == 'within': return Moment(kind, rng.randint(1, len(events)), size=rng.choice((0, int(10**rng.uniform(0, 5)))))
    gaps = [max(min(b - a, .05), 0) for a, b in zip(events, [*events[1:], known.run.seconds])]
    n = rng.choices(range(len(events)), gaps)[0]                                        # where there is some time to be in the midst of
    return Moment(kind, n + 1, rng.uniform(0, gaps[n]), alone)


@dataclass
class Trial:
    "A run that was killed, once or several times, and then ended."
    moments: list = field(default_factory=list)
    where: list = field(default_factory=list)
    faults: list = field(default_factory=list)                                          # (kind, what, moments until then)


def trial(stage, known, folder, moments):
    "Run a stage, killed at the first of these moments, again, killed at the next, until it ends; at the latest after the last of them."
    place, out, groups, found = folder/'place', Trial(), [], []
    fresh(place, known.begin)
    for moment in (*moments, None):
        last = run(stage, place, moment)
        groups.append(last.group)
        if not last.killed: break
        out.moments.append(moment); out.where.append(last.where)
        out.faults += [(*fault, tuple(out.moments)) for fault in half_done(place, known)]
        age(place)
    for group in groups: end_group(group)                                               # those that were left alone
    if last.code: found = [('refused', f'exit code {last.code}: {last.said.strip()[-600:]}')]
    else:
        found = done(place, known)
        if stage.printed and last.results != known.run.results: found.append(('differs', 'what is printed'))
    out.faults += [(*fault, tuple(out.moments)) for fault in found]
    return out


def trials(name, stage, known, folder, seed, kills, kinds=('random', 'event', 'after', 'within'), most=4, say=lambda text: None):
    "Trials of a stage until it was killed so many times."
    rng, out, hits = random.Random(f'{seed} {name}'), [], 0
    while hits < kills:
        moments = [draw(rng, known, stage.processes, kinds) for _ in range(min(kills - hits, rng.choice((1, 1, 2, most))))]
        out.append(one := trial(stage, known, folder, moments))
        hits += len(one.moments)
        say(f"{name} {hits}/{kills}: {', '.join(map(str, one.moments)) or 'ended before'}: {[fault[:2] for fault in one.faults] or 'as unbroken'}")
    return out


def every(name, stage, known, folder, say=lambda text: None):
    "Trials of a stage, killed once at each event."
    out = []
    for n in range(1, len(known.run.events) + 1):
        out.append(one := trial(stage, known, folder, [Moment('event', n)]))
        say(f"{name} {n}/{len(known.run.events)}: {[fault[:2] for fault in one.faults] or 'as unbroken'}")
    return out


def table(found):
    "Lines: a stage, its kills and where they hit, runs that went on, those that ended as the unbroken one, faults."
    head = ('stage', 'kills', 'start', 'work', 'writing', 'alone', 'resumed', 'equal', 'faults')
    rows = []
    for name, trials in found.items():
        hits = [t for t in trials if t.moments]
        where = Counter(w for t in hits for w in t.where)
        rows.append((name, sum(where.values()), *(where[w] for w in head[2:5]), sum(m.alone for t in hits for m in t.moments), len(hits),
                     sum(not any(f[0] in ('differs', 'missing', 'refused') for f in t.faults) for t in hits), sum(len(t.faults) for t in hits)))
    rows.append(('all', *(sum(r[i] for r in rows) for i in range(1, len(head)))))
    return [''.join(f'{cell!s:>9}' for cell in row) for row in (head, *rows)]


def kinds_of_faults(found):
    "Lines: each kind of fault once, with its number and the moments of the first."
    seen = {}
    for name, trials in found.items():
        for t in trials:
            for kind, what, moments in t.faults:
                seen.setdefault((name, kind, re.sub(r'\d{3,}|-[a-z0-9_]{8}\b', '#', what)), []).append(moments)
    return [f"{len(where)} x {name}: {kind}: {what}\n      first: {', '.join(map(str, where[0]))}" for (name, kind, what), where in seen.items()]


def sample(folder, seed=0):
    """For each stage the moment of one kill and the faults: within a write of the second half, the same each time, over photographs of
    noise and few tables."""
    folder, rng, out = Path(folder).resolve(), random.Random(seed), {}
    import_all(quick=True)
    for name, stage in STAGES.items():
        known = unbroken(name, stage, folder, twice=False)
        events = len(known.run.events)
        one = trial(stage, known, folder, [Moment('within', rng.randint(events//2, int(.8*events)), size=rng.choice((0, 20)))])
        out[name] = [str(m) for m in one.moments], [fault[:2] for fault in one.faults]
    return out


def main(argv=None):
    parser = argparse.ArgumentParser('kill.py', description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--kills', type=int, default=200, help='of all stages together')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--every', action='store_true', help='kill at every event, once')
    parser.add_argument('--stages', nargs='+', choices=list(STAGES), default=list(STAGES))
    parser.add_argument('--folder', type=Path, help='an empty one, kept; left out: a temporary one')
    parser.add_argument('--quick', action='store_true', help='photographs of noise and two figures')
    args = parser.parse_args(argv)
    folder = (args.folder or Path(tempfile.mkdtemp(prefix='p2net-kill-'))).resolve()
    start, found, needed = time.monotonic(), {}, []
    say = lambda text: print(f'{time.monotonic() - start:6.0f} s  {text}', file=sys.stderr, flush=True)
    import_all(args.quick)
    for name in args.stages:
        while name and name not in needed: needed.append(name); name = STAGES[name].after
    try:
        for name in (n for n in STAGES if n in needed):
            known = unbroken(name, STAGES[name], folder)
            say(f'{name}: {known.run.seconds:.1f} s unbroken, {len(known.run.events)} changes of files')
            if name not in args.stages: continue
            i, n = args.stages.index(name), len(args.stages)
            kills = args.kills*(i + 1)//n - args.kills*i//n                             # all of them together are so many as was asked for
            found[name] = (every(name, STAGES[name], known, folder, say) if args.every else
                           trials(name, STAGES[name], known, folder, args.seed, kills, say=say))
    finally:
        if args.folder is None: shutil.rmtree(folder, ignore_errors=True)
    print(*table(found), *(faults := kinds_of_faults(found)), f'{time.monotonic() - start:.0f} s', sep='\n')
    return int(bool(faults))


if __name__ == '__main__': sys.exit(main())
