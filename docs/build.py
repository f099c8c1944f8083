"""`make docs`: the notebooks as a site, in the order of nbs/sidebar.yml, with the reference of the package.

Stages the pages in _docs/source, has Sphinx write them to _docs/html, and checks every link and anchor. The stored outputs are shown; nothing is executed. Exit code 1 where Sphinx warns or a link leads nowhere."""
import importlib, inspect, os, re, shutil, sys, time
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat, yaml
from nbdev.process import extract_directives
from nbdev.showdoc import show_doc
from sphinx.cmd.build import build_main

from conf import ROOT, settings

NBS, SOURCE, HTML = ROOT/'nbs', ROOT/'_docs'/'source', ROOT/'_docs'/'html'
REPOSITORY = f"{settings['git_url']}/blob/{settings['branch']}"
LINK = re.compile(r'(?<!!)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(([^()\s]+)\)')
BADGE = re.compile(r'\[!\[[^\]]*\]\([^)]*\)\]\([^)]*\) *')
FIGURE = re.compile(r'<img src="([^"]+)"')

def sections()->dict[str, list[str]]:
    "Section of the sidebar -> its notebooks, as paths below nbs/."
    sidebar = yaml.safe_load((NBS/'sidebar.yml').read_text(encoding='utf-8'))['website']['sidebar']['contents']
    return {part['section']: part['contents'] for part in sidebar}

# ---- notebooks -------------------------------------------------------------------------------------------------------

def site_link(target:str, page:Path, folder:Path)->str: # notebook that has the link; folder of the page; both below nbs/
    "Where a link of a notebook leads on the site: notebooks to their pages, other files of the repository to their copy on GitHub."
    path, _, anchor = target.partition('#')
    if urlsplit(target).scheme or not path: return target
    file = (NBS/page.parent/path).resolve()
    if file.suffix != '.ipynb' or not file.is_relative_to(NBS): return f'{REPOSITORY}/{file.relative_to(ROOT).as_posix()}'
    return Path(os.path.relpath(file.with_suffix('.html'), NBS/folder)).as_posix() + f'#{anchor}'*bool(anchor)

def site_text(text:str, page:Path, folder:Path|None=None)->str: # folder: of the page on the site, if it is not the notebook's
    "Markdown of a notebook with the links and figures of the site, without the badges, which other hosts draw."
    text = FIGURE.sub(lambda m: f'<img src="{"../"*(len(page.parts) - 1)}figures/{Path(m[1]).name}"', BADGE.sub('', text))
    return LINK.sub(lambda m: f'<a href="{site_link(m[2], page, page.parent if folder is None else folder)}">{m[1]}</a>', text)

def described(markdown:str)->str: # at most 200 characters
    "What the text before a figure says, for readers who do not see it."
    text = re.sub(r'[#*`$>|]|\[|\]\([^)]*\)|<[^>]*>', '', markdown)
    return re.sub(r'\s+', ' ', text).strip()[:200].replace('"', "'") or 'figure'

def staged(notebook:Path)->nbformat.NotebookNode: # below nbs/
    "A notebook as the site shows it: nbdev's directives obeyed, imports and the code of results folded, results in Markdown as text."
    nb, cells, before = nbformat.read(NBS/notebook, 4), [], ''
    for cell in nb.cells:
        if cell.cell_type == 'markdown':
            before = cell.source
            cells.append(nbformat.v4.new_markdown_cell(site_text(cell.source, notebook)))
            continue
        directives = extract_directives(cell)
        if directives.keys() & {'hide', 'default_exp'}: continue
        outputs = [o for o in cell.outputs if o.output_type != 'stream' or o.text.strip()]
        for out in outputs:
            for kind in ('text/markdown', 'text/html'):
                if kind in out.get('data', {}): out.data[kind] = site_text(out.data[kind], notebook) if kind == 'text/markdown' else f'<div class="table-scroll">{out.data[kind]}</div>'
        silent = directives.get('echo:') == ['false']
        if silent and outputs and all('text/markdown' in o.get('data', {}) for o in outputs):
            cells += [nbformat.v4.new_markdown_cell(o.data['text/markdown']) for o in outputs]
            continue
        folded = notebook.parts[0] == 'results' and outputs or 'export' in directives and re.match(r'\s*(?:from|import) ', cell.source)
        tags = ['remove-input'] if silent else ['hide-input'] if folded else []
        metadata = dict(tags=tags, mystnb=dict(image=dict(alt=described(before)))) if outputs else dict(tags=tags)
        cells.append(nbformat.v4.new_code_cell(cell.source.strip('\n'), outputs=outputs, metadata=metadata))
    page = nbformat.v4.new_notebook(cells=cells, metadata=dict(kernelspec=dict(name='python3', display_name='Python 3', language='python'), language_info=dict(name='python')))
    for i, cell in enumerate(page.cells): cell.id = f'cell-{i}'
    return page

def contents(parts:dict[str, list[str]], modules:list[str])->str:
    "The hidden tables of contents that make the sidebar."
    trees = {s: [b.removesuffix('.ipynb') for b in books] for s, books in parts.items() if books != ['index.ipynb']} | {'Reference': [f'reference/{m}' for m in modules]}
    return '\n\n'.join(f'```{{toctree}}\n:hidden:\n:caption: "{s}"\n\n' + '\n'.join(pages) + '\n```' for s, pages in trees.items())

