"""Skeletons, persons, heatmaps, drawings: long lists of cases, faults, and comparisons with other libraries and real files."""
import json, os, pickle
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from p2net.people.drawing import as_picture, draw_person, limb_side, paint_person, show_people
from p2net.people.heatmaps import cpn_sigmas, default_sigma, joint_weights, render_heatmaps
from p2net.people.person import (Person, box_to_frame, compose_affine, example_person, flip_joints, frame_to_matrix, from_heatmap,
                                 invert, to_heatmap, transform)
from p2net.people.skeleton import PARTS, SKELETONS, Skeleton, convert, example_pose, load_skeleton, make_skeleton
from samples import DATA, needs, needs_gpu, sample

ROOT = Path(__file__).resolve().parents[1]
NAMES = list(SKELETONS)


# ---- skeletons

@pytest.mark.parametrize('name', NAMES)
def test_skeleton_is_frozen_hashable_and_picklable(name):
    sk = SKELETONS[name]
    assert pickle.loads(pickle.dumps(sk)) == sk and hash(sk) == hash(replace(sk))
    with pytest.raises(AttributeError): sk.name = 'other'


@pytest.mark.parametrize('name', NAMES)
def test_groups_of_the_paper_are_complete(name):
    "Limb columns hold one left and one right joint each; together with the head no joint is in two columns."
    sk = SKELETONS[name]
    assert tuple(sk.groups) == PARTS
    for column in PARTS[1:]: assert sorted(sk.sides[i] for i in sk.groups[column]) == ['left', 'right']
    flat = [i for c in sk.groups.values() for i in c]
    assert len(flat) == len(set(flat))


def test_every_single_fault_in_a_flip_pair_is_seen():
    "Any pair of coco17 replaced by any other is refused, unless it is the right one (or leaves the pair out of nothing)."
    sk, refused = SKELETONS['coco17'], 0
    for k, (left, right) in enumerate(sk.flip_pairs):
        for a in range(len(sk)):
            if a == right: continue
            pairs = sk.flip_pairs[:k] + ((left, a),) + sk.flip_pairs[k+1:]
            if sk.joints[a] == 'nose': continue  # the one joint that is free: a wrong pair no rule can see
            with pytest.raises(ValueError, match='flip_pairs'): replace(sk, flip_pairs=pairs)
            refused += 1
    assert refused == 8*15


FAULTS = [
    ("", "expected fields"), ("joints:", "joints is missing"), ("joints: []", "flip_pairs can't be read"),
    ("joints: [left_a, right_a, 3]", "joints must be a list of names"),
    ("joints: [left_hip, right_hip]\nlimbs: [[0, 7]]", "limbs points at joint 7"),
    ("joints: [left_hip, right_hip]\nlimbs: left_hip", "limbs must be a list of pairs"),
    ("joints: [left_hip, right_hip]\nsigmas: [.1]", "sigmas has 1 values for 2 joints"),
    ("joints: [left_hip, right_hip]\nsigmas: [0.1, -0.1]", "sigmas must be a list of numbers above 0"),
    ("joints: [left_hip, right_hip]\nsigmas: .1", "sigmas must be a list of numbers"),
    ("joints: [left_hip, right_hip]\ntorso: [left_hip]", "torso must be a pair"),
    ("joints: [left_hip, right_hip]\nhead: [left_hip, nose]", "head names 'nose'"),
    ("joints: [left_hip, right_hip]\ngroups: {hip: [left_hip, knee]}", "groups names 'knee'"),
    ("joints: [left_hip, right_hip]\nflip_pairs: [[right_hip, left_hip]]", "write the left joint first"),
    ("joints: [left_hip, right_hip, left_knee]", "'left_knee' has no 'right_knee'"),
    ("joints: [hip_1, hip_2]\nsigmas: [.1, .1]", "give the pairs"),
    ("joint: [left_hip, right_hip]", "unknown field 'joint'"),
    ("joints: [left_hip, right_hip]\nname: 7", "name must be a name"),
    ("\x00", "not readable as YAML"),
]


