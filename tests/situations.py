"""Writes tests/README.md: which situations of a user the tests know, and what the user sees in each.

A test says so with `@pytest.mark.situation(has, sees)`, a case of a parametrised test with `pytest.param(..., marks=pytest.mark.situation(has, sees))`.
`theme=` names the group; without it the test's file does (HOME). `python tests/situations.py` writes the table, `python tests/situations.py check`
fails where it is out of date."""
import contextlib, io, os, re, sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT/'tests'/'README.md'
THEMES = ('Annotation files', 'Detection files', 'Folders', 'Photographs', 'Videos', 'MATLAB files', 'Policies', 'Settings',
          'Checkpoints and records', 'Interruptions')
HOME = { # file of tests -> theme of its situations
    'test_da2_published.py': 'Policies', 'test_da2_policy.py': 'Policies', 'test_da2_libraries.py': 'Policies', 'test_mpii_lsp.py': 'MATLAB files',
    'test_photographs.py': 'Photographs', 'test_predict.py': 'Photographs', 'test_doctor.py': 'Annotation files',
    'test_user_files.py': 'Annotation files', 'test_people_loaders.py': 'Annotation files', 'test_evaluation_ap.py': 'Annotation files',
    'test_cli.py': 'Settings', 'test_resume.py': 'Interruptions', 'test_kill.py': 'Interruptions'}
HEAD = """# What users bring, and what they see

Each row is a situation of a user and a test that reproduces it. Situations come from public bug reports of this field and from faults that were
found in this package. The table is generated from the tests by `python tests/situations.py` (also by `make export`): change the marks of the tests,
not this file.

{rows} situations. A test runs by its name: `pytest tests/FILE.py -k NAME`.
"""


class Marked:
    "A plugin of pytest that keeps the situations of all tests that were collected."
    def pytest_collection_finish(self, session):
        self.found = [row(item, mark) for item in session.items for mark in reversed([*item.iter_markers('situation')])]


def row(item, mark): # theme, has, sees, test
    "A mark as a row of the table. ValueError for one that can't be a row."
    has, sees, theme = (lambda has, sees, theme=None: (has, sees, theme))(*mark.args, **mark.kwargs)
    theme = theme or HOME.get(item.path.name)
    if theme not in THEMES: raise ValueError(f"{item.nodeid}: theme {theme!r} of its situation: one of {', '.join(THEMES)}")
    for text in (has, sees):
        if not text.strip() or '\n' in text: raise ValueError(f"{item.nodeid}: a situation is two texts of one line, got {text!r}")
    of_case = hasattr(item, 'callspec') and mark in item.callspec.marks      # else of the test, all its cases
    return theme, has.strip(), sees.strip(), item.nodeid.removeprefix('tests/') if of_case else item.nodeid.removeprefix('tests/').partition('[')[0]


def collected():
    "Rows of all tests of this folder, in their order. RuntimeError with pytest's words where it can't collect them."
    plugin, said = Marked(), io.StringIO()
    files = [str(f.relative_to(ROOT)) for f in sorted((ROOT/'tests').glob('test_*.py')) if 'situation(' in f.read_text(encoding='utf-8')]
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said), contextlib.chdir(ROOT) if hasattr(contextlib, 'chdir') else in_root():
        code = pytest.main(['--collect-only', '--quiet', '--capture=no', '-p', 'no:cacheprovider', *files], plugins=[plugin])
    if code != pytest.ExitCode.OK: raise RuntimeError(said.getvalue()[-3000:])
    return plugin.found


@contextlib.contextmanager
def in_root():
    "contextlib.chdir for Python 3.10."
    before = os.getcwd()
    os.chdir(ROOT)
    try: yield
    finally: os.chdir(before)


def cell(text):
    "A text inside a table of Markdown; what stands between backticks stays as it is."
    parts = text.replace('|', '\\|').split('`')
    return '`'.join(re.sub(r'([*_<\\])(?!\|)', r'\\\1', part) if n % 2 == 0 else part for n, part in enumerate(parts))


def table(rows):
    "The page: a table for each theme; tests of one situation share its row."
    tests = {}
    for theme, has, sees, test in rows: tests.setdefault((theme, has, sees), []).append(test)
    page = [HEAD.format(rows=len(tests))]
    for theme in THEMES:
        here = {key[1:]: names for key, names in tests.items() if key[0] == theme}
        if not here: continue
        page += [f'## {theme}\n', '| the user has | the user sees | test |', '|---|---|---|']
        page += [f"| {cell(has)} | {cell(sees)} | {', '.join(map(link, dict.fromkeys(names)))} |" for (has, sees), names in here.items()] + ['']
    return '\n'.join(page).rstrip() + '\n'


def link(test):
    "A test as a link to its file; a long name of its case is left out."
    file, _, name = test.partition('::')
    name = name if len(name.partition('[')[2]) < 40 and '`' not in name else name.partition('[')[0]
    return f"[`{file.removesuffix('.py')}::{name}`]({file})".replace('|', '\\|')


def page():
    "What tests/README.md has to be."
    return table(collected())


def main(words):
    if words not in ([], ['check']): sys.exit(__doc__)
    wanted = page()
    if not words: return TABLE.write_text(wanted, encoding='utf-8')
    if not TABLE.is_file() or TABLE.read_text(encoding='utf-8') != wanted: sys.exit(f'{TABLE.relative_to(ROOT)} is out of date; run python tests/situations.py')


if __name__ == '__main__': main(sys.argv[1:])
