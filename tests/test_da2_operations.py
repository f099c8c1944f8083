"""`da2.operations` against PIL, against finite differences and against itself; what its notebook has no room for."""
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps

from p2net.da2.operations import (DADA15, OPERATIONS, POSE16, Draws, augment, colour, cutout, compose, from_linear, geometry_matrix, invert_affine,
                                  move, scratch, step_matrices, total_matrix, warp)
from samples import needs_gpu

NAMES = [o.name for o in POSE16]
COLOURS = [o.name for o in POSE16 if o.kind == 'colour']
JUMPS = ('solarize', 'posterize', 'cutout')
SIZE = (40, 28)


def pictures():
    "Noise, a smooth picture, few levels, one level, hardly any pixels, a strip: (h, w, 3) uint8, h != w."
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:33, :21]
    smooth = np.stack([60 + 4*x, 230 - 3*y - 2*x, 128 + 60*np.sin(x/5 + y/9)], -1)
    few = rng.choice([12, 90, 91, 200], (33, 21, 3), p=[.9, .05, .02, .03])
    return dict(noise=rng.integers(0, 256, (33, 21, 3)), smooth=smooth, few=few, flat=np.full((33, 21, 3), 77),
                tiny=rng.integers(0, 256, (3, 4, 3)), strip=rng.integers(0, 256, (2, 300, 3)), dark=rng.integers(0, 30, (33, 21, 3)))


def pil(name, image, v):
    if name == 'solarize': return ImageOps.solarize(image, 256 - v)
    if name == 'posterize': return ImageOps.posterize(image, int(8 - v))
    if name in ('auto_contrast', 'equalize', 'invert'): return getattr(ImageOps, name.replace('_', ''))(image)
    return getattr(ImageEnhance, name.title())(image).enhance(1 + v)


@pytest.mark.parametrize('kind', pictures())
@pytest.mark.parametrize('name', COLOURS)
def test_colours_are_pils(name, kind):
    "Within one level: PIL truncates after blending and rounds the degenerate image."
    picture, operation, rng = pictures()[kind].astype(np.uint8), OPERATIONS[name], np.random.default_rng(1)
    m = torch.tensor([0, .5, 1, *rng.uniform(0, 1, 5)]).repeat(2)
    sign = torch.tensor([1., -1]).repeat_interleave(8)
    x = torch.from_numpy(picture).permute(2, 0, 1).double()/255
    ours = (colour(operation, x[None].repeat(16, 1, 1, 1), m.double(), sign)*255).round().permute(0, 2, 3, 1).numpy()
    for got, v in zip(ours, operation.value(m, sign).tolist()):
        want = np.asarray(pil(name, Image.fromarray(picture), v)).astype(float)
        assert np.abs(got - want).max() <= 1
        if name in ('invert', 'solarize', 'posterize', 'equalize'): assert np.array_equal(got, want)     # integers: exactly


@pytest.mark.parametrize('name', [o.name for o in POSE16 if o.kind == 'geometry'])
def test_geometry_is_pils(name):
    "PIL measures from the corner of the first pixel and maps back: the same affine map, written its way."
    H, W = 44, 31
    rng = np.random.default_rng(2)
    small = Image.fromarray(rng.integers(0, 256, (11, 8, 3), dtype=np.uint8))
    picture = np.asarray(small.resize((W, H), Image.BICUBIC))
    x = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].double()/255
    for m in (-1, -.4, .3, .9):
        v, (cx, cy) = m*OPERATIONS[name].high, (W/2, H/2)
        a = np.deg2rad(v)
        back = dict(shear_x=(1, -v, v*cy, 0, 1, 0), shear_y=(1, 0, 0, -v, 1, v*cx), translate_x=(1, 0, -v*W, 0, 1, 0), translate_y=(1, 0, 0, 0, 1, -v*H),
                    rotate=(np.cos(a), np.sin(a), cx - np.cos(a)*cx - np.sin(a)*cy, -np.sin(a), np.cos(a), cy + np.sin(a)*cx - np.cos(a)*cy),
                    scale=(1.35**-m, 0, cx*(1 - 1.35**-m), 0, 1.35**-m, cy*(1 - 1.35**-m)))[name]
        want = np.asarray(Image.fromarray(picture).transform((W, H), Image.AFFINE, back, Image.BILINEAR)).astype(float)
        A = geometry_matrix(OPERATIONS[name], torch.tensor([v], dtype=torch.float64), (H, W))
        got = (warp(x, A, (H, W), torch.zeros(3))*255)[0].permute(1, 2, 0).numpy()
        whole = warp(torch.ones_like(x), A, (H, W), torch.zeros(3))[0, 0].numpy() > .999         # PIL repeats the border, we fade into the fill
        assert whole.mean() > .2 and np.abs(got - want)[whole].max() <= 1 + 1e-9              # PIL truncates


