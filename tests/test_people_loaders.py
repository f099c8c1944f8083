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
    people = read_coco(root/'annotations'/f'person_keypoints_{split}.json', root/'images')
    assert len(people) == labelled and len(people) + people.left_out.total == annotations and not people.corrected
    assert sum((p.visibility > 0).sum() >= 10 for p in people) == ten
    assert len(read_coco(root/'annotations'/f'person_keypoints_{split}.json', root/'images', minimum_joints=10)) == ten
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


# ---- the margin of boxes from joints, and the folder

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


def test_folder():
    found = find_people(sample('data/coco-people'))
    assert (found.kind, found.skeleton.name, len(found.train()), len(found.val())) == ('coco', 'coco17', 486, 141)
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
    (lambda d: d.update(categories=7), "categories is not a list"),
    (lambda d: d['annotations'][0].update(bbox=[1, 2, 3]), r"annotation 1: bbox is \[1, 2, 3\]"),
    (lambda d: d['annotations'][0].update(keypoints=[1.]*48), "keypoints has 48 numbers, 17 joints need 51"),
    (lambda d: d['annotations'][0].update(keypoints=[float('nan')]*50 + [2]), 'x or y is not a number'),
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
