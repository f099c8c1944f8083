"Each preset runs, does what its name says, and the command prints where it departs from the paper's text."
import pytest, torch
from test_cli import coco, own_cache  # noqa: F401

from p2net.cli import main
from p2net.runs.config import make_config
from p2net.runs.data import load_people
from p2net.runs.presets import PRESETS
from p2net.runs.searching import Searcher
from p2net.runs.training import TrainingRun, learning_rate, make_network

SMALL = ['network.width=16', 'network.base_channels=8', 'search.batch=4', 'search.steps=2', 'search.warmup_steps=1', 'search.sub_policies=singles', 'training.batch=4']


@pytest.fixture(scope='module')
def people(tmp_path_factory):
    folder = tmp_path_factory.mktemp('presets')
    coco(folder/'data', n=8)
    return load_people(make_config('tiny', data=dict(source=str(folder/'data'))).data, folder/'cache', progress=False, say=lambda line: None)


@pytest.mark.parametrize('preset', PRESETS)
def test_a_search(preset, people, tmp_path):
    "Two steps after a warm-up; optimiser, estimator and noise of the preset."
    config = make_config('tiny', preset=preset, overrides=SMALL)
    search = Searcher(config, people.train, tmp_path, progress=False)
    assert search.run()
    optimizer, estimator = type(search.search.optimizer).__name__, type(search.search.estimator).__name__
    sgd = preset in ('paper', 'dada')
    assert (optimizer, estimator) == (('SGD', 'StraightThrough') if sgd else ('Adam', 'Paired'))
    if sgd: assert search.search.optimizer.defaults['momentum'] == dict(paper=0., dada=.9)[preset]
    rates = [row['zeta'] for row in search.history if row['split'] == 'search']
    assert rates == pytest.approx(dict(paper=[.08, .008], dada=[.1, .1]).get(preset, [5e-4, 5e-4]))    # 3 steps: the first milestone is step 2
    draws = search.policy.sample(40, torch.Generator().manual_seed(0))
    assert (len(draws.k.unique()) == 1) == (preset == 'dada')
    assert search.policy.drift() > 0


@pytest.mark.parametrize('preset', PRESETS)
def test_a_training(preset, people, tmp_path):
    "Adam with the rate, weight decay, schedule and number of hard joints of the preset."
    from p2net.da2.controls import HandMade
    config = make_config('tiny', preset=preset, overrides=SMALL)
    run = TrainingRun(config, make_network(config, len(people.skeleton)), people.train, HandMade(), tmp_path)
    literal = preset in ('paper', 'cpn')
    assert run.optimizer.defaults['lr'] == (5e-4 if literal else 1e-3) and run.optimizer.defaults['weight_decay'] == 1e-5
    assert config.training.alpha == (8 if preset == 'cpn' else 10)
    at = [learning_rate(step, config.training.model_copy(update=dict(batch=32))) for step in (0, 112499, 112500)] if literal else []
    assert at == ([5e-4, 5e-4, 2.5e-4] if literal else [])


@pytest.mark.parametrize('preset, says', [('paper', 'C-27: search.candidates is 4'), ('dada', 'C-32: search.noise is batch'), ('cpn', 'C-90: training.alpha is 8'),
                                          ('recommended', 'C-33: search.estimator is paired')])
def test_the_command_prints_departures(tmp_path, capsys, monkeypatch, preset, says):
    monkeypatch.setattr('p2net.runs.runners.run_experiment', lambda config, context: dict(status='complete', metrics={}))
    assert main(['search', '--preset', preset, '--data', str(coco(tmp_path/'data')), '--out', str(tmp_path/'out'), '--quiet']) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith(says) for line in lines) and sum(line.endswith('(no switch)') for line in lines) >= 4
    assert any('C-33' in line for line in lines) == (preset in ('cpn', 'recommended'))


@pytest.mark.situation('`p2net search --scale paper` without `--data`', 'one line: there are no rendered people at this scale; name the folder of a data set with --data', theme='Settings')
@pytest.mark.parametrize('words', [('search',), ('train', 'hand-made'), ('reproduce',)])
def test_the_scale_paper_needs_a_data_set(tmp_path, capsys, words):
    assert main([*words, '--scale', 'paper', '--set', 'network.weights=null', '--out', str(tmp_path), '--quiet']) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert 'there are no rendered people at this scale; name the folder of a data set, for example --data ../coco' in line
