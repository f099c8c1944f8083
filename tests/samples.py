"""What some tests need and a clone may lack, and the words that a skipped test says it with: a GPU, a sample that lies beside the
repository, an optional library of the extra `bench`. `P2NET_SHARED` names another folder than `../shared`."""
import os
from pathlib import Path

import pytest
import torch

SHARED = Path(os.environ.get('P2NET_SHARED') or Path(__file__).resolve().parents[2]/'shared')
DATA = SHARED/'data'


def absent(path):
    "Why a test that needs `path` below SHARED is skipped."
    return f"no ../shared/{path} (P2NET_SHARED names another folder)"


def sample(path):
    "A file or folder below SHARED; without it the test is skipped."
    if not (SHARED/path).exists(): pytest.skip(absent(path))
    return SHARED/path


def needs(path):
    "Mark of a test that reads `path` below SHARED."
    return pytest.mark.skipif(not (SHARED/path).exists(), reason=absent(path))


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason='no GPU')


def optional(library):
    "A library of the extra `bench`; without it the test is skipped."
    return pytest.importorskip(library, reason=f"no {library}, an optional library: pip install -e '.[bench]'")
