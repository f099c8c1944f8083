"""The search beyond its notebook: several processes, precision, Dropout, an injected shift on another seed, defaults."""
import copy, inspect, math, threading

import pytest
import torch
from torch import nn

from p2net.da2 import ExtendedSearch, Paired, Policy, Search, augment
from p2net.da2.extensions import AveragedSearch
from p2net.da2.search import (central_difference, cyclic, exact_hypergradient, finite_difference, inner_step, norm, restored, trainable_weights,
                              validation_gradient)
from p2net.runs.config import SearchConfig

OPERATIONS = ('brightness', 'invert', 'translate_x')


def generator(seed=0): return torch.Generator().manual_seed(seed)


def network(seed=0, dropout=0., activation=nn.ReLU):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.BatchNorm2d(5), activation(), nn.Dropout(dropout), nn.Conv2d(5, 2, 3, padding=1))


X, Y = torch.rand(40, 3, 8, 6, generator=generator(1)), torch.rand(40, 2, 8, 6, generator=generator(2))   # h != w, B, C, J different


def per_image(model, x, y): return ((model(x) - y)**2).mean((1, 2, 3))


def val_loss(model, rows): return ((model(1 - X[rows]) - Y[rows])**2).mean()


def make(seed=0, lr=.05, dropout=0., loss=per_image, **settings):
    net, policy = network(seed, dropout), Policy(OPERATIONS)
    def views(rows_of_batch, draws, rows):
        i = rows_of_batch[rows]
        return augment(X[i], torch.eye(2, 3).repeat(len(i), 1, 1), None, None, draws, policy.operations, (8, 6))[0], Y[i]
    return Search(net, policy, views, loss, val_loss, torch.optim.SGD(net.parameters(), lr, momentum=.9), **settings)


def run(search, steps=3, gen=None):
    gen = gen or generator(5)
    return [search.step(torch.randperm(20, generator=gen)[:8], 8, 20 + torch.randperm(20, generator=gen)[:8], gen) for _ in range(steps)]


def same(a, b): return all(torch.equal(p, q) for p, q in zip(a.state_dict().values(), b.state_dict().values()))


ESTIMATORS = [dict(estimator='paired'), dict(estimator='straight-through'), dict(estimator='straight-through', magnitude='exact'),
              dict(estimator='paired', probe_mode='training'), dict(estimator='paired', val_mode='training')]


@pytest.mark.parametrize('settings', ESTIMATORS)
def test_every_setting_moves_the_policy_and_repeats_itself(settings):
    a, b = make(**settings), make(**settings)
    logs = run(a), run(b)
    assert logs[0] == logs[1] and same(a.policy, b.policy) and same(a.model, b.model)
    assert a.policy.drift() > 0 and all(math.isfinite(v) for log in logs[0] for v in log.values())
    assert all(log['loss_plus'] != log['loss_minus'] for log in logs[0])


@pytest.mark.parametrize('settings', ESTIMATORS)
def test_a_step_trains_the_network_like_a_plain_step(settings):
    search, reference, images = make(**settings), network(), []
    sample_views = search.estimator.sample_views
    search.estimator.sample_views = lambda *args: images.append(sample_views(*args)) or images[-1]
    run(search)
    optimizer = torch.optim.SGD(reference.parameters(), .05, momentum=.9)
    for x, y in images:
        reference.train(); optimizer.zero_grad(); per_image(reference, x, y).mean().backward()
        torch.nn.utils.clip_grad_norm_(reference.parameters(), 5.); optimizer.step()
    assert same(search.model, reference)


def test_modes_of_frozen_layers_are_kept():
    search = make()
    class Frozen(nn.BatchNorm2d):
        def train(self, mode=True): return super().train(False)
    search.model[1] = Frozen(5)
    before = copy.deepcopy(search.model[1].state_dict())
    search.weights = trainable_weights(search.model); search.optimizer = torch.optim.SGD(search.weights, .05)
    run(search)
    for name in ('running_mean', 'running_var', 'num_batches_tracked'): assert torch.equal(before[name], search.model[1].state_dict()[name])
    assert search.model.training and not search.model[1].training


def test_frozen_weights_stay():
    search = make()
    for w in search.model[0].parameters(): w.requires_grad_(False)
    search.weights = trainable_weights(search.model)
    before = search.model[0].weight.clone()
    run(search)
    assert torch.equal(before, search.model[0].weight)


def test_dropout_has_the_same_masks_at_both_points():
    "With other masks at omega+ and omega- the difference is noise over 2 epsilon."
    net = network(dropout=.5).train()
    center, v = [w.detach().clone() for w in trainable_weights(net)], [torch.randn(w.shape, generator=generator(3)) for w in trainable_weights(net)]
    state = torch.get_rng_state()
    f = lambda: [per_image(net, X[:4], Y[:4]).detach().double()]
    h = {}
    for epsilon in (1e-2, 1e-3):
        torch.set_rng_state(state)
        plus, minus = central_difference(f, net, center, v, epsilon)
        h[epsilon] = (plus[0] - minus[0])/(2*epsilon)
    assert (h[1e-2] - h[1e-3]).norm() < .2*h[1e-3].norm()     # curvature; other masks would make it grow tenfold with 1/epsilon


