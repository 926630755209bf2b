"""The page: escaped, self-contained, with exact pictures; numbers in words."""

import base64
import re
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from pipeline.figures import page, palette, panels, words


def decode(html):
    data = re.search(r"base64,([^\"]+)", html)[1]
    return Image.open(BytesIO(base64.b64decode(data)))


def test_a_map_keeps_every_pixel():
    array = np.random.default_rng(0).choice([0, 1, 20, 255], size=(30, 40)).astype(np.uint8)
    image = decode(page.picture(array, "map", palette.voc()))
    np.testing.assert_array_equal(np.asarray(image.convert("RGB")), palette.voc()[array])


def test_large_pictures_are_made_smaller():
    assert decode(page.picture(np.zeros((960, 480, 3), np.uint8), "photograph")).size == (160, 320)
    assert decode(page.picture(np.zeros((640, 64), np.uint8), "map", palette.voc())).size == (32, 320)


def test_text_is_escaped_and_the_page_filled():
    html = page.fill("A & B", page.element("p", page.text("<script>"), title='"quoted"'))
    assert "<title>A &amp; B</title>" in html
    assert '<p title="&quot;quoted&quot;">&lt;script&gt;</p>' in html
    assert "$" not in html
    assert "--series-7: #9c2f36;" in html


def test_rows_that_span_and_rows_of_cells():
    html = page.table(["a", "b"], ["together", ["1", "2"]])
    assert '<th colspan="2" scope="rowgroup"><span>together</span></th>' in html
    assert '<th scope="row">1</th><td>2</td>' in html


ROW = {"system": "convcrf", "net": "resnet18", "images": "40", "against": "resnet18/fullcrf"}


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        (("1.5", "0.5", "2.5"), ("gains <span class='good'>1.50 points</span> over the unary", "leaves 0 out")),
        (("-1.5", "-2.5", "-0.5"), ("loses <span class='bad'>1.50 points</span> against the unary", "−2.50 to −0.50")),
        (("0.5", "-0.5", "1.5"), ("differs from the unary by +0.50 points", "holds 0, so these 40 images")),
        (("0.0", "0.0", "0.0"), ("differs from the unary by +0.00 points", "holds 0")),
    ],
)
def test_gains_in_words(values, parts):
    said = words.statement(ROW | dict(zip(("gain", "gain_low", "gain_high"), values, strict=True)))
    assert all(part in said for part in parts)


def test_values_are_written_briefly():
    assert words.value(np.float32(31.5)) == "31.5"
    assert words.value((1, 2)) == "1, 2"
    assert words.value(np.array([1.0, 0.25])) == "1, 0.25"
    assert words.value(np.eye(5)).startswith("0 to 1 <small")
    assert words.number("") == "–"
    assert words.number("-0.0001", sign=True) == "+0.00"


def test_panels_are_enlarged_by_whole_pixels():
    one = np.random.default_rng(1).integers(0, 255, size=(20, 30, 3), dtype=np.uint8)
    image = np.asarray(Image.open(BytesIO(panels.side_by_side([one, one]))))
    assert image.shape == (20 * 8, 2 * 30 * 8 + panels.GAP, 3)
    np.testing.assert_array_equal(image[::8, : 30 * 8 : 8], one)


def test_entropy_is_black_where_sure_and_palest_where_not():
    with np.errstate(invalid="ignore"):
        sure = np.log(np.array([[[0.5, 1 - 1e-9]], [[0.5, 1e-9]]]))
    shown = panels.entropy(sure).sum(axis=-1)
    assert shown[0, 1] < 10 < 600 < shown[0, 0]
