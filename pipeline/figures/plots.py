"""Plots as SVG text: the same input gives the same bytes.

They are drawn at the width of a phone, so that on one they keep their size; colours are CSS variables of the page
with fixed colours behind them, so that they follow it into dark mode and also stand alone.
"""

import re
from contextlib import contextmanager
from io import StringIO

import matplotlib as mpl
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from pipeline.figures.palette import SERIES

WIDTH = 4.6  # inches; the text is then as large on a phone as that of the page's captions
_INK, _RULE = "#010203", "#d0d0d1"  # stand for the text's and the grid's colour until the SVG is written
_STYLE = {
    "svg.fonttype": "none",
    "font.size": 11,
    "axes.titlesize": 11,
    "axes.labelsize": 11,
    "legend.fontsize": 11,
    "xtick.labelsize": 10.5,
    "ytick.labelsize": 10.5,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "xtick.color": _RULE,
    "ytick.color": _RULE,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "axes.edgecolor": _RULE,
    "grid.color": _RULE,
    "grid.linewidth": 0.7,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "legend.frameon": False,
    "lines.linewidth": 1.8,
}
_MARKERS = "osD^vPX*"
SCALE = mpl.colormaps["viridis"].resampled(32)  # as many steps as an eye tells apart, and few enough to be drawn


def bars(class_names, series, colours, name):
    """Draw the IoU of each class as horizontal bars, all series side by side.

    Parameters
    ----------
    class_names : sequence of str
    series : dict of str to ndarray of shape (C,)
        Percent by system; NaN where a class has no IoU.
    colours : dict of str to int
        Place in `palette.SERIES` by system.
    name : str
        Unique within a page.

    Returns
    -------
    str
        SVG.
    """
    rows, thick = len(class_names), 0.8 / len(series)
    height = 0.75 + rows * max(0.34, 0.12 * len(series) + 0.1)
    with drawing(name, height) as (figure, done):
        axes = figure.subplots()
        for place, (system, values) in enumerate(series.items()):
            at = np.arange(rows) + (place - (len(series) - 1) / 2) * thick
            colour = SERIES[colours[system]][0]
            axes.barh(at, np.nan_to_num(values), height=0.88 * thick, color=colour, label=system)
        for row in np.nonzero(np.isnan(list(series.values())).all(axis=0))[0]:
            axes.text(1, row, "in neither truth nor labels", va="center", fontsize=9.5)
        axes.set(yticks=range(rows), yticklabels=class_names, ylim=(rows - 0.45, -0.55), xlim=(0, 100))
        axes.set_xlabel("IoU, %")
        axes.grid(axis="y", visible=False)
        axes.tick_params(length=0)
        _legend(figure, axes)
    return done[0]


def curves(series, colours, name, *, across, up, log=False, marks=None):
    """Draw lines with marks.

    Parameters
    ----------
    series : dict of str to (sequence of float, sequence of float)
        Points by the name of their line: places across, values up.
    colours : dict of str to int
        Place in `palette.SERIES` by line.
    name : str
        Unique within a page.
    across, up : str
        What the axes show, with the unit.
    log : bool
        Whether places across grow by ratio; they are then marked at each of the first line's points.
    marks : dict of str to float, optional
        Places across that get a dashed line with a name above.

    Returns
    -------
    str
        SVG.
    """
    with drawing(name, 3.0) as (figure, done):
        axes = figure.subplots()
        marked = max(len(x) for x, _ in series.values()) <= 20
        for line, (x, y) in series.items():
            place = colours[line]
            marker = _MARKERS[place % len(_MARKERS)] if marked else None
            axes.plot(x, y, color=SERIES[place][0], marker=marker, markersize=4.5, label=line)
        if log:
            axes.set_xscale("log", base=2)
            first = next(iter(series.values()))[0]
            axes.set_xticks(first, [f"{place:g}" for place in first])
            axes.minorticks_off()
        _mark(axes, marks or {}, ha="left")
        axes.set(xlabel=across, ylabel=up)
        axes.tick_params(length=0)
        if len(series) > 1:
            _legend(figure, axes)
    return done[0]


