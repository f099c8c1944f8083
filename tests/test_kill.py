"""A sample of `tests/kill.py`: one kill of each stage, at a change of a file that the seed names; and that the script notices what it is for.

    python tests/kill.py --kills 200        # the whole of it
"""
import json, os, sys
from pathlib import Path

import pytest

import kill
from forked import forked

pytestmark = pytest.mark.skipif(sys.platform != 'linux', reason='kills and waits for processes as Linux does')


@pytest.fixture(scope='module')
def killed(tmp_path_factory):
    "For each stage the moment of the kill and the faults."
    return forked(kill.sample, tmp_path_factory.mktemp('kill'))


@pytest.mark.parametrize('stage', [
    pytest.param(name, marks=pytest.mark.situation(f'{what} that was killed at any moment (`kill -9`, or for want of memory)', sees))
    for name, what, sees in (
        ('render', 'a rendering', 'the same command continues where it stopped; the same photographs in the end, and nothing else in the folder'),
        ('pack', 'a packing', 'no half pack is ever opened; the same command packs anew'),
        ('search', 'a search', 'the same command continues from the last state; the same policy, to the last bit'),
        ('train', 'a training that replaces an older one', 'the same command continues from the last checkpoint; the same weights, curve and record, to the last bit'),
        ('evaluate', 'an evaluation', 'the same numbers from the same command'),
        ('report', 'a `reproduce` that writes tables and figures', 'each file is the old one or the new one; the same files in the end'))])
def test_killed_and_started_again(killed, stage):
    moments, faults = killed[stage]
    assert len(moments) == 1 and not faults, (moments, faults)


# What the script has to notice: jobs that do in small what a command must not do. Each is killed at one change of a file.
def well(): replace('a.json', '{"a": 1}')


def replace(name, text):
    new = Path(f'.{name}.new')
    new.write_text(text)
    new.replace(name)


def in_place():
    with open('a.json', 'w') as file:
        file.write('{"a":'); file.flush()
        os.mkdir('then')
        file.write(' 1}')


def in_place_text():
    with open('a.md', 'w') as file:
        file.write('one\n'); file.flush()
        os.mkdir('then')
        file.write('two\n')


def leaves_files():
    new = Path(f'.a.json.{os.getpid()}')
    new.write_text('{"a": 1}')
    new.replace('a.json')


def goes_astray():
    "Remembers that it had begun, and counts on from there."
    begun = Path('checkpoint').exists()
    os.makedirs('checkpoint', exist_ok=True)
    replace('a.json', json.dumps(dict(steps=12 - begun)))
    os.rmdir('checkpoint')


def one_by_one():
    "Writes the files of a record over those of another one."
    replace('people.csv', 'a\n2\n')
    replace('record.json', json.dumps(dict(cost={}, metrics=2)))


def before_one_by_one(place):
    for name, text in (('people.csv', 'a\n1\n'), ('record.json', json.dumps(dict(cost={}, metrics=1)))): (place/name).write_text(text)


def refuses():
    if Path('checkpoint').exists(): sys.exit('is not a checkpoint')
    os.mkdir('checkpoint')
    replace('a.json', '{}')
    os.rmdir('checkpoint')


def noticed(folder, job, before, event):
    "Kinds of fault that the script finds in a job that is killed at this change."
    known = kill.unbroken('job', stage := kill.Stage(job, before=before), folder)
    return {kind for kind, *_ in kill.trial(stage, known, folder, [kill.Moment('event', event)]).faults}


@pytest.mark.parametrize('job, before, event, kinds', [
    (well, None, 1, set()), (well, None, 2, set()), (in_place, None, 2, {'half-written'}), (in_place_text, None, 2, {'half-written'}),
    (leaves_files, None, 2, {'left over'}), (goes_astray, None, 2, {'differs'}), (one_by_one, before_one_by_one, 3, {'not all of one run'}),
    (refuses, None, 2, {'refused'})])
def test_the_script_notices(tmp_path, job, before, event, kinds):
    assert forked(noticed, tmp_path, job, before, event) == kinds
