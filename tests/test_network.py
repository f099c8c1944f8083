"The network: what its notebooks don't carry. Long lists of cases, real weight files, compilation, precision, the search's needs."
import itertools
from pathlib import Path

import pytest
import torch
from torch import nn

from p2net.network import Heatmaps, P2Net
from p2net.network import backbone
from p2net.network.backbone import ResNetPyramid
from p2net.network.fusion import ParallelFusion, ProgressiveFusion, resize
from p2net.network.losses import joint_errors, l2_loss, l2_star_loss, pose_loss, refined_l2
from p2net.network.refinement import AttentionModule, DilatedBottleneck
from samples import sample

ROOT = Path(__file__).resolve().parents[1]


def small(seed=0, **settings):
    torch.manual_seed(seed)
    return P2Net(**dict(depth=18, joints=5, width=16) | settings)


def trained(net, seed=0):
    "Evaluation mode, float64, BN layers and predictors as if trained."
    gen = torch.Generator().manual_seed(seed)
    net = net.double().eval()
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d):
            for t, low in ((m.weight, .5), (m.bias, -.2), (m.running_mean, -.2), (m.running_var, .8)):
                t.data = low + .4*torch.rand(t.shape, generator=gen, dtype=torch.float64)
    return net


def image(B=2, H=64, W=48, seed=0, dtype=torch.float32):
    return torch.randn(B, 3, H, W, generator=torch.Generator().manual_seed(seed), dtype=dtype)


# ---- backbone

@pytest.mark.parametrize('file, depth, absent', [('resnet50_imagenet_fp16', 50, []), ('resnet18_imagenet_stem_to_layer3', 18, ['layer4'])])
def test_real_weight_files(file, depth, absent, capsys):
    path = sample(f'weights/{file}.safetensors')
    net = ResNetPyramid(depth, path)
    printed = capsys.readouterr().out
    assert ('the file has no layer4; these layers start from random values' in printed) == bool(absent)
    assert net.conv1.weight.dtype == torch.float32
    with torch.no_grad(): features = net.eval()(image(1, 96, 72))
    assert all(f.isfinite().all() for f in features)
    with pytest.raises(ValueError, match=r'layer1\.0\.conv1\.weight is \(64, 64, [13], [13]\), a ResNet-\d+ needs'):
        ResNetPyramid(18 if depth == 50 else 50, path)
    with pytest.raises(ValueError, match='is missing'): ResNetPyramid(34 if depth == 18 else 101, path)


def test_deeper_file_is_refused(tmp_path):
    from safetensors.torch import save_file
    save_file(ResNetPyramid(34).state_dict(), tmp_path/'r34.safetensors')
    with pytest.raises(ValueError, match=r'layer1\.2\.\w+\.\w+ \(64,.*\) is not part of a ResNet-18'):
        ResNetPyramid(18, tmp_path/'r34.safetensors')


def test_a_refused_file_leaves_the_backbone_unchanged():
    net = ResNetPyramid(18)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    broken = {k: torch.zeros_like(v) for k, v in before.items()} | {'layer4.1.conv2.weight': torch.zeros(1)}
    with pytest.raises(ValueError, match=r'here: layer4\.1\.conv2\.weight is \(1,\)'): backbone.fit_tensors(net, broken, 'here')
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    with pytest.raises(ValueError, match='holds no tensor'): backbone.fit_tensors(net, {'fc.weight': torch.zeros(2)}, 'here')


def test_imagenet(monkeypatch):
    from torchvision.models import ResNet18_Weights
    given = ResNetPyramid(18).state_dict() | {'fc.weight': torch.zeros(1000, 512), 'fc.bias': torch.zeros(1000)}
    monkeypatch.setattr(ResNet18_Weights, 'get_state_dict', lambda self, *a, **k: given)
    net = P2Net(18, joints=5, width=16, weights='imagenet')
    assert torch.equal(net.backbone.layer3[0].conv1.weight, given['layer3.0.conv1.weight'])

    def no_network(self, *args, **kwargs): raise OSError('no route to host')
    monkeypatch.setattr(ResNet18_Weights, 'get_state_dict', no_network)
    with pytest.raises(ValueError, match=r'could not be downloaded \(no route to host\).*network.weights=resnet18\.safetensors'):
        ResNetPyramid(18, 'imagenet')


