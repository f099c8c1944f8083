"""Evaluation on another data set, and training from the weights of another network: the whole path on two small folders in the layouts of
LSPET and LSP, made from rendered people; and the real LSP, where it lies beside the repository."""
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy.io import savemat

from forked import forked
from p2net.evaluation.bootstrap import read_people
from p2net.people import matlab
from p2net.people.folder import find_people
from p2net.people.person import box_to_frame
from p2net.people.skeleton import SKELETONS, convert
from p2net.reproduce import reproduce
from p2net.runs.data import people_folder
from p2net.runs.experiments import APART, EXPERIMENTS, OTHER_DATA, experiment_config, in_order
from p2net.runs.runners import RunContext, file_sha, run_experiment
from p2net.runs.other_data import NORMALISED_POSES, load_other_data, read_normalised_poses
from p2net.runs.record import environment, is_done, make_record, write_record
from samples import needs, sample

SMALL = ('data.train_people=8', 'data.val_people=4', 'data.render_seed=7', 'network.width=16', 'network.base_channels=8', 'policy=hand-made',
         'training.batch=4', 'training.steps=3')
LSP = SKELETONS['lsp14']


def as_lsp(folder, kind, people):
    "Rendered people as a folder of LSP (third number: occluded, from one) or LSPET (third number: labelled, from zero)."
    (folder/'images').mkdir(parents=True)
    numbers = np.zeros((len(people), 14, 3))
    for n, person in enumerate(people):
        shutil.copy(person.image, folder/'images'/f"im{n + 1:0{dict(lsp=4, lspet=5)[kind]}d}.jpg")
        xy, v = convert(person.joints, person.visibility, SKELETONS['people21'], LSP)
        numbers[n] = np.c_[xy + 1, v == 1] if kind == 'lsp' else np.c_[xy, v > 0]
    savemat(folder/'joints.mat', dict(joints=numbers.transpose(*dict(lsp=(2, 1, 0), lspet=(1, 2, 0))[kind])))
    return folder


@pytest.fixture(autouse=True, scope='module')
def reading_here():
    "The files of joints are whole: no process for each reading."
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matlab, 'read_in_subprocess', matlab.read_variables)
        yield


def render(data, cache):
    "Folder of the rendered people. The workers are forks of this process, which has imported everything."
    import kill
    from p2net.rendering import render as rendering
    rendering._start_worker = kill.Forked
    rendering.get_studio()
    return people_folder(data, cache, False)


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    "Every run of the chain: rendered people, a folder to continue training on, a folder to evaluate on."
    root = tmp_path_factory.mktemp('others')
    context = RunContext(root/'records', root/'work', root/'cache', progress=False)
    run = lambda name, source='rendered', **changes: run_experiment(
        experiment_config(name, source=source, overrides=(*SMALL, *(f'{k}={v}' for k, v in changes.items()))), context)
    base = experiment_config('p2net', overrides=SMALL)
    rendered = find_people(forked(render, base.data, context.cache))
    crowd = [*rendered.train(), *rendered.val()][:10]
    sports, test = as_lsp(root/'sports', 'lspet', crowd), as_lsp(root/'test', 'lsp', crowd[::-1])
    others = {'evaluation.other_data': str(test)}
    far = {'training.lr': .01, 'training.warmup_steps': 0}                                # far from the first weights
    records = {'p2net': run('p2net', **far), 'lsp-test': run('lsp-test', **others),
               'lspet-val': run('lspet-val', **{'evaluation.other_data': str(sports)}),
               **{f'{n}-lspet': run(n, str(sports), **others)
                  for n in ('p2net', 'rendered-init', 'lsp-test', 'lsp-test-rendered-init')}}
    return records, context, sports, test


def test_the_record_describes_the_people_evaluated(runs):
    "All held-out people of the other data set, whatever data.val_people says."
    records, context, sports, test = runs
    found = {'lsp': len(find_people(test).val()), 'lspet': len(find_people(sports).val())}
    for name, (kind, _, _) in OTHER_DATA.items():
        for there in {name, f'{name}-lspet'} & set(records):
            assert (records[there]['data']['val']['name'], records[there]['data']['val']['people']) == (kind, found[kind])
    assert records['lsp-test-lspet']['data']['val']['people'] == 5                      # the second half of ten
    assert records['lsp-test']['data']['train']['name'] == 'rendered'


