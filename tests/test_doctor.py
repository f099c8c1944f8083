"""Every fault of the list is made on purpose and found by its name, and nothing else is; clean people are passed in silence.

The doctor and training must agree: what the doctor passes can be packed, and what it calls a fault is refused, loses people or falsifies a number."""
import json, shutil
from dataclasses import replace
from pathlib import Path

import cv2, numpy as np, pytest
from PIL import Image
from scipy.io import savemat

from p2net.tools.doctor import FAULTS, NOTES, Finding, PoseArrays, Report, add_tally, check_sides, examine, exit_code
from p2net.errors import InputError
from p2net.people.folder import find_people
from p2net.people.pack import build_pack
from p2net.people.person import Person
from p2net.people.skeleton import COCO17, SKELETONS, example_pose
from samples import sample

JOINTS = list(COCO17)
situation = pytest.mark.situation


def pose(rng):
    "Seventeen labelled joints inside 30..85 x 30..100, and their box."
    xy = np.stack([rng.uniform(30, 85, 17), rng.uniform(30, 100, 17)], 1).round(1)
    low, high = xy.min(0) - 3, xy.max(0) + 3
    return np.c_[xy, np.full(17, 2)].ravel().tolist(), [*low.tolist(), *(high - low).tolist()]


@pytest.fixture
def people(tmp_path):
    "Three people a split, COCO's layout and joints, on photographs of 90x110."
    rng = np.random.default_rng(1)
    (tmp_path/'annotations').mkdir()
    for split in ('train', 'val'):
        (tmp_path/'images'/split).mkdir(parents=True)
        images, annotations = [], []
        for i in (1, 2, 3):
            cv2.imwrite(str(tmp_path/'images'/split/f'{split}_{i}.jpg'), rng.integers(0, 255, (110, 90, 3), dtype=np.uint8))
            images.append(dict(id=i, file_name=f'{split}_{i}.jpg', width=90, height=110))
            keypoints, bbox = pose(rng)
            annotations.append(dict(id=10 + i, image_id=i, category_id=1, bbox=bbox, area=.5*bbox[2]*bbox[3], iscrowd=0, num_keypoints=17, keypoints=keypoints))
        save(tmp_path, split, dict(images=images, annotations=annotations, categories=[dict(id=1, name='person', keypoints=JOINTS)]))
    return tmp_path


def file_of(folder, split='train'): return folder/f'annotations/person_keypoints_{split}.json'
def data_of(folder, split='train'): return json.loads(file_of(folder, split).read_text(encoding='utf-8'))
def save(folder, split, data): file_of(folder, split).write_text(json.dumps(data), encoding='utf-8')


def change(folder, slip, split='train'):
    data = data_of(folder, split)
    slip(data)
    save(folder, split, data)


def faults(folder, **more): return [f.fault for f in examine(folder, **more)]


def trains(folder):
    "What packing both splits says: None, or the line that refuses them."
    try:
        found = find_people(folder)
        for load in (found.train, found.val): build_pack(load(), found.skeleton, (64, 48), progress=False, workers=1)
    except InputError as error: return str(error)


def row(**changes): return lambda d: d['annotations'][1].update(changes)
def every(**changes): return lambda d: [a.update(changes) for a in d['annotations']]
def without(field, rows='annotations'): return lambda d: d[rows][1].pop(field)
def keypoint(i, *values): return lambda d: d['annotations'][1]['keypoints'].__setitem__(slice(3*i, 3*i + 3), values)
def image(**changes): return lambda d: d['images'][1].update(changes)


# ---- one slip in the file, one finding

REFUSED = { # training refuses the folder
    'keypoints-number': row(keypoints=[30, 30, 2]*16), 'keypoints-value': keypoint(4, None, 30, 2), 'visibility': keypoint(4, 30, 30, 4),
    'confidence': keypoint(4, 30, 30, .83), 'box-kind': row(bbox=[20, 20]), 'unknown-image': row(image_id=77), 'refused': row(iscrowd=5),
    'image-missing': image(file_name='gone.jpg'), 'image-name': image(file_name=None),
    'category': lambda d: d['categories'].append(dict(id=2, name='person', keypoints=JOINTS)),
    'joint-names': lambda d: d['categories'][0]['keypoints'].__setitem__(3, 'left_horn')}
