"""What `make test` runs: `nbdev_test` on one notebook, then pytest, which runs every notebook, compares what it prints with what is stored, and ends with the summary.

Each notebook runs once: the check executes the cells that `nbdev_test` would, so its tests have passed where the check has."""
import os, subprocess, sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT/'tests'))
from notebooks import notebooks, test_cells

os.chdir(ROOT)
found = notebooks()
print(f"{len(found)} notebooks, of their cells {sum(map(test_cells, found))} hold tests", flush=True)
command = [Path(sys.executable).parent/'nbdev_test', '--path', 'nbs/da2/10_relaxation.ipynb']        # the command itself works here
nbdev = subprocess.run(command, env={**os.environ, 'TQDM_DISABLE': '1', 'OMP_NUM_THREADS': '1'}).returncode
tests = subprocess.run([sys.executable, '-m', 'pytest', 'tests', *sys.argv[1:]]).returncode
sys.exit(nbdev or tests)
