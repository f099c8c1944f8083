"""What users bring: annotation files, detection files and folders as tools, detectors and scripts write them, with their habits and faults.

Where a file can be used, AP and AR of our commands must be those that pycocotools gives for the user's own file and the results file that we write.
Where it can't, one line says which file, which row, which field, and what to do. Each test is a row of tests/README.md (`situations.py`)."""
import contextlib, copy, io, json, math, os, re, shutil, subprocess, sys
from pathlib import Path

import cv2, numpy as np, pytest, torch
from torch import nn

from forked import forked
from p2net.cli import main
from p2net.tools.doctor import examine, exit_code
from p2net.errors import InputError
from p2net.evaluation.average_precision import box_ap, keypoint_ap, write_results
from p2net.people.folder import find_people
from p2net.people.heatmaps import render_heatmaps
from p2net.people.person import draw_figure, transform
from p2net.people.skeleton import SKELETONS, example_pose
from p2net.runs.config import DataConfig, EvaluationConfig
from p2net.runs.data import load_people, pack_people
from p2net.runs.evaluating import Predictions, boxes_summary, file_results, file_truth, measure, measure_boxes, results_of
from samples import sample
import situations

COCO = SKELETONS['coco17']
SIZE = (64, 48)                                         # (H, W) of the crops
NAMES = ('AP', 'AP50', 'AP75', 'APM', 'APL', 'AR')


# ---- small people: photographs, and a COCO file of each split

def figure(rng, height, center, size):
    "Joints (17, 3) of somebody who stands at `center`, and (21, 2) of the same to draw."
    at = example_pose(SKELETONS['people21'])*height + center + rng.normal(0, .015*height, (21, 2))
    v = rng.choice([0, 1, 2], 17, p=[.15, .15, .7])
    v[5:9] = 2
    inside = ((at[:17] >= 0) & (at[:17] <= np.array(size[::-1]) - 1)).all(1)
    v = np.where(inside, v, 0)
    return np.c_[at[:17].round(1), v]*(v[:, None] > 0), at


PHOTOS = { # file -> id, (h, w), people as (height, x, y of the pelvis)
    'train': {'000000000077.jpg': (77, (120, 160), [(70, 40, 60), (84, 110, 66)]), '000000000110.jpg': (110, (160, 120), [(100, 60, 80)]),
              '000000000113.jpg': (113, (120, 160), [(60, 50, 62), (48, 120, 70)])},
    'val': {'000000000036.jpg': (36, (120, 160), [(80, 40, 60), (76, 112, 64)]), '000000000086.jpg': (86, (160, 120), [(110, 60, 84)]),
            '000000000139.jpg': (139, (120, 200), [(70, 36, 60), (88, 100, 66), (40, 170, 60)]), '000000000192.jpg': (192, (120, 160), [(90, 80, 66)]),
            '000000000257.jpg': (257, (260, 200), [(216, 100, 132)])}}
CROWD, STRANGER, TABLE = [10., 4., 44., 30.], [130., 6., 40., 48.], [4., 6., 50., 40.]      # boxes in 36, in 139, in 192


@pytest.fixture(scope='session')
def drawn(tmp_path_factory):
    "A folder in COCO's layout: 3 photographs with 5 people, 5 with 8, a crowd, and somebody without labelled joints."
    root, rng = tmp_path_factory.mktemp('drawn'), np.random.default_rng(3)
    (root/'annotations').mkdir()
    for split, photos in PHOTOS.items():
        (root/'images'/split).mkdir(parents=True)
        data = dict(info={}, licenses=[], images=[], annotations=[],
                    categories=[dict(id=1, name='person', supercategory='person', keypoints=list(COCO.joints), skeleton=[[16, 14]])])
        for name, (id, (h, w), people) in photos.items():
            image = np.full((h, w, 3), (92, 118, 88), np.uint8)
            data['images'].append(dict(id=id, file_name=name, height=h, width=w))
            for height, x, y in people:
                joints, lines = figure(rng, height, (x, y), (h, w))
                draw_figure(image, lines, height)
                (x0, y0), (x1, y1) = lines.min(0) - .04*height, lines.max(0) + .04*height
                box = [max(0., x0), max(0., y0), min(w, x1) - max(0., x0), min(h, y1) - max(0., y0)]
                data['annotations'].append(person(id, [round(float(b), 2) for b in box], joints.ravel().tolist(), .5*box[2]*box[3]))
            cv2.imwrite(str(root/'images'/split/name), image[..., ::-1])
        if split == 'val':
            data['annotations'] += [person(36, CROWD, [0]*51, 1300., iscrowd=1), person(139, STRANGER, [0]*51, 1900.)]
        for n, a in enumerate(data['annotations']): a['id'] = 900000000001 + n
        dump(root/f'annotations/person_keypoints_{split}.json', data)
    return root


def person(image_id, bbox, keypoints, area, **fields):
    "A row of `annotations`."
    return dict(image_id=image_id, category_id=1, bbox=bbox, area=round(area, 2), iscrowd=0, keypoints=keypoints,
                num_keypoints=sum(v > 0 for v in keypoints[2::3])) | fields


def dump(path, data, **how): Path(path).write_text(json.dumps(data, **how), encoding='utf-8')
def load(path): return json.loads(Path(path).read_text(encoding='utf-8-sig'))


@pytest.fixture
def folder(drawn, tmp_path):
    "A copy that the test may spoil."
    return Path(shutil.copytree(drawn, tmp_path/'people'))


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv('P2NET_CACHE', str(tmp_path/'cache'))
    monkeypatch.setenv('COLUMNS', '200')


def file_of(folder, split='val'): return folder/f'annotations/person_keypoints_{split}.json'


def change(folder, how, splits=('train', 'val')):
    "Rewrite annotation files by `how`, which changes the dictionary or returns another."
    for split in splits:
        data = load(file_of(folder, split))
        dump(file_of(folder, split), how(data) or data)


# ---- the numbers: ours, and pycocotools' by plain code

def pycocotools(truth, results, person=1, sigmas=COCO.sigmas, kind='keypoints'):
    "AP and AR of a results file by pycocotools alone, on a file of annotations."
    from pycocotools.coco import COCO as Coco
    from pycocotools.cocoeval import COCOeval
    with contextlib.redirect_stdout(io.StringIO()):
        gt = Coco(str(truth))
        evaluation = COCOeval(gt, gt.loadRes(str(results)), kind)
        evaluation.params.catIds = [person]
        if kind == 'keypoints': evaluation.params.kpt_oks_sigmas = np.array(sigmas)
        evaluation.evaluate(); evaluation.accumulate(); evaluation.summarize()
    where = dict(zip(NAMES, range(6))) if kind == 'keypoints' else dict(AP=0, AP50=1, AP75=2, AR=8)
    return {name: float(evaluation.stats[i]) for name, i in where.items() if evaluation.stats[i] > -1}


def same(ours, theirs, digits=4):
    "Whether the metrics that pycocotools gives are those that we give, to `digits`."
    ours = {name: ours.get(name) for name in theirs}
    assert theirs and all(ours[n] is not None and abs(ours[n] - theirs[n]) < .5*10**-digits for n in theirs), (ours, theirs)


LURES = {'036': CROWD, '139': STRANGER, '192': TABLE}   # the first person of these photographs is found there instead


def findings(pack, seed=5):
    "Joints for the people of a pack: with small and large errors, and three people found where a crowd, a stranger and a table are."
    rng, true = np.random.default_rng(seed), transform(pack.to_image, pack.joints)
    size = np.sqrt(pack.bbox[:, 2:].prod(1))[:, None, None]
    joints = true + rng.normal(size=true.shape)*size*np.resize([.01, .05, .025, .09], len(pack))[:, None, None]
    seen = set()
    for i, name in enumerate(pack.names):
        key = Path(name).stem[-3:]
        if key in LURES and key not in seen:
            x, y, w, h = LURES[key]
            joints[i] = np.array([x, y]) + rng.uniform(.2, .8, joints[i].shape)*[w, h]
        seen.add(key)
    scores = np.linspace(.9, .4, len(pack))[rng.permutation(len(pack)), None] + rng.uniform(0, .05, true.shape[:2])
    return Predictions(joints, scores.astype(np.float32), joints)


class Standing(nn.Module):
    "A network that sees somebody standing in every crop: heatmaps of the example pose, whatever the picture."
    def __init__(self, skeleton, size=SIZE):
        super().__init__()
        H, W = size
        joints = example_pose(skeleton)*.86*H/1.25 + [(W - 1)/2, .5*H]
        self.maps = render_heatmaps(torch.from_numpy(joints)[None], torch.full((1, len(joints)), 2), size, 1.)
    def forward(self, x): return self.maps.expand(len(x), -1, -1, -1)


def settings(folder): return DataConfig(source=str(folder), input_size=SIZE)


def results_in(people, path, found=None):
    "The results file of a pack, as `train` writes it."
    return write_results(file_results(results_of(people.val, findings(people.val) if found is None else found), people.val), path)


def check_numbers(folder, tmp_path, repair=None, person=1, sigmas=COCO.sigmas, split='val', user_file=None):
    """Train's and detected's AP and AR are pycocotools' on the user's file with our results file. `repair` mends a copy of the file by hand where
    pycocotools can't read it by itself. Returns what was said."""
    said, file = [], user_file or file_of(folder, split)
    before = file.read_bytes()
    people = load_people(settings(folder), progress=False, say=said.append)
    judge = file
    if repair:
        data = load(file)
        judge = tmp_path/'repaired.json'
        dump(judge, repair(data) or data)
    results = results_in(people, tmp_path/'results.json')
    theirs = pycocotools(judge, results, person, sigmas)
    assert 0 < theirs['AP'] < 1                                                 # a number that could differ
    same(measure(people.val, findings(people.val)), theirs)                     # what train reports
    same(keypoint_ap(file, load(results), sigmas), theirs)                      # the file itself, read again
    dump(tmp_path/'truth.json', file_truth(people.val))
    same(pycocotools(tmp_path/'truth.json', results, person, sigmas), theirs)   # the cleaned annotations that are written beside the results
    check_boxes_of_a_detector(folder, people, tmp_path, judge, person, sigmas)
    assert file.read_bytes() == before                                          # the user's file is only read
    return said