def test_an_error_at_omega_plus_leaves_no_trace():
    search = make()
    run(search, 1)
    before = copy.deepcopy(search.model.state_dict())
    plain, calls = search.estimator.loss, []
    def failing(*args):
        calls.append(1)
        if len(calls) > 1: raise RuntimeError('out of memory')
        return plain(*args)
    search.estimator.loss = failing
    with pytest.raises(RuntimeError, match='out of memory'):
        with restored(search.model): central_difference(lambda: search.estimator.probe(search.model), search.model,
                                                        [w.detach().clone() for w in search.weights], search.direction(torch.arange(8))[0], .01)
    for a, b in zip(before.values(), search.model.state_dict().values()): assert torch.equal(a, b)


def test_outer_autocast_does_not_reach_the_probes():
    a, b = make(), make()
    gen = generator(5)
    log = run(a, 1)[0]
    with torch.autocast('cpu', torch.bfloat16): inside = run(b, 1, gen)[0]
    assert inside['val_loss'] == log['val_loss'] and inside['loss_plus'] == log['loss_plus']
    c = make(autocast=torch.bfloat16)
    half = run(c, 1)[0]
    assert half['train_loss'] != log['train_loss'] and abs(half['train_loss'] - log['train_loss']) < .02*log['train_loss']


def test_policy_follows_any_scale_of_the_loss():
    "Adam with its usual epsilon would hardly move where the gradient is small."
    tiny = make(loss=lambda *args: 1e-6*per_image(*args), lr=1e-4)
    assert run(tiny, 1)[0]['policy_gradient'] < 1e-10
    assert max((p - q).abs().max().item() for p, q in zip(tiny.policy.parameters(), Policy(OPERATIONS).parameters())) > .04


def test_two_processes_stay_in_step():
    "Two searches with different images, joined by `reduce`, as two GPUs would be: the same weights, the same policy."
    barrier, slots = threading.Barrier(2), [None, None]
    def reduce_for(rank):
        def reduce(t):
            slots[rank] = t.detach().clone(); barrier.wait()
            mean = (slots[0] + slots[1])/2; barrier.wait()
            return mean
        return reduce
    torch.manual_seed(0)
    searches = [make(reduce=reduce_for(rank), lr=.05) for rank in range(2)]
    for s in searches: s.model[1] = nn.Identity(); s.weights = trainable_weights(s.model); s.optimizer = torch.optim.SGD(s.weights, .05)
    errors = []
    def work(rank):
        try:
            for t in range(2):                                # no shared random state: the network has no Dropout
                searches[rank].step(torch.arange(8) + 10*rank, 8, 20 + torch.arange(8) + 10*rank, generator(10*t + rank))
        except Exception as e: errors.append(e); barrier.abort()
    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(2)]
    for t in threads: t.start()
    for t in threads: t.join(60)
    assert not errors, errors
    for a, b in zip(searches[0].model.parameters(), searches[1].model.parameters()): assert torch.equal(a, b)
    assert same(searches[0].policy, searches[1].policy) and searches[0].policy.drift() > 0


@pytest.mark.parametrize('where', ['training loss', 'validation loss', 'finite difference'])
def test_numbers_that_are_not_finite_stop_the_search(where):
    search = make()
    run(search, 2)
    bad = lambda *args: per_image(*args)*math.nan
    if where == 'training loss': search.loss = bad
    if where == 'validation loss': search.val_loss = lambda *args: val_loss(*args)*math.inf
    if where == 'finite difference': search.estimator.loss = bad
    before = copy.deepcopy(search.policy.state_dict())
    with pytest.raises(FloatingPointError, match=f'search step 3: the {where} is not finite'): run(search, 1)
    for a, b in zip(before.values(), search.policy.state_dict().values()): assert torch.equal(a, b)