def people(n, rng, dtype=torch.float32, canvas=(66, 58)):
    "n smooth canvases, base crops, joints, visibility."
    noise = torch.from_numpy(rng.uniform(0, 1, (n, 3, 9, 8)))
    pixels = torch.nn.functional.interpolate(noise, canvas, mode='bicubic').clamp(0, 1).to(dtype)
    a, s = rng.uniform(-.4, .4, n), rng.uniform(.6, 1, n)
    linear = np.stack([s*np.cos(a), -s*np.sin(a), s*np.sin(a), s*np.cos(a)], -1).reshape(n, 2, 2)
    shift = np.array([SIZE[1], SIZE[0]])/2 - linear @ (np.array([canvas[1], canvas[0]])/2)
    base = torch.from_numpy(np.concatenate([linear, shift[..., None]], -1))
    return pixels, base, torch.from_numpy(rng.uniform(5, 50, (n, 4, 2))), torch.from_numpy(rng.integers(0, 3, (n, 4)))


def draws_of(op, rng, p=1., dtype=torch.float32):
    op = torch.as_tensor(op)
    return Draws(op[:, 0], op, torch.from_numpy(rng.uniform(0, 1, op.shape) < p), torch.from_numpy(rng.uniform(0, 1, op.shape)).to(dtype),
                 torch.from_numpy(rng.choice([-1., 1.], op.shape)).to(dtype), torch.from_numpy(rng.uniform(0, 1, (*op.shape, 2))).to(dtype))


def pick(t, rows): return type(t)(*(a[rows] for a in t)) if isinstance(t, Draws) else t[rows]


@pytest.mark.parametrize('fold', [True, False])
def test_a_batch_is_its_people(fold):
    "Each person alone, and in another order, as in the batch; 1 and 3 operations; the caller's tensors are unchanged."
    rng = np.random.default_rng(3)
    for n_op in (1, 3):
        n = 40
        args, draws = people(n, rng), draws_of(rng.integers(0, 16, (n, n_op)), rng, .7)
        before = [t.clone() for t in (*args, *draws)]
        x, j, v = augment(*args, draws, POSE16, SIZE, fold=fold)
        assert x.shape == (n, 3, *SIZE) and x.min() > -1e-6 and x.max() < 1 + 1e-6
        order = torch.from_numpy(rng.permutation(n))
        mixed = augment(*(a[order] for a in args), pick(draws, order), POSE16, SIZE, fold=fold)
        for got, want in zip(mixed, (x, j, v)): assert torch.equal(got, want[order])
        for i in range(0, n, 7):
            alone = augment(*(a[i:i + 1] for a in args), pick(draws, slice(i, i + 1)), POSE16, SIZE, fold=fold)
            assert (alone[0] - x[i]).abs().max() < 1e-5 and torch.equal(alone[1][0], j[i]) and torch.equal(alone[2][0], v[i])
        assert all(torch.equal(a, b) for a, b in zip((*args, *draws), before))


