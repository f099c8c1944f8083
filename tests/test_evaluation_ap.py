"""Average precision: a slow AP of loops against pycocotools' answer, real COCO people fed back, files, faults."""
import copy
import io
import json
from contextlib import redirect_stdout

import numpy as np
import pytest

from p2net.evaluation.average_precision import box_ap, box_results, coco_results, keypoint_ap, oks, write_results
from p2net.people.skeleton import SKELETONS
from p2net.runs.config import DataConfig
from p2net.runs.data import load_people
from p2net.runs.evaluating import Predictions, average_precision, to_image
from samples import DATA, needs

COCO_PEOPLE = DATA/'coco-people'/'annotations'
SIGMAS = np.array(SKELETONS['coco17'].sigmas)


def ground_truth(rng, people=30, images=12, unlabelled=.1):
    "COCO's dictionary of random people, some of them without any label; some images stay empty."
    rows = []
    for i in range(people):
        size = np.exp(rng.uniform(np.log(25), np.log(300)))
        xy, v = rng.uniform(0, size, (17, 2)) + rng.uniform(0, 400, 2), rng.integers(0, 3, 17)
        if rng.random() < unlabelled: v[:] = 0
        flat = np.concatenate([xy*(v > 0)[:, None], v[:, None]], -1).ravel().tolist()
        rows.append(dict(id=i, image_id=int(rng.integers(0, images)), category_id=1, iscrowd=0, area=float(.4*size**2),
                         num_keypoints=int((v > 0).sum()), keypoints=flat, bbox=[*xy.min(0).tolist(), *np.ptp(xy, 0).tolist()]))
    return dict(images=[dict(id=i) for i in range(images)], annotations=rows, categories=[dict(id=1, name='person')])


def random_results(truth, rng, missed=.2, invented=6):
    "Results for most people with errors of all sizes, some duplicates, and some false positives."
    rows = []
    for a in truth['annotations']:
        if rng.random() < missed: continue
        xy = np.array(a['keypoints']).reshape(17, 3)[:, :2]
        for _ in range(1 + (rng.random() < .15)):
            rows.append((a['image_id'], xy + rng.choice((.02, .08, .2))*np.sqrt(a['area'])*rng.normal(size=(17, 2))))
    rows += [(int(rng.integers(0, len(truth['images']))), rng.uniform(0, 500, (17, 2))) for _ in range(invented)]
    return coco_results([i for i, _ in rows], np.array([xy for _, xy in rows]), np.ones((len(rows), 17)), rng.random(len(rows)))


def slow_oks(found, annotation, sigmas=SIGMAS):
    "By loops; people without labels are measured, as COCO does, by the distance from their doubled box."
    if annotation['num_keypoints'] == 0:
        x, y, w, h = annotation['bbox']
        near = 0.
        for j in range(17):
            px, py = found['keypoints'][3*j:3*j+2]
            dx, dy = max(0, x - w - px, px - (x + 2*w)), max(0, y - h - py, py - (y + 2*h))
            near += np.exp(-(dx*dx + dy*dy)/(2*annotation['area']*(2*sigmas[j])**2))/17
        return near
    terms = []
    for j in range(17):
        x, y, v = annotation['keypoints'][3*j:3*j+3]
        d2 = (found['keypoints'][3*j] - x)**2 + (found['keypoints'][3*j+1] - y)**2
        if v: terms.append(np.exp(-d2/(2*annotation['area']*(2*sigmas[j])**2)))
    return sum(terms)/len(terms)


def slow_ap(truth, results, t, sigmas=SIGMAS):
    "AP at one threshold over people of all sizes: greedy matching, 101 recalls."
    outcome = []                                               # (score, correct) of every result that counts
    for image in truth['images']:
        people = [a for a in truth['annotations'] if a['image_id'] == image['id']]
        people.sort(key=lambda a: a['num_keypoints'] == 0)     # people to ignore come last
        taken = set()
        mine = [r for r in results if r['image_id'] == image['id']]
        for r in sorted(mine, key=lambda r: -r['score'])[:20]:
            best, who = t, None
            for k, a in enumerate(people):
                if k in taken: continue
                if who is not None and people[who]['num_keypoints'] and not a['num_keypoints']: break
                q = slow_oks(r, a, sigmas)
                if q >= best: best, who = q, k
            if who is None: outcome.append((r['score'], False))
            else:
                taken.add(who)
                if people[who]['num_keypoints']: outcome.append((r['score'], True))    # matched to the ignored: doesn't count
    total = sum(a['num_keypoints'] > 0 for a in truth['annotations'])
    right, curve = 0, []
    for n, (_, good) in enumerate(sorted(outcome, key=lambda o: -o[0]), 1):
        right += good
        curve.append((right/total, right/n))
    at = lambda recall: max((p for r, p in curve if r >= recall), default=0.)
    return sum(at(recall) for recall in np.linspace(0, 1, 101))/101, right/total


