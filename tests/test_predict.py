"Photographs in, skeletons out: the command, what it leaves, what it says of files that can't be used; and the exported file."
import copy, functools, json, os, subprocess, sys

import cv2, numpy as np, pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from PIL import Image

import p2net
from p2net.cli import main
from p2net.errors import InputError
from p2net.people.photographs import read_photo
from p2net.tools.predict import PHOTOS, SHIPPED, VIDEOS, BoxFile, FoundPerson, PoseEstimator, VideoReader, boxes_on, describe_missing, list_files, predict_files
from samples import sample

from pathlib import Path
PEOPLE = np.load(Path(p2net.__file__).parents[1]/'paper_results/runs/tiny/p2net/0/examples.npz')['images']


@pytest.fixture
def album(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path/'album').mkdir()
    for i in range(2): Image.fromarray(PEOPLE[i]).save(f'album/{i + 1}.jpg', quality=95)
    return tmp_path/'album'


def test_the_shipped_network_is_small_and_has_its_record():
    record = json.loads(SHIPPED.with_suffix('.json').read_text())
    assert SHIPPED.stat().st_size <= 8*2**20 and record['status'] == 'complete' and record['config']['data']['source'] == 'rendered'
    header = PoseEstimator.load().header
    assert header.trained['metrics']['PCK@0.2'] == record['metrics']['PCK@0.2'] > .5 and list(header.input_size) == record['config']['data']['input_size']


def test_the_command(album, capsys):
    assert main(['predict', 'album']) == 0
    rows = json.loads(Path('poses/poses.json').read_text())
    assert [r['image_id'] for r in rows] == [1, 2] and all(len(r['keypoints']) + len(r['extra_keypoints']) == 3*len(r['joints']) == 63 for r in rows)
    for i in (1, 2): assert np.abs(read_photo(f'poses/{i}.jpg')[0].astype(int) - PEOPLE[i - 1]).max() > 60     # something was painted
    assert '2 people' in capsys.readouterr().out


def test_what_cannot_be_read_is_one_line_each_and_the_others_go_on(album, capsys):
    (album/'0.jpg').write_bytes((album/'1.jpg').read_bytes()[:600])
    (album/'9.png').write_text('not a picture')
    assert main(['predict', 'album', 'gone.jpg']) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 3 and [n in line for n, line in zip(('0.jpg', '9.png', 'gone.jpg'), lines)] == [True]*3
    assert len(json.loads(Path('poses/poses.json').read_text())) == 2


@pytest.mark.parametrize('words, says', [(['--weights', 'none.safetensors'], 'none.safetensors'), (['--boxes', 'none.json'], 'none.json'),
                                         (['--out', 'album'], 'overwritten')])
def test_faults_of_the_call(album, capsys, words, says):
    assert main(['predict', 'album', *words]) in (1, 2)
    assert says in capsys.readouterr().err


def test_weights_without_header_or_record(album, capsys):
    from safetensors.torch import load_file, save_file
    save_file(load_file(SHIPPED), 'bare.safetensors')
    assert main(['predict', 'album', '--weights', 'bare.safetensors']) == 2
    assert 'record.json' in capsys.readouterr().err


def test_grey_and_transparent_pictures(tmp_path):
    Image.fromarray(PEOPLE[0]).convert('L').save(tmp_path/'grey.png')
    Image.fromarray(PEOPLE[0]).convert('RGBA').save(tmp_path/'clear.png')
    assert read_photo(tmp_path/'grey.png')[0].shape == read_photo(tmp_path/'clear.png')[0].shape == PEOPLE[0].shape
    assert len(PoseEstimator.load()(tmp_path/'grey.png')) == 1


def test_the_evaluation_finds_the_same_joints(tmp_path):
    "The pack that the tables are made from, and a photograph with a box: the same crop to the pixel."
    from p2net.people.pack import build_pack
    from p2net.people.person import Person
    from p2net.runs.config import EvaluationConfig
    from p2net.runs.evaluating import predict
    pose, box = PoseEstimator.load(), np.array([20., 15, 100, 160])
    Image.fromarray(PEOPLE[0]).save(tmp_path/'a.png')
    a = pose.header
    pack = build_pack([Person(tmp_path/'a.png', box, np.zeros((21, 2)), np.zeros(21))], a.skeleton, a.input_size, reach=a.reach, padding=a.padding, progress=False)
    found = predict(pose.model, pack, EvaluationConfig(**a.evaluation))
    assert np.abs(found.joints[0] - pose(tmp_path/'a.png', box)[0].joints).max() < 1e-9


def test_a_real_photograph_from_a_cold_start(tmp_path):
    "The command as it is typed, in a process of its own."
    photo = sorted(sample('data/coco-people/images').rglob('*.jpg'))[0]
    done = subprocess.run([sys.executable, '-m', 'p2net', 'predict', photo, '--out', tmp_path/'poses'], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path/'poses'/photo.name).is_file() and json.loads((tmp_path/'poses/poses.json').read_text())


