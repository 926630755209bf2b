"""The sections of the report: what was run, results, classes and boundaries, training and fitting, origin.

Every function returns HTML. Where one draws, it puts the SVG into `figures`, by file name, too.
"""

import json
from collections.abc import Mapping

from pipeline.figures import gallery, learnt, lineage, plots, searches, words
from pipeline.figures.page import element, facts, plot, table, text

BAND = "miou_band_"
BOUNDARIES = {"void": "void pixels of the truth", "label_edges": "lines between classes"}


def body(title, lead, parts, closing):
    """Return the body of the page: head, contents, the parts (heading, HTML) that hold anything, last line."""
    parts = [(heading, html) for heading, html in parts if html]
    links = (element("a", text(heading), href=f"#part-{place}") for place, (heading, _) in enumerate(parts, start=1))
    head = (element("h1", text(title)), element("p", lead, class_="lead"), element("nav", *links))
    sections = (
        element("section", element("h2", text(heading)), html, id=f"part-{place}")
        for place, (heading, html) in enumerate(parts, start=1)
    )
    main = element("main", *sections)
    return "\n".join((element("header", *head), main, element("footer", element("p", closing))))


def data(name, pack, sizes, scored):
    """Say what one pack holds.

    Parameters
    ----------
    name : str
    pack : object
        With `class_names`, `trimap` and `digest`.
    sizes : dict of str to int
        Images by split.
    scored : str
        What the scores rest on, such as "val, 100 images".
    """
    known = [
        ("Images", text(", ".join(f"{split} {count}" for split, count in sizes.items()))),
        ("Scored on", text(scored)),
        ("Classes", text(f"{len(pack.class_names)}, and void, which is not scored")),
        ("Boundaries", text(BOUNDARIES[pack.trimap])),
        ("Content", element("code", pack.digest[:12])),
    ]
    return element("h3", text(name)) + facts(known) + gallery.class_key(pack.class_names)


def results(name, rows, memory, colours, figures):
    """Return the table of one pack with its gains drawn and said in words.

    Parameters
    ----------
    name : str
        Of the pack.
    rows : sequence of dict of str to str
        Lines of the table.
    memory : sequence of (str or None)
        Peak memory of each line's refining, MiB.
    colours : dict of str to int
        Place in the palette by system.
    figures : dict of str to str
        Takes the plots.
    """
    columns = _columns(rows, memory)
    lines, net = [], None
    for place, row in enumerate(rows):
        if row["net"] != net:
            net = row["net"]
            lines.append(f"network {text(net)}")
        small = ", ".join(part for part in (row["preset"].strip("-"), row["note"]) if part)
        lines.append([text(row["system"]) + element("small", text(small)), *(cell(row, place) for _, cell in columns)])
    classes = words.span(int(row["classes"]) for row in rows)
    counted = f"{rows[0]['images']} images, mean over {classes} classes; all but times in percent"
    if any(row["paper_miou"] for row in rows):
        counted += "; the paper's figures are as it states them, of its own data"
    parts = [element("h3", text(name)), element("p", text(counted), class_="quiet")]
    parts.append(table(["system", *(head for head, _ in columns)], lines))
    parts.append(_gains(name, rows, colours, figures))
    return "".join(parts)


def quality(name, pack, ious, rows, colours, figures):
    """Draw one network's IoU by class, and mean IoU and accuracy by width of band, all systems side by side.

    Parameters
    ----------
    name : str
        Of pack and network; part of the file names.
    pack : object
        With `class_names` and `trimap`.
    ious : dict of str to ndarray of shape (C,)
        Percent by system.
    rows : sequence of dict of str to str
        The lines of the same systems.
    colours, figures : dict
    """
    bars = plots.bars(pack.class_names, ious, colours, f"{name}.classes")
    shown = _show(figures, f"{name}.classes", bars, "IoU of each class.", "Bars: IoU by class and system")
    widths = [int(key.removeprefix(BAND)) for key in rows[0] if key.startswith(BAND)]
    for key, file, what in (("miou", "trimap", "mean IoU"), ("accuracy", "trimap_accuracy", "pixel accuracy")):
        bands = {
            row["system"]: (widths, [float(row[f"{key}_band_{width}"] or "nan") for width in widths]) for row in rows
        }
        svg = plots.curves(bands, colours, f"{name}.{file}", across="width of the band, px", up=f"{what}, %", log=True)
        caption = f"{what[0].upper()}{what[1:]} within so many px of a boundary (trimap): {BOUNDARIES[pack.trimap]}."
        shown += _show(figures, f"{name}.{file}", svg, caption, f"Lines: {what} by width of band")
    return shown


def networks(told):
    """Return a table of networks.

    Parameters
    ----------
    told : dict of str to (dict of str to (int or str), float or None)
        By name: facts by heading, as `pipeline.nets.facts` gives them, and images a second in training's steps.
    """
    heads = dict.fromkeys(head for known, _ in told.values() for head in known)
    rows = [
        [text(name), *(_fact(head, known.get(head)) for head in heads), "–" if speed is None else f"{speed:.1f}"]
        for name, (known, speed) in told.items()
    ]
    return table(["network", *map(text, heads), "images a second<br>in training"], rows)


