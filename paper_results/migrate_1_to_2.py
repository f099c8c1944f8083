"""Rewrite records of schema 1 as schema 2, in place: the names of experiments, settings, policies and columns that changed.

    python paper_results/migrate_1_to_2.py paper_results/runs

The code reads schema 2 alone. Each record keeps its numbers, its commit and its machine; `config_hash` is computed anew. A record of
schema 2 is left as it is, so the script may be run twice."""
import hashlib, json, re, sys
from pathlib import Path

FIELDS = {'network': {'trunk': 'base_channels'}, 'search': {'share': 'compared', 'common': 'project', 'memory': 'ema', 'pull': 'decay', 'plant': 'shift'},
          'training': {'start': 'init'}, 'evaluation': {'others': 'other_data'}}
BEFORE = {'network': {'trunk': 64, 'architecture': 'p2net'},       # what the code did before a field was there
          'search': {'share': 1., 'common': 'kept', 'tied': False, 'memory': 0., 'pull': 0., 'images': None, 'noise': 'image', 'val_mode': 'evaluation',
                     'optimizer': 'adam', 'momentum': 0., 'milestones': [], 'clip': 5., 'from_scratch': False},
          'training': {'start': None}, 'evaluation': {'boxes': None, 'others': None, 'shifts': []}}
POLICIES = {'up-to': 'uniform-magnitude', 'frozen-up-to': 'frozen-uniform-magnitude'}
ENDS = {'-kept': '-unprojected', '-half': '-compared-half', '-eight': '-candidates-8', '-together': '-bn-training', '-twice': '-batch-64',
        '-pairs-twice': '-pairs-batch-64', '-pairs-remembered': '-pairs-ema', '-free': '-pairs-untied', '-up-to': '-uniform-magnitude'}
DATA = ('coco', 'mpii', 'lsp', 'lspet')
COLUMNS = {'common': 'cosine'}                                      # of history.csv
METRICS = (('deploy_vs_floor', 'deploy_vs_bare_warp'), ('deploy_vs_functions_by_hand', 'deploy_vs_albumentations_functions'),   # of bench
           ('people_per_s/floor', 'people_per_s/bare warp'), ('drawn_there_and_back_vs', 'sampled_forward_backward_vs'), ('drawn_vs', 'sampled_vs'),
           ('/drawn, there and back', '/sampled, forward and backward'), ('/drawn', '/sampled'))
FILES = {'sticks.csv': 'poses.csv'}


def experiment_name(old):
    "New name of an experiment, and the data set that it is about."
    base, _, data = old.rpartition('-')
    if data not in DATA or not base or old == 'for': base, data = old, 'rendered'
    if base in ('lsp', ): base, data = old, 'rendered'
    base = re.sub('^for-(dark|turned|inverted|moved)', r'p2net-shift-\1', re.sub('^planted-', 'shift-', base))
    if base.startswith(('shift-', 'p2net-shift-')):
        for end in sorted(ENDS, key=len, reverse=True):
            if base.endswith(end): base = base[:-len(end)] + ENDS[end]; break
    base = {'frozen-up-to': 'frozen-uniform-magnitude', 'ladder': 'recipe-ablation', 'from-random': 'random-init', 'from-rendered': 'rendered-init',
            'lsp-test-from-random': 'lsp-test-random-init', 'lsp-test-from-rendered': 'lsp-test-rendered-init'}.get(base, base)
    return base, data


def migrate_config(old):
    "A config of schema 1 as schema 2 has it."
    new = dict(old)
    for section, fields in BEFORE.items(): new[section] = fields | old[section]
    for section, names in FIELDS.items(): new[section] = {names.get(k, k): v for k, v in new[section].items()}
    new['search']['project'] = new['search']['project'] == 'removed'
    new['search'].setdefault('weight_decay', old['training']['weight_decay'])
    new['policy'] = POLICIES.get(old['policy'], old['policy'])
    new['experiment'], name = experiment_name(old['experiment'])
    new['data'] = {'source': old['data']['source'], 'name': name} | {k: v for k, v in old['data'].items() if k != 'source'}
    return new


def run_name(config): return config['experiment'] if config['data']['name'] == 'rendered' else f"{config['experiment']}-{config['data']['name']}"


def migrate_metrics(record):
    "Rename the metrics of a record of `bench` and their repeats; new names stay as they are."
    def name(metric):
        for old, new in METRICS: metric = metric.replace(old, new)
        return metric
    for part in ('metrics', 'repeats'): record[part] = {name(metric): value for metric, value in record[part].items()}


def migrate_record(record):
    "A record of schema 1 as schema 2 has it."
    from p2net.runs.config import Config
    if 'network' in record['config']: record['config'] = migrate_config(record['config'])
    record |= dict(schema=2, experiment=run_name(record['config']))
    if record['experiment'] == 'bench': migrate_metrics(record)
    else: record['config_hash'] = Config.model_validate(record['config']).hash
    if 'policy' in record: record['policy']['kind'] = POLICIES.get(record['policy']['kind'], record['policy']['kind'])
    if 'start' in record: record['init'] = record.pop('start')
    return record


def migrate_table(file):
    "Rename columns of a CSV file."
    text = file.read_text(encoding='utf-8')
    head, _, rest = text.partition('\n')
    names = [COLUMNS.get(name, name) for name in head.split(',')]
    if ','.join(names) != head: file.write_text(','.join(names) + '\n' + rest, encoding='utf-8')


def migrate_policy(file, record):
    "Rename the kind of a policy; a record that names the file's hash gets the new one."
    policy = json.loads(text := file.read_text(encoding='utf-8'))
    if (kind := POLICIES.get(policy.get('kind'))) is None: return
    new = text.replace(f'"kind": "{policy["kind"]}"', f'"kind": "{kind}"', 1)
    file.write_text(new, encoding='utf-8')
    if 'policy' in record: record['policy']['sha256'] = hashlib.sha256(new.encode()).hexdigest()


def main(root):
    for path in sorted(Path(root).rglob('record.json')):
        record = json.loads(path.read_text(encoding='utf-8'))
        if record.get('schema') != 1: continue
        old, record = record['experiment'], migrate_record(record)
        for table in path.parent.glob('history.csv'): migrate_table(table)
        if (policy := path.parent/'policy.json').is_file(): migrate_policy(policy, record)
        for old_name, name in FILES.items():
            if (file := path.parent/old_name).is_file(): file.rename(file.with_name(name))
        path.write_text(json.dumps(record, indent=1) + '\n', encoding='utf-8')
        if (place := path.parents[2]/record['experiment']/path.parent.name) != path.parent:
            place.parent.mkdir(exist_ok=True)
            path.parent.rename(place)
            if not any(path.parents[1].iterdir()): path.parents[1].rmdir()
        print(f"{old} -> {record['experiment']}/{path.parent.name}")


if __name__ == '__main__': main(*sys.argv[1:])