@pytest.mark.parametrize('size', [(96, 72), (64, 48)])
def test_onnx_agrees_with_pytorch_where_sizes_do_not_divide(tmp_path, size):
    ort = pytest.importorskip('onnxruntime', reason="no onnxruntime, an optional library: pip install -e '.[export]'")
    pytest.importorskip('onnx', reason="no onnx, an optional library: pip install -e '.[export]'")
    import torch
    from dataclasses import replace
    from p2net.tools.export import ExportedNetwork, export_onnx
    pose = PoseEstimator.load()
    pose.header = replace(pose.header, input_size=size)
    session = ort.InferenceSession(export_onnx(pose, tmp_path/'pose.onnx'), providers=['CPUExecutionProvider'])
    x = torch.rand(3, 3, *size, generator=torch.Generator().manual_seed(1))
    for n in (1, 3):
        with torch.no_grad(): expected = ExportedNetwork(pose).eval()(x[:n])
        for theirs, ours in zip(session.run(None, {'crop': x[:n].numpy()}), expected): assert np.abs(theirs - ours.numpy()).max() < 1e-4


@pytest.mark.parametrize('boxes, advice', [([], '--boxes'), (['--boxes', 'boxes.json'], '--threshold')])
def test_nobody_is_painted_without_a_word(album, capsys, boxes, advice):
    Path('boxes.json').write_text(json.dumps({'1.jpg': [[0, 0, 40, 60]]}))
    (album/'2.jpg').unlink()
    assert main(['predict', 'album', '--threshold', '1.5', *boxes]) == 0
    out = capsys.readouterr().out
    assert 'no skeleton is drawn for 1 of them' in out and advice in out
    assert main(['predict', 'album', '--threshold', '0', *boxes]) == 0
    assert 'no skeleton' not in capsys.readouterr().out


situation = pytest.mark.situation
EXAMPLES = int(os.environ.get('P2NET_EXAMPLES', 400))

@functools.cache
def shipped(): return PoseEstimator.load()


class Quick(PoseEstimator):
    "A network that finds the same joints in every box at once."
    def find(self, picture, boxes, scores):
        J = len(self.skeleton)
        return [FoundPerson(b[:2] + np.linspace(.2, .8, J)[:, None]*b[2:], np.linspace(.5, 1, J), b, float(s)) for b, s in zip(boxes, scores)]


def predicted(words, boxes='whole', quick=True):
    "Rows, number of failures and what was said."
    said = []
    rows, failed = predict_files(words, 'poses', Quick(None, shipped().header) if quick else shipped(), boxes, say=said.append)
    return rows, failed, said


def box_file(content, name='boxes.json'):
    Path(name).write_text(json.dumps(content))
    return name


# ---- which files

@situation('a folder with the `._a.jpg` files of a Mac', '`2 x hidden file left out (first: album/._1.jpg)`; the photographs are predicted, exit 0')
def test_side_files_of_a_mac_are_left_out_and_counted(album, capsys):
    for name in ('._1.jpg', '._2.jpg'): (album/name).write_bytes(b'\0\5\x16\7\0\2\0\0Mac OS X        ')
    assert main(['predict', 'album']) == 0
    said = capsys.readouterr()
    assert said.err.splitlines() == ['p2net predict: 2 x hidden file left out (first: album/._1.jpg)'] and '2 people' in said.out


@situation('a folder that also holds other files', '`1 x file left out that is neither a photograph nor a video by its ending (first: …)`')
def test_other_files_of_a_folder_are_counted(album):
    (album/'notes.txt').touch(); (album/'sub').mkdir()
    assert predicted(['album'])[2] == ['1 x file left out that is neither a photograph nor a video by its ending (first: album/notes.txt)']


@pytest.mark.parametrize('name', ['people.csv', 'photo', 'a.jpg.part'])
@situation('a file of another kind is named', '`people.csv: has the ending \'.csv\', which is not that of a photograph or video; known endings: .jpg …`, exit 2')
def test_a_file_of_an_unknown_ending_is_refused_with_the_known_ones(album, capsys, name):
    Path(name).write_text('x')
    assert main(['predict', 'album', name]) == 2
    said = capsys.readouterr().err
    assert f'{name}: has the ending' in said and all(ending in said for ending in PHOTOS + VIDEOS) and not Path('poses').exists()


def test_a_name_that_is_nowhere_and_has_no_ending_is_no_matter_of_endings(album):
    with pytest.raises(InputError, match='albun: there is no such file or folder'): list_files(['albun'])


def test_a_file_named_twice_is_looked_at_once(album): assert [r['image_id'] for r in predicted(['album/2.jpg', 'album'])[0]] == [2, 1]


@situation('the output folder is the folder of the photographs', '`album/1.jpg: it is in the output folder and would be overwritten; choose another --out`, before the first is looked at')
def test_nothing_is_painted_over(album, monkeypatch):
    monkeypatch.setattr(PoseEstimator, 'load', lambda *a: pytest.fail('a network was loaded'))
    before = {p: p.read_bytes() for p in album.iterdir()}
    for out in ('album', 'album/../album'):
        with pytest.raises(InputError, match='overwritten'): predict_files(['album'], out)
    assert {p: p.read_bytes() for p in album.iterdir()} == before


# ---- photographs

@situation('a photograph that is entirely black or white', '`a.png: the picture is entirely black`; it is predicted like any other')
def test_a_photograph_of_one_colour_is_said(album):
    for name, value in (('b', 0), ('w', 255), ('g', 7)): Image.new('RGB', (40, 50), (value,)*3).save(album/f'{name}.png')
    rows, failed, said = predicted(['album'])
    assert said == ['album/b.png: the picture is entirely black', 'album/w.png: the picture is entirely white'] and (len(rows), failed) == (5, 0)


