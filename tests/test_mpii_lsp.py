"""LSP, LSPET and MPII: the real samples where they lie beside the repository, what mirrors and broken downloads make of their files, and
files with changed bytes and fields: people or one line, never anything else.

`P2NET_EXAMPLES` gives the property tests more examples than a run of the suite has time for."""
import functools, gzip, io, json, os, pickle, struct, sys, warnings, zipfile, zlib
from pathlib import Path

import cv2, numpy as np, pytest
from hypothesis import HealthCheck, example, given, settings, strategies as st
from PIL import Image
from scipy.io import loadmat, savemat

from p2net.errors import InputError
from p2net.tools.doctor import examine
from p2net.evaluation.mpii_server import check_mpii, load_mpii_test, write_mpii
from p2net.people import matlab
from p2net.people.folder import find_people
from p2net.people.lsp import load_lsp, load_lspet, read_joints_file
from p2net.people.matlab import Damaged, read_mat, read_npz
from p2net.people.mpii import FIELDS, mpii_box, people_from_mat, load_mpii, load_mpii_validation, validation_rows, with_head_sizes
from p2net.people.person import People, box_to_frame
from p2net.people.skeleton import SKELETONS
from samples import sample

situation = pytest.mark.situation


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


# ---- a process for each content, not for each reading

READ, BY_SCIPY = {}, matlab.read_in_subprocess


def read_once(data, names):
    "`read_in_subprocess`, which starts a process, for all variables; a content that was read before is remembered."
    if data not in READ:
        try: READ[data] = pickle.dumps(BY_SCIPY(data, ()))
        except Damaged as error: READ[data] = error
    if isinstance(READ[data], Damaged): raise READ[data]
    there, values, unread = pickle.loads(READ[data])
    return there, *({name: part[name] for name in names or there if name in part} for part in (values, unread))


@pytest.fixture(autouse=True, scope='module')
def reading_once():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matlab, 'read_in_subprocess', read_once)
        yield


@pytest.fixture
def reading_here(monkeypatch):
    "For the many files of a property test that are whole: no process at all."
    monkeypatch.setattr(matlab, 'read_in_subprocess', matlab.read_variables)


# ---- the real samples

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
        center, size = box_to_frame(mpii_box(r['center'], r['scale']), 1.)
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
    assert validation_rows(people, npz) == [0, 1, 2, 3, 4]
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
    with pytest.raises(InputError, match='no train.json'): found.train()


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
    raw = read_joints_file(root/'joints.mat')[1][..., :2]
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


@pytest.mark.parametrize('name, train, val', [('lsp', 1000, 1000), ('lspet', 3000, 500)])
def test_folders(name, train, val):
    found = find_people(sample(f'data/{name}'))
    assert (found.kind, found.skeleton.name, len(found.train()), len(found.val())) == (name, 'lsp14', train, val)
    assert {p.image for p in found.train()}.isdisjoint(p.image for p in found.val())


def test_real_mat_files_are_read_as_scipy_reads_them():
    for path in ('data/lsp/joints.mat', 'data/lspet/joints.mat', 'data/mpii/annot/detections_our_format.mat'):
        ours, theirs = read_mat(sample(path)), loadmat(sample(path))
        for name, value in ours.items():
            if isinstance(value, np.ndarray): assert (value == theirs[name]).all() and value.shape == theirs[name].shape
            else: assert value == [str(cell.item()) for cell in theirs[name].ravel()] and len(value) == 16        # the joints' names


# ---- small files of each kind

def structs(*rows):
    "A MATLAB structure array."
    out = np.empty((1, len(rows)), dtype=[(k, object) for k in rows[0]])
    for n, row in enumerate(rows): out[0, n] = tuple(row.values())
    return out


def joints(kind, n=4):
    "Numbers of a joints.mat."
    rng = np.random.default_rng(0)
    numbers = np.concatenate([rng.uniform(1, 38, (n, 14, 2)), (rng.random((n, 14, 1)) < .5)], -1)
    return numbers.transpose((2, 1, 0) if kind == 'lsp' else (1, 2, 0))


def rect(rng, **instead):
    "An annorect of MPII."
    points = [dict(x=x, y=y, id=i, is_visible=np.zeros((0, 0)) if i in (8, 9) else i % 2) for i, (x, y) in enumerate(rng.uniform(1, 90, (16, 2)).round(1))]
    return dict(x1=5., y1=6., x2=30., y2=36., annopoints=dict(point=structs(*points)), scale=1.2, objpos=dict(x=50., y=40.)) | instead


def release():
    "RELEASE of MPII: two images with public joints, one without."
    rng = np.random.default_rng(1)
    images = [dict(image=dict(name='a.png'), annorect=structs(rect(rng), rect(rng))), dict(image=dict(name='b.png'), annorect=rect(rng)),
              dict(image=dict(name='c.png'), annorect=rect(rng))]
    return dict(RELEASE=dict(annolist=structs(*images), img_train=np.array([[1, 1, 0]])))


def row(rng, n=0):
    "A person of MPII's JSON form."
    return dict(image=f'{"ab"[n % 2]}.png', center=[50., 40.], scale=1.2, joints=rng.uniform(1, 90, (16, 2)).round(1).tolist(), joints_vis=[1]*15 + [0])


