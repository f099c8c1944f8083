"""What `make test` runs: `nbdev_test` on one notebook, then pytest: first the tests of `tests/` in two processes side by side, then
every notebook, two at a time. It compares what they print with what is stored, and ends with one summary.

Each notebook runs once: the check executes the cells that `nbdev_test` would, so its tests have passed where the check has."""
import os, re, subprocess, sys, tempfile, time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT/'tests'))
from notebooks import notebooks, test_cells

# About half of the time of all tests: those that start processes, and those of users' files.
FIRST = ('test_cluster.py', 'test_kill.py', 'test_other_data.py', 'test_processes.py', 'test_rendering.py', 'test_resume.py', 'test_user_files.py')
NOTEBOOKS = 'test_project.py'


def pytest(files, said=None):
    "A process that runs these files of tests; what it prints goes to the file `said`."
    return subprocess.Popen([sys.executable, '-m', 'pytest', *(f'tests/{f}' for f in files), *sys.argv[1:]], stdout=said, stderr=said and subprocess.STDOUT)


def main():
    os.chdir(ROOT)
    found, start = notebooks(), time.perf_counter()
    print(f"{len(found)} notebooks, of their cells {sum(map(test_cells, found))} hold tests", flush=True)
    command = [Path(sys.executable).parent/'nbdev_test', '--path', 'nbs/da2/10_relaxation.ipynb']    # the command itself works here
    codes = [subprocess.run(command, env={**os.environ, 'TQDM_DISABLE': '1', 'OMP_NUM_THREADS': '1'}).returncode]
    rest = [p.name for p in sorted((ROOT/'tests').glob('test_*.py')) if p.name not in (*FIRST, NOTEBOOKS)]
    total = Counter()
    with tempfile.TemporaryDirectory() as folder:
        said = [Path(folder)/name for name in ('first', 'rest', 'notebooks')]
        for group in ((FIRST, rest), ([NOTEBOOKS],)):
            files = said[:2] if len(group) == 2 else said[2:]
            started = [pytest(names, open(file, 'w')) for names, file in zip(group, files)]
            codes += [process.wait() for process in started]
            for file in files:
                print(text := file.read_text(errors='replace'), flush=True)
                last = (re.findall(r'(?m)^=* ?(.*\d+ (?:passed|failed|error).*) in [\d.]+s', text) or [''])[-1]
                total.update({word: int(n) for n, word in re.findall(r'(\d+) (passed|failed|skipped|errors?)', last)})
    print(f"{', '.join(f'{n} {word}' for word, n in total.items())} in {time.perf_counter() - start:.2f}s")
    return max(map(abs, codes))


if __name__ == '__main__': sys.exit(main())