LOST = { # people are left out, or a number is wrong
    'unknown-category': row(category_id=3), 'box-empty': row(bbox=[20, 20, 0, 30]), 'box-missing': without('bbox'),
    'area-large': row(area=9e4), 'num-keypoints': row(num_keypoints=0), 'joint-outside': keypoint(4, 30, 140, 2), 'joint-origin': keypoint(4, 0, 0, 2),
    'joints-off-box': row(bbox=[0, 0, 8, 8], area=20), 'same-pose': lambda d: d['annotations'].append({**d['annotations'][1], 'id': 99}),
    'image-size': image(width=91)}
NOTED = { # p2net's numbers are right
    'crowd-joints': row(iscrowd=1),
    'text-numbers': row(area='900'), 'area-missing': without('area'), 'crowd-missing': without('iscrowd'), 'num-keypoints-missing': without('num_keypoints'),
    'num-keypoints-count': row(num_keypoints=4), 'category-id-missing': without('category_id'), 'size-missing': without('width', 'images'),
    'keypoints-nested': lambda d: d['annotations'][1].update(keypoints=np.reshape(d['annotations'][1]['keypoints'], (-1, 3)).tolist()),
    'joints-no-number': lambda d: (keypoint(4, None, None, 0)(d), row(num_keypoints=16)(d)), 'id': row(id=11), 'image-id-type': row(image_id='2'),
    'image-twice': lambda d: d['images'].append(dict(d['images'][1])), 'category-missing': lambda d: d.pop('categories'),
    'image-ids': lambda d: [image.update(id=f"p{image['id']}") for image in d['images']] + [a.update(image_id=f"p{a['image_id']}") for a in d['annotations']],
    'category-names': lambda d: d['categories'][0].pop('keypoints'), 'image-unused': lambda d: d['images'].append(dict(id=9, file_name='9.jpg', width=9, height=9)),
    'box-none': lambda d: d['annotations'].append(dict(id=99, image_id=2, category_id=1, iscrowd=0, num_keypoints=0, area=50, keypoints=[0]*51))}


@situation('a COCO file with one slip in it: a wrong number of keypoints, a category that is not listed, an image that is not listed, a box without width …',
           '`p2net doctor FOLDER` names the fault, how often it is there and where first, what comes of it and what to do; exit code 1')
@pytest.mark.parametrize('fault', [*REFUSED, *LOST])
def test_one_slip_is_one_fault(people, fault):
    change(people, {**REFUSED, **LOST}[fault])
    found = examine(people)
    assert [f.fault for f in found] == [fault], [*map(str, found)]
    assert (found[0].level, found[0].count, found[0].file) == ('fault', 1, 'annotations/person_keypoints_train.json')
    whole = fault in ('category', 'joint-names')
    assert whole or any(name in found[0].first for name in ('12', 'gone.jpg', 'train_2', 'image 2', '[3]', '99')), found[0].first
    assert str(people) not in str(found[0]) and exit_code(found) == 1
    assert (trains(people) is not None) == (fault in REFUSED)


@situation('a COCO file that p2net reads and pycocotools stops at: no area, no iscrowd, numbers as text, annotation ids twice …',
           '`p2net doctor FOLDER` notes it, with what is taken instead; exit code 0')
@pytest.mark.parametrize('note', NOTED)
def test_what_is_completed_is_a_note(people, note):
    change(people, NOTED[note])
    found = examine(people)
    assert [(f.fault, f.level) for f in found] == [(note, 'note')], [*map(str, found)]
    assert exit_code(found) == 0 and trains(people) is None


