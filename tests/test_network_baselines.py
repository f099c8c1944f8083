"Baselines beyond their notebook: published sizes, settings in a config, use by search and training, absence of timm."
import inspect, json, sys
from pathlib import Path

import pytest
import torch

from p2net.evaluation.cost import count
from p2net.network import P2Net
from p2net.network.losses import pose_loss, refined_l2
from p2net.network.baselines import timm_backbone, ARCHITECTURES, CPN, HRNETS, HRNet, SimpleBaseline, pose_network
from p2net.report.statistics import FREE_SETTINGS
from p2net.runs.config import HAS, Config, NetworkConfig, flatten, make_config, recorded_config
from p2net.runs.experiments import EXPERIMENTS, MAIN, experiment_config, in_order
from p2net.runs.training import make_network

ROOT = Path(__file__).resolve().parents[1]
SMALL = {'simplebaseline': dict(depth=18, width=16), 'cpn': dict(depth=18, width=16), 'hrnet-w9-small-v2': {}}


def small(name, seed=0, joints=5):
    torch.manual_seed(seed)
    return pose_network(name, joints, **SMALL[name])


def image(B=2, H=64, W=72, seed=0):
    return torch.randn(B, 3, H, W, generator=torch.Generator().manual_seed(seed))


# ---- are they the published networks?

@pytest.mark.parametrize('make, millions, cost', [
    (lambda: SimpleBaseline(101), 53.0, 27.9), (lambda: SimpleBaseline(50), 34.0, None), (lambda: SimpleBaseline(152), 68.6, 35.3),
    (lambda: HRNet('hrnet-w32'), 28.5, 16.0), (lambda: HRNet('hrnet-w48'), 63.6, 32.9),
    (lambda: CPN(50), 27.0, None), (lambda: CPN(101), 46.4, None)])
def test_within_one_percent_of_what_is_published(make, millions, cost):
    "At 384x288, by HRNet's counter. SimpleBaseline-50 and CPN-50 cost more than printed: see nbs/network/60_baselines."
    with torch.device('meta'): net = make()
    found = count(net, (384, 288))
    assert found.parameters/1e6 == pytest.approx(millions, rel=.01)
    if cost: assert found.hrnet_counter == pytest.approx(cost, rel=.01)


def test_half_of_the_channels():
    "Every convolution has half of the inputs and outputs of timm's, but for the three channels of the image and the 64 that leave the stem."
    with torch.device('meta'): narrow, wide = (timm_backbone(name) for name in HRNETS[:2])
    shapes = [[(m.in_channels, m.out_channels) for m in net.modules() if isinstance(m, torch.nn.Conv2d)] for net in (narrow, wide)]
    assert len(shapes[0]) == len(shapes[1]) > 50
    differing = [pair for pair in zip(*shapes) if tuple(2*c for c in pair[0]) != pair[1]]
    assert differing == [((3, 32), (3, 64)), ((32, 64), (64, 64)), ((64, 32), (64, 64)), ((64, 128), (64, 256))]


def test_hrnet_has_no_unused_layer():
    "timm's backbone returns four maps; its classifier and the exchange into the three coarser ones are left out."
    names = {n.split('.')[0] for n, _ in small('hrnet-w9-small-v2').backbone.named_parameters()}
    assert names == {'conv1', 'bn1', 'conv2', 'bn2', 'layer1', 'stage2', 'stage3', 'stage4', 'transition1', 'transition2', 'transition3'}
    assert [len(stage[-1].fuse_layers) for stage in (lambda t: (t.stage2, t.stage3, t.stage4))(small('hrnet-w9-small-v2').backbone)] == [2, 3, 1]


# ---- the config

def test_config_has_every_architecture_and_its_settings():
    assert set(inspect.get_annotations(NetworkConfig, eval_str=True)['architecture'].__args__) == set(ARCHITECTURES)
    assert set(HAS) == set(ARCHITECTURES) - {'p2net'}
    for name, settings in HAS.items():
        takes = set(inspect.signature(ARCHITECTURES[name]).parameters) - {'joints', 'name'}
        assert takes == set(settings), name


def test_every_committed_record_has_a_whole_config():
    for path in sorted((ROOT/'paper_results'/'runs').rglob('record.json')):
        record = json.loads(path.read_text())
        assert flatten(record['config']).keys() == flatten(Config().model_dump(mode='json')).keys(), path
        if 'config_hash' in record: assert recorded_config(record['config']).hash == record['config_hash'], path


def test_p2net_is_built_as_ever():
    config = make_config('tiny', network=dict(depth=18, width=16), seed=3)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        expected = P2Net(18, 21, 16, base_channels=16).state_dict()
    found = make_network(config, 21).state_dict()
    assert list(found) == list(expected) and all(torch.equal(found[k], expected[k]) for k in expected)


@pytest.mark.parametrize('name', SMALL)
def test_a_config_builds_it(name):
    network = dict(architecture=name, **(SMALL[name] or dict(depth=None, width=None, base_channels=None)))
    nets = [make_network(make_config('tiny', network=network, seed=seed), 5) for seed in (0, 0, 1)]
    weights = [next(net.parameters()) for net in nets]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    assert type(nets[0]) is type(small(name)) and nets[0](image()).refined.shape == (2, 5, 16, 18)


