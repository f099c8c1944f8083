"""The policy card: files that are missing or don't belong together, other estimators, other formats, the command."""
import json, math, shutil
from pathlib import Path

import matplotlib
import pytest
import torch

matplotlib.use('Agg')
from p2net.da2 import Policy
from p2net.errors import InputError
from p2net.report import card
from p2net.report.card import control_of, drift_summary, network_passes, policy_card, read_search
from p2net.runs.noise_band import search_on_noise
from p2net.runs.sub_policies import likeliest_sub_policies, sub_policy_text

RUNS = Path(__file__).resolve().parents[1]/'paper_results'/'runs'/'tiny'
DARK, NONE = RUNS/'shift-dark'/'0', RUNS/'shift-none'/'0'


@pytest.fixture
def folder(tmp_path):
    "The records of a search and of its control, free to be broken."
    for source in (DARK, NONE): shutil.copytree(source, tmp_path/'tiny'/source.parent.name/'0')
    return tmp_path/'tiny'/'shift-dark'/'0'


def change(folder, **more):
    "A record with some of its settings changed: 'search' settings by name, other keys as they are."
    record = json.loads((folder/'record.json').read_text())
    for key, value in more.items():
        if key in record['config']['search']: record['config']['search'][key] = value
        else: record[key] = value
    (folder/'record.json').write_text(json.dumps(record))


def words(fig):
    "All that is written on a card outside of the axes' own labels."
    texts = [*fig.texts, *(t for ax in fig.axes for t in ax.texts)]
    return ' '.join(' '.join([t.get_text() for t in texts] + [ax.get_title('left') for ax in fig.axes]).split())


def test_pdf_and_what_it_says(folder, tmp_path):
    fig = policy_card(folder, tmp_path/'card.pdf')
    assert (tmp_path/'card.pdf').read_bytes().startswith(b'%PDF')
    said, search = words(fig), read_search(folder)
    assert 'shift-dark, seed 0, scale tiny' in said and f"Drift {search.found.drift():.2f}" in said and 'With no injected shift: ' in said
    for k in likeliest_sub_policies(search.found, 10): assert sub_policy_text(search.found, k) in said
    assert f"{search.record['cost']['wall_s']:.0f} s" in said and 'No other seed has a record here' in said


@pytest.mark.parametrize('name', ['record.json', 'policy.csv', 'history.csv', 'policy.json'])
def test_a_missing_file_is_named(folder, name):
    (folder/name).unlink()
    with pytest.raises(InputError, match=f'{folder/name}: there is no such file') as error: policy_card(folder)
    assert '\n' not in str(error.value)


def test_only_the_same_search_is_a_control(folder):
    assert control_of(read_search(folder)).name == 'shift-none, seed 0'
    control = folder.parents[1]/'shift-none'/'0'
    change(control, steps=7)
    assert control_of(read_search(folder)) is None
    change(control, steps=read_search(folder).settings['steps'], status='stopped')
    assert control_of(read_search(folder)) is None
    shutil.rmtree(control)
    assert 'no complete record' in drift_summary(read_search(folder), control_of(read_search(folder)))[-1]


def test_other_estimators_say_what_is_not_known(folder):
    change(folder, estimator='alignment', status='stopped')
    (folder/'noise.csv').unlink()
    search = read_search(folder)
    assert search.noise == [] and network_passes(search.settings) is None
    said = words(policy_card(folder))
    assert "not computed for the estimator 'alignment'" in said and "passes not known for 'alignment'" in said and 'Status stopped.' in said


def test_without_people_the_sub_policies_are_text(folder, monkeypatch):
    monkeypatch.setattr(card, 'example_people', lambda folder: None)
    said = words(policy_card(folder))
    assert 'no example people' in said and 'brightness' in said


def test_noise_is_seeded_and_starts_at_the_start():
    settings = dict(batch=8, candidates=4, compared=1., decay=0., jitter=.5, policy_lr=.05, steps=6, log_every=4)
    policy = Policy(['rotate', 'invert', 'cutout'], p=.3, m=.6)
    with torch.no_grad(): policy.pi_logits.add_(torch.tensor([3., 0, 0]))             # where it ended plays no part
    path = search_on_noise(policy, settings, 1)
    assert path.step.tolist() == [0, 4, 6] and path.drift[0] < 1e-7 and abs(path.entropy[0] - math.log(3)) < 1e-9  # logits are float32
    assert path.equals(search_on_noise(policy, settings, 1)) and not path.equals(search_on_noise(policy, settings, 2))
    assert path.drift.iloc[-1] > 0


def test_other_seeds_are_listed(folder):
    shutil.copytree(folder, folder.parent/'3')
    change(folder.parent/'3', seed=3)
    assert card.other_seeds(read_search(folder))[0].startswith('seed 3: drift 0.')


def test_command(folder, tmp_path, capsys):
    from p2net.cli import main
    assert main(['card', str(folder), str(tmp_path/'card.png')]) == 0 and (tmp_path/'card.png').stat().st_size > 50_000
    assert 'card in' in capsys.readouterr().out
    assert main(['card', str(tmp_path/'nowhere'), str(tmp_path/'x.png')]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
