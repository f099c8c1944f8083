"""Claims, tables and figures: the golden table, one cell by hand, and every fault that must stop a table by name."""
import json, os, re, shutil, statistics
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from mini_records import metrics, policy_rows, write_all, write_history, write_mini
from p2net.errors import InputError
from p2net.report import claims, figures, markdown, tables
from p2net.report.markdown import as_markdown
from p2net.report.tables import RunsMissing, build_table, load_runs, write_tables
from samples import SHARED, needs

HERE = Path(__file__).parent
GOLDEN = HERE/'mini_runs'           # committed records with invented numbers, and the table that they must give
PAPER = SHARED/'paper'/'p2net.txt'


@pytest.fixture(scope='module')
def full(tmp_path_factory): return write_all(tmp_path_factory.mktemp('records'))


@pytest.fixture
def records(tmp_path):
    "Six invented runs, free to be broken."
    for experiment in ('p2net', 'hand-made'):
        for seed in range(3): write_mini(tmp_path, experiment, seed)
    return tmp_path


def cell(table, row, metric): return table[(table.row == row) & (table.metric == metric)].iloc[0]


# -- golden and by hand

def test_committed_records_give_the_committed_table(tmp_path):
    table = build_table(4, GOLDEN)
    table.to_csv(tmp_path/'table_4.csv', index=False, float_format='%.2f', lineterminator='\n')
    assert (tmp_path/'table_4.csv').read_text() == (GOLDEN/'expected'/'table_4.csv').read_text()
    assert as_markdown(table) == (GOLDEN/'expected'/'table_4.md').read_text()


def test_one_cell_by_hand():
    AP = {e: [100*json.loads((GOLDEN/f'tiny/{e}/{s}/record.json').read_text())['metrics']['AP'] for s in range(3)] for e in ('p2net', 'hand-made')}
    ours, gain = (cell(build_table(4, GOLDEN), row, 'AP') for row in ('Ours', 'Ours - Ours*'))
    assert (ours.ours, ours.spread, ours.n) == pytest.approx((statistics.mean(AP['p2net']), statistics.stdev(AP['p2net']), 3), abs=1e-9)
    differences = [a - b for a, b in zip(AP['p2net'], AP['hand-made'])]
    assert (gain.ours, gain.spread) == pytest.approx((statistics.mean(differences), statistics.stdev(differences)), abs=1e-9)
    assert ours.paper == 77.3


@pytest.mark.parametrize('order', range(3))
def test_order_of_the_records_plays_no_part(monkeypatch, order):
    expected, find = build_table(4, GOLDEN), tables.find_runs
    monkeypatch.setattr(tables, 'find_runs', lambda folder: find(folder).sample(frac=1, random_state=order).reset_index(drop=True))
    pd.testing.assert_frame_equal(build_table(4, GOLDEN), expected)


@pytest.mark.parametrize('number', range(1, 7))
def test_every_table_from_a_full_set(full, number):
    table = build_table(number, full)
    mine = table[table.n > 0]
    assert len(mine) and (mine.n == 3).all() and (mine.scale == 'tiny').all() and (mine.boxes != '').all()
    assert 'rendered people' in table.attrs['caption'] and 'scale tiny' in table.attrs['caption'] and 'n−1' in table.attrs['caption']
    printed = claims.numbers(claims.load_claims(number))
    kept = table[~table.row.str.contains(' - ')].dropna(subset=['paper'])                       # no printed cell is lost on the way
    for row in kept.itertuples(): assert row.paper == printed.loc[row.row, row.metric]
    assert len(kept) == printed.reindex(columns=table.metric.unique()).count().sum()
    assert 'c0ffeec0ff' in as_markdown(table)


def test_table_1_by_hand(full):
    ours = cell(build_table(1, full), 'Ours', '#Params')
    assert ours.ours == pytest.approx(12.345678) and ours.paper == 42.5
    assert cell(build_table(2, full), 'Ours', 'Wri').ours == pytest.approx(100*np.mean([metrics('p2net', s)['PCKh@0.5/wrist'] for s in range(3)]))


