"""Policies that others published, and policy files as people write or break them.

Conversions are held against Pillow with the published numbers, and against torchvision's own classes by their outcomes. The property
tests change valid files at random: each is either read, and then works, or is refused in one line.
"""
import copy, json, math, random

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageOps

from p2net.compat import torchvision  # noqa: F401  before anything else of torchvision
from torchvision import transforms
from torchvision.transforms import v2

from p2net.da2 import OPERATIONS, POSE16, Draws, HandMade, Policy, RandAugment, TrivialAugment, UniformMagnitude, augment, augment_fast, load_policy
from p2net.da2.published import PUBLISHED, convert_level, lists_in_python, policy_of_lists
from p2net.errors import InputError, Tally
from samples import SHARED, needs

H, W = 24, 17


def generator(seed=0): return torch.Generator().manual_seed(seed)


def picture(seed=0):
    "Every grey level, some edges, eight bits."
    x = np.random.default_rng(seed).integers(0, 256, (H, W, 3), dtype=np.uint8)
    x[8:16, 4:12] = (20, 200, 90)
    return x


def ours(name, m, sign, high, x):
    "One of our operations on a picture in eight bits, by `augment`."
    from dataclasses import replace
    one = torch.ones(1, 1)
    draws = Draws(torch.zeros(1).long(), torch.zeros(1, 1).long(), one.bool(), m*one, sign*one, torch.zeros(1, 1, 2))
    canvas = torch.from_numpy(x).permute(2, 0, 1)[None].contiguous()
    out, _, _ = augment(canvas, torch.eye(2, 3)[None], None, None, draws, (replace(OPERATIONS[name], high=high),), (H, W))
    return (255*out[0]).round().permute(1, 2, 0).numpy()


# ---- conversions

BY_PILLOW = {'Contrast': lambda x, v: ImageEnhance.Contrast(x).enhance(v), 'Color': lambda x, v: ImageEnhance.Color(x).enhance(v),
             'Brightness': lambda x, v: ImageEnhance.Brightness(x).enhance(v), 'Sharpness': lambda x, v: ImageEnhance.Sharpness(x).enhance(v),
             'Solarize': lambda x, v: ImageOps.solarize(x, v), 'Posterize': lambda x, v: ImageOps.posterize(x, int(v)),
             'AutoContrast': lambda x, v: ImageOps.autocontrast(x), 'Invert': lambda x, v: ImageOps.invert(x),
             'Equalize': lambda x, v: ImageOps.equalize(x)}
ENDS = {'Solarize': (0, 256), 'Posterize': (4, 8)}                              # the others: factors from .1 to 1.9


@pytest.mark.situation("Fast AutoAugment's list of operations and levels", 'each operation does what Pillow does with the published numbers')
@pytest.mark.parametrize('name', list(BY_PILLOW))
def test_fast_autoaugments_levels_do_what_pillow_does_with_its_numbers(name):
    "Independent: value = low + level (high - low), Pillow's operation on it. Tables exactly, blends within a level (Pillow cuts off)."
    low, high = ENDS.get(name, (.1, 1.9))
    for level in [0., .03, .25, .5, .617, .75, .99, 1., *np.linspace(0, 1, 13)]:
        want = np.asarray(BY_PILLOW[name](Image.fromarray(picture()), low + level*(high - low))).astype(int)
        made = convert_level(name, float(level), 'fast-autoaugment')
        got = ours(made.operation, made.m, made.side or 1, made.high, picture())
        assert abs(got - want).max() <= (0 if name in ENDS or name == 'Invert' else 1), (name, level)


@pytest.mark.parametrize('level', range(11))
def test_autoaugments_whole_levels(level):
    "By hand, from AutoAugment's code: whole thresholds and bits, level/10 of the range."
    assert 256 - convert_level('Solarize', level/10, 'autoaugment').m*256 == pytest.approx(max(0, 256 - int(level*25.6) - (.5 if level else 0)))
    x = picture()
    bits = 8 - int(level*4/10)
    made = convert_level('Posterize', level/10, 'autoaugment')
    assert (ours('posterize', made.m, 1, made.high, x) == x & (256 - 2**(8 - bits))).all()
    made = convert_level('Posterize2', level/10, 'autoaugment')
    assert (ours('posterize', made.m, 1, made.high, x) == x & (256 - 2**(8 - bits + 4))).all()
    for name, most in (('ShearX', .3), ('Rotate', 30), ('TranslateX', 150/331), ('TranslateYAbs', 10/32), ('CutoutAbs', 20/32), ('Cutout', .2)):
        made = convert_level(name, level/10, 'autoaugment')
        assert made.m*made.high == pytest.approx(level/10*most) and made.side == 0
    made = convert_level('Color', level/10, 'autoaugment')
    assert 1 + made.side*made.m*made.high == pytest.approx(.1 + .18*level)


