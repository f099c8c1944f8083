"""Properties of what users can bring: valid folders, annotation and detection files, settings and records are changed at random, and
every command must work or end in one line, without a traceback, a hang or a change of its input.

`tests/test_properties.py` takes a few hundred examples of them. `python tests/properties.py --examples 10000 --seed 0` takes more, goes on
behind a failure, and prints for each property how many examples worked, ended in one line or failed, and a small example of each failure."""
import argparse, contextlib, copy, faulthandler, functools, io, json, math, os, re, shutil, signal, stat, sys, tempfile, time, traceback, warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable
from unittest import mock

import cv2, numpy as np, torch, yaml
from hypothesis import HealthCheck, Phase, given, seed, settings, strategies as st
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent))
from p2net.cli import main
from p2net.errors import InputError, explain
from p2net.evaluation.average_precision import keypoint_ap, write_results
from p2net.people.annotations import read_annotations
from p2net.people.folder import find_people
from p2net.people.heatmaps import render_heatmaps
from p2net.people.person import draw_figure, transform
from p2net.people.skeleton import SKELETONS, example_pose, load_skeleton
from p2net.runs.config import DataConfig, EvaluationConfig, make_config
from p2net.runs.data import load_people, pack_people
from p2net.runs.evaluating import Predictions, average_precision, file_results, measure_boxes, results_of

COCO = SKELETONS['coco17']
LONGEST = 60.                                           # seconds an example may take: it takes about a hundredth of that, training a fortieth
LINE = 1000                                             # characters of the line that a user is shown
QUICK = ('policy=identity', 'data.input_size=[64,48]', 'network.base_channels=8', 'network.width=8', 'training.steps=1', 'training.batch=2',
         'training.warmup_steps=0', 'training.validate_every=null')

SEARCH = (*QUICK, 'search.steps=1', 'search.warmup_steps=1', 'search.batch=2', 'search.compared=1.0', 'search.sub_policies=singles')


# ---- a small valid folder, boxes on it, and a network trained on it

PHOTOS = { # photograph -> people as (height, x, y of the pelvis)
    'train': {1: [(50, 24, 34), (44, 58, 36)], 2: [(56, 40, 34)]},
    'val': {7: [(50, 24, 34), (44, 58, 36)], 8: [(56, 40, 34)], 9: [(52, 30, 32), (40, 60, 36)]}}
SIZE = (64, 80)                                         # (h, w) of the photographs


def row(n, image_id, box, keypoints, **fields):
    "A row of `annotations`."
    return dict(id=n, image_id=image_id, category_id=1, bbox=[round(float(v), 2) for v in box], area=round(float(.5*box[2]*box[3]), 2),
                iscrowd=0, num_keypoints=sum(v > 0 for v in keypoints[2::3]), keypoints=keypoints) | fields


def make_folder(root):
    "A folder in COCO's layout: 3 people to train on; 5, a crowd and somebody without labels to validate on; an image without people."
    rng, n = np.random.default_rng(0), 0
    (root/'annotations').mkdir(parents=True)
    for split, photos in PHOTOS.items():
        (root/'images'/split).mkdir(parents=True)
        data = dict(images=[], annotations=[], categories=[dict(id=1, name='person', keypoints=list(COCO.joints), skeleton=[[16, 14]])])
        for id, people in photos.items():
            picture, name = rng.integers(60, 120, (*SIZE, 3)).astype(np.uint8), f'{id:012d}.{"jpg" if id == 1 else "png"}'
            data['images'].append(dict(id=id, file_name=name, height=SIZE[0], width=SIZE[1]))
            for height, x, y in people:
                lines = (example_pose(SKELETONS['people21']) + rng.normal(0, .02, (21, 2)))*height + (x, y)
                draw_figure(picture, lines, height)
                low, high = lines.min(0).clip(0), np.minimum(lines.max(0), [SIZE[1] - 1, SIZE[0] - 1])
                inside = ((lines[:17] >= 0) & (lines[:17] <= [SIZE[1] - 1, SIZE[0] - 1])).all(1)
                v = rng.choice([0, 1, 2], 17, p=[.1, .2, .7])*inside
                v[5] = 2
                flat, size = np.c_[lines[:17].round(1)*(v[:, None] > 0), v].ravel().tolist(), dict(area=1100.) if (n := n + 1) == 6 else {}
                data['annotations'].append(row(n, id, [*low, *(high - low)], flat, **size))       # one that COCO calls medium
            cv2.imwrite(str(root/'images'/split/name), picture)
        if split == 'val':
            data['annotations'] += [row(n + 1, 7, [2, 2, 20, 12], [0]*51, iscrowd=1), row(n + 2, 9, [50, 2, 24, 40], [0]*51)]
            data['images'].append(dict(id=10, file_name='nobody.png', height=SIZE[0], width=SIZE[1]))
            cv2.imwrite(str(root/'images'/split/'nobody.png'), rng.integers(0, 250, (*SIZE, 3)).astype(np.uint8))
        (root/f'annotations/person_keypoints_{split}.json').write_text(json.dumps(data), encoding='utf-8')
    return root


TRAIN, VAL = (f'annotations/person_keypoints_{split}.json' for split in ('train', 'val'))
OWN = dict(name='own', joints=list(COCO.joints), limbs=[['nose', 'left_eye'], ['left_hip', 'left_knee']], sigmas={'nose': .03},
           flip_pairs=[[a, a.replace('left', 'right')] for a in COCO.joints if a.startswith('left')], torso=['left_shoulder', 'right_hip'],
           groups=dict(face=['nose', 'left_eye', 'right_eye']))


class Place:
    "Valid inputs, made once; every example works on a copy."
    def __init__(self, root):
        self.root = Path(root)
        self.people = make_folder(self.root/'people')
        self.data = {name: json.loads((self.people/name).read_text(encoding='utf-8')) for name in (TRAIN, VAL)}
        people = [a for a in self.data[VAL]['annotations'] if a['num_keypoints']]
        self.boxes = [dict(image_id=a['image_id'], category_id=1, bbox=a['bbox'], score=round(.9 - .07*i, 2)) for i, a in enumerate(people)]
        self.mpii = make_mpii(self.root/'mpii', self.people)
        self.count = 0

    @functools.cached_property
    def runs(self):
        "Records and weights of a run that is complete (seed 0) and of one that was stopped (seed 1)."
        said = command(['train', 'p2net', '--data', str(self.people), '--out', str(self.root/'runs'), *sets(*QUICK)], self.root/'cache')
        assert said.code == 0, said
        stop = command(['train', 'p2net', '--data', str(self.people), '--out', str(self.root/'runs'), '--seeds', '1', '--seconds', '0.001',
                        *sets(*QUICK, 'training.steps=3', 'training.checkpoint_every=1')], self.root/'cache')
        search = command(['search', '--data', str(self.people), '--out', str(self.root/'runs'), *sets(*SEARCH)], self.root/'cache')
        assert stop.code == search.code == 0, (stop, search)
        return self.root/'runs'

    @property
    def weights(self): return self.runs/'work/tiny/p2net-coco/0/model.safetensors'

    @functools.cached_property
    def rendered(self):
        "A folder of rendered people."
        said = command(['people', str(self.root/'rendered'), '--train', '1', '--val', '1', '--workers', '1'], self.root/'cache')
        assert said.code == 0, said
        return self.root/'rendered'

    @contextlib.contextmanager
    def fresh(self):
        "An empty folder for one example."
        self.count += 1
        folder = self.root/f'example-{self.count}'
        folder.mkdir()
        try: yield folder
        finally: remove(folder)


