"""The bench compares like with like: every library's pipeline makes the picture and the joints that ours makes, at a fixed angle and
brightness; the deployed policy gives a person the same in every thread, batch, order and process; the record says what was left out."""
import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
import torch

from p2net import bench
from p2net.da2.controls import FrozenPolicy
from p2net.da2.deploy import Deployed, EpochDraws, augment_fast, deal, write_heatmaps
from p2net.da2.operations import IMAGENET_MEAN, IMAGENET_STD, Draws
from p2net.people.heatmaps import render_heatmaps
from p2net.people.skeleton import SKELETONS
from samples import optional

ANGLE, FACTOR = 20., 1.2            # clockwise on the screen


@pytest.fixture(scope='module')
def scene(): return bench.make_scene(4)


@pytest.fixture(scope='module')
def ours(scene):
    "Pictures in grey levels and joints, with everybody turned and lit alike."
    both = torch.arange(2).repeat(4, 1)
    m = torch.tensor([[ANGLE/bench.TURN, (FACTOR - 1)/bench.LIGHT]]).repeat(4, 1)
    draws = Draws(both[:, 0], both, both >= 0, m, torch.ones(4, 2), torch.zeros(4, 2, 2))
    x, joints, _ = augment_fast(scene.canvases, scene.matrix, scene.joints, scene.visibility, draws, bench.TurnAndLight.operations, bench.SIZE, 'uint8')
    return x.astype(float), joints


def levels(pictures, planes):
    "Normalised pictures of a contender as grey levels, channels last."
    x = pictures.reshape(-1, 3, *bench.SIZE).transpose(0, 2, 3, 1) if planes else pictures
    return (x*np.array(IMAGENET_STD) + IMAGENET_MEAN)*255


@pytest.mark.parametrize('name, make, planes, sign', [
    ('albumentations', bench.albumentations, False, -1), ('albumentations', lambda *a, **k: bench.albumentations(*a, light='MultiplicativeNoise', **k), False, -1),
    ('torchvision', bench.torchvision_v2, True, -1), ('kornia', bench.kornia, True, -1)])
def test_libraries_do_the_same(scene, ours, name, make, planes, sign):
    "Half a level of rounding after the warp and after the light on either side, and positions rounded to 1/32 px in OpenCV 4: mean below 1, 99 of 100 below 3."
    if name != 'torchvision': optional(name)
    make(scene, turn=(sign*ANGLE, sign*ANGLE), factor=(FACTOR, FACTOR))(0, 4)
    off = np.abs(levels(scene.pictures, planes) - ours[0])
    assert off.mean() < 1 and np.quantile(off, .99) < 3, (off.mean(), np.quantile(off, .99))
    assert np.abs(scene.found - ours[1]).max() < (.25 if name == 'torchvision' else 1e-3) # torchvision moves joints a fifth of a pixel aside


def test_differentiable_paths_agree():
    "Pictures to 1e-4 of the range, joints to 1e-3 px: float32 positions on a 400 px canvas. Slopes in either magnitude to 3 in 1000 of the largest: they jump where a position falls on the other side of a pixel."
    optional('kornia')
    ours, *others = ([torch.cat(part) for part in done[:2]] + [done[2]] for done in (f() for name, f in bench.differentiable(bench.make_scene(10)).items() if name != 'bare sampler'))
    assert len(others) == 2                                                       # kornia's whole batch and its portions
    for theirs in others:
        (x, y), (joints, found), (slope, other) = zip(ours, theirs)
        assert (x - y).abs().max() < 1e-4 and (joints - found).abs().max() < 1e-3
        assert ((slope - other).abs() < 3e-3*other.abs().amax(0)).all()


