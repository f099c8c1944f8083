"""Killed at any step and started again, a run ends where the unbroken one does, to the last bit.

    P2NET_KILLS=20 python -m pytest tests/test_resume.py        # as many kills of each as you like; one by default
"""
import os, random, shutil, signal

import pytest, torch
from forked import forked
from hypothesis import HealthCheck, given, settings, strategies as st
from safetensors.torch import load_file
from test_cli import coco

from p2net.errors import InputError

SETTINGS = [f'--set={s}' for s in ('training.steps=12', 'training.batch=4', 'training.warmup_steps=5', 'training.checkpoint_every=5', 'training.validate_every=7',
                                   'network.width=16', 'network.base_channels=8', 'search.batch=4', 'search.warmup_steps=46', 'search.steps=9', 'search.log_every=3',
                                   'search.ema=.5', 'search.project=true', 'search.sub_policies=singles')]
KILLS = int(os.environ.get('P2NET_KILLS', 1))


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    "A folder with people in it and the results of the unbroken runs."
    folder = tmp_path_factory.mktemp('resume')
    coco(folder/'data', n=8)
    for what in (('train', 'hand-made'), ('search',)): assert run(folder, 'unbroken', what) == 0
    return folder


def command(folder, out, what, dies):
    "Exit code of a p2net command. The process kills itself in step `dies`: after the batch is drawn, before anything is kept of it."
    os.environ.update(P2NET_CACHE=str(folder/'cache'), ACCELERATE_USE_CPU='true')
    from p2net.cli import main
    from p2net.runs import searching, training
    def killed_in(module, name):
        step = getattr(module, name)
        def once(run, *args):
            if run.step_done == dies: os.kill(os.getpid(), signal.SIGKILL)
            return step(run, *args)
        setattr(module, name, once)
    for module, name in ((training, 'train_step'), (searching, 'warmup_step'), (searching, 'bilevel_step')): killed_in(module, name)
    return main([*what, '--data', str(folder/'data'), '--out', str(folder/out), '--quiet', *SETTINGS])


def run(folder, out, what, dies=None):
    "The exit code of a command in a process of its own; None if it was killed."
    try: return forked(command, folder, out, what, dies)
    except RuntimeError as error:
        assert 'died without a word' in str(error), error


def only(folder, name):
    found = list(folder.rglob(name))
    assert len(found) == 1, found
    return found[0]


@pytest.mark.situation('a training that was killed in the midst of a step', 'the same command continues from the last checkpoint; the same weights to the last bit')
@pytest.mark.parametrize('step', random.Random(6).sample(range(12), 12)[:KILLS])                  # before the first checkpoint, too
def test_training(place, step):
    out = f'training-{step}'
    assert run(place, out, ('train', 'hand-made'), step) is None and not list((place/out).rglob('record.json'))
    assert run(place, out, ('train', 'hand-made')) == 0
    one, two = (load_file(only(place/folder, 'model.safetensors')) for folder in ('unbroken', out))
    assert one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


@pytest.mark.situation('a search that was killed in the midst of a step', 'the same command continues from the last checkpoint; the same policy to the last bit')
@pytest.mark.parametrize('step', [53, *random.Random(7).sample(range(55), 55)][:KILLS])           # its state is kept every 50 steps
def test_search(place, step):
    out = f'search-{step}'
    assert run(place, out, ('search',), step) is None and not list((place/out).rglob('record.json'))
    assert run(place, out, ('search',)) == 0
    for name in ('policy.json', 'policy.csv'):
        one, two = (only(p, name).read_bytes() for p in sorted((place/'unbroken').glob('records/*/search*')) + sorted((place/out).glob('records/*/search*')))
        assert one == two, name


# --- checkpoints that were cut, changed or exchanged ---

