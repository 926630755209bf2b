"""The journal: found again by its keys, by equal work alone; torn and damaged lines count as not done."""

import numpy as np
import pytest

from pipeline.formats.journal import Journal

BASIS = {"inputs": {"pack": "abc"}, "rests_on": {"iterations": 10}}
KEY = ("image_1", (50.0, 3.0, 5.0))


def opened(folder, basis=BASIS, part="1-of-1"):
    return Journal(folder / "journal", basis, part)


def array(seed=0, shape=(3, 4)):
    return np.random.default_rng(seed).integers(0, 1 << 40, shape)


def test_what_was_put_is_there_for_this_and_the_next_process(tmp_path):
    journal = opened(tmp_path)
    assert journal.get(KEY) is None
    journal.put([(KEY, array()), (("image_2", "x"), array(1, (2,)))])
    for one in (journal, opened(tmp_path)):
        assert len(one) == 2
        assert np.array_equal(one.get(KEY), array())
        assert one.get(("image_2", "x")).dtype == np.int64


def test_parts_are_read_together_and_written_apart(tmp_path):
    opened(tmp_path, part="1-of-2").put([(KEY, array(1))])
    opened(tmp_path, part="2-of-2").put([("other", array(2))])
    whole = opened(tmp_path)
    assert np.array_equal(whole.get(KEY), array(1))
    assert np.array_equal(whole.get("other"), array(2))
    assert len(list((tmp_path / "journal").iterdir())) == 2


def test_a_journal_of_other_work_is_thrown_away(tmp_path):
    opened(tmp_path).put([(KEY, array())])
    other = opened(tmp_path, BASIS | {"rests_on": {"iterations": 5}})
    assert other.get(KEY) is None
    assert list((tmp_path / "journal").iterdir()) == []


@pytest.mark.parametrize("cut", [1, 20, 200])
def test_a_torn_line_is_not_done(tmp_path, cut):
    journal = opened(tmp_path)
    journal.put([(KEY, array())])
    journal.put([("second", array(1, (40,)))])
    journal.path.write_bytes(journal.path.read_bytes()[:-cut])
    resumed = opened(tmp_path)
    assert np.array_equal(resumed.get(KEY), array())
    assert resumed.get("second") is None
    resumed.put([("second", array(1, (40,)))])
    again = opened(tmp_path)
    assert np.array_equal(again.get("second"), array(1, (40,)))
    assert len(again) == 2


def test_a_changed_number_is_not_believed(tmp_path):
    journal = opened(tmp_path)
    journal.put([(KEY, np.array([7, 11])), ("second", np.array([5]))])
    text = journal.path.read_text()
    assert text.count("[7, 11]") == 1
    journal.path.write_text(text.replace("[7, 11]", "[7, 12]"))
    resumed = opened(tmp_path)
    assert resumed.get(KEY) is None
    assert resumed.get("second").tolist() == [5]


@pytest.mark.parametrize(
    "line", ["", "{}", "[]", "null", '{"key": 1}', '{"key": 1, "shape": [1], "values": [1], "check": 0}']
)
def test_a_line_of_something_else_is_passed_over(tmp_path, line):
    journal = opened(tmp_path)
    journal.put([(KEY, array())])
    with journal.path.open("a") as file:
        file.write(line + "\n")
    assert len(opened(tmp_path)) == 1