def test_folded_and_unfolded_agree_where_both_see():
    "Equal joints for any draws; close pixels, where no fill is near, when geometry was drawn first, as in DADA's order."
    rng, n = np.random.default_rng(4), 60
    args = people(n, rng)
    draws = draws_of(rng.integers(0, 16, (n, 3)), rng, .8, torch.float64)
    folded, unfolded = (augment(*args, draws, POSE16, SIZE, fold=f) for f in (True, False))
    assert torch.equal(folded[1], unfolded[1]) and torch.equal(folded[2], unfolded[2])
    ops = np.stack([rng.integers(0, 5, n), rng.choice([6, 11, 12], n)], 1)                   # a geometric one, then a pointwise one
    small = draws_of(ops, rng)
    small = small._replace(m=small.m*.3)
    folded, unfolded = (augment(*args, small, POSE16, SIZE, fold=f)[0] for f in (True, False))
    middle = (folded - unfolded)[..., 14:-14, 10:-10].abs()
    assert middle.max() < .06 and middle.mean() < .006                                       # a second interpolation blurs
    never = draws_of(np.stack([rng.integers(5, 15, n)], 1), rng)
    assert torch.equal(*(augment(*args, never, POSE16, SIZE, fold=f)[0] for f in (True, False)))   # nothing moves: the same


def test_dadas_list_is_never_reordered_by_folding():
    "Geometry, colours, cutout: that is the order of the list, so list-ordered pairs (C-05) are carried out as drawn."
    rank = {'geometry': 0, 'colour': 1, 'erase': 2}
    kinds = [rank[o.kind] for o in DADA15]
    assert kinds == sorted(kinds)


@pytest.mark.parametrize('name', NAMES)
def test_what_is_on_shows_and_nothing_else(name):
    "Exactly the people with an operation on change; their fraction is p within 5 sigma (a right sampler fails once in 1.7 million)."
    rng, n, p = np.random.default_rng(NAMES.index(name)), 400, .3
    args = people(n, rng)
    draws = draws_of(np.full((n, 1), NAMES.index(name)), rng, p)
    args, draws = (args[0]*.8 + .1, *args[1:]), draws._replace(m=.5 + draws.m/2, u=.2 + .6*draws.u)       # far enough from the identity to show
    off = augment(*args, draws._replace(on=torch.zeros(n, 1, dtype=torch.bool)), POSE16, SIZE)
    out = augment(*args, draws, POSE16, SIZE)
    on = draws.on[:, 0]
    changed = (out[0] != off[0]).flatten(1).any(1)
    assert torch.equal(changed, on)
    if OPERATIONS[name].kind == 'geometry': assert torch.equal((out[1] != off[1]).flatten(1).any(1), on)
    else: assert torch.equal(out[1], off[1]) and torch.equal(out[2], off[2])
    assert abs(on.float().mean() - p) < 5*(p*(1 - p)/n)**.5


@pytest.mark.parametrize('name', [o.name for o in POSE16 if o.has_magnitude])
def test_magnitude_zero_is_the_base_crop(name):
    rng, n = np.random.default_rng(6), 8
    args, draws = people(n, rng), draws_of(np.full((n, 2), NAMES.index(name)), rng)
    for fold in (True, False):
        zero = augment(*args, draws._replace(m=torch.zeros(n, 2)), POSE16, SIZE, fold=fold)
        off = augment(*args, draws._replace(on=torch.zeros(n, 2, dtype=torch.bool)), POSE16, SIZE, fold=fold)
        assert (zero[0] - off[0]).abs().max() <= (1e-6 if fold else 2e-5)                    # unfolded: one more interpolation
        assert torch.equal(zero[1], off[1]) and torch.equal(zero[2], off[2])


