"""Outputs appear whole or not at all."""

import pytest

from pipeline.core.errors import DataError
from pipeline.core.files import digest, move_folder, partial, whole_file


def test_a_file_appears_when_it_is_whole(tmp_path):
    path = tmp_path / "new" / "a.bin"
    with whole_file(path) as beside:
        beside.write_bytes(b"half")
        assert not path.exists()
    assert path.read_bytes() == b"half"
    assert [file.name for file in path.parent.iterdir()] == ["a.bin"]


@pytest.mark.parametrize("fault", [RuntimeError, KeyboardInterrupt])
def test_a_failure_leaves_nothing_new_and_all_that_was_there(tmp_path, fault):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def interrupted():
        with whole_file(path) as beside:
            beside.write_bytes(b"half")
            raise fault

    with pytest.raises(fault):
        interrupted()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_kill_left_is_replaced(tmp_path):
    path = tmp_path / "a.bin"
    partial(path).write_bytes(b"left by a kill")
    with whole_file(path) as beside:
        beside.write_bytes(b"whole")
    assert path.read_bytes() == b"whole"
    assert list(tmp_path.iterdir()) == [path]


def folder(path, text):
    path.mkdir()
    (path / "file").write_text(text)
    return path


def test_a_folder_moves_into_place(tmp_path):
    move_folder(folder(tmp_path / ".a.partial", "new"), tmp_path / "a")
    assert (tmp_path / "a" / "file").read_text() == "new"
    assert list(tmp_path.iterdir()) == [tmp_path / "a"]


def test_a_folder_replaces_the_old_one_and_what_a_kill_left_of_it(tmp_path):
    folder(tmp_path / "a", "old")
    folder(tmp_path / ".a.old", "older")
    move_folder(folder(tmp_path / ".a.partial", "new"), tmp_path / "a")
    assert (tmp_path / "a" / "file").read_text() == "new"
    assert list(tmp_path.iterdir()) == [tmp_path / "a"]


def test_digest(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    # FIPS 180-2, appendix B.1.
    assert digest(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    with pytest.raises(DataError, match="nowhere: found no such file"):
        digest(tmp_path / "nowhere")
