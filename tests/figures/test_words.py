"""Numbers in words."""

import pytest

from pipeline.figures import words


@pytest.mark.parametrize(("numbers", "said"), [([21, 21], "21"), ([21, 18, 20], "18 to 21")])
def test_a_span_is_one_number_or_two(numbers, said):
    assert words.span(iter(numbers)) == said
