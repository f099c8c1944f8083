"""A Sphinx extension: equations as MathML, which browsers draw themselves, without a script and without a network."""
import re
from html import escape

from docutils import nodes
from latex2mathml.converter import convert

TAG = re.compile(r'\\tag\{([^{}]*)\}')
SIZES = re.compile(r'\\(?:Bigl|Bigr|bigl|bigr|Big|big)(?![a-zA-Z])')
OTHERS = {r'\lVert': r'\Vert', r'\rVert': r'\Vert', r'\lvert': r'\vert', r'\rvert': r'\vert', r'\arg': r'\operatorname{arg}'}

def to_mathml(latex:str, display:str='inline')->str:
    "An equation as MathML; sizes of brackets are left to the browser. ValueError where the converter leaves a command unread."
    latex = SIZES.sub('', latex)
    for command, other in OTHERS.items(): latex = re.sub(re.escape(command) + '(?![a-zA-Z])', lambda m: other, latex)
    out = convert(latex.strip(), display=display)
    if unread := re.search(r'\\[a-zA-Z]+', re.sub('<[^>]*>', '', out)): raise ValueError(f'{unread[0]} in the equation {latex!r} has no MathML')
    return out.replace('<math ', f'<math aria-label="{escape(latex.strip(), quote=True)}" ', 1)

def visit_inline(self, node):
    self.body.append(to_mathml(node.astext()))
    raise nodes.SkipNode

def visit_block(self, node):
    latex = node.astext()
    number = ''.join(f'<span class="number">({t})</span>' for t in TAG.findall(latex))
    self.body.append(f'<div class="equation">{to_mathml(TAG.sub("", latex), "block")}{number}</div>\n')
    raise nodes.SkipNode

def setup(app):
    app.add_html_math_renderer('mathml', (visit_inline, None), (visit_block, None))
    return dict(version='1', parallel_read_safe=True, parallel_write_safe=True)
