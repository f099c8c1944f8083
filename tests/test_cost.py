"The counter against PyTorch's own, on networks of other people, and the receptive field against brute force."
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from p2net.compat import torchvision
from p2net.evaluation.cost import chain_field, main_path, count, cost_row, extent, field_radius, receptive_field
from p2net.network import P2Net


def deconvolutions():
    return nn.Sequential(nn.Conv2d(3, 6, 5, stride=2, padding=1), nn.ConvTranspose2d(6, 8, 4, stride=2, padding=1, groups=2), nn.ReLU(),
                         nn.ConvTranspose2d(8, 4, 3, stride=3, output_padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 7))


@pytest.mark.parametrize('make, size', [
    (deconvolutions, (20, 13)), (torchvision.models.mobilenet_v3_small, (96, 72)), (torchvision.models.resnext50_32x4d, (64, 96)),
    (torchvision.models.shufflenet_v2_x1_0, (96, 72)), (lambda: P2Net(18, joints=5, width=16), (96, 72)), (P2Net, (256, 192))])
def test_against_pytorch(make, size):
    with torch.device('meta'): net = make().eval()
    cost = count(net, size)
    with FlopCounterMode(display=False) as flops, torch.device('meta'), torch.no_grad(): net(torch.zeros(1, 3, *size))
    assert 2*cost.mac == flops.get_total_flops()
    assert cost.parameters == sum(p.numel() for p in net.parameters())
    assert sum(m for _, m in cost.parts.values()) == cost.mac


@pytest.mark.parametrize('settings, parameters, gmac, gi', [
    ({}, 46.57, 28.17, 26.24), (dict(sources=4, prepare=0), 46.63, 28.16, 26.23), (dict(bottlenecks=(0, 1, 2, 3), prepare=0), 46.86, 26.23, 24.43),
    (dict(parallel=False, attention=False, dilation=1, bottlenecks=(0, 1, 2, 3), projection=True), 46.40, 24.64, 22.95)])
def test_readings_of_the_paper(settings, parameters, gmac, gi):
    with torch.device('meta'): net = P2Net(**settings)
    cost = count(net)
    assert (round(cost.parameters/1e6, 2), round(cost.gmac, 2), round(cost.gmac_2_30, 2)) == (parameters, gmac, gi)
    assert cost.parts['backbone'][0] == 42_500_160
    assert cost_row(cost)['gflop'] == pytest.approx(2*cost.gmac)


def test_counting_twice_gives_equal_costs_and_leaves_no_hooks():
    net = P2Net(18, joints=5, width=16)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    assert count(net, (96, 72)) == count(net, (96, 72))
    assert net.training and all(m.training for m in net.modules())
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_a_network_that_fails_is_left_as_it_was():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(7, 2)).train()
    with pytest.raises(RuntimeError): count(net, (8, 8))
    assert net.training and not net[0]._forward_hooks


@pytest.mark.parametrize('layers', [[(3, 1, 1)], [(3, 2, 1), (3, 1, 2), (5, 1, 1)], [(7, 2, 1), (3, 2, 1), (3, 1, 3)], [(2, 2, 1), (1, 1, 1), (3, 1, 2)]])
def test_field_by_formula_against_gradient(layers):
    torch.manual_seed(0)
    net = nn.Sequential(*[nn.Conv2d(3, 3, k, stride=s, dilation=d, padding=d*(k//2)) for k, s, d in layers])
    side, stride = chain_field(layers)
    assert main_path(net) == layers
    assert extent(receptive_field(net, (96, 88))) == (side, side)
    moved = [receptive_field(net, (96 + 2*stride, 88))]               # one output cell further down
    assert extent(moved[0]) == (side, side)


def test_reach():
    field = torch.zeros(11, 9); field[5,4] = .4; field[5,7] = .6      # most of it three pixels to the right of the centre
    assert field_radius(field, .3) == 0 and field_radius(field, .5) == 3