def _fact(head, value):
    if value is None:
        return "–"
    return f"{value / 1e6:.2f}&nbsp;M" if head == "parameters" else text(str(value))


def training(name, histories, figures):
    """Draw the loss and the held-out score of a network's trainings: histories by name, lists of epochs."""
    shown, colours = "", {stem: 1 + place for place, stem in enumerate(histories)}
    for key, up, said in (
        ("loss", "training loss", "Training: loss by epoch."),
        ("heldout_miou", "mean IoU, %", "Training: mean IoU on the held-out images, by epoch."),
    ):
        if drawn := lines(histories, "epoch", key):
            svg = plots.curves(drawn, colours, f"{name}.{key}", across="epoch", up=up)
            shown += _show(figures, f"{name}.{key}", svg, said, f"Line: {up} by epoch")
    return shown


def stages(name, trainings, figures):
    """Draw held-out scores of trainings, (network, list of epochs), one after another; nothing of fewer than two."""
    if not (found := lineage.joined(trainings)):
        return ""
    series, starts = found
    # Names would lie over one another where a training is short.
    marks = {str(number): place for number, place in enumerate(starts.values(), start=1)}
    svg = plots.curves(series, lineage.COLOURS, f"{name}.stages", across="step", up="mean IoU, %", marks=marks)
    caption = lineage.CAPTION.format(nets=text(", ".join(f"{n} {net}" for n, net in zip(marks, starts, strict=True))))
    return _show(figures, f"{name}.stages", svg, caption, "Line: mean IoU over the steps of all trainings")


def fitting(name, system, curve, colour, figures):
    """Draw one system's fit: the surface that a search saw, or the loss by step if more than one was reported."""
    if searches.is_one(curve):
        return _search(name, system, curve, figures)
    points = _points(curve, "step", "loss")
    if len(points[0]) < 2:
        return ""
    svg = plots.curves({system: points}, {system: colour}, name, across="step", up="loss")
    caption = f"Fit of {text(system)}: loss on the held-out images, by step."
    return _show(figures, name, svg, caption, f"Line: loss of {system} by step")


def watched(name, curves, colours, figures):
    """Draw the mean IoU that the fits of a network's systems told on the way, a line for each; curves by system."""
    shown = ""
    for key, where in learnt.WATCHED.items():
        if drawn := lines(curves, "step", key):
            svg = plots.curves(drawn, colours, f"{name}.{key}", across="step", up="mean IoU, %")
            caption = f"Fits: mean IoU of some of the {where}, by step."
            shown += _show(figures, f"{name}.{key}", svg, caption, f"Line: mean IoU of {where} by step")
    return shown


def compatibility(name, system, penalty, class_names, figures):
    """Draw the compatibility that a system learnt."""
    svg = learnt.compatibility(penalty, class_names, name)
    caption = learnt.COMPATIBILITY.format(system=text(system))
    return _show(figures, name, svg, caption, f"Matrix: compatibility of classes learnt by {system}")


def _search(name, system, curve, figures):
    """Draw what a search found: mean IoU over the grid of its first round, and its best by points judged."""
    best, (axes, miou, few) = searches.best(curve), searches.surface(curve)
    across, up, maps_of = searches.searched(best)
    titles = [f"{maps_of.rpartition('_')[2]} {value:g}" for value in axes[2]]  # short, as maps are narrow
    title, *cell = searches.place(axes, searches.best(searches.first_round(curve)))
    maps = plots.heat_maps(
        dict(zip(titles, miou, strict=True)),
        name,
        across=(searches.titled(across), axes[0]),
        up=(searches.titled(up), axes[1]),
        colours="mean IoU, %",
        faint=dict(zip(titles, few, strict=True)),
        framed=(titles[title], *cell),
    )
    points, rounds = _count(curve, "point"), _count({entry["round"] for entry in curve}, "round")
    where = "framed" if searches.place(axes, best) else "off this grid, whose own best is framed"
    said = (
        f"Search of {text(system)}: mean IoU on the grid of the first round, one map for each {maps_of}. "
        f"Best of {points} in {rounds}, {where}: {searches.named(best)}, "
        f"with {best['miou']:.2f} % on {best['images']} images."
    )
    if few.any():
        images = (entry["images"] for entry in searches.first_round(curve))
        counts = words.span(count for count in images if count < best["images"])
        said += f" Faint: given up before, and so judged on {counts} of the images only."
    shown = _show(figures, name, maps, said, f"Heat maps: mean IoU by the parameters of {system}")
    if len(curve) < 2:
        return shown
    judged, highest, ends = searches.climb(curve)
    svg = plots.climb(judged, highest, ends, f"{name}.best", across="points judged", up="best mean IoU, %")
    said = (
        f"Search of {text(system)}: best mean IoU so far on all {best['images']} images; dashed lines end the rounds."
    )
    return shown + _show(figures, f"{name}.best", svg, said, f"Line: best mean IoU of {system} by points judged")


