"Two processes train what one does, and a process that dies ends the run: on the processor, over gloo, once launched as a user would."
import json, os, socket, subprocess, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd, pytest, torch
from forked import forked
from safetensors.torch import load_file
from test_cli import coco

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = [f'--set={s}' for s in ('data.input_size=[64,48]', 'training.steps=30', 'training.batch=4', 'training.warmup_steps=5', 'training.checkpoint_every=10',
                                   'training.precision=fp32', 'network.width=16', 'network.base_channels=8', 'search.batch=8', 'search.warmup_steps=2', 'search.steps=2', 'search.sub_policies=singles')]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    "People for all tests; each has its own folder of results."
    folder = tmp_path_factory.mktemp('processes')
    coco(folder/'data', n=16)
    return folder


def words(folder, out, *what): return [*what, '--data', str(folder/'data'), '--out', str(folder/out), '--quiet', *SETTINGS]


def double():
    "Networks and batches in float64, and nothing but the training."
    from p2net.runs import runners, training
    make, batch = runners.make_network, training.TrainingBatches.__call__
    runners.make_network = lambda *args: make(*args).double()
    training.TrainingBatches.__call__ = lambda self, step: tuple(t.double() for t in batch(self, step))
    runners.measure_val, runners.size_of = lambda *args, **kwargs: ({}, None), lambda *args: {}
    runners.by_person = runners.breakdown_rows = runners.write_normalised_poses = runners.results_of = runners.write_evaluation = lambda *args: []


def one_rank(folder, argv, rank, processes, port, change=None):
    "Exit code and standard output and error of a p2net command as one of so many processes."
    import contextlib, io
    os.environ.update(P2NET_CACHE=str(folder/'cache'), ACCELERATE_USE_CPU='true')
    if processes > 1: os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(processes), MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port))
    from p2net.cli import main
    if change: change()
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said): code = main(argv)
    left = [task.read_text().strip() for task in Path('/proc/self/task').glob('*/comm')]
    if not code: assert not [name for name in left if 'gloo' in name], left           # they could bring Python down as it ends
    return code, said.getvalue()


def run(folder, argv, processes, change=None):
    "The same of all processes, of forks of one server: torch is imported once."
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    with ThreadPoolExecutor(processes) as pool:
        return list(pool.map(lambda rank: forked(one_rank, folder, argv, rank, processes, port, change), range(processes)))


def test_two_processes_train_what_one_does(folder):
    """The same global batch: the same losses and weights. In float64: Adam's first steps take a gradient of nothing but rounding as they take
    any other, so that float32 runs part after a few steps, on two machines as in two processes."""
    found = {}
    for processes in (1, 2):
        done = run(folder, words(folder, f'double{processes}', 'train', 'hand-made'), processes, double)
        assert [code for code, _ in done] == [0]*processes, done
        assert ''.join(said for _, said in done).count('complete:') == 1                         # one process prints
        record = next((folder/f'double{processes}').rglob('record.json'))
        found[processes] = (json.loads(record.read_text()), pd.read_csv(record.parent/'history.csv'),
                            load_file(next((folder/f'double{processes}').rglob('model.safetensors'))))
    (one, curve, weights), (two, again, theirs) = found[1], found[2]
    losses = [h[h.split == 'train'].loss.to_numpy() for h in (curve, again)]
    assert len(losses[0]) == 2 and losses[1] == pytest.approx(losses[0], rel=1e-6)
    for name, weight in weights.items(): assert torch.allclose(weight, theirs[name], rtol=1e-4, atol=1e-6), name
    assert two['cost']['processes'] == 2 and 'processes' not in one['cost']


def test_two_processes_search_one_policy(folder):
    done = run(folder, words(folder, 'search2', 'search'), 2)
    assert [code for code, _ in done] == [0, 0], done
    record = json.loads(next((folder/'search2').rglob('record.json')).read_text())
    assert record['status'] == 'complete' and record['metrics']['drift'] > 0 and record['cost']['processes'] == 2


def test_a_process_that_dies_ends_the_run(folder):
    "SIGKILL to process 1 in the middle, under torchrun: the other is ended, the exit code says so, and nothing waits. The same command then goes on."
    program = folder/'dies.py'
    program.write_text("""
import os, signal, sys
from p2net.cli import main
from p2net.runs import training
step = training.train_step
def dies(run, *batch):
    if run.step_done == 12 and os.environ['RANK'] == '1': os.kill(os.getpid(), signal.SIGKILL)
    return step(run, *batch)
training.train_step = dies
sys.exit(main(sys.argv[1:]))
""")
    launch = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2', str(program)]
    environment = os.environ | dict(PYTHONPATH=str(ROOT), P2NET_CACHE=str(folder/'cache'), OMP_NUM_THREADS='1', ACCELERATE_USE_CPU='true')
    argv = words(folder, 'dies', 'train', 'hand-made')
    done = subprocess.run([*launch, *argv], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode and 'SIGKILL' in done.stderr              # and did so before `run` lost patience
    assert not [r for r in (folder/'dies').rglob('record.json') if json.loads(r.read_text())['status'] == 'complete']
    assert list((folder/'dies').rglob('progress.json'))                                         # the checkpoint of step 10 is whole
    done = run(folder, argv, 2)
    assert [code for code, _ in done] == [0, 0] and 'complete:' in done[0][1], done


def test_people_that_cannot_be_shared_evenly(folder):
    done = run(folder, [*words(folder, 'uneven', 'train', 'hand-made'), '--set=training.batch=3'], 2)
    assert all(code and "3 people a step can't be shared by 2 processes" in said for code, said in done), done
