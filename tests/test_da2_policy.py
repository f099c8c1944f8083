"""The policy and its controls: what a notebook need not carry."""
import copy, json, math, pickle
from dataclasses import replace

import pytest
import torch

from p2net.da2 import DADA15, OPERATIONS, POSE16, Policy, augment, augment_fast, load_policy
from p2net.da2.controls import POLICIES, HandMade, IdentityPolicy, RandAugment, RandomPolicy, TrivialAugment
from p2net.da2.policy import tree_map
from p2net.da2.relaxation import gumbel, relaxed_path, relaxed_switch, sample_path, sample_switch, uniform


def generator(seed=0): return torch.Generator().manual_seed(seed)


def uneven(*args, scale=1., seed=1, **kwargs):
    policy, gen = Policy(*args, **kwargs), generator(seed)
    with torch.no_grad():
        for v in policy.parameters(): v += scale*torch.randn(v.shape, generator=gen)
    return policy


# ---- relaxation

@pytest.mark.parametrize('pi', [[.5, .5], [.9, .05, .05], [.01]*99 + [.01], [1.]])
def test_gumbel_max_is_categorical(pi):
    pi, n = torch.tensor(pi, dtype=torch.float64), 60_000
    pi = pi/pi.sum()
    count = sample_path(pi.log(), torch.rand(n, len(pi), generator=generator(3), dtype=torch.float64)).sum(0)
    sd = (n*pi*(1 - pi)).sqrt()
    assert ((count - n*pi).abs() <= 5*sd + 1e-9).all()  # 5 sigma


def test_extreme_noise_is_finite():
    "The smallest and the largest number that `uniform` can give."
    u = torch.tensor([2**-25, 1 - 2**-24])
    assert u[0] > 0 and u[1] < 1
    assert torch.isfinite(gumbel(u)).all() and torch.isfinite(torch.logit(u)).all()
    logit = torch.tensor([3., -3.], requires_grad=True)
    (relaxed_path(logit, .1, u).sum() + relaxed_switch(logit, .1, u).sum()).backward()
    assert torch.isfinite(logit.grad).all()
    assert uniform((5, 0), generator()).shape == (5, 0)


def test_wrong_relaxations_are_noticed():
    "Break the code on purpose: tanh for the sigmoid, one sign for the other, must not pass for Eq. (7) and (6)."
    u, logit = torch.rand(1000, generator=generator(), dtype=torch.float64), torch.full((1000,), .7, dtype=torch.float64)
    right = relaxed_switch(logit, .5, u)
    by_hand = torch.tensor([1/(1 + math.exp(-(.7 + math.log(v/(1 - v)))/.5)) for v in u.tolist()], dtype=torch.float64)
    assert (right - by_hand).abs().max() < 1e-12
    assert (((logit + torch.logit(u))/.5).tanh() - by_hand).abs().max() > .1
    assert not torch.equal(sample_switch(-logit, u), (right > .5).double())


# ---- policy

@pytest.mark.parametrize('sub_policies', ['singles', 'pairs', [('rotate', 'invert', 'cutout'), ('invert', 'cutout', 'rotate')]])
@pytest.mark.parametrize('n', [1, 3, 1000])
def test_shapes_and_ranges(sub_policies, n):
    policy = uneven(['rotate', 'invert', 'cutout'], sub_policies)
    N = policy.table.shape[1]
    draws = policy.sample(n, generator(), jitter=.5)
    assert [tuple(t.shape) for t in draws] == [(n,), (n, N), (n, N), (n, N), (n, N), (n, N, 2)]
    assert draws.k.dtype == draws.op.dtype == torch.long and draws.on.dtype == torch.bool and draws.m.dtype == torch.float32
    assert ((draws.m >= 0) & (draws.m <= 1)).all() and set(draws.sign.unique().tolist()) <= {-1., 1.}
    assert not any(t.requires_grad for t in draws)


def test_default_spaces():
    assert Policy().operations == DADA15 and len(Policy().pi) == 105 and len(Policy(sub_policies='singles').pi) == 15
    assert len(Policy(POSE16).pi) == 120


@pytest.mark.parametrize('N', [1, 2, 3])
def test_probabilities_of_all_outcomes_sum_to_one(N):
    from itertools import combinations, product
    from p2net.da2 import Draws
    names = ['rotate', 'invert', 'cutout', 'scale']
    policy = uneven(names, list(combinations(names, N)))
    outcomes = list(product(range(len(policy.pi)), product((False, True), repeat=N)))
    k, on = torch.tensor([k for k, _ in outcomes]), torch.tensor([on for _, on in outcomes])
    draws = Draws(k, policy.table[k], on, policy.m[k].detach(), torch.ones(len(k), N), torch.zeros(len(k), N, 2))
    assert abs(policy.log_prob(draws).exp().sum().item() - 1) < 1e-5


