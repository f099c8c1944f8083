"""Loaders on the real samples, where they lie beside the repository: counts, boxes, sides, and answers known from elsewhere.

The samples aren't part of the repository; what isn't there is skipped (`samples.py`).
"""
import contextlib, io, json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from p2net.people.coco import clip_box, file_hash, load_coco, load_detections, read_coco, to_coco
from p2net.people.folder import find_people
from p2net.people.lsp import load_lsp, load_lspet, read_joints_mat
from p2net.people.mpii import box_of, load_mpii, load_mpii_validation, places_in, with_head_sizes
from p2net.people.person import box_to_frame
from p2net.people.skeleton import SKELETONS
from samples import sample

REPO = Path(__file__).resolve().parents[1]


def size_of(path):
    with Image.open(path) as image: return image.size[::-1]


def assert_inside(people):
    "Boxes on the photograph, which exists."
    sizes = {p: size_of(p) for p in {p.image for p in people}}
    for p in people:
        h, w = sizes[p.image]
        assert (p.bbox[:2] >= 0).all() and (p.bbox[:2] + p.bbox[2:] <= [w + 1e-6, h + 1e-6]).all(), (p.image, p.bbox)


def inside(xy, size):
    "Joints on a photograph of size (h, w)."
    return ((xy >= -.5) & (xy <= np.array(size[::-1]) - .5)).all(-1)


# ---- COCO

COCO_COUNTS = {'train': (158, 539, 486, 284), 'val': (53, 162, 141, 93)}


@pytest.mark.parametrize('split', COCO_COUNTS)
def test_coco_counts(split):
    root = sample('data/coco-people')
    images, annotations, labelled, ten = COCO_COUNTS[split]
    people, left_out = read_coco(root/'annotations'/f'person_keypoints_{split}.json', root/'images')
    assert len(people) == labelled and len(people) + sum(left_out.values()) == annotations
    assert sum((p.visibility > 0).sum() >= 10 for p in people) == ten
    assert len(read_coco(root/'annotations'/f'person_keypoints_{split}.json', root/'images', minimum_joints=10)[0]) == ten
    assert_inside(people)
    if split == 'train':
        v = np.concatenate([p.visibility for p in people])
        assert np.allclose([(v == k).mean() for k in range(3)], [.40, .08, .51], atol=.006)


def test_coco_joints_lie_in_their_boxes():
    "Labelled joints are on the photograph and, nearly all, in the box: an x taken for a y would show."
    root, outside, n = sample('data/coco-people'), 0, 0
    for p in load_coco(root/'annotations'/'person_keypoints_train.json', root/'images'):
        xy = p.joints[p.visibility > 0]
        assert inside(xy, size_of(p.image)).all()
        outside += ((xy < p.bbox[:2] - 3) | (xy > p.bbox[:2] + p.bbox[2:] + 3)).any(1).sum(); n += len(xy)
    assert outside/n < .05                                              # COCO boxes hold the visible part: hidden joints stick out


def test_coco_left_is_left():
    "People with a visible nose and both shoulders face the camera: their left shoulder is on the right of the picture."
    root, sk = sample('data/coco-people'), SKELETONS['coco17']
    nose, eyes, l, r = sk.index('nose'), [sk.index('left_eye'), sk.index('right_eye')], sk.index('left_shoulder'), sk.index('right_shoulder')
    seen = [p for p in load_coco(root/'annotations'/'person_keypoints_train.json', root/'images') if (p.visibility[[nose, *eyes, l, r]] == 2).all()]
    assert len(seen) > 80 and np.mean([p.joints[l, 0] > p.joints[r, 0] for p in seen]) > .9


@pytest.mark.parametrize('split', COCO_COUNTS)
@pytest.mark.parametrize('written_by', ['us', 'them'])
def test_coco_ground_truth_fed_back_is_perfect(split, written_by):
    "Against the original file, unlabelled people and crowds included, and against the file that we write."
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval
    root = sample('data/coco-people')
    file = root/'annotations'/f'person_keypoints_{split}.json'
    people = load_coco(file, root/'images')
    rows = [dict(image_id=p.image_id, category_id=1, score=1., keypoints=np.c_[p.joints, p.visibility > 0].ravel().tolist()) for p in people]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = json.loads(file.read_text()) if written_by == 'them' else to_coco(people, SKELETONS['coco17'])
        truth.createIndex()
        metric = COCOeval(truth, truth.loadRes(rows), 'keypoints')
        metric.evaluate(); metric.accumulate(); metric.summarize()
    assert metric.stats[0] == pytest.approx(1, abs=1e-9)