@situation('a phone\'s photograph with an orientation tag, and boxes drawn on the upright picture', 'training and `predict` cut out the same pixels')
def test_training_and_prediction_see_the_same_person(album):
    "The canvas of a pack and the one of predict, of a photograph that is stored turned."
    from p2net.people.pack import build_pack
    from p2net.people.person import Person
    from p2net.tools.predict import pack_in_memory
    (exif := Image.Exif())[274] = 6
    Image.fromarray(PEOPLE[0]).save('upright.png')
    Image.fromarray(PEOPLE[0]).transpose(Image.Transpose.ROTATE_90).save('phone.png', exif=exif)
    box, header = np.array([20., 15, 100, 160]), shipped().header
    trained = [build_pack([Person(name, box, np.zeros((21, 2)), np.zeros(21))], header.skeleton, header.input_size, progress=False) for name in ('upright.png', 'phone.png')]
    seen = pack_in_memory(read_photo('phone.png')[0], box[None], np.ones(1), header)
    assert (trained[0].canvases[:] == trained[1].canvases[:]).all() and (seen.canvases[:] == trained[0].canvases[:]).all()
    rows = [predicted([f'{name}.png'], box_file({f'{name}.png': [box.tolist()]}), quick=False)[0][0] for name in ('upright', 'phone')]
    assert rows[0]['keypoints'] == rows[1]['keypoints']


@situation('COCO annotations whose width and height are those of the stored pixels, though a tag turns the photograph', '`boxes.json: 1 x photograph that its orientation tag turns, with the height and width of the unturned picture: check that its boxes are for the upright picture (first: phone.jpg)`')
def test_sizes_that_contradict_the_orientation_tag_are_said(album):
    (exif := Image.Exif())[274] = 6
    h, w = PEOPLE[0].shape[:2]
    Image.fromarray(PEOPLE[0]).save('phone.jpg', exif=exif)
    coco = lambda height, width: dict(images=[dict(id=5, file_name='phone.jpg', height=height, width=width)], annotations=[dict(id=1, image_id=5, bbox=[10, 10, 90, 100], category_id=1)])
    assert 'its orientation tag turns, with the height' in predicted(['phone.jpg'], box_file(coco(h, w)))[2][0]
    assert predicted(['phone.jpg'], box_file(coco(w, h)))[2] == []                             # as the upright picture is
    assert 'with another height and width' in predicted(['phone.jpg'], box_file(coco(2*w, 2*h)))[2][0]


def test_a_joint_off_the_picture_needs_no_second_look(album, monkeypatch):
    "Where all that was found lies beside the picture, the first look is kept."
    pose = PoseEstimator.load()
    far = [type(pose(PEOPLE[0])[0])(np.full((21, 2), -50.) + np.arange(42).reshape(21, 2), np.ones(21), np.zeros(4), 1.)]
    looks = []
    monkeypatch.setattr(pose, 'find', lambda *a: looks.append(a) or far)
    assert pose(PEOPLE[0]) is far and len(looks) == 1


# ---- videos

def video(name, code, n=8, rate=25):
    "A video of n frames; None where this OpenCV can't write it."
    h, w = PEOPLE[0].shape[:2]
    sink = cv2.VideoWriter(name, cv2.VideoWriter_fourcc(*code), rate, (w, h))
    if not sink.isOpened(): pytest.skip(f'this OpenCV writes no {name}')
    for i in range(n): sink.write(cv2.cvtColor(PEOPLE[i % 4], cv2.COLOR_RGB2BGR))
    sink.release()
    return bytearray(Path(name).read_bytes())


def torn(data, k): # MJPG: frame k becomes zeros
    starts = [n for n in range(len(data)) if data[n:n + 3] == b'\xff\xd8\xff']
    data = bytearray(data); end = data.index(b'\xff\xd9', starts[k])
    data[starts[k]:end] = bytes(end - starts[k])
    return data


def frames(rows): return [int(r['file_name'].partition('#')[2]) for r in rows]


@pytest.mark.parametrize('name, code', [('a.3gp', 'mp4v'), ('a.mpg', 'MPG1'), ('a.wmv', 'WMV2'), ('a.flv', 'FLV1'), ('a.ts', 'mp2v'), ('a.mkv', 'MJPG'), ('a.MOV', 'mp4v')])
@situation('a video called `.3gp`, `.mpg`, `.wmv`, `.flv` or `.ts`', 'is opened as a video', theme='Videos')
def test_videos_of_many_endings(album, name, code):
    video(name, code, 3)
    rows, failed, said = predicted([name])
    assert (frames(rows), failed, said) == ([0, 1, 2], 0, [])
    assert Path('poses/a.mp4').is_file() and len([p for p in Path('poses').iterdir()]) == 2


@pytest.mark.parametrize('k', [0, 3, 6])
@situation('a video with one broken frame', '`a.avi: 7 frames read, 8 announced; 1 left out that cannot be decoded (first: a.avi#3)`; the frames behind it keep their numbers; exit 1', theme='Videos')
def test_a_broken_frame_is_passed_over(album, capsys, monkeypatch, k):
    Path('a.avi').write_bytes(torn(video('a.avi', 'MJPG'), k))
    if k: monkeypatch.setattr(PoseEstimator, 'load', lambda *a, header=shipped().header: Quick(None, header))
    assert main(['predict', 'a.avi']) == 1
    said = capsys.readouterr()
    assert said.err.splitlines()[-1] == f"p2net predict: a.avi: 7 frames read, 8 announced; 1 left out that cannot be decoded (first: a.avi#{k})"
    assert frames(json.loads(Path('poses/poses.json').read_text())) == [n for n in range(8) if n != k] and '7 people' in said.out


