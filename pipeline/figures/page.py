"""Pieces of one self-contained page: elements, tables, pictures inside the file, and the page around them."""

import base64
import html
from io import BytesIO
from pathlib import Path
from string import Template

import numpy as np
from PIL import Image

from pipeline.figures.palette import SERIES

TEMPLATE = Path(__file__).with_name("page.html")
LONGEST = 320  # px; larger pictures are shown smaller, so that a page of many stays light
PHOTO_QUALITY = 88


def element(tag, *children, **attributes):
    """Return one HTML element; children are HTML already, values of attributes are escaped here.

    `class_` means the attribute "class"; an attribute of None is left out.
    """
    given = "".join(
        f' {key.rstrip("_")}="{html.escape(str(value))}"' for key, value in attributes.items() if value is not None
    )
    return f"<{tag}{given}>{''.join(children)}</{tag}>"


def text(value):
    """Return plain text made safe for HTML."""
    return html.escape(str(value), quote=False)


def table(header, rows):
    """Return a table that scrolls sideways by itself where it is too wide.

    Parameters
    ----------
    header : sequence of str
        HTML of the column heads.
    rows : sequence of (sequence of str) or str
        HTML of the cells, the first being the row's head; a str spans all columns.
    """
    head = element("tr", *(element("th", cell, scope="col") for cell in header))
    body = []
    for row in rows:
        if isinstance(row, str):
            cell = element("th", element("span", row), colspan=len(header), scope="rowgroup")
            body.append(element("tr", cell, class_="group"))
        else:
            first, *cells = row
            body.append(element("tr", element("th", first, scope="row"), *(element("td", cell) for cell in cells)))
    whole = element("table", element("thead", head), element("tbody", *body))
    return element("div", whole, class_="scroll", tabindex=0)


def facts(pairs):
    """Return a list of names and what they are: pairs of (plain text, HTML)."""
    return element("dl", *(element("div", element("dt", text(name)), element("dd", value)) for name, value in pairs))


def plot(svg, caption, label):
    """Return a figure that holds an SVG plot; `caption` is HTML, `label` what a screen reader says."""
    svg = svg.replace("<svg ", f'<svg role="img" aria-label="{html.escape(label)}" ', 1)
    return element("figure", svg, element("figcaption", caption), class_="plot")


def picture(array, label, colours=None, longest=LONGEST):
    """Return an image element with the picture inside.

    Parameters
    ----------
    array : ndarray of shape (H, W, 3) or, with `colours`, (H, W); uint8
        A photograph, or a map of indices.
    label : str
        What a screen reader says.
    colours : ndarray of shape (n, 3), uint8, optional
        Colour of each index; the map is stored as PNG, each pixel exact. A photograph is stored as JPEG.
    longest : int
        Longer side beyond which it is made smaller, px.
    """
    image = Image.fromarray(np.ascontiguousarray(array))
    scale = longest / max(image.size)
    if scale < 1:
        size = tuple(max(1, round(side * scale)) for side in image.size)
        image = image.resize(size, Image.Resampling.LANCZOS if colours is None else Image.Resampling.NEAREST)
    file = BytesIO()
    if colours is None:
        kind = "jpeg"
        image.save(file, kind, quality=PHOTO_QUALITY, subsampling=0)
    else:
        kind = "png"
        image.putpalette(np.asarray(colours, dtype=np.uint8).tobytes())
        image.save(file, kind, optimize=True)
    data = base64.b64encode(file.getvalue()).decode()
    size = {"width": image.width, "height": image.height}
    source = f"data:image/{kind};base64,{data}"
    return f'<img src="{source}" alt="{html.escape(label)}" width="{size["width"]}" height="{size["height"]}">'


def fill(title, body):
    """Return the whole page: `title` is plain text, `body` HTML."""
    template = Template(TEMPLATE.read_text(encoding="utf-8"))
    light, dark = (" ".join(f"--series-{place}: {pair[side]};" for place, pair in enumerate(SERIES)) for side in (0, 1))
    return template.substitute(title=text(title), body=body, light=light, dark=dark)
