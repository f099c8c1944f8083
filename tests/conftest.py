"What tests share: every notebook, run once."
import os, subprocess, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Semaphore

import pytest

ROOT = Path(__file__).resolve().parents[1]


def untracked():
    "Files that git neither knows nor ignores; none without git."
    try: said = subprocess.run(['git', 'status', '--porcelain'], capture_output=True, text=True, cwd=ROOT).stdout
    except OSError: return set()
    return {line[3:] for line in said.splitlines() if line.startswith('??')}


class Fresh:
    "A fresh run of each of these notebooks: one at a time while other tests run, two from when the first outcome is asked for."
    def __init__(self, paths):
        environment = {**os.environ, 'OMP_NUM_THREADS': '1'}            # now: tests that run meanwhile change theirs
        self.cores, self.asked = Semaphore(1), False
        def check(path):
            with self.cores:
                done = subprocess.run([sys.executable, ROOT/'tests/notebooks.py', 'check', path], capture_output=True, text=True, env=environment)
            return done.returncode, done.stdout + done.stderr
        self.before, self.pool = untracked(), ThreadPoolExecutor(2)
        self.runs = {path: self.pool.submit(check, path) for path in paths}

    def said(self, path):
        "Its return code and what it said."
        if not self.asked: self.cores.release()
        self.asked = True
        return self.runs[path].result()

    def left_behind(self):
        "Files that are new since the first run began, once all are done."
        for run in self.runs.values(): run.result()
        return untracked() - self.before


@pytest.fixture(scope='session', autouse=True)
def fresh(request):
    "All notebooks that are tested in this session, begun before its first test."
    asked = [item.callspec.params['path'] for item in request.session.items if item.name.startswith('test_notebook[')]
    runs = Fresh(asked)
    yield runs
    runs.pool.shutdown(cancel_futures=True)
