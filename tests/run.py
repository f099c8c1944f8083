"What `make test` runs: nbdev_test, then pytest, whose summary is the last line. Exits non-zero if either fails."
import os, subprocess, sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT/'tests'))
from notebooks import notebooks, test_cells

os.chdir(ROOT)

def untracked():
    "Files that git neither knows nor ignores; none without git."
    try: said = subprocess.run(['git', 'status', '--porcelain'], capture_output=True, text=True).stdout
    except OSError: return set()
    return {line[3:] for line in said.splitlines() if line.startswith('??')}

before = untracked()
environment = {**os.environ, 'TQDM_DISABLE': '1', 'OMP_NUM_THREADS': '1'}
found = notebooks()
nbdev = subprocess.run([Path(sys.executable).parent/'nbdev_test', '--n_workers', '2', '--timing'], env=environment).returncode
print(f"notebooks: {len(found)}, of their cells {sum(map(test_cells, found))} hold tests; {'all passed' if nbdev == 0 else 'FAILED'}", flush=True)
if litter := untracked() - before:
    print(f"notebooks left files behind: {', '.join(sorted(litter))}", flush=True)
    nbdev = nbdev or 1
tests = subprocess.run([sys.executable, '-m', 'pytest', 'tests', *sys.argv[1:]]).returncode
sys.exit(nbdev or tests)
