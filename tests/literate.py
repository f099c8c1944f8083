"""How the notebooks read, counted.

    python tests/literate.py        a table: words of prose a code line, definitions that a test or demonstration follows, longest exporting cell
"""
import ast, json, re, sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NBS = ROOT/'nbs'
LINK = re.compile(r'\[([^\]\[]*)\]\(([^)\s]+)\)')
ID = re.compile(r'(?<![\w\[-])([CE]-\d{2,3})(?![\w-])')


def notebooks():
    "Paths of all notebooks, in the order of the sidebar."
    return [NBS/f'{name}.ipynb' for name in sidebar()]


def sidebar():
    "Names of the notebooks as nbs/sidebar.yml lists them, without ending."
    return re.findall(r'- (\S+)\.ipynb', (NBS/'sidebar.yml').read_text(encoding='utf-8'))


def cells(path):
    "(kind, source) of each cell."
    return [(c['cell_type'], ''.join(c['source'])) for c in json.loads(path.read_text(encoding='utf-8'))['cells']]


def exported(source): return re.match(r'\s*#\|\s*exports?\b', source) is not None


def code_lines(source): return sum(bool(line.strip()) and not line.lstrip().startswith('#|') for line in source.splitlines())


def definitions(source):
    "Names of the functions and classes that an exporting cell defines at its top level."
    tree = ast.parse(re.sub(r'(?m)^#\|.*$', '', source))
    return [n.name for n in tree.body if isinstance(n, (ast.FunctionDef, ast.ClassDef))]


def counts(path):
    "words, code lines, definitions, those in a cell that a test or demonstration follows before the next exporting cell, longest exporting cell."
    every = cells(path)
    words = sum(len(s.split()) for k, s in every if k == 'markdown')
    code = sum(code_lines(s) for k, s in every if k == 'code')
    total = followed = longest = 0
    for i, (kind, source) in enumerate(every):
        if kind != 'code' or not exported(source): continue
        longest = max(longest, code_lines(source))
        names, rest = definitions(source), every[i+1:]
        until = next((n for n, (k, s) in enumerate(rest) if k == 'code' and exported(s)), len(rest))
        shown = any(k == 'code' and not re.match(r'\s*#\|\s*hide', s) for k, s in rest[:until])
        total += len(names); followed += len(names)*shown
    return dict(words=words, code=code, definitions=total, followed=followed, longest=longest)


def main():
    rows = {p.relative_to(NBS).as_posix()[:-6]: counts(p) for p in notebooks()}
    for name, c in rows.items():
        print(f"{name:36}{c['words']/max(c['code'], 1):6.1f} words a line{c['followed']:5} of {c['definitions']:3} followed{c['longest']:5} lines at most")
    total = {k: sum(c[k] for c in rows.values()) for k in ('words', 'code', 'definitions', 'followed')}
    print(f"{len(rows)} notebooks, {total['words']} words, {total['words']/total['code']:.2f} a code line, "
          f"{total['followed']/total['definitions']:.0%} of {total['definitions']} definitions followed by a test or demonstration")


if __name__ == '__main__': sys.exit(main())
