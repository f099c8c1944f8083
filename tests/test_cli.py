"What a user can get wrong at the command line ends in one line that names the file or field, exit code 2, and nothing lost."
import json

import cv2, numpy as np, pytest
from safetensors.numpy import save_file

from p2net.cli import main

SMALL = [f'--set={s}' for s in ('training.steps=2', 'training.batch=2', 'training.checkpoint_every=1', 'training.validate_every=2', 'network.width=16',
                                'network.depth=18')]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    "Packs of these people, one folder a test; no threads that fight."
    monkeypatch.setenv('P2NET_CACHE', str(tmp_path/'cache'))
    monkeypatch.chdir(tmp_path)


def coco(folder, n=4, change=lambda split, data: None):
    "A data set of n grey people in COCO's layout."
    for split in ('train', 'val'):
        images = folder/f'{split}2017'
        images.mkdir(parents=True)
        (folder/'annotations').mkdir(exist_ok=True)
        keypoints = [v for j in range(17) for v in (20 + 3*j, 20 + 4*j, 2)]
        for i in range(n): cv2.imwrite(str(images/f'{i}.jpg'), np.tile(np.arange(100, dtype=np.uint8)[None, :, None] + 60, (120, 1, 3)))
        data = dict(images=[dict(id=i, file_name=f'{i}.jpg', width=100, height=120) for i in range(n)], categories=[dict(id=1, name='person')],
                    annotations=[dict(id=i, image_id=i, category_id=1, bbox=[10, 10, 70, 90], area=4000., iscrowd=0, num_keypoints=17, keypoints=keypoints)
                                 for i in range(n)])
        change(split, data)
        (folder/f'annotations/person_keypoints_{split}2017.json').write_text(json.dumps(data))
    return folder


def said(capsys, *words):
    "The one line on standard error of a command that must fail."
    code = main([*map(str, words), '--quiet'])
    text = capsys.readouterr().err.strip()
    assert code == 2 and len(text.splitlines()) == 1 and 'Traceback' not in text and 'Errno' not in text, (code, text)
    return text


def train(capsys, folder, *more): return said(capsys, 'train', 'hand-made', '--data', folder, '--out', folder.parent/'out', *SMALL, *more)


@pytest.mark.parametrize('yaml, says', [('training:\n  foo: 3\n', 'training.foo: no such setting'), ('training: [1,\n', 'not YAML'), ('- 1\n', 'expected settings'),
                                        ('training: {lr: -1}\n', 'training.lr'), ('training: {steps: many}\n', 'training.steps')])
def test_config_files(tmp_path, capsys, yaml, says):
    file = tmp_path/'mine.yaml'
    file.write_text(yaml)
    text = said(capsys, 'train', 'hand-made', '--config', file)
    assert str(file) in text and says in text


def test_what_is_asked_for(tmp_path, capsys):
    (tmp_path/'empty').mkdir()
    assert 'choose from' in said(capsys, 'train', 'nonsense')
    assert 'choose from' in said(capsys, 'reproduce', '--experiments', 'nonsense', '--out', tmp_path/'out')
    assert 'is a folder' in said(capsys, 'train', 'hand-made', '--config', 'empty')
    assert 'section.field=value' in said(capsys, 'train', 'hand-made', '--set', 'training')
    assert 'seed' in said(capsys, 'train', 'hand-made', '--seeds', '-3')
    assert 'empty: no people found' in said(capsys, 'train', 'hand-made', '--data', 'empty')
    assert 'nowhere' in said(capsys, 'train', 'hand-made', '--data', 'nowhere')


