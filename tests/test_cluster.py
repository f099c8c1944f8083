"""Runs sent away leave the records that runs here leave: through submitit to processes of this machine, and to a Slurm that is a page of Python
(it asks what a batch script asks for, starts its tasks, takes its node away once). What fails there is said here in one line."""
import json, os, sys
from pathlib import Path

import pytest
from test_cli import coco, own_cache  # noqa: F401

from p2net.cli import main
from p2net.runs.cluster import Cluster, make_executor
from p2net.errors import InputError
from p2net.reproduce import run_missing
from p2net.runs.experiments import experiment_config
from p2net.runs.runners import RunContext

submitit = pytest.importorskip('submitit', reason="no submitit, an optional library: pip install -e '.[cluster]'")
ROOT = Path(__file__).resolve().parents[1]
SETTINGS = [f'--set={s}' for s in ('network.width=16', 'network.base_channels=8', 'network.depth=18', 'training.steps=10', 'training.batch=4', 'training.warmup_steps=5',
                                   'training.checkpoint_every=5', 'training.precision=fp32')]


@pytest.fixture(autouse=True)
def jobs_find_us(monkeypatch):
    "Jobs import this checkout, on the processor, one thread each."
    for name, value in dict(PYTHONPATH=str(ROOT), OMP_NUM_THREADS='1', ACCELERATE_USE_CPU='true').items(): monkeypatch.setenv(name, value)


def reproduce(*words): return main(['reproduce', '--data', 'data', '--out', 'out', '--quiet', *SETTINGS, *words])


def records(): return {p.parent.parent.name: json.loads(p.read_text()) for p in Path('out').rglob('record.json')}


def test_a_run_is_a_job(tmp_path, capfd):
    coco(tmp_path/'data')
    assert reproduce('--experiments', 'mean-pose', '--cluster', 'local', '--jobs', '2', '--cluster-set', 'timeout_min=5') == 0
    assert {name: r['status'] for name, r in records().items()} == {'mean-pose-coco': 'complete'}
    assert len(list(Path('out/work/jobs').glob('*_submitted.pkl'))) == 1
    assert '1 runs, 0 of them complete already' in capfd.readouterr().out


@pytest.mark.skipif(not Path('/proc/self/environ').exists(), reason='finds the processes of a job under /proc')
def test_a_job_that_fails_takes_nothing_with_it(tmp_path, monkeypatch):
    "One raises, one is killed without a word; the third is done, and what failed is named with its reason."
    coco(tmp_path/'data')
    asked = [experiment_config(name, source=str(tmp_path/'data'), overrides=('network.width=16', 'network.base_channels=8', 'training.batch=4', *more))
             for name, more in (('mean-pose', ()), ('untrained', ('network.weights=absent.safetensors',)), ('hand-made', ('training.steps=100000',)))]
    monkeypatch.setattr(submitit.core.core.Job, '_results_timeout_s', 1)          # how long a result that isn't there is waited for
    sent, executor = {}, make_executor('local', tmp_path/'jobs')
    submit = executor.submit
    def noted(job, config, *more): return sent.setdefault(config.run_name, submit(job, config, *more))     # they are sent in any order
    executor.submit = noted
    def say(text):
        if 'untrained' in text or 'mean-pose' in text: said.append(text)
        if len(said) == 2: sent['hand-made-coco']._process.kill(); os.system(f"kill -9 {' '.join(tasks_of(sent['hand-made-coco']))}")  # controller and task
    said = []
    with pytest.raises(InputError) as error: run_missing(asked, RunContext(tmp_path/'records', tmp_path/'work'), Cluster(executor, 3, 1, pause=.3), say)
    text = str(error.value)
    assert text.count('tiny/') == 2 and 'tiny/untrained-coco/0: absent.safetensors: there is no such file of weights' in text
    assert 'tiny/hand-made-coco/0: Job ' in text and 'has not produced any output (state: INTERRUPTED)' in text
    found = {p.parent.parent.name: json.loads(p.read_text())['status'] for p in (tmp_path/'records').rglob('record.json')}
    assert found == {'mean-pose-coco': 'complete', 'untrained-coco': 'failed'}


def tasks_of(job):
    "Process numbers of a local job's tasks, as strings."
    environment = f'SUBMITIT_LOCAL_JOB_ID={job.job_id}'.encode()
    def of_job(p):
        try: return environment in (p/'environ').read_bytes().split(b'\0')
        except OSError: return False
    return [p.name for p in Path('/proc').iterdir() if p.name.isdigit() and of_job(p)]


def test_without_submitit(tmp_path, capsys, monkeypatch):
    coco(tmp_path/'data')
    monkeypatch.setitem(sys.modules, 'submitit', None)
    assert reproduce('--experiments', 'mean-pose', '--cluster', 'slurm') == 2
    assert capsys.readouterr().err.splitlines() == ['p2net reproduce: --cluster needs submitit: pip install -e .[cluster]']


