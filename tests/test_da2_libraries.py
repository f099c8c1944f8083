"""Pipelines of other libraries made of a policy, and policy files: versions, older files, every kind there and back."""
import json, math, pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from p2net.da2 import OPERATIONS, POSE16, Policy, augment, load_policy
from p2net.da2.controls import POLICIES, HandMade, RandomPolicy
from p2net.da2.libraries import COUNTERPARTS, OperationTransform, to_albumentations, to_torchvision, tv_tensors, without_counterpart
from p2net.da2.operations import IMAGENET_MEAN, Draws
from p2net.errors import InputError
from samples import optional

ROOT = Path(__file__).resolve().parents[1]
H, W = 50, 36
JOINTS = torch.tensor([[4., 5], [30, 9], [17, 24], [35, 49], [0, 0]])


@pytest.fixture(scope='module')
def albumentations():
    import os
    os.environ['NO_ALBUMENTATIONS_UPDATE'] = '1'              # its import would ask the network for a newer version
    return optional('albumentations')


def picture(seed=0):
    "A smooth picture with an edge, as eight bits."
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.random((1, 3, 6, 5)))
    x = torch.nn.functional.interpolate(coarse, (H, W), mode='bicubic').clamp(0, 1)[0]
    x[:, 20:30, 10:20] = torch.tensor([.1, .9, .4])[:, None, None]
    return (255*x).round().to(torch.uint8)


def by_augment(operation, m, sign, u=(.4, .6)):
    one = torch.ones(1, 1)
    draws = Draws(torch.zeros(1).long(), torch.zeros(1, 1).long(), one.bool(), m*one, sign*one, torch.tensor([[u]]))
    x, moved, _ = augment(picture()[None], torch.eye(2, 3)[None], JOINTS[None], torch.full((1, len(JOINTS)), 2), draws, (operation,), (H, W))
    return 255*x[0], moved[0]


# ---- torchvision

@pytest.mark.parametrize('m', [0., .13, .5, 1.])
@pytest.mark.parametrize('name', list(OPERATIONS))
def test_torchvision_does_what_augment_does(name, m):
    "On a picture of odd height over width; two levels: torchvision's blends cut off, ours round."
    operation = OPERATIONS[name]
    for sign in (1., -1.):
        step = OperationTransform(operation, m)
        step.make_params = lambda flat: dict(sign=sign, u=(.4, .6), size=(H, W))
        x, points = step(tv_tensors.Image(picture()), tv_tensors.KeyPoints(JOINTS + .5, canvas_size=(H, W)))
        y, moved = by_augment(operation, m, sign)
        assert (x.float() - y).abs().max() < (2 if operation.kind == 'colour' else .51)
        assert (points.as_subclass(torch.Tensor) - .5 - moved).abs().max() < 1e-3


def test_torchvision_moves_joints_with_a_mark():
    "Independent: a white dot is painted where a joint is, and found again where the pipeline says that the joint went."
    policy = Policy(['rotate', 'shear_x', 'translate_y', 'scale'], 'pairs', p=.999, m=.3)
    pipeline = to_torchvision(policy, fill=(0., 0., 0.))
    torch.manual_seed(2)
    for _ in range(30):
        image = torch.zeros(3, 41, 61, dtype=torch.uint8); image[:, 17:20, 33:36] = 255
        x, points = pipeline(tv_tensors.Image(image), tv_tensors.KeyPoints(torch.tensor([[34., 18.]]), canvas_size=(41, 61)))
        mass = x[0].double()
        middle = [(mass.sum(i)*torch.arange(mass.shape[1 - i])).sum()/mass.sum() for i in (0, 1)]
        assert abs(points[0, 0] - middle[0]) < .1 and abs(points[0, 1] - middle[1]) < .1