def test_coco_detections():
    root = sample('data/coco-people')
    file, truth = root/'annotations'/'detections_sample_AP_H_56_person.json', root/'annotations'/'person_keypoints_val.json'
    found = load_coco(truth, root/'images', detections=file)
    rows = json.loads(file.read_text())
    assert len(found) == 118 == len(rows) and {p.image_id for p in found} == {785, 40083, 196141, 197388}
    assert_inside(found)
    assert [p.score for p in found] == [r['score'] for r in rows]
    assert len(load_detections(file, truth, root/'images', score_threshold=.5)) == sum(r['score'] >= .5 for r in rows)
    iou = lambda a, b: (i := np.prod(np.clip(np.minimum(a[:2] + a[2:], b[:2] + b[2:]) - np.maximum(a[:2], b[:2]), 0, None)))/(a[2]*a[3] + b[2]*b[3] - i)
    people = [p for p in load_coco(truth, root/'images') if p.image_id in {785, 40083, 196141, 197388}]
    assert np.mean([max(iou(p.bbox, q.bbox) for q in found if q.image_id == p.image_id) > .5 for p in people]) > .9
    assert len(file_hash(file)) == 64


def test_coco_as_people21_and_mpii():
    "A real file has no extra joints: pelvis and thorax are derived, the top of the head is absent."
    root = sample('data/coco-people')
    file = root/'annotations'/'person_keypoints_val.json'
    a, b, c = (load_coco(file, root/'images', sk) for sk in ('coco17', 'people21', 'mpii16'))
    sk = SKELETONS['people21']
    for p, q, r in zip(a, b, c):
        assert (q.joints[:17][p.visibility > 0] == p.joints[p.visibility > 0]).all() and (q.visibility[:17] == p.visibility).all()
        assert q.visibility[sk.index('head_top')] == 0 and len(r.joints) == 16


# ---- MPII

def test_mpii_sample():
    root = sample('data/mpii')
    people, rows = load_mpii(root), json.loads((root/'annot'/'sample.json').read_text())
    assert [Path(p.image).name for p in people] == [r['image'] for r in rows] and len(people) == 5
    for p, r in zip(people, rows):
        good = np.array(r['joints_vis']) > 0
        assert inside(p.joints[good], size_of(p.image)).all()
        assert np.allclose(p.joints[good] + 1, np.array(r['joints'])[good])
        low, high = p.bbox[:2], p.bbox[:2] + p.bbox[2:]
        assert ((p.joints[good] > low) & (p.joints[good] < high)).mean() > .9


def test_mpii_frames_equal_the_validation_files():
    "valid.npz already has 15 * scale and 1.25: an independent statement of the frame that we make of center and scale."
    root = sample('data/mpii')
    valid, rows = np.load(root/'annot'/'valid.npz'), json.loads((root/'annot'/'sample.json').read_text())
    for n, r in enumerate(rows):
        center, size = box_to_frame(box_of(r['center'], r['scale']), 1.)
        assert np.allclose(center + 1, valid['center'][n], atol=1e-3)
        assert np.allclose(size, 200*valid['scale'][n], rtol=1e-6)


def test_mpii_validation_files_agree():
    root = sample('data/mpii')
    mat, npz = (load_mpii_validation(root/'annot'/f) for f in ('detections_our_format.mat', 'valid.npz'))
    assert len(mat) == len(npz) == 2958
    assert np.allclose(mat.head_size, npz.head_size, atol=1e-3)
    both = mat.labelled & npz.labelled & (mat.joints > 0).all(-1)
    assert np.abs(mat.joints - npz.joints)[both].max() < 1 + 1e-4
    assert (mat.labelled != npz.labelled).sum() <= 13                       # of 10 people whose .mat has a 0 by mistake
    people = load_mpii(root)
    assert places_in(people, npz) == [0, 1, 2, 3, 4]
    assert np.allclose([p.head_size for p in with_head_sizes(people, npz)], npz.head_size[:5])


