"Two processes train what one does, and a process that dies ends the run: launched as a user would, on the processor, over gloo."
import json, os, subprocess, sys
from pathlib import Path

import pandas as pd, pytest, torch
from safetensors.torch import load_file
from test_cli import coco

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = [f'--set={s}' for s in ('training.steps=30', 'training.batch=4', 'training.warmup_steps=5', 'training.checkpoint_every=10', 'training.precision=fp32',
                                   'network.width=16', 'network.base_channels=8', 'search.batch=8', 'search.warmup_steps=2', 'search.steps=2', 'search.sub_policies=singles')]


def command(folder, what, *words, processes=1, program=('-m', 'p2net')):
    "p2net with these words under so many processes."
    launch = ['-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', str(processes)] if processes > 1 else []
    return [sys.executable, *launch, *program, *what, '--data', str(folder/'data'), '--out', str(folder/f'out{processes}'), *SETTINGS, *words]


def environment(folder, processes):
    return os.environ | dict(PYTHONPATH=str(ROOT), P2NET_CACHE=str(folder/'cache'), OMP_NUM_THREADS='1', ACCELERATE_USE_CPU='true')


def run(folder, *args, processes=1, **kwargs):
    return subprocess.run(command(folder, *args, processes=processes, **kwargs), env=environment(folder, processes), capture_output=True, text=True, timeout=300)


QUIET_END = """
code = main(sys.argv[1:])
left = [task.read_text().strip() for task in Path('/proc/self/task').glob('*/comm')]
assert not [name for name in left if 'gloo' in name], left                  # they could bring Python down as it ends
sys.exit(code)
"""
DOUBLE = """
import sys, torch
from pathlib import Path
import p2net.runs.experiments as experiments
from p2net.cli import main
from p2net.runs.training import Trainer
make, batch = experiments.make_network, Trainer.batch
experiments.make_network = lambda *args: make(*args).double()
Trainer.batch = lambda self, step: tuple(t.double() for t in batch(self, step))
experiments.measured, experiments.size_of = lambda *args, **kwargs: ({}, None), lambda *args: {}
experiments.by_person = experiments.taken_apart = experiments.write_sticks = experiments.results_of = experiments.write_evaluation = lambda *args: []
""" + QUIET_END


def test_two_processes_train_what_one_does(tmp_path):
    """The same global batch: the same losses and weights. In float64: Adam's first steps take a gradient of nothing but rounding as they take
    any other, so that float32 runs part after a few steps, on two machines as in two processes."""
    coco(tmp_path/'data', n=8)
    program, found = tmp_path/'double.py', {}
    program.write_text(DOUBLE)
    for processes in (1, 2):
        done = run(tmp_path, ('train', 'hand-made'), processes=processes, program=(str(program),))
        assert not done.returncode, done.stderr[-2000:]
        assert done.stdout.count('complete:') == 1                                              # one process speaks
        record = next((tmp_path/f'out{processes}').rglob('record.json'))
        found[processes] = (json.loads(record.read_text()), pd.read_csv(record.parent/'history.csv'),
                            load_file(next((tmp_path/f'out{processes}').rglob('model.safetensors'))))
    (one, curve, weights), (two, again, theirs) = found[1], found[2]
    losses = [h[h.split == 'train'].loss.to_numpy() for h in (curve, again)]
    assert len(losses[0]) == 2 and losses[1] == pytest.approx(losses[0], rel=1e-6)
    for name, weight in weights.items(): assert torch.allclose(weight, theirs[name], rtol=1e-4, atol=1e-6), name
    assert two['cost']['processes'] == 2 and 'processes' not in one['cost']


def test_two_processes_search_one_policy(tmp_path):
    coco(tmp_path/'data', n=16)
    program = tmp_path/'searches.py'
    program.write_text("import sys\nfrom pathlib import Path\nfrom p2net.cli import main\n" + QUIET_END)
    done = run(tmp_path, ('search',), processes=2, program=(str(program),))
    assert not done.returncode, done.stderr[-2000:]
    record = json.loads(next((tmp_path/'out2').rglob('record.json')).read_text())
    assert record['status'] == 'complete' and record['metrics']['drift'] > 0 and record['cost']['processes'] == 2


def test_a_process_that_dies_ends_the_run(tmp_path):
    "SIGKILL to process 1 in the middle: the other is ended, the exit code says so, and nothing waits."
    coco(tmp_path/'data', n=8)
    program = tmp_path/'dies.py'
    program.write_text("""
import os, signal, sys
from p2net.cli import main
from p2net.runs.training import Trainer
step = Trainer.step
def dies(self, *args):
    if self.step_done == 12 and os.environ['RANK'] == '1': os.kill(os.getpid(), signal.SIGKILL)
    return step(self, *args)
Trainer.step = dies
sys.exit(main(sys.argv[1:]))
""")
    done = run(tmp_path, ('train', 'hand-made'), processes=2, program=(str(program),))
    assert done.returncode and 'SIGKILL' in done.stderr              # and did so before `run` lost patience
    assert not [r for r in (tmp_path/'out2').rglob('record.json') if json.loads(r.read_text())['status'] == 'complete']
    assert list((tmp_path/'out2').rglob('progress.json'))                                       # the checkpoint of step 10 is whole
    done = run(tmp_path, ('train', 'hand-made'), processes=2)
    assert not done.returncode and 'complete:' in done.stdout


def test_people_that_cannot_be_shared_evenly(tmp_path):
    coco(tmp_path/'data', n=8)
    done = run(tmp_path, ('train', 'hand-made'), '--set=training.batch=3', processes=2)
    assert done.returncode and "3 people a step can't be shared by 2 processes" in done.stderr