def validation():
    "Variables of gt_valid.mat."
    rng = np.random.default_rng(2)
    return dict(pos_gt_src=rng.uniform(1, 90, (16, 2, 3)), jnt_missing=(rng.random((16, 3)) < .2).astype(np.uint8),
                headboxes_src=np.sort(rng.uniform(1, 60, (2, 2, 3)), 0))


def mat(content, packed=False): # bytes of a .mat file
    savemat(file := io.BytesIO(), content, do_compression=packed)
    return file.getvalue()


def npz(**content):
    np.savez(file := io.BytesIO(), **content)
    return file.getvalue()


MADE = {(name, packed): mat(make(), packed) for packed in (False, True) for name, make in dict(
    lsp=lambda: dict(joints=joints('lsp')), lspet=lambda: dict(joints=joints('lspet')), mpii=release, validation=validation).items()}
VALID_NPZ = npz(part=np.random.default_rng(3).uniform(1, 90, (3, 16, 2)).round(), normalize=[20., 30., 25.], imgname=['a.png', 'b.png', 'b.png'])


def put(root, kind, ending='.jpg', digits=None, n=4):
    "A folder of LSP or LSPET with its photographs."
    images = root/'images'
    images.mkdir(parents=True)
    for k in range(1, n + 1): cv2.imwrite(str(images/f'im{k:0{digits or dict(lsp=4, lspet=5)[kind]}d}{ending}'), np.full((40, 30, 3), 9*k, np.uint8))
    (root/'joints.mat').write_bytes(MADE[kind, False])
    return root


@pytest.fixture(scope='module')
def home(tmp_path_factory):
    "A folder of each kind; tests write their .mat and .json files anew."
    root = tmp_path_factory.mktemp('home')
    for kind in ('lsp', 'lspet'): put(root/kind, kind)
    (root/'images').mkdir()
    for name in 'abc': cv2.imwrite(str(root/'images'/f'{name}.png'), np.zeros((80, 100, 3), np.uint8))
    return root


def one_line(call, *words):
    "The one line that a call is refused in; it holds these words."
    with pytest.raises(InputError) as caught: call()
    said = str(caught.value)
    assert '\n' not in said and all(word in said for word in words), said
    return said


# ---- what mirrors, browsers and git make of a .mat file

POINTER = b'version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 440523\n'
V73 = b'MATLAB 7.3 MAT-file, Platform: GLNXA64'.ljust(124) + b'\0\2IM' + bytes(384) + b'\x89HDF\r\n\x1a\n' + bytes(900)
BROKEN = {
    'html': (b'\n<!DOCTYPE html>\n<html><head><title>Sign in</title>', 'this is a web page (HTML), not the file that was asked for; download it again',
             'a .mat file that is a web page, because the link wanted a login'),
    'pointer': (POINTER, 'this is a Git LFS pointer, not the file that it stands for; run `git lfs pull`', 'a .mat file that is a pointer of Git LFS'),
    'empty': (b'', 'this is an empty file; download it again', 'an empty .mat file'),
    'cut': (MADE['lsp', False][:500], 'this .mat file is damaged or cut (the element at byte 128 should have', 'a .mat file whose download broke off'),
    'cut packed': (MADE['lsp', True][:500], 'this .mat file is damaged or cut', None),
    'cut header': (MADE['lsp', True][:90], 'the header of this .mat file is damaged or cut', None),
    'zeros': (bytes(9000), 'this is a file that begins with zeros only; a download broke off', 'a .mat file of zeros, because a download reserved its place'),
    'v7.3': (V73, 'this is a file of MATLAB 7.3 (HDF5); load it in MATLAB and save it with the option -v7', 'a .mat file that MATLAB saved as v7.3 (HDF5)'),
    'zip': (b'PK\3\4' + bytes(600), 'this is a ZIP archive; unpack it', None),
    'gzip': (gzip.compress(MADE['lsp', False]), 'this is a gzip archive; unpack it', 'a .mat file that is still packed'),
    'json': (b'{"message": "Not Found"}', 'this is a text file that begins with \'{"message"', None),
    'octave': (b'# Created by Octave 9.2\n# name: joints\n', "this is a text file that begins with '# Created by Octave 9.2", 'a .mat file in the text format of Octave'),
    'bytes': (b'\xfe\xdc\xba\x98'*200, 'this is not a .mat file of MATLAB 5 to 7.2', None)}


@pytest.mark.parametrize('name', [pytest.param(name, marks=[situation(has, f'`joints.mat: {says}` …')] if has else []) for name, (_, says, has) in BROKEN.items()])
def test_a_mat_file_that_is_none(tmp_path, name):
    data, says, _ = BROKEN[name]
    root = put(tmp_path/'people', 'lsp')
    (root/'joints.mat').write_bytes(data)
    (tmp_path/'other.mat').write_bytes(data)
    assert one_line(lambda: find_people(root)).startswith(f"{root/'joints.mat'}: {says}")
    for read in (lambda p: people_from_mat(p, tmp_path), load_mpii_validation, check_mpii, read_mat, lambda p: load_mpii_test(p, tmp_path)):
        assert one_line(lambda: read(tmp_path/'other.mat')).startswith(f"{tmp_path/'other.mat'}: {says}")
    assert (root/'joints.mat').read_bytes() == data