@pytest.mark.parametrize('words, says', [(('--cluster-set', 'gpus_per_node=1'), 'has no effect without --cluster'),
                                         (('--cluster', 'local', '--cluster-set', 'gpus_per_node'), 'expected NAME=VALUE'),
                                         (('--cluster', 'local', '--cluster-set', 'slurm_gpu=1'), "Unknown argument 'gpu'"),
                                         (('--cluster', 'slurm'), 'srun')])
def test_what_is_asked_of_the_cluster(tmp_path, capsys, monkeypatch, words, says):
    coco(tmp_path/'data')
    monkeypatch.setenv('PATH', str(tmp_path))                                     # no Slurm here
    assert reproduce('--experiments', 'mean-pose', *words) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and says in said[0]


# --- a Slurm of one page ---

SLURM = """#!{python}
import json, os, re, signal, subprocess, sys, time
from pathlib import Path
me = Path(sys.argv[0])
tool, words, home, books = me.name, sys.argv[1:], me.parent, me.parent/'books.json'
state = json.loads(books.read_text()) if books.exists() else dict()
def write(number, value): books.write_text(json.dumps(state | dict([(number, value)])))
if tool == 'sbatch':
    number = str(len(state) + 41)
    (home/(number + '.sh')).write_text(Path(words[0]).read_text())
    write(number, 'RUNNING')
    subprocess.Popen([home/'batch', number], start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    print('Submitted batch job', number)
elif tool == 'batch':
    number, script = words[0], home/(words[0] + '.sh')
    tasks = (re.findall(r'--ntasks-per-node=(\\d+)', script.read_text()) or ['1'])[0]
    slurm = dict(SLURM_JOB_ID=number, SLURM_NTASKS=tasks, SLURM_JOB_NUM_NODES='1', SLURM_NODEID='0', SLURM_JOB_NODELIST='localhost')
    subprocess.run(['bash', script], env=os.environ | slurm)
    while (home/'requeue').exists():
        (home/'requeue').unlink()
        subprocess.run(['bash', script], env=os.environ | slurm)
    write(number, 'COMPLETED')
elif tool == 'srun':
    number, program = os.environ['SLURM_JOB_ID'], words[words.index('{python}'):]
    started = []
    for task in range(int(os.environ['SLURM_NTASKS'])):
        log = open(words[words.index('--error') + 1].replace('%j', number).replace('%t', str(task)), 'a')
        started.append(subprocess.Popen(program, env=os.environ | dict(SLURM_PROCID=str(task), SLURM_LOCALID=str(task)), stdout=log, stderr=log))
    taken = home/'take-node-at'                                                   # holds the file at whose sight the node is taken away
    while taken.exists() and started[0].poll() is None:
        if Path(taken.read_text()).exists():
            taken.unlink()
            started[0].send_signal(signal.SIGUSR2)
        time.sleep(.05)
    for task in started: task.wait()
elif tool == 'scontrol': (home/'requeue').touch()
elif tool == 'sacct': print('JobID|State|NodeList', *(n + '|' + s + '|localhost' for n, s in state.items()), sep=chr(10))
"""


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    "The folder of Slurm's commands, first on the path."
    home = tmp_path/'slurm'
    home.mkdir()
    for tool in ('sbatch', 'batch', 'srun', 'scontrol', 'sacct', 'scancel'):
        (home/tool).write_text(SLURM.replace('{python}', sys.executable))
        (home/tool).chmod(0o755)
    monkeypatch.setenv('PATH', f"{home}:{os.environ['PATH']}")
    return home


def test_slurm_runs_two_processes(tmp_path, slurm):
    coco(tmp_path/'data')
    settings = ('slurm_partition=gpu', 'tasks_per_node=2', 'timeout_min=30')
    assert reproduce('--experiments', 'hand-made', '--cluster', 'slurm', *(w for s in settings for w in ('--cluster-set', s))) == 0
    record = records()['hand-made-coco']
    assert record['status'] == 'complete' and record['cost']['processes'] == 2
    script = (slurm/'41.sh').read_text()
    for asked in ('--partition=gpu', '--ntasks-per-node=2', '--time=30', '--job-name=p2net'): assert f'#SBATCH {asked}\n' in script
    assert '--kill-on-bad-exit=1' in script


def test_a_job_whose_node_is_taken_away_goes_on(tmp_path, slurm):
    "From its checkpoint: the second attempt writes no line of the curve that the first had written."
    coco(tmp_path/'data')
    work = Path('out/work/tiny/hand-made-coco/0').absolute()
    (slurm/'take-node-at').write_text(str(work/'checkpoint'/'progress.json'))
    assert reproduce('--experiments', 'hand-made', '--cluster', 'slurm', '--set', 'training.steps=40') == 0
    record, log = records()['hand-made-coco'], next(Path('out/work/jobs').glob('41_0_log.err')).read_text()
    assert record['status'] == 'complete' and record['cost']['steps'] == 40
    assert 'this job is preempted' in log and log.count('Starting with JobEnvironment') == 2
