"""Pixels and joints move together: a dot painted where a joint is must be found where the joint went, through every
operation and every ordered pair of two, from canvases and to inputs that are not square.

The painter and the finder of dots share nothing with `p2net.da2.operations`."""
import numpy as np
import pytest
import torch

from p2net.da2.operations import OPERATIONS, POSE16, Draws, augment, invert_affine, move

CANVAS, INPUT, GREY = (92, 118), (64, 48), .4
NAMES = [o.name for o in POSE16]


def painted(points):
    "(n, 2) -> (n, 3, h, w) float32: one white dot, soft over 2.2 px, on a grey canvas."
    y, x = np.mgrid[:CANVAS[0], :CANVAS[1]]
    far = (x - points[:, 0, None, None])**2 + (y - points[:, 1, None, None])**2
    picture = GREY + .55*np.exp(-far/2/2.2**2)
    return torch.from_numpy(np.repeat(picture[:, None], 3, 1)).float()


def found(x, holes):
    "Centre of mass of the difference from the median grey (n, 2), and whether enough of the dot is visible."
    centres, enough = [], []
    for picture, mask in zip(x.mean(1).double().numpy(), holes):
        weight = np.abs(picture - np.median(picture))
        weight[mask] = 0
        weight[weight < .1*weight.max()] = 0
        yy, xx = np.mgrid[:picture.shape[0], :picture.shape[1]]
        mass = weight.sum()
        centres.append([(weight*xx).sum()/mass, (weight*yy).sum()/mass] if mass else [np.nan, np.nan])
        enough.append(bool(mass) and (weight > weight.max()/2).sum() > 12 and weight.max() > .004)
    return np.array(centres), np.array(enough)


def covered(draws):
    "(n, H, W) pixels that a cutout of `draws` covers, and a pixel around them."
    masks = np.zeros((len(draws.op), *INPUT), bool)
    for i, j in (draws.on & (draws.op == NAMES.index('cutout'))).nonzero().tolist():
        half, (u, v) = draws.m[i, j].item()*.2*INPUT[1]/2 + 1, draws.u[i, j].tolist()
        for y in range(INPUT[0]):
            for x in range(INPUT[1]):
                if abs(x + .5 - u*INPUT[1]) <= half and abs(y + .5 - v*INPUT[0]) <= half: masks[i, y, x] = True
    return masks


def crops(n, rng):
    "Canvas -> input matrices that scale, turn and (half of them) mirror, about points near the middle of the canvas."
    a, s, flip = rng.uniform(-.5, .5, n), rng.uniform(.6, 1.1, n), rng.choice([-1, 1], n)
    linear = np.stack([flip*s*np.cos(a), -s*np.sin(a), flip*s*np.sin(a), s*np.cos(a)], -1).reshape(n, 2, 2)
    about = np.array([CANVAS[1], CANVAS[0]])/2 + rng.uniform(-6, 6, (n, 2))
    shift = np.array([INPUT[1], INPUT[0]])/2 - np.einsum('nab,nb->na', linear, about)
    return torch.from_numpy(np.concatenate([linear, shift[..., None]], -1))


def draws_of(ops, rng):
    "Draws of the given operations (n, N), all on, random magnitudes and signs."
    op = torch.as_tensor(ops)
    return Draws(op[:, 0], op, torch.ones(op.shape, dtype=torch.bool), torch.from_numpy(rng.uniform(0, 1, op.shape)),
                 torch.from_numpy(rng.choice([-1., 1.], op.shape)), torch.from_numpy(rng.uniform(0, 1, (*op.shape, 2))))


def push(draws, rng, fold=True):
    "A dot and its joint for each row: the error in pixels (n,), and the rows in which it can be measured."
    n = len(draws.op)
    joint = np.array([CANVAS[1], CANVAS[0]])/2 + rng.uniform(-18, 18, (n, 2))
    x, j, v = augment(painted(joint), crops(n, rng), torch.from_numpy(joint)[:, None], torch.full((n, 1), 2), draws, POSE16, INPUT,
                      fill=(GREY,)*3, fold=fold)
    masks, j = covered(draws), j[:, 0].numpy()
    centre, enough = found(x, masks)
    inside = ((j > 8) & (j < np.array([INPUT[1], INPUT[0]]) - 9)).all(1)
    near_square = np.array([m[max(0, int(y) - 8):int(y) + 9, max(0, int(x) - 8):int(x) + 9].any() if ok else True for m, (x, y), ok in zip(masks, j, inside)])
    assert (v[inside] == 2).all()
    return np.linalg.norm(centre - j, axis=1), inside & enough & ~near_square, j, v[:, 0].numpy()


@pytest.mark.parametrize('first', NAMES)
def test_a_dot_lands_where_the_joint_lands_through_every_pair(first):
    "16 x 16 ordered pairs, 28 dots each. .5 px: equalized or posterized to few levels a dot is a disc of some twenty pixels."
    rng, i = np.random.default_rng(NAMES.index(first)), NAMES.index(first)
    ops = np.stack([np.full(16*28, i), np.tile(np.arange(16), 28)], 1)
    error, measured, _, _ = push(draws_of(ops, rng), rng)
    for second in range(16):
        rows = measured & (ops[:, 1] == second)
        assert rows.sum() >= 3, f'{first} then {NAMES[second]}: only {rows.sum()} dots could be measured'
        assert error[rows].max() < .5, f'{first} then {NAMES[second]}: {error[rows].max():.2f} px off'