# ---- the network

@pytest.mark.parametrize('size', [(32, 32), (96, 72), (100, 76), (36, 132), (192, 256)])
def test_any_multiple_of_four(size):
    net = small().eval()
    with torch.no_grad(): out = net(image(1, *size))
    assert isinstance(out, Heatmaps) and len(out.levels) == 4
    assert {tuple(m.shape) for m in (*out.levels, out.refined)} == {(1, 5, size[0]//4, size[1]//4)}


SWITCHES = [dict(parallel=p, progressive=q, attention=a) for p, q, a in itertools.product((True, False, 'control'), repeat=3)] + [
    dict(refine=False), dict(dilation=1), dict(dilation=(1, 2, 3, 4)), dict(bottlenecks=(0, 1, 2, 3)), dict(bottlenecks=0), dict(projection=True),
    dict(reduction=4), dict(concat_c2=False), dict(prepare=0), dict(prepare=2), dict(sources=4), dict(zero_init=False), dict(conv_first=True),
    dict(predictor_std=None), dict(width=64), dict(depth=50)]

@pytest.mark.parametrize('settings', SWITCHES, ids=lambda s: ','.join(f'{k}={v}' for k, v in s.items()))
def test_every_switch_trains(settings):
    net, target = small(**dict(zero_init=False) | settings), torch.rand(2, 5, 16, 12)
    loss = pose_loss(net(image()), target, torch.ones(2, 5), alpha=3)
    loss.backward()
    assert loss.isfinite()
    missing = [n for n, p in net.named_parameters() if p.grad is None]
    assert missing == []


@pytest.mark.parametrize('settings', [dict(parallel='control'), dict(progressive='control'), dict(attention='control'), dict(dilation=1)])
def test_controls_change_the_function_and_not_the_cost(settings):
    full, control = trained(small(zero_init=False)), small(**settings)
    control = trained(control)
    assert sum(p.numel() for p in control.parameters()) == sum(p.numel() for p in full.parameters())
    control.load_state_dict(full.state_dict())
    with torch.no_grad(): a, b = full(image(dtype=torch.float64)).refined, control(image(dtype=torch.float64)).refined
    assert ((a - b).abs().max() > 1e-3*a.abs().max())


def test_refused_settings():
    for settings, message in ((dict(parallel='no'), "parallel must be True, False or 'control', got 'no'"), (dict(attention=None), 'attention must be'),
                              (dict(sources=5), 'sources must be 3'), (dict(dilation=0), 'dilation must be 1 or more'),
                              (dict(bottlenecks=(1, 2)), 'bottlenecks must be one number or four'), (dict(reduction=99), 'reduction must lie')):
        with pytest.raises(ValueError, match=message): small(**settings)
    with pytest.raises(TypeError): small(dilatoin=2)


def test_cheap_order_is_the_same_function_and_takes_the_same_weights():
    text = trained(small(zero_init=False))
    cheap = trained(small(seed=1, zero_init=False, conv_first=True))
    cheap.load_state_dict(text.state_dict())
    with torch.no_grad(): a, b = text(image(dtype=torch.float64)), cheap(image(dtype=torch.float64))
    for m, n in zip((*a.levels, a.refined), (*b.levels, b.refined)): torch.testing.assert_close(m, n, rtol=0, atol=1e-9*float(m.abs().max()))


def test_a_fresh_network_is_a_network_without_parallel_fusion():
    full, plain = small().eval(), small(parallel=False).eval()
    plain.load_state_dict(full.state_dict(), strict=False)
    with torch.no_grad(): assert torch.equal(full(image()).refined, plain(image()).refined)


def test_same_seed_same_network():
    a, b = small(3).state_dict(), small(3).state_dict()
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_gradients_of_the_whole_network():
    net = trained(small(joints=3, width=8, zero_init=False))
    x = image(1, 32, 36, dtype=torch.float64).requires_grad_()
    # fast mode: two random projections in place of 3456 finite differences; the step is small because of the ReLUs
    assert torch.autograd.gradcheck(lambda x: net(x).refined, x, fast_mode=True, eps=1e-8, atol=1e-4, rtol=1e-3)


def test_compiles_without_a_graph_break():
    net = small().eval()
    compiled = torch.compile(net, backend='eager', fullgraph=True)
    with torch.no_grad(): torch.testing.assert_close(compiled(image()).refined, net(image()).refined)
    loss = torch.compile(lambda *a: pose_loss(*a, alpha=3), backend='eager', fullgraph=True)
    with torch.no_grad(): out = net(image())
    arguments = out, torch.rand(2, 5, 16, 12), torch.ones(2, 5)
    torch.testing.assert_close(loss(*arguments), pose_loss(*arguments, alpha=3))


def test_channels_last_and_bfloat16():
    net, target = small().to(memory_format=torch.channels_last), torch.rand(2, 5, 16, 12)
    x = image().to(memory_format=torch.channels_last)
    with torch.autocast('cpu', torch.bfloat16): loss = pose_loss(net(x), target, torch.ones(2, 5), alpha=3)
    loss.backward()
    assert loss.dtype == torch.float32 and all(p.grad.isfinite().all() for p in net.parameters())
    kept = []
    for m in (net.laterals[0], net.bottlenecks[0], net.attention[0]):
        m.register_forward_hook(lambda m, x, y: kept.append(y.is_contiguous(memory_format=torch.channels_last)))
    net(x)
    assert all(kept) and len(kept) == 3


def test_functional_call_for_the_search():
    "The search evaluates the network at moved weights without touching it."
    net, target, weight = small().eval(), torch.rand(2, 5, 16, 12), torch.ones(2, 5)
    parameters = {k: v.detach() for k, v in net.named_parameters()}
    val = lambda p: refined_l2(torch.func.functional_call(net, p, (image(),)), target, weight).mean()
    grads = torch.func.grad(val)(parameters)
    # the first head's maps don't enter the refined loss, everything before does
    assert all((grads[k] == 0).all() for k in grads if k.startswith('heads.'))
    assert grads['backbone.conv1.weight'].abs().sum() > 0 and grads['predictor.weight'].abs().sum() > 0


# ---- modules

@pytest.mark.parametrize('sizes', [((24, 18), (12, 9), (6, 5), (3, 3)), ((8, 24), (4, 12), (2, 6), (1, 3)), ((9, 7), (5, 4), (3, 2), (2, 1))])
@pytest.mark.parametrize('module', [lambda: ParallelFusion(8, prepare=0, zero_init=False), lambda: ParallelFusion(8, sources=4, prepare=0, zero_init=False),
                                    lambda: ProgressiveFusion(8)])
def test_fusion_commutes_with_mirroring(module, sizes):
    torch.manual_seed(0)
    module = trained(module())
    maps = [torch.randn(2, 8, *s, dtype=torch.float64) for s in sizes]
    for axis in (-1, -2):
        for a, b in zip(module([m.flip(axis) for m in maps]), module(maps)): torch.testing.assert_close(a, b.flip(axis), rtol=0, atol=1e-10)


@pytest.mark.parametrize('size', [(24, 18), (5, 9), (1, 1), (40, 3)])
def test_resize_keeps_constants_and_mirrors(size):
    x = torch.randn(2, 3, 7, 6, dtype=torch.float64)
    torch.testing.assert_close(resize(torch.full_like(x, 2.), size), torch.full((2, 3, *size), 2., dtype=torch.float64))
    torch.testing.assert_close(resize(x.flip(-1), size), resize(x, size).flip(-1), rtol=0, atol=1e-12)


@pytest.mark.parametrize('module, c_in', [(lambda: DilatedBottleneck(6, 6, 1), 6), (lambda: DilatedBottleneck(6, 6, 3), 6),
                                          (lambda: DilatedBottleneck(9, 6, 2), 9), (lambda: AttentionModule(6), 6), (lambda: AttentionModule(6, 2), 6)])
def test_refinement_is_per_person(module, c_in):
    torch.manual_seed(0)
    module, x = trained(module()), torch.randn(3, c_in, 5, 4, dtype=torch.float64)
    y = module(x)
    for b in range(3): torch.testing.assert_close(module(x[b:b+1]), y[b:b+1], rtol=0, atol=1e-12)
    assert torch.autograd.gradcheck(module, x[:2].clone().requires_grad_())


# ---- losses

def loss_by_hand(heatmaps, target, weight, alpha):
    out = []
    for b in range(len(heatmaps)):
        errors = sorted((float(((heatmaps[b,j] - target[b,j])**2).mean())/2 for j in range(weight.shape[1]) if weight[b,j] > 0), reverse=True)[:alpha]
        out.append(sum(errors)/len(errors) if errors else 0.)
    return torch.tensor(out, dtype=torch.float64)


@pytest.mark.parametrize('B, J, alpha, seed', [(1, 17, 10, 0), (3, 16, 10, 1), (4, 14, 10, 2), (3, 5, 10, 3), (8, 17, 1, 4), (3, 17, 17, 5), (3, 4, 99, 6)])
def test_losses_against_sorted_lists(B, J, alpha, seed):
    gen = torch.Generator().manual_seed(seed)
    H, T = (torch.randn(B, J, 6, 5, generator=gen, dtype=torch.float64) for _ in range(2))
    w = (torch.rand(B, J, generator=gen) < .6).double(); w[-1] = 0
    levels = [torch.randn(B, J, 6, 5, generator=gen, dtype=torch.float64) for _ in range(4)]
    torch.testing.assert_close(l2_star_loss(H, T, w, alpha), loss_by_hand(H, T, w, alpha))
    torch.testing.assert_close(l2_loss(H, T, w), loss_by_hand(H, T, w, J))
    expected = sum(loss_by_hand(m, T, w, J) for m in levels)/4/2 + loss_by_hand(H, T, w, alpha)
    torch.testing.assert_close(pose_loss(Heatmaps(levels, H), T, w, alpha, 'none'), expected)


def test_weights_of_any_type_and_ties():
    H, T = torch.ones(1, 4, 2, 3), torch.zeros(1, 4, 2, 3)          # four equal errors of 1/2
    for w in (torch.tensor([[1, 1, 0, 1]]), torch.tensor([[True, True, False, True]]), torch.tensor([[1., 1., 0., 1.]])):
        assert float(l2_loss(H, T, w)) == .5 and float(l2_star_loss(H, T, w, 2)) == .5
    H.requires_grad_(); l2_star_loss(H, T, w, 2).sum().backward()
    assert int((H.grad.abs().sum((2, 3)) > 0).sum()) == 2 and not H.grad[0,2].any()


def test_the_loss_is_float32_in_half_precision():
    gen = torch.Generator().manual_seed(0)
    H, T = (1e-3*torch.rand(2, 3, 96, 72, generator=gen) for _ in range(2))
    for dtype in (torch.float16, torch.bfloat16):
        low = joint_errors(H.to(dtype), T)
        assert low.dtype == torch.float32
        torch.testing.assert_close(low, joint_errors(H.to(dtype).float(), T))
    assert joint_errors(H.double(), T).dtype == torch.float64
