"""benchmarks/speed.py compares like with like: every library's pipeline makes the image and the joints that the project makes, at a
fixed angle and brightness; what is timed is what the trainer calls; the record says what was left out."""
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]/'benchmarks'))
import speed
from p2net.da2.operations import IMAGENET_MEAN, IMAGENET_STD, Draws
from p2net.network.backbone import ResNetPyramid
from p2net.runs.data import crop_people, targets
from samples import optional

ANGLE, FACTOR = 20., 1.2            # clockwise on the screen


@pytest.fixture(scope='module')
def scene(): return speed.make_scene(4)


def fixed_draws(n):
    "The same rotation and brightness for each person."
    both, m = torch.arange(2).repeat(n, 1), torch.tensor([[ANGLE/speed.DEGREES, (FACTOR - 1)/speed.BRIGHTNESS]]).repeat(n, 1)
    return Draws(both[:, 0], both, both >= 0, m, torch.ones(n, 2), torch.zeros(n, 2, 2))


def levels(x):
    "Normalised images (n, H, W, 3) in grey levels."
    return (np.asarray(x, float)*np.array(IMAGENET_STD) + IMAGENET_MEAN)*255


@pytest.fixture(scope='module')
def ours(scene):
    "Images in grey levels and joints of the trainer's own path."
    pack = speed.make_pack(*scene[:3], speed.SKELETONS['coco17'], speed.SIZE)
    assert np.allclose(pack.matrices(), scene.matrix)                             # the same crop
    x, joints, _ = crop_people(pack, np.arange(4), fixed_draws(4), speed.RotateAndBrighten.operations)
    return levels(x.permute(0, 2, 3, 1)), joints.numpy()


# --- the clock and the scene ---

def test_tasks_take_turns_and_a_ratio_ignores_the_load():
    "`slow` costs 3 ticks, `fast` 1, and after six calls the machine is five times as slow."
    now, order = [0.], []
    def costs(name, ticks):
        def task():
            order.append(name)
            now[0] += ticks*(5 if len(order) > 6 else 1)
        return task
    seconds = speed.time_in_turn(dict(slow=costs('slow', 3), fast=costs('fast', 1)), 4, clock=lambda: now[0])
    assert seconds == dict(slow=[3., 3., 15., 15.], fast=[1., 1., 5., 5.])
    assert order == ['slow', 'fast', 'slow', 'fast', 'fast', 'slow', 'slow', 'fast', 'fast', 'slow']
    assert speed.ratios(seconds['slow'], seconds['fast']) == [3.]*4


def test_the_scene_is_reproducible_and_its_reach_just_large_enough(scene):
    again, other = speed.make_scene(4), speed.make_scene(4, seed=1)
    assert np.array_equal(scene.canvases, again.canvases) and np.array_equal(scene.joints, again.joints)
    assert (scene.canvases != other.canvases).mean() > .9 and 0 <= scene.joints.min() and scene.joints.max() < speed.SIDE
    c, s = np.cos(np.radians(speed.DEGREES)), np.sin(np.radians(speed.DEGREES))
    needed = speed.SIZE[0]*c + speed.SIZE[1]*s, speed.SIZE[1]*c + speed.SIZE[0]*s
    assert all(0 <= reach - need < 4 for reach, need in zip(speed.REACH, needed))


def test_every_mode_covers_everyone_once(monkeypatch):
    calls = []
    monkeypatch.setitem(speed.PIPELINES, 'note', lambda first, last: calls.append((first, last)))
    for mode in ('whole', 'portions', 'threads'): speed.batch_task('note', mode, 20, None)()
    portions = [(0, 8), (8, 16), (16, 20)]
    assert [calls[0], calls[1:4], sorted(calls[4:])] == [(0, 20), portions, portions]


# --- the same work ---

@pytest.mark.parametrize('name, make, planes, sign', [
    ('albumentations', speed.albumentations, False, -1), ('albumentations', lambda *a, **k: speed.albumentations(*a, brightness='MultiplicativeNoise', **k), False, -1),
    ('torchvision', speed.torchvision_v2, True, -1), ('kornia', speed.kornia, True, -1)])
