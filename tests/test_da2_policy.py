"""The policy and its controls: what a notebook need not carry."""
import copy, json, math, pickle
from dataclasses import replace

import pytest
import torch

from p2net.da2 import DADA15, OPERATIONS, POSE16, Policy, augment, augment_fast, load_policy
from p2net.da2.controls import POLICIES, HandMade, IdentityPolicy, RandAugment, RandomPolicy, TrivialAugment, UniformMagnitude
from p2net.da2.policy import tree_map
from p2net.errors import InputError
from p2net.da2.relaxation import gumbel, relaxed_path, relaxed_switch, sample_path, sample_switch, uniform


def generator(seed=0): return torch.Generator().manual_seed(seed)


def random_policy(*args, scale=1., seed=1, **kwargs):
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
    policy = random_policy(['rotate', 'invert', 'cutout'], sub_policies)
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
    policy = random_policy(names, list(combinations(names, N)))
    outcomes = list(product(range(len(policy.pi)), product((False, True), repeat=N)))
    k, on = torch.tensor([k for k, _ in outcomes]), torch.tensor([on for _, on in outcomes])
    draws = Draws(k, policy.table[k], on, policy.m[k].detach(), torch.ones(len(k), N), torch.zeros(len(k), N, 2))
    assert abs(policy.log_prob(draws).exp().sum().item() - 1) < 1e-5


def test_log_prob_leaves_out_what_reaches_no_image():
    policy = random_policy(['rotate', 'invert'], 'singles')
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
    policy = random_policy()
    for other in (copy.deepcopy(policy), pickle.loads(pickle.dumps(policy))):
        for a, b in zip(policy.sample(9, generator()), other.sample(9, generator())): assert torch.equal(a, b)
    other = Policy(); other.load_state_dict(policy.state_dict())
    assert other.to_json() == policy.to_json()


@pytest.mark.parametrize('scale', [0., 1., 4.])
@pytest.mark.parametrize('sub_policies', ['singles', 'pairs'])
def test_json_round_trip_is_exact(scale, sub_policies):
    policy = random_policy(POSE16, sub_policies, scale=scale, tau=.7)
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


# ---- files written by hand

situation = pytest.mark.situation
PAIR = dict(operations=['rotate', 'invert'], pi=.5, p=[.5, .6], m=[.5, .4])


def written(*rows, **more): return dict(kind='policy', operations=['rotate', 'invert', 'solarize'], sub_policies=list(rows)) | more


def case(name, has, sees, *rest, **more): return pytest.param(*rest, id=name, marks=situation(has, sees), **more)


READ = [ # what is in the file; what is said of it, '' for nothing; pi, p and m of its first sub-policy
    case('p-of-1', 'a policy with probabilities and magnitudes of 0 and 1', 'drawn as never and always; files stay JSON, without Infinity',
         written(PAIR | dict(pi=1, p=[1, 0], m=[1, 0])), '', 1, [1, 0], [1, 0]),
    case('pi-zero', 'a sub-policy with pi = 0', 'it stays in the file and is never drawn', written(PAIR | dict(pi=0), PAIR | dict(pi=1)), '', 0, [.5, .6], [.5, .4]),
    case('no-pi', 'a policy without pi', 'all sub-policies are equally likely; said',
         written(*[{key: PAIR[key] for key in ('operations', 'p', 'm')}]*2), 'pi is not given', .5, [.5, .6], [.5, .4]),
    case('thirds', 'pi rounded, so that it sums to .999', 'divided by the sum; said', written(*[PAIR | dict(pi=.333)]*3), 'pi sums to 0.999', 1/3, [.5, .6], [.5, .4]),
    case('texts', 'numbers written as text', 'read as numbers; said', written(PAIR | dict(pi='1', p=['.5', '.6'])), 'number written as text', 1, [.5, .6], [.5, .4]),
    case('levels', 'magnitudes as levels of 0 to 10', 'divided by 10; said', written(PAIR | dict(pi=1, m=[5, 4])), 'm written as a level of 0 to 10', 1, [.5, .6], [.5, .4]),
    case('names', "operations by DADA's names (Rotate, Invert)", 'read as ours; said', written(PAIR | dict(pi=1, operations=['Rotate', 'Invert']), operations=['Rotate', 'Invert']),
         'operation name of another package', 1, [.5, .6], [.5, .4]),
    case('one-and-two', 'sub-policies of one and of two operations', 'the short one is padded with operations of probability 0; said',
         written(dict(operations=['invert'], pi=.5, p=[.5], m=[.5]), PAIR), 'sub-policy with fewer operations', .5, [.5, 0], [.5, 0]),
    case('twice', 'the same operation twice in a sub-policy', 'applied twice', written(PAIR | dict(pi=1, operations=['solarize']*2)), '', 1, [.5, .6], [.5, .4]),
    case('no-kind', "a policy file without 'kind'", 'read as a policy; said', {key: value for key, value in written(PAIR | dict(pi=1)).items() if key != 'kind'},
         "file without 'kind'", 1, [.5, .6], [.5, .4]),
    case('infinity', 'a policy.json of an older version, with Infinity in it', 'read; written anew without',
         written(PAIR | dict(pi=1, p=[1, .6], logits=dict(pi=0, p=[math.inf, math.log(1.5)], m=[0, math.log(2/3)]))), '', 1, [1, .6], [.5, .4])]


