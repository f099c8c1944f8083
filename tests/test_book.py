"The notebooks as a book: one order, links that lead somewhere, ids that lead to their register, plain words, definitions with tests beside them."
import ast, re, sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT/'tests'))
from literate import ID, LINK, NBS, cells, code_lines, counts, exported, notebooks, sidebar
from notebooks import notebooks as every_notebook

NAMES = sidebar()
PAGES = pytest.mark.parametrize('path', every_notebook(), ids=lambda p: p.relative_to(NBS).as_posix())
MODULES = [p for p in sorted((ROOT/'p2net').rglob('*.py')) if p.name not in ('_modidx.py', '__init__.py', '__main__.py')]


def prose(path): return [source for kind, source in cells(path) if kind == 'markdown']


def test_every_notebook_stands_once_in_the_sidebar():
    assert sorted(NAMES) == sorted(p.relative_to(NBS).as_posix()[:-6] for p in every_notebook())


@pytest.mark.parametrize('folder', sorted({n.rpartition('/')[0] for n in NAMES}))
def test_numbers_follow_the_order_without_collisions(folder):
    numbers = [int(n.rpartition('/')[2][:2]) for n in NAMES if n.rpartition('/')[0] == folder and n != 'index']
    assert numbers == sorted(set(numbers))


@PAGES
def test_it_says_what_it_needs_and_what_comes_next(path):
    if path.name == 'index.ipynb': return
    assert re.search(r'\*Needs:\*.+\*Next:\*', '\n'.join(prose(path)[:2]), re.S), 'write `*Needs:* … *Next:* …` in the first or second cell'


@PAGES
def test_links_lead_to_a_file_and_carry_the_folder(path):
    for text in prose(path):
        for label, target in LINK.findall(text):
            file = target.partition('#')[0]
            if not file or ':' in file: continue
            assert (path.parent/file).resolve().exists(), f'[{label}]({target})'
            if not re.fullmatch(r'[\w/]*\d\d_\w+', label): continue
            assert label == (path.parent/file).resolve().relative_to(NBS).as_posix()[:-6], f'[{label}]({target}) should carry the folder'


@PAGES
def test_ids_lead_to_their_register(path):
    if path.stem in ('80_choices', '85_findings'): return
    for text in prose(path):
        bare = ID.findall(re.sub(r'`[^`]*`|\$[^$]*\$|\[[^\]]*\]\([^)]*\)', '', text))
        assert not bare, f"{', '.join(bare)}: `python tests/notebooks.py links`"


@pytest.mark.parametrize('path', MODULES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_classes_are_written_whole(path):
    tree = ast.parse(path.read_text(encoding='utf-8'))
    classes = {n.name for n in tree.body if isinstance(n, ast.ClassDef)}
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        for t in [x for t in targets for x in (t.elts if isinstance(t, ast.Tuple) else [t])]:
            assert not (isinstance(t, ast.Attribute) and isinstance(t.value, ast.Name) and t.value.id in classes), f'line {node.lineno}: {ast.unparse(t)}'
        for d in getattr(node, 'decorator_list', []): assert 'patch' not in ast.unparse(d), f'line {node.lineno}'


def test_one_name_one_meaning():
    where = {}
    for path in MODULES:
        for node in ast.parse(path.read_text(encoding='utf-8')).body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith('_'): where.setdefault(node.name, []).append(path.stem)
    assert not {name: places for name, places in where.items() if len(places) > 1}


@PAGES
def test_exporting_cells_are_short(path):
    for kind, source in cells(path):
        if kind == 'code' and exported(source): assert code_lines(source) <= 40, source[:300]


def test_definitions_have_a_test_or_a_demonstration_beside_them():
    found = [counts(path) for path in notebooks()]
    assert sum(c['followed'] for c in found) >= .7*sum(c['definitions'] for c in found)


# Words of our own for what has a name in the field (what to write instead).
OURS = {r'judges?|judged': 'validation split', r'learners?': 'training split', r'planted': 'injected shift', r'throws?|thrown': 'sample',
        r'dice': 'noise', r'soft twins?': 'relaxation', r'rivals?': 'baseline', r'rungs?|ladders?': 'test-time recipe',
        r'sticks': 'normalised poses', r'forerunners?': 'dependency', r'workshop': 'work directory', r'taken apart': 'breakdown', r'worse boxes': 'perturbed boxes',
        r'knows? by heart': 'over-fits'}


@PAGES
def test_words_are_the_fields(path):
    text = '\n'.join(prose(path))
    found = {word: write for pattern, write in OURS.items() for word in re.findall(rf'(?i)\b({pattern})\b', text)}
    assert not found, f'write instead: {found}'