def check_boxes_of_a_detector(folder, people, tmp_path, judge, person, sigmas):
    "The same in boxes of a detection file, with the user's ids: annotated boxes, moved a little, and one on nobody."
    pack, rng, boxes = people.val, np.random.default_rng(7), tmp_path/'boxes.json'
    bbox = pack.bbox + rng.normal(0, .04, pack.bbox.shape)*np.tile(pack.bbox[:, 2:], 2)
    rows = [dict(image_id=int(i), category_id=1, bbox=b.tolist(), score=float(s)) for i, b, s in zip(pack.image_id, bbox, rng.uniform(.3, .9, len(bbox)))]
    rows.append(rows[0] | dict(bbox=[2., 2., 30., 40.], score=.35))
    dump(boxes, pack.annotations.with_file_ids(rows))
    found = find_people(folder)
    there = pack_people(found.val(detections=boxes), found.skeleton, settings(folder), progress=False)
    if len(found.skeleton) != 17: return
    metrics, poses = measure_boxes(Standing(found.skeleton), there, EvaluationConfig(flip=False))
    theirs = pycocotools(judge, write_results(file_results(poses, there), tmp_path/'poses.json'), person, sigmas)
    same(metrics, theirs)
    assert boxes_summary(boxes, there)['AP'] > .2
    return theirs


def refused(folder, *splits):
    "The one line that the readers refuse a folder with."
    with pytest.raises(InputError) as told:
        found = find_people(folder)
        for split in splits or ('train', 'val'): getattr(found, split)()
    line = str(told.value)
    assert '\n' not in line and len(line) < 400, line
    return line


def situation(has, sees, theme=None): return pytest.mark.situation(has, sees, **({'theme': theme} if theme else {}))
def every(**fields): return lambda d: [a.update(fields) for a in d['annotations']] and None
def drop(field): return lambda d: [a.pop(field, None) for a in d['annotations']] and None
def row(n=0, **fields): return lambda d: d['annotations'][n].update(fields)


# ---- annotation files that can be used

def good(name, has, sees, how, repair=None, says=(), person=1, fault=None):
    "A case: what is done to both files, what pycocotools needs to read the result, words of what is said, and of what the doctor calls a fault."
    return pytest.param(how, repair, says, person, fault, marks=situation(has, sees), id=name)


SAME = 'AP and AR as pycocotools gives them for the file'


def with_table(**fields):
    "An object of another category in photograph 192, and its category."
    def how(d):
        d['categories'].append(dict(id=2, name='dining table', supercategory='furniture'))
        if 192 in {i['id'] for i in d['images']}: d['annotations'].append(dict(id=990000000000, image_id=192, category_id=2, bbox=TABLE, area=2000., iscrowd=0) | fields)
    return how


def two_kinds(d):
    "A second category with joints, of dogs, whose rows lie where somebody is found."
    d['categories'].insert(0, dict(id=2, name='dog', keypoints=list(COCO.joints)))
    d['annotations'].append(person(d['images'][0]['id'], [2, 2, 60, 60], [9., 9, 2]*17, 900., category_id=2, id=990000000000))


def category(id):
    def how(d):
        d['categories'][0]['id'] = id
        every(category_id=id)(d)
    return how


def ids(rule):
    def how(d):
        seen = {}
        for n, a in enumerate(d['annotations']):
            seen[a['image_id']] = seen.get(a['image_id'], 0) + 1
            a['id'] = rule(n, seen[a['image_id']])
    return how


def no_ids(d): drop('id')(d)
def number_ids(d):
    for n, a in enumerate(d['annotations'], 1): a['id'] = n


def areas(value):
    "Areas as `value` makes them of the true ones."
    def how(d):
        for n, a in enumerate(d['annotations']):
            v = value(n, a['area'])
            if v is None: del a['area']
            else: a['area'] = v
    return how


def areas_from_boxes(d):
    "The stated rule, by hand: 0.53 of the box where the area is missing, no number or not above 0."
    for a in d['annotations']:
        try: area = float(a.get('area'))
        except (TypeError, ValueError): area = math.nan
        if not (math.isfinite(area) and area > 0): area = .53*a['bbox'][2]*a['bbox'][3]
        a['area'] = area


def as_texts(*fields):
    def text(v): return [text(x) for x in v] if isinstance(v, list) else str(v)
    return lambda d: [a.update({f: text(a[f]) for f in fields}) for a in d['annotations']] and None


def as_numbers(*fields):
    def number(v): return [number(x) for x in v] if isinstance(v, list) else float(v)
    return lambda d: [a.update({f: number(a[f]) for f in fields}) for a in d['annotations']] and None


def count_joints(d):
    for a in d['annotations']: a['num_keypoints'] = sum(v > 0 for v in a['keypoints'][2::3])


def joints_of_nobody(value):
    "The keypoints of those in whom nothing is labelled."
    def how(d):
        for a in d['annotations']:
            if not any(a['keypoints']):
                if value is ...: del a['keypoints']
                else: a['keypoints'] = value
        if value is ...: d['annotations'].insert(0, d['annotations'].pop())     # the first row of the file is one without keypoints
    return how


def zeros_of_nobody(d):
    for a in d['annotations']: a['keypoints'] = a.get('keypoints') or [0]*51


def unlabelled_as(x, y, v):
    def how(d):
        for a in d['annotations']:
            flat = a['keypoints']
            for j in range(17):
                if not flat[3*j + 2]: flat[3*j:3*j + 3] = [x, y, v]
    return how


def unlabelled_zero(d):
    for a in d['annotations']:
        a['keypoints'] = [0 if v is None or v != v else v for v in a['keypoints']]


def nested(d):
    for a in d['annotations']: a['keypoints'] = [a['keypoints'][i:i + 3] for i in range(0, 51, 3)]


def flat(d):
    for a in d['annotations']: a['keypoints'] = [v for joint in a['keypoints'] for v in joint]


def no_box_of(n):
    def how(d):
        if len(d['images']) == 5: del d['annotations'][n]['bbox']
    return how


def box_of_nothing(d):
    for a in d['annotations']: a.setdefault('bbox', [0, 0, 0, 0])


def without_boxless(d): d['annotations'] = [a for a in d['annotations'] if 'bbox' in a]


def image_ids(rule, rows=None):
    def how(d):
        for i in d['images']: i['id'] = rule(i['id'])
        for a in d['annotations']: a['image_id'] = (rows or rule)(a['image_id'])
    return how


def whole_image_ids(d): image_ids(int)(d)


def crowd_as(**fields):
    def how(d):
        for a in d['annotations']:
            if a['iscrowd']: a.update(fields)
    return how


def box_of(n, bbox):
    "Another box of person n of the val file."
    def how(d):
        if len(d['images']) == 5: d['annotations'][n]['bbox'] = bbox
    return how