@pytest.mark.parametrize('name', [o.name for o in POSE16 if o.has_magnitude])
@pytest.mark.parametrize('m', [-.01, 1.01, float('nan'), float('inf')])
def test_a_magnitude_out_of_range_is_refused_by_name(name, m):
    args, rng = people(3, np.random.default_rng(0)), np.random.default_rng(0)
    draws = draws_of(np.full((3, 1), NAMES.index(name)), rng)
    draws.m[1] = m
    with pytest.raises(ValueError, match=f'{name}: a magnitude must be in'): augment(*args, draws, POSE16, SIZE)
    draws.on[1] = False
    augment(*args, draws, POSE16, SIZE)                                                      # the magnitude of an operation that is off is not checked


def test_other_faults():
    args, draws = people(3, np.random.default_rng(0)), draws_of(np.full((3, 2), 4), np.random.default_rng(0))
    with pytest.raises(ValueError, match='draws.op must index the 15 operations'): augment(*args, draws._replace(op=draws.op + 11), DADA15, SIZE)
    with pytest.raises(ValueError, match='draws.u must be'): augment(*args, draws._replace(u=draws.u[:, :1]), POSE16, SIZE)
    with pytest.raises(ValueError, match='canvas must be uint8 or floating point'): augment(args[0].int(), *args[1:], draws, POSE16, SIZE)
    with pytest.raises(ValueError, match='invert: moves no pixels'): geometry_matrix(OPERATIONS['invert'], torch.zeros(1), SIZE)
    with pytest.raises(ValueError, match='rotate: is not a colour operation'): colour(OPERATIONS['rotate'], args[0], torch.zeros(3), torch.ones(3))


def test_another_range_is_followed_everywhere():
    wide = tuple(replace(o, high=2*o.high) if o.name in ('rotate', 'scale', 'cutout') else o for o in POSE16)
    rng = np.random.default_rng(0)
    args = people(2, rng)
    for name in ('rotate', 'cutout'):
        draws = draws_of(np.full((2, 1), NAMES.index(name)), rng)
        a, b = augment(*args, draws._replace(m=torch.full((2, 1), .4)), wide, SIZE), augment(*args, draws._replace(m=torch.full((2, 1), .8)), POSE16, SIZE)
        assert (a[0] - b[0]).abs().max() < 1e-4 and (a[1] - b[1]).abs().max() < 1e-4
    assert torch.allclose(geometry_matrix(wide[15], torch.tensor([.7]), SIZE)[0, 0, 0], torch.tensor(1.7))


def gradient(draws, weights, args, fold):
    "d/dm of a weighted sum of pixels and joints: autograd's, and central differences."
    def total(m):
        x, j, _ = augment(*args, draws._replace(m=m), POSE16, SIZE, fold=fold)
        return ((x*weights).flatten(1).sum(1) + 3*j.flatten(1).sum(1))
    m, eps = draws.m.clone().requires_grad_(), 1e-7
    auto, = torch.autograd.grad(total(m).sum(), m)
    numeric = torch.stack([(total(draws.m + eps*e) - total(draws.m - eps*e))/2/eps for e in torch.eye(m.shape[1], dtype=m.dtype)], 1)
    return auto, numeric.detach()


@pytest.mark.parametrize('fold', [True, False])
def test_gradient_of_every_pair_is_the_finite_difference(fold):
    "float64, all pairs of the thirteen that don't jump. A kink (bilinear, clamp) may fall inside the difference: 1 row in 100 may be off."
    smooth = [i for i, o in enumerate(POSE16) if o.name not in (*JUMPS, 'equalize')]
    ops = np.array([(a, b) for a in smooth for b in smooth for _ in range(2)])
    rng = np.random.default_rng(8)
    args = people(len(ops), rng, torch.float64)
    draws = draws_of(ops, rng, dtype=torch.float64)
    draws = draws._replace(m=.05 + .9*draws.m)
    auto, numeric = gradient(draws, torch.from_numpy(rng.normal(0, 1, (len(ops), 3, *SIZE))), args, fold)
    off = (auto - numeric).abs()/(1 + numeric.abs())
    assert (off > 1e-5).any(1).double().mean() <= .01 and off.max() < .2
    magnitudes = torch.tensor([o.has_magnitude for o in POSE16])[draws.op]
    assert (auto[~magnitudes] == 0).all() and (auto[magnitudes] != 0).double().mean() > .95