def test_libraries_do_the_same(scene, ours, name, make, planes, sign):
    "Half a level of rounding after the warp and after the brightness on either side, and positions rounded to 1/32 px in OpenCV 4: mean below 1, 99 of 100 below 3."
    if name != 'torchvision': optional(name)
    make(scene, angles=(sign*ANGLE, sign*ANGLE), factors=(FACTOR, FACTOR))(0, 4)
    off = np.abs(levels(scene.images.reshape(-1, 3, *speed.SIZE).transpose(0, 2, 3, 1) if planes else scene.images) - ours[0])
    assert off.mean() < 1 and np.quantile(off, .99) < 3, (off.mean(), np.quantile(off, .99))
    assert np.abs(scene.moved - ours[1]).max() < (.25 if name == 'torchvision' else 1e-3) # torchvision moves joints a fifth of a pixel aside
    inside = ((scene.moved >= -.5) & (scene.moved <= np.array(speed.SIZE[::-1]) - .5)).all(-1)
    want = targets(torch.from_numpy(scene.moved).float(), torch.from_numpy(scene.visibility*inside), speed.SIZE, speed.SIGMA)[0]
    assert np.abs(scene.heatmaps - want.numpy()).max() < 1e-6 and (inside.all() or not scene.heatmaps[~inside].any())


def test_what_is_timed_is_what_the_trainer_calls(scene):
    "`deployed` returns crops, joints and targets of `crop_people`, anew in each call; its uint8 variant the same images in levels."
    normal, eight = (speed.deployed(scene, output, threads=2) for output in ('float', 'uint8'))
    (x, joints, (maps, _)), (y, moved, _) = normal(), eight()
    assert np.abs(levels(x.permute(0, 2, 3, 1)) - y).max() < .501 and torch.equal(joints, moved)
    gen, policy = torch.Generator().manual_seed(0), speed.RotateAndBrighten()
    pack = speed.make_pack(*scene[:3], speed.SKELETONS['coco17'], speed.SIZE)
    want = crop_people(pack, np.arange(4), policy.sample(4, gen), policy.operations)
    assert torch.equal(x, want[0]) and torch.equal(maps, targets(*want[1:], speed.SIZE, speed.SIGMA)[0])
    assert not torch.equal(normal()[0], x)


def test_differentiable_paths_agree():
    "Images to 1e-4 of the range, joints to 1e-3 px: float32 positions on a 400 px canvas. Gradients in either magnitude to 3 in 1000 of the largest: they jump where a position falls on the other side of a pixel."
    optional('kornia')
    ours, *others = ([torch.cat(part) for part in done[:2]] + [done[2]] for done in (f() for name, f in speed.differentiable(speed.make_scene(10)).items() if name != 'bare sampler'))
    assert len(others) == 2                                                       # kornia's whole batch and its portions
    for theirs in others:
        (x, y), (joints, moved), (grad, other) = zip(ours, theirs)
        assert (x - y).abs().max() < 1e-4 and (joints - moved).abs().max() < 1e-3
        assert ((grad - other).abs() < 3e-3*other.abs().amax(0)).all()


def test_the_gradient_in_the_brightness_is_that_of_the_formula(scene):
    "x = x0 (1 + .4 s m) where nothing is clipped at 1, so dx/dm = .4 s x/(1 + .4 s m); sums of 150 000 float32. And the bare sampler sees the same crops."
    tasks = speed.differentiable(scene)
    (x,), _, grad = tasks['ours']()
    gen = torch.Generator().manual_seed(0)
    draws = speed.RotateAndBrighten().sample(4, gen)
    change, given = speed.BRIGHTNESS*draws.sign[:, 1], torch.rand(4, 3, *speed.SIZE, generator=gen)
    factor = (1 + change*draws.m[:, 1])[:, None, None, None]
    want = change*(given*x/factor*(x < 1)).sum((1, 2, 3))
    assert (grad[:, 1] - want).abs().max() < 1e-3*want.abs().max()
    crops, _ = tasks['bare sampler']()
    assert ((torch.cat(list(crops))*factor).clamp(0, 1) - x).abs().max() < 1e-4


