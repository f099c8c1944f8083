"""Decoding: round trips on many frames, sizes and strides; equivalences; another implementation; faults."""
import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from p2net.evaluation.decoding import decode_heatmaps, filter_sigma, flip_average, flip_disagreement, gaussian_filter, highest_pixel, person_score, unmirror
from p2net.people.heatmaps import default_sigma, render_heatmaps
from p2net.people.person import box_to_frame, frame_to_matrix, invert, to_heatmap, transform
from p2net.people.skeleton import SKELETONS

BOUNDS = dict(argmax=.5, text=.5, sign=.25, dark=.01)  # heatmap pixels on either axis, house rule
EPS = 1e-4                                             # float32 coordinates of up to a few hundred pixels


@pytest.mark.parametrize('method', BOUNDS)
@pytest.mark.parametrize('size', [(96, 72), (256, 192), (128, 224)])
def test_round_trip_canvas_crop_heatmap_joint(method, size):
    "The same point of the canvas comes back, up to the decoder's bound, whatever the frame."
    rng, (H, W), n, J = np.random.default_rng(11), size, 40, 7
    box = np.concatenate([rng.uniform(50, 150, (n, 2)), rng.uniform(40, 260, (n, 2))], -1)
    matrix = frame_to_matrix(*box_to_frame(box, W/H), size, rng.uniform(-180, 180, n), rng.uniform(.6, 1.6, n), rng.random(n) < .5)
    canvas = transform(invert(matrix), rng.uniform((4, 4), (W - 5, H - 5), (n, J, 2)))
    sigma = default_sigma(size)
    maps = render_heatmaps(torch.from_numpy(transform(matrix, canvas)), torch.full((n, J), 2), size, sigma)
    found = transform(invert(matrix), decode_heatmaps(maps, method)[0].numpy())
    offset = found - canvas                                                # measured on the canvas ...
    error = np.einsum('nab,njb->nja', matrix[:, :, :2], offset)/4          # ... along the axes of the crop
    assert np.abs(error).max() <= BOUNDS[method] + EPS
    if method != 'dark': assert np.abs(error).max() > .9*BOUNDS[method]    # the bound is no looser than it has to be