@pytest.mark.parametrize('name', NAMES)
def test_a_dot_lands_where_the_joint_lands_at_full_magnitude(name):
    rng = np.random.default_rng(7)
    draws = draws_of(np.full((40, 1), NAMES.index(name)), rng)
    error, measured, _, _ = push(draws._replace(m=torch.ones(40, 1, dtype=torch.float64)), rng)
    assert measured.sum() >= 3 and error[measured].max() < .35


def test_the_unfolded_warps_carry_dots_too():
    "Pairs of geometric operations on the finished crop; a dot that left the crop after the first one is not measured."
    geometry = [NAMES.index(o.name) for o in POSE16 if o.kind == 'geometry']
    ops = np.array([(a, b) for a in geometry for b in geometry for _ in range(8)])
    draws = draws_of(ops, np.random.default_rng(0))
    error, measured, j, v = push(draws, np.random.default_rng(1), fold=False)
    _, between, _, _ = push(draws._replace(on=torch.tensor([True, False]).repeat(len(ops), 1)), np.random.default_rng(1), fold=False)
    _, _, folded, seen = push(draws, np.random.default_rng(1))
    assert (measured & between).sum() > 100 and error[measured & between].max() < .5
    np.testing.assert_array_equal(j, folded)
    np.testing.assert_array_equal(v, seen)


def test_left_and_right_change_places_in_a_mirror():
    "A red dot on the left hand, a blue one on the right: after a mirror, joint 0 is under the blue dot."
    rng, n = np.random.default_rng(3), 24
    left, right = np.array([44., 40]) + rng.uniform(-5, 5, (n, 2)), np.array([74., 52]) + rng.uniform(-5, 5, (n, 2))
    red, blue = painted(left), painted(right)
    canvas = torch.stack([red[:, 0], torch.full_like(red[:, 0], GREY), blue[:, 2]], 1)
    joints, visibility = torch.from_numpy(np.stack([left, right], 1)), torch.tensor([[2, 1]]).repeat(n, 1)
    base = crops(n, rng)
    base[:, :, 2] = torch.tensor([INPUT[1]/2, INPUT[0]/2]) - (base[:, :, :2] @ torch.tensor([59., 46], dtype=torch.float64))
    draws = draws_of(np.full((n, 1), NAMES.index('rotate')), rng)
    x, j, v = augment(canvas, base, joints, visibility, draws, POSE16, INPUT, fill=(GREY,)*3)
    rows = base[:, :, :2].det() < 0                                    # mirrored crops
    def swap(j, v): return torch.where(rows[:, None, None], j[:, [1, 0]], j), torch.where(rows[:, None], v[:, [1, 0]], v)
    assert 5 < rows.sum() < n - 5
    j, v = swap(j, v)
    none = np.zeros((n, *INPUT), bool)
    (at_red, _), (at_blue, _) = found(x[:, :1], none), found(x[:, 2:], none)
    for k in range(n):
        zero, one = (at_blue[k], at_red[k]) if rows[k] else (at_red[k], at_blue[k])
        assert np.linalg.norm(j[k, 0].numpy() - zero) < .3 and np.linalg.norm(j[k, 1].numpy() - one) < .3
        assert v[k].tolist() == ([1, 2] if rows[k] else [2, 1])
    early = augment(canvas, base, *swap(joints, visibility), draws, POSE16, INPUT, fill=(GREY,)*3)
    assert torch.equal(early[1], j) and torch.equal(early[2], v)


def test_joints_come_back_through_the_inverse():
    rng, n = np.random.default_rng(5), 64
    base, points = crops(n, rng), torch.from_numpy(rng.uniform(0, 90, (n, 6, 2)))
    assert (move(invert_affine(base), move(base, points)) - points).abs().max() < 1e-10


def test_a_joint_is_absent_outside_and_only_there():
    "The span of W pixels is -.5 .. W - .5."
    points = torch.tensor([[-.5, 0], [-.51, 0], [47.5, 63.5], [47.51, 5], [5, 63.51], [20, 20]], dtype=torch.float64)[None]
    off = draws_of(np.zeros((1, 1), int), np.random.default_rng(0))._replace(on=torch.zeros(1, 1, dtype=torch.bool))
    eye = torch.eye(2, 3, dtype=torch.float64)[None]
    _, j, v = augment(torch.zeros(1, 3, 64, 48), eye, points, torch.tensor([[1, 2, 2, 2, 2, 0]]), off, POSE16, INPUT)
    assert torch.equal(j, points) and v.tolist() == [[1, 0, 2, 0, 0, 0]]


def test_scale_and_cutout_reach_what_they_say():
    "A square of 20 px grows and shrinks by 1.35; the largest cutout is a fifth of the width."
    one = torch.ones(2, 1)
    square = torch.zeros(2, 3, 64, 48); square[:, :, 22:42, 14:34] = 1
    draws = Draws(torch.zeros(2).long(), torch.full((2, 1), 15), one.bool(), one, torch.tensor([[1.], [-1]]), torch.full((2, 1, 2), .5))
    eye = torch.eye(2, 3)[None].repeat(2, 1, 1)
    area = augment(square, eye, None, None, draws, POSE16, INPUT, fill=(0, 0, 0))[0][:, 0].sum((1, 2))
    assert (area - torch.tensor([27.**2, (20/1.35)**2])).abs().max() < .02*27**2
    hole = augment(square*0, eye, None, None, draws._replace(op=torch.full((2, 1), 14)), POSE16, (64, 60), fill=(1, 1, 1))[0][:, 0, :, :48]
    assert (hole[0] > .5).sum() == 12*12 and OPERATIONS['cutout'].high == .2