def test_several_broken_frames(album):
    data = video('a.avi', 'MJPG')
    for k in (5, 4, 1): data = torn(data, k)
    Path('a.avi').write_bytes(data)
    rows, failed, said = predicted(['a.avi'])
    assert frames(rows) == [0, 2, 3, 6, 7] and failed == 1 and '3 left out that cannot be decoded (first: a.avi#1)' in said[0]


def test_a_broken_frame_of_an_mp4(album):
    data = video('a.mp4', 'mp4v', 12); start = data.index(b'mdat') + 8
    at = start + (len(data) - start)//3
    data[at:at + 400] = b'\xff'*400
    Path('a.mp4').write_bytes(data)
    read = VideoReader(Path('a.mp4')); numbers = [n for n, _ in read.frames()]
    assert numbers[0] == 0 and numbers[-1] == 11 and read.read == len(numbers) == 12 - len(read.broken)
    assert read.complete == (not read.broken)


@pytest.mark.parametrize('name, code', [('a.avi', 'MJPG'), ('a.mkv', 'MJPG'), ('a.flv', 'FLV1')])
@situation('a video cut in half', '`a.avi: 4 frames read, 8 announced; it ends 4 frames early`; exit 1', theme='Videos')
def test_a_cut_video_is_read_as_far_as_it_goes(album, name, code):
    Path(name).write_bytes(video(name, code)[:-len(Path(name).read_bytes())//2])
    rows, failed, said = predicted([name])
    n = len(rows)
    assert 2 <= n <= 6 and frames(rows) == list(range(n)) and failed == 1
    assert said == [f'{name}: {n} frames read, 8 announced; it ends {8 - n} frames early']


@situation('a video of which not even the index arrived', '`a.mp4: OpenCV cannot open this video: it is cut short (its index, at the end, is missing) …`; the other files are predicted, exit 1', theme='Videos')
def test_a_video_that_cannot_be_opened(album):
    Path('a.mp4').write_bytes(video('a.mp4', 'mp4v')[:3000])
    Path('b.mp4').write_bytes(b''); Path('c.mpg').write_text('<html>')
    rows, failed, said = predicted(['a.mp4', 'b.mp4', 'c.mpg', 'd.mkv', 'album/1.jpg'])
    assert (len(rows), failed) == (1, 4)
    for line, says in zip(said, ('a.mp4: OpenCV cannot open this video: it is cut short', 'b.mp4: empty: 0 bytes', 'c.mpg: OpenCV cannot open', 'd.mkv: there is no such video')): assert line.startswith(says)


def test_a_whole_video_says_nothing(album):
    video('a.avi', 'MJPG')
    assert predicted(['a.avi'])[1:] == (0, [])


def test_an_opencv_that_writes_no_videos(album, monkeypatch):
    "The people of a video are found all the same, and it is said that it can't be painted."
    video('a.avi', 'MJPG', 2)
    class Silent:
        def __init__(self, *a): pass
        def isOpened(self): return False
        def write(self, frame): pass
        def release(self): pass
    monkeypatch.setattr(cv2, 'VideoWriter', Silent)
    rows, failed, said = predicted(['a.avi'])
    assert (len(rows), failed) == (2, 0) and said == ["a.avi: OpenCV cannot write a video here; its people are in poses.json"]
    assert [p.name for p in Path('poses').iterdir()] == ['poses.json']


class Tape:
    "A video whose announced number of frames is wrong, as that of formats which store none may be."
    def __init__(self, readable, announced): self.readable, self.announced, self.asked = readable, announced, 0
    def get(self, what): return {cv2.CAP_PROP_FRAME_COUNT: self.announced, cv2.CAP_PROP_FPS: 25.}[what]
    def isOpened(self): return True
    def release(self): pass
    def read(self): self.asked += 1; return (True, PEOPLE[0]) if self.asked <= self.readable else (False, None)


@pytest.mark.parametrize('name, readable, announced, whole, says', [
    ('a.webm', 100, 101, True, '100 frames read, 101 announced'), ('a.webm', 100, 150, False, '100 frames read, 150 announced'), ('a.mp4', 100, 101, False, '100 frames'),
    ('a.mp4', 101, 100, True, '101 frames read, 100 announced'), ('a.webm', 100, -9e16, True, None), ('a.webm', 100, 0, True, None), ('a.webm', 100, 1e15, True, None)])
def test_announced_numbers_that_are_wrong(monkeypatch, name, readable, announced, whole, says):
    "Where the file stores no number, one in a hundred is no fault; and no number makes the reader wait for ever."
    tape = Tape(readable, announced)
    monkeypatch.setattr(cv2, 'VideoCapture', lambda path: tape)
    read = VideoReader(Path(name))
    assert len(list(read.frames())) == read.read == readable and read.complete is whole and tape.asked < 1200
    assert describe_missing(read) is None if says is None else says in describe_missing(read)


def test_pictures_appear_when_they_are_whole(album, monkeypatch):
    "While a picture or a video is written it has a hidden name; what stops the writing leaves nothing."
    video('a.avi', 'MJPG')
    from p2net.tools.predict import draw_people
    def stop(picture, *a):
        if len(calls) == 3: raise KeyboardInterrupt
        calls.append(1); return draw_people(picture, *a)
    calls = []
    monkeypatch.setattr('p2net.tools.predict.draw_people', stop)
    with pytest.raises(KeyboardInterrupt): predicted(['album/1.jpg', 'a.avi'])
    assert sorted(p.name for p in Path('poses').iterdir()) == ['1.jpg', 'poses.json'] and len(json.loads(Path('poses/poses.json').read_text())) >= 3


def test_a_disk_that_fills_up_leaves_no_half_picture(album, monkeypatch):
    def save(self, place, to=Image.Image.save, **how):
        to(self, place, **how)
        if Path(place).name.startswith('.1.'):
            with open(place, 'r+b') as file: file.truncate(50)
            raise OSError(28, 'No space left on device', str(place))
    monkeypatch.setattr(Image.Image, 'save', save)
    rows, failed, said = predicted(['album'])
    assert failed == 1 and 'No space left' in said[0] and sorted(p.name for p in Path('poses').iterdir()) == ['2.jpg', 'poses.json']


# ---- files of boxes

BOX = [20., 15, 100, 160]
ROW = dict(image_id=1, category_id=1, bbox=BOX, score=.9)
COCO = dict(images=[dict(id=1, file_name='1.jpg'), dict(id=2, file_name='2.jpg')], categories=[dict(id=1, name='person')],
            annotations=[dict(id=7, image_id=1, category_id=1, bbox=BOX), dict(id=8, image_id=2, category_id=1, bbox=BOX)])

def detection(**changes): return [ROW, {**ROW, 'image_id': 2, **changes}]
def annotation(**changes): return {**COCO, 'annotations': [COCO['annotations'][0], {**COCO['annotations'][1], **changes}]}


NUMBER = 'which is not a number; write a finite number'
FOUR = 'write four numbers, x, y, width and height in pixels'
FAULTS = [
    (detection(bbox=None), 'row 1: bbox is missing; every row needs'), (detection(bbox=[*BOX, .9]), f'row 1: bbox is {[*BOX, .9]}; {FOUR}'),
    (detection(bbox=['a', 2, 30, 40]), f"row 1: bbox is 'a', {NUMBER}"), (detection(bbox=[1, None, 3, 4]), f'row 1: bbox is [1, None, 3, 4]; {FOUR}'),
    (detection(bbox=[1, float('nan'), 3, 4]), f'row 1: bbox is nan, {NUMBER}'), (detection(bbox=[1, 2, float('inf'), 4]), f'row 1: bbox is inf, {NUMBER}'),
    (detection(bbox={'x': 1}), f"row 1: bbox is {{'x': 1}}; {FOUR}"), (detection(bbox=[]), 'row 1: bbox is '), (detection(bbox=[True, 2, 3, 4]), 'row 1: bbox is True'),
    (detection(score=None), 'row 1: score is missing'), (detection(score='sure'), f"row 1: score is 'sure', {NUMBER}"), (detection(score=float('nan')), 'row 1: score is nan'),
    (detection(image_id=[2]), 'row 1: image_id is [2]'), (detection(image_id=None), 'row 1: image_id is missing'), ([ROW, 5], 'row 1: is 5'), ([], 'contains no boxes'),
    ([{**ROW, 'category_id': 9}], 'no row has the person category'),
    (annotation(bbox=[1, 2, 3]), f'annotation 8: bbox is [1, 2, 3]; {FOUR}'), (annotation(image_id=99), 'annotation 8: image_id is 99'), (annotation(score='sure'), 'annotation 8: score'),
    ({**COCO, 'images': {}}, 'images is not a list'), ({**COCO, 'annotations': [3]}, 'annotations[0]: is 3, expected an annotation'),
    ({'1.jpg': [BOX, None]}, "'1.jpg', box 1: bbox is None"), ({'1.jpg': [BOX, [1, 2, 3]]}, f"'1.jpg', box 1: bbox is [1, 2, 3]; {FOUR}"), ({'1.jpg': [[*BOX, None]]}, "'1.jpg', box 0: score is null"),
    ({'1.jpg': [[*BOX, .9, 1]]}, "'1.jpg', box 0: bbox is"), ({'1.jpg': BOX}, "'1.jpg', box 0: bbox is 20.0"), ({'1.jpg': None}, "'1.jpg': is None, expected a list of boxes"), ({}, 'contains no boxes'),
    (17, 'a detection file is a list of {image_id'), ({'1.jpg': [[.1, .2, .5, .5]]}, 'bbox of every row lies between 0 and 1; boxes are in pixels: multiply by width and height'),
    (detection(bbox=[0, 0, .5, .5])[1:], 'bbox of every row lies between 0 and 1'), ({'9.jpg': [BOX]}, "has no entry for any of the 2 photographs; it has '9.jpg', not '1.jpg'")]

@pytest.mark.parametrize('content, says', FAULTS)
@situation('a file of boxes with a fault in a row', '`boxes.json: row 1: bbox is missing; every row needs image_id, category_id, bbox and score`: file, row, field, remedy, before a network is loaded; exit 2', theme='Detection files')
def test_a_file_of_boxes_is_checked_before_a_network_is_loaded(album, monkeypatch, content, says):
    monkeypatch.setattr(PoseEstimator, 'load', lambda *a: pytest.fail('a network was loaded'))
    with pytest.raises(InputError) as caught: predict_files(['album'], 'poses', None, box_file(content))
    assert f'boxes.json: {says}' in str(caught.value) and '\n' not in str(caught.value) and not Path('poses').exists()


@pytest.mark.parametrize('data, says', [(b'{"1.jpg": [[1, 2', 'not readable as JSON'), (b'\xff\xfe[]', 'byte 0 is not UTF-8'), (b'', 'not readable as JSON')])
def test_a_file_of_boxes_that_is_no_json(album, capsys, data, says):
    Path('boxes.json').write_bytes(data)
    assert main(['predict', 'album', '--boxes', 'boxes.json']) == 2
    assert f'boxes.json: {says}' in capsys.readouterr().err


@situation('boxes written as x1 y1 x2 y2', '`boxes.json: bbox reads as x1, y1, x2, y2 in most rows; write x, y, width, height`, before anybody is predicted', theme='Detection files')
@pytest.mark.parametrize('form', ['plain', 'detections'])
def test_two_corners_are_refused(album, form):
    h, w = PEOPLE[0].shape[:2]
    corners = [[w/2, h/2, w - 5, h - 5], [w/3, h/2, w - 9, h - 1], [w/2, h/3, w - 1, h - 20]]
    content = {'1.jpg': corners} if form == 'plain' else [{**ROW, 'bbox': b} for b in corners]
    with pytest.raises(InputError, match='boxes.json: bbox reads as x1, y1, x2, y2'): predicted(['album'], box_file(content))
    good = [[x, y, X - x, Y - y] for x, y, X, Y in corners]
    assert len(predicted(['album/1.jpg'], box_file({'1.jpg': good}))[0]) == 3


@pytest.mark.parametrize('image_id', [1, 1.0, '1', '1.jpg', '000001'])
@situation('`image_id` as 36.0 or as text, numbers as text, a byte-order mark', 'taken; numbers that were texts are counted', theme='Detection files')
def test_other_ways_to_write_the_same_boxes(album, image_id):
    rows = [{**ROW, 'image_id': image_id, 'bbox': [str(v) for v in BOX], 'score': '0.9'}]
    Path('boxes.json').write_bytes(b'\xef\xbb\xbf' + json.dumps(rows).encode())
    found, failed, said = predicted(['album/1.jpg'], 'boxes.json')
    assert failed == 0 and said == ['5 x numbers written as text (first: boxes.json: row 0)']
    plain = predicted(['album/1.jpg'], box_file([ROW]))[0]
    assert [r['keypoints'] for r in found] == [r['keypoints'] for r in plain] and abs(found[0]['score'] - plain[0]['score']) < 1e-9


@situation('boxes without width or height, or outside the photograph', '`1 x box outside the photograph (first: boxes.json: …)`: left out and counted, the others are predicted', theme='Detection files')
def test_boxes_that_show_nothing_are_left_out_and_counted(album):
    boxes = {'1.jpg': [BOX, [5, 5, 0, 9], [5, 5, -9, 9], [900, 5, 9, 9]], '2.jpg': [[-50, 5, 20, 20]]}
    rows, failed, said = predicted(['album'], box_file(boxes))
    assert (len(rows), failed) == (1, 0)
    assert said == ["2 x box without width or height (first: boxes.json: '1.jpg', box 1 on 1.jpg)", "2 x box outside the photograph (first: boxes.json: '1.jpg', box 3 on 1.jpg)"]


def test_crowds_other_categories_and_rows_without_a_box_are_counted(album):
    more = [dict(id=1, image_id=1, category_id=1, bbox=BOX, iscrowd=1), dict(id=2, image_id=1, category_id=9, bbox=BOX), dict(id=3, image_id=1, category_id=1)]
    rows, failed, said = predicted(['album'], box_file({**COCO, 'annotations': COCO['annotations'] + more}))
    assert len(rows) == 2 and sorted(s.partition(' (')[0] for s in said) == ['1 x annotation without a box', '1 x box of another category', '1 x crowd']


@pytest.mark.parametrize('name, photo', [('train\\\\1.jpg', 'album/1.jpg'), ('1.JPG', 'album/1.jpg'), ('%31.jpg', 'album/1.jpg'), ('album/1.jpg', 'album/1.jpg'), ('000000000001', 'album/1.jpg')])
def test_names_as_tools_write_them(album, name, photo): assert len(predicted([photo], box_file({name: [BOX]}))[0]) == 1


def test_a_photograph_that_the_file_does_not_have_is_one_line(album):
    rows, failed, said = predicted(['album'], box_file({'2.jpg': [BOX]}))
    assert ([r['image_id'] for r in rows], failed) == ([2], 1) and said[0].startswith('album/1.jpg: boxes.json has no entry for it')


def test_boxes_for_a_video_and_none_for_the_photographs_beside_it(album):
    video('a.avi', 'MJPG', 2)
    rows, failed, said = predicted(['a.avi', 'album'], box_file({'a.avi': [BOX]}))
    assert (frames(rows), failed) == ([0, 1], 2) and all('has no entry for it' in line for line in said)


def test_one_row_is_not_used_for_two_photographs(album):
    Path('more').mkdir(); (album/'1.jpg').rename('more/1.jpg'); (album/'2.jpg').rename(album/'1.jpg')
    with pytest.raises(InputError, match="entry '1.jpg' fits both album/1.jpg and more/1.jpg"): predicted(['album', 'more'], box_file({'1.jpg': [BOX]}))


# ---- whose ids

def test_ids_category_and_names_are_those_of_the_file_of_boxes(album):
    people = dict(images=[dict(id=397133, file_name='val/2.jpg'), dict(id=2, file_name='val/1.jpg')], categories=[dict(id=18, name='dog'), dict(id=4, name='person')],
                  annotations=[dict(id=n, image_id=i, category_id=c, bbox=BOX) for n, i, c in ((1, 397133, 4), (2, 2, 4), (3, 2, 18))])
    rows, failed, _ = predicted(['album'], box_file(people))
    assert [(r['image_id'], r['category_id'], r['file_name']) for r in rows] == [(2, 4, 'val/1.jpg'), (397133, 4, 'val/2.jpg')] and failed == 0
    rows = predicted(['album'], box_file([dict(ROW, image_id=397133, file_name='1.jpg', category_id=0), dict(ROW, image_id=5, file_name='2.jpg', category_id=0)]))[0]
    assert [(r['image_id'], r['category_id'], r['file_name']) for r in rows] == [(397133, 0, '1.jpg'), (5, 0, '2.jpg')]


def test_a_video_takes_no_id_of_the_file_of_boxes(album):
    video('a.avi', 'MJPG', 3)
    rows = predicted(['a.avi', 'album'], box_file([dict(ROW, image_id=i, file_name=name) for i, name in ((1, 'a.avi#1'), (2, '1.jpg'), (3, '2.jpg'))]))[0]
    assert [(r['image_id'], r['file_name']) for r in rows] == [(1, 'a.avi#1'), (2, '1.jpg'), (3, '2.jpg')]
    rows = predicted(['a.avi', 'album'], box_file([dict(ROW, image_id=i, file_name=name) for i, name in ((1, 'a.avi'), (2, '1.jpg'), (3, '2.jpg'))]))[0]
    assert len({r['image_id'] for r in rows}) == 5 and {2, 3} == {r['image_id'] for r in rows if '#' not in r['file_name']}


def test_keypoints_in_the_order_of_the_file_of_boxes(album):
    own = predicted(['album/1.jpg'], box_file({'1.jpg': [BOX]}))[0][0]
    names = ['head_top', 'left_wrist', 'nose']
    ours = dict(COCO, categories=[dict(id=1, name='person', keypoints=names)])
    row = predicted(['album/1.jpg'], box_file(ours))[0][0]
    all_of = lambda r: dict(zip(r['joints'], np.reshape(r['keypoints'] + r['extra_keypoints'], (-1, 3)).tolist()))
    assert row['joints'][:3] == names and len(row['keypoints']) == 9 and all_of(row) == all_of(own) and len(own['keypoints']) == 51
    strange = dict(COCO, categories=[dict(id=1, name='person', keypoints=['tail', 'nose'])])          # a joint the network doesn't find
    assert predicted(['album/1.jpg'], box_file(strange))[0][0]['joints'] == own['joints']


def pycocotools_ap(truth, results):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval
    gt = COCO(str(truth))
    judged = COCOeval(gt, gt.loadRes(str(results)), 'keypoints')
    judged.evaluate(); judged.accumulate(); judged.summarize()
    return judged.stats[0]


@situation('`predict --boxes` with COCO\'s annotation file, then COCO\'s evaluation', '`poses.json` has the ids and the 17 joints of that file: pycocotools reads it as it is', theme='Annotation files')
def test_cocos_evaluation_reads_poses_json_as_it_is(album, capsys):
    "The case of the names: ids by the order of names are others, AP 0 instead of .102."
    case, photos = sample('cases/23-poses-image-ids/annotations/person_keypoints_val.json'), sample('data/coco-people/images')
    (album.parent/'photos').mkdir()
    numbers = (36, 86, 139, 192, 257, 322)
    for image, number in zip(json.loads(case.read_text())['images'], numbers):
        os.symlink(next(photos.rglob(f'{number:012d}.jpg')), album.parent/'photos'/image['file_name'])
    assert main(['predict', 'photos', '--boxes', str(case)]) == 0
    assert abs(pycocotools_ap(case, 'poses/poses.json') - .1021) < .004


def test_the_oracle_has_ap_1_with_ids_of_any_order(album):
    "Joints as found become the truth under the file's ids: AP 1, by pycocotools, and not with ids by the order of names."
    people = dict(copy.deepcopy(COCO), images=[dict(id=31, file_name='1.jpg'), dict(id=4, file_name='2.jpg')])
    for a, i in zip(people['annotations'], (31, 4)): a['image_id'] = i
    rows = predicted(['album'], box_file(people))[0]
    for a in people['annotations']:
        flat = next(r['keypoints'] for r in rows if r['image_id'] == a['image_id'])
        a |= dict(keypoints=[2 if n % 3 == 2 else v for n, v in enumerate(flat)], area=9000., iscrowd=0, num_keypoints=17)
    assert abs(pycocotools_ap(box_file(people, 'truth.json'), 'poses/poses.json') - 1) < 1e-9


# ---- weights

def with_header(text, name='net.safetensors'):
    from safetensors.torch import load_file, save_file
    save_file(load_file(SHIPPED), name, metadata={'p2net': text})
    return name


def told(**changes): return json.dumps(json.loads(shipped().header.to_json()) | changes)


@pytest.mark.parametrize('name, data, says', [
    ('a.safetensors', SHIPPED.read_bytes()[:-50], 'damaged or incomplete .safetensors file'), ('a.safetensors', SHIPPED.read_bytes()[:5], 'damaged'), ('a.safetensors', b'', 'damaged'),
    ('a.safetensors', b'PK\3\4 zip', 'damaged'), ('a.pth', b'PK', 'is not a .safetensors file'), ('a.safetensors', b'version https://git-lfs.github.com/spec/v1', 'damaged')])
@situation('`--weights` with a cut, empty or foreign file', '`a.safetensors: damaged or incomplete .safetensors file (…); restore it, or train again`, exit 2', theme='Checkpoints and records')
def test_weights_that_are_none(album, capsys, name, data, says):
    Path(name).write_bytes(data)
    assert main(['predict', 'album', '--weights', name]) == 2
    said = capsys.readouterr().err.strip()
    assert f'{name}: ' in said and says in said and len(said.splitlines()) == 1


@pytest.mark.parametrize('text', ['{', '[]', '{}', '7', '{"format": 1}', '{"format": 2}', '{"format": 1, "skeleton": 5}', 'told(network={})', "told(network={'depth': 7})", 'told(skeleton={})',
                                  'told(input_size=[0, 72])', 'told(input_size="x")', 'told(padding="x")', 'told(reach=0)', 'told(sigma=-1)', 'told(sigma="x")', 'told(evaluation={"flip": 7})',
                                  'told(evaluation=[])', 'told(more=1)', 'told(network={**shipped().header.network, "width": 32})', 'told(skeleton={"name": "a", "joints": ["a"], "groups": {}})'])
def test_headers_of_weights_that_are_broken(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    with_header(eval(text) if text.startswith('told') else text)
    with pytest.raises(InputError) as caught: PoseEstimator.load('net.safetensors')
    assert str(caught.value).startswith('net.safetensors: ') and '\n' not in str(caught.value) and 'pydantic' not in str(caught.value)


@settings(max_examples=EXAMPLES//8, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(at=st.integers(0, 30_000), new=st.binary(min_size=1, max_size=4), cut=st.booleans())
def test_changed_weights_load_or_are_refused_in_one_line(tmp_path_factory, at, new, cut):
    "Bytes of the header, which is JSON, and the first of the tensors."
    data = bytearray(SHIPPED.read_bytes())
    data[at:at + len(new)] = b'' if cut else new
    file = tmp_path_factory.getbasetemp()/'a.safetensors'
    file.write_bytes(data)
    try: PoseEstimator.load(file)
    except InputError as error: assert str(error).startswith(str(file)) and '\n' not in str(error)


@pytest.mark.parametrize('record', ['{', '[]', '{"schema": 1}', 'config'])
def test_a_broken_record_beside_the_weights(album, capsys, record):
    from safetensors.torch import load_file, save_file
    save_file(load_file(SHIPPED), 'net.safetensors')
    if record == 'config':
        record = json.loads(SHIPPED.with_suffix('.json').read_text()); record['config']['network']['depth'] = 7
        record = json.dumps(record)
    Path('net.json').write_text(record)
    assert main(['predict', 'album', '--weights', 'net.safetensors']) == 2
    said = capsys.readouterr().err.strip()
    assert 'net.json: ' in said and len(said.splitlines()) == 1


# ---- any boxes at all

VALUES = st.one_of(st.none(), st.booleans(), st.integers(-10**30, 10**30), st.floats(), st.text(max_size=6), st.lists(st.floats(), max_size=5), st.just({}), st.sampled_from(['1', '1.5', 'nan', '']))

def places(data, path=()):
    "Paths of all that can be changed."
    yield path
    for k, v in (data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()): yield from places(v, (*path, k))


def changed(data, path, value, how):
    data = copy.deepcopy(data)
    if not path: return value
    *to, last = path
    inside = functools.reduce(lambda d, k: d[k], to, data)
    if how == 'remove': del inside[last]
    elif how == 'twice' and isinstance(inside, list): inside.append(inside[last])
    else: inside[last] = value
    return data


WHOLE = [{'1.jpg': [BOX, [*BOX, .5]], 'p/2.jpg': []}, [ROW, dict(ROW, image_id=2), dict(ROW, file_name='1.jpg')], COCO,
         dict(COCO, categories=[dict(id=1, name='person', keypoints=['nose', 'left_eye']), dict(id=2, name='dog')])]

@settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_changed_files_of_boxes_are_read_or_refused_in_one_line(tmp_path_factory, data):
    content = data.draw(st.sampled_from(WHOLE))
    for _ in range(data.draw(st.integers(1, 3))):
        content = changed(content, data.draw(st.sampled_from(list(places(content)))), data.draw(VALUES), data.draw(st.sampled_from(['put', 'remove', 'twice'])))
    file = tmp_path_factory.getbasetemp()/'boxes.json'
    file.write_text(json.dumps(content))
    try:
        found = BoxFile(file)
        for name in ('1.jpg', '2.jpg', 'a.mp4#3'):
            boxes, scores = boxes_on(found, Path(name), (192, 144))
            assert np.isfinite(boxes).all() and np.isfinite(scores).all() and (boxes[:, 2:] > 0).all() and len(boxes) == len(scores)
    except InputError as error: assert str(file) in str(error) and '\n' not in str(error)
    assert json.dumps(content) == file.read_text()
