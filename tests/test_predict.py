"Photographs in, skeletons out: the command, what it leaves, what it says of files that can't be used; and the exported file."
import json, subprocess, sys

import numpy as np, pytest
from PIL import Image

import p2net
from p2net.cli import main
from p2net.predict import SHIPPED, Pose, read_photo
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
    about = Pose.load().about
    assert about.trained['metrics']['PCK@0.2'] == record['metrics']['PCK@0.2'] > .5 and list(about.input_size) == record['config']['data']['input_size']


def test_the_command(album, capsys):
    assert main(['predict', 'album']) == 0
    rows = json.loads(Path('poses/poses.json').read_text())
    assert [r['image_id'] for r in rows] == [1, 2] and all(len(r['keypoints']) == 3*len(r['joints']) == 63 for r in rows)
    for i in (1, 2): assert np.abs(read_photo(f'poses/{i}.jpg').astype(int) - PEOPLE[i - 1]).max() > 60     # something was painted
    assert '2 people' in capsys.readouterr().out


def test_what_cannot_be_read_is_one_line_each_and_the_others_go_on(album, capsys):
    (album/'0.jpg').write_bytes((album/'1.jpg').read_bytes()[:600])
    (album/'9.png').write_text('not a picture')
    assert main(['predict', 'album', 'gone.jpg']) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 3 and [n in line for n, line in zip(('0.jpg', '9.png', 'gone.jpg'), lines)] == [True]*3
    assert len(json.loads(Path('poses/poses.json').read_text())) == 2


@pytest.mark.parametrize('words, says', [(['--weights', 'none.safetensors'], 'none.safetensors'), (['--boxes', 'none.json'], 'none.json'),
                                         (['--out', 'album'], 'painted over')])
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
    assert read_photo(tmp_path/'grey.png').shape == read_photo(tmp_path/'clear.png').shape == PEOPLE[0].shape
    assert len(Pose.load()(tmp_path/'grey.png')) == 1


def test_the_evaluation_finds_the_same_joints(tmp_path):
    "The pack that the tables are made from, and a photograph with a box: the same crop to the pixel."
    from p2net.people.pack import build_pack
    from p2net.people.person import Person
    from p2net.runs.config import EvaluationConfig
    from p2net.runs.evaluating import predict
    pose, box = Pose.load(), np.array([20., 15, 100, 160])
    Image.fromarray(PEOPLE[0]).save(tmp_path/'a.png')
    a = pose.about
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
    from p2net.export import Recipe, to_onnx
    pose = Pose.load()
    pose.about = replace(pose.about, input_size=size)
    session = ort.InferenceSession(to_onnx(pose, tmp_path/'pose.onnx'), providers=['CPUExecutionProvider'])
    x = torch.rand(3, 3, *size, generator=torch.Generator().manual_seed(1))
    for n in (1, 3):
        with torch.no_grad(): expected = Recipe(pose).eval()(x[:n])
        for theirs, ours in zip(session.run(None, {'crop': x[:n].numpy()}), expected): assert np.abs(theirs - ours.numpy()).max() < 1e-4


@pytest.mark.parametrize('boxes, advice', [([], '--boxes'), (['--boxes', 'boxes.json'], '--threshold')])
def test_nobody_is_painted_without_a_word(album, capsys, boxes, advice):
    Path('boxes.json').write_text(json.dumps({'1.jpg': [[0, 0, 40, 60]]}))
    (album/'2.jpg').unlink()
    assert main(['predict', 'album', '--threshold', '1.5', *boxes]) == 0
    out = capsys.readouterr().out
    assert 'of 1 no joint was painted' in out and advice in out
    assert main(['predict', 'album', '--threshold', '0', *boxes]) == 0
    assert 'no joint' not in capsys.readouterr().out