def test_what_jumps_has_gradient_zero_and_lets_others_have_theirs():
    rng, n = np.random.default_rng(9), 30
    args = people(n, rng, torch.float64)
    jumps = [i for i, o in enumerate(POSE16) if o.name in JUMPS or not o.has_magnitude]
    draws = draws_of(rng.choice(jumps, (n, 2)), rng, dtype=torch.float64)
    m = draws.m.clone().requires_grad_()
    x, j, _ = augment(*args, draws._replace(m=m), POSE16, SIZE)
    grad, = torch.autograd.grad((x**2).sum() + j.sum(), m)
    assert (grad == 0).all()                                                                 # zero, not missing
    with_turn = draws._replace(op=torch.stack([torch.full((n,), 4), draws.op[:, 1]], 1), m=m)
    grad, = torch.autograd.grad((augment(*args, with_turn, POSE16, SIZE)[0]**2).sum(), m)
    assert (grad[:, 0] != 0).all() and (grad[:, 1] == 0).all()


def test_autocast_rounds_nothing():
    rng, n = np.random.default_rng(10), 32
    args, draws = people(n, rng), draws_of(rng.integers(0, 16, (n, 2)), rng)
    want = augment(*args, draws, POSE16, SIZE)
    with torch.autocast('cpu', torch.bfloat16): got = augment(*args, draws, POSE16, SIZE)
    assert all(torch.equal(a, b) for a, b in zip(got, want))


def test_eight_bits_and_floating_point_canvases_are_the_same():
    rng, n = np.random.default_rng(11), 6
    _, *rest = people(n, rng)
    canvas = torch.from_numpy(rng.integers(0, 256, (n, 3, 66, 58), dtype=np.uint8))
    continuous = [i for i, o in enumerate(POSE16) if o.name not in ('equalize', 'solarize', 'posterize')] # where a rounding stays one
    draws = draws_of(rng.choice(continuous, (n, 2)), rng)
    eight, floating = (augment(c, *rest, draws, POSE16, SIZE)[0] for c in (canvas, canvas.float()/255))
    assert (eight - floating).abs().max() < 2e-6
    assert augment(canvas, rest[0], None, None, draws, POSE16, SIZE)[1:] == (None, None)


def test_the_matrix_is_the_chain_of_its_parts():
    rng, n = np.random.default_rng(12), 20
    _, base, joints, _ = people(n, rng)
    draws = draws_of(rng.choice([0, 1, 2, 3, 4, 15], (n, 3)), rng, .7, torch.float64)
    total = total_matrix(base, step_matrices(draws, POSE16, SIZE))
    for i in range(n):
        q = joints[i]
        q = q @ base[i, :, :2].T + base[i, :, 2]
        for o, on, m, s in zip(draws.op[i], draws.on[i], draws.m[i], draws.sign[i]):
            if on:
                A = geometry_matrix(POSE16[o], (m*s*POSE16[o].high)[None], SIZE)[0]
                q = q @ A[:, :2].T + A[:, 2]
        assert (move(total[i], joints[i]) - q).abs().max() < 1e-10
    assert (compose(total, invert_affine(total)) - torch.eye(2, 3)).abs().max() < 1e-10


def test_dadas_linear_scale():
    "Its middle is the identity of the signed ones, its upper end that of solarize and posterize."
    half = torch.full((3,), .5)
    for o in POSE16:
        if not o.has_magnitude: continue
        for level in (0., .2, .5, .9, 1.):
            m, sign = from_linear(o, torch.tensor([level]), torch.ones(1))
            v, identity = o.value(m, sign).item(), o.name in ('solarize', 'posterize')
            want = (2*level - 1)*o.high if o.signed else (1 - level if identity else level)*o.high
            assert abs(v - want) < 1e-5*max(1, o.high)
    assert sum(o.signed for o in DADA15) == 9 and all(from_linear(o, half, torch.ones(3))[0].max() == 0 for o in POSE16 if o.signed)