def make_mpii(root, people):
    "The same people in MPII's layout."
    (root/'annot').mkdir(parents=True); (root/'images').mkdir()
    mpii = SKELETONS['mpii16']
    for split, name in (('train', 'train.json'), ('val', 'valid.json')):
        rows = []
        for id, figures in PHOTOS[split].items():
            photo = next((people/'images'/split).glob(f'{id:012d}.*'))
            shutil.copy(photo, root/'images')
            rows += [dict(image=photo.name, center=[x, y], scale=height/200, joints=(example_pose(mpii)*height + (x, y)).round(1).tolist(), joints_vis=[1]*16)
                     for height, x, y in figures]
        (root/'annot'/name).write_text(json.dumps(rows), encoding='utf-8')
    return root


def remove(folder):
    "A folder away, with whatever an example made of it."
    for path in folder.rglob('*'):
        if path.is_dir() and not path.is_symlink(): path.chmod(0o700)
    shutil.rmtree(folder)


# ---- changes of a JSON or YAML tree

class Raw(str):
    "A text that stands in the file as it is, without quotes."
    def __repr__(self): return f'Raw({str(self)[:40]!r})'


MARK = '\x02raw %d\x03'
NAMES = ['', ' ', 'id', 'name', 'x', 'ä', '日本', 'a\0b', 'a\nb', '\ud800', '../x', '/', '.', 'n'*300, 'n'*5000, '%41', 'a\\b', '\u202e', '\x1b[31m', '000000000007.png', 'LEFT_EYE']
TEXTS = [*NAMES, '12', '1e400', 'nan', '-3', '7.0', ' 7 ', '٣', '1_0', '0x10', 'true', 'null', 'person', '/dev/zero', 'C:\\a.png']
NUMBERS = [0, 1, -1, 2, 7, -10**9, .5, -.0, 1e-300, 5e-324, 1e300, -1e300, 2**31, 2**53 + 1, 2**63, 2**70, 10**30, 10**320, math.nan, math.inf, -math.inf]
RAW = [Raw('1e400'), Raw('-1e400'), Raw('1'*5000), Raw('[' * 20000 + ']' * 20000), Raw('{"a":' * 9000 + '1' + '}' * 9000), Raw('NaN'), Raw('undefined'), Raw("'a'"), Raw('')]
RAW_YAML = [Raw('.nan'), Raw('.inf'), Raw('1e3'), Raw('0o17'), Raw('yes'), Raw('2020-01-01'), Raw('&a [*a]'), Raw('*b'), Raw('!!python/object:os.system x'),
            Raw('!!binary aGk='), Raw('!!set {a, b}'), Raw('? [a]'), Raw('{a: {b: }}'), Raw('[' * 2000), Raw('<<: 3'), Raw('1'*5000), Raw('"\\ud800"'), Raw('\t'), Raw('"')]
OTHERS = [None, True, False, [], {}, [1], [[1, 2]], [[1, 2, 2]]*17, {'a': 1}, {'id': {}}, [None], ['nose'], [0]*51, [1, 2, 3, 4], [[[]]]]


def like(old):
    "Values that are nearly the old one: another type, sign, size or length."
    if isinstance(old, bool) or old is None: return [not old, str(old), int(bool(old))]
    if isinstance(old, (int, float)):
        near = [str(old) if abs(old) < 1e300 else 'large', [old], {'value': old}, -old, 0, 1, 2]
        return near + [float(old), old + 1, old*1000, old/1000, old + .5] if abs(old) < 1e300 else near
    if isinstance(old, str): return [old.upper(), old + ' ', [old], old[:-1], old.replace('_', ' '), 'x/' + old, 'images\\val\\' + old, old[:2] + '\0' + old[2:], '\ud800' + old, old*300, '../' + old, 1]
    if isinstance(old, list): return [old[:-1], old + old, old[::-1], dict(enumerate(old)), [old], str(old), [str(v) for v in old], old[:1], [None]*len(old)]
    return [[*map(list, old.items())], [old], list(old), str(old), {}]


def values(old, raw=RAW):
    "Any value in the place of `old`."
    return st.one_of(*(st.sampled_from(list(group)) for group in (like(old), like(old), OTHERS, NUMBERS, TEXTS, raw)))


def children(node):
    "Keys or indices of a container."
    return list(node) if isinstance(node, dict) else list(range(len(node))) if isinstance(node, list) else []


def kinds_of(tree, path=(), kind=()):
    "All paths into a tree, by their keys: those that differ in indices alone are of one kind."
    found = {}
    for key in children(tree):
        here = (*kind, key if isinstance(tree, dict) else '*')
        found.setdefault(here, []).append((*path, key))
        for k, paths in kinds_of(tree[key], (*path, key), here).items(): found.setdefault(k, []).extend(paths)
    return found


@st.composite
def places(draw, tree):
    "A path into a tree, at least one step long; () where it is empty. Each kind of place is as likely as another, however many there are of it."
    found = kinds_of(tree)
    return draw(st.sampled_from(found[draw(st.sampled_from(list(found)))])) if found else ()


def at(tree, path):
    for key in path: tree = tree[key]
    return tree


def rows_of(tree):
    "The lists of dictionaries of a tree."
    if isinstance(tree, list) and tree and isinstance(tree[0], dict): return [()]
    return [(key,) for key, value in tree.items() if isinstance(value, list) and value and isinstance(value[0], dict)] if isinstance(tree, dict) else []


@st.composite
def change_of(draw, tree, raw=RAW):
    "Changes `tree` in one way, and says which."
    kinds = ['replace']*4 + ['delete', 'delete', 'rename', 'swap', 'twice', 'insert', 'retype', 'wrap'] + (['every']*3 + ['drop', 'twice', 'swap rows'] if rows_of(tree) else [])
    kind = draw(st.sampled_from(kinds))
    if kind == 'every':                                 # as a tool writes it: all rows alike
        where = draw(st.sampled_from(rows_of(tree)))
        rows = [r for r in at(tree, where) if isinstance(r, dict)]
        keys = sorted({str(k) for r in rows for k in r})
        if not keys: return 'nothing'
        key = draw(st.sampled_from(keys))
        if draw(st.booleans()):
            for r in rows: r.pop(key, None)
            return f'delete {key} of all {where}'
        olds = [r.get(key) for r in rows]
        n = draw(st.integers(0, len(like(olds[0])) - 1))
        value = draw(st.one_of(st.just(...), values(olds[0], raw)))
        for r in rows: r[key] = copy.deepcopy(value) if value is not ... else like(r[key])[n % len(like(r[key]))] if key in r else None
        return f'all {where}, {key} -> {brief(rows[0].get(key))}'
    if kind in ('drop', 'swap rows'):
        where = max(rows_of(tree), key=lambda path: len(at(tree, path))) if draw(st.booleans()) else draw(st.sampled_from(rows_of(tree)))
        rows = at(tree, where)
        a, b = (draw(st.integers(0, len(rows) - 1)) for _ in 'ab')
        if kind == 'drop': del rows[a]
        else: rows[a], rows[b] = rows[b], rows[a]
        return f'{kind} {where}[{a}]' + (f', [{b}]' if kind == 'swap rows' else '')
    path = draw(places(tree))
    if not path: return 'nothing'
    *head, last = path
    parent = at(tree, head)
    if kind == 'replace':
        parent[last] = copy.deepcopy(draw(values(parent[last], raw)))
        return f'{path} -> {brief(parent[last])}'
    if kind == 'retype':
        parent[last] = copy.deepcopy(draw(st.sampled_from(like(parent[last]))))
        return f'{path} -> {brief(parent[last])}'
    if kind == 'delete':
        del parent[last]
        return f'delete {path}'
    if kind == 'rename':
        if not isinstance(parent, dict): return 'nothing'
        name = draw(st.sampled_from(NAMES + list(parent)))
        parent[name] = parent.pop(last)
        return f'rename {path} to {name[:40]!r}'
    if kind == 'swap':
        other = draw(places(tree))
        if other[:len(path)] == path or path[:len(other)] == other: return 'nothing'
        a, b = at(tree, path), at(tree, other)
        parent[last], at(tree, other[:-1])[other[-1]] = b, a
        return f'swap {path} and {other}'
    if kind == 'wrap':
        parent[last] = draw(st.sampled_from([[parent[last]], {'data': parent[last]}, {'0': parent[last]}]))
        return f'wrap {path}'
    if not isinstance(parent, list):
        parent[draw(st.sampled_from(NAMES))] = copy.deepcopy(parent[last])
        return f'a copy of {path}'
    new = copy.deepcopy(parent[last]) if kind == 'twice' else copy.deepcopy(draw(values(parent[last], raw)))
    parent.insert(draw(st.sampled_from([last, len(parent)])), new)
    return f'{kind} {path}' + (f': {brief(new)}' if kind == 'insert' else '')


