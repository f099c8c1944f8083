"""PCK and PCKh: published numbers on real MPII predictions, loops, conventions, the mean pose."""
import json

import numpy as np
import pytest
import scipy.io

from p2net.evaluation.pck import head_box_size, mean_pose, pck, pck_table, pckh_table, place_pose, normalised_error, torso_size
from p2net.people.skeleton import SKELETONS, make_skeleton
from samples import DATA, needs

MPII = DATA/'mpii'
needs_mpii = needs('data/mpii')
COLUMNS = ('head', 'shoulder', 'elbow', 'wrist', 'hip', 'knee', 'ankle')
PUBLISHED = dict(hg_s2_b1=(95.80, 94.57, 88.12, 83.31, 86.24, 80.88, 77.44, 86.76), hg_s8_b1=(96.79, 95.19, 90.08, 85.32, 87.48, 84.26, 80.73, 88.64))
WEIGHTED = dict(hg_s2_b1=(87.30, 87.50), hg_s8_b1=(89.09, 89.23))      # as they are, and with one pixel added


@pytest.fixture(scope='module')
def mpii():
    "Annotation of the 2,958 people: joints, which are labelled, head sizes; and a reader of predictions."
    mat = scipy.io.loadmat(MPII/'annot'/'detections_our_format.mat')
    low, high = np.moveaxis(mat['headboxes_src'].astype(float), 2, 1)[:, :, :]
    head = head_box_size(np.concatenate([low, high - low], -1))
    return (np.moveaxis(mat['pos_gt_src'].astype(float), 2, 0), 1 - mat['jnt_missing'].T, head,
            lambda name: np.load(MPII/'reference_preds'/f'{name}.npz')['preds'].astype(float))


@needs_mpii
@pytest.mark.parametrize('model', PUBLISHED)
def test_published_pckh_to_the_last_printed_digit(mpii, model):
    true, labelled, head, predictions = mpii
    table = pckh_table(predictions(model), true, labelled, head, SKELETONS['mpii16'])
    printed = tuple(round(100*table[f'PCKh@0.5/{c}'], 2) for c in COLUMNS) + (round(100*table['PCKh@0.5/mean-of-joints'], 2),)
    assert printed == PUBLISHED[model]
    assert round(100*table['PCKh@0.5'], 2) == WEIGHTED[model][0]


@needs_mpii
@pytest.mark.parametrize('model', PUBLISHED)
def test_the_offset_trap(mpii, model):
    true, labelled, head, predictions = mpii
    table = pckh_table(predictions(model) + 1, true, labelled, head, SKELETONS['mpii16'])
    assert round(100*table['PCKh@0.5'], 2) == WEIGHTED[model][1]


@needs_mpii
def test_the_index_trap(mpii):
    "Entry 11 of a grid of hundredths is 0.11, and it is worth points."
    true, labelled, head, predictions = mpii
    table = pckh_table(predictions('hg_s2_b1'), true, labelled, head, SKELETONS['mpii16'], threshold=(.1, np.arange(0, .51, .01)[11]))
    assert round(100*table['PCKh@0.1'], 2) == 23.91 and table['PCKh@0.11'] > table['PCKh@0.1'] + .03


@needs_mpii
def test_every_number_computed_when_the_predictions_were_packed(mpii):
    "Five models, two offsets, two thresholds, four means and seven columns, against published code."
    true, labelled, head, predictions = mpii
    names = dict(Mean_weighted='', Mean_plain14='/mean-of-joints', Mean_7groups='/mean-of-columns', **{c.title(): f'/{c}' for c in COLUMNS})
    for key, numbers in json.loads((MPII/'reference_preds'/'pckh_computed.json').read_text()).items():
        model, offset, t = key.replace('@', '+').split('+')
        table = pckh_table(predictions(model) + int(offset), true, labelled, head, SKELETONS['mpii16'], float(t))
        for name, ours in names.items(): assert round(100*table[f'PCKh@{t}{ours}'], 2) == numbers[name], (key, name)


@needs_mpii
def test_head_sizes_are_mpiis_own(mpii):
    "0.6 of the diagonal is the `normalize` that the validation file carries."
    assert np.abs(mpii[2] - np.load(MPII/'annot'/'valid.npz')['normalize']).max() < 1e-3


def crowd(seed, n=25, name='people21'):
    rng, sk = np.random.default_rng(seed), SKELETONS[name]
    true = rng.uniform(0, 1, (n, len(sk), 2))*np.array([150, 400]) + rng.uniform(0, 300, (n, 1, 2))      # tall: h != w
    v = rng.choice((0, 1, 2), (n, len(sk)), p=(.2, .2, .6))
    return true, true + rng.normal(0, 40, true.shape), v, rng, sk


@pytest.mark.parametrize('name', SKELETONS)
@pytest.mark.parametrize('threshold', [.05, .2, .6])
def test_pck_table_by_loops(name, threshold):
    true, found, v, _, sk = crowd(1, name=name)
    table, (a, b) = pck_table(found, true, v, sk, threshold), sk.torso
    right, asked = np.zeros(len(sk)), np.zeros(len(sk))
    for i in range(len(true)):
        if not (v[i, a] and v[i, b]): continue
        torso = ((true[i, a, 0] - true[i, b, 0])**2 + (true[i, a, 1] - true[i, b, 1])**2)**.5
        for j in range(len(sk)):
            if not v[i, j]: continue
            asked[j] += 1
            right[j] += ((found[i, j, 0] - true[i, j, 0])**2 + (found[i, j, 1] - true[i, j, 1])**2)**.5 <= threshold*torso
    kept = [j for j, joint in enumerate(sk.joints) if joint not in ('pelvis', 'thorax')]
    assert len(kept) == dict(coco17=17, mpii16=14, lsp14=14, people21=19)[name]
    assert table[f'PCK@{threshold}'] == pytest.approx(right[kept].sum()/asked[kept].sum(), abs=1e-12)
    assert table[f'PCK@{threshold}/mean-of-joints'] == pytest.approx((right/asked)[kept].mean(), abs=1e-12)
    for part in COLUMNS[1:]:
        pair = [sk.index(f'left_{part}'), sk.index(f'right_{part}')]
        assert table[f'PCK@{threshold}/{part}'] == pytest.approx((right/asked)[pair].mean(), abs=1e-12)
    assert table[f'PCK@{threshold}/mean-of-columns'] == pytest.approx(np.mean([table[f'PCK@{threshold}/{c}'] for c in COLUMNS]), abs=1e-12)