def test_a_drawn_policy_is_the_same_with_kornia():
    "The start policy, seed 0: 97 of 100 values within 2.5 levels (jumps fall differently, black outside instead of grey), and every kind of colour among the draws."
    optional('kornia')
    done = {name: torch.cat(task()) for name, task in bench.drawn_policy(bench.make_scene()).items()}
    ours, theirs = done['drawn, there and back'], [x for name, x in done.items() if 'kornia' in name]
    assert len(theirs) == 2                                                       # the whole batch and portions
    for x in theirs: assert (((ours - x).abs()*255) < 2.5).float().mean() > .97
    drawn = bench.FrozenPolicy().sample(len(ours), torch.Generator().manual_seed(0))
    assert len(set(drawn.op[drawn.on].tolist())) == 15


def test_heatmaps_are_those_of_the_trainer():
    rng, size = np.random.default_rng(0), (96, 72)
    joints, visibility = rng.uniform(-30, 120, (5, 17, 2)), rng.integers(0, 3, (5, 17))
    want = render_heatmaps(torch.from_numpy(joints), torch.from_numpy(visibility), size, 2.)
    room = np.full((5, 17, 24, 18), 7, np.float32)
    got = write_heatmaps(joints, visibility, size, 2., out=room)
    assert got is room and np.abs(got - want.numpy()).max() < 1e-5


# --- whoever asks, whenever ---

SIZE, N = (48, 36), 40


def people():
    rng = np.random.default_rng(3)
    matrix = np.tile(np.array([[1., 0, -12], [0, 1, -8]]), (N, 1, 1))
    matrix[::3, 0] = [-1, 0, 47]                                                  # some are mirrored
    return rng.integers(0, 256, (N, 64, 60, 3), np.uint8), matrix, rng.uniform(5, 55, (N, 21, 2)), rng.integers(0, 3, (N, 21))


def pipeline(threads, output='channels-last'):
    return Deployed(FrozenPolicy(p=.8), N, SIZE, seed=5, output=output, sigma=2., flip_perm=SKELETONS['people21'].flip_perm, threads=threads)


def part(task):
    "A batch in another process."
    epoch, who, threads = task
    canvases, matrix, joints, visibility = people()
    return pipeline(threads)(epoch, who, canvases, matrix[who], joints[who], visibility[who])


@pytest.fixture(scope='module')
def whole(): return part((2, np.arange(N), 1))


def same(ready, whole, who): return all(np.array_equal(a, b[who]) for a, b in zip(ready, whole))


def test_a_person_meets_the_same_in_every_batch_order_and_thread(whole):
    order = np.random.default_rng(0).permutation(N)
    for threads in (1, 2, 5):
        for who in (order, order[:7], order[7:8]): assert same(part((2, who, threads)), whole, who)
    assert not np.array_equal(part((3, np.arange(N), 1)).pictures, whole.pictures)           # another epoch is another throw


@pytest.mark.skipif('fork' not in multiprocessing.get_all_start_methods(), reason='this system cannot fork processes')
def test_a_person_meets_the_same_in_every_process(whole):
    "Forked after this process's threads were at work: the children start their own."
    part((2, np.arange(N), 2))
    torch.set_num_threads(1)
    batches = np.array_split(np.random.default_rng(1).permutation(N), 5)
    for processes in (1, 3):
        with ProcessPoolExecutor(processes, multiprocessing.get_context('fork')) as pool:
            for who, ready in zip(batches, pool.map(part, [(2, who, 2) for who in batches])): assert same(ready, whole, who)


def test_mirrored_joints_change_sides_before_their_heatmaps_are_drawn(whole):
    joints, visibility = torch.from_numpy(whole.joints), torch.from_numpy(whole.visibility)
    assert np.abs(whole.heatmaps - render_heatmaps(joints, visibility, SIZE, 2.).numpy()).max() < 1e-5
    canvases, matrix, before, _ = people()
    sk = SKELETONS['people21']
    left, right = sk.index('left_wrist'), sk.index('right_wrist')
    still = Deployed(bench.IdentityPolicy(), N, SIZE, sigma=2., flip_perm=sk.flip_perm)(0, np.arange(N), canvases, matrix, before, np.ones((N, 21), int))
    assert np.allclose(still.joints[0, left], before[0, right]*[-1, 1] + [47, -8]) and np.allclose(still.joints[1, left], before[1, left] - [12, 8])