def brief(value): return text if len(text := repr(value)) < 80 else text[:77] + '...'


def with_raw(tree, write):
    "A tree as text, its raw parts as they are."
    raws = []
    def mark(node):
        if isinstance(node, Raw): raws.append(str(node)); return MARK % (len(raws) - 1)
        if isinstance(node, dict): return {k: mark(v) for k, v in node.items()}
        return [mark(v) for v in node] if isinstance(node, list) else node
    text = write(mark(tree))
    for n, raw in enumerate(raws):
        for quoted in (json.dumps(MARK % n), MARK % n): text = text.replace(quoted, raw)
    return text


def as_json(tree): return with_raw(tree, json.dumps)
def as_yaml(tree): return with_raw(tree, lambda tree: yaml.safe_dump(tree, allow_unicode=True, default_flow_style=None, sort_keys=False, width=10**6))


# ---- changes of bytes and of folders

LURES = [b'', b'\0', b'\xff', b'\xef\xbb\xbf', b'"', b'}', b']', b',', b'null', b'1e999', b'\xed\xa0\x80', b'<!DOCTYPE html>', b'version https://git-lfs.github.com/spec/v1\n', b'\r\n', b'# ', b'NaN']


@st.composite
def change_of_bytes(draw, data):
    "Other bytes, and what was done."
    def utf(codec): return data.decode('utf-8', 'replace').encode(codec, 'replace')
    kind = draw(st.sampled_from(['cut', 'flip', 'insert', 'remove', 'mark', 'utf-16', 'latin-1', 'empty', 'twice', 'behind', 'lines', 'zeros', 'instead']))
    n = draw(st.integers(0, max(0, len(data) - 1)))
    if kind == 'cut': return data[:n], f'cut at byte {n}'
    if kind == 'flip':
        bit = draw(st.integers(0, 7))
        return data[:n] + bytes([data[n] ^ 1 << bit]) + data[n + 1:] if data else data, f'flip bit {bit} of byte {n}'
    if kind == 'insert':
        new = draw(st.sampled_from(LURES))
        return data[:n] + new + data[n:], f'insert {new!r} at {n}'
    if kind == 'remove':
        m = draw(st.integers(1, 40))
        return data[:n] + data[n + m:], f'remove {m} bytes at {n}'
    if kind == 'instead':
        new = draw(st.sampled_from(LURES + [b'[]', b'{}', b'0', b'"a"', b'[[]]', b'a: [']))
        return new, f'{new!r} instead'
    if kind == 'behind':
        new = draw(st.sampled_from([b'\0'*100, b'\n', b'}', b'garbage', data]))
        return data + new, f'{new[:10]!r} behind'
    if kind == 'zeros': return b'\0'*len(data), 'zeros'
    return dict(mark=lambda: b'\xef\xbb\xbf' + data, empty=lambda: b'', twice=lambda: data*2, lines=lambda: data.replace(b'\n', b'\r\n'),
                **{codec: (lambda codec=codec: utf(codec)) for codec in ('utf-16', 'latin-1')})[kind](), kind


@dataclass
class Case:
    "A changed copy of a template: files with other content, and what is done with the folder."
    template: str                                       # attribute of Place
    files: dict = field(default_factory=dict)           # relative name -> bytes
    acts: list = field(default_factory=list)            # (what, relative name, argument)
    steps: list = field(default_factory=list)           # in words

    def __repr__(self): return f"{self.template}: " + '; '.join([*self.steps, *(' '.join(map(repr, a)) for a in self.acts)] or ['as it is'])

    def _repr_pretty_(self, printer, cycle): printer.text(repr(self))           # what hypothesis prints of a failure

    def make(self, place, folder):
        "The changed copy, in `folder`."
        source = getattr(place, self.template)
        if isinstance(source, Path): shutil.copytree(source, folder, symlinks=True)
        else: folder.mkdir()
        for name, data in self.files.items():
            (folder/name).parent.mkdir(parents=True, exist_ok=True)
            (folder/name).write_bytes(data)
        for what, name, argument in self.acts:
            path = folder/name
            with contextlib.suppress(OSError): ACTS[what](path, argument, folder)
        return folder


def clear(path):
    if path.is_dir() and not path.is_symlink(): shutil.rmtree(path)
    else: path.unlink()


def instead(make):
    "An act that puts something else in the place of a file."
    def act(path, argument, folder):
        if path.exists() or path.is_symlink(): clear(path)
        make(path, argument)
    return act


def nest(path, argument, folder):
    inside = folder/(argument or 'x')
    inside.mkdir(exist_ok=True)
    for p in list(folder.iterdir()):
        if p != inside: shutil.move(str(p), str(inside/p.name))


ACTS = {
    'remove': lambda path, argument, folder: clear(path),
    'rename': lambda path, argument, folder: path.rename(path.with_name(argument)),
    'copy as': lambda path, argument, folder: (shutil.copytree if path.is_dir() else shutil.copy)(path, path.with_name(argument)),
    'folder for': instead(lambda path, argument: path.mkdir()),
    'link for': instead(lambda path, argument: path.symlink_to(argument)),
    'text for': instead(lambda path, argument: path.write_text(argument, encoding='utf-8')),
    'pipe for': instead(lambda path, argument: os.mkfifo(path)),
    'mode of': lambda path, argument, folder: path.chmod(argument),
    'put': lambda path, argument, folder: (path.parent.mkdir(parents=True, exist_ok=True), path.write_text(argument, encoding='utf-8')),
    'nest': nest,
}
FILES = [TRAIN, VAL, 'images/train/000000000001.jpg', 'images/train/000000000002.png', 'images/val/000000000007.png', 'images/val/000000000009.png']
FOLDERS = ['annotations', 'images', 'images/train', 'images/val']
PICTURES = FILES[2:]