@pytest.mark.parametrize('expected, slip', [
    ('crowd-only', every(iscrowd=1, keypoints=[0]*51, num_keypoints=0)), ('no-people', every(keypoints=[0]*51, num_keypoints=0)), ('box-outside', row(bbox=[200, 20, 30, 40], area=600)),
    ('box-corners', lambda d: [a.update(bbox=[b[0], b[1], b[0] + b[2], b[1] + b[3]]) for a in d['annotations'] for b in [a['bbox']]]),
    ('box-fractions', every(bbox=[.1, .2, .5, .6])), ('box-empty', row(bbox=[0, 0, 1e-300, 1e-300], area=1e-9)), ('image-id', without('id', 'images')), ('image-id', image(id=1)),
    ('keypoints-number', every(keypoints=5)), ('id', row(id=[12])), ('unknown-image', row(image_id=[2])), ('unknown-category', row(category_id={})),
    ('image-unused', lambda d: d['images'].append(dict(id=9))), ('refused', lambda d: d['annotations'].append(7)), ('category', lambda d: d['categories'][0].update(keypoints=4)),
    ('category', lambda d: d['categories'][0].update(keypoints=[1, 2])), ('image-name', image(file_name=3)), ('text-numbers', image(width='90')),
    ('unreadable', lambda d: d.pop('images')), ('unreadable', lambda d: d.update(annotations={}))], ids=lambda v: v if isinstance(v, str) else '')
def test_slips_of_other_kinds(people, expected, slip):
    change(people, slip)
    found = faults(people)
    if expected == 'image-id': found = [f for f in found if f != 'id']
    assert sorted({*found} - {'id'} if 'id' not in expected.split() else found) == sorted(expected.split()), found


def test_all_faults_at_once(people):
    "One faulty row hides neither the others nor the other split, the skeleton and the photographs."
    def slips(d):
        d['annotations'][0]['bbox'], d['annotations'][1]['image_id'], d['images'][2]['file_name'] = 5, 77, None
        d['annotations'].append(dict(d['annotations'][2], id=99, image_id=1, keypoints=[1e3, 1e3, 2]*17))
    change(people, slips)
    change(people, row(area=9e5), 'val')
    (people/'skeleton.yaml').write_text(f'joints: {JOINTS}\nflip_pairs: [[left_eye, right_ear]]\n', encoding='utf-8')
    (people/'images/val/val_3.jpg').write_bytes(b'')
    found = {(f.fault, f.file.split('_')[-1]) for f in examine(people)}
    assert found >= {('box-kind', 'train.json'), ('unknown-image', 'train.json'), ('image-name', 'train.json'), ('joint-outside', 'train.json'),
                     ('area-large', 'val.json'), ('image-broken', 'val.json'), ('pairs', 'skeleton.yaml')}, found


# ---- photographs

def test_files(people):
    half = people/'images/train/train_2.jpg'
    half.write_bytes(half.read_bytes()[:900])
    (people/'images/val/val_1.jpg').write_bytes((people/'images/train/train_1.jpg').read_bytes())
    assert faults(people) == ['image-broken', 'in-both'] and 'train_2' in trains(people)
    file_of(people, 'val').write_text('{"images": [', encoding='utf-8')
    assert 'unreadable' in faults(people) and 'image-broken' in faults(people)
    file_of(people, 'val').unlink()
    assert 'no-split' in faults(people) and 'image-broken' in faults(people)
    file_of(people).rename(people/'annotations/person_keypoints_a.json')
    shutil.copy(people/'annotations/person_keypoints_a.json', people/'annotations/person_keypoints_b.json')
    assert faults(people) == ['layout'] and 'person_keypoints_a.json, person_keypoints_b.json' in str(examine(people)[0])


@situation('a photograph that is entirely black or white', '`p2net doctor` names it, with its people; training notes it')
@pytest.mark.parametrize('colour', [0, 255])
def test_a_photograph_of_one_colour(people, colour):
    cv2.imwrite(str(people/'images/train/train_2.jpg'), np.full((110, 90, 3), colour, np.uint8))
    assert faults(people) == ['image-plain']