READABLE = [
    good('objects', 'a file that also lists objects of another category, without joints', f'{SAME}; "left out: … annotation of another category"',
         with_table(), None, ['left out: 1 x annotation of another category']),
    good('objects-with-zeros', 'the same, with keypoints of zeros in the objects', 'the objects excuse no false finding: AP as without them',
         with_table(num_keypoints=0, keypoints=[0]*51), None, ['annotation of another category']),
    good('two-kinds', 'two categories with keypoints, one of them named person', 'the one named person is used; the dogs are left out, counted',
         two_kinds, None, ['left out: 1 x annotation of another category']),
    good('category-0', 'a person category with id 0', SAME, category(0), None, [], 0),
    good('category-3', 'a person category with id 3', f'{SAME}; results are written with category 3', category(3), None, [], 3),
    good('category-text', "category ids written as text in the annotations ('1')", f'{SAME}; noted', every(category_id='1'), every(category_id=1),
         ['category_id and the id in categories of different types']),
    good('category-missing', 'annotations without category_id', 'they are taken as people, counted', drop('category_id'), every(category_id=1),
         ['category_id missing, taken as a person']),
    good('no-categories', 'a file without categories', 'all annotations are people, in COCO\'s order of the joints; said',
         lambda d: d.update(categories=[]), lambda d: d.update(categories=[dict(id=1, name='person')]), ['no categories, all annotations taken as people']),
    good('no-names', 'a category without the names of its joints', "the joints are taken in the skeleton's order; said",
         lambda d: d['categories'][0].pop('keypoints') and None, None, ['without names of joints']),
    good('ids-restart', 'annotation ids that start again in each picture', 'renumbered; no crowd is lost, AP as in the file with ids of its own',
         ids(lambda n, m: m), number_ids, ['renumbered']),
    good('ids-absent', 'annotations without ids', 'renumbered; no crowd is lost', no_ids, number_ids, ['renumbered']),
    good('ids-from-0', 'annotation ids that begin at 0', 'renumbered from 1 (pycocotools takes the one with id 0 for not found)',
         ids(lambda n, m: n), number_ids, ['renumbered']),
    good('ids-texts', "annotation ids that are texts ('a7')", 'renumbered', ids(lambda n, m: f'a{n}'), number_ids, ['renumbered']),
    good('no-area', 'annotations without area', 'completed as 0.53 of the box, counted', areas(lambda n, a: None), areas_from_boxes, ['0.53 of the box']),
    good('area-nan', 'an area of NaN', 'completed as 0.53 of the box, counted (pycocotools gives AP 1)', areas(lambda n, a: math.nan if n % 2 else a),
         areas_from_boxes, ['0.53 of the box']),
    good('area-0', 'an area of 0, or a negative one', 'completed as 0.53 of the box, counted', areas(lambda n, a: (0, -3., a)[n % 3]), areas_from_boxes,
         ['0.53 of the box']),
    good('area-text', "an area written as text ('3726.0')", 'read as the number', as_texts('area'), as_numbers('area'), ['numbers written as text']),
    good('area-words', "an area that is a word ('large')", 'completed as 0.53 of the box, counted', areas(lambda n, a: 'large'), areas_from_boxes, ['0.53 of the box']),
    good('no-iscrowd', 'annotations without iscrowd', 'taken as 0, counted', lambda d: without_crowd(d) or drop('iscrowd')(d), every(iscrowd=0),
         ['iscrowd missing, taken as 0']),
    good('iscrowd-text', "iscrowd written as text ('0', '1')", "read as the number (to pycocotools the text '0' is true)", as_texts('iscrowd'),
         lambda d: [a.update(iscrowd=int(a['iscrowd'])) for a in d['annotations']] and None, ['numbers written as text']),
    good('iscrowd-bool', 'iscrowd written as true and false', SAME, lambda d: [a.update(iscrowd=bool(a['iscrowd'])) for a in d['annotations']] and None),
    good('crowd-rle', 'crowds with RLE masks and labelled joints', f'{SAME}; they are left out, counted; the doctor asks whether they are crowds',
         crowd_as(segmentation=dict(counts='abc', size=[120, 160]), num_keypoints=3, keypoints=[12., 9, 2, 20, 12, 2, 30, 20, 2] + [0]*42), None,
         ['left out: 1 x crowd']),
    good('crowd-odd-joints', 'a crowd whose keypoints have another length', f'{SAME}; nobody asks for its joints', crowd_as(keypoints=[0]*6), crowd_as(keypoints=[0]*51)),
    good('no-num_keypoints', 'annotations without num_keypoints', 'counted from the joints', drop('num_keypoints'), count_joints, ['num_keypoints missing, counted']),
    good('some-num_keypoints', 'some annotations without num_keypoints', 'counted from the joints', lambda d: d['annotations'][0].pop('num_keypoints') and None,
         count_joints, ['num_keypoints missing, counted']),
    good('num_keypoints-text', "num_keypoints written as text", 'read as the number, noted', as_texts('num_keypoints'), count_joints,
         ['numbers written as text']),
    good('num_keypoints-0', 'num_keypoints 0 where joints are labelled', f'{SAME}: they are ignored; said', row(2, num_keypoints=0), None,
         ['num_keypoints that contradicts the joints'], fault='num_keypoints that contradicts'),
    good('num_keypoints-too-many', 'num_keypoints above 0 where no joint is labelled', f'{SAME}: they count as missed; said',
         lambda d: d['annotations'][-1].update(num_keypoints=4, keypoints=[0]*51) if len(d['images']) == 5 else None, None,
         ['num_keypoints that contradicts the joints'], fault='num_keypoints that contradicts'),
    good('keypoints-nested', 'keypoints as a list (x, y, v) for each joint', 'taken in their order, counted', nested, flat, ['keypoints in a list for each joint']),
    good('keypoints-null', 'keypoints null in people without labels', f'{SAME}; the person is left out of training, counted', joints_of_nobody(None), zeros_of_nobody,
         ['no labelled joint']),
    good('keypoints-empty', 'keypoints [] in people without labels', SAME, joints_of_nobody([]), zeros_of_nobody, ['no labelled joint']),
    good('keypoints-missing', 'a first annotation without keypoints', f'{SAME} ("17 sigmas for annotations of 0 joints" before)', joints_of_nobody(...), zeros_of_nobody,
         ['no labelled joint']),
    good('keypoints-texts', 'keypoints written as text', 'read as the numbers, counted', as_texts('keypoints'), as_numbers('keypoints'), ['numbers written as text']),
    good('joint-null', 'unlabelled joints written as null, null, 0', 'taken as not labelled, counted', unlabelled_as(None, None, 0), unlabelled_zero,
         ['joints that are not numbers, taken as not labelled']),
    good('joint-nan', 'unlabelled joints written as NaN', 'taken as not labelled, counted', unlabelled_as(math.nan, math.nan, math.nan), unlabelled_zero,
         ['joints that are not numbers, taken as not labelled']),
    good('joint-left-over', 'unlabelled joints (v = 0) that keep an x and y', SAME, unlabelled_as(7, 9, 0)),
    good('bbox-texts', 'boxes written as text', 'read as the numbers, counted', as_texts('bbox'), as_numbers('bbox'), ['numbers written as text']),
    good('bbox-texts-no-area', 'boxes written as text, no area', 'both are completed', lambda d: as_texts('bbox')(d) or areas(lambda n, a: None)(d),
         lambda d: as_numbers('bbox')(d) or areas_from_boxes(d), ['numbers written as text', '0.53 of the box']),
    good('no-bbox', 'a person with joints and without a box', f'{SAME}: nobody looks for that person, who counts as missed; said', no_box_of(2), box_of_nothing,
         ['left out: 1 x no box'], fault='no box'),
    good('no-bbox-bystander', 'somebody without labelled joints and without a box', 'left out, counted; excuses no finding', no_box_of(-1), without_boxless,
         ['left out: 1 x no labelled joint']),
    good('score-null', 'a score of null in the annotations', SAME, every(score=None)),
    good('score-text', "a score written as text", 'read as the number', every(score='0.9'), None, ['numbers written as text']),
    good('no-height', 'images without height', 'taken from the photograph, counted', lambda d: [i.pop('height') for i in d['images']] and None, None,
         ['height or width missing, taken from the photograph']),
    good('null-height', 'images with height null', 'taken from the photograph, counted', lambda d: [i.update(height=None) for i in d['images']] and None, None,
         ['height or width missing, taken from the photograph']),
    good('text-height', "images with a height written as text ('120')", 'read as the number', lambda d: [i.update(height=str(i['height'])) for i in d['images']] and None, None,
         ['numbers written as text']),
    good('image-ids-texts', "image ids that are texts ('frame_36')", f'{SAME}; results have the same ids', image_ids(lambda i: f'frame_{i}'), None, ['renumbered']),
    good('image-ids-floats', 'image ids written as 36.0', SAME, image_ids(float)),
    good('image-ids-negative', 'negative image ids', SAME, image_ids(lambda i: -i)),
    good('image-ids-mixed', "image_id '36' in annotations, id 36 in images", 'matched, counted', image_ids(lambda i: i, str), whole_image_ids,
         ['of different types, matched']),
    good('image-twice', 'an image that is listed twice', 'taken once, counted', lambda d: d['images'].append(dict(d['images'][0])), None, ['images listed twice, taken once']),
    good('empty-images', 'images on which nobody is annotated', SAME, lambda d: d['images'].append(dict(id=5, file_name='none.jpg', height=50, width=60))),
    good('box-zero', 'a box without width', f'{SAME}: that person counts as missed; left out with the reason', box_of(2, [30., 30., 0., 60.]), None,
         ['left out: 1 x box without width or height'], fault='without width or height'),
    good('box-negative', 'a box of negative width and height', f'{SAME}; left out with the reason', box_of(2, [90., 140., -60., -110.]), None,
         ['left out: 1 x box without width or height'], fault='without width or height'),
    good('box-off', 'a box that lies outside the photograph', f'{SAME}; left out with the reason', box_of(2, [5000., 30., 60., 90.]), None,
         ['left out: 1 x box outside the photograph'], fault='outside the photograph'),
    good('box-over-edge', "a box that reaches over the photograph's edge", SAME, box_of(2, [-20., -10., 160., 180.])),
    good('joints-swapped', 'keypoints written as y, x', 'AP as in the file; the doctor names joints off their boxes',
         lambda d: [a['keypoints'].__setitem__(slice(3*j, 3*j + 2), a['keypoints'][3*j:3*j + 2][::-1]) for a in d['annotations'] for j in range(17)] and None, fault='none of whose joints is in the box'),
]


def without_crowd(d): d['annotations'] = [a for a in d['annotations'] if not a['iscrowd']]


@pytest.mark.parametrize('how, repair, says, person, fault', READABLE)
def test_a_file_that_can_be_used(folder, tmp_path, how, repair, says, person, fault):
    change(folder, how)
    said = check_numbers(folder, tmp_path, repair, person)
    for words in says: assert any(words in line for line in said), (words, said)
    if not says: assert all('annotation' not in line or 'crowd' in line or 'labelled' in line for line in said), said
    found = examine(folder)
    assert exit_code(found) == bool(fault) and (not fault or any(fault in str(line) for line in found)), [*map(str, found)]


@situation('a clean file of COCO', f'{SAME}; crowds and people without labels are left out, counted, and nothing else is said')
def test_a_clean_file(folder, tmp_path):
    assert check_numbers(folder, tmp_path) == ['val: 8 people; 2 rows left out', *(f'val: left out: 1 x {reason} (first: {file_of(folder)}: annotation {id})' for reason, id in
                                               (('crowd', 900000000009), ('no labelled joint', 900000000010)))]


# ---- annotation files that can't be used: one line

def bad(name, has, how, says, raw=None):
    "A case: what is done to the val file, and what the line says behind the file's name."
    return pytest.param(how, says, marks=situation(has, f'one line: `FILE: {says}`'), id=name)


def joint(n, j, *values): return lambda d: d['annotations'][n]['keypoints'].__setitem__(slice(3*j, 3*j + len(values)), values)
def image(n=1, **fields): return lambda d: d['images'][n].update(fields)
def no_image_field(name): return lambda d: d['images'][1].pop(name) and None