def test_torchvisions_bins_are_what_torchvision_says():
    "Its own table of magnitudes, for a picture of 331 by 662."
    space = transforms.AutoAugment()._augmentation_space(10, (331, 662))
    for name, (values, signed) in space.items():
        for b in range(10):
            made = convert_level(name, b/9, 'torchvision')
            own, value = OPERATIONS[made.operation], made.m*made.high
            assert made.side == 0 and own.signed == signed
            if not own.has_magnitude: continue
            want = values[b].item()/dict(TranslateX=662, TranslateY=331).get(name, 1)
            if name == 'Solarize': assert math.ceil(256 - value) == math.ceil(want)
            elif name == 'Posterize': assert math.floor(8 - value) == want
            else: assert value == pytest.approx(want, rel=1e-6)


FLAT = torch.tensor([30, 100, 220], dtype=torch.uint8)


def levels_of(policy, n, flat):
    "What the policy makes of n flat pictures; the uncovered part has their colour, so that geometry doesn't show."
    draws = policy.sample(n, generator(5))
    x = flat[None, :, None, None].repeat(n, 1, 4, 4)
    out, _, _ = augment(x, torch.eye(2, 3).repeat(n, 1, 1), None, None, draws, policy.operations, (4, 4), fill=(flat/255).tolist())
    return (255*out[:, :, 2, 2]).round().int().numpy()


@pytest.mark.situation("torchvision's AutoAugment policies", "the same outcomes as torchvision's class, in distribution")
@pytest.mark.parametrize('kind', list(transforms.AutoAugmentPolicy))
def test_outcomes_are_torchvisions(kind):
    "Independent: how often a flat picture takes which colour, by torchvision's own class and by the imported policy; 5 sigma each."
    theirs, n = transforms.AutoAugment(kind, fill=FLAT.tolist()), 700
    torch.manual_seed(1)
    x = FLAT[:, None, None].repeat(1, 4, 4)
    want = np.array([theirs(x)[:, 2, 2].tolist() for _ in range(n)])
    got = levels_of(load_policy(kind, say=None), 4*n, FLAT)
    colours, seen = [], 0.
    for colour in (*want, *got):                                                # two blends in a row cut off there and round here
        if all(abs(colour - other).max() > 3 for other in colours): colours.append(colour)
    for colour in colours:
        a, b = ((abs(x - colour) <= 3).all(1).mean() for x in (want, got))
        q = (a + 4*b)/5
        assert abs(a - b) <= 5*math.sqrt(q*(1 - q)*(1/n + 1/(4*n))), (colour, a, b)
        seen += a > 0
    assert seen > 5 or kind == transforms.AutoAugmentPolicy.SVHN and seen > 2


DADA = [[['Brightness', .3, .9], ['Invert', .5, .1]], [['Solarize', .6, .55], ['Brightness', .4, .2]], [['Posterize', 1., .3], ['ShearX', .7, .8]]]


@pytest.mark.situation("DADA's list of sub-policies", "the same outcomes as DADA's code, in distribution")
def test_outcomes_are_dadas():
    "Independent: the list carried out as its authors do, a uniform sub-policy, each operation with its p, on a grey level; 5 sigma each."
    def level_of(value, name, level):
        if name == 'Brightness': return min(255, int(value*(.1 + 1.8*level)))
        if name == 'Invert': return 255 - value
        if name == 'Solarize': return value if value < 256*level else 255 - value
        if name == 'Posterize': return value & (256 - 2**(8 - int(4 + 4*level)))
        return value
    rng, want, n = random.Random(2), [], 8000
    for _ in range(n):
        value = 100
        for name, p, level in rng.choice(DADA):
            if rng.random() <= p: value = level_of(value, name, level)
        want.append(value)
    want, got = np.array(want), levels_of(load_policy(DADA, say=None), n, torch.full((3,), 100, dtype=torch.uint8))[:, 0]
    for level in sorted(set(want)):
        a, b = (abs(want - level) <= 1).mean(), (abs(got - level) <= 1).mean()
        assert abs(a - b) <= 5*math.sqrt(a*(1 - a)*2/n), (level, a, b)
    assert all(abs(want - level).min() <= 1 for level in set(got))
    assert 100 not in got[got > 100] and (got > 150).any()                      # brightness .9 brightens, .2 darkens: never the other way


