"Outputs of notebooks are compared as a reader would: words exactly, numbers up to what another processor changes."
import pytest
from notebooks import NUMBER, last_digit, same_number, same_text, table_text, text_of


@pytest.mark.parametrize('a, b', [('0.123', '0.124'), ('0.10', '0.09'), ('-0.00', '0.00'), ('9.99', '10.00'), ('1.00e-05', '9.99e-06'),
                                  ('7e-09', '8e-09'), ('−1.50', '-1.51'), ('123.456789', '123.5'), ('0.30000000000000004', '0.3'), ('+0.50', '0.50'), ('-0', '0')])
def test_numbers_that_another_processor_may_print(a, b):
    assert same_number(a, b) and same_number(b, a)


@pytest.mark.parametrize('a, b', [('0.123', '0.125'), ('0.50', '-0.50'), ('12', '13'), ('1000', '1001'), ('12', '12.0'), ('2e-16', '5e-13'),
                                  ('123.4567', '123.6'), ('0.0', '0.2')])
def test_numbers_that_it_may_not(a, b):
    assert not same_number(a, b) and not same_number(b, a)


@pytest.mark.parametrize('text, numbers', [('PCK@0.2', []), ('torch 2.13.0', []), ('sha c1e573546e75', []), ('rows 3-4', ['3', '4']), ('-1.5', ['-1.5']),
                                           ('[1.5, -2e-3]', ['1.5', '-2e-3']), ('96×72 px', ['96', '72']), ('It is 0.5.', ['0.5']), ('C4 layer2.0', [])])
def test_what_counts_as_a_number(text, numbers):
    assert NUMBER.findall(text) == numbers


def test_unit_of_the_last_digit():
    assert [last_digit(t) for t in ('1.50', '3e-05', '2.5e+02', '7.')] == pytest.approx([.01, 1e-5, 10, 1])


def test_texts():
    assert same_text('loss  0.100 at step 3', 'loss 0.099 at step 3')
    assert not same_text('loss 0.100 at step 3', 'loss 0.100 at step 4')
    assert not same_text('loss 0.100', 'cost 0.100')
    assert not same_text('0.100', '0.100 0.200') and not same_text('[0.1]', '[nan]')
    assert same_text('| a |  9.99 |', '| a | 10.00 |')


def test_a_table_counts_with_all_its_columns():
    page = '<style scoped>.a { }</style><table><tr><th>PCK</th><th>a &amp; b</th></tr><tr><td>.5</td><td>2</td></tr></table>'
    assert table_text(page).split() == ['PCK', 'a', '&', 'b', '.5', '2'] and table_text('<b>no table</b>') == ''
    cell = dict(outputs=[dict(data={'text/html': [page], 'text/plain': 'PCK ... b'})])
    assert text_of(cell).split() == table_text(page).split()
