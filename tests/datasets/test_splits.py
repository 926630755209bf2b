"""How images are split: the sizes that packs of public data sets must have, lists that are no lists."""

import pytest
from observe import refusal

from pipeline.core import settings
from pipeline.datasets import splits

# Names of train and of val, as many and in an order as the data sets have them.
CAMVID = (
    [f"{clip}_{frame:05d}" for clip, count in (("0001TP", 62), ("0006R0", 101)) for frame in range(count)]
    # The clip that val was taken from: 188 frames lie before it, 16 behind.
    + [f"0016E5_{frame:05d}" for frame in (*range(188), *range(500, 516))],
    [f"0016E5_{frame:05d}" for frame in range(300, 401)],
)
SIZES = {
    "voc2012": (1464, 1449),
    "voc2012_aug": (10582, 1449),
    "voc2012_crfrnn": (11685, 346),
    "pascal_context": (4998, 5105),
    "pascal_context_59": (4998, 5105),
    "cityscapes": (2975, 500),
    "camvid": CAMVID,
}


@pytest.mark.parametrize("name", SIZES)
def test_counts_of_packs_are_those_of_their_data(name):
    pack = settings.read(settings.ROOT / f"config/packs/{name}.yaml", "packs")
    train, val = SIZES[name]
    if isinstance(train, int):
        train, val = [f"t{number}" for number in range(train)], [f"v{number}" for number in range(val)]
    divided, _ = splits.divide("here", {"train": train, "val": val}, pack.get("block_length", 1))
    assert {split: len(names) for split, names in divided.items()} == pack.counts.plain()


def test_a_list_of_another_encoding(tmp_path):
    (tmp_path / "list.txt").write_bytes("a\nb\n".encode("utf-16"))
    assert refusal(lambda: splits.names_of(tmp_path / "list.txt", "")) == (
        f"{tmp_path}/list.txt: found bytes that are no UTF-8, expected a list of image names; save it as UTF-8"
    )


def test_marks_and_line_ends_of_other_systems(tmp_path):
    (tmp_path / "list.txt").write_bytes("\ufeffa\r\nb\r\n\r\n".encode())
    assert splits.names_of(tmp_path / "list.txt", "") == ["a", "b"]


def test_blocks_of_video_follow_the_numbers_of_the_frames():
    blocks = splits.blocks_of([f"clip_{frame}" for frame in range(1, 13)], 3)
    found = {}
    for name, block in blocks.items():
        found.setdefault(block, set()).add(int(name.split("_")[1]))
    assert list(map(sorted, found.values())) == [[1, 2, 3], [4, 5, 6], [7, 8, 9], [10, 11, 12]]
