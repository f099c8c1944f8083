"""Evaluation as the field does it: the figures of HRNet's and of coco-analyze's own code on real people."""
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from samples import sample

from p2net.evaluation.average_precision import coco_results, keypoint_ap
from p2net.evaluation.bootstrap import read_people, weighted_metric
from p2net.evaluation.decoding import person_score
from p2net.evaluation.error_types import KINDS, error_kinds
from p2net.evaluation.nms import oks_nms
from p2net.people.person import box_to_frame
from p2net.people.skeleton import SKELETONS

# what HRNet's COCODataset.evaluate (commit 6f69e46, OKS-NMS at 0.9) gives for the results below: results after NMS, six metrics
HRNET = {('train', 1): (486, (.404754002, .815341931, .341625268, .413204714, .405878608, .503703704)),
         ('train', 2): (866, (.520876212, .840831317, .526765688, .553873666, .507681711, .676748971)),
         ('val', 1): (141, (.459123534, .842148717, .36812955, .461127162, .472065055, .546808511)),
         ('val', 2): (248, (.558620815, .8410476, .584325518, .60341838, .533624107, .720567376))}


def noisy(truth, times, seed=0):
    "The annotated people, each found `times` times with errors of its own: results, areas of the frames."
    rng = np.random.default_rng(seed)
    people = [a for a in truth['annotations'] if a['num_keypoints'] > 0]
    who = np.repeat(np.arange(len(people)), times)
    annotated = np.array([people[i]['keypoints'] for i in who], float).reshape(-1, 17, 3)
    area, bbox = (np.array([people[i][k] for i in who], float) for k in ('area', 'bbox'))
    level = rng.uniform(.01, .12, len(who))
    joints = np.where(annotated[..., 2:] > 0, annotated[..., :2], (bbox[:, :2] + bbox[:, 2:]/2)[:, None])
    joints = joints + level[:, None, None]*np.sqrt(area)[:, None, None]*rng.normal(size=joints.shape)
    sure = np.clip(1 - 5*level[:, None] + rng.normal(0, .2, (len(who), 17)), 0, 1)
    score = person_score(torch.tensor(rng.uniform(.3, 1, len(who))), torch.tensor(sure), 'confident').numpy()
    return coco_results([people[i]['image_id'] for i in who], joints, sure, score), box_to_frame(bbox, .75)[1].prod(-1)


@pytest.mark.parametrize('split,times', HRNET)
def test_equal_to_hrnets_evaluation_code(split, times):
    truth = json.loads(sample(f'data/coco-people/annotations/person_keypoints_{split}.json').read_text())
    results, frames = noisy(truth, times)
    left = oks_nms(results, frames)
    count, metrics = HRNET[split, times]
    assert len(left) == count
    ours = keypoint_ap(truth, left)
    assert np.allclose([ours[k] for k in ('AP', 'AP50', 'AP75', 'APM', 'APL', 'AR')], metrics, rtol=0, atol=1e-8)


def test_annotation_fed_back_earns_one_on_real_people():
    truth = json.loads(sample('data/coco-people/annotations/person_keypoints_val.json').read_text())
    people = [a for a in truth['annotations'] if a['num_keypoints'] > 0]
    perfect = [dict(image_id=a['image_id'], category_id=1, keypoints=a['keypoints'], score=1.) for a in people]
    frames = box_to_frame(np.array([a['bbox'] for a in people]), .75)[1].prod(-1)
    assert keypoint_ap(truth, perfect)['AP'] == pytest.approx(1, abs=1e-12)
    assert oks_nms(perfect, frames, .99) == perfect


def test_error_types_as_the_authors_code_names_them():
    "coco-analyze (commit 9eb8a0a) names each of these 1,557 joints as we do; its counts."
    truth = json.loads(sample('data/coco-people/annotations/person_keypoints_val.json').read_text())
    sk, rng = SKELETONS['coco17'], np.random.default_rng(0)
    people = [a for a in truth['annotations'] if a['num_keypoints'] > 0 and a['area'] > 32**2]
    annotated = np.array([p['keypoints'] for p in people], float).reshape(-1, 17, 3)
    true, v, (area, image) = annotated[..., :2], annotated[..., 2], (np.array([p[k] for p in people]) for k in ('area', 'image_id'))
    level = rng.choice((.02, .06, .2), (len(people), 17, 1), p=(.5, .35, .15))
    found = true + level*np.sqrt(area)[:, None, None]*rng.normal(size=true.shape)
    crossed = rng.random((len(people), 17)) < .1
    found[crossed] = found[:, list(sk.flip_perm)][crossed]
    other = np.array([rng.choice(np.flatnonzero(image == i)) for i in image])
    taken = (rng.random((len(people), 17)) < .1) & (v > 0) & (v[other] > 0)
    found[taken] = true[other][taken] + rng.normal(0, 2, (taken.sum(), 2))
    kinds = error_kinds(found, true, v, area, image, sk)
    assert {k: int((kinds == n).sum()) for n, k in enumerate(KINDS)} == dict(good=915, jitter=214, inversion=126, swap=66, miss=236)


RECORDS = Path(__file__).resolve().parents[1]/'paper_results'/'runs'


@pytest.mark.parametrize('path', sorted(RECORDS.rglob('people.csv')), ids=lambda p: '/'.join(p.parts[-4:-1]))
def test_the_people_beside_a_record_add_up_to_it(path):
    people, metrics = read_people(path.parent), json.loads((path.parent/'record.json').read_text())['metrics']
    for metric in ('AP', 'AP50', 'AP75', 'AR', 'PCK@0.2', 'PCKh@0.5'):
        if metric in metrics: assert weighted_metric(people, metric, np.ones((1, len(people))))[0] == pytest.approx(metrics[metric], abs=1e-12)