def _mark(axes, marks, ha):
    """Draw dashed lines at places across, by name, and the names above; those that would touch are left out."""
    last, most = -np.inf, max(marks.values(), default=0)
    for name, place in marks.items():
        axes.axvline(place, color=_INK, linewidth=0.8, linestyle=(0, (3, 3)))
        if place - last >= 0.05 * most:
            axes.annotate(f"{name}", (place, 1.02), xycoords=("data", "axes fraction"), ha=ha, va="bottom")
            last = place


def gains(labels, values, lows, highs, colours, name):
    """Draw gains with their intervals, one line of text each, around a line at nought.

    Parameters
    ----------
    labels : sequence of str
    values, lows, highs : sequence of float
        Points of mean IoU.
    colours : sequence of int
        Place of each in `palette.SERIES`.
    name : str
        Unique within a page.

    Returns
    -------
    str
        SVG.
    """
    with drawing(name, 0.75 + 0.34 * len(labels)) as (figure, done):
        axes = figure.subplots()
        axes.axvline(0, color=_INK, linewidth=0.9)
        for row, (value, low, high, place) in enumerate(zip(values, lows, highs, colours, strict=True)):
            colour = SERIES[place][0]
            axes.plot([low, high], [row, row], color=colour, linewidth=2.4, solid_capstyle="round")
            axes.plot([value], [row], marker="o", markersize=7, color=colour)
        axes.set(yticks=range(len(labels)), yticklabels=labels, ylim=(len(labels) - 0.4, -0.6))
        axes.set_xlabel("gain over the unary, points of mean IoU")
        axes.margins(x=0.08)
        axes.grid(axis="y", visible=False)
        axes.tick_params(length=0)
    return done[0]


