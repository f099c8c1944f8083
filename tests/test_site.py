"""The site of `make docs`: how pages are made from notebooks, and, where it was built and a browser is there, what a reader meets.

Browser tests read `_docs/html` from the disk; they are skipped without it, without Playwright, or without a Chromium."""
import re, shutil, sys
from pathlib import Path

import nbformat, pytest

ROOT = Path(__file__).resolve().parents[1]
HTML = ROOT/'_docs'/'html'
sys.path.insert(0, str(ROOT/'docs'))
for package in ('sphinx', 'myst_nb', 'latex2mathml'): pytest.importorskip(package)
import build, mathml
from notebooks import notebooks

PAGES = ('index.html', 'da2/10_relaxation.html', 'da2/40_search.html', 'network/20_fusion.html', 'results/40_table_4.html', 'results/45_scarce_people.html',
         'appendix/80_choices.html', 'reference/da2.search.html', 'search.html')


# ---- from notebooks to pages ------------------------------------------------------------------------------------------

def test_every_equation_has_mathml():
    found = re.compile(r'\$\$(.+?)\$\$|(?<![\\$])\$([^$\n]+?)\$', re.S)
    equations = [m for path in notebooks() for c in nbformat.read(path, 4).cells if c.cell_type == 'markdown' for m in found.finditer(c.source)]
    assert len(equations) > 300
    for m in equations: assert '</math>' in mathml.to_mathml(mathml.TAG.sub('', m[1] or m[2]), 'block' if m[1] else 'inline')


def test_an_equation_that_the_converter_cannot_read_is_refused():
    with pytest.raises(ValueError, match=r'\\nosuch in the equation'): mathml.to_mathml(r'x + \nosuch')


def test_links_of_a_notebook():
    page = Path('da2/40_search.ipynb')
    assert build.site_link('../network/20_fusion.ipynb#ideas', page, page.parent) == '../network/20_fusion.html#ideas'
    assert build.site_link('45_extensions.ipynb', page, Path('reference')) == '../da2/45_extensions.html'
    assert build.site_link('../../LICENSE', page, page.parent) == f'{build.REPOSITORY}/LICENSE'
    assert build.site_link('https://a.org/b.ipynb', page, page.parent) == 'https://a.org/b.ipynb'
    assert build.site_text('[![b](https://img.shields.io/x)](../LICENSE) see [`a`](45_extensions.ipynb)', page) == 'see <a href="45_extensions.html">`a`</a>'


def test_directives_are_obeyed(tmp_path, monkeypatch):
    code, text = nbformat.v4.new_code_cell, nbformat.v4.new_markdown_cell
    output = [nbformat.v4.new_output('display_data', {'text/markdown': 'a result, [link](b.ipynb)'})]
    picture = [nbformat.v4.new_output('display_data', {'image/png': ''})]
    cells = [text('# Title'), code('#| default_exp x'), code('#| hide\nsecret = 1'), code('#| export\nimport os'), code('#| export\ndef f(): pass'),
             code('#| echo: false\nprint()', outputs=output), text('Two **curves**.'), code('plot()', outputs=picture)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path/'a.ipynb')
    monkeypatch.setattr(build, 'NBS', tmp_path)
    shown = build.staged(Path('a.ipynb')).cells
    assert [c.source for c in shown] == ['# Title', 'import os', 'def f(): pass', 'a result, <a href="b.html">link</a>', 'Two **curves**.', 'plot()']
    assert [c.metadata.get('tags') for c in shown if c.cell_type == 'code'] == [['hide-input'], [], []]
    assert shown[-1].metadata.mystnb.image.alt == 'Two curves.'


def test_link_faults_are_found(tmp_path):
    (tmp_path/'b.html').write_text('<h1 id="there">b</h1>')
    good = '<a href="b.html#there">b</a><a href="https://a.org/x">x</a><img src="p.png" alt="p"><a href="#">top</a>'
    (tmp_path/'p.png').write_bytes(b'')
    (tmp_path/'a.html').write_text(good)
    assert build.link_faults(tmp_path) == []
    (tmp_path/'a.html').write_text(good + '<a href="c.html">c</a><a href="b.html#gone">b</a><img src="p.png"><script src="https://a.org/x.js"></script>')
    assert build.link_faults(tmp_path) == ['a.html: asks another host for https://a.org/x.js', 'a.html: the image p.png has no alternative text',
                                           'a.html: c.html leads to no file', 'a.html: b.html#gone leads to no anchor']