@pytest.mark.parametrize('zoom', [.1, 7.])
def test_a_larger_photograph_changes_nothing(zoom):
    true, found, v, rng, sk = crowd(2)
    head = rng.uniform(30, 60, len(true))
    assert pck_table(zoom*found, zoom*true, v, sk, .3) == pytest.approx(pck_table(found, true, v, sk, .3), abs=1e-12)
    assert pckh_table(zoom*found, zoom*true, v, zoom*head, sk) == pytest.approx(pckh_table(found, true, v, head, sk), abs=1e-12)


def test_x_and_y_are_treated_alike():
    "Turned by 90 degrees, on tall people: a metric that scaled an axis by the wrong size would notice."
    true, found, v, _, sk = crowd(3)
    assert pck_table(found[..., ::-1], true[..., ::-1], v, sk) == pytest.approx(pck_table(found, true, v, sk), abs=1e-12)


def test_every_threshold_passed_is_used():
    true, found, v, rng, sk = crowd(4)
    head = rng.uniform(30, 60, len(true))
    ts = (.1, .3, .5, 1.)
    table = pckh_table(found, true, v, head, sk, ts)
    curve = [table[f'PCKh@{t:g}'] for t in ts]
    assert curve == sorted(curve) and len(set(curve)) == 4
    for t in ts: assert pckh_table(found, true, v, head, sk, t)[f'PCKh@{t:g}'] == table[f'PCKh@{t:g}']


def test_people_without_a_unit_and_joints_without_a_label_dont_count():
    true, found, v, rng, sk = crowd(5)
    head = rng.uniform(30, 60, len(true))
    kept = np.arange(len(true)) % 3 > 0
    for nothing in (np.nan, 0., -1.):
        assert pckh_table(found, true, v, np.where(kept, head, nothing), sk) == pckh_table(found[kept], true[kept], v[kept], head[kept], sk)
    wild = np.where(v[..., None] > 0, found, np.nan)                       # whatever is said of unlabelled joints
    assert pckh_table(wild, true, v, head, sk) == pckh_table(found, true, v, head, sk)
    v[:, sk.index('left_ankle')] = 0                                       # a column with one side labelled
    table = pckh_table(found, true, v, head, sk)
    error = normalised_error(found, true, v, head)[:, sk.index('right_ankle')]
    assert table['PCKh@0.5/ankle'] == pytest.approx((error[np.isfinite(error)] <= .5).mean(), abs=1e-12)
    assert pckh_table(found, true, v, head*np.nan, sk) == {} and pck_table(found[:0], true[:0], v[:0], sk) == {}


def test_the_boundary_is_correct():
    true = np.zeros((1, 3, 2))
    found = np.array([[[3., 4.], [0., 5.], [0., np.nextafter(5, 6)]]])
    assert pck(found, true, np.ones((1, 3)), np.array([10.]), .5) == pytest.approx(2/3)


def test_a_skeleton_without_torso_is_refused():
    sk = make_skeleton('hand', ('palm', 'tip'), flip_pairs=[], sigmas=(.1, .1))
    with pytest.raises(ValueError, match="'hand' has no torso"): torso_size(np.zeros((2, 2, 2)), np.ones((2, 2)), sk)


def test_mean_pose_by_loops_on_tall_frames():
    true, _, v, rng, sk = crowd(6)
    center, size = rng.uniform(100, 300, (len(true), 2)), rng.uniform(50, 100, (len(true), 1))*np.array([3., 4.])
    v[:, 4] = 0
    pose = mean_pose(true, v, center, size)
    for j in range(len(sk)):
        rows = [i for i in range(len(true)) if v[i, j]]
        for axis in (0, 1):
            wanted = sum((true[i, j, axis] - center[i, axis])/size[i, axis] for i in rows)/len(rows) if rows else 0
            assert pose[j, axis] == pytest.approx(wanted, abs=1e-12)
    placed = place_pose(pose, center, size)
    assert placed[7, 2] == pytest.approx(center[7] + size[7]*pose[2], abs=1e-12) and (placed[:, 4] == center).all()


def test_mean_pose_is_exact_for_equal_poses():
    "PCK is 1 if all people have the same pose, at any size and position."
    rng, sk = np.random.default_rng(7), SKELETONS['lsp14']
    shape = rng.uniform(-.4, .4, (14, 2))
    center, size = rng.uniform(100, 300, (20, 2)), rng.uniform(50, 100, (20, 1))*np.array([3., 4.])
    true, v = place_pose(shape, center, size), np.full((20, 14), 2)
    pose = mean_pose(true[:10], v[:10], center[:10], size[:10])
    assert set(pck_table(place_pose(pose, center[10:], size[10:]), true[10:], v[10:], sk, .001).values()) == {1.}