@pytest.mark.parametrize('seed', range(6))
def test_a_slow_ap_agrees(seed):
    rng = np.random.default_rng(seed)
    truth = ground_truth(rng)
    results = random_results(truth, rng)
    got = keypoint_ap(truth, results)
    levels = np.linspace(.5, .95, 10)
    slow = [slow_ap(truth, results, t) for t in levels]
    assert got['AP'] == pytest.approx(np.mean([ap for ap, _ in slow]), abs=1e-12)
    assert got['AR'] == pytest.approx(np.mean([ar for _, ar in slow]), abs=1e-12)
    assert got['AP50'] == pytest.approx(slow[0][0], abs=1e-12) and got['AP75'] == pytest.approx(slow[5][0], abs=1e-12)
    assert .05 < got['AP'] < .95                               # the case is one that could differ


def test_sigmas_passed_are_used():
    rng = np.random.default_rng(9)
    truth, other = ground_truth(rng), SIGMAS[::-1]*1.5
    results = random_results(truth, rng)
    assert keypoint_ap(truth, results, other)['AP50'] == pytest.approx(slow_ap(truth, results, .5, other)[0], abs=1e-12)
    assert keypoint_ap(truth, results, other)['AP50'] != keypoint_ap(truth, results)['AP50']


def test_oks_by_loops():
    rng = np.random.default_rng(10)
    truth = ground_truth(rng, unlabelled=0)
    found = [dict(keypoints=(np.array(a['keypoints']) + 5*rng.normal(size=51)).tolist()) for a in truth['annotations']]
    flat = lambda rows: np.array([r['keypoints'] for r in rows]).reshape(-1, 17, 3)
    xyv = flat(truth['annotations'])
    got = oks(flat(found)[..., :2], xyv[..., :2], xyv[..., 2], np.array([a['area'] for a in truth['annotations']]))
    assert got == pytest.approx([slow_oks(f, a) for f, a in zip(found, truth['annotations'])], abs=1e-12)


def test_sizes_split_where_coco_splits_them():
    "Only medium people found: APM is 1, APL is 0."
    rng = np.random.default_rng(3)
    truth = ground_truth(rng, unlabelled=0)
    medium = [a for a in truth['annotations'] if 32**2 <= a['area'] <= 96**2]
    xy = np.array([a['keypoints'] for a in medium]).reshape(-1, 17, 3)[..., :2]
    # where a joint isn't labelled COCO has 0, 0: the area of the result must stay medium, so put it on a labelled one
    for a, row in zip(medium, xy):
        v = np.array(a['keypoints'][2::3])
        row[v == 0] = row[v > 0][0]
    got = keypoint_ap(truth, coco_results([a['image_id'] for a in medium], xy, np.ones(xy.shape[:2]), np.ones(len(xy))))
    assert got['APM'] == 1 and got['APL'] == 0


def test_oks_of_shapes_and_of_a_wrong_area():
    rng = np.random.default_rng(4)
    true, v = rng.uniform(0, 200, (3, 4, 17, 2)), rng.integers(1, 3, (3, 4, 17))
    found, area = true + rng.normal(0, 5, true.shape), rng.uniform(1000, 9000, (3, 4))
    got = oks(found, true, v, area)
    assert got.shape == (3, 4) and ((0 < got) & (got < 1)).all()
    for i in range(3):
        for j in range(4): assert got[i, j] == pytest.approx(float(oks(found[i, j], true[i, j], v[i, j], area[i, j])), abs=1e-14)
    assert (oks(found, true, v, 2*area) > got).all()           # the box's area instead of the outline's flatters
    assert oks(true[0, 0], true[0, 0], v[0, 0], 0.) == 1       # a flat outline: perfect is still perfect


@needs('data/coco-people')
@pytest.mark.parametrize('split', ['train', 'val'])
def test_real_people_fed_back_earn_one(split):
    "The annotation as results, keypoints and boxes."
    file = COCO_PEOPLE/f'person_keypoints_{split}.json'
    people = [a for a in json.loads(file.read_text())['annotations'] if a['num_keypoints']]
    xyv = np.array([a['keypoints'] for a in people], float).reshape(-1, 17, 3)
    ids = [a['image_id'] for a in people]
    got = keypoint_ap(file, coco_results(ids, xyv[..., :2], xyv[..., 2], np.ones(len(ids))))
    assert [got[k] for k in ('AP', 'AP50', 'AP75', 'AR')] == pytest.approx([1.]*4, abs=1e-12)
    assert min(got['APM'], got['APL']) > .998                  # COCO may match a medium result with a large neighbour
    boxes = [a for a in json.loads(file.read_text())['annotations'] if not a['iscrowd']]
    got = box_ap(file, box_results([a['image_id'] for a in boxes], [a['bbox'] for a in boxes], np.ones(len(boxes))))
    assert got == pytest.approx(dict.fromkeys(got, 1.), abs=1e-12)