# ---- in a browser ------------------------------------------------------------------------------------------------------

@pytest.fixture(scope='module')
def browser():
    sync_api = pytest.importorskip('playwright.sync_api')
    with sync_api.sync_playwright() as p:
        own = Path(p.chromium.executable_path)
        path = own if own.exists() else next((b for b in map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome')) if b), None)
        if path is None: pytest.skip('there is no Chromium')
        running = p.chromium.launch(executable_path=path, args=['--no-sandbox'])
        yield running
        running.close()


@pytest.fixture
def page(browser):
    "A new window; `problems` collects console errors, and requests to other hosts than the disk."
    context = browser.new_context(viewport=dict(width=1300, height=900))
    page = context.new_page()
    page.problems = []
    page.on('console', lambda m: m.type == 'error' and page.problems.append(m.text))
    page.on('pageerror', lambda e: page.problems.append(str(e)))
    page.on('request', lambda r: r.url.startswith(('file:', 'data:')) or page.problems.append(r.url))
    yield page
    context.close()


@pytest.fixture
def site():
    if not (HTML/'index.html').is_file(): pytest.skip('no site: make docs')
    return HTML.as_uri()


@pytest.mark.parametrize('name', PAGES)
def test_a_page_opens_from_the_disk(page, site, name):
    page.goto(f'{site}/{name}')
    page.wait_for_load_state('networkidle')
    assert page.problems == [] and page.locator('h1').count() >= 1
    assert page.evaluate('document.documentElement.scrollWidth <= window.innerWidth + 1'), 'the page is wider than the window'


@pytest.mark.parametrize('name', PAGES[:-1])
def test_a_page_fits_a_telephone(browser, site, name):
    context = browser.new_context(viewport=dict(width=390, height=844))
    page = context.new_page()
    page.goto(f'{site}/{name}')
    assert page.evaluate('document.documentElement.scrollWidth <= window.innerWidth + 1'), 'the page is wider than the window'
    context.close()


def test_search_finds_a_word(page, site):
    page.goto(f'{site}/search.html?q=Gumbel')
    page.wait_for_selector('#search-results li a[href="da2/10_relaxation.html"]')
    assert page.problems == []


def test_light_and_dark(browser, site):
    colours = set()
    for scheme in ('light', 'dark'):
        context = browser.new_context(color_scheme=scheme)
        page = context.new_page()
        page.goto(f'{site}/da2/10_relaxation.html')
        colours.add((page.evaluate('getComputedStyle(document.body).backgroundColor'), page.evaluate('getComputedStyle(document.querySelector("math")).color')))
        context.close()
    assert len({ground for ground, _ in colours}) == 2 and len({ink for _, ink in colours}) == 2


def test_by_keyboard(page, site):
    page.goto(f'{site}/index.html')
    page.keyboard.press('Tab')
    assert 'Skip to main content' in page.evaluate('document.activeElement.textContent')
    reached = []
    for _ in range(40):
        page.keyboard.press('Tab')
        reached.append(page.evaluate('document.activeElement.getAttribute("href") || ""'))
    assert any(link.startswith('da2/') for link in reached)


def test_by_clicks_from_the_landing_page(page, site):
    page.goto(f'{site}/index.html')
    page.locator('nav.bd-links a:visible', has_text='Bi-level search').first.click()
    page.locator('a:visible', has_text='Equation 12').first.click()
    assert page.url.endswith('da2/40_search.html#equation-12-a-finite-difference') and page.locator('h2', has_text='Equation 12').is_visible()
    page.locator('nav.bd-links a:visible', has_text='Table IV').first.click()
    page.wait_for_url('**/results/40_table_4.html')
    assert page.problems == []
