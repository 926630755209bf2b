"""A search on a grid of parameters, first coarse, then in ever smaller cubes around the best (section 5 of 1412.7062).

Points are judged by the mean IoU of images; they may be judged on few images first, and only the better ones on more
(successive halving, Jamieson and Talwalkar, arXiv:1502.07943).
"""

import itertools
import math
from typing import NamedTuple

import numpy as np

from pipeline.core.errors import SettingsError
from pipeline.metrics.overlap import mean_iou_of


class Judged(NamedTuple):
    """What is known of one point."""

    point: tuple  # of float
    round: int  # from 1 on
    images: int  # on which it was judged
    miou: float  # 0..1


def values(name, axis):
    """Return the values of one axis: `first`, `step` further each, up to `last`, as a list of float.

    Raises
    ------
    SettingsError
        If there are none; it names the axis.
    """
    first, last, step = (float(axis[key]) for key in ("first", "last", "step"))
    if last < first:
        where, found = f"key 'search.{name}'", f"a range from {first:g} to {last:g}"
        raise SettingsError(where, found, "first ≤ last", "swap the two, or make them equal for one value")
    return [_tidy(first + number * step) for number in range(math.floor((last - first) / step + 1e-9) + 1)]


def grid(axes):
    """Return all points of a grid: `axes` maps names to mappings with `first`, `last` and `step`."""
    return list(itertools.product(*(values(name, axis) for name, axis in axes.items())))


def search(axes, halvings, rounds, judge):
    """Search for the point of the highest mean IoU.

    Parameters
    ----------
    axes : dict of str to mapping
        `first`, `last` and `step` of each, all above 0. The first round judges their whole grid. A later round judges
        what is new in the cube of 3 × 3 × … points around the best; where that holds nothing new, as the best did not
        move, all steps are halved. So a best point on a face of the grid is followed beyond it.
    halvings : int
        How often; the search ends when the best did not move after the last.
    rounds : int
        How many at most: on a plateau the best may move for long and gain next to nothing.
    judge : callable
        Takes points and the round's number; returns a Judged for each, in their order.

    Yields
    ------
    list of Judged
        One round. Which is the best so far, `best` says.
    """
    steps = [float(axis["step"]) for axis in axes.values()]
    new, tried, known = grid(axes), set(), []
    for number in range(1, rounds + 1):
        judged = judge(new, number)
        tried |= set(new)
        known += judged
        yield judged
        centre = best(known).point
        while not (new := [point for point in _cube(centre, steps) if point not in tried]):
            if halvings == 0:
                return
            halvings, steps = halvings - 1, [step / 2 for step in steps]


def best(judged):
    """Return the Judged of the highest mean IoU among those with the most images, the first of equals."""
    most = max(one.images for one in judged)
    return max((one for one in judged if one.images == most), key=lambda one: one.miou)


def _cube(centre, steps):
    """Return the points at most one step away along every axis, none of whose values is 0 or less."""
    sides = [
        [near for sign in (-1, 0, 1) if (near := _tidy(value + sign * step)) > 0]
        for value, step in zip(centre, steps, strict=True)
    ]
    return list(itertools.product(*sides))


def _tidy(value):
    """Return a value without what sums of steps leave in its last digits: equal points must be equal numbers."""
    return float(f"{value:.12g}")


def judge(points, number, count, images, first, keep):
    """Judge points on some images, those that are kept on more, until the last on all.

    Parameters
    ----------
    points : list of tuple
    number : int
        Of the round.
    count : callable
        Takes points and a slice of the images; returns hits, pixels of the truth and pixels labelled, summed over
        those images: (points, 3, C) int64.
    images : int
        How many there are.
    first : int
        On how many of them all points are judged.
    keep : float
        Share of the points that is kept, 0 to 1; the images grow by its inverse.

    Returns
    -------
    list of Judged
        In the order of `points`.
    """
    alive, done, until, found = list(points), 0, min(first, images), {}
    total = 0
    while True:
        total = total + count(alive, slice(done, until))
        done = until
        scores = np.nan_to_num(mean_iou_of(total))
        found |= {point: Judged(point, number, done, float(score)) for point, score in zip(alive, scores, strict=True)}
        if done == images:
            return [found[point] for point in points]
        # The best, in the order of the points, so that equals stay in theirs.
        kept = np.sort(np.argsort(-scores, kind="stable")[: math.ceil(keep * len(alive))])
        alive, total = [alive[place] for place in kept], total[kept]
        until = min(images, math.ceil(done / keep)) if len(alive) > 1 else images
