"""The dearer estimators where their notebook is too narrow: real operations with joints, BatchNorm, P²Net, labels, bad numbers."""
import copy, math

import pytest
import torch
from torch import nn

from p2net.da2 import Policy, Search, augment
from p2net.da2.estimators import Alignment, model_at, relaxed_views, step_cost
from p2net.da2.extensions import Paired
from p2net.da2.search import ESTIMATORS, norm, restored, trainable_weights

OPERATIONS, SIZE = ('rotate', 'brightness', 'translate_x'), (12, 8)
CASES = [dict(estimator='alignment'), dict(estimator='exact'), dict(estimator='exact', forward='hard'), dict(estimator='exact', magnitude='constant'),
         dict(estimator='unrolled', steps=2), dict(estimator='unrolled', steps=2, forward='hard')]


def generator(seed=0): return torch.Generator().manual_seed(seed)


def smooth_pictures(n, seed):
    coarse = torch.rand(n, 3, 3, 2, generator=generator(seed), dtype=torch.float64)
    return nn.functional.interpolate(coarse, SIZE, mode='bicubic').clamp(0, 1)


X = smooth_pictures(16, 1)
JOINTS = 2 + torch.rand(16, 2, 2, generator=generator(2), dtype=torch.float64)*torch.tensor([4., 8.])


def heatmaps(joints, visibility):
    dx, dy = torch.arange(8) - joints[..., :1], torch.arange(12) - joints[..., 1:]
    return torch.exp(-(dx[..., None, :]**2 + dy[..., None]**2)/4)*(visibility > 0)[..., None, None]


def per_image(model, x, y): return ((model(x) - y)**2).mean((1, 2, 3))


def make(seed=0, bn=True, lr=.05, loss=per_image, sub_policies='pairs', **settings):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.BatchNorm2d(5) if bn else nn.Identity(), nn.Softplus(), nn.Conv2d(5, 2, 3, padding=1)).double()
    policy = Policy(OPERATIONS, sub_policies).double()
    def views(batch, draws, rows):
        i = batch[rows]
        x, joints, visibility = augment(X[i], torch.eye(2, 3, dtype=torch.float64).repeat(len(i), 1, 1), JOINTS[i], torch.full((len(i), 2), 2), draws, policy.operations, SIZE)
        return x, heatmaps(joints, visibility)
    val = lambda model, rows: per_image(model, 1 - X[rows], heatmaps(JOINTS[rows], torch.full((len(rows), 2), 2))).mean()
    return Search(net, policy, views, loss, val, torch.optim.SGD(net.parameters(), lr, momentum=.9), clip=None, **settings)


def run(search, steps=2):
    gen = generator(5)
    return [search.step(torch.arange(8), 8, torch.arange(8, 16), gen) for _ in range(steps)]


def same(a, b): return all(torch.equal(p, q) for p, q in zip(a.state_dict().values(), b.state_dict().values()))


def gradient(search): return torch.cat([d.grad.flatten() for d in search.policy.parameters()])


@pytest.mark.parametrize('case', CASES)
def test_moves_the_policy_repeats_itself_and_trains_plainly(case):
    a, b, shown = make(**case), make(**case), []
    sample_views = b.estimator.sample_views
    b.estimator.sample_views = lambda *args: shown.append(sample_views(*args)) or shown[-1]
    logs = run(a), run(b)
    assert logs[0] == logs[1] and same(a.policy, b.policy) and same(a.model, b.model)
    assert a.policy.drift() > 0 and all(math.isfinite(v) for log in logs[0] for v in log.values())
    plain = make().model.train()
    optimizer = torch.optim.SGD(plain.parameters(), .05, momentum=.9)
    for x, y in shown:
        assert not x.requires_grad and not y.requires_grad
        optimizer.zero_grad(); per_image(plain, x, y).float().mean().backward(); optimizer.step()
    assert same(b.model, plain)


def test_magnitude_gradient_goes_through_pixels_and_joints():
    "Every logit moved by hand with the noise held fixed, real warps, joints and rendered targets (C-30, C-31)."
    s = make(bn=False, sub_policies='singles', estimator='exact', candidates=3)
    gen = generator(5)
    noise = s.policy.noise(8, generator(5))
    log = s.step(torch.arange(8), 8, torch.arange(8, 16), gen)
    have, start = gradient(s), make(bn=False, sub_policies='singles')
    v = torch.autograd.grad(s.val_loss(s.model, torch.arange(8, 16)), s.weights)
    view = lambda draws: start.estimator.augment(torch.arange(8), draws, torch.arange(8))
    def along(): # v . grad L at the start weights
        loss = per_image(start.model, *(t.detach() for t in relaxed_views(start.policy, noise, view, 3))).mean()
        return sum((g*u).sum() for g, u in zip(torch.autograd.grad(loss, start.weights), v)).item()
    want = []
    for d in start.policy.parameters():
        for i in range(d.numel()):
            ends = []
            for step in (1e-5, -1e-5):
                with torch.no_grad(): d.view(-1)[i] += step
                ends.append(along())
                with torch.no_grad(): d.view(-1)[i] -= step
            want.append(-.05*(ends[0] - ends[1])/2e-5)
    want = torch.tensor(want, dtype=torch.float64)
    assert (have - want).abs().max() < 1e-4*want.abs().max() and want[6:].abs().min() > 0 and log['policy_gradient'] > 0