def test_metrics_are_those_of_the_files_beside(runs):
    "PCK by record, by people.csv, by breakdown.csv and by poses.csv (all five people are among the 24)."
    records, context, _, test = runs
    for name in ('lsp-test', 'lsp-test-lspet', 'lsp-test-rendered-init-lspet'):
        folder, metrics = context.root/'tiny'/name/'0', records[name]['metrics']
        people, poses = read_people(folder), read_normalised_poses(folder)
        assert metrics['PCK@0.2'] == pytest.approx(people['PCK@0.2'].sum()/people['PCK@0.2/asked'].sum(), abs=1e-12)
        assert metrics['PCK@0.2'] == pytest.approx((poses.error.dropna() <= .2).mean(), abs=.03)   # four places
        parts = pd.read_csv(folder/'breakdown.csv').query('by == "joint"').set_index('group')['PCK@0.2']
        if 'neck' in parts: assert metrics['PCK@0.2/head'] == pytest.approx((parts['neck'] + parts['head_top'])/2, abs=1e-12)
        assert set(poses.joint) == set(LSP.joints) and len(poses) == 5*14
        assert {p.name for p in folder.iterdir()} == {'record.json', 'people.csv', 'breakdown.csv', NORMALISED_POSES}    # and no pixel
    assert read_normalised_poses(context.root/'tiny'/'p2net-lspet'/'0') is not None and read_normalised_poses(context.root/'tiny'/'p2net'/'0') is None


def test_the_mean_pose_is_that_of_the_training_people(runs):
    "Computed by hand: the mean in fractions of the frame over training people, placed in the frames of the people evaluated."
    records, context, sports, test = runs
    share = np.zeros((14, 2)); seen = np.zeros((14, 1))
    for p in find_people(sports).train()[:8]:
        center, size = box_to_frame(p.bbox, 72/96, 1.25)
        v = (p.visibility > 0)[:, None]
        share += np.where(v, (p.joints - center)/size, 0); seen += v
    right = asked = 0
    for p in find_people(test).val():
        center, size = box_to_frame(p.bbox, 72/96, 1.25)
        error = np.linalg.norm(center + size*share/np.maximum(seen, 1) - p.joints, axis=-1)
        torso = np.linalg.norm(p.joints[LSP.index('left_shoulder')] - p.joints[LSP.index('right_hip')])
        right += (error <= .2*torso).sum(); asked += 14
    for name in ('lsp-test-lspet', 'lsp-test-rendered-init-lspet'):
        assert records[name]['metrics']['mean-pose/PCK@0.2'] == pytest.approx(right/asked, abs=1e-6)


def test_training_starts_from_the_weights_of_rendered_people(runs):
    records, context, sports, _ = runs
    start, file = records['rendered-init-lspet']['init'], context.work/'tiny/p2net/0/model.safetensors'
    assert start['sha256'] == file_sha(file) and start['name'] == 'rendered' and len(start['anew']) == 10 and .5 < start['share'] < 1
    assert 'init' not in records['p2net-lspet']
    own, theirs = load_file(context.work/'tiny/rendered-init-lspet/0/model.safetensors'), load_file(file)
    alone = load_file(context.work/'tiny/p2net-lspet/0/model.safetensors')
    name = max((k for k in own if k not in start['anew'] and own[k].is_floating_point()), key=lambda k: own[k].numel())
    assert (own[name] - theirs[name]).abs().mean() < .2*(own[name] - alone[name]).abs().mean()   # three steps from one, far from the other


def test_naming_other_data_trains_nothing_again(runs):
    "`reproduce` with evaluation.other_data finds the network that was trained without it."
    _, context, sports, test = runs
    for name in ('p2net', 'rendered-init'):
        with_others = experiment_config(name, source=str(sports), overrides=(*SMALL, f'evaluation.other_data={test}'))
        assert with_others.evaluation.other_data is None and is_done(context.root, with_others)


