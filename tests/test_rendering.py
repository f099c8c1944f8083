"Rendering as a whole, on a few small frames: processes, interruption, the files, geometry, bad input."
import hashlib, json, os, subprocess, sys, time
from dataclasses import asdict, replace
from pathlib import Path
import cv2
import numpy as np
import pytest
import forked
from p2net.rendering.body import JOINTS, LIMITS, get_body
from p2net.rendering.camera import look_at
from p2net.people.coco import load_coco
from p2net.rendering.poses import MODES, sample_person, sample_phenotype, sample_pose
from p2net.rendering.render import RenderConfig, get_studio, is_finished, make_actor, render_frame, render_people, rendered_folder
from p2net.people.skeleton import SKELETONS

SMALL = RenderConfig(train=5, val=2, side=96, supersampling=.5, smallest=20)
ROOT = Path(__file__).resolve().parents[1]

AVX2 = dict(ATEN_CPU_CAPABILITY='avx2', MKL_ENABLE_INSTRUCTIONS='AVX2', OPENBLAS_CORETYPE='Haswell',
            NPY_DISABLE_CPU_FEATURES='AVX512F AVX512CD AVX512_SKX', PYTHONWARNINGS='ignore') # as on a processor without AVX-512

def run_python(code:str, environment:dict):
    "A process like a worker: one thread, this repository on the path."
    env = dict(os.environ, OMP_NUM_THREADS='1', PYTHONPATH=os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')]), **environment)
    return subprocess.Popen([sys.executable, '-c', code], env=env, text=True, stdout=subprocess.PIPE)

def contents(folder)->dict: # relative path -> hash
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(Path(folder).rglob('*')) if p.is_file()}

def annotations(folder, split)->dict:
    return json.loads((Path(folder)/'annotations'/f'person_keypoints_{split}.json').read_text())

@pytest.fixture(scope='module')
def frame():
    "A frame of this process: photograph, JPEG quality, annotations."
    return render_frame(SMALL, 'val', 3)

def render_with_forks(folder, workers:int, new_session=False):
    "`render_people`, whose workers are forks of this process: a start takes no seconds. The test of two processes starts workers as users do."
    import kill
    from p2net.rendering import render as rendering
    if new_session: os.setsid()
    rendering._start_worker = kill.Forked
    get_studio()
    return render_people(folder, SMALL, workers=workers, progress=False)

@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return forked.forked(render_with_forks, tmp_path_factory.mktemp('people')/'one', 1)

@pytest.fixture(scope='module')
def resumed(tmp_path_factory):
    "The same data set by two workers; all processes are killed after the first frames, and one worker does the rest."
    folder = tmp_path_factory.mktemp('people')/'two'
    forked.start()
    p = forked.context.Process(target=render_with_forks, args=(folder, 2, True))
    p.start()
    end = time.monotonic() + 240
    while len(list((folder/'frames').glob('*.json') if (folder/'frames').exists() else [])) < 2 and p.is_alive():
        assert time.monotonic() < end, 'no frame in four minutes'
        time.sleep(.01)
    killed = p.is_alive()
    if killed: os.killpg(p.pid, 9)
    p.join()
    done = [folder/'images'/f'{note.stem}.jpg' for note in (folder/'frames').glob('train_*.json')] # the photograph is written first
    left = {path: path.stat().st_mtime_ns for path in done}
    finished = is_finished(folder, SMALL)
    forked.forked(render_with_forks, folder, 1)
    return folder, killed, finished, left

# --- the same bytes from every process

def test_a_frame_is_the_same_on_another_processor(frame):
    "With the vector instructions of AVX2 alone. Workers, which have one thread, are compared with this process below."
    code = ("import hashlib, json; from p2net.rendering.render import *; "
            f"photo, quality, found = render_frame(RenderConfig(**{asdict(SMALL)!r}), 'val', 3); "
            "print(hashlib.sha256(photo.tobytes()).hexdigest(), quality, json.dumps(found))")
    p = run_python(code, AVX2)
    there = p.communicate(timeout=300)[0].strip()
    photo, quality, found = frame
    assert p.returncode == 0 and there == f'{hashlib.sha256(photo.tobytes()).hexdigest()} {quality} {json.dumps(found)}'