def parameters(title, settings, state):
    """Return a folded table of one system's settings and what the fit made of them."""
    flat = _flatten(settings)
    names = [*flat, *(key for key in state if key not in flat)]
    rows = [
        [
            element("code", text(key)),
            words.value(flat[key]) if key in flat else "–",
            words.value(state[key]) if key in state else "–",
        ]
        for key in names
    ]
    summary = element("summary", text(title), element("span", f" ({len(state)} fitted)", class_="quiet"))
    return element("details", summary, element("div", table(["", "set", "fitted"], rows), class_="text"))


def origin(stamps):
    """Return what all inputs came from: code, versions, seeds, devices; each value with the stages it holds for."""
    seen = {}
    for stamp in stamps:
        for key, value in _flatten({k: v for k, v in stamp.items() if k not in ("inputs", "settings")}).items():
            if key != "stage" and value not in (None, ""):
                seen.setdefault(key, {}).setdefault(_plain(value), []).append(stamp["stage"])
    pairs = []
    for key, values in seen.items():
        told = [
            text(value) if len(values) == 1 else text(f"{value} ({', '.join(dict.fromkeys(stages))})")
            for value, stages in values.items()
        ]
        pairs.append((key.removeprefix("versions."), "<br>".join(told)))
    return facts(pairs)


def _columns(rows, memory):
    """Choose the columns that hold anything: pairs (head, cell of a row and its place)."""

    def of(key, digits=2):
        return lambda row, _: words.number(row[key], digits)

    bands = [key for key in rows[0] if key.startswith(BAND)]
    columns = [("mean IoU", of("miou"))]
    if any(row["paper_miou"] for row in rows):
        columns.append(("in the<br>paper", of("paper_miou")))
    columns.append(("gain<br>over unary", lambda row, _: words.gain_cell(row)))
    if any(row["category_miou"] for row in rows):
        columns.append(("mean IoU of<br>categories", of("category_miou")))
    columns += [
        (f"mean IoU<br>≤ {key.removeprefix(BAND)} px", of(key))
        for key in dict.fromkeys((bands[0], bands[len(bands) // 2]))
    ]
    if any(row["exact_miou"] for row in rows):
        columns.append(("exact<br>truth", of("exact_miou")))
    if any(row["unseen_miou"] for row in rows):
        columns.append(("images not<br>fitted on", of("unseen_miou")))
    columns += [
        ("pixel<br>accuracy", of("accuracy")),
        ("class<br>accuracy", of("class_accuracy")),
        ("weighted<br>IoU", of("fw_iou")),
        ("pixels<br>changed", of("changed_percent")),
        ("seconds<br>per image", of("seconds_per_image", 3)),
    ]
    if any(row["gap_percent"] for row in rows):
        columns.append(("certified<br>gap, %", of("gap_percent", 4)))
    if any(memory):
        columns.append(("peak<br>MiB", lambda _, place: words.number(memory[place], 0)))
    return columns


def _gains(name, rows, colours, figures):
    """Draw the gains of one pack and say each in a sentence."""
    gained = [row for row in rows if row["gain"]]
    said = [words.statement(row) for row in gained]
    said += [words.statement(row, "against_gain") for row in rows if row["against_gain"]]
    if not gained:
        return ""
    several = len({row["net"] for row in gained}) > 1
    labels = [f"{row['system']}\non {row['net']}" if several else row["system"] for row in gained]
    ends = ([float(row[key]) for row in gained] for key in ("gain", "gain_low", "gain_high"))
    svg = plots.gains(labels, *ends, [colours[row["system"]] for row in gained], f"{name}.gains")
    caption = "Gain and 95 % interval of a paired bootstrap over images, or over blocks of a video."
    drawn = _show(figures, f"{name}.gains", svg, caption, "Gains over the unary with their intervals")
    listed = element("ul", *(element("li", sentence) for sentence in said))
    return element("div", drawn, element("div", listed), class_="plots")


def _show(figures, name, svg, caption, label):
    figures[f"{name}.svg"] = svg
    return plot(svg, caption, label)


def _count(things, name):
    return f"{len(things)} {name}{'s' * (len(things) > 1)}"


def lines(curves, across, up):
    """Return the points of those curves, lists of entries by name, that have any: by name two lists of numbers."""
    points = {name: _points(entries, across, up) for name, entries in curves.items()}
    return {name: each for name, each in points.items() if each[0]}


def _points(entries, across, up):
    """Take the entries that hold both numbers; return them as two lists."""
    pairs = [
        (entry[across], entry[up]) for entry in entries if entry.get(across) is not None and entry.get(up) is not None
    ]
    return [x for x, _ in pairs], [y for _, y in pairs]


def _flatten(values, prefix=""):
    flat = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _plain(value):
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