@pytest.mark.parametrize('data, says, pi, p, m', READ)
def test_what_a_person_plainly_means_is_read(data, says, pi, p, m, tmp_path, capsys):
    (file := tmp_path/'policy.json').write_text(json.dumps(data), encoding='utf-8')
    policy = load_policy(file)
    said = capsys.readouterr().out.splitlines()
    assert len(said) == bool(says) and all(says in line for line in said) and said == policy.notes.lines()
    for got, want in zip(policy.exact(), (pi, p, m)): assert torch.allclose(got[0], torch.tensor(want, dtype=torch.float64), atol=1e-6)
    assert abs(policy.pi.sum().item() - 1) < 1e-6 and all(torch.isfinite(v).all() for v in policy.parameters())
    (file := tmp_path/'again.json').write_text(json.dumps(policy.to_json(), allow_nan=False), encoding='utf-8')
    again = load_policy(file)
    assert again.to_json() == policy.to_json() and not again.notes
    draws = policy.sample(4000, generator())
    for q, on in zip(p, draws.on[draws.k == 0].double().mean(0).tolist() if pi else ()):
        assert abs(on - q) <= 5*math.sqrt(q*(1 - q)/(4000*pi/2))               # 5 sigma; of 0 and 1 nothing
    for q, drawn in zip(m, draws.m[draws.k == 0].T): assert (drawn == q).all() if q in (0, 1) else torch.allclose(drawn, torch.tensor(q))
    assert (draws.k == 0).any() == (pi > 0)


def edited(**change):
    data = random_policy(['rotate', 'invert', 'cutout']).to_json()
    data['sub_policies'][1] |= change
    return data