def test_a_sampled_policy_is_the_same_with_kornia(scene):
    "The start policy, seed 0: 97 of 100 values within 2.5 levels (jumps fall differently, black outside instead of grey), and every operation among the draws."
    done = {name: torch.cat(task()) for name, task in speed.sampled_policy(scene).items()}
    assert torch.equal(done['sampled'], done['sampled, forward and backward']) and (done['sampled'] - done['crop']).abs().max() > .1
    optional('kornia')
    done = {name: torch.cat(task()) for name, task in speed.sampled_policy(speed.make_scene()).items()}
    ours, theirs = done['sampled, forward and backward'], [x for name, x in done.items() if 'kornia' in name]
    assert len(theirs) == 2                                                       # the whole batch and portions
    for x in theirs: assert (((ours - x).abs()*255) < 2.5).float().mean() > .97
    draws = speed.FrozenPolicy().sample(len(ours), torch.Generator().manual_seed(0))
    assert len(set(draws.op[draws.on].tolist())) == 15


# --- steps and memory ---

def test_peak_of_known_tasks():
    "Two arrays of a million bytes one after the other, and two at a time."
    def one_by_one():
        for _ in range(2): torch.ones(250_000).sum()
    def together():
        a = torch.ones(250_000); b = a + 1
        return b.sum()
    one, two = speed.peak_bytes(one_by_one), speed.peak_bytes(together)
    assert 1e6 <= one < 1.1e6 and 2e6 <= two < 2.1e6


def test_memory_of_a_step_counts_weights_state_and_the_peak():
    net = torch.nn.Linear(1000, 250, bias=False)                                  # 1 MB
    adam = torch.optim.Adam(net.parameters())
    def step():
        net(torch.ones(1, 1000)).sum().backward()
        adam.step(); adam.zero_grad()
    mb = speed.step_memory(step, net, adam)/1e6
    assert 4 <= mb < 7, mb                                                        # weights, two moments, a gradient; Adam's temporaries


def test_a_search_step_is_timed_and_weighed(monkeypatch):
    "A small network, batches of four: every variant has a time and more memory than the plain step, and straight-through has the most."
    make_config, small = speed.make_config, dict(network=dict(width=16, base_channels=16), data=dict(input_size=[64, 48]))
    monkeypatch.setattr(speed, 'make_config', lambda scale, **changes: make_config(scale, **changes, **small))
    with TemporaryDirectory() as work: seconds, memory = speed.search_speeds(work, 1, batch=4, sub_policies='singles')
    assert set(seconds) == set(memory) == {'paired', 'straight-through', 'default', 'plain'} and all(len(v) == 1 for v in seconds.values())
    assert memory['plain'] < min(memory['default'], memory['paired']) and max(memory['default'], memory['paired']) < memory['straight-through']


def test_a_training_step_and_the_pass_of_its_backbone():
    "Two people: the step changes the weights, the pass does not, and the backbone is that of the network."
    few = speed.make_config('tiny', experiment='bench', training=dict(batch=2))
    with TemporaryDirectory() as work: measured = speed.training_speeds(work, 2, few)
    assert {name: len(v) for name, v in measured.seconds.items()} == dict(p2net=2, backbone=2)
    pack = speed.noise_pack(few, 2)
    trainer = speed.Trainer(few, speed.make_network(few, len(pack.skeleton)), pack, speed.IdentityPolicy(), 'nowhere', progress=False)
    x, target, weight = trainer.batch(0)
    backbone, sizes = speed.BackbonePass(trainer, x), lambda model: {k: v.shape for k, v in model.named_parameters()}
    models = backbone.model, trainer.model
    before = [[p.clone() for p in model.parameters()] for model in models]
    backbone(); trainer.step(x, target, weight)
    assert [any((p != q).any() for p, q in zip(model.parameters(), old)) for model, old in zip(models, before)] == [False, True]
    assert [sizes(m) for m in trainer.model.modules() if isinstance(m, ResNetPyramid)] == [sizes(backbone.model)]