@pytest.mark.parametrize('text, message', FAULTS)
def test_faulty_skeleton_file_is_one_clear_line(tmp_path, text, message):
    path = tmp_path/'own.yaml'
    path.write_text(text)
    with pytest.raises(ValueError) as error: load_skeleton(path)
    said = str(error.value)
    assert message in said and said.startswith(str(path)) and '\n' not in said


def test_skeleton_file_that_is_no_text(tmp_path):
    (tmp_path/'own.yaml').write_bytes(b'\xff\xfe\x00joints')
    with pytest.raises(ValueError, match='is not UTF-8'): load_skeleton(tmp_path/'own.yaml')


def test_skeleton_file_with_everything(tmp_path):
    "All fields given, joints by name or by number, equal to the same skeleton made in Python."
    (tmp_path/'own.yaml').write_text("""
name: torso5
joints: [l_sho, r_sho, l_hip, r_hip, head]
limbs: [[l_sho, r_sho], [2, 3]]
flip_pairs: [[l_sho, r_sho], [l_hip, r_hip]]
sigmas: [0.079, 0.079, 0.107, 0.107, 0.05]
torso: [l_sho, r_hip]
groups: {shoulder: [l_sho, r_sho]}
""")
    assert load_skeleton(tmp_path/'own.yaml') == Skeleton(
        'torso5', ('l_sho', 'r_sho', 'l_hip', 'r_hip', 'head'), ((0, 1), (2, 3)), ((0, 1), (2, 3)),
        (.079, .079, .107, .107, .05), (0, 3), None, {'shoulder': (0, 1)})


@pytest.mark.parametrize('name', NAMES)
def test_every_skeleton_survives_its_own_yaml(tmp_path, name):
    import yaml
    sk = SKELETONS[name]
    fields = dict(name=sk.name, joints=[*sk.joints], limbs=[[*p] for p in sk.limbs], flip_pairs=[[*p] for p in sk.flip_pairs],
                  sigmas=[*sk.sigmas], torso=[*sk.torso], head=[*sk.head] if sk.head else None, groups={k: [*v] for k, v in sk.groups.items()})
    (tmp_path/'s.yaml').write_text(yaml.safe_dump(fields))
    assert load_skeleton(tmp_path/'s.yaml') == sk


@pytest.mark.parametrize('source', NAMES)
@pytest.mark.parametrize('target', NAMES)
def test_convert_by_hand(source, target):
    "Every joint that both have by the same name is copied; shapes with leading dimensions; the input is left alone."
    s, t = SKELETONS[source], SKELETONS[target]
    rng = np.random.default_rng(1)
    x, v = rng.normal(size=(2, 3, len(s), 2)), rng.integers(0, 3, (2, 3, len(s)))
    before = x.copy(), v.copy()
    y, w = convert(x, v, s, t)
    assert y.shape == (2, 3, len(t), 2) and w.shape == (2, 3, len(t)) and w.dtype == v.dtype
    for j in {*s.joints} & {*t.joints}:
        a, b = s.index(j), t.index(j)
        assert (w[..., b] == v[..., a]).all() and (y[..., b, :][w[..., b] > 0] == x[..., a, :][v[..., a] > 0]).all()
    assert (y[w == 0] == 0).all()
    assert (x == before[0]).all() and (v == before[1]).all()


