"""Killed at any step and started again, a run ends where the unbroken one does, to the last bit.

    P2NET_KILLS=20 python -m pytest tests/test_resume.py        # as many kills of each as you like; one by default
"""
import os, random, signal, subprocess, sys
from pathlib import Path

import pytest, torch
from safetensors.torch import load_file
from test_cli import coco

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = [f'--set={s}' for s in ('training.steps=24', 'training.batch=4', 'training.warmup_steps=5', 'training.checkpoint_every=5', 'training.validate_every=7',
                                   'network.width=16', 'network.trunk=8', 'search.batch=4', 'search.warmup_steps=40', 'search.steps=24', 'search.sub_policies=singles')]
PROGRAM = """
import os, signal, sys
from p2net.cli import main
from p2net.runs import searching, training
def dies(cls, name):
    'The process ends at once in the midst of step P2NET_DIES: after the batch is drawn, before anything is kept of it.'
    step = getattr(cls, name)
    def once(self, *args):
        if self.step_done == int(os.environ.get('P2NET_DIES', -1)): os.kill(os.getpid(), signal.SIGKILL)
        return step(self, *args)
    setattr(cls, name, once)
dies(training.Trainer, 'step')
dies(searching.Searcher, 'warm_up')
dies(searching.Searcher, 'turn')
sys.exit(main(sys.argv[1:]))
"""
KILLS = int(os.environ.get('P2NET_KILLS', 1))


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    "A folder with people in it and the results of the unbroken runs."
    folder = tmp_path_factory.mktemp('resume')
    coco(folder/'data', n=8)
    (folder/'run.py').write_text(PROGRAM)
    for what in (('train', 'hand-made'), ('search',)): assert run(folder, 'unbroken', what) == 0
    return folder


def run(folder, out, what, dies=None):
    "The exit code of a run that is killed at step `dies`."
    env = os.environ | dict(PYTHONPATH=str(ROOT), P2NET_CACHE=str(folder/'cache'), OMP_NUM_THREADS='1') | ({} if dies is None else {'P2NET_DIES': str(dies)})
    command = [sys.executable, str(folder/'run.py'), *what, '--data', str(folder/'data'), '--out', str(folder/out), '--quiet', *SETTINGS]
    if what[0] == 'search': command += [f'--set=search.{s}' for s in ('log_every=3', 'memory=.5', 'common=removed')]
    return subprocess.run(command, env=env, capture_output=True, timeout=300).returncode


def only(folder, name):
    found = list(folder.rglob(name))
    assert len(found) == 1, found
    return found[0]


@pytest.mark.situation('a training that was killed in the midst of a step', 'the same command goes on from the last checkpoint; the same weights to the last bit')
@pytest.mark.parametrize('step', random.Random(6).sample(range(24), 24)[:KILLS])                  # before the first checkpoint, too
def test_training(place, step):
    out = f'training-{step}'
    assert run(place, out, ('train', 'hand-made'), step) == -signal.SIGKILL and not list((place/out).rglob('record.json'))
    assert run(place, out, ('train', 'hand-made')) == 0
    one, two = (load_file(only(place/folder, 'model.safetensors')) for folder in ('unbroken', out))
    assert one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


@pytest.mark.situation('a search that was killed in the midst of a step', 'the same command goes on from the last checkpoint; the same policy to the last bit')
@pytest.mark.parametrize('step', [57, *random.Random(7).sample(range(64), 64)][:KILLS])           # its state is kept every 50 steps
def test_search(place, step):
    out = f'search-{step}'
    assert run(place, out, ('search',), step) == -signal.SIGKILL and not list((place/out).rglob('record.json'))
    assert run(place, out, ('search',)) == 0
    for name in ('policy.json', 'policy.csv'):
        one, two = (only(p, name).read_bytes() for p in sorted((place/'unbroken').glob('records/*/search*')) + sorted((place/out).glob('records/*/search*')))
        assert one == two, name