# ---- what is said

@pytest.mark.situation('operations without a counterpart here (SamplePairing, Flip)', 'left out of their sub-policies; one line each, counted')
def test_everything_left_out_or_guessed_is_said(capsys):
    lists = [[['SamplePairing', .5, .5], ['Rotate', .5, .9]], [['Flip', .5, .5], ['Identity', 1., 0.]], [['SamplePairing', .1, .1], ['Invert', .5, .5]]]
    policy = load_policy(lists)
    said = capsys.readouterr().out.splitlines()
    assert said == policy.notes.lines() and isinstance(policy.notes, Tally)
    counts = {reason.split(',')[0]: count for reason, count in policy.notes.counts().items()}
    assert counts['SamplePairing'] == 2 and counts['Flip'] == counts['Identity'] == 1
    assert counts['sub-policy with no operation left: its images stay unchanged'] == 1
    assert policy.notes['SamplePairing, which has no counterpart here and was left out of its sub-policy'][1] == 'sub-policy 0, operation 0'
    assert len(policy.table) == 3 and torch.allclose(policy.pi, torch.full((3,), 1/3))
    assert policy.describe() == ('pi 0.333: rotate at 8.0 (±24 degrees clockwise on the screen) with p 0.50\npi 0.333: nothing\n'
                                 'pi 0.333: invert with p 0.50')
    on = policy.sample(3000, generator())
    assert not on.on[on.k == 1].any() and on.on[on.k == 0].any() and on.on[on.k == 2].any()
    load_policy(lists, say=None)
    assert not capsys.readouterr().out


@pytest.mark.situation('published ranges that are wider than ours', 'kept as published; said')
def test_a_range_wider_than_ours_comes_along_and_is_said():
    policy = load_policy([[['CutoutAbs', 1., 10], ['TranslateX', 1., 10]]], say=None)
    assert {o.name: o.high for o in policy.operations} == dict(translate_x=150/331, cutout=.625)
    assert sum('as published (ours: ' in reason for reason in policy.notes) == 2
    assert policy.m.flatten().tolist() == [1., 1.] and OPERATIONS['cutout'].high == .2
    assert load_policy(policy.to_json()).operations == policy.operations


@pytest.mark.situation("torchvision's RandAugment and TrivialAugmentWide", 'they become the controls of these names; what differs is said')
def test_randaugment_and_trivialaugment_become_controls():
    for made, kind in ((transforms.RandAugment(2, 9), 'randaugment'), (v2.RandAugment(), 'randaugment'),
                       (transforms.TrivialAugmentWide(), 'trivialaugment'), (v2.TrivialAugmentWide(num_magnitude_bins=11), 'trivialaugment')):
        control = load_policy(made, say=None)
        assert control.kind == kind and control.notes and load_policy(control.to_json()).to_json() == control.to_json()
    assert load_policy(transforms.RandAugment(2, 9), say=None).m == .3
    for source in (v2.AugMix(), transforms.ColorJitter(), transforms.RandAugment(2, 60), transforms.RandAugment(200, 9)):
        with pytest.raises(InputError, match='^torchvision '): load_policy(source, say=None)
    assert load_policy(control) is control


@pytest.mark.situation('a Python file with the list of a policy in it (genotype.py)', 'the list is read, the file is not run')
def test_python_text_is_never_run(tmp_path):
    file = tmp_path/'archive.py'
    file.write_text(f"import os\nopen({str(tmp_path/'ran')!r}, 'w')\npolicy = [[['Rotate', 0.5, 0.5]]]\nraise SystemExit\n", encoding='utf-8')
    assert load_policy(file, say=None).describe().startswith('pi 1.000: rotate')
    assert not (tmp_path/'ran').exists()
    assert lists_in_python('a = [[[f(), .5, .5]]]\nb = [x for x in y]\nc = [[["Invert", .5, 1]]]*2', 'x.py') == {}


# ---- the cases of ../shared