def test_alignment_works_through_p2net_and_paired_is_within_one_per_cent_of_it():
    "The whole network of the paper, ReLU and BatchNorm in training mode, single precision, the paper's epsilon."
    from p2net.network import P2Net
    from p2net.network.losses import pose_loss
    torch.manual_seed(2)
    net, gen = P2Net(18, joints=5, width=16).train(), generator(3)
    views = [(torch.rand(3, 3, 64, 48, generator=gen), torch.rand(3, 5, 16, 12, generator=gen)) for _ in range(2)]
    loss = lambda model, x, y: pose_loss(model(x), y, torch.ones(3, 5), reduction='none')
    estimator = Paired(Policy(OPERATIONS), None, loss, candidates=2)
    estimator.views = views
    class Asks: # the part of a Search that `derivative` uses
        model = net
        def probe(self, model=None): return estimator.probe(model or net)
    center = [w.detach().clone() for w in trainable_weights(net)]
    with restored(net): v = torch.autograd.grad(loss(net.eval(), *views[0]).mean(), trainable_weights(net), allow_unused=True)
    v = [torch.zeros_like(w) if g is None else g for w, g in zip(trainable_weights(net), v)]
    before = copy.deepcopy(net.state_dict())
    h, = estimator.derivative(Asks(), center, v, .01/norm(v).item())[0]
    exact, = Alignment.derivative(estimator, Asks(), center, v, 0.)[0]
    assert (h - exact).norm() < .01*exact.norm()
    for a, b in zip(before.values(), net.state_dict().values()): assert torch.equal(a, b)


def test_frozen_weights_stay_out():
    for case in (dict(estimator='alignment'), dict(estimator='exact')):
        s = make(**case)
        for w in s.model[0].parameters(): w.requires_grad_(False)
        s.weights = trainable_weights(s.model)
        before = s.model[0].weight.clone()
        run(s)
        assert torch.equal(before, s.model[0].weight) and gradient(s).abs().max() > 0


def test_labels_that_are_whole_numbers():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Softplus(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)).double()
    policy, labels = Policy(OPERATIONS), torch.arange(16) % 3
    def views(batch, draws, rows):
        i = batch[rows]
        x = augment(X[i], torch.eye(2, 3, dtype=torch.float64).repeat(len(i), 1, 1), None, None, draws, policy.operations, SIZE)[0]
        return x, dict(label=labels[i], weight=None)
    loss = lambda model, x, y: nn.functional.cross_entropy(model(x), y['label'], reduction='none')
    val = lambda model, rows: nn.functional.cross_entropy(model(X[rows]), labels[rows])
    for case in CASES:
        s = Search(net, policy, views, loss, val, torch.optim.SGD(net.parameters(), .1), **case)
        assert s.step(torch.arange(8), 8, torch.arange(8, 16), generator())['policy_gradient'] > 0


@pytest.mark.parametrize('name', ESTIMATORS)
def test_numbers_that_are_not_finite_stop_it(name):
    s = make(estimator=name)
    run(s, 1)
    s.estimator.loss = lambda *args: per_image(*args)*math.nan
    before = copy.deepcopy(s.policy.state_dict())
    with pytest.raises(FloatingPointError, match='search step 2: the finite difference is not finite'): run(s, 1)
    for a, b in zip(before.values(), s.policy.state_dict().values()): assert torch.equal(a, b)


def test_the_model_at_other_weights_is_the_model_with_them():
    s, other = make(), make(seed=3)
    omega = [w.detach() for w in other.weights]
    assert torch.equal(model_at(s.model.eval(), omega)(X[:3]), other.model.eval()(X[:3]))
    with pytest.raises(ValueError): model_at(s.model, omega[1:])


def test_cost_counts_what_a_step_holds():
    "One product with a way back: 2 x 3 by 3 x 4 forward, the same twice backward; x and w are held."
    x, w = torch.rand(2, 3, requires_grad=True), torch.rand(3, 4, requires_grad=True)
    cost = step_cost(lambda: (x@w).sum().backward())
    assert cost['flop'] == 3*2*(2*3*4) and cost['saved'] == 4*(6 + 12) and cost['seconds'] > 0