@needs_gpu
@pytest.mark.parametrize('fold', [True, False])
def test_a_gpu_gives_what_the_processor_gives(fold):
    "Draws stay on the processor, canvases are on the GPU; gradients come back to the magnitudes."
    rng, n = np.random.default_rng(13), 64
    (canvas, base, joints, visibility), draws = people(n, rng), draws_of(rng.choice([i for i in range(16) if i not in (7, 8, 9)], (n, 2)), rng)
    want = augment(canvas, base, joints, visibility, draws, POSE16, SIZE, fold=fold)
    m = draws.m.clone().requires_grad_()
    got = augment(canvas.cuda(), base, joints.cuda(), visibility.cuda(), draws._replace(m=m), POSE16, SIZE, fold=fold)
    assert (got[0].cpu() - want[0]).abs().max() < 1e-3 and (got[1].cpu() - want[1]).abs().max() < 1e-4
    grad, = torch.autograd.grad(got[0].sum() + got[1].sum(), m)
    assert grad.device.type == 'cpu' and (grad != 0).any()


def test_the_number_of_threads_changes_no_pixel():
    "Forward bit-equal, gradients up to float32's rounding of sums; the portions differ, too."
    gen, before = torch.Generator().manual_seed(0), torch.get_num_threads()
    canvas, w = torch.randint(0, 256, (30, 3, 150, 140), generator=gen).byte(), torch.rand(30, 3, 96, 72, generator=gen)
    matrix = torch.tensor([[[.8, .2, -20], [-.3, .7, 10]]]).repeat(30, 1, 1) + torch.rand(30, 2, 3, generator=gen)/10
    def run(threads):
        torch.set_num_threads(threads)
        back, m = matrix.clone().requires_grad_(), torch.full((30,), .3, requires_grad=True)
        x = colour(OPERATIONS['brightness'], warp(canvas, back, (96, 72), torch.tensor([.4, .5, .6])), m, torch.ones(30))
        return x, *torch.autograd.grad(x, (back, m), w)
    try: (one, *gradients), (three, *others) = run(1), run(3)
    finally: torch.set_num_threads(before)
    assert torch.equal(one, three)
    for a, b in zip(gradients, others): assert (a - b).abs().max() <= 1e-5*a.abs().max()


@pytest.mark.parametrize('fold', [True, False])
def test_result_does_not_depend_on_the_portions(fold, monkeypatch):
    "Any size of a portion: the same pixels and gradients."
    import p2net.da2.operations as module
    rng, n = np.random.default_rng(14), 60
    args, w = people(n, rng, torch.float64), torch.from_numpy(rng.normal(0, 1, (n, 3, *SIZE)))
    draws = draws_of(rng.choice([6, 7, 10, 11, 12, 13, 14, 4], (n, 3)), rng, .6, torch.float64)
    def run(few):
        monkeypatch.setattr(module, 'portions', lambda x: [slice(at, min(at + few, len(x))) for at in range(0, len(x), few)])
        m = draws.m.clone().requires_grad_()
        x, *_ = augment(*args, draws._replace(m=m), POSE16, SIZE, fold=fold)
        return x, torch.autograd.grad(x, m, w)[0]
    (x, gradient), *others = (run(few) for few in (n, 1, 7))
    for other, its_gradient in others:
        assert (other - x).abs().max() < 1e-14 and (its_gradient - gradient).abs().max() < 1e-10*gradient.abs().max()
    assert gradient.abs().max() > 1


@pytest.mark.parametrize('name', [n for n in COLOURS if n not in ('equalize', 'posterize')])
def test_gradients_of_a_colour_are_finite_differences(name):
    "In the image and in the magnitude, several people, 3 channels of 5 by 4 pixels; a strip too narrow to be smoothed."
    gen, operation = torch.Generator().manual_seed(3), OPERATIONS[name]
    for shape in ((3, 3, 5, 4), (2, 3, 2, 9)):
        x = (.05 + .9*torch.rand(shape, generator=gen, dtype=torch.float64)).requires_grad_()
        m = torch.tensor([.8, .3, .55][:shape[0]], dtype=torch.float64, requires_grad=True)
        sign = torch.tensor([1., -1, 1][:shape[0]], dtype=torch.float64)
        assert torch.autograd.gradcheck(lambda x, m: colour(operation, x, m, sign), (x, m))