def test_files_are_named_from_the_folder(people, monkeypatch):
    cv2.imwrite(str(people/'images/train/train_2.jpg'), np.zeros((110, 90, 3), np.uint8))
    (people/'images/val/val_1.jpg').write_bytes(b'')
    for root, folder in ((people.parent, people.name), (people, '.'), ('/', people)):
        monkeypatch.chdir(root)
        found = {f.fault: f for f in examine(folder)}
        assert found['image-plain'].first.startswith('images/train/train_2.jpg: ') and found['image-broken'].first.startswith('images/val/val_1.jpg: ')
        assert {f.file for f in found.values()} == {'annotations/person_keypoints_train.json', 'annotations/person_keypoints_val.json'}


def test_progress_is_shown(people, capsys, monkeypatch):
    monkeypatch.delenv('TQDM_DISABLE', raising=False)
    monkeypatch.setattr('p2net.progress.Progress.every', -1.)
    assert examine(people) == [] and capsys.readouterr().out == ''
    assert examine(people, progress=True) == [] and 'photographs of train: 3 of 3 photographs' in capsys.readouterr().out


@situation('a photograph from a phone, with an orientation tag, and a row with the size before turning',
           '`p2net doctor` names the tag and says that p2net reads photographs upright', theme='Photographs')
@pytest.mark.parametrize('tag', [5, 6, 7, 8])
def test_orientation(people, tag):
    path = people/'images/train/train_2.jpg'
    exif = Image.Exif(); exif[274] = tag
    picture = Image.open(path).copy()
    picture.save(path, exif=exif)                                       # stored 90 x 110, shown 110 x 90
    found = examine(people)
    assert [f.fault for f in found if f.fault != 'joint-outside'] == ['orientation'] and 'train_2.jpg' in found[0].first + found[-1].first
    change(people, image(width=110, height=90))                         # the upright size: right, but these joints were drawn on the other
    assert 'orientation' not in faults(people) and 'image-size' not in faults(people)


@situation('a JPEG with data behind its end (a Motion Photo, zeros)', '`p2net doctor` says nothing, training reads it', theme='Photographs')
@pytest.mark.parametrize('tail', [b'\0'*5000, b'\0\0\0\x18ftypmp42' + bytes(range(256))*20])
def test_data_behind_the_end_of_a_jpeg(people, tail):
    path = people/'images/train/train_2.jpg'
    path.write_bytes(path.read_bytes() + tail)
    assert examine(people) == [] and trains(people) is None


def test_most_opens_fewer_photographs(people):
    (people/'images/train/train_2.jpg').unlink()
    assert faults(people) == ['image-missing'] and examine(people, most=2) == []


# ---- skeletons, left and right

@pytest.mark.parametrize('pairs, fault, says', [
    ('[[left_eye, right_eye], [left_eye, right_ear]]', 'skeleton', 'twice'), ('[[left_eye, right_ear], [left_ear, right_eye]]', 'pairs', 'left_eye is paired with right_ear'),
    ('[[left_eye, right_eye]]', 'pairs', 'left_ear is paired with nobody'), ('[]', 'pairs', 'paired with nobody'), ('[[left_eye, left_horn]]', 'skeleton', 'left_horn')])
def test_pairs(people, pairs, fault, says):
    (people/'skeleton.yaml').write_text(f'joints: {JOINTS}\nflip_pairs: {pairs}\n', encoding='utf-8')
    found = examine(people)
    assert {f.fault for f in found} == {fault} and says in found[0].first


NAMINGS = {'L_sho': ['L_sho', 'R_sho', 'L_elb', 'R_elb'], 'lShoulder': ['lShoulder', 'rShoulder', 'lElbow', 'rElbow'],
           'Left Shoulder': ['Left Shoulder', 'Right Shoulder', 'Left Elbow', 'Right Elbow'], 'shoulder_left': ['shoulder_left', 'shoulder_right', 'elbow_left', 'elbow_right'],
           '1': ['1', '2', '3', '4'], 'lsho': ['lsho', 'rsho', 'lelb', 'relb'], 'left_shoulder': ['left_shoulder', 'right_shoulder', 'left_elbow', 'right_elbow'],
           'Schulter links': ['Schulter links', 'Schulter rechts', 'Ellbogen links', 'Ellbogen rechts']}