def test_reproduce_does_what_is_missing(runs, tmp_path):
    "From a network that is there: one run for the test, in the order of what it needs."
    _, context, sports, test = runs
    out = context.root.parent
    (out/'again').mkdir()
    for part in ('records', 'work'): shutil.copytree(out/part, out/'again'/part)
    shutil.rmtree(out/'again/records/tiny/lsp-test-lspet')
    said, search = [], experiment_config('search', source=str(sports), overrides=SMALL)    # a search is among what p2net needs
    write_record(out/'again/records', make_record(search, 'complete', {}, environment(), {}, {}))
    reproduce(('lsp-test',), source=str(sports), overrides=(*SMALL, f'evaluation.other_data={test}'), out=out/'again',
              committed=tmp_path/'none', cache=context.cache, jobs=1, progress=False, say=said.append)
    assert said[0].startswith('3 runs, 2 of them complete already') and (out/'again/records/tiny/lsp-test-lspet/0/record.json').exists()


@pytest.mark.parametrize('name, source, changes, error', [
    ('lsp-test', 'sports', {}, 'name the folder of LSP people'),
    ('lsp-test', 'sports', {'evaluation.other_data': 'sports'}, "is a data set in LSPET's layout; this experiment needs LSP"),
    ('lspet-val', 'rendered', {'evaluation.other_data': 'nowhere'}, 'there is no such folder'),
    ('rendered-init', 'rendered', {}, 'continues on photographs; name their folder with --data'),
    ('p2net', 'sports', {'training.init': 'nowhere.safetensors'}, 'nowhere.safetensors: there is no such file'),
    ('p2net', 'sports', {'training.init': 'junk.safetensors'}, '0% of the weights fit'),
])
def test_faults_in_one_line(runs, tmp_path, name, source, changes, error):
    _, context, sports, _ = runs
    save_file({'junk': torch.zeros(3)}, tmp_path/'junk.safetensors')
    here = lambda v: str({'sports': sports, 'nowhere': tmp_path/'nowhere'}.get(v, tmp_path/v if v.endswith('.safetensors') else v))
    empty = RunContext(tmp_path/'records', tmp_path/'work', context.cache, progress=False)
    if name == 'lspet-val' or 'other_data' in str(changes): empty = RunContext(tmp_path/'records', context.work, context.cache, progress=False)
    config = experiment_config(name, source=here(source), overrides=(*SMALL, *(f'{k}={here(v)}' for k, v in changes.items())))
    with pytest.raises((ValueError, FileNotFoundError), match=error) as caught: run_experiment(config, empty)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('name, needed', [('lsp-test', 'p2net --scale tiny --seeds 0 --data '), ('rendered-init', 'p2net --scale tiny --seeds 0` first'),
                                          ('lsp-test-rendered-init', 'rendered-init --scale tiny --seeds 0 --data ')])
def test_what_is_needed_is_named(runs, tmp_path, name, needed):
    "The command that makes the weights: of the same people, or of rendered ones."
    _, context, sports, test = runs
    config = experiment_config(name, source=str(sports), overrides=(*SMALL, f'evaluation.other_data={test}'))
    with pytest.raises(ValueError, match=f'run `p2net train {needed}'):
        run_experiment(config, RunContext(tmp_path/'records', tmp_path/'work', context.cache, progress=False))


def test_in_no_group():
    assert not set(APART) & set(in_order(['all'])) and not set(APART) & set(in_order(['main']))
    assert {n for n, e in EXPERIMENTS.items() if e.kind == 'other_data'} == set(OTHER_DATA) <= set(APART)


@needs('data/lsp')
@needs('data/lspet')
def test_the_real_thousand():
    "LSP: 1,000 people, all 14 joints of all of them asked for, a head segment for nearly all."
    config = experiment_config('lsp-test', overrides=(f"evaluation.other_data={sample('data/lsp')}",))
    pack, about = load_other_data(config, 'lsp', progress=False)
    assert (len(pack), about['name'], (pack.visibility > 0).all()) == (1000, 'lsp', True)
    assert np.isfinite(pack.head_size).mean() > .99