@needs('data/mpii')
def test_head_of_mpii_is_the_published_head():
    "The columns of mpii16 give the published row of the two-stack hourglass; with the neck, Head would be 96.74."
    from scipy.io import loadmat
    m = loadmat(DATA/'mpii/annot/detections_our_format.mat')
    truth, missing, box = m['pos_gt_src'].transpose(2, 0, 1), m['jnt_missing'].T, m['headboxes_src'].transpose(2, 0, 1)
    guess = np.load(DATA/'mpii/reference_preds/hg_s2_b1.npz')['preds']
    hit = np.linalg.norm(guess - truth, axis=-1) <= .5*.6*np.linalg.norm(box[:, 1] - box[:, 0], axis=-1)[:, None]
    share = [100*hit[missing[:, j] == 0, j].mean() for j in range(16)]
    row = [np.mean([share[j] for j in SKELETONS['mpii16'].groups[p]]) for p in PARTS]
    # the table weighs left and right equally for shoulder and elbow to within its rounding
    assert np.abs(np.array(row) - [95.80, 94.57, 88.12, 83.31, 86.24, 80.88, 77.44]).max() < .006


@needs('data/coco-people')
def test_order_of_coco_is_that_of_its_files():
    "Names and order as the annotation file lists them; and in it, people who face us have their left on our right."
    data = json.loads((DATA/'coco-people/annotations/person_keypoints_train.json').read_text())
    assert tuple(data['categories'][0]['keypoints']) == SKELETONS['coco17'].joints
    k = np.array([a['keypoints'] for a in data['annotations']], float).reshape(-1, 17, 3)
    nose, left, right = (SKELETONS['coco17'].index(j) for j in ('nose', 'left_shoulder', 'right_shoulder'))
    facing = k[(k[:, [nose, left, right], 2] == 2).all(1)]
    assert (facing[:, left, 0] > facing[:, right, 0]).mean() > .8


@needs('data/mpii')
def test_order_of_mpii_is_that_of_its_files():
    from scipy.io import loadmat
    names = [str(n[0]) for n in loadmat(DATA/'mpii/annot/detections_our_format.mat')['dataset_joints'][0]]
    short = dict(ankle='ank', knee='kne', hip='hip', wrist='wri', elbow='elb', shoulder='sho')
    ours = [j.split('_')[0][0] + short[j.split('_')[1]] if j.startswith(('left', 'right')) else
            dict(pelvis='pelv', thorax='thor', upper_neck='neck', head_top='head')[j] for j in SKELETONS['mpii16'].joints]
    assert ours == names


@pytest.mark.parametrize('folder', ['lsp', 'lspet'])
def test_order_of_lsp_is_plausible_in_its_files(folder):
    "Limbs are short, and joints further out on a limb lie further out, upside down or not: a shifted order fails."
    path = sample(f'data/{folder}')/'joints.mat'
    from scipy.io import loadmat
    j = loadmat(path)['joints']
    j = (j if j.shape[0] == 14 else j.transpose(1, 0, 2)).transpose(2, 0, 1)
    if folder == 'lspet': j = j[(j[:, :, 2] == 1).all(1)]
    sk = SKELETONS['lsp14']
    length = {l: np.median(np.linalg.norm(j[:, l[0], :2] - j[:, l[1], :2], axis=1)) for l in sk.limbs}
    size = np.median(np.ptp(j[..., 1], axis=1))
    assert all(v < .4*size for v in length.values()), length
    def further(a, b, from_): # share of people in whom a is further than b from a third joint
        at = lambda name: j[:, sk.index(name), :2]
        return (np.linalg.norm(at(a) - at(from_), axis=1) > np.linalg.norm(at(b) - at(from_), axis=1)).mean()
    shares = {s: [further('head_top', 'neck', f'{s}_hip'), further(f'{s}_ankle', f'{s}_knee', f'{s}_hip'),
                  further(f'{s}_wrist', f'{s}_elbow', f'{s}_shoulder'), further(f'{s}_shoulder', f'{s}_hip', f'{s}_knee')]
              for s in ('left', 'right')}
    assert np.min([*shares.values()]) > .75, shares


# ---- persons and frames