REFUSED = [ # what is in the file; its one line, after the name of the file
    case('levels-mixed', 'one magnitude of 5 among magnitudes below 1', 'the sub-policy, and to divide levels by 10',
         written(PAIR | dict(pi=1, m=[5, .4])), 'sub-policy 0: m must lie between 0 and 1, got 5; divide levels of 0 to 10 by 10'),
    case('sum', 'pi that sums to 1.4', 'the sum', written(PAIR, PAIR | dict(pi=.9)), 'pi of all sub-policies sums to 1.4, not to 1; divide each by that sum'),
    case('pi-missing', 'pi of some sub-policies only', 'which one lacks it', written(PAIR, PAIR | dict(pi=None)), 'sub-policy 1: pi is missing; give it for every'),
    case('edited', 'a found policy with a number changed by hand', 'that the logit disagrees, and to remove the logits',
         edited(p=[.1, .1]), 'sub-policy 1: p is 0.1, but its logit says'),
    case('unknown', 'an operation that does not exist', 'the name, and all that exist', written(PAIR, operations=['rotate', 'mixup']), "operation 1: name 'mixup' is unknown; there are"),
    case('not-listed', 'a sub-policy with an operation that the file does not list', 'the sub-policy and the name',
         written(PAIR | dict(pi=1, operations=['rotate', 'cutout'])), "sub-policy 0: operations holds 'cutout', which is not among"),
    case('lengths', 'two operations with one probability', 'the sub-policy and how many are wanted',
         written(PAIR | dict(p=[.5])), 'sub-policy 0: p must be a list of 2 numbers, one for each operation, got 1 of them'),
    case('nan', 'NaN in a policy', 'the sub-policy and the field', written(PAIR | dict(pi=1, m=[math.nan, .5])), 'sub-policy 0: m must lie between 0 and 1, got nan'),
    case('long', 'a logit of 400 digits', 'that it disagrees with the probability', edited(logits=dict(pi=0., p=[10**400, 0.], m=[0., 0.])), 'sub-policy 1: p is 0.'),
    case('null', 'null for a probability', 'the sub-policy and the field', written(PAIR | dict(pi=1, p=[None, .5])), 'sub-policy 0: p must be a number, got None'),
    case('negative', 'a negative probability', 'the sub-policy and the field', written(PAIR | dict(pi=1, p=[-.5, .5])), 'sub-policy 0: p must lie between 0 and 1, got -0.5'),
    case('row', 'a sub-policy that is not an object', 'which', written(PAIR, 'rotate'), "sub-policy 1: must be an object with operations, pi, p and m, got 'rotate'"),
    case('nested', 'deeply nested lists in place of a sub-policy', 'the beginning of it', written(PAIR, [[[0]*9]*9]*9),
         'sub-policy 1: must be an object with operations, pi, p and m, got [[[0, 0, 0, 0, 0, 0, ...], [0, 0, 0, 0, 0, 0, ...], [0, 0...'),
    case('empty', 'sub-policies without operations', 'that none has one', written(dict(operations=[], p=[], m=[])), 'no sub-policy has an operation'),
    case('high', 'a range that no image has', 'the operation and what is allowed',
         written(PAIR, operations=[dict(name='rotate', high=1e9), 'invert']), 'operation 0: high must lie between 1e-06 and 3000, got 1000000000.0'),
    case('schema', 'a policy file of a later version', 'the versions', written(PAIR, schema=3), 'schema 3 is unknown; this version reads schema 1'),
    case('setting', 'a control with a setting that it has not', 'the settings that it has', dict(kind='randaugment', settings=dict(M=9)),
         "settings 'M' is unknown; there are N, m, without"),
    case('whole', 'a setting of 2.5 that must be whole', 'the setting', dict(kind='randaugment', settings=dict(N=2.5)), 'settings.N must be a whole number, got 2.5'),
    case('large', 'a setting of 400 digits', 'the setting', dict(kind='randaugment', settings=dict(N=10**400)), 'settings.N must be a whole number, got 1000000000000'),
    case('other', 'another JSON file in place of the policy', 'that it is none', dict(images=[], annotations=[]), "this is not a policy: it has neither 'kind' nor 'sub_policies'")]


@pytest.mark.parametrize('data, says', REFUSED)
def test_a_fault_is_one_line_with_file_row_and_field(data, says, tmp_path):
    (file := tmp_path/'policy.json').write_text(json.dumps(data), encoding='utf-8')
    with pytest.raises(InputError) as error: load_policy(file)
    assert str(error.value).startswith(f'{file}: {says}') and '\n' not in str(error.value)
    assert len(str(error.value)) < len(str(file)) + 400


@pytest.mark.parametrize('kind', [Policy, UniformMagnitude])
def test_side_travels(kind):
    "One side: in samples, files, copies and `top`."
    policy = kind.from_json(written(PAIR | dict(side=[1, 0]), PAIR | dict(side=[-1, 0]), kind=kind.kind))
    for other in (policy, copy.deepcopy(policy), pickle.loads(pickle.dumps(policy)), kind.from_json(policy.to_json()), policy.top(2),
                  policy.averaged(policy.rows(step=1))):
        draws = other.sample(500, generator())
        assert (draws.sign[:, 0] == torch.where(draws.k == 0, 1., -1.)).all() and set(draws.sign[:, 1].tolist()) == {-1., 1.}
    assert 'side' not in policy.state_dict() and Policy().side is None and 'side' not in Policy().to_json()['sub_policies'][0]


def test_ends_do_not_touch_what_is_found():
    "Draws of a policy inside the ends are those of the plain sigmoids, bit for bit."
    policy = random_policy(POSE16, scale=2.)
    draws = policy.sample(500, generator(4))
    assert torch.equal(draws.m, policy.m_logits[draws.k].sigmoid()) and torch.equal(policy.p, policy.p_logits.sigmoid())
    for got, logits in zip(policy.exact()[1:], (policy.p_logits, policy.m_logits)): assert torch.equal(got, logits.detach().double().sigmoid())