def part(kind, content): return struct.pack('<II', kind, len(content)) + content + bytes(-len(content) % 8)


def matrix(kind=6, dims=(2, 3), content=part(9, bytes(48)), flags=0):
    "A variable `a` by hand; by default zeros of 2 x 3."
    return part(6, struct.pack('<II', kind | flags << 8, 0)) + part(5, struct.pack(f'<{len(dims)}i', *dims)) + part(1, b'a') + content


@pytest.mark.parametrize('content, says', [
    (matrix(), None), (matrix(dims=(2, 4)), 'cannot reshape array of size 6 into shape'), (matrix(dims=(-2, -3)), 'ValueError'),
    (matrix(dims=(2,)), 'cannot reshape'), (matrix(dims=(0, 2**31 - 1, 2**31 - 1, 2**31 - 1, 2**31 - 1), content=part(9, b'')), 'cannot reshape'),
    (matrix(kind=2, dims=(2**15, 2**15), content=part(5, struct.pack('<i', 4)) + part(1, b'')), ''),
    (matrix(kind=1, dims=(2**15, 2**15)), 'Unable to allocate 8.00 GiB' if sys.platform == 'linux' else ''), (matrix(kind=2, content=part(5, struct.pack('<i', 0)) + part(1, b'abcd')), ''),
    (matrix(kind=77), ''), (matrix(content=part(14, bytes(48))), ''), (matrix(kind=4, content=part(16, b'ab')), ''),
    (matrix(content=struct.pack('<II', 9 | 5 << 16, 0)), ''), (matrix(flags=8), ''), (matrix(kind=13, content=part(9, np.full(6, np.nan).tobytes())), '')], ids=list(range(14)))
def test_elements_that_contradict_each_other(tmp_path, content, says):
    "The tenth ends the process by a signal (scipy 1.17.1), the sixth and seventh ask for 8 GiB; what the others say is scipy's."
    (tmp_path/'a.mat').write_bytes(b'MATLAB 5.0 MAT-file'.ljust(124) + b'\0\1IM' + part(14, content))
    if says is None: assert (read_mat(tmp_path/'a.mat')['a'] == np.zeros((2, 3))).all()
    else: one_line(lambda: read_mat(tmp_path/'a.mat'), f"{tmp_path/'a.mat'}: this .mat file is damaged or cut (", says)


@situation('a damaged `.mat` file that crashes or stops its reader', '`joints.mat: this .mat file is damaged or cut (its reader was ended by signal 11); download it again`')
@pytest.mark.parametrize('does, says', [("import os; os.abort()", 'its reader was ended by signal 6'), ("raise MemoryError('Unable to allocate 9 GiB')", 'MemoryError: Unable to allocate 9 GiB'),
                                        ('import time; time.sleep(60)', 'it was not read within 1 s'), ('import os; os._exit(3)', 'its reader ended with code 3')])
def test_a_process_that_does_not_answer(tmp_path, monkeypatch, does, says):
    "Whatever becomes of the process that reads: one line. Here the process runs another program behind its first output."
    (tmp_path/'a.mat').write_bytes(MADE['lsp', True])
    (tmp_path/'python').write_text(f'#!{sys.executable}\nimport sys\nprint({matlab.STARTED.decode()!r}, end="", flush=True)\n{does}\n')
    (tmp_path/'python').chmod(0o755)
    monkeypatch.setattr(matlab, 'read_in_subprocess', BY_SCIPY); monkeypatch.setattr(sys, 'executable', str(tmp_path/'python')); monkeypatch.setattr(matlab, 'SECONDS', 1)
    one_line(lambda: read_mat(tmp_path/'a.mat'), f'a.mat: this .mat file is damaged or cut ({says}); download it again')


def test_a_process_that_does_not_start(tmp_path, monkeypatch):
    "That is no fault of the file, and isn't said to be one."
    (tmp_path/'a.mat').write_bytes(MADE['lsp', True])
    (tmp_path/'python').write_text(f'#!{sys.executable}\nraise ImportError("no scipy")\n')
    (tmp_path/'python').chmod(0o755)
    monkeypatch.setattr(matlab, 'read_in_subprocess', BY_SCIPY); monkeypatch.setattr(sys, 'executable', str(tmp_path/'python'))
    with pytest.raises(RuntimeError, match='the process that reads .mat files does not start: ImportError: no scipy'): read_mat(tmp_path/'a.mat')


def test_the_process_finds_the_package_as_this_one_does(tmp_path, monkeypatch):
    "Modules in the folder that somebody works in don't take the place of Python's, and what is printed is no part of the answer."
    (tmp_path/'a.mat').write_bytes(MADE['lsp', True])
    for name in ('numpy', 'pickle', 'struct'): (tmp_path/f'{name}.py').write_text('raise SystemExit(9)')
    monkeypatch.chdir(tmp_path); monkeypatch.setattr(matlab, 'read_in_subprocess', BY_SCIPY); monkeypatch.setattr(sys, 'path', [p for p in sys.path if p])
    assert read_mat('a.mat')['joints'].shape == (3, 14, 4)