def frames(n, seed=0, H=128, W=96):
    rng = np.random.default_rng(seed)
    size = rng.uniform(40, 400, (n, 1))*[W/H, 1]
    return dict(center=rng.uniform(0, 300, (n, 2)), size=size, input_size=(H, W), rotation=rng.uniform(-180, 180, n),
                scale=rng.uniform(.5, 2, n), flip=rng.random(n) < .5)


def matrix_by_hand(center, size, input_size, rotation, scale, flip):
    "One matrix from five 3x3 matrices, for one frame."
    H, W = input_size
    cos, sin = np.cos(np.pi*rotation/180), np.sin(np.pi*rotation/180)
    to_origin = np.array([[1, 0, -center[0]], [0, 1, -center[1]], [0, 0, 1]])
    stretch = np.diag([scale*W/size[0], scale*H/size[1], 1])
    turn = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    to_middle = np.array([[1, 0, (W-1)/2], [0, 1, (H-1)/2], [0, 0, 1]])
    mirror = np.array([[-1, 0, W-1], [0, 1, 0], [0, 0, 1]]) if flip else np.eye(3)
    return (mirror @ to_middle @ turn @ stretch @ to_origin)[:2]


@pytest.mark.parametrize('H, W', [(128, 96), (96, 72), (64, 64), (48, 160)])
def test_matrices_by_hand(H, W):
    f = frames(100, H=H, W=W)
    M = frame_to_matrix(**f)
    for i in range(100):
        ours = matrix_by_hand(f['center'][i], f['size'][i], (H, W), f['rotation'][i], f['scale'][i], f['flip'][i])
        assert np.allclose(M[i], ours, atol=1e-9)


def test_corners_of_a_frame_are_the_corners_of_the_input():
    "The frame's edges, not its outermost pixel centres, come to -0.5 and W-0.5."
    f = frames(50) | dict(rotation=0., scale=1., flip=False)
    M, half = frame_to_matrix(**f), f['size']/2
    low, high = transform(M, (f['center'] - half)[:, None])[:, 0], transform(M, (f['center'] + half)[:, None])[:, 0]
    assert np.allclose(low, -.5, atol=1e-9) and np.allclose(high, [95.5, 127.5], atol=1e-9)


def test_round_trips_of_random_frames():
    "Canvas, crop, and back: 1e-9 of a pixel, for 1000 frames."
    M, N = frame_to_matrix(**frames(1000)), frame_to_matrix(**frames(1000, seed=1))
    points = np.random.default_rng(2).uniform(-500, 500, (1000, 5, 2))
    assert np.abs(transform(invert(M), transform(M, points)) - points).max() < 1e-9
    assert np.abs(invert(compose_affine(M, N)) - compose_affine(invert(N), invert(M))).max() < 1e-8
    single = transform(M[3], points[3])
    assert np.allclose(single, transform(M, points)[3], atol=1e-12) and single.shape == (5, 2)


def test_frame_holds_its_box_and_has_its_aspect():
    rng = np.random.default_rng(3)
    box = np.concatenate([rng.uniform(-20, 200, (500, 2)), rng.uniform(1, 300, (500, 2))], 1)
    for aspect in (.75, 1., 2.):
        for padding in (1., 1.25):
            c, s = box_to_frame(box, aspect, padding)
            assert np.allclose(s[:, 0]/s[:, 1], aspect)
            assert (c - s/2 <= box[:, :2] - .5 + 1e-9).all() and (c + s/2 >= box[:, :2] + box[:, 2:] - .5 - 1e-9).all()
            assert np.allclose((s/padding/box[:, 2:]).min(1), 1)  # the smallest such frame


def center_of_mass(a):
    v, u = np.mgrid[:a.shape[0], :a.shape[1]]
    return np.array([(u*a).sum(), (v*a).sum()])/a.sum()


def warp_error(M, place, H=128, W=96):
    "Where OpenCV brings a dot that lies at `place` of the input, less `place`."
    v, u = np.mgrid[:320, :360]
    x, y = transform(invert(M), np.array([place]))[0]
    picture = np.exp(-((u - x)**2 + (v - y)**2)/50).astype(np.float32)
    return np.abs(center_of_mass(cv2.warpAffine(picture, M, (W, H), flags=cv2.INTER_LINEAR)) - place).max()


