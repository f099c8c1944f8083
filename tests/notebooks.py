"""Runs notebooks as a reader would and keeps what they print.

    python tests/notebooks.py run  [NOTEBOOK ...]   execute, store the outputs, clean
    python tests/notebooks.py check [NOTEBOOK ...]  execute, compare the text of the outputs with the stored one: words exactly, numbers up to rounding
    python tests/notebooks.py readme                write README.md from nbs/index.ipynb
    python tests/notebooks.py links [NOTEBOOK ...]  make every id of a choice (C-30) or finding (E-02) in the prose a link to its register

`nbdev_test` never writes a notebook and `jupyter nbconvert --execute` runs cells marked `eval: false`, so this is the one
way by which outputs get into the repository.
"""
import argparse, contextlib, html, json, os, re, sys, time
from pathlib import Path

os.environ.update(TQDM_DISABLE='1', IN_TEST='1', PYTHONHASHSEED='0')
os.environ.setdefault('OMP_NUM_THREADS', '1')  # notebooks run side by side

ROOT = Path(__file__).resolve().parents[1]
NBS = ROOT/'nbs'
SKIP_FLAGS = {'slow', 'cuda'}


def notebooks(names=()):
    "Paths of the notebooks named (file or stem), or of all."
    every = sorted(p for p in NBS.rglob('*.ipynb') if not any(part.startswith(('.', '_')) for part in p.relative_to(NBS).parts))
    if not names: return every
    found = [p for n in names for p in every if Path(n).stem == p.stem or Path(n).resolve() == p]
    missing = [n for n in names if not any(Path(n).stem == p.stem or Path(n).resolve() == p for p in every)]
    if missing: sys.exit(f"no notebook named {missing[0]!r} under nbs/")
    return found


def skipped(cell):
    "nbdev_test's rule: neither prose, nor `eval: false`, nor cells under a flag of SKIP_FLAGS."
    if cell.cell_type != 'code' or 'nbdev_export(' in cell.source: return True
    directives = getattr(cell, 'directives_', None) or {}
    if directives.get('eval:', [''])[0].lower() == 'false': return True
    return bool(SKIP_FLAGS & directives.keys())


def test_cells(path):
    "How many cells of `path` that nbdev_test runs hold a test."
    from execnb.nbio import read_nb
    from nbdev.process import extract_directives
    count = 0
    for cell in read_nb(path).cells:
        if cell.cell_type == 'code': cell.directives_ = extract_directives(cell, remove=False)
        if not skipped(cell) and 'export' not in cell.directives_: count += bool(re.search(r'^\s*(assert |test_\w+\()', cell.source, re.M))
    return count


def execute(path):
    "The notebook with fresh outputs, and the seconds it took. A cell that raises ends the program with its traceback."
    from execnb.nbio import read_nb
    from execnb.shell import CaptureShell
    from nbdev.process import extract_directives
    nb = read_nb(path)
    for cell in nb.cells:
        if cell.cell_type == 'code': cell.directives_ = extract_directives(cell, remove=False)
    sys.path.insert(0, str(ROOT))
    shell = CaptureShell(path, mpl_format='png')
    start = time.time()
    with contextlib.chdir(path.parent) if hasattr(contextlib, 'chdir') else _chdir(path.parent):
        shell.run_cell("%config InlineBackend.print_figure_kwargs = {'metadata': {'Software': None}, 'bbox_inches': 'tight'}")
        for cell in nb.cells:
            if cell.cell_type != 'code': continue
            cell.outputs = []
            if skipped(cell): continue
            shell.cell(cell)
            if shell.exc:
                sys.exit(f"{path.relative_to(ROOT)}: this cell failed\n{cell.source}\n\n{shell.prettytb(fname=path)}")
    for cell in nb.cells:
        if hasattr(cell, 'directives_'): del cell['directives_']
    return nb, time.time() - start


@contextlib.contextmanager
def _chdir(folder):
    "contextlib.chdir for Python 3.10."
    before = os.getcwd()
    os.chdir(folder)
    try: yield
    finally: os.chdir(before)


def sources(path):
    "The cells of a notebook without their outputs."
    return [(c['cell_type'], c['source']) for c in json.loads(path.read_text(encoding='utf-8'))['cells']]


def run(path):
    "Execute `path`, store its outputs and clean it."
    from execnb.nbio import write_nb
    from nbdev.clean import clean_nb
    before = sources(path)
    nb, seconds = execute(path)
    if sources(path) != before: sys.exit(f"{path.relative_to(ROOT)}: changed while it ran; run it again")
    clean_nb(nb, allowed_metadata_keys=[], allowed_cell_metadata_keys=[], clean_ids=True)
    nb['metadata'] = dict(kernelspec=dict(display_name='python3', language='python', name='python3'))
    write_nb(nb, path)
    print(f"{path.relative_to(ROOT)}: {seconds:.1f} s")


def text_of(cell):
    "What a reader sees as text in the outputs of a cell, addresses and timings out."
    parts = []
    for out in cell.get('outputs', []):
        data = out.get('data', {})
        text = out.get('text') or data.get('text/markdown') or table_text(data.get('text/html', '')) or data.get('text/plain') or ''
        parts.append(text if isinstance(text, str) else ''.join(text))
    return re.sub(r'<([\w.]+)( object)? at 0x[0-9a-f]+>', r'<\1>', ''.join(parts)).replace('<object object>', '').strip()


def table_text(page):
    "The words of a table in HTML, all its columns: pandas' plain text leaves out as many as its version sees fit. '' where there is no table."
    page = page if isinstance(page, str) else ''.join(page)
    return html.unescape(re.sub(r'<style.*?</style>|<[^>]+>', ' ', page, flags=re.S)) if '<table' in page else ''