@needs('data/coco-people')
def test_a_real_detection_file_has_a_box_ap():
    "118 real detections on four images: restricted to these, the AP is that of pycocotools run by hand."
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval
    truth = json.loads((COCO_PEOPLE/'person_keypoints_val.json').read_text())
    found = json.loads((COCO_PEOPLE/'detections_sample_AP_H_56_person.json').read_text())
    ids = {r['image_id'] for r in found}
    four = {**truth, 'images': [i for i in truth['images'] if i['id'] in ids],
            'annotations': [a for a in truth['annotations'] if a['image_id'] in ids]}
    got = box_ap(four, found)
    with redirect_stdout(io.StringIO()):
        gt = COCO()
        gt.dataset = copy.deepcopy(four)
        gt.createIndex()
        ev = COCOeval(gt, gt.loadRes(copy.deepcopy(found)), 'bbox')
        ev.evaluate(); ev.accumulate(); ev.summarize()
    assert 0 < got['AP'] < 1 and got['AP'] == pytest.approx(ev.stats[0], abs=1e-12) and got['APL'] == pytest.approx(ev.stats[5], abs=1e-12)


def test_nothing_is_printed_and_nothing_is_changed(capsys):
    rng = np.random.default_rng(5)
    truth = ground_truth(rng)
    results = random_results(truth, rng)
    before = copy.deepcopy((truth, results))
    keypoint_ap(truth, results); keypoint_ap(truth, [])
    assert (truth, results) == before and capsys.readouterr().out == ''


def test_order_of_results_and_an_additional_box_have_no_effect():
    rng = np.random.default_rng(6)
    truth = ground_truth(rng)
    results = random_results(truth, rng)
    got = keypoint_ap(truth, results)
    assert keypoint_ap(truth, results[::-1]) == pytest.approx(got, abs=1e-12)
    assert keypoint_ap(truth, [{**r, 'bbox': [0, 0, 1, 1]} for r in results]) == got


def test_a_submission_can_be_read_back(tmp_path):
    rng = np.random.default_rng(7)
    truth = ground_truth(rng)
    results = random_results(truth, rng)
    path = write_results(results, tmp_path/'person_keypoints_test-dev2017_p2net_results.json')
    again = json.loads(path.read_text())
    assert [set(r) for r in again] == [{'image_id', 'category_id', 'keypoints', 'score'}]*len(results)
    assert np.abs(np.array([r['keypoints'] for r in again]) - [r['keypoints'] for r in results]).max() <= 5e-4 + 1e-9
    assert all(isinstance(r['image_id'], int) for r in again)
    (tmp_path/'truth.json').write_text(json.dumps(truth))
    assert keypoint_ap(tmp_path/'truth.json', again)['AP'] == pytest.approx(keypoint_ap(truth, results)['AP'], abs=.01)


def test_no_results_give_zero():
    none = coco_results([], np.zeros((0, 17, 2)), np.zeros((0, 17)), [])
    got = keypoint_ap(ground_truth(np.random.default_rng(11)), none)
    assert none == [] and got['AP'] == got['AR'] == 0


def test_faults_are_one_clear_line(tmp_path):
    rng = np.random.default_rng(8)
    truth = ground_truth(rng)
    good = random_results(truth, rng)
    cases = [(dict(good[0], image_id=99), 'image_id 99'), (dict(good[0], score=float('nan')), 'not finite'),
             (dict(good[0], keypoints=good[0]['keypoints'][:-3]), '48 numbers, expected 51'),
             ({k: v for k, v in good[0].items() if k != 'score'}, "no 'score'")]
    for bad, message in cases:
        with pytest.raises(ValueError, match=message): keypoint_ap(truth, good[:3] + [bad])
    with pytest.raises(ValueError, match="result 0 has no 'bbox'"): box_ap(truth, good)
    with pytest.raises(ValueError, match="no list 'annotations'"): keypoint_ap({'images': []}, [])
    with pytest.raises(ValueError): coco_results([1, 2], np.zeros((1, 17, 2)), np.ones((1, 17)), [1.])
    (tmp_path/'broken.json').write_text('{"images": [')
    with pytest.raises(ValueError, match='broken.json'): keypoint_ap(tmp_path/'broken.json', [])


@needs(COCO_PEOPLE)
def test_ap_of_a_pack_is_that_of_the_file(tmp_path):
    "Half of the joints well found, half not: the people of the pack, and crowds and unlabelled people beside them, are the file's."
    people = load_people(DataConfig(source=str(DATA/'coco-people')), tmp_path, progress=False)
    pack, rng = people.val, np.random.default_rng(0)
    joints = to_image(pack, rng.uniform(0, 96, (len(pack), 17, 2)))
    near = rng.random(len(pack)) < .5
    joints[near] = to_image(pack, pack.joints - (pack.canvases.shape[1] - np.array(pack.input_size[::-1]))/2)[near] + rng.normal(0, 3, (near.sum(), 17, 2))
    found = Predictions(joints, rng.uniform(.1, 1, (len(pack), 17)), joints)
    results = coco_results(pack.image_id, joints, found.scores, found.score())
    of_file = keypoint_ap(COCO_PEOPLE/'person_keypoints_val.json', results)
    assert .05 < of_file['AP'] < .95 and average_precision(pack, found) == pytest.approx(of_file, abs=1e-12)
