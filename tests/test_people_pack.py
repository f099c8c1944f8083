"""Packs end to end: real and drawn photographs, interruption, concurrency, pickling, and pixels that go where joints go."""
import json, multiprocessing, os, pickle, signal, subprocess, sys, time
from dataclasses import fields, replace
from pathlib import Path

import cv2
import numpy as np
import pytest

import p2net.people.pack as packing
from p2net.errors import InputError
from p2net.people.coco import load_coco
from p2net.people.folder import find_people
from p2net.people.pack import ARRAYS, FILL, Batches, Canvases, build_pack, canvas_side, halves, image_to_canvas, pack_folder
from p2net.people.person import box_to_frame, compose_affine, example_person, frame_to_matrix, invert, transform
from p2net.people.skeleton import SKELETONS
from samples import sample

REPO = Path(__file__).resolve().parents[1]
COCO = SKELETONS['coco17']


def drawn(folder, n=6, seed=0):
    "n drawn people of different size and place, one to a picture."
    folder.mkdir(parents=True, exist_ok=True)
    rng, people = np.random.default_rng(seed), []
    for i in range(n):
        h, w = rng.integers(150, 400, 2)
        height = rng.uniform(.4, .9)*h
        image, p = example_person((int(h), int(w)), (w*rng.uniform(.3, .7), h*rng.uniform(.45, .6)), height)
        noise = rng.integers(-20, 21, image.shape)
        path = str(folder/f'{i}.png')
        cv2.imwrite(path, (image + noise).clip(0, 255).astype(np.uint8)[..., ::-1])
        people.append(replace(p, image=path, image_id=i//2, person_id=i))
    return people


@pytest.fixture
def people(tmp_path): return drawn(tmp_path/'photographs')


def pack_of(people, **kw): return build_pack(people, COCO, **{'input_size': (64, 48), 'progress': False, **kw})


@pytest.mark.parametrize('size', [(64, 48), (48, 64), (128, 96), (33, 21), (40, 40)])
@pytest.mark.parametrize('reach, padding', [(1., 1.25), (1.5, 1.25), (1.8, 1.)])
def test_round_trip_of_joints(people, size, reach, padding):
    "photograph -> canvas -> crop = photograph -> crop, for random frames and any input."
    pack, rng, (H, W) = pack_of(people, input_size=size, reach=reach, padding=padding), np.random.default_rng(1), size
    n, xy = len(people), np.stack([p.joints for p in people])
    assert pack.canvases.shape == (n, canvas_side(size, reach), canvas_side(size, reach), 3)
    scale, turn, flip, shift = rng.uniform(.5, 2, n), rng.uniform(-180, 180, n), rng.random(n) < .5, rng.uniform(-.3, .3, (n, 2))
    center, frame = box_to_frame(pack.bbox, W/H, padding)
    M = pack.matrices(np.arange(n), scale=scale, rotation=turn, flip=flip, shift=shift)
    assert np.allclose(transform(M, pack.joints), transform(frame_to_matrix(center + shift*frame, frame, size, turn, scale, flip), xy), atol=1e-8)
    assert np.allclose(transform(pack.to_image, pack.joints), xy, atol=1e-8)
    assert np.allclose(pack.size, [W, H]) and np.allclose(pack.center, (pack.canvases.shape[1] - 1)/2)
    back = compose_affine(pack.to_image, invert(M))                                           # as evaluation maps predictions
    assert np.allclose(transform(back, transform(M, pack.joints)), xy, atol=1e-8)


@pytest.mark.parametrize('height', [60, 130, 300, 800, 1500])
def test_pixels_go_where_joints_go(tmp_path, height):
    "A red dot on each joint of the photograph is found at the joint on the canvas, whatever the shrinkage."
    h, w = int(1.3*height), int(1.1*height)
    image, p = example_person((h, w), (w/2, .55*h), height)
    zoom = image_to_canvas(p.bbox, (128, 96))[0, 0]
    yy, xx = np.mgrid[:h, :w]
    for j in (5, 10, 15):
        x, y = p.joints[j]
        picture = np.full((h, w, 3), 60.)
        picture[..., 0] += 190*np.exp(-((xx - x)**2 + (yy - y)**2)*zoom**2/2/3**2)
        cv2.imwrite(str(tmp_path/'dot.png'), picture.round().astype(np.uint8)[..., ::-1])
        pack = pack_of([replace(p, image=str(tmp_path/'dot.png'))], input_size=(128, 96))
        red = pack.canvases[0][..., 0].astype(float) - 60
        red[pack.canvases[0][..., 1] != 60] = 0                                        # the fill
        cx, cy = pack.joints[0, j]
        Y, X = np.mgrid[:len(red), :len(red)]
        near = (np.abs(X - cx) < 16) & (np.abs(Y - cy) < 16)
        found = [(X*red*near).sum()/(red*near).sum(), (Y*red*near).sum()/(red*near).sum()]
        assert np.abs(np.array(found) - [cx, cy]).max() < .06, (j, found, (cx, cy))


def test_colours_are_rgb_and_fill_is_the_mean(tmp_path):
    picture = np.zeros((50, 80, 3), np.uint8); picture[..., 0] = 250                   # red in RGB
    cv2.imwrite(str(tmp_path/'red.png'), picture[..., ::-1])
    _, p = example_person()
    p = replace(p, image=str(tmp_path/'red.png'), bbox=np.array([20., 10, 30, 30]))
    canvas = pack_of([p]).canvases[0]
    assert tuple(canvas[48, 48]) == (250, 0, 0) and tuple(canvas[0, 0]) == FILL
    cv2.imwrite(str(tmp_path/'grey.png'), picture[..., 0])                             # one channel
    assert tuple(pack_of([replace(p, image=str(tmp_path/'grey.png'))]).canvases[0][48, 48]) == (250, 250, 250)


def test_threads_and_portions_change_nothing(people, tmp_path):
    many = [replace(p, person_id=100*k + p.person_id, score=1/(k + 1)) for k in range(9) for p in people]
    many = [many[i] for i in np.random.default_rng(0).permutation(len(many))]          # people of an image far apart
    packs = [pack_of(many, workers=w, store=s, cache=c) for s in ('raw', 'jpeg') for w in (1, 5) for c in (None, tmp_path/f'{s}{w}')]
    for group in (packs[:4], packs[4:]):
        for p in group:
            assert p.fingerprint == group[0].fingerprint and (p.canvases[:] == group[0].canvases[:]).all()
            for k in ARRAYS: np.testing.assert_array_equal(getattr(p, k), getattr(group[0], k))
    raw = packs[0]
    assert (raw.person_id == [p.person_id for p in many]).all()
    for i in (0, 7, 30): assert (raw.canvases[i] == pack_of([many[i]]).canvases[0]).all()


def test_cv2_threads_are_given_back(people):
    before = cv2.getNumThreads()
    pack_of(people)
    with pytest.raises(InputError, match='gone.png: photograph of person 0: there is no such photograph'):
        pack_of([replace(people[0], image='gone.png')])
    Path(people[0].image).write_bytes(b'x')
    with pytest.raises(InputError, match='0.png: photograph of person 0: no picture'): pack_of(people)
    assert cv2.getNumThreads() == before


def test_changed_photograph_is_packed_again(people, tmp_path):
    cache = tmp_path/'cache'
    a = pack_of(people, cache=cache)
    assert pack_of(people, cache=cache).fingerprint == a.fingerprint and len(list(cache.iterdir())) == 1
    before, path = a.canvases[0], people[0].image
    cv2.imwrite(path, 255 - cv2.imread(path)); os.utime(path, ns=(1, 1))               # same size of file or not: the time differs
    b = pack_of(people, cache=cache)
    assert b.fingerprint != a.fingerprint and (b.canvases[0] != before).any() and len(list(cache.iterdir())) == 2


SCRIPT = """
import sys, pickle, time
import p2net.people.pack as packing
from p2net.people.skeleton import SKELETONS
people = pickle.load(open(sys.argv[1], 'rb'))
if sys.argv[3] == 'slow':
    cut = packing.cut_canvas
    def slowly(*a):
        print('cutting', flush=True); time.sleep(.2)
        return cut(*a)
    packing.cut_canvas = slowly
pack = packing.build_pack(people, SKELETONS['coco17'], (64, 48), sys.argv[2], progress=False, workers=1)
print(pack.fingerprint, flush=True)
"""


def start(people, cache, tmp_path, how):
    (tmp_path/'people.pickle').write_bytes(pickle.dumps(people))
    return subprocess.Popen([sys.executable, '-c', SCRIPT, tmp_path/'people.pickle', cache, how], stdout=subprocess.PIPE, text=True, cwd=REPO)


def test_killed_packing_is_done_again(people, tmp_path):
    cache = tmp_path/'cache'
    child = start(people, cache, tmp_path, 'slow')
    assert child.stdout.readline() == 'cutting\n'
    child.send_signal(signal.SIGKILL); child.wait()
    left = list(cache.iterdir())
    assert len(left) == 1 and left[0].name.startswith('.packing-')                     # not to be taken for a pack
    pack = pack_of(people, cache=cache)
    assert (pack.canvases[:] == pack_of(people).canvases[:]).all()
    assert left[0].is_dir()                                                            # young: perhaps somebody is at it
    old = time.time() - 2*86_400
    for f in (*left[0].iterdir(), left[0]): os.utime(f, (old, old))
    pack_of(people[:3], cache=cache)
    assert not left[0].exists()


def test_two_processes_pack_at_once(people, tmp_path):
    cache = tmp_path/'cache'
    children = [start(people, cache, tmp_path, 'slow') for _ in range(2)]
    printed = [c.communicate()[0].split()[-1] for c in children]
    assert [c.returncode for c in children] == [0, 0] and len(set(printed)) == 1
    assert [f.name.startswith('.') for f in cache.iterdir()] == [False]
    assert pack_of(people, cache=cache).fingerprint == printed[0]


def test_interrupt_leaves_nothing(people, tmp_path, monkeypatch):
    def stop(*_): raise KeyboardInterrupt
    monkeypatch.setattr(packing, 'cut_canvas', stop)
    with pytest.raises(KeyboardInterrupt): pack_of(people, cache=tmp_path/'cache')
    assert list((tmp_path/'cache').iterdir()) == []


def first_pixel(canvases): return canvases[0][0, 0].tolist(), type(canvases.source).__name__


@pytest.mark.parametrize('store', ['raw', 'jpeg'])
def test_worker_processes_open_the_map_themselves(people, tmp_path, store):
    pack = pack_of(people, cache=tmp_path/'cache', store=store).take([3, 1])
    assert len(pickle.dumps(pack.canvases)) < 1200                                     # no canvas inside
    with multiprocessing.get_context('spawn').Pool(1) as pool: got, kind = pool.apply(first_pixel, (pack.canvases,))
    assert got == pack.canvases[0][0, 0].tolist() and kind == {'raw': 'memmap', 'jpeg': 'Jpegs'}[store]


def test_jpeg_is_smaller_on_photographs(tmp_path):
    root = sample('data/coco-people')
    people = load_coco(root/'annotations'/'person_keypoints_val.json', root/'images', minimum_joints=10)[:30]
    raw, jpeg = (build_pack(people, COCO, (256, 192), store=s, progress=False) for s in ('raw', 'jpeg'))
    share = jpeg.canvases.source.data.size/raw.canvases[:].size
    assert share < 1/6                                                                 # check_space reckons with 1/8
    assert np.abs(raw.canvases[:].astype(int) - jpeg.canvases[:]).mean() < 2.5


@pytest.mark.parametrize('name', ['coco-people', 'mpii', 'lsp', 'lspet'])
def test_real_people(name, tmp_path):
    "Each canvas equals the warp of its photograph, and the labelled joints of most people lie on it."
    found = find_people(sample(f'data/{name}'))
    people = found.val()[:40]
    pack = build_pack(people, found.skeleton, (128, 96), tmp_path/'cache', progress=False)
    labelled = pack.visibility > 0
    on = ((pack.joints >= -.5) & (pack.joints <= pack.canvases.shape[1] - .5)).all(-1)
    assert on[labelled].mean() > .98 and (pack.joints[~labelled] == 0).all()
    crop = transform(pack.matrices(), pack.joints)
    inside = ((crop >= 0) & (crop < [96, 128])).all(-1)
    assert inside[labelled].mean() > .95                                               # the frame holds the person
    images = {p.image: cv2.imread(p.image, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)[..., ::-1] for p in people}
    compared = 0
    for i, p in enumerate(people):
        M = image_to_canvas(p.bbox, (128, 96))
        if M[0, 0] <= .5: continue                                                     # averaged first
        plain = cv2.warpAffine(np.ascontiguousarray(images[p.image]), M, pack.canvases.shape[1:3], borderMode=cv2.BORDER_CONSTANT, borderValue=FILL)
        assert (plain == pack.canvases[i]).all(); compared += 1
    assert compared or name == 'mpii'
    a, b = (halves(pack, 0) if len(set(pack.image_id)) > 1 else (np.arange(len(pack)), []))
    assert not {pack.images[i] for i in a} & {pack.images[i] for i in b}


def test_unknown_numbers_are_nan(people):
    pack = pack_of([replace(people[0], area=None, head_size=None), people[1]])
    assert np.isnan(pack.area[0]) and np.isnan(pack.head_size[0]) and not np.isnan(pack.area[1])


def test_canvases_behave_like_an_array(people):
    pack = pack_of(people); whole = np.asarray(pack.canvases)
    assert isinstance(pack.canvases, Canvases) and whole.dtype == np.uint8 and whole.mean(dtype=float) == np.mean(pack.canvases)
    for index in (0, -1, slice(None), slice(1, 5, 2), [2, 2, 0], np.arange(6) % 2 == 0, np.array([], int)):
        assert (pack.canvases[index] == whole[index]).all() and pack.canvases[index].shape == whole[index].shape
    with pytest.raises(IndexError): pack.canvases[6]


@pytest.mark.parametrize('n, batch, drop_last', [(10, 3, True), (10, 3, False), (7, 7, True), (5, 1, False)])
def test_batches_replay(n, batch, drop_last):
    make = lambda: Batches(n, batch, 4, drop_last)
    stream = make().cyclic()
    steps = [next(stream) for _ in range(40)]
    for s in (0, 1, 17, 39): assert (make().at(s) == steps[s]).all() and (next(make().cyclic(s)) == steps[s]).all()
    per = make().per_epoch
    assert [len(b) for b in steps[:per]] == [len(b) for b in make().epoch(0)]
    if not drop_last: assert sorted(np.concatenate(steps[:per])) == list(range(n))
    steps[0][:] = -1                                                                   # the caller's array is the caller's
    b = make(); b.epoch(0)[0][:] = -1
    assert (b.at(0) >= 0).all()


def test_batches_are_the_same_on_every_machine():
    "Golden: numpy promises the stream of PCG64, and records rely on it."
    assert [b.tolist() for b in Batches(7, 3, 5).epoch(2)] == GOLDEN


GOLDEN = [[0, 4, 5], [3, 1, 2]]


def test_halves_are_halves(people):
    "Three images of two people: three halves of (2, 4) and (4, 2), never an image on both sides."
    pack = pack_of(people*5)
    for seed in range(10):
        a, b = halves(pack, seed)
        assert sorted([*a, *b]) == list(range(30)) and {len(a), len(b)} == {10, 20}
        assert not set(pack.image_id[a]) & set(pack.image_id[b])
    many = pack_of([replace(p, image_id=k) for k in range(20) for p in people[:3]])
    assert {len(h) for seed in range(10) for h in halves(many, seed)} == {30}


def test_pack_folder(monkeypatch, tmp_path):
    monkeypatch.setenv('P2NET_CACHE', str(tmp_path))
    assert pack_folder() == tmp_path/'packs' and pack_folder('elsewhere') == Path('elsewhere')/'packs'
    monkeypatch.delenv('P2NET_CACHE'); monkeypatch.setenv('HOME', str(tmp_path/'home'))
    assert pack_folder() == tmp_path/'home'/'.cache'/'p2net'/'packs'


def test_settings_are_kept_with_the_pack(people, tmp_path):
    pack_of(people, cache=tmp_path, reach=1.25)
    about = json.loads(next(tmp_path.glob('*/pack.json')).read_text())
    assert about['settings']['reach'] == 1.25 and about['settings']['skeleton'][0] == 'coco17' and about['settings']['version'] == packing.VERSION


@pytest.mark.parametrize('name, fault', [('pack.json', b'{"settings": '), ('people.npz', b'PK'), ('canvases.npy', b''), ('pack.json', b'{}')])
def test_a_pack_that_something_broke_is_named(people, tmp_path, name, fault):
    "A disk error or a copy that ended early: one line that says which folder to remove."
    pack_of(people, cache=tmp_path/'cache')
    folder = next((tmp_path/'cache').iterdir())
    (folder/name).write_bytes(fault)
    with pytest.raises(InputError, match=f'{folder}.*remove it, the next run') as caught: pack_of(people, cache=tmp_path/'cache')
    assert '\n' not in str(caught.value)


def test_who_is_on_an_unreadable_photograph_is_said(people, tmp_path):
    "Two people on the same cut photograph: the line names the first and counts the other."
    path = Path(people[2].image)
    path.write_bytes(path.read_bytes()[:500])
    both = [people[0], people[2], replace(people[2], person_id=77)]
    for cache in (None, tmp_path/'cache'):
        with pytest.raises(InputError, match='2.png: photograph of person 2 and 1 more: a PNG that is cut short'): pack_of(both, cache=cache)
    assert list((tmp_path/'cache').iterdir()) == []


def test_the_fields_with_a_row_per_person(people):
    "Whatever field is added to a pack, the arrays and nothing else are cut, kept and hashed row by row."
    pack = pack_of(people)
    assert ARRAYS == [f.name for f in fields(pack) if isinstance(getattr(pack, f.name), np.ndarray)]
    assert all(len(getattr(pack, k)) == len(pack) == 6 and len(getattr(pack.take([4, 1]), k)) == 2 for k in ARRAYS)
