"""Faults inserted one at a time in the code of Eq. 1-12, of the modules of III.B-D and of the evaluation: the notebook's own tests must catch each.

A fault is a change of the exported cell; the whole notebook is then run as nbdev_test runs it, in a process of its own.
A fault counts as caught only when a test fails (an assertion, or gradcheck's error): code that doesn't run proves nothing.
The suite inserts two in each notebook; `pytest tests/test_faults.py --all-faults` inserts them all.
"""
import json, os, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT/'tests'))
from forked import forked
from notebooks import skipped

FAULTS = {  # what it is -> notebook, the line as it is, the line with the fault
    'Eq. 1: the least likely path': ('da2/10_relaxation', 'pi.argmax(-1), pi.shape[-1]', 'pi.argmin(-1), pi.shape[-1]'),
    'Eq. 2: Gumbel noise with a wrong sign': ('da2/10_relaxation', 'return -(-u.log()).log()', 'return (-u.log()).log()'),
    'Eq. 3: unit temperature': ('da2/10_relaxation', '((log_pi + gumbel(u)) / tau).softmax(-1)', '(log_pi + gumbel(u)).softmax(-1)'),
    'Eq. 4: weights of another sub-policy': ('da2/30_policy', 'weigh(c[:, k], x), S(k)', 'weigh(c[:, k-1], x), S(k)'),
    'tied policy: the second operation left out': ('da2/30_policy', 'own[self.table].sum(-1) if self.total else', 'own[self.table][:, 0] if self.total else'),
    'averaged policy: the last step': ('da2/30_policy', '(q.mean(0) for q in (pi, pi*p', '(q[-1] for q in (pi, pi*p'),
    'uniform magnitude: always the largest': ('da2/60_controls', 'draws.m*uniform(draws.m.shape, gen).to(draws.m)', 'draws.m'),
    'blend: the gradient through the degenerate image left out': ('da2/20_operations', 'if self.degenerate: gradient.sub_(through_degenerate)', 'pass'),
    'blend: gradient zero where nothing is clamped': ('da2/20_operations', 'gradient, y, -number.tiny, 1 + number.eps', 'gradient, y, .3, .6'),
    'auto contrast: no gradient through the darkest pixel': ('da2/20_operations', 'in ((low, by_low), (high, by_high))', 'in ((high, by_high),)'),
    'warp: 8-bit levels divided by 256': ('da2/20_operations', '1/255 if image.dtype == torch.uint8 else 1', '1/256 if image.dtype == torch.uint8 else 1'),
    'Eq. 5: on and off exchanged': ('da2/10_relaxation', 'return b*augmented + (1 - b)*x', 'return (1 - b)*augmented + b*x'),
    'Eq. 6: the odds of u left out': ('da2/10_relaxation', '(logit_p + torch.logit(u) > 0).to', '(logit_p + u > 0).to'),
    'Eq. 7: tanh for sigmoid': ('da2/10_relaxation', '((logit_p + torch.logit(u)) / tau).sigmoid()', '((logit_p + torch.logit(u)) / tau).tanh()'),
    'Eq. 8: a gradient with a wrong sign': ('da2/10_relaxation', 'augmented + const*(m - m.detach())', 'augmented + const*(m.detach() - m)'),
    'Eq. 9: one inner step whatever is asked': ('da2/40_search', 'for _ in range(steps): omega = inner_step', 'for _ in range(1): omega = inner_step'),
    'Eq. 10: a step of gradient ascent': ('da2/40_search', 'return tuple(w - zeta*g for w, g in zip(omega, gradient))', 'return tuple(w + zeta*g for w, g in zip(omega, gradient))'),
    'Eq. 11: zeta left out': ('da2/40_search', 'return tuple(-zeta*g for g in torch.autograd.grad(product, d))', 'return tuple(-g for g in torch.autograd.grad(product, d))'),
    'Eq. 12: epsilon for 2 epsilon': ('da2/40_search', '(plus - minus)/(2*epsilon) for plus, minus', '(plus - minus)/epsilon for plus, minus'),
    'Eq. 12: omega+ twice': ('da2/40_search', '       for s in (1, -1))', '       for s in (1, 1))'),
    'search: weights not restored': ('da2/40_search', 'for t, c in zip(tensors, copies): t.copy_(c)', 'pass'),
    'average of v: the newest counts least': ('da2/45_extensions', '[self.ema*a + g for a, g in zip(old, gradient)]', '[a + self.ema*g for a, g in zip(old, gradient)]'),
    'projection of v: the training gradient is not averaged': ('da2/45_extensions', "self.moving_average('training', self.validation_gradient(clean_batch)[0])", 'self.validation_gradient(clean_batch)[0]'),
    'decay: away from the start': ('da2/45_extensions', 'now.lerp_(begin, fraction)', 'now.lerp_(begin, -fraction)'),
    'paired: the candidate is compared with itself, too': ('da2/45_extensions', '(h - h.mean(1, keepdim=True))*M/(M - 1)', 'h - h.mean(1, keepdim=True)'),
    'alignment: against v': ('appendix/40_estimators', 'forward_ad.make_dual(c, u)', 'forward_ad.make_dual(c, -u)'),
    'Eq. 4 with Eq. 7: on and off exchanged': ('appendix/40_estimators', 'torch.where(on, b, 1 - b).prod(-1)', 'torch.where(on, 1 - b, b).prod(-1)'),
    'Eq. 11 on a network: uphill': ('appendix/40_estimators', 'd.grad = -zeta*g', 'd.grad = zeta*g'),
    'unrolling: one step whatever T': ('appendix/40_estimators', "['lr'], self.steps)", "['lr'], 1)"),
    'parallel fusion: no ReLU after the sum': ('network/20_fusion', 'return (prepared[t] + sum(given)).relu()', 'return prepared[t] + sum(given)'),
    'parallel fusion: the own feature left out': ('network/20_fusion', 'return (prepared[t] + sum(given)).relu()', 'return sum(given).relu()'),
    'progressive fusion: from C2 to C5': ('network/20_fusion', 'zip(reversed(self.carry), reversed(features[:3]))', 'zip(self.carry, reversed(features[:3]))'),
    'dilated bottleneck: no shortcut': ('network/30_refinement', 'return (self.shortcut(x) + self.branch(x)).relu()', 'return self.branch(x).relu()'),
    'dilated bottleneck: a plain one': ('network/30_refinement', 'conv_bn(mid, mid, 3, dilation, relu=True)', 'conv_bn(mid, mid, 3, 1, relu=True)'),
    'attention: tanh for sigmoid': ('network/30_refinement', 'self.control else mean).sigmoid()', 'self.control else mean).tanh()'),
    'attention: maximum for mean': ('network/30_refinement', 'mean = x.mean((2,3), keepdim=True)', 'mean = x.amax((2,3), keepdim=True)'),
    'L2*: the easiest joints': ('network/50_losses', 'ranking.topk(k, dim=1)', 'ranking.topk(k, dim=1, largest=False)'),
    'skin: the sixteenth digit decides': ('rendering/10_body', '    vertices = np.round(vertices, 6)\n', ''),
    'heatmaps: x and y exchanged': ('people/85_heatmaps', '(column*shown)[..., :, None]*row[..., None, :]', '((column*shown)[..., :, None]*row[..., None, :]).transpose(-1, -2).reshape(*joints.shape[:2], h, w)'),
    'OKS-NMS: the less sure one stays': ('evaluation/50_nms', "np.argsort(-np.asarray(scores), kind='stable')", "np.argsort(np.asarray(scores), kind='stable')"),
    'MPII file: pixels from zero': ('evaluation/55_mpii_server', 'enumerate(joints + 1)]', 'enumerate(joints)]'),
    'errors: inversion and swap exchanged': ('evaluation/60_error_types', 'best < high], [4, 2, 3, 1], 0)', 'best < high], [4, 3, 2, 1], 0)'),
    'bootstrap: people for images': ('evaluation/70_bootstrap', 'np.unique(images, return_inverse=True)', 'np.unique(np.arange(len(images)), return_inverse=True)'),
    'AP of a draw: precision as it comes': ('evaluation/70_bootstrap', 'np.maximum.accumulate(best[:, ::-1], 1).mean(1)', 'best.mean(1)'),
    'test-time recipe: mirrored maps not mirrored back': ('evaluation/80_recipe_ablation', '(straight + unmirror(mirrored, flip_perm))/2', '(straight + mirrored)/2'),
}