@pytest.mark.parametrize('seed', range(5))
def test_opencv_agrees_and_would_notice_half_a_pixel(seed):
    rng = np.random.default_rng(seed)
    M = frame_to_matrix(rng.uniform(140, 190, 2), np.array([150., 200.]), (128, 96), rng.uniform(-180, 180), 1., seed % 2 == 1)
    place = rng.uniform(38, 58, 2)
    assert warp_error(M, place) < .05
    picture_at = transform(invert(M), place[None])[0]
    wrong = M.copy(); wrong[:, 2] += .5  # a convention with pixel corners on integers
    moved = np.abs(transform(wrong, picture_at[None])[0] - place).max()
    assert moved > .4  # ten times the tolerance above


def test_person_takes_lists_paths_and_tensors_and_copies():
    joints = torch.arange(6.).reshape(3, 2)
    p = Person(Path('a')/'b.jpg', (1, 2, 3, 4), joints, [0, 1, 2])
    assert p.image == os.path.join('a', 'b.jpg') and p.joints.dtype == np.float64 and p.visibility.dtype.kind == 'i'
    p.joints[0] = 9
    assert joints[0, 0] == 0
    assert pickle.loads(pickle.dumps(p)).joints.tolist() == p.joints.tolist()


@pytest.mark.parametrize('wrong, field', [
    (dict(bbox=[0, 0, -1, 5]), 'bbox'), (dict(bbox=[0, np.nan, 1, 5]), 'bbox'), (dict(bbox=None), 'bbox'), (dict(bbox=[[0, 0, 1, 5]]), 'bbox'),
    (dict(joints=np.zeros((2, 3))), 'joints'), (dict(joints=np.full((2, 2), np.inf)), 'joints'), (dict(joints=[]), 'joints'),
    (dict(visibility=[1]), 'visibility'), (dict(visibility=[-1, 0]), 'visibility'), (dict(visibility=[1.5, 0]), 'visibility'),
    (dict(visibility=[np.nan, 0]), 'visibility'), (dict(area=np.nan), 'area'), (dict(area=-3), 'area'), (dict(head_size=0), 'head_size'),
    (dict(score=np.nan), 'score')])
def test_faulty_person_names_image_and_field(wrong, field):
    fields = dict(image='im7.jpg', bbox=[0, 0, 4, 5], joints=np.zeros((2, 2)), visibility=[1, 2], person_id=3)
    with pytest.raises(ValueError) as error: Person(**{**fields, **wrong})
    assert str(error.value).startswith(f'im7.jpg, person 3: {field} ')


@pytest.mark.parametrize('name', NAMES)
def test_flip_joints_is_an_involution(name):
    sk, rng = SKELETONS[name], np.random.default_rng(0)
    x, v = rng.uniform(0, 70, (4, len(sk), 2)), rng.integers(0, 3, (4, len(sk)))
    fx, fv = flip_joints(x, v, 72, sk)
    assert not np.allclose(fx, x)
    assert np.allclose(flip_joints(fx, fv, 72, sk)[0], x) and (flip_joints(fx, fv, 72, sk)[1] == v).all()
    i, j = sk.index('left_knee'), sk.index('right_knee')
    assert np.allclose(fx[:, i, 0], 71 - x[:, j, 0]) and (fv[:, i] == v[:, j]).all()