@pytest.mark.parametrize('model, mean', [('hg_s2_b1', 86.76), ('hg_s8_b1', 88.64)])
def test_mpii_published_pckh(model, mean):
    "The published mean over 14 joints, in a few lines and from our ground truth."
    root, sk = sample('data/mpii'), SKELETONS['mpii16']
    truth = load_mpii_validation(root/'annot'/'detections_our_format.mat')
    predicted = np.load(root/'reference_preds'/f'{model}.npz')['preds']
    near = np.linalg.norm(predicted - truth.joints, axis=-1) <= .5*truth.head_size[:, None]
    rate = np.array([100*near[truth.labelled[:, j], j].mean() for j in range(16)])
    groups = [('head_top', 'upper_neck')] + [(f'left_{p}', f'right_{p}') for p in ('shoulder', 'elbow', 'wrist', 'hip', 'knee', 'ankle')]
    fourteen = [j for j in range(16) if sk.joints[j] not in ('pelvis', 'thorax')]
    assert len(groups) == 7 and rate[fourteen].mean() == pytest.approx(mean, abs=.006)


def test_mpii_folder():
    found = find_people(sample('data/mpii'))
    assert found.kind == 'mpii' and len(found.val()) == 5 and all(p.head_size for p in found.val())
    with pytest.raises(FileNotFoundError, match='no train.json'): found.train()


# ---- LSP, LSPET

def test_lsp():
    root = sample('data/lsp')
    train, test = load_lsp(root, 'train'), load_lsp(root, 'test')
    assert [len(train), len(test)] == [1000, 1000]
    assert Path(train[0].image).name == 'im0001.jpg' and Path(test[0].image).name == 'im1001.jpg'
    people = train + test
    v = np.stack([p.visibility for p in people])
    assert (v > 0).all() and (v == 1).mean() == pytest.approx(.073, abs=.001)
    assert_inside(people)
    good = np.concatenate([inside(p.joints, size_of(p.image)) for p in people])
    assert good.mean() > .995
    assert all(p.head_size > 0 for p in people)


def test_lsp_counts_from_one():
    "Counted from one, no joint inside a picture can be below 1 and some lie beyond width - 1 if one is not taken off."
    root = sample('data/lsp')
    raw = read_joints_mat(root/'joints.mat')[1][..., :2]
    sizes = np.array([size_of(root/'images'/f'im{n:04d}.jpg')[::-1] for n in range(1, 2001)])
    high = raw.max(1) - sizes
    assert (high > -.5).any() and high.max() < 1.5                                     # pixel w itself is used: from one
    assert np.allclose([p.joints for p in load_lsp(root)], raw[:1000] - 1)


def test_lspet():
    root = sample('data/lspet')
    split = json.loads((root/'split.json').read_text())
    train, val = load_lspet(root, 'train'), load_lspet(root, 'val')
    assert [Path(p.image).name for p in train] == split['train'] and [Path(p.image).name for p in val] == split['val']
    assert [len(train), len(val)] == [3000, 500]
    v = np.stack([p.visibility for p in train])
    assert set(np.unique(v)) == {0, 2} and (v.sum(1) == 28).mean() == pytest.approx(.43, abs=.01)
    assert ((v > 0).sum(1) >= 10).all()
    assert_inside(train + val)
    outside = sum((~inside(p.joints[p.visibility > 0], size_of(p.image))).sum() for p in train + val)
    assert outside <= 8                                                                # of the whole set
    neck = SKELETONS['lsp14'].index('neck')
    assert (v[:, neck] == 0).mean() == (v == 0).mean(0).max()
    measured = [p.head_size is not None for p in train + val]
    possible = [min(p.visibility[12:]) > 0 and (p.joints[12] != p.joints[13]).any() for p in train + val] # 3 have both on one spot
    assert measured == possible