REFUSED = [
    bad('no-file_name', 'an image without file_name', no_image_field('file_name'), 'image 86: file_name is missing; name the file of the photograph'),
    bad('file_name-number', 'a file_name that is a number', image(file_name=36), 'image 86: file_name is 36; name the file of the photograph'),
    bad('no-image-id', 'an image without id', no_image_field('id'), 'images[1]: id is missing; give each image a number of its own'),
    bad('image-id-twice', 'two photographs with one id', image(id=36), "images[1]: id 36 is also that of '000000000036.jpg'; give each image its own id"),
    bad('image-id-list', 'an image id that is a list', image(id=[86]), 'images[1]: id is [86]; give each image a number of its own'),
    bad('images-dict', 'images as a dictionary of id to image', lambda d: d.update(images={str(i['id']): i for i in d['images']}),
        "this is not a COCO annotation file; it has no list 'images'; export as COCO keypoints"),
    bad('another-image', 'an annotation of an image that is not listed', row(2, image_id=77),
        "annotation 900000000003: image_id is 77, which is not in 'images'; list the image, or remove the annotation"),
    bad('no-image_id', 'an annotation without image_id', lambda d: d['annotations'][2].pop('image_id') and None,
        "annotation 900000000003: image_id is missing; give the id of an image in 'images'"),
    bad('other-category-id', 'people whose category_id is not that of the category', every(category_id=7),
        "none of its 10 annotations has the id 1 of category 'person'; give people this category_id"),
    bad('several-people', 'several categories with keypoints, none of them named person',
        lambda d: d.update(categories=[dict(id=n, name=name, keypoints=list(COCO.joints)) for n, name in ((1, 'walker'), (2, 'rider'))]),
        "categories: several may be people (1 'walker', 2 'rider'); name one of them 'person'"),
    bad('instances', "COCO's instances_*.json, which has no keypoints", drop('keypoints'),
        "no annotation has 'keypoints'; COCO's file of people is person_keypoints_*.json, not instances_*.json"),
    bad('results', 'a results file in the place of the annotations', lambda d: d['annotations'],
        "this is not a COCO annotation file; it has no list 'images'; export as COCO keypoints"),
    bad('iscrowd', 'an iscrowd that is neither 0 nor 1', row(2, iscrowd=3), 'annotation 900000000003: iscrowd is 3; write 1 for a crowd and 0 for a person'),
    bad('bbox-5', 'boxes of five numbers', row(2, bbox=[1, 2, 30, 40, .9]),
        'annotation 900000000003: bbox is [1, 2, 30, 40, 0.9]; write four numbers, x, y, width and height in pixels'),
    bad('bbox-dict', 'boxes as {x, y, width, height}', row(2, bbox=dict(x=1, y=2, width=30, height=40)),
        "annotation 900000000003: bbox is {'x': 1, 'y': 2, 'width': 30, 'height': 40}; write four numbers, x, y, width and height in pixels"),
    bad('bbox-word', 'a box that holds a word', row(2, bbox=[1, 2, 'wide', 40]),
        "annotation 900000000003: bbox is 'wide', which is not a number; write a finite number, or leave the field out"),
    bad('bbox-nan', 'a box that holds NaN', row(2, bbox=[1, 2, math.nan, 40]),
        'annotation 900000000003: bbox is nan, which is not a number; write a finite number, or leave the field out'),
    bad('bbox-shares', 'boxes as shares of the photograph, from 0 to 1', lambda d: [a.update(bbox=[v/300 for v in a['bbox']]) for a in d['annotations']] and None,
        'bbox of every row lies between 0 and 1; boxes are in pixels: multiply by width and height'),
    bad('bbox-corners', 'boxes as x1, y1, x2, y2', lambda d: [a.update(bbox=[*a['bbox'][:2], *np.add(a['bbox'][:2], a['bbox'][2:]).tolist()]) for a in d['annotations']] and None,
        'bbox reads as x1, y1, x2, y2 in most rows; write x, y, width, height'),
    bad('keypoints-16', 'keypoints of 16 joints under 17 names', lambda d: d['annotations'][2].update(keypoints=d['annotations'][2]['keypoints'][:48]),
        'annotation 900000000003: keypoints has 48 numbers, 17 joints need 51; write three numbers x, y, v for each joint'),
    bad('keypoints-word', 'keypoints that hold a word', joint(2, 4, 'left'), "annotation 900000000003: keypoints holds 'left', which is not a number; write three numbers x, y, v for each joint"),
    bad('keypoints-number', 'keypoints that are a number', row(2, keypoints=17), 'annotation 900000000003: keypoints is 17; write three numbers x, y, v for each joint'),
    bad('joint-nan', 'a labelled joint at NaN', joint(2, 4, math.nan, 30., 2),
        'annotation 900000000003: keypoints: joint 4 has v = 2, but its x or y is not a number; write 0, 0, 0 for a joint that is not labelled'),
    bad('visibility', 'a visibility of 3', joint(2, 4, 30, 30, 3), 'annotation 900000000003: keypoints has a visibility of 3; write 0 not labelled, 1 hidden, 2 visible'),
    bad('confidences', 'pseudo-labels with confidences as visibility', joint(2, 4, 30, 30, .87),
        'annotation 900000000003: keypoints has a visibility of 0.87; are these confidences? write 2 for the joints to be used, else 0'),
    bad('score-word', 'a score that is a word', row(2, score='high'), "annotation 900000000003: score is 'high', which is not a number; write a finite number, or leave the field out"),
    bad('names', 'joints under names of their own, without a skeleton.yaml', lambda d: d['categories'][0]['keypoints'].__setitem__(3, 'left_horn'),
        "its joints are not those of skeleton 'coco17' (first difference: 'left_horn'); write a skeleton.yaml with the names of categories[0].keypoints in their order"),
    bad('annotation-text', 'a text among the annotations', lambda d: d['annotations'].insert(0, 'todo'), "annotations[0]: is 'todo', expected an annotation"),
]


@pytest.mark.parametrize('how, says', REFUSED)
def test_a_file_that_cannot_be_used(folder, how, says):
    change(folder, how, ['val'])
    assert refused(folder) == f'{file_of(folder)}: {says}'
    found = examine(folder)                                                     # the doctor says the same, and goes on
    assert exit_code(found) == 1 and any(says.rpartition('; ')[0] in str(line) for line in found) or ';' not in says, [*map(str, found)]


TEXTS = [
    pytest.param(lambda text: text[:700].encode(), r'not readable as JSON: .+ line 1 column \d+ \(char \d+\)', id='cut',
                 marks=situation('an annotation file that is cut', 'one line: the file, and line and column where it stops being JSON')),
    pytest.param(lambda text: b'', 'not readable as JSON: this is an empty file; download it again', id='empty',
                 marks=situation('an empty annotation file', 'one line: `FILE: not readable as JSON: this is an empty file; download it again`')),
    pytest.param(lambda text: b'version https://git-lfs.github.com/spec/v1\n', 'not readable as JSON: this is a Git LFS pointer, .+', id='lfs',
                 marks=situation('a pointer of git-lfs in the place of an annotation file', 'one line: it is a pointer, not the file; run `git lfs pull`')),
    pytest.param(lambda text: text.replace('person', 'Personne âgée').encode('latin-1'), 'byte \\d+ is not UTF-8; save the file as UTF-8', id='latin-1',
                 marks=situation('an annotation file in Latin-1', 'one line: the file, the byte that is not UTF-8; save the file as UTF-8')),
    pytest.param(lambda text: text.encode('utf-16'), 'byte 0 is not UTF-8; save the file as UTF-8', id='utf-16',
                 marks=situation('an annotation file in UTF-16, as PowerShell writes it', 'one line: `FILE: byte 0 is not UTF-8; save the file as UTF-8`'))]


@pytest.mark.parametrize('how, says', TEXTS)
def test_a_file_that_is_no_json(folder, how, says):
    file = file_of(folder)
    file.write_bytes(how(json.dumps(load(file), ensure_ascii=False)))
    assert re.fullmatch(re.escape(f'{file}: ') + says, refused(folder))


@situation('an annotation file with a byte-order mark', SAME)
def test_a_byte_order_mark(folder, tmp_path):
    for split in ('train', 'val'): file_of(folder, split).write_bytes(b'\xef\xbb\xbf' + file_of(folder, split).read_bytes())
    assert file_of(folder).read_bytes().startswith(b'\xef\xbb\xbf')
    check_numbers(folder, tmp_path, repair=lambda d: d)                         # pycocotools: "Unexpected UTF-8 BOM"


@situation('accents in the files, on a system whose text encoding is not UTF-8', 'the same people and the same AP as elsewhere')
def test_a_system_with_another_encoding(folder, tmp_path):
    "In a process of its own, where open() decodes ASCII unless it is told otherwise."
    for split in ('train', 'val'):
        change(folder, lambda d: d['categories'][0].update(supercategory='Fußgänger'), [split])
        dump(file_of(folder, split), load(file_of(folder, split)), ensure_ascii=False)
    (folder/'skeleton.yaml').write_text(f"name: Fußgänger\njoints: [{', '.join(COCO.joints)}]\n", encoding='utf-8')
    people = load_people(settings(folder), progress=False, say=lambda line: None)
    results = results_in(people, tmp_path/'results.json')
    code = ("import locale, sys; assert 'UTF' not in locale.getpreferredencoding().upper()\n"
            "from p2net.evaluation.average_precision import keypoint_ap; from p2net.people.folder import find_people; import json\n"
            "found = find_people(sys.argv[1]); ap = keypoint_ap(found.annotations['val'], json.load(open(sys.argv[2])))['AP']\n"
            "print(ascii(found.skeleton.name), len(found.val()), ap)")
    done = subprocess.run([sys.executable, '-c', code, str(folder), str(results)], capture_output=True, text=True, encoding='utf-8',
                          env={**os.environ, 'LC_ALL': 'C', 'PYTHONUTF8': '0', 'PYTHONCOERCECLOCALE': '0'})
    assert done.returncode == 0 and done.stdout == f"{ascii('Fußgänger')} 8 {pycocotools(file_of(folder), results)['AP']}\n", (done.stdout, done.stderr[-2000:])


# ---- detection files

def detected(folder, rows, tmp_path):
    "People of the boxes of a detection file, and what was said of them."
    file = tmp_path/'boxes.json'
    dump(file, rows)
    return find_people(folder).val(detections=file)


def found_rows(folder):
    "A detector's rows: the annotated people of the val file, as COCO has them."
    people = [a for a in load(file_of(folder))['annotations'] if any(a['keypoints'])]
    return [dict(image_id=a['image_id'], category_id=1, bbox=a['bbox'], score=.9 - .05*n) for n, a in enumerate(people)]


def each(**fields): return lambda rows: [r.update({k: v(r[k]) if callable(v) else v for k, v in fields.items()}) for r in rows] and None


def takes(name, has, sees, how, says=()): return pytest.param(how, says, marks=situation(has, sees, 'Detection files'), id=name)


ALL_BOXES = 'all boxes are used'
TAKEN = [
    takes('good', "a detector's file in COCO's layout", ALL_BOXES, lambda rows: None),
    takes('score-text', 'scores written as text', f'{ALL_BOXES}; said', each(score=str), ['numbers written as text']),
    takes('bbox-text', 'boxes written as text', f'{ALL_BOXES}; said', each(bbox=lambda b: [str(v) for v in b]), ['numbers written as text']),
    takes('image_id-text', "image_id written as text ('36')", ALL_BOXES, each(image_id=str)),
    takes('image_id-zeros', "image_id as the file's number with zeros ('000000000036')", ALL_BOXES, each(image_id='{:012d}'.format)),
    takes('image_id-float', 'image_id written as 36.0', ALL_BOXES, each(image_id=float)),
    takes('image_id-name', 'the file name as image_id', ALL_BOXES, each(image_id='{:012d}.jpg'.format)),
    takes('file_name', 'file_name in the place of image_id', ALL_BOXES, lambda rows: [r.update(file_name=f"{r.pop('image_id'):012d}.jpg") for r in rows] and None),
    takes('no-category', 'rows without category_id', ALL_BOXES, lambda rows: [r.pop('category_id') for r in rows] and None),
    takes('category-0', 'a detector whose person is category 0', f'{ALL_BOXES}; said', each(category_id=0), ['category_id 0 taken as a person']),
    takes('category-name', "category_id 'person'", ALL_BOXES, each(category_id='person')),
    takes('category-others', 'rows of other categories besides people', 'they are left out, counted', lambda rows: rows + [r | dict(category_id=17) for r in rows[:3]],
          ['3 x box of another category']),
    takes('wrapped', 'the rows as "annotations" of a dictionary', ALL_BOXES, lambda rows: dict(images=[], annotations=rows)),
    takes('wrapped-categories', 'a dictionary with categories of its own, in which people have another number than in the annotations',
          'the numbers of the file count; other categories are left out, counted',
          lambda rows: dict(categories=[dict(id=1, name='chair'), dict(id=9, name='person')],
                            annotations=[r | dict(category_id=9) for r in rows] + [rows[0] | dict(category_id=1)]), ['1 x box of another category']),
    takes('other-images', 'some boxes on photographs that are not annotated', 'they are left out, counted', lambda rows: rows + [r | dict(image_id=5) for r in rows[:2]],
          ['2 x box on an image that is not in the annotations']),
    takes('box-empty', 'boxes without width, or outside the photograph', 'they are left out with the reason, counted',
          lambda rows: rows + [rows[0] | dict(bbox=[5, 5, 0, 20]), rows[0] | dict(bbox=[900, 5, 20, 20])], ['1 x box without width or height', '1 x box outside the photograph']),
]