drawn = settings(max_examples=int(os.environ.get('P2NET_EXAMPLES', 12)), derandomize='P2NET_EXAMPLES' not in os.environ, deadline=None, database=None,
                 suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
CHANGES = ['training.lr=1', 'training.steps=3', 'search.steps=3', 'network.width=24', 'training.schedule=constant', 'seed=5']


def stopped_run(kind, work, overrides=()):
    "A training or a search in the folder `work`, before its first step."
    from p2net.da2.controls import HandMade
    from p2net.runs.config import make_config
    from p2net.runs.data import load_people
    from p2net.runs.searching import Searcher
    from p2net.runs.training import Trainer, make_network
    config = make_config('tiny', overrides=[s.removeprefix('--set=') for s in SETTINGS] + ['search.warmup_steps=1', 'search.steps=12', 'training.precision=fp32', *overrides],
                         data=dict(source=str(work.parent/'data')))
    people = load_people(config.data, work.parent/'cache', progress=False, say=lambda line: None)
    if kind == 'search': return Searcher(config, people.train, work, progress=False)
    return Trainer(config, make_network(config, len(people.skeleton)), people.train, HandMade(), work, progress=False)


class Checkpoint(tuple):
    "Kind of a run, its folder, the files of its checkpoint, the weights in them, and a run that has not begun."
    def __repr__(self): return f'<{self[0]}>'                                                       # of a few megabytes


@pytest.fixture(scope='module', params=['training', 'search'])
def checkpoint(request, tmp_path_factory):
    "A run that was stopped at its second step."
    folder = tmp_path_factory.mktemp('checkpoint')
    coco(folder/'data', n=8)
    kind, work = request.param, folder/'work'
    one = stopped_run(kind, work)
    (one.run if kind == 'search' else one.fit)(2)
    weights = {k: v.clone() for k, v in one.model.state_dict().items()}
    files = {p: p.read_bytes() for p in sorted(work.rglob('*')) if p.is_file()}
    return Checkpoint((kind, work, files, weights, stopped_run(kind, work)))


def resumed(checkpoint, overrides=(), run=None, restart=False):
    "A run that goes on from the checkpoint as it is now; nothing is changed where it is refused."
    kind, work = checkpoint[:2]
    there = {p: p.read_bytes() for p in work.rglob('*') if p.is_file()}
    run = run or stopped_run(kind, work, overrides)
    try:
        run.resume(restart)
        return run
    except InputError as error:
        assert len(str(error).splitlines()) == 1 and str(work) in str(error) and '--restart' in str(error), error
        assert {p: p.read_bytes() for p in work.rglob('*') if p.is_file()} == there
        return error


def put_back(checkpoint):
    shutil.rmtree(checkpoint[1])
    for path, content in checkpoint[2].items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


@drawn
@given(st.data())
def test_a_drawn_checkpoint_is_resumed_whole_or_named(checkpoint, data):
    kind, work, files, weights, again = checkpoint
    again.step_done = 0
    file = data.draw(st.sampled_from(sorted(files)), 'file')
    content, what = bytearray(files[file]), data.draw(st.sampled_from(['cut', 'bytes', 'bytes', 'other', 'gone']))
    if what == 'cut': content = content[:data.draw(st.integers(0, len(content) - 1))]
    elif what == 'other':
        content = data.draw(st.sampled_from([b'', b'{}', b'[]', b'<html>', b'PK\x03\x04', b'version https://git-lfs', *sorted(files)]))
        content = files.get(content, content)
    else:
        for _ in range(data.draw(st.integers(1, 4))): content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        if what == 'gone': file.unlink()
        else: file.write_bytes(bytes(content))
        found = resumed(checkpoint, run=again)
        if isinstance(found, InputError): return
        same = all(torch.equal(v, weights[k]) for k, v in found.model.state_dict().items())
        assert what == 'gone' and found.step_done == 0 or bytes(content) == files[file] and found.step_done == 2 and same, (file, what)
    finally: put_back(checkpoint)


@pytest.mark.situation('a checkpoint in which one byte was changed on the disk', 'one line: the file, that it is damaged, and `--restart`', theme='Checkpoints and records')
def test_one_byte_in_the_middle_of_each_file(checkpoint):
    "Also where it is a digit of a weight, which no library would notice."
    for file, content in checkpoint[2].items():
        middle = len(content)//2
        file.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1:])
        try: assert isinstance(found := resumed(checkpoint), InputError) and str(file) in str(found), file
        finally: put_back(checkpoint)


@pytest.mark.parametrize('change', CHANGES)
def test_other_settings_change_nothing(checkpoint, change):
    found = resumed(checkpoint, [change])
    assert isinstance(found, InputError) and 'other settings' in str(found)
    assert change.partition('=')[0] in str(found)
    try: assert resumed(checkpoint, [change], restart=True).step_done == 0
    finally: put_back(checkpoint)


@pytest.mark.situation('a photograph that was exchanged between a stop and its resumption', 'one line: the people have changed since, and `--restart`', theme='Checkpoints and records')
def test_people_that_changed_meanwhile(checkpoint):
    "The same folder, another photograph in it: the run stops there, and with the old file it goes on."
    kind, work = checkpoint[:2]
    image = work.parent/'data/train2017/0.jpg'
    whole = image.read_bytes()
    image.write_bytes((work.parent/'data/train2017/1.jpg').read_bytes()[:-2] + b'\xff\xfe\0\4xx\xff\xd9')
    found = resumed(checkpoint)
    assert isinstance(found, InputError) and 'its people have changed since' in str(found)
    image.write_bytes(whole)
    assert resumed(checkpoint).step_done == 2


def test_a_checkpoint_of_an_earlier_version(checkpoint):
    "Without checksums it is refused in a line, like any other file that cannot be checked."
    kind, work = checkpoint[:2]
    file = work/'search.pt' if kind == 'search' else work/'checkpoint/progress.json'
    if kind == 'search': torch.save(dict(step=2), file)
    else: file.write_text('{"step": 2, "seconds": 1.0, "config_hash": "0", "history": []}')
    try: assert isinstance(resumed(checkpoint), InputError)
    finally: put_back(checkpoint)