@pytest.mark.parametrize('name, load', [('lsp', load_lsp), ('lspet', load_lspet)])
def test_lsp_left_is_left(name, load):
    "Left and right are the person's own, so among upright people both orders occur; ankles and shoulders agree in side mostly."
    people, sk = load(sample(f'data/{name}'), 'train'), SKELETONS['lsp14']
    ls, rs, lh, rh = (sk.index(j) for j in ('left_shoulder', 'right_shoulder', 'left_hip', 'right_hip'))
    full = [p for p in people if (p.visibility[[ls, rs, lh, rh]] > 0).all()]
    cross = [np.dot(p.joints[ls] - p.joints[rs], p.joints[lh] - p.joints[rh]) for p in full]
    assert np.mean(np.array(cross) > 0) > .9
    upright = [p for p in full if p.joints[lh, 1] > p.joints[ls, 1] + 20]
    facing = np.mean([p.joints[ls, 0] > p.joints[rs, 0] for p in upright])
    assert .5 < facing < .95                                                           # more people are seen from the front


def test_margin_of_boxes_from_joints():
    "LSP's boxes grow by a tenth because COCO's, where both are known, do in the median: 0.07 at the sides, 0.10 below."
    root, rows = sample('data/coco-people'), []
    whole = [SKELETONS['coco17'].index(f'{s}_{j}') for s in ('left', 'right') for j in ('shoulder', 'wrist', 'hip', 'ankle')]
    for split in COCO_COUNTS:
        for p in load_coco(root/'annotations'/f'person_keypoints_{split}.json', root/'images', minimum_joints=13):
            if not (p.visibility[[0, *whole]] > 0).all(): continue
            xy = p.joints[p.visibility > 0]
            low, high = xy.min(0), xy.max(0)
            rows.append(np.r_[low - p.bbox[:2], p.bbox[:2] + p.bbox[2:] - high]/(high - low).max())
    left, _, right, below = np.median(rows, 0)
    assert len(rows) >= 100 and .05 < left < .09 and .05 < right < .09 and .08 < below < .12


@pytest.mark.parametrize('name, kind, skeleton, train, val', [('coco-people', 'coco', 'coco17', 486, 141), ('lsp', 'lsp', 'lsp14', 1000, 1000),
                                                             ('lspet', 'lspet', 'lsp14', 3000, 500)])
def test_folders(name, kind, skeleton, train, val):
    found = find_people(sample(f'data/{name}'))
    assert (found.kind, found.skeleton.name, len(found.train()), len(found.val())) == (kind, skeleton, train, val)
    assert {p.image for p in found.train()}.isdisjoint(p.image for p in found.val())


# ---- without samples

def test_clip_box_is_the_intersection():
    rng = np.random.default_rng(0)
    for _ in range(200):
        b, (h, w) = np.r_[rng.uniform(-50, 150, 2), rng.uniform(1, 120, 2)], rng.integers(20, 120, 2)
        x0, y0, x1, y1 = max(b[0], 0), max(b[1], 0), min(b[0] + b[2], w), min(b[1] + b[3], h)
        got = clip_box(b, (h, w))
        if x1 > x0 and y1 > y0: assert np.allclose(got, [x0, y0, x1 - x0, y1 - y0])
        else: assert min(got[2:]) <= 0


@pytest.mark.parametrize('edit, message', [
    (lambda d: d['images'].clear(), "not in 'images'"),
    (lambda d: d.pop('categories'), "no list 'categories'"),
    (lambda d: d['annotations'][0].update(bbox=[1, 2, 3]), "no 'bbox' of x, y, w, h"),
    (lambda d: d['annotations'][0].update(keypoints=[1.]*48), "48 numbers in 'keypoints', skeleton 'coco17' needs 51"),
    (lambda d: d['annotations'][0].update(keypoints=[float('nan')]*50 + [2]), 'that is no number'),
    (lambda d: d['categories'][0]['keypoints'].reverse(), "not those of skeleton 'coco17'"),
])
def test_coco_faults_name_file_or_person(tmp_path, edit, message):
    from p2net.people.person import example_person
    image, p = example_person()
    p.image = str(tmp_path/'a.png'); p.image_id = p.person_id = 1
    cv2.imwrite(p.image, image)
    data = to_coco([p], SKELETONS['coco17'])
    edit(data)
    (tmp_path/'people.json').write_text(json.dumps(data))
    with pytest.raises(ValueError, match=message) as caught: load_coco(tmp_path/'people.json', tmp_path)
    assert 'people.json' in str(caught.value) or 'a.png' in str(caught.value)
    assert '\n' not in str(caught.value)