@st.composite
def acts(draw):
    "Something that happens to the files of a folder."
    kind = draw(st.sampled_from(['remove', 'rename', 'copy as', 'instead', 'put', 'mode of', 'nest']))
    if kind == 'nest': return 'nest', '.', draw(st.sampled_from(['x', 'images', 'annotations', '.hidden', '__MACOSX', 'people-1']))
    if kind == 'put':
        return 'put', draw(st.sampled_from(['annotations/.DS_Store', 'annotations/._person_keypoints_val.json', 'annotations/instances_val.json', 'result.json', 'joints.mat',
                                            'annotations/person_keypoints_trainval.json', 'annot/train.json', 'skeleton.yaml', 'annotations/captions_val.json', 'images/val/Thumbs.db'])), \
               draw(st.sampled_from(['', '{}', '[]', 'x', '{"images": [], "annotations": []}']))
    where = draw(st.sampled_from(FILES + FOLDERS))
    if kind == 'remove': return 'remove', where, None
    if kind == 'mode of': return 'mode of', where, draw(st.sampled_from([0o000, 0o444, 0o555]))
    if kind == 'rename':
        name = Path(where).name
        return 'rename', where, draw(st.sampled_from([name.upper(), name.replace('.', '.copy.'), 'ä ' + name, '\udce4' + name, '._' + name, 'x', name.replace('val', 'valid'), name.replace('train', 'val'),
                                                      name.replace('person_keypoints_', ''), name.replace('.png', '.jpg'), name + '.txt']))
    if kind == 'copy as': return 'copy as', where, draw(st.sampled_from(['x', 'person_keypoints_val2017.json', 'person_keypoints_minival.json', 'person_keypoints_festival.json', 'valid', '000000000008.png']))
    kind = draw(st.sampled_from(['folder for', 'link for', 'text for'] + ['pipe for']*(where in PICTURES)))
    if kind == 'link for': return kind, where, draw(st.sampled_from([Path(where).name, 'nowhere', '/dev/null', '.', '..', '/']))
    return kind, where, draw(st.sampled_from(['', 'x', '<!DOCTYPE html>\n'])) if kind == 'text for' else None


@st.composite
def changed_tree(draw, tree, most=3, write=as_json, raw=RAW):
    "A tree after one to `most` changes, as bytes, and the changes in words."
    tree, steps = copy.deepcopy(tree), []
    for _ in range(draw(st.integers(1, most))):
        if not isinstance(tree, (dict, list)) or not tree: break
        steps.append(draw(change_of(tree, raw)))
    return encoded(write, tree), steps


def encoded(write, tree):
    "What a script writes: text in UTF-8, whatever is in it."
    return write(tree).encode('utf-8', 'surrogatepass')


# ---- changes that leave a file likely to be read

LIKELY = dict(area=[1, 40.5, 900, 3000., 1e7, 1e-3], iscrowd=[0, 1], num_keypoints=[0, 1, 5, 17], bbox=[[0, 0, 80, 64], [10., 5., 30., 50.], [40, 20, -10, 5], [0, 0, 0, 0], [200, 5, 10, 10], [-1e6, -1e6, 3e6, 3e6], [3, 4, 1e-3, 2e-3]],
              id=[101, 10**12, 55.5, -4], category_id=[1, 2], image_id=[7, 8, 9, 10])


@st.composite
def likely_change(draw, data):
    "Something that annotation files differ in."
    rows = data['annotations']
    kind = draw(st.sampled_from(['value']*4 + ['joint', 'joint', 'every', 'drop', 'copy', 'ids', 'image', 'category', 'order', 'boxes']))
    n = draw(st.integers(0, len(rows) - 1)) if rows else 0
    if not rows: return 'nothing'
    if kind == 'value':
        key = draw(st.sampled_from(list(LIKELY)))
        rows[n][key] = copy.deepcopy(draw(st.sampled_from(LIKELY[key])))
        return f'annotations[{n}] {key} = {rows[n][key]}'
    if kind == 'joint':
        j, value = draw(st.integers(0, 16)), draw(st.sampled_from([[0, 0, 0], [20., 30., 2], [20, 30, 1], [7, 9, 0], [math.nan, math.nan, 0], [500., -30., 2]]))
        rows[n]['keypoints'][3*j:3*j + 3] = value
        return f'annotations[{n}] joint {j} = {value}'
    if kind == 'every':
        key, value = draw(st.sampled_from([('score', .5), ('iscrowd', 0), ('area', 800.), ('segmentation', []), ('iscrowd', False), ('num_keypoints', 3), ('track_id', 'a'), ('num_keypoints', 0)]))
        for a in rows: a[key] = value
        return f'all {key} = {value}'
    if kind == 'drop': del rows[n]; return f'drop annotations[{n}]'
    if kind == 'copy': rows.append(copy.deepcopy(rows[n]) | dict(id=1000 + len(rows))); return f'copy annotations[{n}]'
    if kind == 'order': rows.reverse(); return 'reverse'
    if kind == 'ids':
        first, step = draw(st.sampled_from([(1, 1), (900, -7), (2.5, 1), (10**14, 1)]))
        for i, a in enumerate(rows): a['id'] = first + step*i
        return f'ids from {first} by {step}'
    if kind == 'image':
        rule = draw(st.sampled_from(['float', 'text', 'negative', 'large']))
        def new(i): return dict(float=float, text='frame {}'.format, negative=lambda i: -i, large=lambda i: 10**14 + i)[rule](i)
        if any(isinstance(i['id'], str) for i in data['images']): return 'nothing'
        for i in data['images']: i['id'] = new(i['id'])
        for a in rows: a['image_id'] = new(a['image_id'])
        return f'image ids {rule}'
    if kind == 'category':
        id = draw(st.sampled_from([0, 3, 99, 'human']))
        data['categories'][0]['id'] = id
        for a in rows: a['category_id'] = id
        if draw(st.booleans()):
            data['categories'].append(dict(id=44, name='table'))
            rows.append(dict(id=5000 + len(rows), image_id=rows[0]['image_id'], category_id=44, bbox=[4, 4, 60, 50], area=2000., iscrowd=0, num_keypoints=0, keypoints=[0]*51))
        return f'category {id!r}'
    for a in rows: a['bbox'] = [v + .5 for v in a['bbox']]
    return 'boxes moved'


BOX = dict(score=[0, 1, .5, -3., 1e9, 1e-9], image_id=[7, 8, 9, 10, 55, '9', '000000000009', 9.], category_id=[0, 1, 2, 17, 'person', None], bbox=LIKELY['bbox'] + [[1, 2, 70, 60]])


@st.composite
def likely_change_of_boxes(draw, rows):
    "Something that detection files differ in."
    kind, n = draw(st.sampled_from(['value']*4 + ['every', 'drop', 'copy', 'as it is'])), draw(st.integers(0, len(rows) - 1)) if rows else 0
    if not rows or kind == 'as it is': return 'nothing'
    if kind == 'drop': del rows[n]; return f'drop row {n}'
    if kind == 'copy': rows.append(dict(rows[n])); return f'copy row {n}'
    key = draw(st.sampled_from(list(BOX)))
    value = draw(st.sampled_from(BOX[key]))
    for r in rows if kind == 'every' else [rows[n]]: r[key] = copy.deepcopy(value)
    return f'{"all" if kind == "every" else f"row {n}"} {key} = {value!r}'


@st.composite
def likely_tree(draw, tree, change):
    "A tree after one to three likely changes, as bytes, and the changes in words."
    tree = copy.deepcopy(tree)
    steps = [draw(change(tree)) for _ in range(draw(st.integers(1, 3)))]
    return encoded(as_json, tree), steps


