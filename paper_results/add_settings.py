"""Adds the settings that records lack, at their defaults, and writes the hash of the settings anew:

    python paper_results/add_settings.py FOLDER ...

For settings whose default is what the code did before they existed; a setting that changes results needs a run."""
import json, sys
from pathlib import Path

from p2net.runs.config import flatten, recorded_config
from p2net.runs.record import read_record


def add_settings(path:Path)->bool: # whether the record changed
    "Complete the settings of one record in place."
    record = read_record(path)
    config = recorded_config(record['config'], path)
    if flatten(record['config']).keys() == flatten(config.model_dump(mode='json')).keys(): return False
    record |= dict(config=config.model_dump(mode='json'), config_hash=config.hash)
    path.write_text(json.dumps(record, indent=1) + '\n', encoding='utf-8')
    return True


if __name__ == '__main__':
    paths = [p for folder in sys.argv[1:] for p in sorted(Path(folder).rglob('record.json'))]
    print(f'{sum(map(add_settings, paths))} of {len(paths)} records completed')