@pytest.mark.parametrize('name, data, says', [('pointer', POINTER, 'a Git LFS pointer'), ('cut', VALID_NPZ[:300], 'this .npz file is damaged or cut'),
                                              ('objects', npz(part=np.array([None]), normalize=[1.]), "array 'part' holds Python objects, which are not read")])
def test_a_validation_file_that_is_none(tmp_path, name, data, says):
    (tmp_path/'valid.npz').write_bytes(data)
    one_line(lambda: load_mpii_validation(tmp_path/'valid.npz'), f"{tmp_path/'valid.npz'}: ", says)


# ---- LSP and LSPET as they are downloaded

@pytest.mark.parametrize('kind', ['lsp', 'lspet'])
@pytest.mark.parametrize('ending', [pytest.param('.png', marks=situation('LSPET or LSP with `.png` photographs', 'the same people as with `.jpg`', theme='Photographs')),
                                    '.jpeg', '.JPG', '.PNG'])
@pytest.mark.parametrize('digits', [4, 5])
def test_photographs_of_any_ending(tmp_path, home, kind, ending, digits):
    found, asked = find_people(put(tmp_path/kind, kind, ending, digits)), find_people(home/kind)
    for a, b in zip((*found.train(), *found.val()), (*asked.train(), *asked.val()), strict=True):
        assert Path(a.image).suffix == ending and a.image_id == b.image_id and (a.joints == b.joints).all() and (a.bbox == b.bbox).all()


@situation('hr-lspet: `.png` beside `joints.mat`, with gaps in their numbers', 'each photograph with its own joints: columns in the order of the photographs', theme='Folders')
def test_gaps_in_the_numbers(tmp_path):
    (tmp_path/'joints.mat').write_bytes(MADE['lspet', False])
    for number in (2, 3, 5, 9): cv2.imwrite(str(tmp_path/f'im{number:05d}.png'), np.zeros((40, 30, 3), np.uint8))
    people = load_lspet(tmp_path)
    numbers = joints('lspet').transpose(2, 0, 1)
    assert [p.image_id for p in people] == [2, 3, 5, 9]
    for p, column in zip(people, numbers): assert (p.joints == np.where(column[:, 2:] > 0, column[:, :2], 0)).all()
    (tmp_path/'im00007.png').write_bytes(b'')
    one_line(lambda: load_lspet(tmp_path), f'{tmp_path}: 5 photographs with numbers up to 9, but joints.mat has joints for 4')


@situation('photographs of both LSP and LSPET in one folder', 'each data set takes those with its own number of digits', theme='Folders')
def test_both_in_one_folder(tmp_path):
    root = put(tmp_path/'a', 'lsp')
    for k in range(1, 5): cv2.imwrite(str(root/'images'/f'im{k:05d}.jpg'), np.zeros((10, 10, 3), np.uint8))
    assert {len(Path(p.image).stem) for p in load_lsp(root)} == {6}
    (root/'joints.mat').write_bytes(MADE['lspet', False])
    assert {len(Path(p.image).stem) for p in load_lspet(root)} == {7}


@situation('a photograph of LSP as `.jpg` and as `.png`', '`… im0002.jpg and im0002.png may both be photograph 2; keep one of them`', theme='Folders')
def test_two_photographs_of_one_number(tmp_path):
    root = put(tmp_path/'a', 'lsp')
    (root/'images'/'im0002.png').write_bytes(b'')
    one_line(lambda: load_lsp(root), f"{root/'images'}: im0002.jpg and im0002.png may both be photograph 2; keep one of them")


@situation('a photograph of LSP that is missing', '`im0002.jpg: there is no such photograph; …/joints.mat has joints for it`', theme='Photographs')
def test_a_missing_photograph(tmp_path):
    root = put(tmp_path/'a', 'lsp')
    (root/'images'/'im0002.jpg').unlink()
    one_line(lambda: load_lsp(root), f"{root/'images'/'im0002.jpg'}: there is no such photograph; {root/'joints.mat'} has joints for it")
    assert len(load_lsp(root, 'test')) == 2


@situation('a `split.json` with a photograph in both lists', "`split.json: 'val' names 'im00001.jpg', which 'train' names, too; remove one of the two`", theme='Folders')
def test_a_photograph_in_both_parts(tmp_path):
    root = put(tmp_path/'a', 'lspet')
    (root/'split.json').write_text(json.dumps(dict(train=['im00001.jpg', 'im00002.jpg'], val=['im00001.jpg'])), encoding='utf-8-sig')
    one_line(lambda: load_lspet(root), "split.json: 'val' names 'im00001.jpg', which 'train' names, too; remove one of the two")


@pytest.mark.parametrize('value, says', [
    pytest.param(np.nan, 'image 2: left_hip has x, y = nan, ', marks=situation('a joint of LSP that is NaN', '`joints.mat: image 2: left_hip has x, y = nan, …; download the file again`')),
    (np.inf, 'image 2: left_hip has x, y = inf, '), (1e300, 'image 2: left_hip has x, y = 1e+300, ')])
