"""Settings of Sphinx for the site. `docs/build.py` prepares the pages and calls it."""
import sys
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT/'docs'))
settings = ConfigParser(delimiters=['='])
settings.read(ROOT/'settings.ini', encoding='utf-8')
settings = settings['DEFAULT']

project = settings['title']
author = settings['author']
copyright = settings['copyright']
release = settings['version']
language = 'en'

extensions = ['myst_nb', 'mathml']
html_math_renderer = 'mathml'               # no script, no network
myst_enable_extensions = ['dollarmath', 'amsmath', 'colon_fence']
myst_heading_anchors = 4
nb_execution_mode = 'off'                   # the stored outputs are checked by the tests
nb_render_markdown_format = 'myst'
nb_ipywidgets_js = {}                       # widgets are shown as stored pictures
nb_merge_streams = True
nb_code_prompt_show = 'Show {type}'
suppress_warnings = ['mystnb.unknown_mime_type']

html_theme = 'sphinx_book_theme'
html_title = project
html_static_path = [str(ROOT/'docs'/'static')]
html_css_files = ['site.css']
html_copy_source = True                     # the page's notebook, beside it
html_sourcelink_suffix = ''
html_show_sphinx = False
html_show_search_summary = False            # a page opened from the disk must not read other files
html_context = dict(default_mode='auto')     # light or dark as the reader's system has it
html_theme_options = dict(
    repository_url=settings['git_url'], repository_branch=settings['branch'], path_to_docs='nbs', use_repository_button=True, use_source_button=True,
    use_download_button=True, use_fullscreen_button=False, show_navbar_depth=1, home_page_in_toc=False, show_toc_level=2)