def test_table_3_has_lost_rows_and_levels(full):
    page = markdown.layout_rows(build_table(3, full))
    assert page[page[''].isin(['Faster R-CNN', 'DetNet59'])]['mAP'].tolist() == ['lost', 'lost']
    assert cell(build_table(3, full), 'jitter-20', 'AP*').ours == pytest.approx(100*.8*np.mean([metrics('p2net', s)['AP'] for s in range(3)]))
    assert 'lost' in build_table(3, full).attrs['caption']


def test_experiments_are_those_of_the_runs():
    "Tables ask for no experiment that nobody can run, and commands name none."
    from p2net.runs.experiments import EXPERIMENTS as experiments
    asked = {e for layout in tables.LAYOUTS.values() for e in layout.rows}
    assert asked | set(figures.ABLATIONS + figures.AUGMENTATIONS + figures.TRAINED) <= set(experiments)
    assert asked - {'box-quality'} <= set(markdown.NAMES)


# -- which runs, and faults

def test_missing_run_is_named(records):
    shutil.rmtree(records/'tiny'/'hand-made'/'1')
    with pytest.raises(RunsMissing, match=r'missing or unfinished: tiny/hand-made/1$') as error: build_table(4, records)
    assert error.value.command == 'p2net reproduce --scale tiny --experiments hand-made --seeds 1 --replace-committed'


@pytest.mark.parametrize('status', ['failed', 'stopped'])
def test_unfinished_run_is_named_with_its_error(records, status):
    write_mini(records, 'p2net', 2, status=status, error='the loss is nan at step 7')
    with pytest.raises(RunsMissing, match=f'tiny/p2net/2 \\({status}: the loss is nan'): build_table(4, records)


def test_run_that_is_there_twice_is_named(records):
    shutil.copytree(records/'tiny', records/'copy'/'tiny')
    with pytest.raises(ValueError, match='the same run has two records: tiny/p2net/0') as error: build_table(4, records)
    assert not isinstance(error.value, RunsMissing)         # a notebook may not pass over it


def test_seed_of_one_experiment_alone_is_an_error(records):
    write_mini(records, 'p2net', 3)
    with pytest.raises(RunsMissing, match='tiny/hand-made/3'): build_table(4, records)


def test_record_in_another_runs_folder(records):
    shutil.copytree(records/'tiny'/'p2net'/'0', records/'tiny'/'p2net'/'7')
    with pytest.raises(ValueError, match='its record says p2net/0, but its folder is p2net/7'): build_table(4, records)


def test_file_that_is_no_record(records):
    (records/'tiny'/'p2net'/'0'/'record.json').write_text('{"schema": 1,')
    with pytest.raises(ValueError, match=r'p2net/0/record.json: not readable as JSON'): build_table(4, records)


@pytest.mark.parametrize('change, message', [
    (dict(boxes='detected'), 'boxes is ground-truth and detected'),
    (dict(fingerprint='other'), 'people_id is val0 and other')])
def test_rows_measured_on_different_people_do_not_compare(records, change, message):
    for seed in range(3): write_mini(records, 'hand-made', seed, **change)
    with pytest.raises(ValueError, match=f"cannot be compared: {message}"): build_table(4, records)


def test_seeds_that_differ_in_a_setting_are_not_averaged(records):
    path = records/'tiny'/'p2net'/'1'/'record.json'
    record = json.loads(path.read_text())
    record['config']['training']['steps'] = 99
    path.write_text(json.dumps(record))
    with pytest.raises(ValueError, match=r'runs of p2net differ in more than the seed: training.steps is \d+ and 99'): build_table(4, records)


def test_metric_out_of_range_or_in_some_records_only(records):
    write_mini(records, 'p2net', 0, values=metrics('p2net', 0) | dict(AP=62.))
    with pytest.raises(ValueError, match='tiny/p2net/0/record.json: metrics.AP is 62.0, expected 0 to 1'): build_table(4, records)
    write_mini(records, 'p2net', 0, values={k: v for k, v in metrics('p2net', 0).items() if k != 'APM'})
    with pytest.raises(ValueError, match='runs of p2net: APM is in some records'): build_table(4, records)