@situation('a skeleton of one\'s own with joints called L_sho, lShoulder, "Left Shoulder", shoulder_left or 1, 2, and right flip pairs', '`p2net doctor` says nothing')
@pytest.mark.parametrize('naming', NAMINGS)
@pytest.mark.parametrize('name', ['', 'name: mpii16\n'])
def test_right_pairs_of_any_naming_are_passed(people, naming, name):
    joints = NAMINGS[naming]
    for split in ('train', 'val'):
        change(people, lambda d: (d['categories'][0].update(keypoints=joints), [a.update(keypoints=a['keypoints'][:12], num_keypoints=4) for a in d['annotations']]), split)
    skeleton = people/'skeleton.yaml'
    skeleton.write_text(f'{name}joints: {json.dumps(joints)}\nflip_pairs: [[{json.dumps(joints[0])}, {json.dumps(joints[1])}], [{json.dumps(joints[2])}, '
                        f'{json.dumps(joints[3])}]]\nsigmas: [.079, .079, .072, .072]\n', encoding='utf-8')
    assert [*map(str, examine(people))] == [] and trains(people) is None
    skeleton.write_text(skeleton.read_text(encoding='utf-8').replace('.079, .079', '7.9, 7.9'), encoding='utf-8')
    assert [(f.fault, f.count) for f in examine(people)] == [('sigmas', 2)]


@situation('sigmas of an own skeleton in per cent, in pixels, or ten times too large', '`p2net doctor` names the joints and COCO\'s range')
@pytest.mark.parametrize('factor, accused', [(1, False), (.2, False), (2, False), (10, True), (100, True), (.01, True)])
def test_sigmas(people, factor, accused):
    sigmas = [factor*s for s in SKELETONS['coco17'].sigmas]
    (people/'skeleton.yaml').write_text(f'joints: {JOINTS}\nsigmas: {sigmas}\n', encoding='utf-8')
    assert [f.fault for f in examine(people)] == ['sigmas']*accused


def test_an_own_skeleton_must_be_that_of_the_file(people):
    (people/'skeleton.yaml').write_text('joints: [left_hand, right_hand]\nsigmas: [.05, .05]\n', encoding='utf-8')
    assert faults(people) == ['no-people', 'no-people']                       # none of its joints is in the file
    (people/'skeleton.yaml').write_text('joints: [left_hand, right_hand]\nsigmas: [.05]\n', encoding='utf-8')
    assert faults(people) == ['skeleton']


def crowd(skeleton, n, rng, behind=.3):
    "Standing people, some of them seen from behind."
    people = []
    for i in range(n):
        xy = 100*(example_pose(skeleton) + rng.normal(0, .004, (len(skeleton), 2))) + 100
        v = np.full(len(skeleton), 2)
        if i < behind*n:
            xy[:, 0] = 200 - xy[:, 0]
            v[[i for i, j in enumerate(skeleton.joints) if j == 'nose' or 'eye' in j or 'ear' in j]] = 0
        people.append(Person(f'{i}.png', [40, 40, 110, 110], xy, v))
    return people


def sides(people, skeleton):
    report = Report(Path('x'))
    check_sides(PoseArrays.from_people(people, skeleton), Path('x/a.json'), report)
    return [f.fault for f in report.findings()]


def reordered(people, order): return [replace(p, joints=p.joints[order], visibility=p.visibility[order]) for p in people]


@situation('left and right exchanged in a file, or in one pair of joints', '`p2net doctor` says so, with the share of people in which it shows')
@pytest.mark.parametrize('exchanged, fault', [('all', 'left-right'), ('elbow', 'crossed'), ('shoulder', 'crossed'), ('hip', 'crossed'), ('ankle', 'crossed'), ('none', None)])
def test_left_and_right(exchanged, fault):
    coco = SKELETONS['coco17']
    order = [coco.flip_perm[i] if exchanged in ('all', j.split('_')[-1]) else i for i, j in enumerate(coco.joints)]
    assert sides(reordered(crowd(coco, 40, np.random.default_rng(0)), order), coco) == [fault]*bool(fault)


