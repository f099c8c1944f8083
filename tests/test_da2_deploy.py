"""`augment_fast` agrees with `augment` up to rounding; threads and the container of the canvases do not change a bit.

Bounds: the warp is rounded to a level (.5); one colour operation stretches that by at most 1.9 (auto_contrast: by the
stretch) and rounds again; operations that jump (equalize, solarize, posterize) turn a level that fell on the other side of a step
into another step, for few pixels. OpenCV 4 rounds positions to 1/32 px, and the bounds leave room for it."""
import cv2
import numpy as np
import pytest
import torch

from p2net.da2.deploy import augment_fast, colour_table, level_counts, plan_batch, run_in_portions, sharpness_pass
from p2net.da2.operations import IMAGENET_MEAN, IMAGENET_STD, OPERATIONS, POSE16, Draws, augment, colour, cutout

NAMES = [o.name for o in POSE16]
JUMPS = ('equalize', 'solarize', 'posterize')


def noise_images(n, side, rng):
    "(n, side, side, 3) uint8 with detail at every scale, .15 of the range free at either end."
    def one():
        layers = [cv2.resize(rng.random((side//k, side//k, 3)).astype(np.float32), (side, side), interpolation=cv2.INTER_CUBIC)*k**.7 for k in (32, 16, 8, 4, 2, 1)]
        total = sum(layers)
        return ((.15 + .7*(total - total.min())/(total.max() - total.min()))*255).round().astype(np.uint8)
    return np.stack([one() for _ in range(n)])


def scene(n, size, rng):
    "Canvases, base crops (some mirrored), joints, visibility."
    side = int(np.ceil(1.5*max(size)))
    a, s, flip = rng.uniform(-.5, .5, n), rng.uniform(.6, 1.2, n), rng.choice([-1, 1], n)
    linear = np.stack([flip*s*np.cos(a), -s*np.sin(a), flip*s*np.sin(a), s*np.cos(a)], -1).reshape(n, 2, 2)
    shift = np.array([size[1] - 1, size[0] - 1])/2 - linear @ np.array([side - 1, side - 1])/2
    return noise_images(n, side, rng), np.concatenate([linear, shift[..., None]], -1), rng.uniform(0, side, (n, 17, 2)), rng.integers(0, 3, (n, 17))


def draws_of(op, rng, p=1.):
    op = torch.as_tensor(op)
    f = lambda *shape: torch.from_numpy(rng.uniform(0, 1, shape).astype(np.float32))
    return Draws(op[:, 0], op, f(*op.shape) < p, f(*op.shape), (f(*op.shape) < .5)*2. - 1, f(*op.shape, 2))


def slow(canvases, base, joints, visibility, draws, size):
    x, j, v = augment(torch.from_numpy(np.asarray(canvases)).permute(0, 3, 1, 2), torch.from_numpy(base), torch.from_numpy(joints),
                      torch.from_numpy(visibility), draws, POSE16, size)
    return x.permute(0, 2, 3, 1).numpy()*255, j.numpy(), v.numpy()


@pytest.mark.parametrize('size', [(96, 72), (64, 80)])
@pytest.mark.parametrize('first', NAMES)
def test_pairs_agree_with_augment(first, size):
    "All ordered pairs: mean below 1 level; at most 1 pixel in 1000 beyond 6 levels and none beyond 12; where an operation jumps, 1 in 10 beyond 6."
    rng = np.random.default_rng(NAMES.index(first))
    n = 48
    args, draws = scene(n, size, rng), draws_of(np.stack([np.full(n, NAMES.index(first)), np.tile(np.arange(16), 3)], 1), rng)
    fast, want = augment_fast(*args, draws, POSE16, size, 'uint8'), slow(*args, draws, size)
    off = np.abs(fast[0] - want[0]).reshape(n, -1)
    jumps = np.array([any(NAMES[o] in JUMPS for o in pair) for pair in draws.op.tolist()])
    assert off.mean() < 1 and (off[jumps] > 6).mean() < .1
    if not jumps.all(): assert (off[~jumps] > 6).mean() < .001 and off[~jumps].max() < 12
    assert np.abs(fast[1] - want[1]).max() < 1e-9 and np.array_equal(fast[2], want[2])


@pytest.mark.parametrize('name', NAMES)
def test_single_operations_on_whole_pixels_are_exact(name):
    "A crop that copies pixels has nothing to round but the result: 1 level for color and sharpness (fixed point), .51 for the rest."
    rng, n, size, o = np.random.default_rng(3), 12, (60, 44), OPERATIONS[name]
    canvases, _, joints, visibility = scene(n, (66, 50), rng)
    base = np.tile(np.array([[[1., 0, -20], [0, 1, -13]]]), (n, 1, 1))
    draws = draws_of(np.full((n, 1), NAMES.index(name)), rng)
    fast, want = augment_fast(canvases, base, joints, visibility, draws, POSE16, size, 'uint8'), slow(canvases, base, joints, visibility, draws, size)
    off = np.abs(fast[0] - want[0])
    assert off.max() < (1.001 if name in ('color', 'sharpness') or o.kind == 'geometry' and cv2.__version__ >= '5' else 4 if o.kind == 'geometry' else .51)


@pytest.mark.parametrize('chain', [('auto_contrast', 'color', 'contrast'), ('contrast', 'sharpness', 'auto_contrast'), ('brightness', 'color', 'contrast'),
                                   ('color', 'sharpness', 'color'), ('contrast', 'color', 'equalize')])
def test_a_pass_between_tables_starts_them_afresh(chain):
    "After color or sharpness the crop has another histogram. Magnitudes 1 and signs +1, -1, so that it shows."
    rng, n, size = np.random.default_rng(2), 12, (60, 44)
    args, draws = scene(n, size, rng), draws_of(np.tile([NAMES.index(c) for c in chain], (n, 1)), rng)
    draws = draws._replace(m=torch.full((n, 3), .7), sign=torch.tensor([1., -1, 1]).repeat(n, 1))
    fast, want = augment_fast(*args, draws, POSE16, size, 'uint8'), slow(*args, draws, size)
    off = np.abs(fast[0] - want[0])
    assert off.mean() < 1.5 and np.quantile(off, .99) < 9


def test_chains_of_four_colours_agree_on_the_pixels():
    "Tables composed against `colour` applied to every pixel in turn, from the same rounded crop."
    rng, tables = np.random.default_rng(4), [n for n in NAMES if OPERATIONS[n].kind == 'colour' and n not in ('color', 'sharpness')]
    for _ in range(60):
        crop = noise_images(1, 40, rng)[0][:, :31].copy()
        table, x = np.tile(np.arange(256, dtype=np.float32)/255, (3, 1)), torch.from_numpy(crop).permute(2, 0, 1)[None].float()/255
        for name in rng.choice(tables, 4):
            m, sign = torch.tensor([rng.uniform()], dtype=torch.float32), torch.tensor([rng.choice([-1., 1.])], dtype=torch.float32)
            table, x = colour_table(name, OPERATIONS[name].value(m, sign).item(), table, level_counts(crop)), colour(OPERATIONS[name], x, m, sign)
        pixels = np.stack([table[c][crop[..., c]] for c in range(3)])
        off = np.abs(pixels - x[0].numpy())
        assert (off > 1e-4).mean() < .02                    # a level that both compute as k + .5 may round either way before a jump


def test_threads_and_containers_change_no_bit(tmp_path):
    rng, n, size = np.random.default_rng(5), 33, (48, 36)
    args, draws = scene(n, size, rng), draws_of(rng.integers(0, 16, (n, 2)), rng, .7)
    np.save(tmp_path/'canvases.npy', args[0])
    mapped = np.load(tmp_path/'canvases.npy', mmap_mode='r')
    for output in ('float', 'uint8'):
        want = augment_fast(*args, draws, POSE16, size, output)
        for got in (augment_fast(mapped, *args[1:], draws, POSE16, size, output), augment_fast(*args, draws, POSE16, size, output, threads=3),
                    augment_fast(*args, draws, POSE16, size, output, threads=50),
                    augment_fast(list(args[0]), torch.from_numpy(args[1]), torch.from_numpy(args[2]), torch.from_numpy(args[3]), draws, POSE16, size, output)):
            assert all(np.array_equal(a, b) for a, b in zip(got, want))
    assert np.array_equal(mapped, args[0])


def test_candidates_share_a_canvas():
    "Four candidates of each of three people: `which` against copies of the canvases."
    rng, size, which = np.random.default_rng(6), (48, 36), np.repeat([4, 0, 2], 4)
    canvases, base, joints, visibility = scene(5, size, rng)
    draws = draws_of(rng.integers(0, 16, (12, 2)), rng)
    args = base[which], joints[which], visibility[which], draws, POSE16, size
    for a, b in zip(augment_fast(canvases, *args, which=which), augment_fast(canvases[which], *args)): assert np.array_equal(a, b)


def test_normalised_output_is_the_eight_bit_one_normalised():
    rng, n, size = np.random.default_rng(7), 24, (48, 36)
    args, draws = scene(n, size, rng), draws_of(rng.integers(0, 14, (n, 2)), rng)
    eight, normal = (augment_fast(*args, draws, POSE16, size, output)[0] for output in ('uint8', 'float'))
    mean, std = np.array(IMAGENET_MEAN), np.array(IMAGENET_STD)
    assert normal.shape == (n, *size, 3) and normal.dtype == np.float32
    assert np.abs((normal*std + mean)*255 - eight).max() < .5001
    raw = augment_fast(*args, draws, POSE16, size, mean=(0, 0, 0), std=(1, 1, 1))[0]
    assert np.abs(raw*255 - eight).max() < .5001


def test_cutouts_are_the_mean_exactly_and_where_augment_puts_them():
    rng, n, size = np.random.default_rng(8), 40, (48, 36)
    args, draws = scene(n, size, rng), draws_of(np.full((n, 2), 14), rng)
    normal, black = augment_fast(*args, draws, POSE16, size)[0], torch.zeros(n, 1, *size)
    for i in (0, 1): black = cutout(black, draws.m[:, i], draws.u[:, i], (1.,))
    assert black.sum() > 100 and np.array_equal((normal == 0).all(-1), black[:, 0] == 1)
    _, chains, boxes = plan_batch(draws, POSE16, size)
    assert all(len(b) == 2 for b in boxes) and not any(chains)


def test_global_state_and_arguments_are_left_alone():
    rng, n, size = np.random.default_rng(9), 9, (48, 36)
    args, draws = scene(n, size, rng), draws_of(rng.integers(0, 16, (n, 2)), rng)
    kept, before = [np.copy(a) for a in args], torch.random.get_rng_state()
    augment_fast(*args, draws, POSE16, size, threads=2)
    assert all(np.array_equal(a, b) for a, b in zip(args, kept)) and torch.equal(torch.random.get_rng_state(), before)


def test_the_border_is_not_sharpened():
    crop = noise_images(1, 40, np.random.default_rng(0))[0]
    sharp = sharpness_pass(crop, 1.9)
    assert all(np.array_equal(a, b) for a, b in zip((sharp[0], sharp[-1], sharp[:, 0], sharp[:, -1]), (crop[0], crop[-1], crop[:, 0], crop[:, -1])))
    assert np.array_equal(sharpness_pass(crop[:2], .1), crop[:2])


@pytest.mark.parametrize('change, words', [(dict(output='half'), "output must be 'float' or 'uint8'"), (dict(which=[0]), 'which must be'),
                                           (dict(which=[0, 1, 9]), 'which: there are 3 canvases')])
def test_faults(change, words):
    rng, size = np.random.default_rng(0), (48, 36)
    args, draws = scene(3, size, rng), draws_of(np.full((3, 1), 4), rng)
    with pytest.raises(ValueError, match=words): augment_fast(*args, draws, POSE16, size, **change)
    with pytest.raises(ValueError, match='uint8'): augment_fast(args[0].astype(np.float32), *args[1:], draws, POSE16, size)
    with pytest.raises(ValueError, match='rotate: a magnitude'): augment_fast(*args, draws._replace(m=draws.m + 2), POSE16, size)


@pytest.mark.parametrize('n, threads', [(0, 3), (1, 3), (2, 1), (7, 2), (64, 3), (5, 50)])
def test_each_person_is_in_one_portion(n, threads):
    people = []
    run_in_portions(lambda first, last: people.extend(range(first, last)), n, threads)
    assert sorted(people) == list(range(n))