SAID = {'dada-names': 'operation name of another package', 'fast-autoaugment-list': 'read as Fast AutoAugment and DADA write it',
        'levels-0-10': 'm written as a level of 0 to 10, divided by 10', 'no-kind': "file without 'kind', read as a policy",
        'no-pi': 'pi is not given: all sub-policies are equally likely', 'one-and-two': 'sub-policy with fewer operations than others',
        'text-numbers': 'number written as text', 'thirds': 'pi sums to 0.999, divided by that'}


@needs('cases/18-policy')
def test_every_case_is_read_and_said(tmp_path):
    files = sorted((SHARED/'cases/18-policy').glob('*.json'))
    assert len(files) >= 13
    for file in files:
        before = file.read_bytes()
        policy = load_policy(file, say=None)
        works(policy)
        assert file.read_bytes() == before
        assert len(policy.notes) == (file.stem in SAID) and all(reason.startswith(SAID[file.stem]) or SAID[file.stem] in reason
                                                                for reason in policy.notes), (file.stem, policy.notes)
        (tmp_path/'again.json').write_text(json.dumps(policy.to_json(), allow_nan=False), encoding='utf-8')
        assert load_policy(tmp_path/'again.json').to_json() == policy.to_json()
    p = load_policy(SHARED/'cases/18-policy/p-0-m-0-m-1.json', say=None).sample(2000, generator())
    assert not p.on[p.k == 0][:, 0].any() and p.on[p.k == 1][:, 1].all()
    never = load_policy(SHARED/'cases/18-policy/pi-zero.json', say=None)
    assert (never.sample(5000, generator()).k == 1).all()


# ---- property: changed at random, a source is read or refused in one line

def works(policy):
    "The policy samples, augments both ways, and writes a file that is JSON and reads as the same policy."
    draws = policy.sample(5, generator())
    assert draws.m.min() >= 0 and draws.m.max() <= 1 and set(draws.sign.unique().tolist()) <= {-1., 1.}
    x = torch.full((5, 3, 6, 5), 77, dtype=torch.uint8)
    out, _, _ = augment(x, torch.eye(2, 3).repeat(5, 1, 1), None, None, draws, policy.operations, (6, 5))
    assert torch.isfinite(out).all()
    augment_fast(x.permute(0, 2, 3, 1).contiguous().numpy(), np.eye(2, 3, dtype=np.float32)[None].repeat(5, 0), None, None, draws,
                 policy.operations, (6, 5))
    text = json.dumps(policy.to_json(), allow_nan=False)
    again = load_policy(json.loads(text), say=None)
    assert json.dumps(again.to_json(), allow_nan=False) == text
    for a, b in zip(draws, again.sample(5, generator())): assert torch.equal(a, b)
    if isinstance(policy, Policy):
        policy.describe(); policy.rows()
        assert all(math.isfinite(q) for q in policy.shares().values()) and math.isfinite(policy.entropy())


def read_or_refused(source):
    "True if it was read."
    try: policy = load_policy(source, say=None)
    except InputError as error:
        assert str(error) and '\n' not in str(error) and len(str(error)) < 1000, error
        return False
    works(policy)
    return True


def uneven():
    policy = Policy(['rotate', 'invert', 'solarize'])
    with torch.no_grad():
        for v in policy.parameters(): v += torch.randn(v.shape, generator=generator(1))
    return policy


HAND = dict(kind='policy', operations=[dict(name='rotate', high=45), 'Invert', dict(name='scale')], tau=.7, sub_policies=[
    dict(operations=['rotate', 'Invert'], pi=.5, p=[1, .6], m=[.5, 0]), dict(operations=['scale'], pi=.5, p=['.5'], m=[1], side=[-1])])
VALID = [uneven().to_json(), HAND, UniformMagnitude.of(uneven()).to_json(), RandAugment().to_json(), HandMade().to_json(), TrivialAugment(True).to_json(), DADA,
         [[['TranslateXAbs', .5, 7], ['SamplePairing', .5, 3]], [['Posterize2', 0, 10]], [['CutoutAbs', 1, 9], ['Equalize', .5, 2]]],
         [[['ShearY', .9, 8], ['Invert', .7, None]], [['Solarize', .6, 5], ['AutoContrast', .6, None]]],
         dict(CIFAR10=DADA, SVHN=[[['Rotate', .5, .5]]])]


def places(value, path=()):
    "Paths to every part of nested lists and objects."
    yield path
    for key, part in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else (): yield from places(part, (*path, key))