NUMBER = re.compile(r'(?<![\w.@])[-+−]?\d+(?:\.\d+)?(?:e[-+]\d+)?(?!\d|\.\d)')  # not in a name (PCK@0.2) or a version


def same_number(a, b):
    """Whether two printed numbers may come from one program on two processors: a whole number is the same one; others differ
    by at most one unit in the last digit printed (of the finer one), which is what rounding can do, or by 0.1 %, since sums in
    another order, and training more so, move more digits than a long print hides."""
    if a == b: return True
    x, y = (float(t.replace('−', '-')) for t in (a, b))
    if not all('.' in t or 'e' in t for t in (a, b)): return x == y == 0                    # 0 and -0
    return abs(x - y) <= max(1.001*min(map(last_digit, (a, b))), 1e-3*max(abs(x), abs(y)))


def last_digit(number):
    "One unit in the last digit of a printed number: '1.50' -> 0.01, '3e-05' -> 1e-05."
    mantissa, _, exponent = number.partition('e')
    return 10.**(int(exponent or 0) - len(mantissa.partition('.')[2]))


def same_text(stored, fresh):
    "Whether two outputs say the same: all text but the numbers equal, blanks aside (a number's width moves them), and each number by `same_number`."
    words = [re.sub(r'\s+', ' ', NUMBER.sub('#', t)) for t in (stored, fresh)]
    numbers = [NUMBER.findall(t) for t in (stored, fresh)]
    return words[0] == words[1] and len(numbers[0]) == len(numbers[1]) and all(map(same_number, *numbers))


def check(path):
    "Names of the cells of `path` that say something else when it is run again (`same_text`)."
    from execnb.nbio import read_nb
    from nbdev.clean import clean_nb
    stored = read_nb(path)
    fresh, _ = execute(path)
    clean_nb(fresh, allowed_metadata_keys=[], allowed_cell_metadata_keys=[], clean_ids=True)
    return [c.get('id', i) for i, (c, d) in enumerate(zip(stored.cells, fresh.cells))
            if c.cell_type == 'code' and not same_text(text_of(c), text_of(d))]


def complaint(path):
    "What `check` has against `path`, or the cell that failed; '' where nothing."
    try: cells = check(path)
    except SystemExit as failed: return str(failed)
    return '\n'.join(f"{path.relative_to(ROOT)}: cell {c} prints something else than what is stored" for c in cells)


def readme():
    "README.md from nbs/index.ipynb: prose as it is, code fenced, printed text and tables below; links leave nbs/."
    from execnb.nbio import read_nb
    from nbdev.process import extract_directives
    parts = []
    for cell in read_nb(NBS/'index.ipynb').cells:
        if cell.cell_type == 'markdown':
            parts.append(cell.source)
            continue
        directives = extract_directives(cell, remove=True)
        if 'hide' in directives: continue
        if directives.get('echo:', [''])[0] != 'false': parts.append(f"```python\n{cell.source.strip()}\n```")
        for out in cell.get('outputs', []):
            data = out.get('data', {})
            if 'text/markdown' in data: parts.append(''.join(data['text/markdown']))
            elif text := ''.join(out.get('text') or data.get('text/plain') or ''): parts.append(f"```text\n{text.rstrip()}\n```")
    text = '\n\n'.join(p.strip() for p in parts) + '\n'
    outside = lambda m: f'{m[1]}{m[2][3:]}' if m[2].startswith('../') else m[0] if re.match(r'https?:|#|/', m[2]) else f'{m[1]}nbs/{m[2]}'
    return re.sub(r'(\]\(|src=")([^)"]+)', outside, text)


REGISTERS = {'C': 'appendix/80_choices', 'E': 'appendix/85_findings'}


def with_links(text, path):
    "Prose in which each id of a choice or finding links to its row."
    def link(match): return f"[{match[1]}]({os.path.relpath(NBS/REGISTERS[match[1][0]], path.parent).replace(os.sep, '/')}.ipynb#{match[1].lower()})"
    text = re.sub(r'`([CE]-\d{2,3})`', r'\1', text)
    parts = re.split(r'(`[^`]*`|\$\$.*?\$\$|\$[^$]*\$|\[[^\]]*\]\([^)]*\))', text, flags=re.S)
    return ''.join(part if i % 2 else re.sub(r'(?<![\w\[-])([CE]-\d{2,3})(?![\w-])', link, part) for i, part in enumerate(parts))


def links(path):
    "Write the links of one notebook."
    if path.stem in ('80_choices', '85_findings'): return
    book = json.loads(path.read_text(encoding='utf-8'))
    for c in book['cells']:
        if c['cell_type'] == 'markdown': c['source'] = with_links(''.join(c['source']), path).splitlines(True)
    text = json.dumps(book, indent=1, ensure_ascii=False) + '\n'
    if text != path.read_text(encoding='utf-8'): path.write_text(text, encoding='utf-8')


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('command', choices=['run', 'check', 'readme', 'links'])
    parser.add_argument('notebook', nargs='*')
    args = parser.parse_args()
    if args.command == 'links': return [links(path) for path in notebooks(args.notebook)] and None
    if args.command == 'readme': return (ROOT/'README.md').write_text(readme(), encoding='utf-8')
    bad = [said for path in notebooks(args.notebook) if (said := run(path) if args.command == 'run' else complaint(path))]
    if bad: sys.exit('\n'.join(bad))


if __name__ == '__main__': main()