def outcome(path):
    "Which error ends the notebook, and its first line; 'PASSED' where none does."
    from execnb.nbio import read_nb
    from execnb.shell import CaptureShell
    from nbdev.process import extract_directives
    os.chdir(path.parent)
    sys.path.insert(0, str(ROOT))
    nb, shell = read_nb(path), CaptureShell(path, mpl_format='png')
    for cell in nb.cells:
        if cell.cell_type == 'code': cell.directives_ = extract_directives(cell, remove=False)
        if skipped(cell): continue
        shell.cell(cell)
        if shell.exc: return f'{type(shell.exc).__name__} {str(shell.exc)[:500]}'
    return 'PASSED'


def with_fault(name, folder):
    "Path of a copy of the notebook with the fault in it."
    notebook, before, after = FAULTS[name]
    nb = json.loads((ROOT/f'nbs/{notebook}.ipynb').read_text())
    cells = [c for c in nb['cells'] if c['cell_type'] == 'code' and '#| export' in ''.join(c['source']) and before in ''.join(c['source'])]
    assert len(cells) == 1, f"{notebook}: {len(cells)} exported cells hold {before!r}; update tests/test_faults.py"
    cells[0]['source'] = ''.join(cells[0]['source']).replace(before, after).splitlines(True)
    path = Path(folder)/f"{notebook.replace('/', '_')}_{list(FAULTS).index(name)}.ipynb"
    path.write_text(json.dumps(nb))
    return path


def sample():
    "The first and the last fault of each notebook."
    of = {}
    for name, (notebook, *_) in FAULTS.items(): of.setdefault(notebook, []).append(name)
    return [name for names in of.values() for name in dict.fromkeys((names[0], names[-1]))]


def pytest_generate_tests(metafunc):
    if 'fault' in metafunc.fixturenames: metafunc.parametrize('fault', FAULTS if metafunc.config.getoption('--all-faults') else sample())


@pytest.fixture(scope='module')
def outcomes(tmp_path_factory, request):
    "The faulty notebooks of this session run, two at a time."
    folder = tmp_path_factory.mktemp('faults')
    def run(name): return forked(outcome, with_fault(name, folder))
    asked = [item.callspec.params['fault'] for item in request.session.items if item.name.startswith('test_the_notebook_catches[')]
    with ThreadPoolExecutor(2) as pool: yield {name: pool.submit(run, name) for name in asked}


def test_every_fault_has_its_place(tmp_path):
    for name in FAULTS: with_fault(name, tmp_path)


def test_the_notebook_catches(fault, outcomes):
    said = outcomes[fault].result()
    assert said.startswith(('AssertionError', 'GradcheckError')), f"{fault}: {said}"