def test_pictures(tmp_path, capsys):
    missing, broken = coco(tmp_path/'a'/'missing'), coco(tmp_path/'b'/'broken')
    (missing/'train2017/2.jpg').unlink()
    whole = (broken/'val2017/1.jpg').read_bytes()
    (broken/'val2017/1.jpg').write_bytes(whole[:len(whole)//2])
    assert 'train2017/2.jpg: there is no such image' in train(capsys, missing)
    assert 'val2017/1.jpg: not a whole image' in train(capsys, broken)
    (broken/'val2017/1.jpg').write_bytes(whole)                             # mended: what was done before stands, the run goes through
    assert main(['train', 'hand-made', '--data', str(broken), '--out', str(tmp_path/'out'), '--quiet', *SMALL]) == 0


def test_annotations(tmp_path, capsys):
    no_box = coco(tmp_path/'b', change=lambda split, d: d['annotations'][1].update(bbox=[1, 2, 3]))
    cut = coco(tmp_path/'c')
    file = cut/'annotations/person_keypoints_train2017.json'
    file.write_text(file.read_text()[:300])
    for folder, says in ((no_box, "annotation 1 has no 'bbox'"), (cut, 'not readable as JSON')):
        text = train(capsys, folder)
        assert 'person_keypoints_train2017.json' in text and says in text, text


def test_policy_that_was_not_searched(tmp_path, capsys):
    folder = coco(tmp_path/'data')
    text = said(capsys, 'train', 'p2net', '--data', folder, '--out', tmp_path/'out', *SMALL)
    assert f'run `p2net search --scale tiny --seeds 0 --data {folder}` first' in text


def test_weights(tmp_path, capsys):
    folder = coco(tmp_path/'data')
    save_file({'a': np.zeros(3, np.float32)}, tmp_path/'odd.safetensors')
    (tmp_path/'text.safetensors').write_text('hello'*10)
    for name in ('odd', 'text', 'absent'):
        for words in (['evaluate', f'{name}.safetensors', '--data', folder], ['train', 'hand-made', '--data', folder, '--out', 'out', *SMALL,
                                                                               '--set', f'network.weights={name}.safetensors']):
            assert f'{name}.safetensors' in said(capsys, *words)


@pytest.fixture
def trained(tmp_path, capsys):
    "Words of a training that is done, the folder of its people and its record."
    folder, out = coco(tmp_path/'data'), tmp_path/'out'
    words = ['train', 'hand-made', '--data', str(folder), '--out', str(out), '--quiet', *SMALL]
    assert main(words) == 0
    capsys.readouterr()
    return words, folder, next(out.rglob('record.json'))


def test_weights_of_another_width_and_settings_of_another_run(trained, tmp_path, capsys):
    words, folder, record = trained
    before, weights = record.read_bytes(), next((tmp_path/'out').rglob('model.safetensors'))
    assert 'model.safetensors' in said(capsys, 'evaluate', weights, '--data', folder)           # width 64 asked for, 16 in the file
    assert main(['evaluate', str(weights), '--data', str(folder), '--quiet', '--set', 'network.width=16']) == 0
    said(capsys, *words, '--set', 'network.weights=absent.safetensors')
    assert record.read_bytes() == before                                                       # a failure replaces no result
    assert main(words) == 0 and json.loads(record.read_text())['metrics'] == json.loads(before)['metrics']


def test_a_result_is_not_written_over(trained, capsys):
    "Other settings at the place of a complete record: refused with its name and the setting, before training; --replace means it."
    words, _, record = trained
    before = record.read_bytes()
    text = said(capsys, *words, '--set', 'training.steps=3')
    assert str(record) in text and 'training.steps 2 -> 3' in text and '--replace' in text and record.read_bytes() == before
    assert main([*words, '--set', 'training.steps=3', '--seeds', '1']) == 0                     # another seed is another place
    assert record.read_bytes() == before
    assert main([*words, '--set', 'training.steps=3', '--replace']) == 0
    assert json.loads(record.read_text())['cost']['steps'] == 3


def test_evaluate_takes_no_option_that_it_would_not_use(capsys):
    for word in ('--seeds', '--out', '--seconds'):
        with pytest.raises(SystemExit): main(['evaluate', 'w.safetensors', word, '1'])
        assert 'unrecognized arguments' in capsys.readouterr().err


def test_seeds_that_a_table_lacks(tmp_path):
    "A scale without records shows the command; a seed that one row lacks is named."
    from p2net.report.tables import show_table, write_tables
    assert 'p2net reproduce' in show_table(5, tmp_path/'none')
    assert 'p2net reproduce --scale small' in show_table(5, tmp_path/'none', scale='small')
    assert len(write_tables(tmp_path/'none', tmp_path/'tables')) == 6


@pytest.mark.parametrize('name', ['people', 'search', 'train', 'evaluate', 'reproduce', 'bench', 'card'])
def test_a_help_page_has_examples(name, capsys):
    with pytest.raises(SystemExit) as end: main([name, '--help'])
    assert end.value.code == 0 and f'examples:\n  p2net {name}' in capsys.readouterr().out