@st.composite
def folders(draw, place):
    "A changed folder in COCO's layout; sometimes in MPII's."
    if draw(st.integers(0, 9)) == 0:
        name = draw(st.sampled_from(['annot/train.json', 'annot/valid.json']))
        data, steps = draw(changed_tree(json.loads((place.mpii/name).read_text(encoding='utf-8'))))
        return Case('mpii', {name: data}, steps=[f'{name}: {s}' for s in steps])
    case = Case('people')
    for kind in draw(st.lists(st.sampled_from(['tree']*5 + ['likely']*3 + ['bytes', 'acts', 'acts', 'photo', 'skeleton']), min_size=1, max_size=2)):
        if kind in ('tree', 'likely'):
            name = draw(st.sampled_from([TRAIN, VAL, VAL]))
            case.files[name], steps = draw(changed_tree(place.data[name]) if kind == 'tree' else likely_tree(place.data[name], likely_change))
            case.steps += [f'{Path(name).stem[-5:]}: {s}' for s in steps]
        if kind in ('bytes', 'photo'):
            name = draw(st.sampled_from([TRAIN, VAL] if kind == 'bytes' else PICTURES))
            case.files[name], step = draw(change_of_bytes(case.files.get(name) or (place.people/name).read_bytes()))
            case.steps.append(f'{name}: {step}')
        if kind == 'skeleton': case.files['skeleton.yaml'] = draw(skeletons(case.steps))
        if kind == 'acts': case.acts.append(draw(acts()))
    return case


@st.composite
def skeletons(draw, steps):
    "Bytes of a skeleton.yaml; `steps` takes what was done."
    data, said = draw(changed_tree(OWN, write=as_yaml, raw=RAW_YAML)) if draw(st.integers(0, 4)) else (encoded(as_yaml, OWN), ['as it is'])
    if draw(st.integers(0, 4)) == 0: data, more = draw(change_of_bytes(data)); said = [*said, more]
    steps += [f'skeleton.yaml: {s}' for s in said]
    return data


@st.composite
def box_files(draw, place):
    "A changed detection file in one of its three forms."
    names = {i['id']: i['file_name'] for i in place.data[VAL]['images']}
    by_name = {}
    for b in place.boxes: by_name.setdefault(names[b['image_id']], []).append([*b['bbox'], b['score']])
    tree = draw(st.sampled_from([place.boxes, place.boxes, place.boxes, place.data[VAL], by_name]))
    data, steps = draw(likely_tree(place.boxes, likely_change_of_boxes) if draw(st.booleans()) else changed_tree(tree, 2))
    if draw(st.integers(0, 7)) == 0: data, more = draw(change_of_bytes(data)); steps = [*steps, more]
    return Case('boxes', {'boxes.json': data}, steps=steps)


# ---- what is asked of a call

class TookTooLong(BaseException):
    "An example went on for LONGEST seconds."


@contextlib.contextmanager
def limit(seconds=LONGEST):
    "Stops what takes too long, wherever Python can be stopped; otherwise says so afterwards."
    def stop(*_): raise TookTooLong(f'{seconds} s')
    before, start = signal.signal(signal.SIGALRM, stop), time.monotonic()
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try: yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    if time.monotonic() - start > seconds: raise TookTooLong(f'{time.monotonic() - start:.0f} s')


def contents(folder):
    "Everything below a folder: names, kinds, modes, bytes."
    found = {}
    for path in sorted(Path(folder).rglob('*')):
        about = path.lstat()
        if stat.S_ISREG(about.st_mode): what = path.read_bytes()
        else: what = os.readlink(path) if stat.S_ISLNK(about.st_mode) else None
        found[str(path.relative_to(folder))] = stat.S_IFMT(about.st_mode), stat.S_IMODE(about.st_mode), about.st_mtime_ns if what is not None else 0, what
    return found


@contextlib.contextmanager
def unchanged(*folders):
    "Inputs must be after a call what they were before."
    before = [contents(f) for f in folders]
    yield
    for folder, was in zip(folders, before):
        now = contents(folder)
        assert now == was, f"changed: {sorted(k for k in {*now, *was} if now.get(k) != was.get(k))[:5]}"


def check_line(line):
    "A message for a user is one line that can be read and printed."
    assert line and len(line.splitlines()) == 1, f'not one line: {line!r:.300}'
    assert len(line) <= LINE, f'a line of {len(line)} characters: {line:.200}'
    assert not re.search('[\0\x1b]', line), f'control characters: {line!r:.300}'


def people_or_line(call):
    "'worked', or 'one line' where the call ends in an InputError, or in what the system says of a file."
    try: call()
    except (InputError, OSError) as error:
        line, code = explain(error)
        assert code == 2, line
        check_line(line)
        return 'one line'
    return 'worked'


@dataclass
class Said:
    "How a command ended."
    code: int
    out: str
    err: str


def command(words, cache):
    "`p2net` with these words, in this process, with streams as a terminal of UTF-8 has them."
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding='utf-8', errors=errors, write_through=True) for errors in ('strict', 'backslashreplace'))
    before = {k: os.environ.get(k) for k in ('P2NET_CACHE', 'TQDM_DISABLE')}
    os.environ.update(P2NET_CACHE=str(cache), TQDM_DISABLE='1')
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), warnings.catch_warnings():
            warnings.simplefilter('default')
            try: code = main(list(map(str, words)))
            except SystemExit as error: code = error.code
    finally:
        for k, v in before.items(): os.environ.pop(k) if v is None else os.environ.update({k: v})
    return Said(code, *(s.buffer.getvalue().decode('utf-8', 'replace') for s in (out, err)))


def details(text):
    "The traceback of a fault from the file that its message names, which goes."
    if not (found := re.search('the details are in (.+?); please', text)): return ''
    lines = (file := Path(found[1])).read_text(encoding='utf-8').splitlines()
    file.unlink()
    frame = [f'{Path(f).name}:{n}' for f, n in re.findall(r'File "(.*p2net/.*)", line (\d+)', '\n'.join(lines))]
    return f' AT {frame[-1] if frame else "?"} IN\n' + '\n'.join(lines[-12:])


NOTES = ('train: ', 'val: ', 'boxes: ', 'p2net')          # how a line about what was left out begins


def worked_or_line(words, cache):
    "'worked' or 'one line' of a command; anything else fails."
    said = command(words, cache)
    lines = said.err.splitlines()
    assert 'Traceback' not in said.err + said.out, said.err
    assert said.code in (0, 1, 2), f'exit code {said.code}: {said.err[-300:]}{details(said.err)}'
    told = [line for line in lines if line.startswith(f'p2net {words[0]}:')]
    for line in told: check_line(line)
    assert len(lines) < 40 and all(line.startswith(NOTES) for line in lines), f'lines that no user expects: {[l for l in lines if not l.startswith(NOTES)][:6]}'
    if said.code == 2: assert told and lines[-1] == told[-1], (said.code, lines)        # notes may come before it
    return 'one line' if said.code == 2 or said.code == 1 and told else 'worked'


def sets(*pairs): return [word for pair in pairs for word in ('--set', pair)]


# ---- the properties

def data_of(folder): return DataConfig(source=str(folder), input_size=(64, 48))


def check_readers(place, case):
    "A folder becomes people and packs, or is refused in one line."
    with place.fresh() as here:
        folder = case.make(place, here/'people')
        with unchanged(folder), limit():
            return people_or_line(lambda: load_people(data_of(folder), here/'cache', progress=False, say=check_line))