@pytest.mark.parametrize('how, says', TAKEN)
def test_detections_that_can_be_used(folder, tmp_path, how, says):
    wanted = found_rows(folder)
    rows = copy.deepcopy(wanted)
    people = detected(folder, how(rows) or rows, tmp_path)
    assert [(p.image_id, p.score) for p in people] == [(r['image_id'], pytest.approx(r['score'])) for r in wanted]
    sizes = {id: size for id, size, _ in PHOTOS['val'].values()}
    for p, r in zip(people, wanted): assert np.allclose(p.bbox, r['bbox'], atol=.011), (sizes[p.image_id], p.bbox, r['bbox'])
    lines = people.left_out.lines() + people.corrected.lines()
    for words in says: assert any(words in line for line in lines), lines
    assert len(lines) == len(says), lines


def wrong(name, has, how, says): return pytest.param(how, says, marks=situation(has, f'one line: `FILE: {says}`', 'Detection files'), id=name)


LIST = 'a detection file is a list of {image_id, category_id, bbox, score}'
NEEDS = 'every row needs image_id, category_id, bbox and score'
WRONG = [
    wrong('empty', 'an empty list of detections', lambda rows: [], 'contains no boxes; run the detector again, or leave out --boxes'),
    wrong('image_id-list', 'image_id as a list ([36])', each(image_id=lambda i: [i]), "row 0: image_id is [36]; write the image's id, one number"),
    wrong('no-image_id', 'rows without image_id', lambda rows: [r.pop('image_id') for r in rows] and None, f'row 0: image_id is missing; {NEEDS}'),
    wrong('bbox-null', 'bbox null', each(bbox=None), f'row 0: bbox is missing; {NEEDS}'),
    wrong('bbox-5', 'boxes of five numbers, the score last', lambda rows: rows[3].update(bbox=[1, 2, 30, 40, .9]),
          'row 3: bbox is [1, 2, 30, 40, 0.9]; write four numbers, x, y, width and height in pixels'),
    wrong('bbox-corners', 'boxes as x1, y1, x2, y2', lambda rows: [dict(image_id=i, category_id=1, bbox=b, score=.9) for i, b in ((36, [90, 60, 150, 110]), (139, [120, 50, 190, 115]),
                                                                                                               (192, [70, 60, 140, 118]))],
          'bbox reads as x1, y1, x2, y2 in most rows; write x, y, width, height'),
    wrong('bbox-shares', 'boxes as shares of the photograph, from 0 to 1', each(bbox=lambda b: [v/300 for v in b]),
          'bbox of every row lies between 0 and 1; boxes are in pixels: multiply by width and height'),
    wrong('score-nan', 'a score of NaN', lambda rows: rows[2].update(score=math.nan), 'row 2: score is nan, which is not a number; write a finite number, or leave the field out'),
    wrong('score-word', 'a score that is a word', lambda rows: rows[2].update(score='high'), "row 2: score is 'high', which is not a number; write a finite number, or leave the field out"),
    wrong('no-score', 'rows without score', lambda rows: [r.pop('score') for r in rows] and None, f'row 0: score is missing; {NEEDS}'),
    wrong('by-file', 'a dictionary of boxes by file name', lambda rows: {'000000000036.jpg': [[1, 2, 30, 40, .9]]}, LIST),
    wrong('no-people', 'no row of the person category', each(category_id=17), 'no row has the person category: category_id is 17; people are 1 in the annotations'),
    wrong('row-text', 'a text among the rows', lambda rows: ['todo', *rows], "row 0: is 'todo', expected {image_id, category_id, bbox, score}"),
]


@pytest.mark.parametrize('how, says', WRONG)
def test_detections_that_cannot_be_used(folder, tmp_path, how, says):
    rows = found_rows(folder)
    changed = how(rows)
    if changed is not None: rows = changed
    with pytest.raises(InputError) as told: detected(folder, rows, tmp_path)
    assert str(told.value) == f"{tmp_path/'boxes.json'}: {says}"


@situation('detections of other photographs than the annotated ones', 'one line: `FILE: none of its 8 boxes is on an image of ANNOTATIONS; give the detections of these images`', 'Detection files')
def test_detections_of_other_photographs(folder, tmp_path):
    with pytest.raises(InputError) as told: detected(folder, [r | dict(image_id=r['image_id'] + 1000) for r in found_rows(folder)], tmp_path)
    assert str(told.value) == f"{tmp_path/'boxes.json'}: none of its 8 boxes is on an image of {file_of(folder)}; give the detections of these images"


@situation('annotations with person category 3, detections with category 1 or 3', 'all boxes are used, AP as pycocotools gives it for the file (AP 0 before)', 'Detection files')
@pytest.mark.parametrize('truth, boxes', [(3, 1), (3, 3), (0, 0), (1, 0)])
def test_categories_of_annotations_and_detections(folder, tmp_path, truth, boxes):
    change(folder, category(truth))
    rows = [r | dict(category_id=boxes) for r in found_rows(folder)]
    people = detected(folder, rows, tmp_path)
    found = find_people(folder)
    pack = pack_people(people, found.skeleton, settings(folder), progress=False)
    metrics, poses = measure_boxes(Standing(COCO), pack, EvaluationConfig(flip=False))
    theirs = pycocotools(file_of(folder), write_results(file_results(poses, pack), tmp_path/'poses.json'), truth)
    same(metrics, theirs)
    assert theirs['AP50'] > .3
    assert box_ap(pack.annotations, [r | dict(category_id=truth) for r in rows])['AP'] == pytest.approx(boxes_summary(tmp_path/'boxes.json', pack)['AP'])


@situation('a text as id of the images, detections with the same texts', 'AP and AR as pycocotools gives them for the file', 'Detection files')
def test_texts_as_image_ids_of_detections(folder, tmp_path):
    change(folder, image_ids(lambda i: f'frame_{i}'))
    people = detected(folder, rows := found_rows(folder), tmp_path)
    assert len(people) == len(rows) == 8
    pack = pack_people(people, COCO, settings(folder), progress=False)
    metrics, poses = measure_boxes(Standing(COCO), pack, EvaluationConfig(flip=False))
    assert {r['image_id'] for r in file_results(poses, pack)} == {f'frame_{i}' for i in (36, 86, 139, 192, 257)}
    same(metrics, pycocotools(file_of(folder), write_results(file_results(poses, pack), tmp_path/'poses.json')))


# ---- folders

def move(source, target): target.parent.mkdir(parents=True, exist_ok=True); source.rename(target)


def rename_photos(folder, rule):
    "`file_name` of every image by `rule`, which takes the split and the name; the photographs stay."
    for split in ('train', 'val'):
        change(folder, lambda d: [i.update(file_name=rule(split, i['file_name'])) for i in d['images']] and None, [split])


def rename_files(folder, **names):
    "Annotation files under other names: split -> path below the folder."
    for split, name in names.items(): move(file_of(folder, split), folder/name)


def coco_year(year):
    def how(folder):
        for split in ('train', 'val'):
            move(folder/'images'/split, folder/f'{split}{year}')
            move(file_of(folder, split), folder/f'annotations/person_keypoints_{split}{year}.json')
            if year == 2014:
                change_file(folder/f'annotations/person_keypoints_{split}{year}.json', lambda d: [i.update(file_name=f"COCO_{split}2014_{i['file_name']}") for i in d['images']] and None)
                for photo in [*(folder/f'{split}{year}').iterdir()]: photo.rename(photo.with_name(f'COCO_{split}2014_{photo.name}'))
        for other in ('instances', 'captions'): dump(folder/f'annotations/{other}_val{year}.json', dict(images=[], annotations=[]))
    return how


def change_file(path, how): dump(path, (how(data := load(path)) or data))


def beside(folder):
    coco_year(2017)(folder)
    both = [load(folder/f'annotations/person_keypoints_{split}2017.json') for split in ('train', 'val')]
    dump(folder/'annotations/person_keypoints_trainval2017.json', both[0] | {k: both[0][k] + both[1][k] for k in ('images', 'annotations')})


def festival(folder): rename_files(folder, train='annotations/person_keypoints_festival_train.json', val='annotations/person_keypoints_festival_val.json')
def minival(folder): rename_files(folder, train='annotations/person_keypoints_trainvalminusminival2014.json', val='annotations/person_keypoints_minival2014.json')


def valid(folder):
    rename_files(folder, val='annotations/person_keypoints_valid.json')
    move(folder/'images/val', folder/'images/valid')


def roboflow(folder):
    for split, name in (('train', 'train'), ('val', 'valid')):
        for photo in [*(folder/'images'/split).iterdir()]: move(photo, folder/name/photo.name)
        move(file_of(folder, split), folder/name/'_annotations.coco.json')
    dump(folder/'README.dataset.txt', '')


def one_folder_inside(folder):
    coco_year(2017)(folder)
    for part in [*folder.iterdir()]: move(part, folder/'coco'/part.name)
    (folder/'__MACOSX').mkdir()


def mac_files(folder):
    for f in [*folder.rglob('*.json'), *folder.rglob('*.jpg')]: f.with_name(f'._{f.name}').write_bytes(b'\0\5\x16\7')


def flat_images(folder):
    for photo in [*folder.glob('images/*/*')]: move(photo, folder/'images'/photo.name)


def upper(folder): rename_photos(folder, lambda split, name: name.replace('.jpg', '.JPG'))


def layout(name, has, how, sees='train and val as the names say, every photograph is found'):
    return pytest.param(how, marks=situation(has, sees, 'Folders'), id=name)