def test_a_worker_writes_what_this_process_renders(folder):
    for row in annotations(folder, 'val')['images']:
        photo, quality, found = render_frame(SMALL, 'val', int(row['file_name'][-10:-4]))
        data = cv2.imencode('.jpg', photo[:,:,::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
        assert data == (folder/'images'/row['file_name']).read_bytes()
        assert found == [{k: a[k] for k in found[0]} for a in annotations(folder, 'val')['annotations'] if a['image_id'] == row['id']]

def test_a_frame_does_not_depend_on_frames_before_it(frame):
    render_frame(SMALL, 'train', 5); np.random.seed(3); np.random.rand(7)
    again = render_frame(SMALL, 'val', 3)
    assert np.array_equal(frame[0], again[0]) and frame[1:] == again[1:]

def test_killed_and_resumed_is_the_same_data_set(folder, resumed):
    other, killed, finished, left = resumed
    assert contents(other) == contents(folder)                       # two workers, killed and continued = one worker without interruption
    if not killed: pytest.skip('everything was rendered before the kill; the contents were compared')
    assert not finished and left
    kept = [p for p in left if p.exists()]
    assert kept and all(p.stat().st_mtime_ns == left[p] for p in kept) # finished frames are not rendered again

def test_a_finished_folder_is_left_alone(folder):
    before = {p: p.stat().st_mtime_ns for p in folder.rglob('*')}
    assert render_people(folder, SMALL, workers=2, progress=False) == folder
    assert {p: p.stat().st_mtime_ns for p in folder.rglob('*')} == before

def test_no_temporary_file_is_left(folder):
    names = {p.name for p in folder.iterdir()}
    assert names == {'images', 'annotations', 'fingerprint.json'}
    assert not [p for p in folder.rglob('.*')]

# --- what is written

def test_as_many_people_as_were_asked_for(folder):
    for split, n in (('train', SMALL.train), ('val', SMALL.val)):
        data = annotations(folder, split)
        assert len(data['annotations']) == n
        assert {a['image_id'] for a in data['annotations']} == {i['id'] for i in data['images']} # no empty photograph
        assert len({a['id'] for a in data['annotations']}) == n

def test_train_and_val_share_no_photograph(folder):
    hashes = {s: {hashlib.sha256(p.read_bytes()).hexdigest() for p in (folder/'images').glob(f'{s}_*')} for s in ('train', 'val')}
    assert hashes['train'] and hashes['val'] and not hashes['train']&hashes['val']
    assert not {i['id'] for i in annotations(folder, 'train')['images']}&{i['id'] for i in annotations(folder, 'val')['images']}

@pytest.mark.parametrize('split', ['train', 'val'])
def test_photographs_have_the_size_that_the_annotations_say(folder, split):
    for row in annotations(folder, split)['images']:
        assert cv2.imread(str(folder/'images'/row['file_name'])).shape == (row['height'], row['width'], 3)

def test_our_loader_reads_all_21_joints(folder):
    path = folder/'annotations'/'person_keypoints_train.json'
    people, rows = load_coco(path, folder/'images', skeleton='people21'), annotations(folder, 'train')['annotations']
    assert len(people) == SMALL.train
    by_id = {a['id']: a for a in rows}
    for p in people:
        a = by_id[p.person_id]
        written = np.array(a['keypoints'] + a['extra_keypoints'], float).reshape(21, 3)
        assert p.joints.shape == (21, 2) and np.array_equal(p.visibility, written[:,2])
        on = p.visibility > 0
        assert np.allclose(p.joints[on], written[on,:2]) and Path(p.image).exists()
        assert p.area == pytest.approx(a['area'])
        assert p.head_size == pytest.approx(.6*np.hypot(*a['head_box'][2:]))

def test_pycocotools_reads_it_and_perfect_predictions_score_one(folder, capsys):
    from pycocotools import coco, cocoeval
    truth = coco.COCO(str(folder/'annotations'/'person_keypoints_val.json'))
    assert len(truth.getAnnIds()) == SMALL.val and truth.loadCats(1)[0]['keypoints'] == list(SKELETONS['coco17'].joints)
    rows = annotations(folder, 'val')['annotations']
    predictions = [dict(image_id=a['image_id'], category_id=1, keypoints=a['keypoints'], score=1.) for a in rows]
    run = cocoeval.COCOeval(truth, truth.loadRes(predictions), 'keypoints')
    run.evaluate(); run.accumulate(); run.summarize(); capsys.readouterr()
    assert run.stats[1] in (1., -1.)                                 # AP50; -1: all people are smaller than COCO's medium
    if all(32**2 <= a['area'] for a in rows): assert run.stats[0] == pytest.approx(1.)

# --- geometry

def test_projection_of_joints_by_hand():
    "A camera 4 m south at 1 m, level: x grows to the east, y downwards, in proportion to f / depth."
    actor = make_actor(get_studio(), np.random.default_rng(0), 0, 'stand')
    camera = look_at(np.array([.5, -4., 1.]), np.array([.5, 0., 1.]), 200., (120, 90)) # H, W
    got, depth = camera.project(actor.posed.joints)
    for (X, Y, Z), (x, y), z in zip(actor.posed.joints, got, depth):
        assert z == pytest.approx(Y + 4)
        assert x == pytest.approx(44.5 + 200*(X - .5)/(Y + 4)) and y == pytest.approx(59.5 - 200*(Z - 1)/(Y + 4))

def test_left_is_left():
    "Of a person who faces the camera (to the south), the left hand is on the right of the picture."
    body = get_body(); posed = body.pose(body.shape({}), {})
    camera = look_at(np.array([0., -4., 0.]), np.zeros(3), 200., (120, 90))
    xy = dict(zip(JOINTS, camera.project(posed.joints)[0]))
    for name in ('shoulder', 'elbow', 'wrist', 'hip', 'knee', 'ankle', 'eye', 'ear'):
        assert xy[f'left_{name}'][0] > xy[f'right_{name}'][0], name
    assert xy['head_top'][1] < xy['nose'][1] < xy['upper_neck'][1] < xy['pelvis'][1] < xy['left_knee'][1]

def test_sampled_poses_stay_within_the_limits():
    rng, seen = np.random.default_rng(0), set()
    for _ in range(100):
        angles, mode = sample_pose(rng); seen.add(mode)
        for name, value in angles.items():
            low, high = LIMITS[name]
            assert low - 1e-9 <= value <= high + 1e-9, (mode, name, value)
    assert len(seen) > len(MODES)/2

def test_sampled_people_stay_within_the_limits_and_on_the_ground():
    rng, body = np.random.default_rng(1), get_body()
    for mode in MODES:
        posed, angles, got = sample_person(rng, body, body.shape(sample_phenotype(rng)), mode)
        assert got == mode and all(LIMITS[n][0] - 1e-9 <= a <= LIMITS[n][1] + 1e-9 for n, a in angles.items()), mode
        assert -.03 < posed.vertices[:,2].min() < .5, mode             # a jumping person is above the ground
        assert np.isfinite(posed.joints).all() and posed.joints[:,2].max() < 3, mode

# --- faults

@pytest.mark.parametrize('field, value', [('train', -1), ('train', 1.5), ('train', '3'), ('val', -2), ('seed', -1), ('side', 63), ('side', 1025),
    ('side', 128.), ('supersampling', .4), ('supersampling', 5), ('supersampling', float('nan')), ('occluders', -.1), ('occluders', 1.1),
    ('company', 2), ('company', float('nan')), ('smallest', -1)])
def test_bad_settings_are_refused_by_name(field, value):
    with pytest.raises(ValueError, match=f'^RenderConfig: {field} must be ') as e: RenderConfig(**{field: value})
    assert repr(value) in str(e.value) and '\n' not in str(e.value)

def test_an_empty_data_set_is_refused():
    with pytest.raises(ValueError, match='train must be > 0 when val is 0'): RenderConfig(train=0, val=0)
    RenderConfig(train=0, val=1); RenderConfig(train=1, val=0)

def test_a_folder_of_other_settings_is_refused_and_kept(folder, tmp_path):
    before = contents(folder)
    with pytest.raises(ValueError, match='another data set is here'): render_people(folder, replace(SMALL, seed=9), workers=1, progress=False)
    assert contents(folder) == before
    (tmp_path/'rendering.json').write_text(json.dumps(dict(fingerprint='0'*12)))
    with pytest.raises(ValueError, match='another data set is being rendered here'): render_people(tmp_path, SMALL, workers=1, progress=False)
    with pytest.raises(ValueError, match='workers must be >= 1'): render_people(tmp_path/'new', SMALL, workers=0, progress=False)

def test_where_the_data_set_is_kept(monkeypatch, tmp_path):
    monkeypatch.setenv('P2NET_CACHE', str(tmp_path))
    assert rendered_folder(SMALL) == tmp_path/'people'/SMALL.fingerprint
    monkeypatch.delenv('P2NET_CACHE')
    assert rendered_folder(SMALL) == Path.home()/'.cache'/'p2net'/'people'/SMALL.fingerprint

def test_two_processes_may_want_the_same_folder(tmp_path):
    "Two processes with an empty cache and one split alone: the second waits and uses the folder of the first."
    config = replace(SMALL, train=0, val=1)
    code = ("import sys; from p2net.rendering.render import RenderConfig, render_people; "
            f"print(render_people(sys.argv[1], RenderConfig(**{asdict(config)!r}), workers=1, progress=False))")
    runs = [subprocess.Popen([sys.executable, '-c', code, tmp_path/'people'], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [run.communicate(timeout=300) for run in runs]
    assert [run.returncode for run in runs] == [0, 0], said
    assert is_finished(tmp_path/'people', config) and not (tmp_path/'people'/'frames').exists()
    assert [len(annotations(tmp_path/'people', split)['annotations']) for split in ('train', 'val')] == [0, 1]