# --- the record ---

def test_record_of_invented_times(monkeypatch):
    monkeypatch.setattr(speed, 'installed', lambda name: None if name == 'kornia' else '1.0')
    deploy = {'bare warp': [100., 100], 'deployed uint8': [70., 90], 'deployed': [60., 60], 'torchvision v2, threads': [20., 30], 'kornia, whole': [1., 1.]}
    config = speed.make_config('tiny', experiment='bench')
    rest = ({'paired': [4., 8], 'default': [3., 6], 'straight-through': [3., 6], 'plain': [1., 2]},
            {'paired': 14, 'default': 13, 'straight-through': 12, 'plain': 10}, dict(augmented=[1.1, 1.], cropped=[1., 1.], plain=[1., 1.]))
    training = speed.TrainingSpeeds(config, 'cpu', False, dict(p2net=[4., 8.], backbone=[1., 4.]), {})
    record = speed.bench_record(config, deploy, dict(ours=[1., 2]), *rest, training, 9.)
    found = record['metrics']
    assert (record['scale'], record['experiment'], record['seed'], record['status']) == ('tiny', 'bench', 0, 'complete')
    want = dict(deploy_vs_bare_warp=.8, deploy_vs_fastest_peer=2.5, search_step_vs_plain=4, search_memory_vs_plain=1.4, augmented_loop_vs_plain=1.05)
    assert {k: round(found[k], 9) for k in want} == want and record['fastest_peer'] == 'torchvision v2, threads'
    assert 'differentiable_vs_kornia' not in found and record['left_out'] == ['kornia: not installed'] # absent, not 0
    assert record['repeats']['training_vs_backbone'] == [.25, .5] and record['training']['precision'] == 'fp32' # twice as long: half as fast
    assert found['people_per_s/training/backbone'] == pytest.approx(config.training.batch*(1 + .25)/2) and not any(k.startswith('mib/training') for k in found)
    assert record['repeats']['deploy_vs_bare_warp'] == [.7, .9] and found['people_per_s/bare warp'] == 100
    assert all(abs(np.median(v) - found[k]) < 1e-12 for k, v in record['repeats'].items())
    differ = {'ours': [1., 2.], 'kornia, whole': [9., 9.], 'kornia, portions': [3., 4.], 'bare sampler': [.5, .5], 'crop': [2., 2.], 'sampled': [3., 4.],
              'sampled, forward and backward': [6., 6.], 'sampled, forward and backward, kornia, whole': [60., 60.],
              'sampled, forward and backward, kornia, portions': [30., 24.]}
    got = speed.all_ratios(deploy, differ, *rest, training._replace(peak=dict(p2net=30, backbone=20)))
    want = dict(differentiable_vs_kornia=[3., 2.], differentiable_vs_sampler=[.5, .25], sampled_vs_crop=[1.5, 2.], sampled_forward_backward_vs_crop=[3., 3.],
                sampled_vs_kornia=[5., 4.], training_memory_vs_backbone=[1.5])         # the faster of kornia's modes
    assert {k: got[k] for k in want} == want


def test_arguments_reach_the_measurement(monkeypatch, capsys):
    calls = []
    def measure(*args):
        calls.append(args[:3])
        return dict(repeats={'deploy_vs_bare_warp': [1., 2., 3.], 'people_per_s/x': [5.]}, metrics={'deploy_vs_bare_warp': 2.}, left_out=['kornia: not installed']), 'r.json'
    monkeypatch.setattr(speed, 'bench', measure)
    speed.main('--records here --repeats 3 --seed 1'.split())
    assert calls == [('here', 3, 1)]
    assert capsys.readouterr().out.splitlines() == ['  deploy_vs_bare_warp 2.00 (1.00 to 3.00)', '  left out: kornia: not installed; pip install -e .[bench]', 'r.json']
    with pytest.raises(SystemExit): speed.main(['--repeats', '0'])
