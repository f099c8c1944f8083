"Every planted fault is found, by its name, and nothing else; clean people are passed in silence."
import json
from pathlib import Path

import cv2, numpy as np, pytest

from p2net.doctor import FAULTS, examine
from p2net.people.skeleton import COCO17
from samples import sample

JOINTS = list(COCO17)


def pose(rng):
    "Seventeen labelled joints inside 30..85 x 30..100, and their box."
    xy = np.stack([rng.uniform(30, 85, 17), rng.uniform(30, 100, 17)], 1).round(1)
    low, high = xy.min(0) - 3, xy.max(0) + 3
    return np.c_[xy, np.full(17, 2)].ravel().tolist(), [*low.tolist(), *(high - low).tolist()]


@pytest.fixture
def people(tmp_path):
    "Three people a part, COCO's layout and joints, on photographs of 90x110."
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
        data = dict(images=images, annotations=annotations, categories=[dict(id=1, name='person', keypoints=JOINTS)])
        (tmp_path/f'annotations/person_keypoints_{split}.json').write_text(json.dumps(data))
    return tmp_path


def change(folder, slip, split='train'):
    file = folder/f'annotations/person_keypoints_{split}.json'
    data = json.loads(file.read_text())
    slip(data)
    file.write_text(json.dumps(data))


def row(**changes): return lambda d: d['annotations'][1].update(changes)
def every(**changes): return lambda d: [a.update(changes) for a in d['annotations']]
def keypoint(i, *values): return lambda d: d['annotations'][1]['keypoints'].__setitem__(slice(3*i, 3*i + 3), values)


ROWS = {
    'area-zero': row(area=0), 'area-missing': lambda d: d['annotations'][1].pop('area'), 'area-large': row(area=9e4),
    'box-empty': row(bbox=[20, 20, 0, 30]), 'box-missing': row(bbox=[20, 20]),
    'unknown-image': row(image_id=77), 'unknown-category': row(category_id=3),
    'visibility': keypoint(4, 30, 30, 4), 'keypoints-value': keypoint(4, None, 30, 2), 'joint-origin': keypoint(4, 0, 0, 2),
    'joint-outside': keypoint(4, 30, 140, 2), 'keypoints-number': row(keypoints=[30, 30, 2]*16),
    'num-keypoints': row(num_keypoints=0), 'crowd-only': every(iscrowd=1),
    'nobody': every(keypoints=[0]*51, num_keypoints=0),
    'image-missing': lambda d: d['images'][1].update(file_name='gone.jpg'), 'image-size': lambda d: d['images'][1].update(width=91),
}


@pytest.mark.parametrize('fault', ROWS)
def test_one_slip_in_the_file_is_one_finding(people, fault):
    change(people, ROWS[fault])
    found = examine(people)
    assert [f.fault for f in found] == [fault], [str(f) for f in found]
    assert 'train' in found[0].file and (fault in ('crowd-only', 'nobody') or '12' in found[0].first or 'gone.jpg' in found[0].first or 'train_2' in found[0].first)
    assert found[0].count == 1


@pytest.mark.parametrize('fault, slip, also', [
    ('id', lambda d: d['annotations'][1].update(id=11), ()), ('id', lambda d: d['annotations'][1].pop('id'), ()),
    ('image-twice', lambda d: d['images'][1].update(id=1), ('unknown-image', 'image-twice')),
    ('twins', lambda d: d['annotations'].append({**d['annotations'][0], 'id': 99}), ()),
    ('box-outside', row(bbox=[200, 20, 30, 40], area=600), ('joints-off-box',)),
    ('box-corners', lambda d: [a.update(bbox=[b[0], b[1], b[0] + b[2], b[1] + b[3]]) for a in d['annotations'] for b in [a['bbox']]], ()),
    ('joints-off-box', row(bbox=[0, 0, 8, 8], area=20), ()),
    ('category', lambda d: d['categories'][0].pop('keypoints'), ()),
], ids=lambda v: v if isinstance(v, str) else '')
def test_slips_that_show_twice(people, fault, slip, also):
    change(people, slip)
    found = {f.fault for f in examine(people)}
    assert fault in found and found <= {fault, *also}, found


