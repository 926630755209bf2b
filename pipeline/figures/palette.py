"""Colours: one per class for label maps, one per system for plots."""

import numpy as np

# (light, dark) background; after Okabe and Ito, told apart by eyes that confuse red and green. The first is the
# unary's, a grey that leaves the colours to the systems.
SERIES = (
    ("#7a7f87", "#9aa0a8"),
    ("#0b6fae", "#62b6ec"),
    ("#c8560b", "#f0965a"),
    ("#1a8a63", "#4fc79b"),
    ("#a8558a", "#dd93c2"),
    ("#8f7309", "#d9bd4a"),
    ("#4b4fb3", "#9fa3f2"),
    ("#9c2f36", "#ea8289"),
)
GAINED, LOST, RIGHT, WRONG, UNSCORED = (
    (0, 145, 105),
    (213, 80, 20),
    (226, 228, 231),
    (128, 133, 140),
    (247, 248, 249),
)


def places(names):
    """Give each name its place in `SERIES`: the first its own, the others go round the rest when there are many."""
    return {name: 1 + (number - 1) % (len(SERIES) - 1) if number else 0 for number, name in enumerate(names)}


def voc():
    """Return the colour map of PASCAL VOC: (256, 3) uint8, RGB; the bits of the index dealt to R, G and B.

    Class 0 is black, void (255) a pale beige. Source: ``VOClabelcolormap.m`` of the VOC development kit.
    """
    index = np.arange(256)
    colours = np.zeros((256, 3), dtype=np.int64)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= ((index >> (3 * bit + channel)) & 1) << (7 - bit)
    return colours.astype(np.uint8)


def hexadecimal(colour):
    """Write an RGB triple as "#rrggbb"."""
    return "#" + "".join(f"{int(value):02x}" for value in colour)
