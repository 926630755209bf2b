"""Numbers of the table in words and in cells."""

from pipeline.figures.page import element, text


def number(value, digits=2, sign=False):
    """Write a number of the table, given as text, with fewer digits; "–" if it is empty."""
    return f"{float(value):{'+' if sign else ''}z.{digits}f}".replace("-", "−") if value else "–"


def span(numbers):
    """Write numbers as the one that they all are, or from the least to the greatest."""
    found = sorted(set(numbers))
    return str(found[0]) if len(found) == 1 else f"{found[0]} to {found[-1]}"


def statement(row, column="gain"):
    """Say in one sentence what a run gained and whether chance of the images drawn could explain it.

    Parameters
    ----------
    row : dict of str to str
        A line of the table.
    column : {"gain", "against_gain"}
        Over the unary, or over the run named in "against".

    Returns
    -------
    str
        HTML.
    """
    value, low, high = (float(row[key]) for key in (column, f"{column}_low", f"{column}_high"))
    over = "the unary" if column == "gain" else f"<b>{text(row['against'])}</b>"
    who = f"<b>{text(row['system'])}</b> on {text(row['net'])}"
    interval = f"95&nbsp;% interval {number(str(low), sign=True)} to {number(str(high), sign=True)}"
    if low > 0:
        verdict = f"gains <span class='good'>{abs(value):.2f} points</span> over {over}"
        close = "the interval leaves 0 out"
    elif high < 0:
        verdict = f"loses <span class='bad'>{abs(value):.2f} points</span> against {over}"
        close = "the interval leaves 0 out"
    else:
        verdict = f"differs from {over} by {number(str(value), sign=True)} points"
        close = f"the interval holds 0, so these {row['images']} images show neither gain nor loss"
    return f"{who} {verdict} ({interval}): {close}."


def gain_cell(row):
    """Return the cell of the gain over the unary: coloured where the interval leaves 0 out, with the interval."""
    if not row["gain"]:
        return "–"
    low, high = float(row["gain_low"]), float(row["gain_high"])
    kind = "good" if low > 0 else "bad" if high < 0 else None
    ends = f"{number(row['gain_low'], sign=True)} to {number(row['gain_high'], sign=True)}"
    return element("span", number(row["gain"], sign=True), class_=kind) + element("small", ends)


def value(setting):
    """Write a setting or a fitted number briefly: scalars and short lists in full, arrays by size and range."""
    if hasattr(setting, "shape") and setting.shape != ():
        if setting.size <= 4:
            return text(", ".join(f"{item:.4g}" for item in setting.ravel().tolist()))
        size = " × ".join(map(str, setting.shape))
        return f"{float(setting.min()):.4g} to {float(setting.max()):.4g} " + element(
            "small", f"{size} numbers", class_="quiet"
        )
    if hasattr(setting, "item"):
        setting = setting.item()
    if isinstance(setting, float):
        return f"{setting:.5g}"
    if isinstance(setting, list | tuple):
        return text(", ".join(map(str, setting)))
    return text(setting)


def caption(system, own, unary):
    """Return what stands below a system's picture: mean IoU and accuracy of the image, gain over the unary.

    Parameters
    ----------
    system : str
    own, unary : pair of float
        Mean IoU and pixel accuracy, percent.
    """
    gain = own[0] - unary[0]
    change = f" ({gain:+z.1f})".replace("-", "−") if system != "unary" else ""
    return element("b", text(system)) + f"<br>mIoU {own[0]:.1f}{change}<br>accuracy {own[1]:.1f}"