@pytest.mark.parametrize('fault, slip', [
    ('keypoints-number', row(keypoints=[[30, 30, 2]]*17)), ('keypoints-number', row(keypoints=5)), ('id', row(id=[12])),
    ('unknown-image', row(image_id=[2])), ('unknown-category', row(category_id={})), ('nobody', every(keypoints=5)),
    ('image-size', lambda d: d['images'][1].update(width='90')), ('category', lambda d: d['categories'][0].update(keypoints=4)),
    ('category', lambda d: d['categories'][0].update(keypoints=[1, 2])), ('image-missing', lambda d: d['images'][1].update(file_name=3)),
], ids=lambda v: v if isinstance(v, str) else '')
def test_what_is_of_another_kind_is_a_finding_and_no_traceback(people, fault, slip):
    change(people, slip)
    assert fault in {f.fault for f in examine(people)}


def test_files(people):
    (people/'images/train/train_2.jpg').write_bytes((people/'images/train/train_2.jpg').read_bytes()[:900])
    (people/'images/val/val_1.jpg').write_bytes((people/'images/train/train_1.jpg').read_bytes())
    assert [f.fault for f in examine(people)] == ['image-broken', 'in-both']
    (people/'annotations/person_keypoints_val.json').write_text('{"images": [')
    assert 'unreadable' in [f.fault for f in examine(people)]
    (people/'annotations/person_keypoints_val.json').unlink()
    assert 'no-part' in [f.fault for f in examine(people)]


@pytest.mark.parametrize('pairs, says', [('[[left_eye, right_eye], [left_eye, right_ear]]', 'twice'), ('[[left_eye, right_ear], [left_ear, right_eye]]', 'left_eye is paired with right_ear'),
                                         ('[[left_eye, right_eye]]', 'left_ear is paired with nobody')])
def test_pairs(people, pairs, says):
    (people/'skeleton.yaml').write_text(f'joints: {JOINTS}\nflip_pairs: {pairs}\n')
    found = examine(people)
    assert {f.fault for f in found} == {'pairs'} and says in found[0].first


def test_an_own_skeleton_must_be_that_of_the_file(people):
    (people/'skeleton.yaml').write_text('joints: [left_hand, right_hand]\nsigmas: [.05, .05]\n')
    assert [f.fault for f in examine(people)] == ['nobody', 'nobody']           # none of its joints is in the file
    (people/'skeleton.yaml').write_text('joints: [left_hand, right_hand]\nsigmas: [.05]\n')
    assert [f.fault for f in examine(people)] == ['skeleton']


def test_what_the_loader_refuses_is_said(people):
    change(people, lambda d: d['categories'][0]['keypoints'].__setitem__(3, 'left_horn'))
    assert [(f.fault, 'left_horn' in f.first) for f in examine(people)] == [('layout', True)]


def test_every_fault_of_the_list_is_planted_here():
    text = Path(__file__).read_text()
    assert not [fault for fault in FAULTS if f"'{fault}'" not in text]


def test_clean_people_are_passed_in_silence(people):
    assert examine(people) == []


@pytest.mark.parametrize('name', ['coco-people', 'lspet', 'lsp'])
def test_public_people_are_clean(name):
    assert [str(f) for f in examine(sample(f'data/{name}'))] == []


def test_rendered_people_are_clean():
    from p2net.people.rendering import RenderConfig, rendered_folder
    for config in (RenderConfig(), RenderConfig(train=8, val=4, seed=7)):
        if (rendered_folder(config)/'fingerprint.json').is_file(): assert [str(f) for f in examine(rendered_folder(config))] == []


def test_most_opens_fewer_photographs(people):
    (people/'images/train/train_2.jpg').unlink()
    assert [f.fault for f in examine(people)] == ['image-missing'] and examine(people, most=2) == []