def test_a_joint_that_is_no_number(tmp_path, value, says):
    root, numbers = put(tmp_path/'a', 'lsp'), joints('lsp')
    numbers[0, SKELETONS['lsp14'].index('left_hip'), 1] = value
    savemat(root/'joints.mat', dict(joints=numbers))
    one_line(lambda: load_lsp(root), f"{root/'joints.mat'}: {says}")


@situation('somebody of LSPET without a labelled joint', 'is left out, which is counted with the photograph')
def test_nobody_is_left_out_silently(tmp_path):
    root, numbers = put(tmp_path/'a', 'lspet'), np.ones((14, 3, 4))*5
    numbers[:, 2], numbers[:, 2, 1], numbers[:, :2, 2] = 1, 0, -70
    savemat(root/'joints.mat', dict(joints=numbers))
    people = load_lspet(root)
    assert [p.image_id for p in people] == [1, 4]
    assert people.left_out == {'no joint labelled': (1, str(root/'images'/'im00002.jpg')), 'all joints outside the photograph': (1, str(root/'images'/'im00003.jpg'))}


# ---- MPII

def mpii_json(home, *rows):
    (home/'rows.json').write_text(json.dumps(rows), encoding='utf-8')
    return load_mpii(home/'rows.json')


@situation("MPII's JSON with scale -1, centre -1 -1, or nobody's joints", 'these people are left out and counted by reason, with the first row')
def test_mpii_people_left_out(home):
    good = row(np.random.default_rng(0))
    people = mpii_json(home, good, good | dict(scale=-1), good | dict(center=[-1, -1]), good | dict(joints_vis=[0]*16), good | dict(scale=None), good)
    assert [p.person_id for p in people] == [1, 6]
    assert people.left_out == {'no scale': (2, f"{home/'rows.json'}: person 2"), 'no centre': (1, f"{home/'rows.json'}: person 3"),
                               'no joint labelled': (1, f"{home/'rows.json'}: person 4")}


@situation("numbers written as text in MPII's JSON", 'are read as the numbers and counted')
def test_mpii_texts(home):
    good = row(np.random.default_rng(0))
    texts = json.loads(json.dumps(good), parse_float=str)
    a, b = mpii_json(home, good), mpii_json(home, texts)
    assert (a[0].joints == b[0].joints).all() and (a[0].bbox == b[0].bbox).all()
    assert b.corrected.counts() == {'numbers written as text': 30 + 3} and not a.corrected


@pytest.mark.parametrize('change, says', [
    pytest.param(dict(joints_vis=[1]*15 + [.73]), 'joints_vis[15] is 0.73; write 1 for a labelled joint, else 0',
                 marks=situation("confidences in `joints_vis` of MPII's JSON", '`rows.json: person 2: joints_vis[15] is 0.73; write 1 for a labelled joint, else 0`')),
    pytest.param(dict(joints=[[float('nan'), 3.]] + [[1., 2.]]*15), 'joints[0] is nan, which is not a number',
                 marks=situation("NaN in a labelled joint of MPII's JSON", '`rows.json: person 2: joints[0] is nan, which is not a number; …`')),
    pytest.param(dict(joints=[[1., 2.]]*17), 'joints has 17 entries, not 16',
                 marks=situation("17 joints in a row of MPII's JSON", '`rows.json: person 2: joints has 17 entries, not 16; give 16 joints x, y`')),
    (dict(center='here'), "center is 'here'"), (dict(scale=[1.2]), 'scale is [1.2], which is not a number'), (dict(image=''), "image is ''")])
def test_mpii_rows_refused(home, change, says):
    good = row(np.random.default_rng(0))
    one_line(lambda: mpii_json(home, good, good | change), f"{home/'rows.json'}: person 2: {says}")


@situation("several faulty people in MPII's `.mat` or JSON, or in LSP's `joints.mat`", '`p2net doctor` names and counts all of them in one run')
@pytest.mark.parametrize('form', ['mat', 'json', 'lsp'])
def test_the_doctor_names_every_fault(tmp_path, form):
    rng, root = np.random.default_rng(0), tmp_path/'people'
    if form != 'lsp':
        for folder in ('images', 'annot'): (root/folder).mkdir(parents=True)
        for name in 'abc': cv2.imwrite(str(root/'images'/f'{name}.png'), rng.integers(0, 255, (100, 100, 3), dtype=np.uint8))
    if form == 'mat':
        file, rows, load = root/'annot'/'mpii_human_pose_v1_u12_1.mat', ['annolist(1).annorect(1)', 'annolist(2)', 'annolist(3).annorect(2)'], load_mpii
        images = [dict(image=dict(name='a.png'), annorect=structs(rect(rng, scale='tall'), rect(rng))), dict(image=dict(name='b.png'), annorect=7.),
                  dict(image=dict(name='c.png'), annorect=structs(rect(rng), rect(rng, x1=np.nan)))]
        savemat(file, dict(RELEASE=dict(annolist=structs(*images), img_train=np.ones((1, 3)))))
    elif form == 'json':
        file, rows, load = root/'annot'/'valid.json', ['person 1', 'person 3'], load_mpii
        file.write_text(json.dumps([row(rng) | dict(scale='tall'), row(rng), row(rng) | dict(joints=7)]), encoding='utf-8')
    else:
        file, rows, numbers = put(root, 'lsp')/'joints.mat', ['image 1', 'image 4'], joints('lsp')
        load = lambda file, faults: load_lsp(root, 'train', faults) + load_lsp(root, 'test', faults)
        numbers[2, 3, 0], numbers[0, 3, 3] = .5, np.nan
        savemat(file, dict(joints=numbers))
    faults = []
    people = load(file, faults=faults)
    assert [f.row for f in faults] == rows and len(people) == dict(mat=2, json=1, lsp=2)[form]
    found = {f.fault: f for f in examine(root)}
    assert found['refused'].count == len(rows) and found['refused'].first.startswith(f'{rows[0]}: ') and found['refused'].file.endswith(file.name)
    assert 'layout' not in found and 'unreadable' not in found and 'in-both' not in found


