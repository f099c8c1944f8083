"""Properties of what users can bring, a few hundred examples of each session; `python tests/properties.py --examples 10000` takes more.

Valid annotation files, detection files, skeletons, settings, folders, photographs, records and checkpoints are changed at random: every command
works or ends in one line, its input stays as it was, and AP is that of pycocotools on the user's own file."""

import sys

import pytest
from hypothesis import given, settings

from p2net.errors import InputError
import properties
from properties import PROPERTIES, QUIET, Case, Place, as_json, check_line, contents, encoded, findings, fresh_examples, people_or_line, unchanged, worked_or_line


@pytest.fixture(scope='session')
def place(tmp_path_factory): return Place(tmp_path_factory.mktemp('properties'))


@pytest.mark.parametrize('name', [name for name, prop in PROPERTIES.items() if prop.few])
def test_property(place, name):
    prop = PROPERTIES[name]

    @settings(max_examples=prop.few, derandomize=True, **QUIET)
    @given(prop.cases(place))
    def holds(case): prop.check(place, case)
    with fresh_examples(): holds()


def as_it_is(place):
    "For each property the case without a change."
    same, boxes = Case('people'), Case('boxes', {'boxes.json': encoded(as_json, place.boxes)})
    return dict(readers=same, parts=same, doctor=(boxes, same), train=same, ap=same, experiments=('mean-pose', same), evaluate=(boxes, same), boxes=(boxes, None), **{'ap in boxes': (boxes, same)}, detected=(boxes, None), predict=(None, same, False),
                settings=(encoded(properties.as_yaml, properties.CONFIG), []), runs=(Case('runs'), 'resume'))


@pytest.mark.parametrize('name', [name for name, prop in PROPERTIES.items() if prop.few])
def test_unchanged_input_works(place, name):
    "Otherwise the properties would say nothing."
    assert PROPERTIES[name].check(place, as_it_is(place)[name]) == ('worked, AP equal' if name.startswith('ap') else 'worked')


# ---- the checks themselves can fail

def test_a_call_that_neither_works_nor_says_why():
    for error in (KeyError('id'), ValueError('no line for users'), TypeError('x')):
        def call(): raise error
        with pytest.raises((KeyError, ValueError, TypeError, AssertionError)): people_or_line(call)
    def long():
        error = InputError('is missing')
        error.args = ('x'*2000,)                            # longer than `InputError` itself makes it
        raise error
    with pytest.raises(AssertionError): people_or_line(long)
    def good(): raise InputError('is missing', 'write it', 'a.json', 'row 3', 'bbox')
    assert people_or_line(good) == 'one line' and people_or_line(lambda: None) == 'worked'
    for line in ('', 'a\nb', 'a\x1b[31m'):
        with pytest.raises(AssertionError): check_line(line)


def test_an_input_that_changes(tmp_path):
    (tmp_path/'a').write_text('x')
    for change in (lambda: (tmp_path/'a').write_text('y'), lambda: (tmp_path/'b').mkdir(), lambda: (tmp_path/'a').unlink()):
        with pytest.raises(AssertionError, match='changed'):
            with unchanged(tmp_path): change()
    with unchanged(tmp_path): contents(tmp_path)


@pytest.mark.parametrize('ends', [lambda args: print('hello', file=sys.stderr), lambda args: 1/0, lambda args: 3, lambda args: {}['a']])
def test_a_command_that_fails(tmp_path, monkeypatch, ends):
    monkeypatch.setattr('p2net.cli.check_folder', ends)
    with pytest.raises(AssertionError): worked_or_line(['doctor', tmp_path], tmp_path)


def test_a_call_that_hangs():
    with pytest.raises(properties.TookTooLong):
        with properties.limit(.05):
            while True: pass


def test_another_ap_is_seen(place, monkeypatch):
    "A reader that gave every person another area would be found."
    area = properties.average_precision
    monkeypatch.setattr(properties, 'average_precision', lambda pack, guess: {k: v + 1e-4 for k, v in area(pack, guess).items()})
    with pytest.raises(AssertionError, match='pycocotools'): properties.check_ap(place, Case('people'))


def test_ap_of_the_valid_folder_could_differ(place, tmp_path):
    "The number that the AP property compares is neither 0 nor 1."
    from p2net.people.folder import find_people
    from p2net.runs.data import pack_people
    found = find_people(place.people)
    pack = pack_people(found.val(), found.skeleton, properties.data_of(place.people), tmp_path, progress=False)
    ap = properties.average_precision(pack, findings(pack))
    assert .1 < ap['AP'] < .95 and ap.keys() == {'AP', 'AP50', 'AP75', 'APM', 'AR'}, ap