JUNK = st.one_of(st.sampled_from([None, True, False, 0, 1, -1, 2, 10, 11, .5, -0., 1e-300, 1e308, -1e308, math.inf, -math.inf, math.nan, 10**400, '', '.5',
                                  'nan', 'inf', '1e999', 'rotate', 'Rotate', 'Flip', 'cutout', 'policy', 'frozen', 'randaugment', [], {}, [[]],
                                  [[[]]], {'name': 'rotate'}, ['rotate'], ['rotate', 'rotate'], [.5], [.5, .5], [1, 1], [[.5]]]),
                 st.floats(), st.integers(-20, 20), st.text(max_size=5), *[st.floats(0, 1)]*3,
                 st.sampled_from([*OPERATIONS, *PUBLISHED])).map(copy.deepcopy)    # a list that is drawn twice must not be one list


@st.composite
def changed(draw):
    "A valid source with one to three parts replaced, removed, doubled or renamed."
    value = copy.deepcopy(draw(st.sampled_from(VALID)))
    for _ in range(draw(st.integers(1, 3))):
        *way, last = draw(st.sampled_from([path for path in places(value) if path] or [(None,)]))
        if last is None: return draw(JUNK)
        holder = value
        for key in way: holder = holder[key]
        what = draw(st.sampled_from(['replace', 'replace', 'remove', 'double', 'rename']))
        if what == 'replace': holder[last] = draw(JUNK)
        elif what == 'remove': del holder[last]
        elif isinstance(holder, list): holder.insert(last, copy.deepcopy(holder[last]))
        elif what == 'rename': holder[draw(st.sampled_from(['pi', 'm', 'logits', 'side', 'high', 'N', 'kind', 'X']))] = holder.pop(last)
    return value


@st.composite
def changed_text(draw):
    "The text of a changed source, as JSON or Python, perhaps cut, spliced or with a byte changed."
    value = draw(changed()) if draw(st.booleans()) else draw(st.sampled_from(VALID))
    try: text = json.dumps(value, indent=draw(st.sampled_from([None, 1]))) if draw(st.booleans()) else f'found = {value!r}\n'
    except (TypeError, ValueError): text = repr(value)
    raw = bytearray(text.encode('utf-8', 'surrogatepass'))
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(raw)))
        raw[at:at + draw(st.integers(0, 6))] = draw(st.sampled_from([b'', b'[', b']', b'"', b',', b'-', b'\x00', b'\xff', b'NaN', b'Infinity', b'9e999', b'\n']))
    return bytes(raw)


SETTINGS = dict(deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))


@settings(max_examples=150, **SETTINGS)
@given(changed())
def test_changed_data_is_read_or_refused_in_one_line(value):
    if isinstance(value, (dict, list)): read_or_refused(value)


@pytest.mark.situation('a policy file that is cut, or changed at random', 'read, or one line with the file')
@settings(max_examples=100, **SETTINGS)
@given(changed_text(), st.sampled_from(['policy.json', 'genotype.py', 'policy']))
def test_changed_file_is_read_or_refused_in_one_line(tmp_path_factory, raw, name):
    file = tmp_path_factory.getbasetemp()/name
    file.write_bytes(raw)
    read_or_refused(file)
    assert file.read_bytes() == raw


@pytest.mark.parametrize('text', ['[[["Rotate", 0.5, 0.5]]', 'found = [[["Rotate", 0.5, 0.5]]]\0', '('*3000, 'a = ' + '-'*100_000 + '1', '[[[5, 0.5, 0.5]]]',
                                  '[["Rotate", 0.5, 0.5]]', '[]', '', '5', 'null', '{"sub_policies": [[]]}', '[' * 100_000])
def test_text_that_is_no_policy_is_one_line(text, tmp_path):
    (file := tmp_path/'policy.py').write_text(text, encoding='utf-8')
    assert not read_or_refused(file)
    (file := tmp_path/'policy.json').write_text(text, encoding='utf-8')
    assert not read_or_refused(file)


def test_valid_sources_work():
    for value in VALID[:-1]: assert read_or_refused(value)
    assert not read_or_refused(VALID[-1])                                       # two policies, and no name
    works(load_policy(VALID[-1], 'SVHN', say=None))
    works(load_policy(Policy(POSE16).to_json()))
    assert policy_of_lists(DADA).notes and set(PUBLISHED) > {'ShearX', 'Posterize2'}