def test_torchvision_takes_pil_masks_and_boxes_and_travels():
    from PIL import Image
    pipeline = pickle.loads(pickle.dumps(to_torchvision(Policy())))
    x, mask, boxes, label = pipeline(Image.fromarray(picture().permute(1, 2, 0).numpy()), tv_tensors.Mask(torch.ones(H, W, dtype=torch.uint8)),
                                     tv_tensors.BoundingBoxes(torch.tensor([[3., 4, 20, 30]]), format='XYXY', canvas_size=(H, W)), 7)
    assert x.shape == (3, H, W) and x.dtype == torch.uint8 and mask.shape == (H, W) and boxes.shape == (1, 4) and label == 7
    assert pipeline(torch.rand(3, H, W)).dtype == torch.uint8                    # floats in [0, 1] are rounded to eight bits


def test_pipelines_print_the_policy():
    said = str(to_torchvision(Policy(['rotate', 'cutout'], 'pairs')))
    assert 'rotate, ±15 degrees' in said and 'cutout' in said and 'ours' in said


# ---- the probabilities of both

def expected_levels(policy, level=100):
    "By hand: what becomes of a flat grey picture under every path, switch and side, with its probability."
    chance, names = {}, [[policy.operations[o].name for o in row] for row in policy.table.tolist()]
    pi, p, m = (t.tolist() for t in policy.exact())
    for k, row in enumerate(names):
        worlds = [(float(level), pi[k])]
        for name, pj, mj in zip(row, p[k], m[k]):
            does = dict(invert=lambda v: [255 - v]*2, solarize=lambda v: [255 - v if v >= 256 - 256*mj else v]*2,
                        brightness=lambda v: [min(255, v*(1 + .9*mj)), v*(1 - .9*mj)])[name]
            worlds = [w for v, q in worlds for w in [(v, q*(1 - pj))] + [(new, q*pj/2) for new in does(v)]]
        for v, q in worlds: chance[round(v)] = chance.get(round(v), 0) + q
    return chance


@pytest.mark.parametrize('library', ['torchvision', 'albumentations'])
@pytest.mark.parametrize('space', ['singles', 'pairs'])
def test_pipelines_sample_with_the_policys_probabilities(request, library, space):
    "Shares of the levels that come out of a flat grey picture against pi, p and fair sides: 5 sigma each."
    policy, n = RandomPolicy(['invert', 'solarize', 'brightness'], space, seed=3), 4000
    with torch.no_grad(): policy.m_logits.fill_(0.)
    if library == 'torchvision':
        pipeline, x = to_torchvision(policy), tv_tensors.Image(torch.full((3, 2, 2), 100, dtype=torch.uint8))
        torch.manual_seed(1)
        seen = np.array([pipeline(x)[0, 0, 0].item() for _ in range(n)])
    else:
        request.getfixturevalue('albumentations')
        pipeline, x = to_albumentations(policy, joints=False, seed=0), np.full((4, 4, 3), 100, np.uint8)
        seen = np.array([pipeline(image=x)['image'][0, 0, 0] for _ in range(n)]).astype(int)
    chance, found = expected_levels(policy), 0
    assert abs(sum(chance.values()) - 1) < 1e-9
    for level, q in chance.items():
        hits = (abs(seen - level) <= 1).sum()                                   # a blend may cut off where the hand rounds
        found += hits
        assert abs(hits - n*q) <= 5*math.sqrt(n*q*(1 - q)), (level, hits, n*q)
    assert found == n


# ---- zero, one and one side

ENDS = dict(kind='policy', operations=['brightness', 'sharpness', 'invert', dict(name='posterize', high=8.)], sub_policies=[
    dict(operations=['brightness', 'invert', 'sharpness'], pi=.5, p=[1, 0, 0], m=[1, 1, 1], side=[1, 0, -1]),
    dict(operations=['brightness', 'posterize', 'sharpness'], pi=.5, p=[1, 1, 1], m=[.5, 0, 0], side=[-1, 0, 1]),
    dict(operations=['invert', 'invert', 'invert'], pi=0, p=[1, 1, 1], m=[.5, .5, .5])])


def check_ends(sample):
    "`sample` gives the level of a flat picture of 100: brighter by 1.9 or darker by .55, never anything else, each about half the time."
    seen = np.array([sample() for _ in range(400)])
    bright, dark = abs(seen - 190) <= 1, abs(seen - 55) <= 1
    assert (bright | dark).all(), np.unique(seen)
    assert abs(bright.sum() - 200) < 5*10                                       # 5 sigma