LAYOUTS = [
    layout('coco-2017', "COCO's own layout: annotations/, train2017/, val2017/, with instances_*.json and captions_*.json", coco_year(2017)),
    layout('coco-2014', "COCO 2014's: train2014/, val2014/, COCO_val2014_*.jpg", coco_year(2014)),
    layout('minival', "person_keypoints_minival2014.json and trainvalminusminival2014.json", minival),
    layout('trainval-beside', 'person_keypoints_trainval2017.json beside train and val', beside,
           'val is the val file (before, trainval: 19 of 22 people were learnt from)'),
    layout('festival', "a set called 'festival': person_keypoints_festival_train.json, …_val.json", festival, "train is train: 'val' inside a word says nothing"),
    layout('valid', "'valid' in the place of 'val', files and folders", valid),
    layout('flat', 'all photographs in one folder images/', flat_images),
    layout('split-prefix', "the split's folder inside file_name (val/36.jpg)", lambda f: rename_photos(f, lambda split, name: f'{split}/{name}')),
    layout('images-split-prefix', 'images/val/36.jpg as file_name', lambda f: rename_photos(f, lambda split, name: f'images/{split}/{name}')),
    layout('backslash', r'backslashes in file_name (val\36.jpg)', lambda f: rename_photos(f, lambda split, name: f'{split}\\{name}')),
    layout('backslash-images', r'images\val\36.jpg as file_name', lambda f: rename_photos(f, lambda split, name: f'images\\{split}\\{name}')),
    layout('foreign-path', r'the path of another computer as file_name (C:\Users\me\val\36.jpg)', lambda f: rename_photos(f, lambda split, name: f'C:\\Users\\me\\{split}\\{name}')),
    layout('absolute-path', 'the path of another computer as file_name (/home/me/val/36.jpg)', lambda f: rename_photos(f, lambda split, name: f'/home/me/{split}/{name}')),
    layout('upper-ending', '.JPG in the file, .jpg on disk', upper),
    layout('url-escaped', 'names with %20 and its like', lambda f: rename_photos(f, lambda split, name: name.replace('0', '%30', 1))),
    layout('roboflow', "Roboflow's export: train/ and valid/, each with _annotations.coco.json", roboflow),
    layout('one-folder-inside', 'an archive that unpacks to one folder (and __MACOSX)', one_folder_inside),
    layout('mac', "._a.jpg and ._a.json, the side files of a Mac", mac_files),
]


def split_ids(folder):
    "Ids of the photographs with people, of train and of val; all of them must be there."
    found, ids = find_people(folder), {}
    for split in ('train', 'val'):
        people = getattr(found, split)()
        assert all(Path(p.image).is_file() for p in people), [p.image for p in people]
        ids[split] = sorted({p.image_id for p in people})
    return ids


@pytest.mark.parametrize('how', LAYOUTS)
def test_folders_that_are_recognised(folder, tmp_path, how):
    how(folder)
    assert split_ids(folder) == dict(train=[77, 110, 113], val=[36, 86, 139, 192, 257])
    check_numbers(folder, tmp_path, user_file=find_people(folder).annotations['val'])


ONE = 'its last tenth of photographs is held out; said'
SINGLE = [layout('cvat', "CVAT's export: annotations/person_keypoints_default.json, images/default/", lambda f: (move(f/'images/val', f/'images/default'), rename_files(f, val='annotations/person_keypoints_default.json')), ONE),
          layout('label-studio', "Label Studio's export: result.json and images/", lambda f: (flat_images(f), rename_files(f, val='result.json'),
                                                                                            rename_in(f/'result.json', lambda name: f'images/{name}')), ONE),
          layout('roboflow-whole', "Roboflow's export without a split: _annotations.coco.json among the photographs",
                 lambda f: (rename_files(f, val='_annotations.coco.json'), [move(p, f/p.name) for p in [*(f/'images/val').iterdir()]]), ONE)]


def rename_in(path, rule): change_file(path, lambda d: [i.update(file_name=rule(i['file_name'])) for i in d['images']] and None)


@pytest.mark.parametrize('how', SINGLE)
def test_one_file_for_both_splits(folder, how):
    file_of(folder, 'train').unlink()
    shutil.rmtree(folder/'images/train')
    how(folder)
    assert split_ids(folder) == dict(train=[36, 86, 139, 192], val=[257])
    assert any('the last tenth of its images is held out' in line for line in find_people(folder).val().corrected.lines())


@situation('one annotation file with one photograph', 'one line: two images are needed, to train on one and to validate on the other', 'Folders')
def test_one_file_with_one_photograph(folder):
    file_of(folder, 'train').unlink()
    rename_files(folder, val='annotations/person_keypoints_default.json')
    file = folder/'annotations/person_keypoints_default.json'
    change_file(file, lambda d: d.update(images=d['images'][:1], annotations=[a for a in d['annotations'] if a['image_id'] == 36]))
    assert refused(folder) == f'{file}: is the only annotation file and has one image; two images are needed, to train on one and to validate on the other'


def two(folder): shutil.copy(file_of(folder), folder/'annotations/person_keypoints_val2017.json')
def nameless(folder): rename_files(folder, train='annotations/person_keypoints_a.json', val='annotations/person_keypoints_b.json')


def no(name, has, how, says): return pytest.param(how, says, marks=situation(has, f'one line: `FOLDER: {says}`', 'Folders'), id=name)


@pytest.mark.parametrize('how, says', [
    no('two-files', 'two files that both say val', two, "two files are for the split 'val': annotations/person_keypoints_val.json and annotations/person_keypoints_val2017.json; move one of them away"),
    no('no-split', 'two files whose names do not say which split they are', nameless, 'the file names do not say which split they are: person_keypoints_a.json, person_keypoints_b.json; put train or val into each name'),
    no('empty', 'an empty folder', lambda f: shutil.rmtree(f) or f.mkdir(), 'no people found; looked for annotations/person_keypoints_*.json'),
    no('nowhere', 'the name of a folder that is not there', shutil.rmtree, 'there is no such folder'),
])
def test_folders_that_are_refused(folder, how, says):
    how(folder)
    assert refused(folder).startswith(f'{folder}: {says}')


@situation('a train file and no val file', 'one line that names the missing file, when it is asked for', 'Folders')
def test_a_split_that_is_missing(folder):
    file_of(folder).unlink()
    assert len(find_people(folder).train()) == 5
    assert refused(folder) == (f"{folder}: no annotation file has the word val or valid or validation or minival in its name; there is "
                               'annotations/person_keypoints_train.json')


@situation('a file in which nobody can be used', 'one line with the reasons and their counts', 'Annotation files')
def test_nobody_is_left(folder):
    change(folder, every(bbox=[5, 5, 0, 9]))
    with pytest.raises(InputError) as told: load_people(settings(folder), progress=False, say=lambda line: None)
    assert re.fullmatch(r'.*no person can be used for training or evaluation; left out: 5 x box without width or height \(first: .*annotation 900000000001\).*', str(told.value)), told.value


@situation('files with people who are left out or fields that are completed', 'the counts with their reasons on the console, and in the record under "data"', 'Checkpoints and records')
def test_what_was_left_out_stands_in_the_record(folder):
    change(folder, box_of(2, [5000., 30., 60., 90.]))
    change(folder, drop('iscrowd'), ['train'])
    people = load_people(settings(folder), progress=False, say=lambda line: None)
    data = people.describe()
    assert data['val']['people'] == 7 and data['val']['left_out'] == {'box outside the photograph': 1, 'crowd': 1, 'no labelled joint': 1}
    assert data['train']['people'] == 5 and data['train']['corrected'] == {'iscrowd missing, taken as 0': 5} and 'left_out' not in data['train']
    json.dumps(data)


@situation('a photograph that is missing', 'one line that names it', 'Photographs')
def test_a_missing_photograph(folder):
    (folder/'images/val/000000000139.jpg').unlink()
    with pytest.raises(InputError) as told: load_people(settings(folder), progress=False, say=lambda line: None)
    assert '000000000139.jpg' in str(told.value) and 'there is no such photograph' in str(told.value) and '\n' not in str(told.value)


@situation('two file names that lead to one photograph', 'one line that names both', 'Folders')
def test_two_names_for_one_photograph(folder):
    rename_photos(folder, lambda split, name: f"{'a' if '36' in name or '77' in name else 'b'}/1.jpg" if '36' in name or '86' in name else name)
    move(folder/'images/val/000000000036.jpg', folder/'images/val/1.jpg')
    assert "'a/1.jpg' and 'b/1.jpg' both match the photograph" in refused(folder)


# ---- the folders of ../shared/cases, where they are

REAL = {'01-other-category': 1, '02-category-id/both-1': 1, '02-category-id/gt0-dt0': 0, '02-category-id/gt1-dt0': 1, '02-category-id/gt3-dt1': 3,
        '02-category-id/gt3-dt3': 3, **{f'04-annotation-ids/{n}': 1 for n in ('absent', 'from-zero', 'restart')},
        **{f'09-paths/{n}': 1 for n in ('backslash-images', 'backslash-split', 'coco-2014', 'cpn-minival', 'festival', 'images-split-prefix', 'split-prefix',
                                        'trainval-beside', 'upper-ending', 'url-escaped', 'valid-folder')},
        **{f'11-missing-fields/{n}': 1 for n in ('bystander-without-bbox', 'categories-without-names', 'crowd-area-number', 'first-without-keypoints', 'keypoints-empty',
                                                 'keypoints-null', 'nested-keypoints', 'no-area', 'no-bbox-one', 'no-categories', 'no-category_id', 'no-height',
                                                 'no-iscrowd', 'no-num_keypoints', 'null-height', 'null-score', 'some-num_keypoints', 'text-area',
                                                 'text-bbox-no-area', 'text-bbox', 'text-height', 'text-iscrowd', 'text-score')},
        **{f'22-boxes/{n}': 1 for n in ('negative', 'off', 'rle', 'swapxy', 'zero')}, '23-poses-image-ids': 1}
REAL_REFUSED = {'11-missing-fields/images-dict': "it has no list 'images'", '11-missing-fields/no-file_name': 'file_name is missing',
                '11-missing-fields/no-image-id': 'id is missing', '22-boxes/dictbox': "annotation 900000000001: bbox is {'x': ", '22-boxes/five': 'annotation 900000000001: bbox is [',
                '22-boxes/normalised': 'lies between 0 and 1', '22-boxes/xyxy': 'reads as x1, y1, x2, y2'}
LARGE = (36, 86, 139, 192, 257, 322)                    # numbers of the photographs of 23, in its order


def real_case(name, to):
    "A copy of a case with its photographs in images/train and images/val."
    case, photos = sample(f'cases/{name}'), sample('data/coco-people/images')
    for f in case.glob('*.*'): shutil.copy(f, to)
    shutil.copytree(case/'annotations', to/'annotations')
    for f in (to/'annotations').iterdir():
        f.chmod(0o644)
        split = 'train' if 'train' in f.stem.replace('trainval2017', 'val') else 'val'
        place = to/f'{split}2014' if name.endswith('coco-2014') else to/'images'/split
        place.mkdir(parents=True, exist_ok=True)
        images = load(f)['images']
        for n, image in enumerate(images.values() if isinstance(images, dict) else images):
            number = re.search(r'(\d{12}|%3000000000\d+)\.jpe?g$', image.get('file_name', ''), re.I)
            stem = f'{LARGE[n]:012d}' if name.startswith('23') and split == 'val' else number[1].replace('%30', '0') if number else None
            if stem is None: continue
            there = image['file_name'].replace('\\', '/').rpartition('/')[2]
            shutil.copy(photos/f'{stem}.jpg', place/(there if 'COCO' in there or ' ' in there or name.startswith('23') else f'{stem}.jpg'))
    return to