def test_rooms_are_written_to(whole):
    room = pipeline(2).room(N, 21)
    canvases, matrix, joints, visibility = people()
    ready = pipeline(2)(2, np.arange(N), canvases, matrix, joints, visibility, room)
    assert ready.pictures is room[0] and ready.heatmaps is room[1] and same(ready, whole, np.arange(N))


def test_epochs_are_thrown_once_for_all():
    thrown = EpochDraws(FrozenPolicy(), 9000, seed=1)
    everybody = thrown(4, np.arange(9000))
    again = EpochDraws(FrozenPolicy(), 9000, seed=1)(4, [8500, 3])
    assert all(torch.equal(a, b[[8500, 3]]) for a, b in zip(again, everybody))
    for seed, epoch in ((2, 4), (1, 5), (4, 1)): assert not torch.equal(EpochDraws(FrozenPolicy(), 9000, seed)(epoch, [0, 1, 2]).u, everybody.u[:3])


@pytest.mark.parametrize('n, threads', [(0, 3), (1, 3), (2, 1), (7, 2), (64, 3), (5, 50)])
def test_everybody_is_dealt_once(n, threads):
    dealt = []
    deal(lambda first, last: dealt.extend(range(first, last)), n, threads)
    assert sorted(dealt) == list(range(n))


# --- the record ---

def test_record_of_invented_times(monkeypatch):
    monkeypatch.setattr(bench, 'installed', lambda name: None if name == 'kornia' else '1.0')
    deploy = {'floor': [100., 100], 'deployed uint8': [70., 90], 'deployed': [60., 60], 'torchvision v2, threads': [20., 30]}
    config = bench.make_config('tiny', experiment='bench')
    record = bench.bench_record(config, deploy, dict(ours=[1., 2]), {'paired': [4., 8], 'paired, half': [3., 6], 'straight-through': [3., 6], 'plain': [1., 2]},
                                {'paired': 14, 'paired, half': 13, 'straight-through': 12, 'plain': 10}, dict(augmented=[1.1, 1.], cropped=[1., 1.], plain=[1., 1.]),
                                bench.Measured(config, 'cpu', False, dict(p2net=[4., 8.], backbone=[1., 4.]), {}), 9., 2)
    found = record['metrics']
    assert (record['scale'], record['experiment'], record['seed'], record['status']) == ('tiny', 'bench', 0, 'complete')
    want = dict(deploy_vs_floor=.8, deploy_vs_fastest_peer=2.5, search_step_vs_plain=4, search_memory_vs_plain=1.4, augmented_loop_vs_plain=1.05)
    assert {k: round(found[k], 9) for k in want} == want
    assert 'differentiable_vs_kornia' not in found and record['left_out'] == ['kornia: not installed']
    assert record['repeats']['training_vs_backbone'] == [.25, .5] and record['training']['precision'] == 'fp32'
    assert found['people_per_s/training/backbone'] == pytest.approx(config.training.batch*(1 + .25)/2) and not any(k.startswith('mib/training') for k in found)
    assert record['repeats']['deploy_vs_floor'] == [.7, .9] and found['people_per_s/floor'] == 100
    assert all(abs(np.median(v) - found[k]) < 1e-12 for k, v in record['repeats'].items())


def test_memory_of_a_step_counts_weights_state_and_the_worst_moment():
    net = torch.nn.Linear(1000, 250, bias=False)                                  # 1 MB
    adam = torch.optim.Adam(net.parameters())
    def step():
        net(torch.ones(1, 1000)).sum().backward()
        adam.step(); adam.zero_grad()
    mb = bench.step_memory(step, net, adam)/1e6
    assert 4 <= mb < 7, mb                                                        # weights, two moments, a gradient; Adam's temporaries
