"""Which images are trained on, held out and scored: lists of names, blocks of video, and the choice of a fixed seed."""

import numpy as np

from pipeline.core.errors import DataError

HELD_OUT_SEED = 2018  # fixed: the held-out images are part of the protocol, not of a run


def lines_of(path, do):
    """Read the lines of a list that are not empty, ends cut off; DataError if there are none or no file: then `do`."""
    if not path.is_file():
        raise DataError(path, "no such file", "a list of image names, one a line", do)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(path, "bytes that are no UTF-8", "a list of image names", "save it as UTF-8") from None
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise DataError(path, "no names", "at least one", "list the images of this split")
    return lines


def names_of(path, do):
    """Read a list of names, each word is one; errors as for `lines_of`, and if a name stands there twice."""
    return each_once(path, [name for line in lines_of(path, do) for name in line.split()])


def each_once(where, names):
    """Return the names; DataError if one of them stands there twice."""
    twice = next((name for name, other in zip(sorted(names), sorted(names)[1:], strict=False) if name == other), None)
    if twice:
        raise DataError(where, f"the name {twice} twice", "each once", "delete one")
    return names


def divide(where, named, block_length=1):
    """Hold images out of train, and make sure that no image stands in two splits.

    Parameters
    ----------
    where : str or Path
        The data set, for errors.
    named : dict of str to sequence of str
        The images of "train", "val" and perhaps "heldout", which may stand in train too; without it `hold_out` chooses.
    block_length : int
        For video, how many neighbouring frames, NAME_FRAME, are kept together; 1 for single photographs.

    Returns
    -------
    splits : dict of str to tuple of str
        "train", without what is held out, "heldout", "val".
    blocks : dict of str to str
        The block of every image; empty for single photographs.

    Raises
    ------
    DataError
        If an image is to be scored and used otherwise too, a block would be cut, or nothing is left to train on.
    """
    train, val, heldout = (tuple(named.get(split, ())) for split in ("train", "val", "heldout"))
    for split, names in (("train", train), ("heldout", heldout)):
        if both := sorted(set(names) & set(val)):
            raise DataError(
                f"{where}, splits {split} and val", f"{both[0]} in both", "disjoint lists", "mend the lists"
            )
    blocks = blocks_of(dict.fromkeys([*train, *heldout, *val]), block_length)
    if "heldout" not in named:
        heldout = hold_out(train, blocks)
        if len(heldout) == len(train):
            found, do = f"{len(train)} images in one block", "lower `block_length` or add images"
            raise DataError(f"{where}, split train", found, "more than is held out", do)
    left = tuple(sorted(set(train) - set(heldout)))
    if not left:
        raise DataError(f"{where}, split heldout", "all images of train", "fewer", "leave some to train on")
    if shared := sorted({blocks[name] for name in left} & {blocks[name] for name in heldout}):
        found, do = f"a part of the block {shared[0]}", "list all its frames, or none"
        raise DataError(f"{where}, split heldout", found, "whole blocks", do)
    splits = {"train": left, "heldout": heldout, "val": val}
    return splits, blocks if block_length > 1 else {}


def hold_out(names, blocks):
    """Choose the images that systems are fitted on: min(200, a fifth), whole blocks in an order of fixed seed.

    Paper arXiv:1805.04777, section 5, holds out 200; which is not said. Here: NumPy's RandomState(2018) permutes
    the sorted names (of blocks, for video), and the first ones are taken.
    """
    count = min(200, len(names) // 5)
    members = {}
    for name in sorted(names):
        members.setdefault(blocks[name], []).append(name)
    keys = sorted(members)
    chosen = []
    for index in np.random.RandomState(HELD_OUT_SEED).permutation(len(keys)):
        if len(chosen) < count:
            chosen += members[keys[index]]
    return tuple(sorted(chosen[:count] if len(keys) == len(names) else chosen))


def blocks_of(names, length):
    """Give each name its block: itself, or with `length` n its run of n neighbouring frames of one clip."""
    if length == 1:
        return {name: name for name in names}
    clips, blocks = {}, {}
    for name in sorted(names, key=_in_time):
        clip = name.rpartition("_")[0]
        position = clips[clip] = clips.get(clip, -1) + 1
        blocks[name] = f"{clip}/{position // length:04d}"
    return blocks


def _in_time(name):
    """Sort frames of a clip by their numbers, whether or not these have leading zeros."""
    clip, _, frame = name.rpartition("_")
    return clip, int(frame) if frame.isdecimal() else -1, frame