def unreadable_by_pycocotools(d):
    "What pycocotools needs, completed by hand and with the stated rules."
    d['categories'] = d.get('categories') or [dict(id=1, name='person')]
    rows = [a for a in d['annotations'] if 'bbox' in a or any(v > 0 for v in (a.get('keypoints') or [])[2::3])]
    for n, a in enumerate(rows, 1):
        a['id'], a['iscrowd'] = n, int(a.get('iscrowd', 0))
        a.setdefault('category_id', 1)
        a['bbox'] = [float(v) for v in a.get('bbox', [0, 0, 0, 0])]
        flat = a.get('keypoints') or [0]*51
        a['keypoints'] = [v for joint in flat for v in joint] if isinstance(flat[0], list) else flat
        a.setdefault('num_keypoints', sum(v > 0 for v in a['keypoints'][2::3]))
        a['area'] = float(a['area']) if 'area' in a else .53*a['bbox'][2]*a['bbox'][3]
    d['annotations'] = rows


@pytest.mark.parametrize('name', REAL)
def test_real_cases(name, tmp_path):
    (tmp_path/'case').mkdir()
    folder = real_case(name, tmp_path/'case')
    file = find_people(folder).annotations['val']
    assert not {p.image_id for p in find_people(folder).train()} & {p.image_id for p in find_people(folder).val()}
    needs_help = name.startswith(('04', '11'))
    check_numbers(folder, tmp_path, unreadable_by_pycocotools if needs_help else None, REAL[name], user_file=file)


@pytest.mark.parametrize('name', REAL_REFUSED)
def test_real_cases_that_are_refused(name, tmp_path):
    (tmp_path/'case').mkdir()
    assert REAL_REFUSED[name] in refused(real_case(name, tmp_path/'case'))


def test_the_real_export_of_cvat(tmp_path):
    (tmp_path/'case').mkdir()
    folder = real_case('09-paths/cvat-default', tmp_path/'case')
    move(folder/'images/val', folder/'images/default')
    people = load_people(settings(folder), progress=False, say=lambda line: None)
    assert len(people.train) + len(people.val) == 19 and not {*people.train.images} & {*people.val.images}


REAL_BOXES = {'good': '', 'text-score': '', 'float-image-id': '', 'text-image-id': '', 'name-as-image-id': '', 'no-category': '', 'category-0': '', 'category-person': '', 'wrapped': '',
              'list-image-id': 'row 0: image_id is [36]', 'bbox-null': 'row 0: bbox is missing', 'bbox-of-5': 'row 0: bbox is [', 'empty': 'contains no boxes',
              'xyxy': 'bbox reads as x1, y1, x2, y2', 'xyxy-dict': 'a detection file is a list'}


@pytest.mark.parametrize('name', REAL_BOXES)
def test_real_detections(name, tmp_path):
    (tmp_path/'case').mkdir()
    folder, boxes = real_case('02-category-id/both-1', tmp_path/'case'), sample(f'cases/12-detections/{name}.json')
    load_boxes = lambda: find_people(folder).val(detections=boxes)
    if not REAL_BOXES[name]: assert len(load_boxes()) == 13 and all(p.score == .9 for p in load_boxes())
    else:
        with pytest.raises(InputError) as told: load_boxes()
        assert str(told.value).startswith(f'{boxes}: {REAL_BOXES[name]}')


# ---- through the command

TINY = [f'--set={s}' for s in ('training.steps=2', 'training.batch=2', 'training.checkpoint_every=2', 'training.validate_every=2', 'training.warmup_steps=0',
                               f'data.input_size=[{SIZE[0]},{SIZE[1]}]', 'network.width=8', 'network.base_channels=8', 'network.depth=18', 'evaluation.shifts=[]')]


def run(capsys, *words):
    "Exit code of a command, its lines on standard output and on standard error."
    code = main([*map(str, words)])
    told = capsys.readouterr()
    assert 'Traceback' not in told.out + told.err
    return code, told.out.splitlines(), told.err.splitlines()


def train(capsys, folder, *more): return run(capsys, 'train', 'hand-made', '--data', folder, '--out', folder.parent/'out', '--quiet', *TINY, *more)


def one_line(command, outcome):
    "The line of a command that ended because of its input."
    code, out, err = outcome
    assert code == 2, (code, out, err)
    lines = [line for line in err if line.startswith(f'p2net {command}: ')]
    assert len(lines) == 1 and err[-1] == lines[0], err
    return lines[0].removeprefix(f'p2net {command}: ')


BY_COMMAND = ['no-file_name', 'another-image', 'instances', 'several-people', 'bbox-5', 'bbox-shares', 'keypoints-16', 'joint-nan', 'confidences', 'names']


@pytest.mark.parametrize('how, says', [p for p in REFUSED if p.id in BY_COMMAND])
def test_train_says_it_in_one_line(folder, capsys, how, says):
    change(folder, how, ['val'])
    assert one_line('train', train(capsys, folder)) == f'{file_of(folder)}: {says}'
    assert not [*(folder.parent/'out').rglob('model.safetensors')]


@pytest.mark.parametrize('how, says', [
    (two, "two files are for the split 'val'"), (nameless, 'the file names do not say which split they are'), (shutil.rmtree, 'there is no such folder')])
def test_train_refuses_folders_in_one_line(folder, capsys, how, says):
    how(folder)
    assert one_line('train', train(capsys, folder)).startswith(f'{folder}: {says}')


def fake_findings(monkeypatch):
    "In the place of a network: the findings of `findings`, so that AP lies between 0 and 1."
    monkeypatch.setattr('p2net.runs.runners.predict', lambda model, pack, *_, **__: findings(pack))


def record_of(folder): return load(next((folder.parent/'out').rglob('record.json')))


def results_of_run(folder, ending='_results.json'):
    found = [*(folder.parent/'out').rglob(f'*{ending}')]
    assert len(found) == 1, found
    return found[0]


@situation('photographs and annotations, and COCO\'s evaluation of what train wrote', 'the AP of the record is pycocotools\' for the user\'s file and the results file', 'Checkpoints and records')
@pytest.mark.parametrize('how, person', [(lambda d: None, 1), (with_table(), 1), (category(3), 3), (image_ids(lambda i: f'frame_{i}'), 1)],
                         ids=['clean', 'objects', 'category-3', 'image-ids-texts'])
def test_the_ap_of_train_is_that_of_pycocotools(folder, capsys, monkeypatch, how, person):
    change(folder, how)
    fake_findings(monkeypatch)
    code, out, err = train(capsys, folder)
    assert code == 0, err
    theirs = pycocotools(file_of(folder), results_of_run(folder), person)
    assert 0 < theirs['AP'] < 1
    same(record_of(folder)['metrics'], theirs)
    assert record_of(folder)['data']['val']['left_out'] and any(line.startswith('val: left out: 1 x crowd') for line in err)


@situation('a file that pycocotools cannot read by itself', 'the cleaned annotations lie beside the results file, for pycocotools', 'Checkpoints and records')
@pytest.mark.parametrize('how, repair', [(areas(lambda n, a: None), areas_from_boxes), (joints_of_nobody(None), zeros_of_nobody)], ids=['no-area', 'keypoints-null'])
def test_the_truth_beside_the_results(folder, tmp_path, capsys, monkeypatch, how, repair):
    change(folder, how)
    fake_findings(monkeypatch)
    assert train(capsys, folder)[0] == 0
    data = load(file_of(folder))
    dump(tmp_path/'repaired.json', repair(data) or data)
    theirs = pycocotools(tmp_path/'repaired.json', results_of_run(folder))
    same(record_of(folder)['metrics'], theirs)
    same(pycocotools(results_of_run(folder, '_truth.json'), results_of_run(folder)), theirs)


@pytest.fixture
def with_weights(folder, capsys):
    "Words of `train detected` on the folder, for which a network lies there as `train p2net` leaves it."
    from safetensors.torch import save_file
    from p2net.runs.experiments import experiment_config
    from p2net.runs.training import make_network
    sets = [s.removeprefix('--set=') for s in TINY]
    config = experiment_config('p2net', source=str(folder), overrides=tuple(sets))
    work = folder.parent/'out/work/tiny/p2net-coco/0'
    work.mkdir(parents=True)
    save_file({k: v.contiguous() for k, v in make_network(config, 17).state_dict().items()}, work/'model.safetensors')
    return lambda boxes: run(capsys, 'train', 'detected', '--data', folder, '--out', folder.parent/'out', '--quiet', *TINY, f'--set=evaluation.boxes={boxes}')


@pytest.mark.parametrize('how, says', [p for p in WRONG if p.id in ('empty', 'image_id-list', 'bbox-null', 'bbox-5', 'bbox-corners', 'score-nan', 'by-file', 'no-people')])
def test_detected_says_it_in_one_line_before_anything_is_packed(folder, tmp_path, with_weights, how, says):
    rows = found_rows(folder)
    changed = how(rows)
    dump(tmp_path/'boxes.json', rows if changed is None else changed)
    assert one_line('train', with_weights(tmp_path/'boxes.json')) == f"{tmp_path/'boxes.json'}: {says}"
    assert not (tmp_path/'cache/packs').exists()


@situation("a detector's boxes, some of them unusable", 'AP is pycocotools\' for the user\'s file; what was left out is said and stands in the record under "boxes"', 'Detection files')
def test_the_ap_of_detected_is_that_of_pycocotools(folder, tmp_path, monkeypatch, with_weights):
    change(folder, category(3))
    rows = found_rows(folder)
    dump(tmp_path/'boxes.json', rows + [rows[0] | dict(bbox=[900, 5, 20, 20]), rows[0] | dict(image_id=5), rows[0] | dict(category_id=17)])
    monkeypatch.setattr('p2net.runs.runners.make_network', lambda *_, **__: Standing(COCO))
    code, out, err = with_weights(tmp_path/'boxes.json')
    assert code == 0, err
    record = load(next((folder.parent/'out').rglob('detected-coco/0/record.json')))
    theirs = pycocotools(file_of(folder), results_of_run(folder), 3)
    assert theirs['AP50'] > .1
    same(record['metrics'], theirs)
    assert record['data']['boxes']['boxes'] == 8
    assert record['data']['boxes']['left_out'] == {'box outside the photograph': 1, 'box on an image that is not in the annotations': 1, 'box of another category': 1}
    assert any('1 x box outside the photograph' in line for line in err)