def check_parts(place, case):
    "Each part by itself: the splits, the annotation files and the skeleton."
    with place.fresh() as here:
        folder = case.make(place, here/'people')
        ends = []
        with unchanged(folder), limit():
            for split in ('train', 'val'): ends.append(people_or_line(lambda: getattr(find_people(folder), split)()))
            for name in (TRAIN, VAL): ends.append(people_or_line(lambda: read_annotations(folder/name)))
            if (folder/'skeleton.yaml').is_file(): ends.append(people_or_line(lambda: load_skeleton(folder/'skeleton.yaml')))
        return 'worked' if set(ends) == {'worked'} else 'one line'


def check_boxes(place, case):
    "A detection file becomes people on the photographs of a folder, or is refused in one line."
    boxes, people = case
    with place.fresh() as here:
        folder = people.make(place, here/'people') if people else place.people
        file = boxes.make(place, here/'boxes')/'boxes.json'
        def read():
            if (found := find_people(folder)).kind != 'coco': raise InputError('boxes need photographs in COCO\'s layout')  # as `train detected` says
            found.val(detections=file)
        with unchanged(folder, file.parent), limit(): return people_or_line(read)


def check_train(place, case):
    "Training on a changed folder."
    with place.fresh() as here:
        folder = case.make(place, here/'people')
        with unchanged(folder), limit():
            return worked_or_line(['train', 'p2net', '--data', folder, '--out', here/'runs', *sets(*QUICK)], here/'cache')


EXPERIMENTS = ('search', 'mean-pose', 'untrained', 'box-quality', 'recipe-ablation', 'no-attention', 'lsp-test')


def check_experiments(place, case):
    "Other experiments on a changed folder."
    name, people = case
    with place.fresh() as here:
        folder = people.make(place, here/'people')
        if name in ('box-quality', 'recipe-ablation', 'lsp-test'): shutil.copytree(place.runs, here/'runs')
        words = ['search'] if name == 'search' else ['train', name]
        with unchanged(folder), limit(): return worked_or_line([*words, '--data', folder, '--out', here/'runs', *sets(*SEARCH)], here/'cache')


def check_evaluate(place, case):
    "Trained weights on a changed folder, sometimes in the boxes of a changed file."
    boxes, people = case
    with place.fresh() as here:
        folder, weights = people.make(place, here/'people'), place.weights
        words = ['evaluate', weights, '--data', folder, '--results', here/'results.json', *sets(*QUICK)]
        if boxes: words += ['--boxes', boxes.make(place, here/'boxes')/'boxes.json']
        with unchanged(folder, weights.parent, *([here/'boxes'] if boxes else [])), limit(): return worked_or_line(words, here/'cache')


def check_settings(place, case):
    "Trained weights under a changed file of settings; what would be long work is only read."
    data, steps = case
    with place.fresh() as here:
        file = here/'settings'/'settings.yaml'
        file.parent.mkdir()
        file.write_bytes(data)
        def cheap(c): return (c.data.source == 'here' and max(c.data.input_size) <= 64 and c.network.base_channels == c.network.width == 8 and c.network.depth == 18 and c.network.architecture == 'p2net'
                              and c.network.weights is None and c.training.init is None and c.evaluation.batch <= 64 and not c.evaluation.shifts and c.data.reach < 2)
        with unchanged(file.parent, place.people), limit():
            config = None
            def read(): nonlocal config; config = make_config('tiny', file)
            if people_or_line(read) == 'worked' and not cheap(config): return 'worked'
            return worked_or_line(['evaluate', place.weights, '--config', file, '--data', place.people], here/'cache')


def check_detected(place, case):
    "Trained weights in the boxes of a changed detection file, on a folder that may be changed, too."
    boxes, people = case
    with place.fresh() as here:
        folder = people.make(place, here/'people') if people else place.people
        file = boxes.make(place, here/'boxes')/'boxes.json'
        shutil.copytree(place.runs, here/'runs')
        with unchanged(folder, file.parent), limit():
            return worked_or_line(['train', 'detected', '--data', folder, '--out', here/'runs', *sets(*QUICK, f'evaluation.boxes={file}')], here/'cache')


def check_predict(place, case):
    "Prediction on photographs of a folder that is changed, in boxes of a changed file."
    boxes, people, shipped = case
    with place.fresh() as here:
        folder = people.make(place, here/'people')
        words = ['predict', folder/'images/val', '--out', here/'poses', *([] if shipped else ['--weights', place.weights])]
        if boxes: words += ['--boxes', boxes.make(place, here/'boxes')/'boxes.json']
        with unchanged(folder, here/'boxes' if boxes else folder), limit(): ended = worked_or_line(words, here/'cache')
        if (here/'poses').is_dir() and ended == 'worked': json.loads((here/'poses/poses.json').read_text(encoding='utf-8'))
        return ended


def check_doctor(place, case):
    "The doctor on a changed folder and a changed detection file: where it finds no fault, training takes them; what training refuses has a fault."
    from p2net.tools.doctor import examine
    boxes, people = case
    with place.fresh() as here:
        folder = people.make(place, here/'people')
        file = boxes.make(place, here/'boxes')/'boxes.json' if boxes else None
        with unchanged(folder, *([file.parent] if boxes else [])), limit():
            ended = worked_or_line(['doctor', folder], here/'cache')
            faults = [f for f in examine(folder, boxes=file) if f.level == 'fault']
            def read():
                load_people(data_of(folder), here/'cache', progress=False, say=check_line)
                if boxes and (found := find_people(folder)).kind == 'coco': pack_people(found.val(detections=file), found.skeleton, data_of(folder), here/'cache', False)
            refusals = []
            def kept():
                try: read()
                except (InputError, OSError) as error: refusals.append(str(error)); raise
            people_or_line(kept)
        assert ended == 'worked', 'the doctor itself refuses'
        assert faults or not refusals, f'the doctor finds no fault, training says: {refusals[0]}'
        return 'worked' if not faults else 'faults, read all the same' if not refusals else 'faults, refused'


RUN = 'tiny/p2net-coco'
READS = dict( # command -> how the names of the files begin that it reads
             again=f'records/{RUN}/0/', resume=f'work/{RUN}/1/', evaluate=f'work/{RUN}/0/model', detected=f'work/{RUN}/0/model', predict=(f'work/{RUN}/0/model', f'records/{RUN}/0/record'),
             card='records/tiny/search-coco/', search='records/tiny/search-coco/', searched='records/tiny/search-coco/0/policy')


@st.composite
def run_folders(draw, place):
    "Changed records, weights or checkpoints, and what is asked of them."
    what = draw(st.sampled_from([*READS, 'resume']))
    files = sorted(str(p.relative_to(place.runs)) for p in place.runs.rglob('*') if p.is_file())
    name = draw(st.sampled_from([f for f in files if f.startswith(READS[what])]))
    data, case = (place.runs/name).read_bytes(), Case('runs')
    if name.endswith('.json') and draw(st.booleans()): case.files[name], steps = draw(changed_tree(json.loads(data)))
    elif draw(st.integers(0, 5)) == 0: steps, case.acts = [], [('remove', name, None)]
    else: case.files[name], step = draw(change_of_bytes(data)); steps = [step]
    case.steps = [f'{name}: {s}' for s in steps]
    return case, what