@pytest.mark.parametrize('method', BOUNDS)
@pytest.mark.parametrize('sigma', [1., 2., 3.])
def test_round_trip_behind_the_matched_filter(method, sigma):
    "Four sigma from the border the filter costs no decoder anything."
    gen = torch.Generator().manual_seed(5)
    H, W, m = 160, 128, 16*sigma
    joints = torch.rand(30, 9, 2, generator=gen, dtype=torch.float64)*torch.tensor([W - 1 - 2*m, H - 1 - 2*m]) + m
    maps = render_heatmaps(joints, torch.full((30, 9), 2), (H, W), sigma)
    error = (decode_heatmaps(maps, method, blur_sigma=filter_sigma(sigma, H//4))[0] - joints)/4
    assert error.abs().max() <= BOUNDS[method] + EPS


def test_dark_reaches_the_border_and_sign_and_text_are_bounded_there():
    "Everywhere in the frame: DARK stays exact, sign keeps half a pixel on the border, text three quarters in the corner."
    gen = torch.Generator().manual_seed(6)
    size = torch.tensor([32, 40], dtype=torch.float64)
    joints = torch.rand(200, 20, 2, generator=gen, dtype=torch.float64)*size - .5
    joints[:4, 0] = torch.tensor([[-.5, -.5], [31.4, -.5], [-.5, 39.4], [31.4, 39.4]], dtype=torch.float64)
    maps = render_heatmaps(joints, torch.full((200, 20), 2), (40, 32), 1.5)
    error = {m: ((decode_heatmaps(maps, m)[0] - joints)/4).abs() for m in BOUNDS}
    assert error['dark'].max() < .01
    assert error['sign'].max() <= .5 + EPS and error['text'].max() <= .75 + EPS
    at = highest_pixel(maps)
    corner = ((at == 0) | (at == torch.tensor([7, 9]))).all(-1)
    assert error['text'][~corner].max() <= .5 + EPS and error['text'][corner].max() > .7
    border = (at == 0) | (at == torch.tensor([7, 9]))
    assert error['sign'][~border].max() <= .25 + EPS


@pytest.mark.parametrize('angle', [0., 30., 100.])
def test_dark_finds_the_maximum_of_a_rotated_anisotropic_gaussian(angle):
    "Widths 1.2 and 2.5, rotated: the Hessian's entries are all different, and the logarithm is still a paraboloid."
    y, x = torch.meshgrid(torch.arange(20.), torch.arange(15.), indexing='ij')
    x, y, a = x.double(), y.double(), np.deg2rad(angle)
    for u, v in ((7.3, 9.8), (6.6, 10.2), (7., 9.)):
        along, across = (x - u)*np.cos(a) + (y - v)*np.sin(a), (y - v)*np.cos(a) - (x - u)*np.sin(a)
        maps = torch.exp(-along**2/(2*2.5**2) - across**2/(2*1.2**2))[None, None]
        assert to_heatmap(decode_heatmaps(maps, 'dark')[0])[0, 0].tolist() == pytest.approx([u, v], abs=1e-9)


@pytest.mark.parametrize('stride', [2, 4, 8])
def test_the_stride_passed_is_used(stride):
    gen = torch.Generator().manual_seed(7)
    joints = torch.rand(3, 5, 2, generator=gen)*torch.tensor([50., 80.]) + 5
    maps = render_heatmaps(joints, torch.full((3, 5), 2), (96, 64), 1.5, stride)
    assert torch.allclose(decode_heatmaps(maps, 'dark', stride=stride)[0], joints, atol=.01*stride)


@pytest.mark.parametrize('sigma', [1., 2.5, 3.5])
def test_the_filter_is_opencvs(sigma):
    "The separable filter against OpenCV's, far enough from its other border rule, and against one two-dimensional kernel."
    maps = torch.rand(2, 3, 48, 36, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
    r = max(1, int(3*sigma))
    ours = gaussian_filter(maps, sigma)
    theirs = cv2.GaussianBlur(maps[1, 2].numpy(), (2*r + 1, 2*r + 1), sigma, borderType=cv2.BORDER_CONSTANT)
    assert np.abs(ours[1, 2].numpy() - theirs)[r:-r, r:-r].max() < 1e-6    # OpenCV rounds its kernel to float32
    y, x = torch.meshgrid(torch.arange(-r, r + 1.), torch.arange(-r, r + 1.), indexing='ij')
    g = torch.exp(-(x*x + y*y)/(2*sigma**2)).double()
    g = g/g.sum()
    plain = F.conv2d(maps.flatten(0, 1)[:, None], g[None, None], padding=r).view_as(maps)
    assert (ours - plain).abs().max() < 1e-6                               # the kernel above is float32 before it is double
    with torch.autocast('cpu', torch.bfloat16):                            # autocast doesn't round it
        assert (gaussian_filter(maps.float(), sigma) - ours.float()).abs().max() < 1e-6


def test_cpns_filter_is_21_taps_of_three_and_a_half():
    spike = torch.zeros(1, 1, 96, 72)
    spike[0, 0, 40, 30] = 1
    seen = gaussian_filter(spike, filter_sigma(3., 96, 'cpn'))[0, 0]
    assert (seen[40] > 0).sum() == 21 and (seen[:, 30] > 0).sum() == 21


def test_decoding_a_mirrored_map_mirrors_the_joints():
    "x -> W-1-x and left <-> right, for each decoder; the text may break its ties otherwise, so maps without ties."
    gen, sk = torch.Generator().manual_seed(9), SKELETONS['coco17']
    maps, W = torch.rand(3, 17, 12, 10, generator=gen), 40
    for method in BOUNDS:
        joints, scores = decode_heatmaps(maps, method, blur_sigma=1.)
        mirrored, again = decode_heatmaps(unmirror(maps, sk.flip_perm), method, blur_sigma=1.)
        wanted = joints[:, list(sk.flip_perm)]*torch.tensor([-1., 1.]) + torch.tensor([W - 1., 0.])
        assert torch.allclose(mirrored, wanted, atol=2e-4) and torch.equal(again, scores[:, list(sk.flip_perm)])


def test_the_batch_doesnt_matter():
    maps = torch.rand(3, 5, 9, 14, generator=torch.Generator().manual_seed(10))
    for method in BOUNDS:
        joints, scores = decode_heatmaps(maps, method, 1.)
        for b in range(3):
            one, score = decode_heatmaps(maps[b:b+1], method, 1.)
            assert torch.allclose(one[0], joints[b], atol=1e-5) and torch.equal(score[0], scores[b])


def test_flip_average_of_an_equivariant_model_that_draws_people():
    "A model that reads joints off a coded image, mirrors included: the average over both is what it drew, no shift (C-106)."
    sk, (H, W) = SKELETONS['lsp14'], (64, 48)
    gen = torch.Generator().manual_seed(12)
    joints = torch.rand(3, 14, 2, generator=gen)*torch.tensor([W - 9., H - 9.]) + 4
    def model(x):
        "Channel 0 is a ramp in x: it falls in a mirrored image, and then the same person is drawn mirrored."
        mirrored = (x[:, 0, 0, -1] < x[:, 0, 0, 0])[:, None]
        other = joints[:, list(sk.flip_perm)]*torch.tensor([-1., 1.]) + torch.tensor([W - 1., 0.])
        return render_heatmaps(torch.where(mirrored[..., None], other, joints), torch.full((3, 14), 2), (H, W), 1.5)
    x = torch.linspace(0, 1, W).expand(3, 3, H, W).contiguous()
    mean = flip_average(model, x, sk.flip_perm)
    assert torch.allclose(mean, model(x), atol=1e-5)
    disagreement = flip_disagreement(model, x, sk.flip_perm)
    assert disagreement[0] < 1e-8 < .1 < min(disagreement[1], disagreement[-1])
    assert torch.allclose(decode_heatmaps(mean, 'dark')[0], joints, atol=.04)
    assert not torch.allclose(decode_heatmaps(flip_average(model, x, sk.flip_perm, shift=1), 'dark')[0], joints, atol=.5)


def test_hrnets_shift_moves_the_mirrored_map_to_the_right():
    maps, perm = torch.rand(2, 14, 8, 6, generator=torch.Generator().manual_seed(15)), SKELETONS['lsp14'].flip_perm
    assert torch.equal(unmirror(maps, perm, shift=1)[..., 1:], unmirror(maps, perm)[..., :-1])
    assert torch.equal(unmirror(maps, perm, shift=1)[..., 0], unmirror(maps, perm)[..., 0])


def test_a_network_with_several_heatmaps_is_decoded_by_its_refined_ones():
    from collections import namedtuple
    outputs = namedtuple('Heatmaps', 'levels refined')
    maps = torch.rand(2, 14, 8, 6, generator=torch.Generator().manual_seed(13))
    def model(x): return outputs([maps*0]*4, maps.half())
    got = flip_average(model, torch.zeros(2, 3, 32, 24), SKELETONS['lsp14'].flip_perm)
    assert got.dtype == torch.float32
    assert torch.allclose(got, (maps + maps.flip(-1)[:, list(SKELETONS['lsp14'].flip_perm)])/2, atol=1e-3)


def test_scores_come_from_the_raw_map_at_the_pixel_that_the_filter_found():
    maps = torch.zeros(1, 1, 20, 16)
    maps[0, 0, 3, 12] = 1.                                                 # a lonely spike
    maps[0, 0, 12:17, 4:9] = .6                                            # a broad peak is highest after smoothing
    joints, score = decode_heatmaps(maps, 'argmax', blur_sigma=1.5)
    assert to_heatmap(joints).round().tolist() == [[[6, 14]]] and score.item() == pytest.approx(.6)
    assert decode_heatmaps(maps, 'argmax')[1].item() == 1


def test_degenerate_maps_give_finite_answers():
    "Empty, constant and negative maps, in every decoder, filtered or not."
    for maps in (torch.zeros(2, 3, 7, 5), torch.full((2, 3, 7, 5), .3), -torch.rand(2, 3, 7, 5)):
        for method in BOUNDS:
            for blur in (0., 1.):
                joints, scores = decode_heatmaps(maps, method, blur)
                assert joints.isfinite().all() and scores.isfinite().all()
                assert (joints >= -6).all() and (joints <= 4*7 + 6).all()


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_a_diverged_network_is_named(value):
    maps = torch.zeros(1, 2, 6, 5)
    maps[0, 1, 2, 2] = value
    with pytest.raises(ValueError, match='diverged'): decode_heatmaps(maps)


def test_person_score_by_loops():
    gen = torch.Generator().manual_seed(14)
    box, joints = torch.rand(6, generator=gen), torch.rand(6, 5, generator=gen)
    for i in range(6):
        row = joints[i].tolist()
        sure = [s for s in row if s > .2]
        assert person_score(box, joints)[i].item() == pytest.approx(box[i].item()*sum(row)/5, abs=1e-6)
        assert person_score(box, joints, 'confident')[i].item() == pytest.approx(box[i].item()*sum(sure)/max(len(sure), 1), abs=1e-6)
        assert person_score(box, joints, 'max')[i].item() == pytest.approx(box[i].item()*max(row), abs=1e-6)