@situation("backslashes or the image folder in MPII's image names", 'the photographs are found', theme='Folders')
def test_mpii_image_names(home):
    (home/'images'/'x').mkdir(exist_ok=True); (home/'images'/'x'/'d.png').write_bytes(b'')
    good, names = row(np.random.default_rng(0)), ['a.png', 'images/a.png', 'images\\a.png', 'x\\d.png', 'x/d.png', 'images/x/d.png']
    people = mpii_json(home, *[good | dict(image=name) for name in names])
    assert [p.image for p in people] == [str(home/'images'/'a.png')]*3 + [str(home/'images'/'x'/'d.png')]*3
    assert [p.image_id for p in people] == [1, 1, 1, 2, 2, 2]


@situation('people left out of a JSON file, and a validation file without image names', 'everybody gets the head of their own row')
def test_heads_stay_with_their_rows(home):
    truth, rng = validation(), np.random.default_rng(0)
    savemat(home/'gt_valid.mat', truth | dict(jnt_missing=np.zeros((16, 3))))
    rows = [row(rng) | dict(joints=truth['pos_gt_src'][..., n].tolist(), joints_vis=[1]*16) for n in range(3)]
    rows[0]['scale'] = -1
    heads = load_mpii_validation(home/'gt_valid.mat')
    people = with_head_sizes(mpii_json(home, *rows), heads)
    assert [p.head_size for p in people] == heads.head_size[1:].tolist() and people.left_out.total == 1


def test_server_file_from_end_to_end(tmp_path):
    "The test person of the small file, found and sent; then the same with a person that it hasn't."
    (tmp_path/'mpii.mat').write_bytes(MADE['mpii', True])
    (person,) = people = load_mpii_test(tmp_path/'mpii.mat', tmp_path)
    found = np.random.default_rng(0).uniform(0, 90, (1, 16, 2))
    back = check_mpii(write_mpii(tmp_path/'a'/'pred.mat', tmp_path/'mpii.mat', people, found), tmp_path/'mpii.mat')
    assert person.person_id == 301 and np.allclose(back[0, 0], found[0])
    person.person_id = 305
    one_line(lambda: write_mpii(tmp_path/'b.mat', tmp_path/'mpii.mat', people, found), "mpii.mat: person 305: is not a person of MPII's test set")
    assert not (tmp_path/'b.mat').exists()


# ---- changed bytes and fields: people or one line

EXAMPLES = int(os.environ.get('P2NET_EXAMPLES', 60))
often = functools.partial(settings, deadline=None, derandomize='P2NET_EXAMPLES' not in os.environ, database=None, suppress_health_check=list(HealthCheck))
SIZES = [0, 1, 2, 4, 5, 6, 9, 14, 15, 16, 48, 56, 0x10000, 0x7fffffff, 0x80000000, 0xffffffff]
WORDS = st.sampled_from(SIZES).map(lambda n: struct.pack('<I', n)) | st.binary(min_size=1, max_size=16)
CHANGES = st.lists(st.tuples(st.sampled_from('set word flip cut drop insert copy'.split()), st.integers(0, 2**20), WORDS), min_size=1, max_size=5)