def test_targets_may_be_nested_and_labels_whole_numbers():
    "A classifier: the target is a tuple with a class label, which no mixture touches."
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Softplus(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    policy, labels = Policy(OPERATIONS), torch.arange(40) % 3
    def views(batch, draws, rows):
        i = batch[rows]
        x = augment(X[i], torch.eye(2, 3).repeat(len(i), 1, 1), None, None, draws, policy.operations, (8, 6))[0]
        return x, dict(label=labels[i], weight=None)
    loss = lambda model, x, y: nn.functional.cross_entropy(model(x), y['label'], reduction='none')
    val = lambda model, rows: nn.functional.cross_entropy(model(X[rows]), labels[rows])
    for estimator in ('paired', 'straight-through'):
        search = Search(net, policy, views, loss, val, torch.optim.SGD(net.parameters(), .1), estimator=estimator)
        log = search.step(torch.arange(8), 8, torch.arange(20, 30), generator())
        assert log['policy_gradient'] > 0


def test_finite_difference_is_exact_on_quadratics_and_second_order_elsewhere():
    gen = generator(4)
    A, t = torch.randn(5, 3, generator=gen, dtype=torch.float64), torch.randn(5, generator=gen, dtype=torch.float64)
    omega, d = ((torch.randn(k, generator=gen, dtype=torch.float64).requires_grad_(),) for k in (5, 3))
    val = lambda omega: ((omega[0] - t)**2).sum()
    for train, exact in ((lambda omega, d: ((omega[0] - A@d[0])**2).sum(), True), (lambda omega, d: (omega[0] - A@d[0]).sinh().square().sum(), False)):
        want = exact_hypergradient(omega, d, train, val, .01)[0]
        v = validation_gradient(inner_step(omega, d, train, .01), val)
        errors = [(finite_difference(omega, d, train, v, .01, e/norm(v).item())[0] - want).norm().item() for e in (1e-1, 1e-2)]
        if exact: assert max(errors) < 1e-10*want.norm().item()
        else: assert abs(math.log10(errors[0]/errors[1]) - 2) < .1


def test_cyclic_visits_everyone():
    batches = cyclic(12, 4, generator())
    for _ in range(5): assert sorted(i for _ in range(3) for i in next(batches).tolist()) == list(range(12))


def test_injected_inversion_is_found_on_another_seed():
    "The notebook's toy, smaller: a disc on a texture, validation scenes inverted, and the control without the shift."
    size, names = (16, 12), ('translate_x', 'rotate', 'invert', 'posterize', 'cutout', 'sharpness')
    def scenes(n, gen):
        x = .1 + .5*nn.functional.interpolate(torch.rand(n, 3, 4, 3, generator=gen), size, mode='bilinear')
        joints = 3 + torch.rand(n, 1, 2, generator=gen)*torch.tensor([5., 9.])
        away = ((torch.arange(12) - joints[:, :, None, None, 0])**2 + (torch.arange(16)[:, None] - joints[:, :, None, None, 1])**2).sqrt()
        disc = (3 - away).clamp(0, 1)
        return (x*(1 - disc) + .95*disc).clamp(0, 1), joints, torch.full((n, 1), 2)
    def maps(joints, visibility):
        away = (torch.arange(12) - joints[:, :, None, None, 0])**2 + (torch.arange(16)[:, None] - joints[:, :, None, None, 1])**2
        return torch.exp(-away/4)*(visibility > 0)[:, :, None, None]
    def share(shift, seed):
        gen = generator(seed); torch.manual_seed(seed)
        train, val_scenes = scenes(200, gen), scenes(100, gen)
        block = lambda i: nn.Sequential(nn.Conv2d(i, 10, 3, padding=1, bias=False), nn.BatchNorm2d(10), nn.ReLU())
        net, policy = nn.Sequential(block(3), block(10), nn.Conv2d(10, 1, 3, padding=1)), Policy(names, 'singles')
        def views(batch, draws, rows):
            x, joints, visibility = (t[batch[rows]] for t in train)
            x, joints, visibility = augment(x, torch.eye(2, 3).repeat(len(rows), 1, 1), joints, visibility, draws, policy.operations, size)
            return 2*x - 1, maps(joints, visibility)
        clean, target = shift(val_scenes[0]), maps(*val_scenes[1:])
        val = lambda model, rows: per_image(model, 2*clean[rows] - 1, target[rows]).mean()
        search = Search(net, policy, views, per_image, val, torch.optim.Adam(net.parameters(), 5e-3))
        batches, val_batches = cyclic(200, 20, gen), cyclic(100, 25, gen)
        for _ in range(60): search.train(*views(next(batches), policy.sample(20, gen), torch.arange(20)))
        for _ in range(40): search.step(next(batches), 20, next(val_batches), gen)
        return policy.shares()['invert']
    found, control = share(lambda x: 1 - x, 2), share(lambda x: x, 2)
    assert found > .5 and found > 2*control, (found, control)


def test_defaults_are_those_of_the_configuration():
    "A default that both a signature of `p2net.da2` and `SearchConfig` state is the same in both."
    names, compared = {'epsilon_scale': 'epsilon'}, set()
    config = {name: field.default for name, field in SearchConfig.model_fields.items()}
    for cls in (Search, AveragedSearch, ExtendedSearch, Paired, Policy):
        for name, parameter in inspect.signature(cls).parameters.items():
            field = names.get(name, name)
            if parameter.default is parameter.empty or field not in config or field == 'operations': continue
            assert parameter.default == config[field], (cls.__name__, name, parameter.default, config[field])
            compared.add(field)
    assert compared >= {'estimator', 'candidates', 'jitter', 'tau', 'epsilon', 'probe_mode', 'compared', 'tied', 'ema', 'val_every', 'decay', 'policy_lr', 'sub_policies'}