def check_runs(place, case):
    "A command on changed records, weights or checkpoints."
    case, what = case
    with place.fresh() as here:
        runs = case.make(place, here/'runs')
        weights, train = runs/f'work/{RUN}/0/model.safetensors', ['train', 'p2net', '--data', place.people, '--out', runs]
        (here/'boxes.json').write_text(json.dumps(place.boxes), encoding='utf-8')
        words = dict(again=[*train, *sets(*QUICK)], resume=[*train, '--seeds', 1, *sets(*QUICK, 'training.steps=3', 'training.checkpoint_every=1')],
                     evaluate=['evaluate', weights, '--data', place.people, *sets(*QUICK)],
                     detected=['train', 'detected', '--data', place.people, '--out', runs, *sets(*QUICK, f"evaluation.boxes={here/'boxes.json'}")],
                     predict=['predict', place.people/'images/val/000000000008.png', '--weights', weights, '--out', here/'poses'],
                     card=['card', runs/'records/tiny/search-coco/0', here/'card.png'],
                     search=['search', '--data', place.people, '--out', runs, *sets(*SEARCH)],
                     searched=['train', 'no-attention', '--data', place.people, '--out', runs, *sets(*QUICK, 'policy=searched')])[what]
        with unchanged(place.people), limit(): return worked_or_line(words, here/'cache')


@st.composite
def rendered_folders(draw, place):
    "Changed rendered people."
    files = sorted(str(p.relative_to(place.rendered)) for p in place.rendered.rglob('*') if p.is_file())
    name, case = draw(st.sampled_from(files)), Case('rendered')
    if draw(st.integers(0, 3)) == 0: case.acts = [('remove', name, None)]; return case
    case.files[name], step = draw(change_of_bytes((place.rendered/name).read_bytes()))
    case.steps = [f'{name}: {step}']
    return case


def check_people(place, case):
    "Rendering into a folder whose people were changed."
    with place.fresh() as here:
        folder = case.make(place, here/'people')
        with limit(5*LONGEST): return worked_or_line(['people', folder, '--train', '1', '--val', '1', '--workers', '1'], here/'cache')


# ---- AP: ours and pycocotools'

@st.composite
def truths(draw, place):
    "A changed validation file: in a likely way, or in any."
    if draw(st.integers(0, 2)) == 0:
        data, steps = draw(changed_tree(place.data[VAL], 2))
        return Case('people', {VAL: data}, steps=steps)
    data, steps = draw(likely_tree(place.data[VAL], likely_change))
    return Case('people', {VAL: data}, steps=steps)


def findings(pack):
    "Joints of the people of a pack with small and large errors, to three digits as a results file has them."
    rng, true = np.random.default_rng(5), transform(pack.to_image, pack.joints)
    size = np.sqrt(np.abs(pack.bbox[:, 2:].prod(1)).clip(1, 1e4))[:, None, None]
    joints = (true + rng.normal(size=true.shape)*size*np.resize([.01, .05, .025, .09], len(pack))[:, None, None]).round(3)
    scores = np.linspace(.9, .4, len(pack))[rng.permutation(len(pack)), None].repeat(true.shape[1], 1)
    return Predictions(joints, scores.astype(np.float32), joints)


METRICS = dict(AP=0, AP50=1, AP75=2, APM=3, APL=4, AR=5)


def pycocotools(truth, results, person):
    "AP and AR of a results file by pycocotools alone, on the user's own file; None where it can't read that."
    from pycocotools.coco import COCO as Coco
    from pycocotools.cocoeval import COCOeval
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            gt = Coco(str(truth))
            evaluation = COCOeval(gt, gt.loadRes(str(results)), 'keypoints')
            evaluation.params.catIds = [person]
            evaluation.params.kpt_oks_sigmas = np.array(COCO.sigmas)
            evaluation.evaluate(); evaluation.accumulate(); evaluation.summarize()
    except Exception: return None                       # whatever it stumbles over
    return {name: float(evaluation.stats[i]) for name, i in METRICS.items() if evaluation.stats[i] > -1}


def plain_number(value, whole=False): return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and (not whole or value == int(value))


def outside(data, ours):
    """Why pycocotools reads this file and yet its number isn't the one to compare with; None where it is. Each is a place where our reader
    completes or matches what pycocotools takes literally, or where pycocotools is known to count wrongly."""
    person = ours.category_id
    def is_person(a): return a['category_id'] == person
    if not isinstance(person, (int, float, str)): return 'a category id that is not an id'
    called = {str(person), str(int(person)) if plain_number(person, True) else '', *(str(c.get('name')) for c in data.get('categories') or [] if c['id'] == person)}
    if any(a.get('category_id') is None or not is_person(a) and str(a['category_id']).strip() in called for a in data['annotations']): return 'category_id missing, a name, or of another type: ours takes it for a person, pycocotools does not'
    rows = [a for a in data['annotations'] if is_person(a)]
    ids = [a['id'] for a in data['annotations']]
    if len({*map(str, ids)}) < len(ids): return 'annotation ids repeated: pycocotools keeps one of them'
    if not all(plain_number(i) and i and float(i) for i in ids): return 'an annotation id that is 0 or no number: pycocotools takes its match for none'
    images = [i['id'] for i in data['images']]
    if not (all(plain_number(i) and abs(i) < 2**53 for i in images) or all(isinstance(i, str) for i in images)): return 'image ids of several types or too large for a float: numpy changes them'
    known = {*images}
    for a in rows:
        if a['image_id'] not in known or isinstance(a['image_id'], bool): return 'image_id of another type than the id: ours matches them'
        if not plain_number(a.get('area')) or a['area'] <= 0: return 'an area that ours completes'
        if not plain_number(a['num_keypoints'], True): return 'num_keypoints that ours counts'
        if 'iscrowd' in a and isinstance(a['iscrowd'], str): return "iscrowd as text: '0' is true to pycocotools"
        flat = a.get('keypoints') or []
        if any(isinstance(v, float) and v == math.inf for v in flat[2::3]): return 'a visibility of Infinity: ours takes it as not labelled'
        if a.get('iscrowd') and flat and not (len(flat) == 51 and set(flat[2::3]) <= {0, 1, 2}): return 'a crowd with joints that nobody could read'
    assert [a['image_id'] for a in rows] == [ours.images[r['image_id']]['file_id'] for r in ours.rows], 'other people than pycocotools reads'
    return None


def check_ap(place, case):
    "AP and AR are those of pycocotools on the user's own file with our results file."
    with place.fresh() as here:
        folder = case.make(place, here/'people')
        with unchanged(folder), limit(), warnings.catch_warnings():
            warnings.simplefilter('ignore')
            numbers = []
            def measure():
                found = find_people(folder)
                pack = pack_people(found.val(), found.skeleton, data_of(folder), here/'cache', progress=False)
                guess = findings(pack)
                numbers.append(average_precision(pack, guess))
                results = write_results(file_results(results_of(pack, guess), pack), here/'results.json')
                numbers.append(keypoint_ap(folder/VAL, json.loads(results.read_text(encoding='utf-8'))))
                numbers.append(pack.annotations)
            if people_or_line(measure) == 'one line': return 'one line'
            theirs = pycocotools(folder/VAL, here/'results.json', numbers[2].category_id)
            if theirs is None: return 'worked, pycocotools does not'
            if outside(json.loads((folder/VAL).read_text(encoding='utf-8')), numbers[2]): return 'worked, not to be compared'
        for ours in numbers[:2]:
            assert ours.keys() == theirs.keys() and all(abs(ours[k] - theirs[k]) < 5e-5 for k in theirs), f'ours {ours}, pycocotools {theirs}'
        return 'worked, AP equal'


class Standing(nn.Module):
    "A network that sees the example pose in every crop."
    def __init__(self):
        super().__init__()
        joints = example_pose(COCO)*.86*64/1.25 + [23.5, 32]
        self.maps = render_heatmaps(torch.from_numpy(joints)[None], torch.full((1, 17), 2), (64, 48), 1.)
    def forward(self, x): return self.maps.expand(len(x), -1, -1, -1)