def changed(data, changes):
    "A file with some of its bytes changed."
    data = bytearray(data)
    for how, at, with_bytes in changes:
        if not data: break
        at = at*2654435761 % 2**32 % len(data)                      # hypothesis prefers small numbers: spread them over the file
        if how == 'set': data[at:at + 1] = with_bytes[:1]
        elif how == 'word': data[at//4*4:at//4*4 + len(with_bytes)] = with_bytes
        elif how == 'flip': data[at] ^= 1 << with_bytes[0] % 8
        elif how == 'cut': del data[at:]
        elif how == 'drop': del data[at:at + len(with_bytes)]
        elif how == 'insert': data[at:at] = with_bytes
        else: data[at:at + 40] = data[at//2:at//2 + 40]
    return bytes(data)


def inside_the_packing(data, changes):
    "A packed .mat file with changes within the packed variable, whose checksum is right."
    n, = struct.unpack('<I', data[132:136])
    content = zlib.compress(changed(zlib.decompress(data[136:136 + n]), changes))
    return data[:132] + struct.pack('<I', len(content)) + content


def people_or_one_line(call, file=None):
    "Call a reader. What it returns, or None where it refuses in one line; it leaves the file alone and no warning."
    before = file and file.read_bytes()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('error')
            found = call()
    except InputError as error:
        assert '\n' not in str(error) and len(str(error)) < 600, error
        found = None
    assert not file or file.read_bytes() == before
    return found


def read_all(home, kind):
    "Where a file of this kind is, and everything that reads it."
    calls = dict(lsp=(home/'lsp'/'joints.mat', load_lsp), lspet=(home/'lspet'/'joints.mat', load_lspet),
                 mpii=(home/'mpii.mat', load_mpii), validation=(home/'gt_valid.mat', load_mpii_validation))
    file, load = calls[kind]
    more = dict(mpii=[lambda: load_mpii_test(file, home), lambda: check_mpii(file)]).get(kind, [])
    return file, [lambda: load(file.parent if kind in ('lsp', 'lspet') else file), lambda: read_mat(file), *more]


@often(max_examples=EXAMPLES//6)                         # each is read by a process of its own
@given(kind=st.sampled_from(sorted(MADE)), changes=CHANGES, within=st.booleans())
def test_mat_files_with_changed_bytes(home, kind, changes, within):
    file, calls = read_all(home, kind[0])
    file.write_bytes(inside_the_packing(MADE[kind], changes) if kind[1] and within else changed(MADE[kind], changes))
    people = people_or_one_line(calls[0], file)
    assert people is None or kind[0] == 'validation' or isinstance(people, People)
    for call in calls[1:]: people_or_one_line(call)


@often(max_examples=EXAMPLES)
@given(changes=CHANGES, within=st.booleans())
def test_npz_files_with_changed_bytes(home, changes, within):
    data = VALID_NPZ
    if within:
        with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(file := io.BytesIO(), 'w') as new:
            for name in old.namelist(): new.writestr(name, changed(old.read(name)[:128], changes) + old.read(name)[128:])
        data = file.getvalue()
    (home/'valid.npz').write_bytes(data if within else changed(data, changes))
    people_or_one_line(lambda: load_mpii_validation(home/'valid.npz'), home/'valid.npz')
    people_or_one_line(lambda: read_npz(home/'valid.npz'))


ODD = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.sampled_from(['', ' ', '1', '0.5', 'nan', 'inf', '1e999', 'x', 'a.png', 'a\\b', '../a', '\0', 10**400, -1, 0, 2, 1e300]),
                st.text(max_size=6), st.lists(st.floats() | st.integers() | st.none(), max_size=4), st.dictionaries(st.sampled_from('xyid'), st.integers(), max_size=2))


@often(max_examples=EXAMPLES)
@given(st.data())
def test_mpii_rows_with_changed_fields(home, data):
    rows = [row(np.random.default_rng(n), n) for n in range(3)]
    for _ in range(data.draw(st.integers(1, 4))):
        field, value, way = data.draw(st.sampled_from([*FIELDS, 'new'])), data.draw(ODD), data.draw(st.integers(0, 5))
        at = rows[data.draw(st.integers(0, 2))]
        if not isinstance(at, dict): continue
        if way == 0: at.pop(field, None)
        elif way == 1: rows[data.draw(st.integers(0, 2))] = value
        elif way > 2 and isinstance(at.get(field), list) and at[field]:
            entry = data.draw(st.integers(0, len(at[field]) - 1))
            if way == 3 and isinstance(at[field][entry], list) and at[field][entry]: at[field][entry][0] = value
            else: at[field][entry] = value
        else: at[field] = value
    file = home/'rows.json'
    file.write_text(json.dumps(rows), encoding='utf-8')
    people = people_or_one_line(lambda: load_mpii(file), file)
    assert people is None or len(people) + people.left_out.total == 3


@often(max_examples=EXAMPLES)
@given(changes=CHANGES)
def test_mpii_json_with_changed_bytes(home, changes):
    file = home/'rows.json'
    file.write_bytes(changed(json.dumps([row(np.random.default_rng(n)) for n in range(2)]).encode(), changes))
    people_or_one_line(lambda: load_mpii(file), file)


MATLAB = st.one_of(st.floats(), st.integers(-2**31, 2**31 - 1), st.booleans(), st.text('abc01.-', max_size=5), st.just(np.zeros((0, 0))), st.just(np.ones((2, 2))), st.just(np.array([[1 + 2j]])),
                   st.just(dict(x=1.)), st.just(structs(dict(x=1., id=2), dict(x=3., id=4))), st.just(np.array([['a', 1.]], object)))


@often(max_examples=EXAMPLES)
@given(where=st.sampled_from('annolist img_train image name annorect x1 scale objpos objpos.x annopoints point id x is_visible'.split()), value=MATLAB, n=st.integers(0, 15))
def test_mpii_structures_with_changed_fields(home, reading_here, where, value, n):
    rng = np.random.default_rng(0)
    points = [dict(x=x, y=y, id=i, is_visible=1) for i, (x, y) in enumerate(rng.uniform(1, 90, (16, 2)))]
    if where in ('id', 'x', 'is_visible'): points[n][where] = value
    image = dict(name=value if where == 'name' else 'a.png')
    them = rect(rng, annopoints=value if where == 'annopoints' else dict(point=value if where == 'point' else structs(*points)))
    if where in ('x1', 'scale', 'objpos'): them[where] = value
    if where == 'objpos.x': them['objpos'] = dict(x=value, y=1.)
    images = structs(dict(image=value if where == 'image' else image, annorect=value if where == 'annorect' else structs(them, rect(rng))))
    file = home/'mpii.mat'
    savemat(file, dict(RELEASE=dict(annolist=value if where == 'annolist' else images, img_train=value if where == 'img_train' else 1.)))
    people_or_one_line(lambda: load_mpii(file), file)
    people_or_one_line(lambda: load_mpii_test(file, home))


@often(max_examples=EXAMPLES)
@given(says=st.one_of(ODD, st.dictionaries(st.sampled_from(['train', 'val', 'test']), st.lists(st.sampled_from(['im00001.jpg', 'im00002.png', 'images\\im00003.jpg', 4]) | ODD, max_size=4) | ODD)))
def test_splits_of_any_kind(home, says):
    file = home/'lspet'/'split.json'
    (home/'lspet'/'joints.mat').write_bytes(MADE['lspet', True])
    file.write_text(json.dumps(says), encoding='utf-8')
    try:
        train, val = (people_or_one_line(lambda: load_lspet(home/'lspet', part), file) for part in ('train', 'val'))
    finally: file.unlink()
    if train is not None and val is not None: assert not {p.image for p in train} & {p.image for p in val}


@often(max_examples=EXAMPLES)
@given(shape=st.lists(st.sampled_from([0, 1, 2, 3, 4, 14, 16]), min_size=1, max_size=4), kind=st.sampled_from('f8 f4 i2 u1 b c16'.split()), value=st.sampled_from([0, 1, 2, -1, np.nan, np.inf, .5]),
       name=st.sampled_from(['joints', 'pos_gt_src', 'jnt_missing', 'headboxes_src']))
@example([3, 14, 4], 'f8', 1, 'joints')
def test_arrays_of_any_shape(home, reading_here, shape, kind, value, name):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        array = np.full(shape, value).astype(dict(b=bool).get(kind, kind))
    if name == 'joints':
        for data_set in ('lsp', 'lspet'):
            savemat(home/data_set/'joints.mat', dict(joints=array))
            people_or_one_line(lambda: (load_lsp if data_set == 'lsp' else load_lspet)(home/data_set))
    else:
        savemat(home/'gt_valid.mat', validation() | {name: array})
        people_or_one_line(lambda: load_mpii_validation(home/'gt_valid.mat'))


# ---- values of any kind, written and read

SCALARS = st.one_of(st.floats(), st.integers(-2**31, 2**31 - 1), st.booleans(), st.text(st.characters(codec='utf-8', max_codepoint=0xffff, exclude_categories=['Cs', 'Cc']), min_size=1, max_size=6))
ARRAYS = st.builds(lambda kind, shape, seed: np.random.default_rng(seed).integers(0, 100, shape).astype(kind),
                   st.sampled_from('f8 f4 i1 u1 i2 u2 i4 u4 i8 u8'.split()), st.lists(st.integers(0, 3), min_size=2, max_size=4), st.integers(0, 99))
NAMES = st.sampled_from(['a', 'b', 'scale', 'annopoints', 'x1'])


def cell(values):
    out = np.empty((1, len(values)), object)
    for n, value in enumerate(values): out[0, n] = value
    return out


VALUES = st.recursive(SCALARS | ARRAYS, lambda inner: st.one_of(
    st.lists(inner, min_size=1, max_size=3).map(cell), st.dictionaries(NAMES, inner, min_size=1, max_size=3),
    st.lists(st.fixed_dictionaries(dict(a=inner, b=inner)), min_size=1, max_size=3).map(lambda rows: structs(*rows))), max_leaves=8)


def as_read(value):
    "A value of `VALUES` in the form that read_mat returns: MATLAB has no lists of one, and its empty matrix is 0 x 0."
    if isinstance(value, dict): return [{k: as_read(v) for k, v in value.items()}]
    if isinstance(value, np.ndarray) and value.dtype.names: return [{k: as_read(v) for k, v in zip(value.dtype.names, row)} for row in value.ravel().tolist()]
    if isinstance(value, np.ndarray) and value.dtype == object: return [as_read(v) for v in value.ravel()]
    if isinstance(value, np.ndarray): return value.item() if value.size == 1 else np.zeros((0, 0)) if value.shape == (1, 0) else value
    return value


def same(a, b):
    if isinstance(a, list): return isinstance(b, list) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict): return isinstance(b, dict) and list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, np.ndarray): return a.dtype == b.dtype and a.shape == b.shape and np.array_equal(a, b, equal_nan=a.dtype.kind == 'f')
    return type(a) is type(b) and (a == b or a != a and b != b)


@often(max_examples=EXAMPLES)
@given(content=st.dictionaries(NAMES, VALUES, min_size=1, max_size=3), packed=st.booleans())
def test_the_reader_reads_what_was_written(tmp_path_factory, reading_here, content, packed):
    file = tmp_path_factory.getbasetemp()/'any.mat'
    savemat(file, content, do_compression=packed)
    found = read_mat(file)
    for name, value in content.items(): assert same(found[name], as_read(value)), (name, found[name], value)