# ---- the reference ---------------------------------------------------------------------------------------------------

def public_names(module)->list:
    "Functions and classes of a module's `__all__` that are defined in it, in their order there."
    found = [getattr(module, name) for name in getattr(module, '__all__', ())]
    return [f for f in found if (inspect.isclass(f) or inspect.isfunction(f)) and f.__module__ == module.__name__]

def entry(thing, level:int)->str:
    "Signature with its remarks and description of a function or class, as nbdev shows it."
    text = show_doc(thing, title_level=level)._repr_markdown_()
    return re.sub(r'\A---\n+|^\[source\].*$', '', text, flags=re.M).strip()

def reference_page(module, notebook:Path)->str: # Markdown
    "The reference of one module: its functions, its classes and their methods."
    lines = [f'# {module.__name__}', inspect.getdoc(module) or '', f'Defined in [{notebook.with_suffix("").as_posix()}]({notebook.name}).']
    for thing in public_names(module):
        lines.append(entry(thing, 2))
        if inspect.isclass(thing):
            methods = [m for n, m in vars(thing).items() if inspect.isfunction(m) and not n.startswith('_') and inspect.getdoc(m)]
            lines += [entry(m, 3) for m in methods]
    return site_text('\n\n'.join(lines), notebook, Path('reference')) + '\n'

def module_notebooks()->dict[str, Path]: # dotted name below p2net -> notebook below nbs/
    "Which notebook exports each module."
    found = {}
    for path in sorted(NBS.rglob('*.ipynb')):
        if path.parts[-2] == '.ipynb_checkpoints': continue
        if name := re.search(r'"#\| default_exp ([\w.]+)', path.read_text(encoding='utf-8')): found[name[1]] = path.relative_to(NBS)
    return found

# ---- links -----------------------------------------------------------------------------------------------------------

class Page(HTMLParser):
    "Anchors, links and requests to other hosts of a page."
    def __init__(self, text:str):
        super().__init__()
        self.anchors, self.links, self.requests, self.bare = set(), [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.anchors |= {attributes[k] for k in ('id', 'name') if attributes.get(k)}
        if tag == 'a' and attributes.get('href'): self.links.append(attributes['href'])
        source = attributes.get('src') or (attributes.get('href') if tag == 'link' and attributes.get('rel') in ('stylesheet', 'preload') else None)
        if source: (self.requests if urlsplit(source).netloc else self.links).append(source)
        if tag == 'img' and not attributes.get('alt'): self.bare.append(source)

def link_faults(folder:Path)->list[str]:
    "Links that lead nowhere, requests to other hosts, and figures without a text in their place."
    pages = {path: Page(path.read_text(encoding='utf-8')) for path in sorted(folder.rglob('*.html')) if '_static' not in path.parts}
    faults = []
    for path, page in pages.items():
        name = path.relative_to(folder)
        faults += [f'{name}: asks another host for {r}' for r in page.requests]
        faults += [f'{name}: the image {source} has no alternative text' for source in page.bare]
        for link in dict.fromkeys(page.links):
            where = urlsplit(link)
            if where.scheme or where.netloc or link == '#': continue
            target = (path.parent/unquote(where.path)).resolve() if where.path else path
            if target.is_dir(): target /= 'index.html'
            if not target.is_file(): faults.append(f'{name}: {link} leads to no file')
            elif where.fragment and target in pages and unquote(where.fragment) not in pages[target].anchors: faults.append(f'{name}: {link} leads to no anchor')
    return faults

def main()->int:
    start, parts = time.time(), sections()
    shutil.rmtree(ROOT/'_docs', ignore_errors=True)
    books = [Path(b) for some in parts.values() for b in some]
    sources = module_notebooks()
    for book in books:
        (SOURCE/book).parent.mkdir(parents=True, exist_ok=True)
        page = staged(book)
        if book == Path('index.ipynb'): page.cells.append(nbformat.v4.new_markdown_cell(contents(parts, sorted(sources)), id='contents'))
        nbformat.write(page, SOURCE/book)
    (SOURCE/'reference').mkdir()
    for name, notebook in sources.items():
        module = importlib.import_module(f'p2net.{name}')
        (SOURCE/'reference'/f'{name}.md').write_text(reference_page(module, notebook), encoding='utf-8')
    warned = build_main(['-b', 'html', '-q', '-W', '--keep-going', '-j', str(len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else 1), '-c', str(ROOT/'docs'), '-d', str(ROOT/'_docs'/'cache'), str(SOURCE), str(HTML)])
    shutil.copytree(ROOT/'paper_results'/'figures', HTML/'figures', dirs_exist_ok=True)
    faults = link_faults(HTML)
    for fault in faults: print(fault, file=sys.stderr)
    size = sum(f.stat().st_size for f in HTML.rglob('*') if f.is_file())
    print(f"{len(books)} notebooks and {len(sources)} pages of the reference, {size/2**20:.0f} MiB, {time.time() - start:.0f} s: {HTML.relative_to(ROOT)/'index.html'}")
    if faults: print(f'{len(faults)} faults in links and images', file=sys.stderr)
    return 1 if warned or faults else 0

if __name__ == '__main__': sys.exit(main())
