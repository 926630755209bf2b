"""What the curve of a search says: its best point, the surface of its first round, how the best rose."""

import numpy as np

UNITS = {"theta_alpha": "px", "theta_beta": "8-bit levels"}  # what is not named has none
_KEYS = ("step", "round", "images", "miou")


def is_one(curve):
    """Whether the entries of a fit are the points of a search: step, round, images, miou in percent, three numbers."""
    return len(curve) > 0 and all(entry.keys() >= set(_KEYS) and len(searched(entry)) == 3 for entry in curve)


def searched(entry):
    """Return the names of what is searched for, in the order of the search."""
    return tuple(name for name in entry if name not in _KEYS)


def titled(name):
    """Write the name of an axis with its unit, as "theta_alpha, px"."""
    return f"{name}, {UNITS[name]}" if name in UNITS else name


def best(curve):
    """Return the entry of the highest mean IoU among those with the most images, the first of equals."""
    most = max(entry["images"] for entry in curve)
    return max((entry for entry in curve if entry["images"] == most), key=lambda entry: entry["miou"])


def named(entry):
    """Write a point with its units, as "theta_alpha 30 px, …"."""
    return ", ".join(f"{name} {entry[name]:g} {UNITS.get(name, '')}".rstrip() for name in searched(entry))


def first_round(curve):
    """Return the entries of the first round."""
    return [entry for entry in curve if entry["round"] == curve[0]["round"]]


def surface(curve):
    """Lay the points of the first round out.

    Returns
    -------
    axes : tuple of list of float
        Values of each number in the order of the search, rising.
    miou : ndarray of shape (thirds, seconds, firsts)
        Percent; NaN where no point was judged. A map for every value of the last number.
    few : ndarray of the same shape, bool
        Whether a point was judged on fewer images than the most of the whole search.
    """
    first = first_round(curve)
    axes = tuple(sorted({entry[name] for entry in first}) for name in searched(first[0]))
    most = max(entry["images"] for entry in curve)
    shape = tuple(len(axis) for axis in reversed(axes))
    miou, few = np.full(shape, np.nan), np.zeros(shape, dtype=bool)
    for entry in first:
        there = place(axes, entry)
        miou[there], few[there] = entry["miou"], entry["images"] < most
    return axes, miou, few


def place(axes, entry):
    """Return the index of a point in the arrays of `surface`, or None if it is none of its points."""
    found = [
        values.index(entry[name]) if entry[name] in values else None
        for name, values in zip(searched(entry), axes, strict=True)
    ]
    return None if None in found else tuple(reversed(found))


def climb(curve):
    """Return how the best rose: points judged so far, the best mean IoU (percent), and where each round ended.

    Only points judged on the most images count: on few images a mean IoU may be high by chance.
    """
    most = max(entry["images"] for entry in curve)
    judged, highest, ends = [], [], {}
    for number, entry in enumerate(curve, start=1):
        ends[entry["round"]] = number
        if entry["images"] == most:
            judged.append(number)
            highest.append(max([entry["miou"], *highest[-1:]]))
    return [*judged, len(curve)], [*highest, highest[-1]], ends
