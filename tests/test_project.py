"The checkout agrees with itself: export, stored outputs, README, requirements, arrows between the rooms."
import ast, configparser, filecmp, os, re, shutil, subprocess, sys
from pathlib import Path

import pytest, yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT/'tests'))
from forked import forked
from notebooks import notebooks, readme

BIN = Path(sys.executable).parent
BASE = {'compat', 'errors', 'files', 'plotting', 'progress'}                    # what every room may import
MAY_IMPORT = {'people': (), 'da2': (), 'network': (), 'evaluation': ('people',), 'rendering': ('people',),
              'runs': ('people', 'da2', 'network', 'evaluation', 'rendering'), 'report': ('runs', 'evaluation', 'people'),
              'tools': ('runs', 'evaluation', 'network', 'people'), 'reproduce': ('report', 'runs'),
              'cli': ('tools', 'reproduce', 'report', 'runs', 'people', 'rendering', 'network')}


@pytest.mark.parametrize('path', notebooks(), ids=lambda p: p.relative_to(ROOT/'nbs').as_posix())
def test_notebook(path, fresh):
    "Its cells run, tests among them, and print what is stored."
    said = fresh.complaint(path)
    assert not said, said[-3000:]


def test_notebooks_leave_no_files_behind(fresh):
    assert not fresh.left_behind()


@pytest.fixture(scope='session')
def exported(tmp_path_factory):
    "A copy of the notebooks and settings, exported and cleaned."
    copy = tmp_path_factory.mktemp('export')/'copy'
    copy.mkdir()
    for name in ('nbs', 'p2net'): shutil.copytree(ROOT/name, copy/name, ignore=shutil.ignore_patterns('__pycache__', '.ipynb_checkpoints'))
    for name in ('settings.ini', 'setup.py', 'pyproject.toml'): shutil.copy(ROOT/name, copy/name)
    subprocess.run(['git', 'init', '-q'], cwd=copy)
    for tool in ('nbdev_export', 'nbdev_clean'): subprocess.run([BIN/tool], cwd=copy, check=True, capture_output=True)
    return copy


def differing(a, b, pattern):
    "Files under a or b, of this pattern, that differ or are in one of them only."
    names = {p.relative_to(top).as_posix() for top in (a, b) for p in top.rglob(pattern) if '.ipynb_checkpoints' not in p.parts and '__pycache__' not in p.parts}
    return sorted(n for n in names if not ((a/n).exists() and (b/n).exists() and filecmp.cmp(a/n, b/n, shallow=False)))


def test_export_is_in_sync(exported):
    assert not differing(ROOT/'p2net', exported/'p2net', '*.py'), "run `make export`"


def test_notebooks_are_clean(exported):
    assert not differing(ROOT/'nbs', exported/'nbs', '*.ipynb'), "run `make export`"


def test_readme_is_the_index_notebook():
    assert (ROOT/'README.md').read_text(encoding='utf-8') == readme(), "run `make export`"


PINNED = ('requirements', 'dev_requirements', 'docs_requirements')   # lists whose versions constraints.txt may fix


def requirements():
    "Names of all requirements of settings.ini, but for those of benchmarks."
    parser = configparser.ConfigParser(delimiters=['='])
    parser.read(ROOT/'settings.ini', encoding='utf-8')
    cfg = parser['DEFAULT']
    return cfg, {re.match(r'[\w.-]+', r)[0].lower() for key in PINNED for r in cfg[key].split()}


def test_constraints_pin_only_what_is_required_and_satisfy_it():
    from packaging.requirements import Requirement
    cfg, names = requirements()
    wanted = {r.name.lower(): r for key in PINNED for r in map(Requirement, cfg[key].split())}
    pins = [Requirement(line) for line in (ROOT/'constraints.txt').read_text().splitlines() if line and not line.startswith('#')]
    transitive = {'torchvision', 'fastcore', 'execnb', 'ghapi'}
    for pin in pins:
        assert pin.name.lower() in names | transitive, f"constraints.txt pins {pin.name}, which settings.ini doesn't ask for"
        version = next(iter(pin.specifier)).version
        if pin.name.lower() in wanted: assert wanted[pin.name.lower()].specifier.contains(version), f"{pin} is outside {wanted[pin.name.lower()]}"
    user_given = {'torch', 'torchvision', 'jupyterlab', 'nbdev', 'matplotlib', 'pandas', 'pycocotools', 'seaborn'}
    assert user_given <= names
    assert user_given <= {p.name.lower() for p in pins}


def test_environment_yml_installs_the_same_list():
    env = yaml.safe_load((ROOT/'environment.yml').read_text())
    pip = next(d['pip'] for d in env['dependencies'] if isinstance(d, dict))
    assert pip == ['-c constraints.txt', '-e .[dev]']
    cfg, _ = requirements()
    assert f"python>={cfg['min_python']},<3.14" in env['dependencies']


def imports(path):
    "Rooms and modules of p2net that a file imports: the first name below p2net. Export writes our imports as relative ones."
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_text())):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            base = '.'.join(package[:len(package) - node.level + 1]) + '.' if node.level else ''
            names = [f'{base}{node.module}'] if node.module else [f'{base}{a.name}' for a in node.names]
        for name in names:
            if name.startswith('p2net.'): yield name.split('.')[1]


@pytest.mark.parametrize('room', MAY_IMPORT)
def test_arrows_are_one_way(room):
    folder = ROOT/'p2net'/room
    for file in folder.glob('*.py') if folder.is_dir() else [folder.with_suffix('.py')]:
        wrong = set(imports(file)) - BASE - {room, *MAY_IMPORT[room]}
        assert not wrong, f"{file.relative_to(ROOT)} imports {sorted(wrong)}; {room} may import {MAY_IMPORT[room] or 'nothing of ours'}"


def threads_of_parent():
    "Threads of the process that this one was forked from."
    return len(os.listdir(f'/proc/{os.getppid()}/task'))


@pytest.mark.skipif(not Path('/proc/self/task').exists(), reason='no /proc')
def test_the_process_that_is_forked_has_one_thread():
    "OpenCV's and OpenMP's pools would leave locks taken in every fork."
    assert forked(threads_of_parent) == 1


def test_modules_of_a_room_need_each_other_in_one_direction():
    "Else an import would depend on what was imported before it."
    from graphlib import TopologicalSorter
    needs = {}
    for file in (ROOT/'p2net').rglob('*.py'):
        found = [n for n in ast.parse(file.read_text()).body if isinstance(n, ast.ImportFrom) and n.level]
        targets = [(file.parents[n.level - 1], (n.module or a.name).split('.')) for n in found for a in n.names]
        needs[file] = {path for folder, parts in targets if (path := folder.joinpath(*parts).with_suffix('.py')).exists()}
    assert sum(map(len, needs.values())) > 100 and list(TopologicalSorter(needs).static_order())      # CycleError names the modules


def test_package_imports_without_notebook_tools():
    "On a machine that trains, nbdev, fastcore, IPython and timm need not be there."
    code = ("import sys\nfor n in ('nbdev', 'fastcore', 'execnb', 'IPython', 'timm'): sys.modules[n] = None\n"
            "import importlib, pkgutil, p2net\n"
            "for m in pkgutil.walk_packages(p2net.__path__, 'p2net.'):\n"
            "    if not m.name.endswith(('_modidx', '__main__')): importlib.import_module(m.name)")
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]


def test_ruff_finds_nothing():
    done = subprocess.run([BIN/'ruff', 'check', 'p2net', 'tests', 'benchmarks', 'docs'], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout[-3000:]