def test_torchvision_takes_zero_one_and_one_side():
    pipeline, flat = to_torchvision(load_policy(ENDS, say=None)), tv_tensors.Image(torch.full((3, 4, 4), 100, dtype=torch.uint8))
    torch.manual_seed(0)
    check_ends(lambda: pipeline(flat)[0, 0, 0].item())


@pytest.mark.parametrize('library', ['torchvision', 'albumentations'])
@pytest.mark.parametrize('m', [0, 1])
@pytest.mark.parametrize('p', [0, 1])
def test_every_operation_can_be_never_and_always_nothing_and_all(request, library, p, m):
    "p = 0: the picture itself. p = 1: what augment makes of it with this draw. All sixteen in one sub-policy do not crash."
    policy = load_policy(dict(kind='policy', operations=[dict(name=name) for name in OPERATIONS], sub_policies=[
        dict(operations=[name], pi=1/16, p=[p], m=[m]) for name in OPERATIONS]), say=None)
    if library == 'albumentations':
        request.getfixturevalue('albumentations')
        made = to_albumentations(policy, joints=False, seed=0)
        run = lambda: made(image=picture().permute(1, 2, 0).contiguous().numpy())['image'].transpose(2, 0, 1)
    else: pipeline = to_torchvision(policy); run = lambda: pipeline(tv_tensors.Image(picture())).numpy()
    possible = {picture().numpy().tobytes()} if not p else None
    same = 0
    for _ in range(40):
        out = run()
        assert out.shape == (3, H, W) and out.dtype == np.uint8
        if possible: assert out.tobytes() in possible
        same += abs(out.astype(int) - picture().numpy()).max() <= 1
    if p and not m: assert same > 15                                            # 13 of 16 change nothing at magnitude 0
    if p and m: assert same < 20


# ---- albumentations, where it is installed

def test_albumentations_takes_zero_one_and_one_side(albumentations):
    pipeline = to_albumentations(load_policy(ENDS, say=None), joints=False, seed=0)
    check_ends(lambda: int(pipeline(image=np.full((4, 4, 3), 100, np.uint8))['image'][0, 0, 0]))
    again = pickle.loads(pickle.dumps(pipeline))
    check_ends(lambda: int(again(image=np.full((4, 4, 3), 100, np.uint8))['image'][0, 0, 0]))


def test_albumentations_posterizes_to_nothing(albumentations):
    "Its own class keeps one bit at least; ours is used."
    from p2net.da2.libraries import operation_transform
    from dataclasses import replace
    transform = operation_transform(replace(OPERATIONS['posterize'], high=8.), 1., IMAGENET_MEAN, 1.)
    assert not transform(image=picture().permute(1, 2, 0).contiguous().numpy())['image'].any()


def one_picture(A, transform):
    "A transform on the picture and its joints."
    pipeline = A.Compose([transform], keypoint_params=A.KeypointParams(format='xy', remove_invisible=False))
    out = pipeline(image=picture().permute(1, 2, 0).contiguous().numpy(), keypoints=JOINTS.numpy())
    return torch.from_numpy(out['image']).permute(2, 0, 1).float(), torch.from_numpy(np.asarray(out['keypoints'])).float()


@pytest.mark.parametrize('m', [0., .2, .5, 1.])
@pytest.mark.parametrize('name', [o for o in OPERATIONS if COUNTERPARTS[o][1]])
def test_albumentations_does_what_augment_does(albumentations, name, m):
    "Colours within two levels; a warp in steps of 1/32 px within 1/32 of the steepest edge per axis, a translation within its whole pixel."
    from p2net.da2.libraries import fixed_transform
    operation = OPERATIONS[name]
    for sign in (1., -1.):
        value = (sign if operation.signed else 1.)*m*operation.high
        x, points = one_picture(albumentations, fixed_transform(operation, value, IMAGENET_MEAN, 1.))
        if name.startswith('translate'):                                        # cut to whole pixels: compare at those
            length = W if name.endswith('x') else H
            m_whole = abs(int(value*length))/length/operation.high
            assert abs(m_whole - m)*operation.high*length < 1
            y, moved = by_augment(operation, m_whole, sign)
        else: y, moved = by_augment(operation, m, sign)
        assert (x - y).abs().max() < (2 if operation.kind == 'colour' else 2/32*255)
        assert (x - y).abs().mean() < 1
        assert (points - moved).abs().max() < 1e-3


