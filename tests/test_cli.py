"What a user can get wrong at the command line ends in one line that names the file or field, exit code 2, and nothing lost."
import json, os, shutil, subprocess, sys
from pathlib import Path

import cv2, numpy as np, pytest, yaml
from hypothesis import HealthCheck, given, settings, strategies as st
from safetensors.numpy import save_file

from p2net.cli import main
from p2net.errors import InputError
from p2net.people.skeleton import SKELETONS
from p2net.runs.config import Config, make_config

ROOT = Path(__file__).resolve().parents[1]

SMALL = [f'--set={s}' for s in ('training.steps=2', 'training.batch=2', 'training.checkpoint_every=1', 'training.validate_every=2', 'network.width=16', 'network.base_channels=8',
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
        data = dict(images=[dict(id=i, file_name=f'{i}.jpg', width=100, height=120) for i in range(n)], categories=[dict(id=1, name='person', keypoints=list(SKELETONS['coco17'].joints))],
                    annotations=[dict(id=i + 1, image_id=i, category_id=1, bbox=[15, 15, 60, 75], area=4000., iscrowd=0, num_keypoints=17, keypoints=keypoints)
                                 for i in range(n)])
        change(split, data)
        (folder/f'annotations/person_keypoints_{split}2017.json').write_text(json.dumps(data))
    return folder


def said(capsys, *words):
    "The one line on standard error of a command that must fail."
    code = main([*map(str, words), '--quiet'])
    text = capsys.readouterr().err.strip()
    assert code == 2 and text.startswith(f'p2net {words[0]}: ') and len(text.splitlines()) == 1 and 'Traceback' not in text and 'Errno' not in text, (code, text)
    return text


def train(capsys, folder, *more): return said(capsys, 'train', 'hand-made', '--data', folder, '--out', folder.parent/'out', *SMALL, *more)


@pytest.mark.situation('a --config file with an unknown setting, a value of another kind, or that is not YAML', 'one line: `FILE: training.foo is not a setting; …`: the file, the setting, what it may be')
@pytest.mark.parametrize('yaml, says', [('training:\n  foo: 3\n', 'training.foo is not a setting'), ('training: [1,\n', 'not readable as YAML'), ('- 1\n', 'expected settings'),
                                        ('training: {lr: -1}\n', 'training.lr'), ('training: {steps: many}\n', 'training.steps'),
                                        ('training: {lr: .nan}', 'training.lr should be a finite number'), ('training: {steps: yes}', 'training.steps should not be true'),
                                        ('data: {input_size: [96]}', 'data.input_size.1 is missing'), ('', 'expected settings')])
def test_config_files(tmp_path, capsys, yaml, says):
    file = tmp_path/'mine.yaml'
    file.write_text(yaml)
    text = said(capsys, 'train', 'hand-made', '--config', file)
    assert str(file) in text and says in text


@pytest.mark.situation('an experiment, a folder or a setting that there is not, a folder in the place of a file', 'one line that names it, and the choices')
def test_what_is_asked_for(tmp_path, capsys):
    (tmp_path/'empty').mkdir()
    assert 'choose from' in said(capsys, 'train', 'nonsense')
    assert 'choose from' in said(capsys, 'reproduce', '--experiments', 'nonsense', '--out', tmp_path/'out')
    assert 'empty: this is a folder' in said(capsys, 'train', 'hand-made', '--config', 'empty')
    assert 'section.field=value' in said(capsys, 'train', 'hand-made', '--set', 'training')
    assert f'{tmp_path}/out' in said(capsys, 'train', 'hand-made', '--out', shutil.copy(__file__, tmp_path/'out'))         # a file in the place of a folder
    assert 'empty: no people found' in said(capsys, 'train', 'hand-made', '--data', 'empty')
    assert 'nowhere' in said(capsys, 'train', 'hand-made', '--data', 'nowhere')


@pytest.mark.situation('options that make no sense: `--seeds -3`, `--seconds 0`, `--scale huge`', 'one line with the option; nothing is run')
@pytest.mark.parametrize('words', ['train --seeds -3', 'train --seeds x', 'train --seconds 0', 'train --seconds nan', 'reproduce --jobs 0',
                                   'doctor here --most -1', 'predict a.jpg --threshold inf', 'people --train 0', 'train --scale huge', 'nonsense', ''])
def test_options_that_make_no_sense(words, capsys):
    "argparse's own message, which names the option; nothing is run."
    with pytest.raises(SystemExit) as end: main(words.split())
    text = capsys.readouterr().err.splitlines()
    assert end.value.code == 2 and ': error: ' in text[-1] and all(w in text[-1] for w in words.split() if w.startswith('--'))


def test_pictures(tmp_path, capsys):
    missing, broken = coco(tmp_path/'a'/'missing'), coco(tmp_path/'b'/'broken')
    (missing/'train2017/2.jpg').unlink()
    whole = (broken/'val2017/1.jpg').read_bytes()
    (broken/'val2017/1.jpg').write_bytes(whole[:len(whole)//2])
    assert 'train2017/2.jpg: ' in (text := train(capsys, missing)) and 'there is no such photograph' in text
    assert 'val2017/1.jpg: ' in train(capsys, broken)
    (broken/'val2017/1.jpg').write_bytes(whole)                             # mended: what was done before stands, the run goes through
    assert main(['train', 'hand-made', '--data', str(broken), '--out', str(tmp_path/'out'), '--quiet', *SMALL]) == 0


def test_annotations(tmp_path, capsys):
    no_box = coco(tmp_path/'b', change=lambda split, d: d['annotations'][1].update(bbox=[1, 2, 3]) if split == 'train' else None)
    cut = coco(tmp_path/'c')
    file = cut/'annotations/person_keypoints_train2017.json'
    file.write_text(file.read_text()[:300])
    for folder, says in ((no_box, 'bbox is [1, 2, 3]'), (cut, 'not readable as JSON')):
        text = train(capsys, folder)
        assert 'person_keypoints_train2017.json' in text and says in text, text


@pytest.mark.situation('`train p2net` before any search', 'one line with the command to run first', theme='Checkpoints and records')
def test_policy_that_was_not_searched(tmp_path, capsys):
    folder = coco(tmp_path/'data')
    text = said(capsys, 'train', 'p2net', '--data', folder, '--out', tmp_path/'out', *SMALL)
    assert f'run `p2net search --scale tiny --seeds 0 --data {folder}` first' in text


@pytest.mark.situation('a file of weights that is missing, text, or of another network', 'one line that names the file', theme='Checkpoints and records')
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


@pytest.mark.situation('weights of another width than the settings say', 'one line with the file; the complete record stays as it is', theme='Checkpoints and records')
def test_weights_of_another_width_and_settings_of_another_run(trained, tmp_path, capsys):
    words, folder, record = trained
    before, weights = record.read_bytes(), next((tmp_path/'out').rglob('model.safetensors'))
    assert 'model.safetensors' in said(capsys, 'evaluate', weights, '--data', folder)           # width 64 asked for, 16 in the file
    assert main(['evaluate', str(weights), '--data', str(folder), '--quiet', '--set', 'network.width=16', '--set', 'network.base_channels=8']) == 0
    said(capsys, *words, '--set', 'network.weights=absent.safetensors')
    assert record.read_bytes() == before                                                       # a failure replaces no result
    assert main(words) == 0 and json.loads(record.read_text())['metrics'] == json.loads(before)['metrics']


@pytest.mark.situation('the same run asked again with other settings, where a complete record is', 'one line: the record and the settings that differ; `--replace` means it', theme='Checkpoints and records')
def test_a_result_is_not_written_over(trained, capsys):
    "Other settings at the place of a complete record: refused with its name and the setting, before training; --replace means it."
    words, _, record = trained
    before = record.read_bytes()
    text = said(capsys, *words, '--set', 'training.steps=3')
    assert str(record) in text and 'training.steps 2 -> 3' in text and '--replace' in text and record.read_bytes() == before
    text = said(capsys, 'reproduce', '--experiments', 'hand-made', *words[2:], '--set', 'training.steps=3')
    assert str(record) in text and 'training.steps 2 -> 3' in text and record.read_bytes() == before
    assert main([*words, '--set', 'training.steps=3', '--seeds', '1']) == 0                     # another seed is another place
    assert record.read_bytes() == before
    assert main([*words, '--set', 'training.steps=3', '--replace']) == 0
    assert json.loads(record.read_text())['cost']['steps'] == 3


@pytest.mark.situation('a record.json that is empty, cut or no record', 'one line with the file; `--replace` keeps it as record.json.broken', theme='Checkpoints and records')
def test_a_broken_record_is_neither_complete_nor_lost(trained, capsys):
    words, _, record = trained
    for content in (b'', b'{"schema": 1', b'[]', b'\xff\xfe{}', b'{"schema": 1, "status": "complete"}'):
        record.write_bytes(content)
        for command in (words, ['reproduce', '--experiments', 'hand-made', *words[2:]]):
            text = said(capsys, *command)
            assert f'{record}: ' in text and '--replace' in text and record.read_bytes() == content
    assert main([*words, '--replace']) == 0
    assert 'it is kept as record.json.broken' in capsys.readouterr().out
    assert json.loads(record.read_text())['status'] == 'complete' and record.with_name('record.json.broken').read_bytes() == content


@pytest.mark.situation('a checkpoint of a run with other settings, or one that a full disk has cut', 'one line: the file, and what differs; nothing is overwritten without `--restart`', theme='Checkpoints and records')
def test_a_checkpoint_of_other_settings(tmp_path, capsys):
    "Refused with what differs, by train and by reproduce, before anybody is packed; more steps go on, --restart begins anew."
    folder, out = coco(tmp_path/'data'), tmp_path/'out'
    words = ['train', 'hand-made', '--data', str(folder), '--out', str(out), '--quiet', *SMALL, '--set=training.steps=4']
    record, checkpoint = out/'records/tiny/hand-made-coco/0/record.json', out/'work/tiny/hand-made-coco/0/checkpoint'
    assert main([*words, '--seconds', '.001']) == 0 and json.loads(record.read_text())['status'] == 'stopped'
    before = {p.name: p.read_bytes() for p in checkpoint.iterdir()}
    capsys.readouterr()
    for command in (words, ['reproduce', '--experiments', 'hand-made', *words[2:]]):
        shutil.rmtree(tmp_path/'cache', ignore_errors=True)
        text = said(capsys, *command, '--set', 'training.lr=1', '--set', 'training.steps=9')
        assert f'{checkpoint}: ' in text and 'training.steps 4 -> 9, training.lr 0.001 -> 1.0' in text and '--restart' in text, text
        assert not (tmp_path/'cache').exists() and {p.name: p.read_bytes() for p in checkpoint.iterdir()} == before
    assert 'training.steps 4 -> 3' in said(capsys, *words, '--set', 'training.steps=3')
    assert main([*words, '--set', 'training.steps=5', '--seconds', '.001']) == 0
    assert 'tiny/hand-made-coco/0: continues at step 1 of 4 with 5 steps; the learning rate follows the longer cosine curve' in capsys.readouterr().out
    for file in ('optimizer.bin', 'progress.json'):
        (checkpoint/file).write_bytes((checkpoint/file).read_bytes()[:-10])                            # a disk that was full
        text = said(capsys, *words, '--set', 'training.steps=5')
        assert f'{checkpoint/file}: ' in text and '--restart' in text
    assert main([*words, '--set', 'training.lr=1e-4', '--restart']) == 0
    assert json.loads(record.read_text())['cost']['steps'] == 4 and not checkpoint.exists()


@pytest.mark.situation('a stopped run that is continued with more steps', 'it continues, and says so; the record has `resumed`', theme='Checkpoints and records')
def test_a_longer_run_says_so_in_its_record(tmp_path, capsys):
    folder, out = coco(tmp_path/'data'), tmp_path/'out'
    words = ['train', 'hand-made', '--data', str(folder), '--out', str(out), '--quiet', *SMALL]
    assert main([*words, '--seconds', '.001']) == 0 and main([*words, '--set', 'training.steps=3']) == 0
    assert json.loads((out/'records/tiny/hand-made-coco/0/record.json').read_text())['cost']['resumed'] == [dict(from_steps=2, at_step=1)]


@pytest.mark.situation('`p2net train > log`', 'a line a minute: steps, loss, speed, time left', theme='Interruptions')
def test_lines_where_there_is_no_terminal(tmp_path, capsys, monkeypatch):
    "A line with the run's name, steps, loss, speed and time left; --quiet silences it."
    from p2net.progress import Progress
    monkeypatch.setattr(Progress, 'every', 0)
    monkeypatch.delenv('TQDM_DISABLE', raising=False)
    folder = coco(tmp_path/'data')
    words = ['train', 'hand-made', '--data', str(folder), *SMALL]
    assert main([*words, '--out', 'loud']) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith('tiny/hand-made-coco/0: ')]
    assert '1 of 2 steps' in lines[0] and 'people/s' in lines[0] and lines[0].endswith(' left') and 'loss ' in lines[-1]
    assert main([*words, '--out', 'silent', '--quiet']) == 0
    assert 'people/s' not in capsys.readouterr().out


@pytest.mark.situation('`p2net evaluate --results`, then pycocotools', 'the AP and AR that were printed', theme='Checkpoints and records')
def test_results_and_boxes(trained, tmp_path, capsys):
    "What is written is what was measured, for pycocotools on the user's own file; a detector's boxes take the place of the annotated ones."
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval
    _, folder, _ = trained
    weights, truth = next((tmp_path/'out').rglob('model.safetensors')), folder/'annotations/person_keypoints_val2017.json'
    boxes = [dict(image_id=i, category_id=1, bbox=[15, 15, 60, 75], score=.5 + i/10) for i in range(4)]
    (tmp_path/'boxes.json').write_text(json.dumps(boxes))
    for more, people in (((), 4), (('--boxes', 'boxes.json'), 4)):
        words = ['evaluate', str(weights), '--data', str(folder), '--set=network.width=16', '--set=network.base_channels=8', '--results', 'new/results.json', '--quiet', *more]
        assert main(words) == 0
        printed = dict(line.split() for line in capsys.readouterr().out.splitlines() if line.startswith('A'))
        rows = json.loads((tmp_path/'new/results.json').read_text())
        assert len(rows) == people and {r['image_id'] for r in rows} == {0, 1, 2, 3} and {r['category_id'] for r in rows} == {1}
        coco_truth = COCO(str(truth))
        evaluation = COCOeval(coco_truth, coco_truth.loadRes(str(tmp_path/'new/results.json')), 'keypoints')
        for step in (evaluation.evaluate, evaluation.accumulate, evaluation.summarize): step()
        capsys.readouterr()
        assert [float(printed[k]) for k in ('AP', 'AP50', 'AR')] == pytest.approx([evaluation.stats[i] for i in (0, 1, 5)], abs=6e-5)
    assert 'boxes.json' in said(capsys, 'evaluate', weights, '--data', folder, '--boxes', 'no/boxes.json', '--set=network.width=16', '--set=network.base_channels=8')
    assert 'results' in said(capsys, 'evaluate', weights, '--data', folder, '--results', truth/'results.json', '--set=network.width=16', '--set=network.base_channels=8')


def started(*words, **environment):
    "The command in a process of its own."
    env = {k: v for k, v in os.environ.items() if k not in ('PYTHONIOENCODING', 'PYTHONUTF8', 'LC_ALL')} | dict(PYTHONPATH=str(ROOT)) | environment
    return subprocess.Popen([sys.executable, '-m', 'p2net', *words], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.mark.situation('a terminal or a system whose encoding is not UTF-8', "the command works; letters that can't be shown are escaped")
@pytest.mark.parametrize('environment', [dict(PYTHONIOENCODING='ascii'), dict(LC_ALL='C', PYTHONUTF8='0', PYTHONCOERCECLOCALE='0')])
def test_a_system_whose_encoding_is_not_utf8(environment, tmp_path):
    out, error = started('--help', **environment).communicate(timeout=120)
    assert b'P\\xb2Net' in out and not error
    run = started('evaluate', 'größe.safetensors', **environment)
    assert run.communicate(timeout=120)[1].startswith(b'p2net evaluate: gr') and run.returncode == 2


@pytest.mark.situation('`p2net doctor FOLDER | head`', 'the command ends without a word', theme='Interruptions')
def test_a_reader_that_has_gone(tmp_path):
    "`p2net ... | head` ends as any command does then: without a word."
    read, write = os.pipe()
    os.close(read)
    run = subprocess.run([sys.executable, '-m', 'p2net', 'doctor', str(coco(tmp_path/'data'))], env=os.environ | dict(PYTHONPATH=str(ROOT)), stdout=write,
                         stderr=subprocess.PIPE)
    assert (run.returncode, run.stderr) == (141, b'')


# --- drawn settings ---

HARD = [None, True, False, '', 'yes', 'null', '1e3', '.inf', float('inf'), float('nan'), -1, 0, 1e308, 10**40, -10**40, 2**63, [], [1, 2], ['dark'], {}, {'a': 1}, '\ud7ff²',
        'a\nb', '${HOME}', '../x', '2020-13-45']
FIELDS = [(section, field) for section, info in Config.model_fields.items()
          for field in (getattr(info.annotation, 'model_fields', None) or [None])]
VALUES = st.one_of(st.sampled_from(HARD), st.integers(), st.floats(), st.text(max_size=6), st.lists(st.integers(-1, 200), max_size=3))
NAMES = st.one_of(st.sampled_from(FIELDS), st.tuples(st.sampled_from(list(Config.model_fields)), st.text(max_size=5)))
MANY = int(os.environ.get('P2NET_EXAMPLES', 150))
drawn = settings(max_examples=MANY, derandomize='P2NET_EXAMPLES' not in os.environ, deadline=None, database=None,
                 suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


def made(**sources):
    "A config, or the one line of an InputError; anything else is a fault."
    try: config = make_config(**sources)
    except InputError as error:
        assert str(error) and len(str(error).splitlines()) == 1 and len(str(error)) < 3000
        return error
    assert Config(**json.loads(config.model_dump_json())) == config and len(config.hash) == 16
    return config


@pytest.mark.situation('settings of every kind drawn at random, in a file', 'a valid config, or one line with the file')
@drawn
@given(st.lists(st.tuples(NAMES, VALUES), min_size=1, max_size=4))
def test_drawn_settings_in_a_file(tmp_path, drawn_settings):
    tree, file = {}, tmp_path/'mine.yaml'
    for (section, field), value in drawn_settings:
        if field is None: tree[section] = value
        elif isinstance(tree.setdefault(section, {}), dict): tree[section][field] = value
    text = yaml.safe_dump(tree, allow_unicode=True)
    file.write_text(text, encoding='utf-8')
    found = made(file=file)
    assert not isinstance(found, InputError) or str(file) in str(found)
    assert file.read_text(encoding='utf-8') == text


@pytest.mark.situation('any bytes as a --config file', 'a valid config, or one line with the file')
@drawn
@given(st.binary(max_size=60) | st.text(alphabet='abtrainglsdc:{}[]&*!|>-?@%#"\'\n\t .0123456789eE~<=,', max_size=60).map(str.encode))
def test_drawn_bytes_as_a_file(tmp_path, content):
    file = tmp_path/'mine.yaml'
    file.write_bytes(content)
    found = made(file=file)
    assert not isinstance(found, InputError) or str(file) in str(found)


@pytest.mark.situation('anything behind --set', 'a valid config, or one line that names the option')
@drawn
@given(st.one_of(st.text(max_size=40), st.tuples(NAMES, VALUES).map(lambda t: f"{'.'.join(filter(None, t[0]))}={t[1]}")))
def test_drawn_overrides(text):
    found = made(overrides=[text])
    assert not isinstance(found, InputError) or '--set' in str(found)


@pytest.mark.situation('an option that a command would not use', 'one line; nothing is run')
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


@pytest.mark.parametrize('name', ['people', 'search', 'train', 'evaluate', 'reproduce', 'card'])
def test_a_help_page_has_examples(name, capsys):
    with pytest.raises(SystemExit) as end: main([name, '--help'])
    assert end.value.code == 0 and f'examples:\n  p2net {name}' in capsys.readouterr().out