def heat_maps(maps, name, *, across, up, colours, faint, framed):
    """Draw maps of numbers side by side, all in one scale of colours.

    Parameters
    ----------
    maps : dict of str to ndarray of shape (rows, cols)
        By title; the first row is drawn at the bottom. Cells of NaN stay empty.
    name : str
        Unique within a page.
    across, up : (str, sequence of float)
        What the columns and the rows stand for, with the unit, and the value of each.
    colours : str
        What the colours stand for, with the unit.
    faint : dict of str to ndarray of shape (rows, cols), bool
        Cells to be drawn faintly.
    framed : (str, int, int)
        Title, row and column of one cell.

    Returns
    -------
    str
        SVG.
    """
    columns = min(len(maps), 2 if len(maps) == 4 else 3)
    lines, size = -(-len(maps) // columns), (3.7 / columns / len(across[1]), min(max(0.2, 0.9 / len(up[1])), 0.5))
    known = np.concatenate([values[np.isfinite(values)] for values in maps.values()])
    scale = Normalize(known.min(), max(known.max(), known.min() + 0.1))
    with drawing(name, 1.25 + lines * (0.3 + size[1] * len(up[1]))) as (figure, done):
        panels = figure.subplots(lines, columns, squeeze=False).ravel()
        for number, (title, values) in enumerate(maps.items()):
            axes = panels[number]
            _cells(axes, values, faint[title], scale, numbers=size[0] >= 0.4)
            axes.set_title(title)
            below, left = number + columns >= len(maps), number % columns == 0
            axes.set_xticks(*_ticks(across[1], size[0], 0.09) if below else ([],))
            axes.set_yticks(*_ticks(up[1], size[1], 0.0) if left else ([],))
        _frame(panels[list(maps).index(framed[0])], *framed[1:])
        for axes in panels[len(maps) :]:
            axes.set_axis_off()
        figure.supxlabel(across[0], fontsize=11)
        figure.supylabel(up[0], fontsize=11)
        colour_bar(figure, panels, scale, colours)
    return done[0]


def climb(x, y, ends, name, *, across, up):
    """Draw a line that rises in steps, with a mark where each round ended.

    Parameters
    ----------
    x, y : sequence of float
    ends : dict of int to float
        Place across by the number of the round.
    name : str
        Unique within a page.
    across, up : str
        What the axes show, with the unit.

    Returns
    -------
    str
        SVG.
    """
    with drawing(name, 2.3) as (figure, done):
        axes = figure.subplots()
        axes.plot(x, y, color=SERIES[1][0], drawstyle="steps-post")
        _mark(axes, ends, ha="center")
        axes.set(xlabel=across, ylabel=up, xlim=(0, max(ends.values()) * 1.02))
        axes.grid(axis="x", visible=False)
        axes.tick_params(length=0)
    return done[0]


@contextmanager
def drawing(name, height):
    """Yield an empty figure and a list that holds its SVG afterwards."""
    with mpl.rc_context(_STYLE | {"svg.hashsalt": name}):
        figure, done, text = Figure(figsize=(WIDTH, height), layout="constrained"), [], StringIO()
        yield figure, done
        about = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(text, format="svg", metadata=about)
        done.append(_tidy(text.getvalue()))


def _cells(axes, values, faint, scale, numbers):
    """Draw one map's cells, with their `numbers` where there is room."""
    rows, cols = values.shape
    for row, col in zip(*np.nonzero(np.isfinite(values)), strict=True):
        colour, alpha = SCALE(scale(values[row, col])), 0.35 if faint[row, col] else 1
        look = {"facecolor": colour, "alpha": alpha, "linewidth": 0, "clip_on": False}
        axes.add_patch(Rectangle((col - 0.5, row - 0.5), 1, 1, **look))
        if numbers:
            # A faint cell takes after the page, and so does its number.
            plain = "#000000" if np.dot(colour[:3], (0.3, 0.59, 0.11)) > 0.45 else "#ffffff"
            ink = _INK if faint[row, col] else plain
            axes.text(col, row, f"{values[row, col]:.1f}", ha="center", va="center", fontsize=10, color=ink)
    axes.set(xlim=(-0.5, cols - 0.5), ylim=(-0.5, rows - 0.5))
    axes.grid(visible=False)
    axes.spines["bottom"].set_visible(False)
    axes.tick_params(length=0)


def _frame(axes, row, col):
    """Frame one cell, in red on white, so that it is seen on every colour."""
    for width, colour in ((4.5, "#ffffff"), (2, "#b00020")):
        look = {"fill": False, "linewidth": width, "edgecolor": colour, "clip_on": False, "zorder": 3}
        axes.add_patch(Rectangle((col - 0.5, row - 0.5), 1, 1, **look))


def colour_bar(figure, panels, scale, label, fraction=0.1):
    """Say above the panels, of whose height it takes a fraction, what the colours of `SCALE` stand for."""
    bar = figure.colorbar(ScalarMappable(scale, SCALE), ax=panels, location="top", aspect=32, fraction=fraction)
    bar.set_label(label)
    bar.formatter.set_useOffset(False)
    bar.outline.set_visible(False)
    bar.solids.set_edgecolor("face")  # or the page shines through between its steps


def _ticks(values, room, digit):
    """Return which cells are named, and how: as many as fit with `room` inches each, a digit taking so many."""
    names = [f"{value:g}" for value in values]
    every = int(np.ceil(max(0.2, digit * (1 + max(map(len, names)))) / room - 1e-9))
    return range(len(names))[::every], names[::every]


def _legend(figure, axes):
    """Name the series above the plot, in as few lines as fit."""
    handles, names = axes.get_legend_handles_labels()
    columns = max(1, min(len(names), int(40 / (max(map(len, names)) + 6))))
    figure.legend(handles, names, loc="outside upper left", ncols=columns, handlelength=1.2, columnspacing=1.2)


def _tidy(svg):
    """Leave out prologue and unused names, which would clash in one page; give colours to the style sheet."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"\s*<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    used = set(re.findall(r'(?:url\(|href=")#([^)"]+)', svg))
    svg = re.sub(r' id="([^"]+)"', lambda found: found[0] if found[1] in used else "", svg)
    svg = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font: \1 system-ui, sans-serif", svg)
    svg = re.sub(r'width="[\d.]+pt" height="[\d.]+pt" ', "", svg, count=1)
    svg = svg.replace(_INK, "currentColor").replace(_RULE, f"var(--rule, {_RULE})")
    for place, (light, _) in enumerate(SERIES):
        svg = svg.replace(light, f"var(--series-{place}, {light})")
    return svg.strip() + "\n"
