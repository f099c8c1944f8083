"What tests share: notebooks run again."
import os, subprocess, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope='session')
def fresh(request):
    "A fresh run of every notebook whose stored outputs are tested, two at a time: path -> (return code, what it said)."
    environment = {**os.environ, 'OMP_NUM_THREADS': '1'}                # now: tests that run meanwhile change theirs
    def check(path):
        done = subprocess.run([sys.executable, ROOT/'tests/notebooks.py', 'check', path], capture_output=True, text=True, env=environment)
        return done.returncode, done.stdout + done.stderr
    asked = [item.callspec.params['path'] for item in request.session.items if item.name.startswith('test_stored_outputs')]
    pool = ThreadPoolExecutor(2)
    yield {path: pool.submit(check, path) for path in asked}
    pool.shutdown(cancel_futures=True)