def test_log_prob_leaves_out_what_reaches_no_image():
    policy = uneven(['rotate', 'invert'], 'singles')
    draws = policy.sample(200, generator(), jitter=.5)
    gradient, = torch.autograd.grad(policy.log_prob(draws._replace(on=torch.zeros_like(draws.on)), .5).sum(), policy.m_logits)
    assert gradient.abs().max() == 0                           # everything off: no gradient in m
    gradient, = torch.autograd.grad(policy.log_prob(draws._replace(on=torch.ones_like(draws.on)), .5).sum(), policy.m_logits)
    assert gradient[0].abs() > 0 and gradient[1].abs() == 0    # invert has no magnitude


def test_strong_logits_stay_finite():
    policy = Policy(sub_policies='singles')
    with torch.no_grad(): policy.p_logits += 20; policy.m_logits += 20; policy.pi_logits[3] += 40
    draws = policy.sample(100, generator(), .5)
    log_q = policy.log_prob(draws, .5)
    gradients = torch.autograd.grad(log_q.sum(), list(policy.parameters()))
    assert torch.isfinite(log_q).all() and all(torch.isfinite(g).all() for g in gradients)


def test_policy_can_be_copied_pickled_and_resumed():
    policy = uneven()
    for other in (copy.deepcopy(policy), pickle.loads(pickle.dumps(policy))):
        for a, b in zip(policy.sample(9, generator()), other.sample(9, generator())): assert torch.equal(a, b)
    other = Policy(); other.load_state_dict(policy.state_dict())
    assert other.to_json() == policy.to_json()


@pytest.mark.parametrize('scale', [0., 1., 4.])
@pytest.mark.parametrize('sub_policies', ['singles', 'pairs'])
def test_json_round_trip_is_exact(scale, sub_policies):
    policy = uneven(POSE16, sub_policies, scale=scale, tau=.7)
    again = load_policy(json.loads(json.dumps(policy.to_json())))
    assert type(again) is Policy and again.tau == .7 and again.operations == policy.operations
    for a, b in zip(policy.parameters(), again.parameters()): assert torch.equal(a, b)


def test_json_keeps_own_ranges_and_start():
    policy = Policy([replace(OPERATIONS['rotate'], high=77.), 'cutout'], 'singles', p=.2, m=.3)
    again = load_policy(policy.to_json())
    assert again.operations[0].high == 77. and again.start == (.2, .3) and abs(again.drift()) < 1e-6


def test_tree_map_keeps_forms():
    from collections import namedtuple
    Pair = namedtuple('Pair', 'a b')
    tree = Pair([torch.ones(2), None], dict(x=(torch.ones(1),)))
    out = tree_map(lambda t, u: t + u, tree, tree)
    assert isinstance(out, Pair) and out.a[1] is None and out.b['x'][0].item() == 2
    with pytest.raises(ValueError): tree_map(lambda t, u: t, (torch.ones(1),), ())


# ---- controls, through both ways of augmenting

@pytest.mark.parametrize('kind', list(POLICIES))
def test_every_policy_drives_augment(kind):
    policy, H, W, n = POLICIES[kind](), 20, 16, 8
    x = torch.rand(n, 3, 26, 26, generator=generator())
    matrix = torch.tensor([[1., 0, -5], [0, 1, -3]]).repeat(n, 1, 1)
    joints, visibility = torch.full((n, 2, 2), 12.), torch.full((n, 2), 2)
    draws = policy.sample(n, generator(1))
    out, moved, seen = augment(x, matrix, joints, visibility, draws, policy.operations, (H, W))
    assert out.shape == (n, 3, H, W) and moved.shape == (n, 2, 2) and torch.isfinite(out).all()
    if kind == 'identity':
        assert torch.allclose(out, x[:, :, 3:3 + H, 5:5 + W], atol=1e-5) and torch.allclose(moved, joints - torch.tensor([5., 3]))
    fast, fast_joints, _ = augment_fast((x*255).round().byte().permute(0, 2, 3, 1).contiguous().numpy(), matrix.numpy(), joints.numpy(),
                                        visibility.numpy(), draws, policy.operations, (H, W), output='uint8')
    assert fast.shape == (n, H, W, 3) and abs(fast_joints - moved.numpy()).max() < 1e-3


def test_wider_ranges_do_not_leak():
    TrivialAugment(wide=True), HandMade(80., .5)
    assert OPERATIONS['rotate'].high == 30. and OPERATIONS['scale'].high == .35


def test_random_policy_is_seeded():
    assert RandomPolicy(seed=4).to_json() == RandomPolicy(seed=4).to_json() != RandomPolicy(seed=5).to_json()


def test_rows_of_controls_are_shares():
    for policy in (RandAugment(), TrivialAugment(), HandMade(), IdentityPolicy()):
        rows = policy.rows()
        for position in {r['position'] for r in rows}:
            assert abs(sum(r['pi'] for r in rows if r['position'] == position) - 1) < 1e-9
    assert all(r['p'] == 0 for r in IdentityPolicy().rows())