@situation('annotations that the command must not change', 'every file of the folder is as it was', 'Annotation files')
def test_no_command_changes_its_input(folder, capsys):
    before = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.rglob('*') if p.is_file()}
    assert train(capsys, folder)[0] == 0
    run(capsys, 'doctor', folder)
    assert before == {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.rglob('*') if p.is_file()}


# ---- the doctor, on what is right

def doctor(capsys, folder):
    code, out, err = run(capsys, 'doctor', folder)
    return code, out + err


@situation('clean photographs and annotations', 'the doctor finds nothing')
def test_the_doctor_has_nothing_against_clean_people(folder, capsys):
    code, lines = doctor(capsys, folder)
    assert code == 0 and lines == [f'{folder}: no faults found']


OWN = {'L_R': (['L_sho', 'R_sho', 'L_elb', 'R_elb'], ''), 'numbers': (['"1"', '"2"', '"3"', '"4"'], 'flip_pairs: [["1", "2"], ["3", "4"]]'),
       'numbers-of-joints': (['shoulder 1', 'shoulder 2', 'elbow 1', 'elbow 2'], 'flip_pairs: [[0, 1], [2, 3]]'),
       'camel': (['leftShoulder', 'rightShoulder', 'leftElbow', 'rightElbow'], ''), 'ending': (['shoulder_l', 'shoulder_r', 'elbow_l', 'elbow_r'], ''),
       'other-language': (['Schulter links', 'Schulter rechts', 'Ellbogen links', 'Ellbogen rechts'], 'flip_pairs: [[0, 1], [2, 3]]'),
       'a-name-of-ours': (['left_a', 'right_a', 'left_b', 'right_b'], 'name: mpii16')}
OWN_SIGMAS = [.08, .08, .07, .07]


def own_skeleton(folder, joints, more):
    "Shoulders and elbows only, under names of one's own."
    (folder/'skeleton.yaml').write_text(f"joints: [{', '.join(joints)}]\nsigmas: {OWN_SIGMAS}\n{more}\n", encoding='utf-8')
    def four(d):
        d['categories'][0].update(keypoints=[j.strip('"') for j in joints], skeleton=[[1, 3]])
        for a in d['annotations']:
            a['keypoints'] = a['keypoints'][15:27]
            a['num_keypoints'] = sum(v > 0 for v in a['keypoints'][2::3])
    change(folder, four)


@pytest.mark.parametrize('name', [pytest.param(name, marks=situation(f"a skeleton of one's own with joints {', '.join(j.strip(chr(34)) for j in joints[:2])}{' and right flip pairs' if 'flip' in more else ''}",
                                                                     'it is used with its own sigmas; the doctor finds nothing'), id=name) for name, (joints, more) in OWN.items()])
def test_a_skeleton_of_ones_own(folder, tmp_path, capsys, name):
    own_skeleton(folder, *OWN[name])
    assert check_numbers(folder, tmp_path, sigmas=OWN_SIGMAS)[1:] == [f'val: left out: 1 x {reason} (first: {file_of(folder)}: annotation {id})' for reason, id in
                                                                      (('crowd', 900000000009), ('no labelled joint', 900000000010))]
    assert find_people(folder).skeleton.flip_pairs == ((0, 1), (2, 3))
    code, lines = doctor(capsys, folder)
    assert code == 0 and lines == [f'{folder}: no faults found'], lines


@situation('a skeleton whose left and right names are paired wrongly', 'one line that names the pair', 'Annotation files')
def test_a_skeleton_with_a_wrong_pair(folder):
    own_skeleton(folder, ['L_sho', 'R_sho', 'L_elb', 'R_elb'], 'flip_pairs: [[R_sho, L_sho], [L_elb, R_elb]]')
    assert 'flip_pairs has (R_sho, L_sho); write the left joint first' in refused(folder)


# ---- photographs, through training and the doctor (the reader itself: test_photographs.py)

def with_orientation(path, orientation, turn):
    "The same picture as a phone stores it: pixels turned by `turn`, and the tag that says how to turn them back."
    from PIL import Image
    upright = Image.open(path).convert('RGB')
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright.transpose(turn).save(path, quality=97, subsampling=0, exif=exif)


def packed(folder, say=lambda line: None): return load_people(settings(folder), progress=False, say=say).val


@situation('photographs of a phone with an EXIF orientation tag, annotated as browsers and tools show them', 'they train upright: the same crops as from the upright files; nothing is said; the doctor finds nothing', 'Photographs')
@pytest.mark.parametrize('orientation, turn', [(6, 2), (8, 4), (3, 3)])          # 2, 3, 4: PIL's quarter turns against the clock
def test_photographs_of_a_phone(folder, capsys, orientation, turn):
    plain = packed(folder)
    for photo in (folder/'images/val').iterdir(): with_orientation(photo, orientation, turn)
    said = []
    pack = packed(folder, said.append)
    assert np.abs(pack.canvases[:].astype(int) - plain.canvases[:]).mean() < 3 and np.allclose(pack.joints, plain.joints)
    assert not [line for line in said if 'corrected' in line], said
    code, lines = doctor(capsys, folder)
    assert code == 0, lines


@situation('the same, annotated on the pixels as stored (height and width of the file before turning)', 'said once, with the first photograph, in training and by the doctor', 'Photographs')
def test_annotations_on_unturned_photographs(folder, capsys):
    for photo in (folder/'images/val').iterdir(): with_orientation(photo, 6, 2)
    change(folder, lambda d: [i.update(height=i['width'], width=i['height']) for i in d['images']] and None, ['val'])
    said = []
    packed(folder, said.append)
    lines = [line for line in said if 'orientation tag' in line]
    assert len(lines) == 1 and 'turned upright' in lines[0] and re.search(r'corrected: 5 x .*\(first: .*000000000036.jpg\)', lines[0]), said
    code, lines = doctor(capsys, folder)
    assert code == 1 and any('orientation' in line for line in lines), lines


@situation('a JPEG with data behind its end marker: a Motion Photo, or zeros', 'it trains; the doctor finds nothing', 'Photographs')
@pytest.mark.parametrize('tail', [b'\0'*5000, b'\0\0\0\x18ftypmp42' + bytes(range(256))*40], ids=['zeros', 'motion-photo'])
def test_data_behind_a_jpeg(folder, capsys, tail):
    plain = packed(folder)
    for photo in (folder/'images/val').iterdir(): photo.write_bytes(photo.read_bytes() + tail)
    assert np.array_equal(packed(folder).canvases[:], plain.canvases[:])
    assert doctor(capsys, folder) == (0, [f'{folder}: no faults found'])


@situation('a JPEG that is cut', 'one line that names it, from training and from the doctor', 'Photographs')
def test_a_cut_photograph(folder, capsys):
    photo = folder/'images/val/000000000139.jpg'
    photo.write_bytes(photo.read_bytes()[:900])
    with pytest.raises(InputError) as told: packed(folder)
    assert str(told.value).startswith(f'{photo}: ') and 'cut short' in str(told.value)
    code, lines = doctor(capsys, folder)
    assert code == 1 and len([line for line in lines if photo.name in line]) == 1, lines


@situation('a photograph that is entirely black', 'it trains; said, with the file', 'Photographs')
def test_a_black_photograph(folder):
    cv2.imwrite(str(folder/'images/val/000000000139.jpg'), np.zeros((120, 200, 3), np.uint8))
    said = []
    packed(folder, said.append)
    assert any(re.search(r'corrected: 1 x photograph entirely black \(first: .*000000000139.jpg\)', line) for line in said), said


@situation('a photograph of another size than its annotation says', 'it trains; said, with the file; the doctor names it', 'Photographs')
def test_a_photograph_of_another_size(folder, capsys):
    change(folder, image(2, width=400), ['val'])
    said = []
    packed(folder, said.append)
    assert any(re.search(r'corrected: 1 x photograph of another size than its annotation says \(first: .*000000000139.jpg\)', line) for line in said), said
    code, lines = doctor(capsys, folder)
    assert code == 1 and any('000000000139.jpg' in line for line in lines), lines


# ---- predict with boxes in COCO's ids

def predict(capsys, folder, boxes): return run(capsys, 'predict', folder/'images/val', '--boxes', boxes, '--out', folder.parent/'poses', '--quiet')


@situation('predict --boxes with a file in COCO\'s image ids, then COCO\'s evaluation', 'poses.json has the image ids of the file of boxes: AP as those ids give (0 before)', 'Detection files')
@pytest.mark.parametrize('layout', ['detections', 'annotations'])
def test_poses_keep_the_image_ids_of_the_boxes(folder, tmp_path, capsys, layout):
    def rename(d):
        for i, name in zip(d['images'], ('zoe walking', 'anna', 'm', 'b', 'x')):
            (folder/'images/val'/i['file_name']).rename(folder/f'images/val/{name}.jpg')
            i['file_name'] = f'{name}.jpg'
    change(folder, rename, ['val'])
    rows = [r | dict(id=n) for n, r in enumerate(found_rows(folder), 1)]
    names = {i['id']: i['file_name'] for i in load(file_of(folder))['images']}
    if layout == 'annotations': dump(tmp_path/'boxes.json', load(file_of(folder)) | dict(annotations=rows))
    else: dump(tmp_path/'boxes.json', [r | dict(file_name=names[r['image_id']]) for r in rows])
    code, out, err = predict(capsys, folder, tmp_path/'boxes.json')
    assert code == 0, err
    poses = load(tmp_path/'poses/poses.json')
    assert sorted((p['image_id'], p['file_name']) for p in poses) == sorted((r['image_id'], names[r['image_id']]) for r in rows)
    dump(tmp_path/'results.json', [p | dict(keypoints=p['keypoints'][:51]) for p in poses])     # COCO's 17 come first
    assert pycocotools(file_of(folder), tmp_path/'results.json')['AP50'] > .1


# ---- the table

def test_the_table_of_situations_is_up_to_date():
    "In a process of its own: it collects all tests."
    assert situations.TABLE.read_text(encoding='utf-8') == forked(situations.page), 'run python tests/situations.py'


def test_the_table_has_the_situations_of_this_file():
    rows = situations.TABLE.read_text(encoding='utf-8').splitlines()
    assert sum(line.startswith('| ') and '](test_user_files.py)' in line for line in rows) >= 60