@pytest.mark.parametrize('changes, says', [
    (dict(architecture='cpn', attention=False), 'attention is not a setting of cpn; leave it at true'),
    (dict(architecture='simplebaseline', dilation=1), 'dilation is not a setting of simplebaseline; leave it at 2'),
    (dict(architecture='hrnet-w32', depth=None), 'width is not a setting of hrnet-w32; leave it at null'),
    (dict(architecture='hrnet-w32', depth=None, width=None, base_channels=32), "base_channels is not a setting of hrnet-w32; leave it at null"),
    (dict(depth=None), 'depth of p2net must be a number'), (dict(architecture='cpn', width=None), 'width of cpn must be a number')])
def test_a_setting_that_would_do_nothing_is_refused(changes, says):
    with pytest.raises(ValueError) as error: make_config('small', network=changes)
    assert str(error.value) == f'network: {says}'


# ---- experiments

@pytest.mark.parametrize('scale', ['tiny', 'small', 'paper'])
@pytest.mark.parametrize('name', ['simplebaseline', 'cpn', 'hrnet', 'attention-control', 'parallel-control'])
def test_an_experiment_differs_from_p2net_in_the_network_alone(name, scale):
    ours, theirs = (flatten(experiment_config(e, scale).model_dump(mode='json')) for e in ('p2net', name))
    differ = {k for k in ours if ours[k] != theirs[k]}
    assert differ and all(k.startswith(FREE_SETTINGS) for k in differ), differ
    assert ours['network.weights'] == theirs['network.weights']
    assert in_order([name]) == ['search', name] and name not in MAIN and EXPERIMENTS[name].kind == 'train'


@pytest.mark.parametrize('name', ['attention', 'parallel'])
def test_controls_cost_what_the_network_costs(name):
    costs = []
    for e in ('p2net', f'{name}-control'):
        with torch.device('meta'): costs.append(count(pose_network('p2net', 21, **experiment_config(e).network.settings()), (96, 72)))
    assert (costs[0].parameters, costs[0].mac) == (costs[1].parameters, costs[1].mac)


# ---- what training and search ask of a network

@pytest.mark.parametrize('name', SMALL)
def test_a_training_step_in_bfloat16_and_channels_last(name):
    net = small(name).to(memory_format=torch.channels_last)
    x, target = image().to(memory_format=torch.channels_last), torch.rand(2, 5, 16, 18)
    with torch.autocast('cpu', torch.bfloat16): out = net(x)
    loss = pose_loss(out, target, torch.ones(2, 5), alpha=3)
    loss.backward()
    assert loss.dtype == torch.float32 and all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize('name', SMALL)
def test_functional_call_for_the_search(name):
    net, target, weight = small(name).eval(), torch.rand(2, 5, 16, 18), torch.ones(2, 5)
    parameters = {k: v.detach() for k, v in net.named_parameters()}
    val = lambda p: refined_l2(torch.func.functional_call(net, p, (image(),)), target, weight).mean()
    grads = torch.func.grad(val)(parameters)
    assert grads['predictor.weight'].abs().sum() > 0
    assert all((grads[k] == 0).all() == k.startswith('heads.') for k in grads if k.endswith('weight'))   # CPN's first stage is no part of it


@pytest.mark.parametrize('name', SMALL)
def test_weights_are_equal_after_saving_and_loading(name, tmp_path):
    from safetensors.torch import save_file
    from p2net.runs.training import load_network_weights
    net, other = small(name), small(name, seed=1)
    save_file({k: v.contiguous() for k, v in net.state_dict().items()}, tmp_path/'model.safetensors')
    load_network_weights(other, tmp_path/'model.safetensors')
    assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), other.state_dict().values()))
    with pytest.raises(ValueError, match='trained with other network settings'): load_network_weights(P2Net(18, 5, 24), tmp_path/'model.safetensors')


# ---- timm

def test_everything_else_works_without_timm(monkeypatch):
    "The other networks are built, HRNet says what is missing; that the package imports without timm: tests/test_project.py."
    monkeypatch.setitem(sys.modules, 'timm', None)
    for architecture in ('simplebaseline', 'cpn'): pose_network(architecture, 5, depth=18, width=16)
    with pytest.raises(ValueError, match='hrnet-w32 needs the package timm, which is not installed: pip install timm'): pose_network('hrnet-w32', 5)


def test_imagenet_weights_that_cannot_be_had(monkeypatch):
    import timm
    def no_network(*args, **kwargs): raise OSError('no route to host\nand more')
    monkeypatch.setattr(timm, 'create_model', no_network)
    with pytest.raises(ValueError, match=r"hrnet-w32 could not be downloaded \(no route to host\); if offline, give a"): HRNet('hrnet-w32', weights='imagenet')


def test_names_are_timms():
    import timm
    assert [name for name in HRNETS if not timm.is_model(name.replace('-', '_'))] == ['hrnet-w9-small-v2']
    assert HRNETS == tuple(n for n in ARCHITECTURES if n.startswith('hrnet'))