def test_wanted_twice_or_on_other_boxes(records):
    wanted = pd.DataFrame(dict(experiment=['p2net', 'p2net'], seed=[0, 0]))
    with pytest.raises(ValueError, match='p2net/0 is asked for twice'): load_runs(records, wanted)
    with pytest.raises(ValueError, match='was measured with ground-truth boxes; this table needs detected boxes'): load_runs(records, wanted[:1].assign(boxes='detected'))
    assert load_runs(records, wanted[:1]).AP.tolist() == [metrics('p2net', 0)['AP']]         # unrounded


# -- drawn records

HARD = [None, True, '', 'x', -1, 0, 1.5, 1e308, 10**400, float('nan'), float('inf'), [], [1], {}, {'a': {}}]
drawn = settings(max_examples=int(os.environ.get('P2NET_EXAMPLES', 60)), derandomize='P2NET_EXAMPLES' not in os.environ, deadline=None, database=None,
                 suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


def change(data, content):
    "A file with one value of its JSON replaced or removed, or a few of its bytes."
    kind = data.draw(st.sampled_from(['value', 'value', 'value', 'gone', 'cut', 'bytes']))
    if kind == 'cut': return content[:data.draw(st.integers(0, len(content)))]
    if kind == 'bytes':
        content = bytearray(content)
        for _ in range(data.draw(st.integers(1, 3))): content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        return bytes(content)
    tree = here = json.loads(content)
    while True:
        key = data.draw(st.sampled_from(sorted(here)))
        if not isinstance(here[key], dict) or not here[key] or data.draw(st.integers(0, 3)) == 0: break
        here = here[key]
    if kind == 'gone': del here[key]
    else: here[key] = data.draw(st.sampled_from(HARD))
    return json.dumps(tree).encode()


@pytest.fixture(scope='module')
def two(tmp_path_factory):
    "Two runs of two experiments, to be broken and mended."
    root = tmp_path_factory.mktemp('two')
    for experiment in ('p2net', 'hand-made'): write_mini(root, experiment)
    return root


@drawn
@given(st.data())
def test_a_drawn_record_works_or_is_named(two, data):
    "Whatever reads records: it works, or one line names the file; the record is never complete by mistake, nor changed."
    from p2net.reproduce import compare_records
    from p2net.runs.checks import keep_result
    from p2net.runs.config import make_config
    from p2net.runs.runners import RunContext
    from p2net.runs.record import is_done
    file, config = two/'tiny/p2net/0/record.json', make_config(overrides=['experiment=p2net', 'seed=0'])
    whole = file.read_bytes()
    content = change(data, whole)
    file.write_bytes(content)
    try:
        for read, words in ((is_done, (two, config)), (build_table, (4, two)), (compare_records, (two, two)), (keep_result, (config, RunContext(two, two)))):
            try: found = read(*words)
            except InputError as error: assert len(str(error).splitlines()) == 1 and len(str(error)) < 1500
            else: assert read is not is_done or not found or json.loads(content)['status'] == 'complete'
        assert file.read_bytes() == content
    finally: file.write_bytes(whole)


@pytest.mark.situation('a record in which a key is missing or of another type', 'one line: the record and the key; no table without it', theme='Checkpoints and records')
@pytest.mark.parametrize('change, says', [
    (dict(config=dict(network=5)), 'network should be'), (dict(config=dict(training=dict(steps='many'))), 'training.steps should be'),
    (dict(data=dict(boxes='ground-truth')), 'data.val is missing'), (dict(data=dict(boxes=3)), 'data.boxes is 3'),
    (dict(data=dict(boxes='ground-truth', val=dict(name='rendered', people='300'))), 'data.val.people is 300'), (dict(policy=[]), r'policy is \[\]'),
    (dict(cost=dict(gmac='1')), 'cost.gmac is 1'), (dict(data=dict(boxes='ground-truth', flip_test=[], val=dict(name='rendered', people=3))), r'data.flip_test is \[\]')])
def test_a_record_with_an_odd_key_is_named_with_it(records, change, says):
    file = records/'tiny'/'p2net'/'0'/'record.json'
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(InputError, match=f'{file}: {says}'): build_table(4, records)


@drawn
@given(st.data())
def test_a_drawn_csv_works_or_is_named(two, data):
    "policy.csv and history.csv beside a record: cut, with bytes changed, or with other columns."
    folder = two/'tiny/p2net/0'
    if not (folder/'policy.csv').exists():
        write_history(folder, 0)
        tables.write_whole(folder/'policy.csv', pd.DataFrame(policy_rows(0, range(2))).to_csv(index=False))
    name, read = data.draw(st.sampled_from([('policy.csv', lambda: figures.read_policy(folder)), ('history.csv', lambda: figures.read_histories([folder/'record.json']))]))
    file = folder/name
    whole = file.read_bytes()
    if data.draw(st.booleans()): content = whole[:data.draw(st.integers(0, len(whole)))]
    else:
        content = bytearray(whole)
        for _ in range(data.draw(st.integers(1, 3))): content[data.draw(st.integers(0, 400))] = data.draw(st.sampled_from(list(b'\0\n\r,"x9-\xff')))
    file.write_bytes(content)
    try: assert len(read())
    except InputError as error: assert str(file) in str(error) and len(str(error).splitlines()) == 1
    finally: file.write_bytes(whole)


# -- scale, seeds, spread

def test_largest_complete_scale_wins(records):
    write_mini(records, 'p2net', 0, scale='small')
    assert (build_table(4, records).query('n > 0').scale == 'tiny').all()                         # half of small is not small
    write_mini(records, 'hand-made', 0, scale='small')
    table = build_table(4, records)
    assert (table.query('n > 0').scale == 'small').all() and (table.query('n > 0').n == 1).all()
    assert 'ResNet-50, 256×192' in table.attrs['caption']
    assert (build_table(4, records, scale='tiny').query('n > 0').n == 3).all()


def test_one_seed_has_no_spread(records):
    table = build_table(4, records, seeds=(2,))
    assert table.query('n > 0').spread.isna().all()
    assert '64.0\u00a0±\u00a0—' in as_markdown(table)


def test_optional_rows_come_with_their_number(records):
    write_mini(records, 'identity', 1)
    table = build_table(4, records)
    assert cell(table, 'identity', 'AP').n == 1 and 'identity of seed 0, 2' in ' '.join(table.attrs['remarks'])


def test_uncommitted_changes_show(records):
    path = records/'tiny'/'p2net'/'1'/'record.json'
    record = json.loads(path.read_text())
    record['environment']['dirty'] = True
    path.write_text(json.dumps(record))
    assert build_table(4, records).attrs['commits'] == 'c0ffeec0ff (5 runs), c0ffeec0ff with uncommitted changes (1 run)'


# -- files

def test_write_tables(records, tmp_path):
    out = tmp_path/'tables'
    out.mkdir()
    (out/'table_5.csv').write_text('an older table')
    written = [p.name for p in write_tables(records, out)]
    assert 'table_4.csv' in written and 'table_5.csv' not in written and not (out/'table_5.csv').exists()
    assert 'p2net reproduce --scale tiny --experiments no-attention --seeds 0 1 2' in (out/'table_5.md').read_text()
    assert pd.read_csv(out/'table_4.csv').query('row == "Ours" and metric == "AP"').ours.item() == 63.


def test_write_figures(full, tmp_path):
    written = figures.write_figures(full, tmp_path)
    assert {p.stem for p in written} == set(figures.FIGURES)
    import matplotlib.image
    for path in written: assert matplotlib.image.imread(path).std() > .01                    # something is drawn
    before = {p.name: p.read_bytes() for p in written}
    assert {p.name: p.read_bytes() for p in figures.write_figures(full, tmp_path)} == before


def test_figures_without_their_records(records, tmp_path):
    (tmp_path/'box_quality.png').write_bytes(b'an older figure')
    assert [p.stem for p in figures.write_figures(records, tmp_path)] == ['ablations']
    assert not (tmp_path/'box_quality.png').exists()
    assert 'p2net reproduce' in figures.show_figure('policy_pi', records)


def test_gains_are_paired(records):
    "Seeds that move both runs alike leave no spread in the gain."
    for seed, ap in enumerate((.2, .5, .8)):
        for experiment, gain in (('p2net', .01), ('hand-made', 0)): write_mini(records, experiment, seed, values=dict(AP=ap + gain))
    gain = figures.all_gains(records, without=('hand-made',)).gain
    assert gain.tolist() == pytest.approx([1, 1, 1]) and gain.std(ddof=1) < 1e-9


# -- claims against the paper's text

def printed_lines(first, last):
    "Lines of a table in the extracted text, split at tabs."
    text = PAPER.read_text(encoding='utf-8').split('\n')
    start = next(i for i, line in enumerate(text) if line.startswith(first))
    stop = next(i for i in range(start, len(text)) if text[i].startswith(last))
    return [line.split('\t') for line in text[start+1:stop+1]]


@needs('paper/p2net.txt')
@pytest.mark.parametrize('number, head', [(1, 'Method\tBackbone'), (2, 'Method\tHea')])
def test_claims_equal_the_text(number, head):
    table, lines = claims.wide(claims.load_claims(number)), printed_lines(head, 'Ours\t')
    assert [line[0].rstrip('.') for line in lines] == list(table.index)
    for line in lines: assert line[1:] == table.loc[line[0].rstrip('.')].tolist()


@needs('paper/p2net.txt')
@pytest.mark.parametrize('number, head', [(4, 'TABLE IV C'), (5, '\\textbf{V}'), (6, 'TABLE VI\n')])
def test_ablation_claims_equal_the_text(number, head):
    text = PAPER.read_text(encoding='utf-8')
    lines = text[text.index(head):].split('\n')
    for row in ('Ours', 'Ours*'):
        line = next(x for x in lines if '\t' in x and x.split('\t')[0].strip(' $').replace('^', '') == row)
        assert re.findall(r'\d\d\.\d', line) == claims.wide(claims.load_claims(number)).loc[row].tolist()[1:]


def test_records_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.delenv('P2NET_RECORDS', raising=False)
    assert claims.records_folder() == HERE.parent/'paper_results'/'runs'
    monkeypatch.setenv('P2NET_RECORDS', 'runs/records')
    assert claims.records_folder() == HERE.parent/'runs'/'records'
    monkeypatch.setenv('P2NET_RECORDS', str(tmp_path))
    assert claims.records_folder() == tmp_path


# -- intervals

def write_people(folder, right, people=60):
    "An invented people.csv: `right` of 10 joints near enough on average, two people an image."
    rng = np.random.default_rng(int(10*right))
    rows = pd.DataFrame({'image_id': np.arange(people)//2, 'person_id': np.arange(people), 'PCK@0.2': rng.binomial(10, right, people), 'PCK@0.2/asked': 10})
    rows.to_csv(folder/'people.csv', index=False)


def test_a_gain_has_an_interval_where_both_runs_left_their_people(records):
    folders = {e: [records/f'tiny/{e}/{s}' for s in range(3)] for e in ('p2net', 'hand-made')}
    gain = lambda metric: cell(build_table(4, records), 'Ours - Ours*', metric)
    assert np.isnan(gain('PCK@0.2').low) and '95 %:' in as_markdown(build_table(4, records)) and '| 95 % |' not in as_markdown(build_table(4, records))
    for n, (experiment, right) in enumerate((('p2net', .8), ('hand-made', .5))):
        for folder in folders[experiment]: write_people(folder, right)
        assert np.isnan(gain('PCK@0.2').low) == (n == 0)               # one side alone has none
    assert 20 < gain('PCK@0.2').low < 30 < gain('PCK@0.2').high < 40   # of 0.8 - 0.5, in percent
    assert np.isnan(gain('APM').low)                                   # COCO matches anew for each range of sizes
    assert '| 95 % |' in as_markdown(build_table(4, records))
    assert 'interval +2' in tables.gain_summary(4, records, 'PCK@0.2')
    shutil.rmtree(folders['hand-made'][1])
    write_mini(records, 'hand-made', 1)
    assert np.isnan(gain('PCK@0.2').low)                               # nor do three seeds of which one is old
    write_people(folders['hand-made'][1], .5, people=50)
    with pytest.raises(ValueError, match='evaluated on different people'): build_table(4, records)