def test_no_gradient_under_a_cutout():
    x = torch.rand(2, 3, 20, 30, generator=torch.Generator().manual_seed(0), requires_grad=True)
    y = cutout(x, torch.tensor([1., 0]), torch.tensor([[.5, .5], [.5, .5]]), (2., 2., 2.))
    gradient, = torch.autograd.grad(y.sum(), x)
    assert (y == 2).sum() == 3*6*6 and torch.equal(gradient, (y != 2).float())


def test_gradients_of_8_bit_images_are_those_of_floating_point():
    gen = torch.Generator().manual_seed(4)
    canvas, w = torch.randint(0, 256, (3, 3, 40, 50), generator=gen).byte(), torch.rand(3, 3, 20, 16, generator=gen)
    matrix = torch.tensor([[[.5, .1, -2], [-.1, .6, 1]]]).repeat(3, 1, 1)
    def gradient(image):
        back = matrix.clone().requires_grad_()
        return torch.autograd.grad(warp(image, back, (20, 16), torch.tensor([.4, .5, .6])), back, w)[0]
    eight, floating = gradient(canvas), gradient(canvas/255)
    assert (eight - floating).abs().max() < 1e-4*floating.abs().max()


def test_equal_extremes_divide_the_gradient():
    "As autograd has it for amin and amax."
    x = torch.tensor([.2, .2, .5, .9, .9, .9], dtype=torch.float64).view(1, 1, 2, 3).repeat(2, 3, 1, 1)
    x[1] = .4                                                                                # flat: stays
    w = torch.arange(36, dtype=torch.float64).view(2, 3, 2, 3)
    def reference(x):
        low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
        flat = high <= low
        return torch.where(flat, x, (x - low)/torch.where(flat, 1, high - low))
    got, want = (torch.autograd.grad((f(y) * w).sum(), y)[0] for f, y in
                 ((lambda y: colour(OPERATIONS['auto_contrast'], y, torch.zeros(2), torch.ones(2)), x.clone().requires_grad_()),
                  (reference, x.clone().requires_grad_())))
    assert (got - want).abs().max() < 1e-12


def test_memory_kept_in_inference_mode_serves_afterwards():
    canvas, fill = torch.full((1, 3, 301, 7), 255, dtype=torch.uint8), torch.zeros(3)
    eye = torch.eye(2, 3)[None]
    with torch.inference_mode(): warp(canvas, eye, (301, 7), fill)
    back = eye.clone().requires_grad_()
    x = warp(canvas, back, (301, 7), fill)
    x.sum().backward()
    assert (x - 1).abs().max() < 1e-4 and back.grad.isfinite().all()           # float32 positions: the edge is mixed with a trace of the fill


def test_pixels_outside_the_sampled_part_are_never_read():
    "A scratch array has arbitrary content: NaN, here."
    canvas, fill = torch.full((2, 3, 90, 80), 51, dtype=torch.uint8), torch.full((3,), .2)
    matrix = torch.tensor([[[1., .3, -20], [-.2, 1.1, -30]], [[-2., 0, 90], [0, 2, -200]]])
    for _ in range(2):
        back = matrix.clone().requires_grad_()
        x = warp(canvas, back, (40, 30), fill)
        scratch('above', (2, 3, 90, 80), x.detach()).fill_(float('nan'))
        assert torch.autograd.grad(x.sum(), back)[0].isfinite().all()
        assert (x - .2).abs().max() < 1e-6
        scratch('above', (2, 3, 90, 80), x.detach()).fill_(float('nan'))