def test_the_drawn_person_is_where_its_record_says():
    "The picture shows skin at the wrists; nothing of the figure lies outside the box."
    image, p = example_person(skeleton='people21')
    background = np.linspace((132, 160, 175), (92, 118, 88), 240)[:, None].repeat(320, 1).astype(np.uint8)
    ys, xs = np.nonzero(np.abs(image.astype(int) - background).max(-1) > 3)
    x, y, w, h = p.bbox
    assert x - .5 <= xs.min() and xs.max() <= x + w - .5 and y - .5 <= ys.min() and ys.max() <= y + h - .5
    for j in ('left_wrist', 'right_wrist'):
        u, v = p.joints[SKELETONS['people21'].index(j)].round().astype(int)
        assert np.abs(image[v, u].astype(int) - (224, 178, 140)).max() < 10


# ---- heatmaps

@pytest.mark.parametrize('size, stride', [((96, 72), 4), ((128, 96), 4), ((64, 96), 2), ((96, 72), 8)])
@pytest.mark.parametrize('sigma', [1., 2.5])
def test_heatmaps_against_loops(size, stride, sigma):
    gen = torch.Generator().manual_seed(0)
    H, W = size
    joints = torch.rand(1, 3, 2, generator=gen, dtype=torch.float64)*torch.tensor([W+30, H+30]) - 15
    y = render_heatmaps(joints, torch.tensor([[2, 1, 0]]), size, sigma, stride)
    assert y.shape == (1, 3, H//stride, W//stride)
    for j in range(3):
        for v in range(H//stride):
            for u in range(W//stride):
                # the middle of a square of stride x stride input pixels whose first centre is at 0
                du, dv = (stride*u + (stride - 1)/2 - joints[0, j, 0])/stride, (stride*v + (stride - 1)/2 - joints[0, j, 1])/stride
                want = torch.exp(-(du*du + dv*dv)/(2*sigma**2))*(j < 2)
                assert abs(y[0, j, v, u] - want) < 1e-12


def test_heatmap_round_trip_of_the_peak():
    "1000 random joints: the brightest pixel is within half a heatmap pixel on both axes, never outside."
    gen = torch.Generator().manual_seed(1)
    joints = torch.rand(1000, 1, 2, generator=gen, dtype=torch.float64)*torch.tensor([72., 96.]) - .5
    y = render_heatmaps(joints, torch.ones(1000, 1), (96, 72), 1.)
    peak = y.flatten(2).argmax(-1)[:, 0]
    xy = torch.stack([peak % 18, peak//18], -1)
    assert (to_heatmap(joints[:, 0]) - xy).abs().max() <= .5 + 1e-9
    assert (from_heatmap(xy) - joints[:, 0]).abs().max() <= 2 + 1e-9


def test_heatmap_gradients_also_next_to_absent_and_invalid_joints():
    joints = torch.tensor([[[10.3, 7.7], [float('nan'), 3.], [20., float('inf')]]], dtype=torch.float64, requires_grad=True)
    y = render_heatmaps(joints, torch.tensor([[2, 0, 0]]), (32, 24), 1.2)
    assert torch.isfinite(y).all() and (y[0, 1:] == 0).all()
    (y**2*torch.arange(48.).reshape(8, 6)).sum().backward()
    assert torch.isfinite(joints.grad).all() and (joints.grad[0, 0] != 0).all() and (joints.grad[0, 1:] == 0).all()


def test_heatmap_of_float32_is_that_of_float64():
    gen = torch.Generator().manual_seed(2)
    joints, vis = torch.rand(4, 17, 2, generator=gen)*288, torch.ones(4, 17)
    single, double = render_heatmaps(joints, vis, (384, 288), 3.), render_heatmaps(joints.double(), vis, (384, 288), 3.)
    assert single.dtype == torch.float32 and (single - double).abs().max() < 1e-5


@needs_gpu
def test_heatmaps_are_drawn_where_the_joints_are():
    joints, vis = torch.rand(2, 17, 2)*72, torch.randint(0, 3, (2, 17))
    y = render_heatmaps(joints.cuda(), vis.cuda(), (96, 72), 1.)
    assert y.is_cuda and (y.cpu() - render_heatmaps(joints, vis, (96, 72), 1.)).abs().max() < 1e-5
    assert (joint_weights(joints.cuda(), vis.cuda(), (96, 72)).cpu() == joint_weights(joints, vis, (96, 72))).all()


def test_weights_and_sigmas_at_the_edges():
    "The right edge is the width's, the lower edge the height's."
    edge = torch.tensor([[[80., 50.], [50., 80.]]])
    assert joint_weights(edge, torch.tensor([[2, 2]]), (96, 72)).tolist() == [[0., 1.]]
    nan = torch.tensor([[[float('nan'), 1.], [1., 1.]]])
    assert joint_weights(nan, torch.tensor([[2, 2]]), (96, 72)).tolist() == [[0., 1.]]
    assert joint_weights(nan, torch.tensor([[2., 2.]]).bool(), (96, 72)).tolist() == [[0., 1.]]
    assert default_sigma((64, 48)) == 1. and default_sigma((768, 576)) == 6.
    assert cpn_sigmas((384, 288)) == pytest.approx((1.7, 2.3, 2.9, 3.8)) and min(cpn_sigmas((96, 72))) == 1.


# ---- drawing

@pytest.mark.parametrize('name', NAMES)
def test_painting_shows_left_and_right(name):
    "A dot of the right colour at every visible joint, white at every occluded one."
    sk = SKELETONS[name]
    image, person = example_person((700, 700), (350, 350), 600., name)
    vis = np.arange(len(sk)) % 2 + 1
    out = paint_person(image, person.joints, vis, sk, thickness=2)
    colour = {'left': (0, 0x72, 0xB2), 'right': (0xE6, 0x9F, 0), 'centre': (0x7F,)*3}
    shown = 0
    for i, (x, y) in enumerate(person.joints.round().astype(int)):
        if np.linalg.norm(person.joints - person.joints[i], axis=1)[np.arange(len(sk)) != i].min() < 8: continue
        want = colour[sk.sides[i]] if vis[i] > 1 else (255, 255, 255)
        assert np.abs(out[y, x].astype(int) - want).max() <= 2, sk.joints[i]
        shown += 1
    assert shown > 10


def test_a_joint_far_away_does_not_crash_or_paint():
    sk = SKELETONS['lsp14']
    image, person = example_person(skeleton='lsp14')
    xy, vis = person.joints.copy(), person.visibility.copy()
    xy[0] = 1e12, -1e12; vis[1:] = 0
    assert (paint_person(image, xy, vis, sk) == image).all()


def test_pictures_of_every_kind_are_the_same_picture():
    image, _ = example_person()
    chw = torch.from_numpy(image).permute(2, 0, 1)
    for kind in (image, torch.from_numpy(image), chw, chw/255, image/255, (chw/255).requires_grad_()): assert (as_picture(kind) == image).all()
    with pytest.raises(ValueError, match='undo the normalisation'): as_picture(chw.float())
    with pytest.raises(ValueError, match='image must be'): as_picture(np.zeros((1, 5, 7)))


def test_sheet_and_plot_write_files(tmp_path):
    import matplotlib.pyplot as plt
    sk = SKELETONS['mpii16']
    image, p = example_person(skeleton='mpii16')
    fig = show_people([image, image[:200]], [p.joints]*2, skeleton=sk, titles=['one', 'two'])
    fig.savefig(tmp_path/'sheet.png'); plt.close(fig)
    assert cv2.imread(str(tmp_path/'sheet.png')).std() > 10
    fig, ax = plt.subplots()
    draw_person(ax, torch.tensor(p.joints), torch.tensor(p.visibility), sk); plt.close(fig)
    assert limb_side(sk, sk.index('left_knee'), sk.index('left_ankle')) == 'left'


# ---- the package

def test_example_pose_knows_only_known_joints():
    with pytest.raises(ValueError, match="no example position for 'tail'"):
        example_pose(make_skeleton('dog', ['tail'], flip_pairs=[], sigmas=[.1]))