def test_albumentations_keeps_every_row_of_joints_and_travels(albumentations):
    pipeline = to_albumentations(Policy(POSE16), seed=1)
    for _ in range(40):
        out = pipeline(image=picture().permute(1, 2, 0).contiguous().numpy(), keypoints=JOINTS.numpy())
        assert np.asarray(out['keypoints']).shape == JOINTS.shape and out['image'].shape == (H, W, 3) and out['image'].dtype == np.uint8
    again = pickle.loads(pickle.dumps(pipeline))
    assert again(image=picture().permute(1, 2, 0).contiguous().numpy(), keypoints=JOINTS.numpy())['image'].shape == (H, W, 3)


def test_albumentations_without_ours_writes_itself(albumentations):
    policy = Policy(['rotate', 'invert', 'contrast'], 'pairs')
    assert not without_counterpart(policy, 'albumentations')
    data = albumentations.to_dict(to_albumentations(policy, missing='raise'))
    assert json.loads(json.dumps(data))


def test_every_operation_of_albumentations_has_a_line(albumentations):
    from p2net.da2.libraries import operation_transform
    for operation in POSE16: operation_transform(operation, .5, IMAGENET_MEAN, .5)


# ---- policy files

def same_draws(a, b):
    "Equal numbers, and equal draws from equal generators."
    assert type(a) is type(b) and a.to_json() == b.to_json() and a.operations == b.operations
    for s, t in zip(*(x.sample(200, torch.Generator().manual_seed(7)) for x in (a, b))): assert torch.equal(s, t)
    if isinstance(a, Policy):
        for s, t in zip(a.state_dict().values(), b.state_dict().values()): assert torch.equal(s, t)


@pytest.mark.parametrize('kind', list(POLICIES))
def test_every_kind_there_and_back_bit_for_bit(kind, tmp_path):
    policy = POLICIES[kind]()
    if isinstance(policy, Policy):
        with torch.no_grad():
            for v in policy.parameters(): v += torch.randn(v.shape, generator=torch.Generator().manual_seed(5))
    (tmp_path/'policy.json').write_text(json.dumps(policy.to_json(), indent=1))
    same_draws(load_policy(tmp_path/'policy.json'), policy)


@pytest.mark.parametrize('file', sorted(ROOT.glob('paper_results/runs/*/*/*/policy.json')), ids=lambda f: '/'.join(f.parts[-4:-1]))
def test_every_committed_policy_loads_and_writes_itself(file):
    "The logits to the bit; pi, p and m up to the rounding of this processor, which may not be that of the run's."
    data, written = json.loads(file.read_text()), load_policy(file).to_json()
    for old, new in zip(data.get('sub_policies', []), written.get('sub_policies', []), strict=True):
        for name in ('pi', 'p', 'm'): np.testing.assert_allclose(new.pop(name), old.pop(name), rtol=1e-12)
    assert written == data


@pytest.mark.parametrize('change, says', [(dict(schema=2), 'schema 2 is unknown; this version reads schema 1'),
                                          (dict(schema='1'), "schema '1' is unknown"), (dict(kind='magic'), "kind 'magic'; there are policy, frozen")])
def test_unknown_versions_are_one_clear_line(change, says, tmp_path):
    for kind in (Policy(['rotate', 'invert'], 'singles'), HandMade()):
        (tmp_path/'policy.json').write_text(json.dumps(kind.to_json() | change))
        with pytest.raises(InputError, match=says) as error: load_policy(tmp_path/'policy.json')
        assert '\n' not in str(error.value) and 'policy.json: ' in str(error.value)


@pytest.mark.parametrize('kind', list(POLICIES))
def test_older_files_without_a_version_load(kind):
    policy = POLICIES[kind]()
    same_draws(load_policy({k: v for k, v in policy.to_json().items() if k != 'schema'}), policy)
