"What tests share: every notebook, run once."
import subprocess, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Semaphore

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT/'tests'))
from forked import forked, start
from notebooks import complaint


def untracked():
    "Files that git neither knows nor ignores; none without git."
    try: said = subprocess.run(['git', 'status', '--porcelain'], capture_output=True, text=True, cwd=ROOT).stdout
    except OSError: return set()
    return {line[3:] for line in said.splitlines() if line.startswith('??')}


class Fresh:
    "A fresh run of each of these notebooks: one at a time while other tests run, two from when the first outcome is asked for."
    def __init__(self, paths):
        self.cores, self.asked = Semaphore(1), False
        def check(path):
            with self.cores: return forked(complaint, path)
        start()
        self.before, self.pool = untracked(), ThreadPoolExecutor(2)
        self.runs = {path: self.pool.submit(check, path) for path in paths}

    def complaint(self, path):
        "What there is against it, '' where nothing."
        if not self.asked: self.cores.release()
        self.asked = True
        return self.runs[path].result()

    def left_behind(self):
        "Files that are new since the first run began, once all are done."
        for run in self.runs.values(): run.result()
        return untracked() - self.before


def pytest_addoption(parser):
    parser.addoption('--all-faults', action='store_true', help="every fault of tests/test_faults.py, not two for each notebook")


def pytest_collection_modifyitems(items):
    "What asks for a notebook's run comes last, so that both cores have work until then."
    items.sort(key=lambda item: item.name.startswith('test_notebook'))


def pytest_configure(config):
    config.addinivalue_line('markers', "situation(has, sees, theme=None): what the user has and sees; a row of tests/README.md, see tests/situations.py")


@pytest.fixture(scope='session', autouse=True)
def fresh(request):
    "All notebooks that are tested in this session, begun before its first test."
    asked = [item.callspec.params['path'] for item in request.session.items if item.name.startswith('test_notebook[')]
    runs = Fresh(asked)
    yield runs
    runs.pool.shutdown(cancel_futures=True)