@st.composite
def boxes_and_truths(draw, place):
    "A changed detection file on a changed validation file."
    data, steps = draw(likely_tree(place.boxes, likely_change_of_boxes))
    return Case('boxes', {'boxes.json': data}, steps=steps), draw(truths(place))


def check_ap_in_boxes(place, case):
    "The same in the boxes of a detection file, of a network that finds everybody about right."
    boxes, people = case
    with place.fresh() as here:
        folder, file = people.make(place, here/'people'), boxes.make(place, here/'boxes')/'boxes.json'
        with unchanged(folder, file.parent), limit(), warnings.catch_warnings():
            warnings.simplefilter('ignore')
            measured = []
            def measure():
                found = find_people(folder)
                pack = pack_people(found.val(detections=file), found.skeleton, data_of(folder), here/'cache', progress=False)
                metrics, results = measure_boxes(Standing(), pack, EvaluationConfig(flip=False))
                (here/'results.json').write_text(json.dumps(file_results(results, pack)), encoding='utf-8')     # all digits
                measured.extend((metrics, pack.annotations))
            if people_or_line(measure) == 'one line': return 'one line'
            theirs = pycocotools(folder/VAL, here/'results.json', measured[1].category_id)
            if theirs is None: return 'worked, pycocotools does not'
            if outside(json.loads((folder/VAL).read_text(encoding='utf-8')), measured[1]): return 'worked, not to be compared'
        ours = measured[0]
        assert ours.keys() == theirs.keys() and all(abs(ours[k] - theirs[k]) < 5e-5 for k in theirs), f'ours {ours}, pycocotools {theirs}'
        return 'worked, AP equal'


# ---- how they are run

CONFIG = dict(data=dict(input_size=[64, 48], source='here', padding=1.25, val_people=3), network=dict(base_channels=8, width=8, depth=18), training=dict(steps=1, batch=2, lr=.001, schedule='cosine'),
              evaluation=dict(flip=True, method='text', batch=4), policy='identity')


@dataclass(frozen=True)
class Property:
    "What is drawn, what is checked, and how often."
    cases: Callable                                     # Place -> strategy
    check: Callable                                     # (place, case) -> how it ended; an exception: it failed
    few: int                                            # examples in the suite
    share: float                                        # of the examples of a long run


def maybe(strategy): return st.one_of(st.none(), st.none(), strategy)


PROPERTIES = {
    'readers': Property(folders, check_readers, 100, .3),
    'parts': Property(folders, check_parts, 40, .1),
    'boxes': Property(lambda p: st.tuples(box_files(p), maybe(folders(p))), check_boxes, 60, .12),
    'ap': Property(truths, check_ap, 80, .25),
    'ap in boxes': Property(boxes_and_truths, check_ap_in_boxes, 20, .05),
    'doctor': Property(lambda p: st.tuples(maybe(box_files(p)), folders(p)), check_doctor, 40, .08),
    'train': Property(folders, check_train, 5, .02),
    'evaluate': Property(lambda p: st.tuples(maybe(box_files(p)), folders(p)), check_evaluate, 10, .025),
    'experiments': Property(lambda p: st.tuples(st.sampled_from(EXPERIMENTS), folders(p)), check_experiments, 6, .02),
    'settings': Property(lambda p: changed_tree(CONFIG, 2, as_yaml, RAW_YAML), check_settings, 10, .02),
    'detected': Property(lambda p: st.tuples(box_files(p), maybe(folders(p))), check_detected, 4, .015),
    'predict': Property(lambda p: st.tuples(st.one_of(box_files(p), st.none()), folders(p), st.sampled_from([False, False, False, True])), check_predict, 10, .025),
    'runs': Property(run_folders, check_runs, 6, .02),
    'people': Property(rendered_folders, check_people, 0, .002),
}
QUIET = dict(deadline=None, database=None, suppress_health_check=list(HealthCheck), print_blob=False)


def fresh_examples():
    """Every example drawn anew. Hypothesis follows each by five that repeat parts of it, which finds what depends on equal values; here an
    example takes its time, and a place of a file comes up as often as it should only without them."""
    return mock.patch('hypothesis.internal.conjecture.engine.ConjectureRunner.generate_mutations_from', lambda self, data: None, create=True)


def kind_of(error):
    "Failures of one kind: the exception, and where in p2net it was raised."
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f'{os.sep}p2net{os.sep}' in f.filename and 'cli.py' not in f.filename]
    if at := re.search(r' AT (\S+) IN\n', str(error)): return f'fault at {at[1]}'
    where = f'{Path(frames[-1].filename).name}:{frames[-1].lineno}' if frames else re.sub(r'\d+', 'n', re.sub(r'/\S+', 'PATH', str(error)))[:70]
    return f'{type(error).__name__} at {where}'


def long_run(place, name, examples, number, say):
    "Counts how the examples of a property end; a small example of each kind of failure."
    prop, ends, failures, seconds = PROPERTIES[name], Counter(), {}, time.monotonic()

    def ended(case):
        try: return prop.check(place, case), None
        except (KeyboardInterrupt, SystemExit): raise
        except BaseException as error: return None, error

    @seed(number)
    @settings(max_examples=examples, phases=[Phase.generate], **QUIET)
    @given(prop.cases(place))
    def count(case):
        end, error = ended(case)
        ends[end or 'failed'] += 1
        if error is None: return
        kind = kind_of(error)
        failures.setdefault(kind, []).append((case, error))
        if len(failures[kind]) == 1: say(f'{name}: FAILED {kind}\n    {case}\n    ' + ''.join(traceback.format_exception(error))[-1500:].replace('\n', '\n    '))
    with fresh_examples(): count()
    say(f'{name}: {sum(ends.values())} examples in {time.monotonic() - seconds:.0f} s: {dict(ends)}; {len(failures)} kinds of failure')
    for kind, met in failures.items(): say(f'{name}: {len(met)} x {kind}, smallest: {smallest(prop, place, kind, number, met, ended)}')
    return ends, failures


def smallest(prop, place, kind, number, met, ended):
    "The shortest case of a kind of failure, made smaller by hypothesis where it meets the failure again soon."
    best, until = min((case for case, _ in met), key=lambda case: len(repr(case))), time.monotonic() + LONGEST

    @seed(number)
    @settings(max_examples=200, **QUIET)
    @given(prop.cases(place))
    def again(case):
        nonlocal best
        error = ended(case)[1] if time.monotonic() < until else None
        if error is None or kind_of(error) != kind: return
        if len(repr(case)) < len(repr(best)): best = case
        raise AssertionError
    with contextlib.suppress(Exception), fresh_examples(): again()      # as it ends where hypothesis has found it again, once or several times
    return best


def run(words=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--examples', type=int, default=1000, help='of all properties together')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--only', nargs='+', choices=list(PROPERTIES), default=list(PROPERTIES))
    args = parser.parse_args(words)
    faulthandler.dump_traceback_later(36*3600, exit=True)
    total, say = Counter(), functools.partial(print, flush=True)
    share = sum(PROPERTIES[name].share for name in args.only)
    with tempfile.TemporaryDirectory() as root:
        place = Place(root)
        for name in args.only: total += long_run(place, name, max(1, round(args.examples*PROPERTIES[name].share/share)), args.seed, say)[0]
    say(f'all: {sum(total.values())} examples, seed {args.seed}: {dict(total)}')
    return int(total['failed'] > 0)


if __name__ == '__main__': sys.exit(run())