@pytest.mark.parametrize('a, b', [('left_knee', 'left_ankle'), ('right_elbow', 'right_wrist'), ('left_hip', 'left_knee')])
def test_pairs_of_unlike_joints(a, b):
    coco = SKELETONS['coco17']
    order = [*range(17)]
    order[coco.index(a)], order[coco.index(b)] = coco.index(b), coco.index(a)
    assert sides(reordered(crowd(coco, 40, np.random.default_rng(0)), order), coco) == ['mirror-lengths']
    assert sides(reordered(crowd(coco, 15, np.random.default_rng(0)), order), coco) == []                  # too few to say


def exchange(folder, split):
    "Left and right exchanged in a file."
    perm = SKELETONS['coco17'].flip_perm
    change(folder, lambda d: [a.update(keypoints=np.reshape(a['keypoints'], (-1, 3))[list(perm)].ravel().tolist()) for a in d['annotations'] if a.get('keypoints')], split)


def test_exchanged_in_a_real_file(tmp_path):
    "COCO's sample as it is, and its validation file with left and right exchanged."
    folder = shutil.copytree(sample('data/coco-people'), tmp_path/'coco')
    assert examine(folder, most=3) == []
    exchange(folder, 'val')
    assert [(f.fault, f.file) for f in examine(folder, most=3)] == [('left-right', 'annotations/person_keypoints_val.json')]


def test_exchanged_in_one_split_without_faces(tmp_path):
    folder = tmp_path/'lsp'
    (folder/'images').mkdir(parents=True)
    perm = list(SKELETONS['lsp14'].flip_perm)
    train, val = (crowd(SKELETONS['lsp14'], 40, np.random.default_rng(i), .1) for i in (0, 1))
    for n in range(1, 81): cv2.imwrite(str(folder/f'images/im{n:04d}.jpg'), np.random.default_rng(n).integers(0, 255, (210, 210, 3), dtype=np.uint8))
    for people, name in ((train + reordered(val, perm), ['sides-differ']), (train + val, []), (reordered(train, perm) + reordered(val, perm), [])):
        joints = np.stack([np.c_[p.joints + 1, np.zeros(14)] for p in people])
        savemat(folder/'joints.mat', dict(joints=joints.transpose(2, 1, 0)))
        assert faults(folder, most=1) == name


# ---- detection files

def boxes_of(folder, *rows):
    (folder/'boxes.json').write_text(json.dumps([dict(dict(image_id=1 + n % 3, category_id=1, bbox=[20, 20, 60, 70], score=.5), **row) for n, row in enumerate(rows)]), encoding='utf-8')
    return [(f.fault, f.count, f.level) for f in examine(folder, boxes=folder/'boxes.json')]


@situation('a detection file with boxes x1, y1, x2, y2, texts, boxes outside the photograph, rows without score', '`p2net doctor FOLDER --boxes FILE` names each, with its row',
           theme='Detection files')
def test_detection_files(people):
    assert boxes_of(people, {}, {}, {}) == []
    assert boxes_of(people, *[dict(bbox=[20, 50, 80, 100])]*4) == [('box-corners', 1, 'fault')]
    assert boxes_of(people, *[dict(bbox=[.2, .2, .5, .5])]*4) == [('box-fractions', 1, 'fault')]
    assert boxes_of(people, dict(score=None), dict(score='high'), dict(bbox=[1, 2, 3]), dict(image_id=[1]), {}) == [('boxes-row', 4, 'fault')]
    assert boxes_of(people, dict(bbox=[500, 20, 9, 9]), {}) == [('boxes-off', 1, 'fault')]
    assert sorted(boxes_of(people, dict(bbox=[50, 20, 0, 9]), dict(score='.5'), dict(category_id=7))) == [('boxes-empty', 1, 'note'), ('text-numbers', 1, 'note')]
    assert boxes_of(people, dict(category_id=0), dict(category_id=0)) == [('boxes-category', 2, 'note')]
    assert boxes_of(people, dict(image_id=77)) == [('boxes-unusable', 1, 'fault')] and boxes_of(people) == [('boxes-unusable', 1, 'fault')]
    (people/'boxes.json').write_text('<html>', encoding='utf-8')
    assert faults(people, boxes=people/'boxes.json') == ['boxes-unusable'] and faults(people, boxes=people/'none.json') == ['boxes-unusable']


# ---- MPII, LSP, LSPET

@pytest.fixture
def mpii(tmp_path):
    "Four people of MPII, two a split."
    rng, skeleton = np.random.default_rng(2), SKELETONS['mpii16']
    for sub in ('images', 'annot'): (tmp_path/sub).mkdir()
    for split, names in (('train', 'ab'), ('valid', 'cd')):
        rows = []
        for name in names:
            cv2.imwrite(str(tmp_path/f'images/{name}.jpg'), rng.integers(0, 255, (210, 210, 3), dtype=np.uint8))
            rows.append(dict(image=f'{name}.jpg', center=[100., 100.], scale=.55, joints=(100*example_pose(skeleton) + 101).tolist(), joints_vis=[1]*16))
        (tmp_path/f'annot/{split}.json').write_text(json.dumps(rows), encoding='utf-8')
    return tmp_path


@situation('MPII or LSP with a photograph that is missing or cut short, and with faulty rows', '`p2net doctor` opens every photograph and names all of them in one go')
def test_mpii(mpii):
    assert examine(mpii) == []
    cut = mpii/'images/b.jpg'
    cut.write_bytes(cut.read_bytes()[:3000]); (mpii/'images/c.jpg').unlink()
    assert [(f.fault, f.file) for f in examine(mpii)] == [('image-broken', 'annot/train.json'), ('image-missing', 'annot/valid.json')]
    rows = json.loads((mpii/'annot/valid.json').read_text(encoding='utf-8'))
    rows[0].pop('scale'); rows[1]['joints'] = rows[1]['joints'][:9]
    (mpii/'annot/valid.json').write_text(json.dumps([*rows, dict(rows[0], scale=None), dict(rows[0], scale=.55, image='d.jpg', joints_vis=[3]*16)]), encoding='utf-8')
    found = {f.fault: f for f in examine(mpii)}
    assert {*found} == {'image-broken', 'refused', 'place-missing'} and found['refused'].count == 3 and 'person 1: scale is missing' in found['refused'].first
    (mpii/'annot/train.json').unlink()
    assert 'no-split' in faults(mpii)


@pytest.mark.parametrize('kind', ['lsp', 'lspet'])
def test_lsp(tmp_path, kind):
    (tmp_path/'images').mkdir()
    digits = dict(lsp=4, lspet=5)[kind]
    joints = np.stack([np.c_[100*example_pose(SKELETONS['lsp14']) + 101, np.full(14, kind == 'lspet')]]*20)
    photo = lambda n: tmp_path/f'images/im{n:0{digits}d}.jpg'
    for n in range(1, 21): cv2.imwrite(str(photo(n)), np.random.default_rng(n).integers(0, 255, (210, 210, 3), dtype=np.uint8))
    savemat(tmp_path/'joints.mat', dict(joints=joints.transpose((2, 1, 0) if kind == 'lsp' else (1, 2, 0))))
    assert examine(tmp_path) == []
    photo(20).write_bytes(photo(1).read_bytes())
    assert faults(tmp_path) == ['in-both']
    photo(4).write_bytes(photo(4).read_bytes()[:3000]); photo(5).write_bytes(b'no picture')
    photo(6).unlink(); photo(19).unlink()
    found = {f.fault: f.count for f in examine(tmp_path)}
    assert found == {'image-broken': 2, 'image-missing': 2, 'in-both': 1}
    (tmp_path/'joints.mat').write_bytes(b'<html>')
    found = examine(tmp_path)
    assert [f.fault for f in found] == ['layout'] and 'joints.mat' in found[0].first and 'web page' in found[0].first


def test_published_people_may_have_joints_at_the_edge(mpii):
    rows = json.loads((mpii/'annot/valid.json').read_text(encoding='utf-8'))
    rows[0]['joints'][3], rows[1]['joints'][2] = [0, 0], [300, 50]
    (mpii/'annot/valid.json').write_text(json.dumps(rows), encoding='utf-8')
    assert [(f.fault, f.level) for f in examine(mpii)] == [('joint-origin', 'note'), ('joint-outside', 'note')]
    rows[0].update(center=[900., 900.])
    (mpii/'annot/valid.json').write_text(json.dumps(rows), encoding='utf-8')
    assert ('box-outside', 'fault') in [(f.fault, f.level) for f in examine(mpii)]


# ---- the list, clean people

def test_every_fault_of_the_list_is_planted_here():
    text = Path(__file__).read_text(encoding='utf-8')
    assert not [fault for fault in FAULTS if fault not in ('corrected', 'left-out') and f"'{fault}'" not in text]
    assert all(seen[0].islower() and does[0].isupper() and does[-1] in '.?' and '  ' not in seen + does for seen, does in FAULTS.values())


def test_reasons_without_a_name_are_told_as_they_are():
    from p2net.tools.doctor import CORRECTED, LEFT_OUT
    from p2net.errors import Tally
    report = Report(Path('x'))
    add_tally(report, Tally({'something new was done': (3, 'x/a.json: row 4')}), CORRECTED, 'x/a.json')
    add_tally(report, Tally({'for a new reason': (2, 'x/a.json: row 5')}), LEFT_OUT, 'x/a.json')
    assert [(f.fault, f.count, f.first, f.level) for f in report.findings()] == [('corrected', 3, 'row 4: something new was done', 'note'), ('left-out', 2, 'row 5: for a new reason', 'note')]


def test_exit_codes():
    assert exit_code([]) == 0 and exit_code([Finding('id', 'a', 1, '', 'note')]) == 0 and exit_code([Finding('id', 'a', 1, '', 'note'), Finding('same-pose', 'a', 1, '', 'fault')]) == 1
    assert str(Finding('id', 'a.json', 2, '', 'note')).splitlines()[0] == 'note: a.json: 2 x annotation ids that are missing, repeated or below 1'
    assert all(note in FAULTS for note in NOTES)


@situation('a clean folder in COCO\'s, CVAT\'s, Label Studio\'s, Roboflow\'s, MPII\'s or LSP\'s layout', '`p2net doctor`: no faults found, exit code 0', theme='Folders')
def test_clean_people_are_passed_in_silence(people, tmp_path):
    assert examine(people) == []
    shutil.copytree(people, tmp_path/'deep'/'archive'/'inner')
    assert examine(tmp_path/'deep'/'archive') == []                      # one folder in a folder, as in archives
    change(tmp_path/'deep'/'archive'/'inner', row(area=9e4))
    assert [(f.fault, f.file) for f in examine(tmp_path/'deep'/'archive')] == [('area-large', 'inner/annotations/person_keypoints_train.json')]
    cvat = people/'annotations'
    file_of(people, 'val').unlink()
    file_of(people).rename(cvat/'person_keypoints_default.json')
    for path in (people/'images/train').iterdir(): path.rename(people/'images'/path.name)
    assert examine(people) == [] and trains(people) is None
    (cvat/'person_keypoints_default.json').rename(people/'result.json')  # Label Studio
    assert examine(people) == []


def test_folders_without_people(tmp_path):
    assert faults(tmp_path) == ['layout'] and 'no people found' in str(examine(tmp_path)[0])
    with pytest.raises(InputError, match='there is no such folder'): examine(tmp_path/'nowhere')
    with pytest.raises(InputError, match='most is -1; open at least one'): examine(tmp_path, most=-1)


@pytest.mark.parametrize('name', ['coco-people', 'lspet', 'lsp'])
def test_public_people_are_clean(name):
    assert [str(f) for f in examine(sample(f'data/{name}'), most=None if name == 'coco-people' else 150)] == []


def test_the_sample_of_mpii_has_one_split():
    assert faults(sample('data/mpii')) == ['no-split']


def test_rendered_people_are_clean():
    from p2net.rendering.render import RenderConfig, rendered_folder
    for config in (RenderConfig(), RenderConfig(train=8, val=4, seed=7)):
        if (rendered_folder(config)/'fingerprint.json').is_file(): assert [str(f) for f in examine(rendered_folder(config))] == []
