"""Mean field step by step: which iterations, the outline of a class, the scales, the tiles."""

import base64
import re
from io import BytesIO

import numpy as np
import pytest
from builders import sample
from PIL import Image

from pipeline.figures import page, stepwise


@pytest.mark.parametrize(
    ("iterations", "expected"), [(10, [0, 1, 2, 5, 10]), (5, [0, 1, 2, 5]), (3, [0, 1, 2, 3]), (1, [0, 1]), (0, [0])]
)
def test_the_last_iteration_is_shown_and_none_beyond_or_twice(iterations, expected):
    assert stepwise.shown(iterations) == expected


def test_the_outline_is_the_region_s_rim_but_not_the_image_s_edge():
    inside = np.zeros((8, 9), dtype=bool)
    inside[2:7, 4:] = True  # reaches the right edge
    image = np.random.default_rng(0).integers(0, 256, (8, 9, 3), dtype=np.uint8)
    drawn = (stepwise.outlined(image, inside) == stepwise.OUTLINE).all(axis=-1)
    rim = inside.copy()
    rim[3:6, 5:] = False
    np.testing.assert_array_equal(drawn, rim)
    np.testing.assert_array_equal(stepwise.outlined(image, inside)[~rim], 128 + image[~rim] // 2)


def test_outlines_of_large_images_are_thicker():
    inside = np.zeros((480, 400), dtype=bool)
    inside[:, 200:] = True
    drawn = stepwise.outlined(np.zeros((480, 400, 3), np.uint8), inside)
    assert (drawn == stepwise.OUTLINE).all(axis=-1).sum() == 4 * 480


def test_colours_run_from_black_to_pale_and_stop_at_the_ends():
    shades = stepwise.coloured(np.array([[-9.0, -2.0, 0.0, 3.0, 9.0]]), -2, 3)[0].astype(int).sum(axis=-1)
    assert shades[0] == shades[1] < 10 < shades[2] < 600 < shades[3] == shades[4]
    assert stepwise.coloured(np.zeros((2, 2)), 0, 0).shape == (2, 2, 3)


def steps(size):
    ramp = np.broadcast_to(np.linspace(0, 1, size[1]), size)
    return [(0, 4 * ramp - 9, ramp, 40.04), (1, 2 * ramp, 1 - ramp, 61.26)]


def test_a_scene_holds_both_rows_in_scales_of_their_own():
    made = sample("any", 3, size=(96, 128))
    html = stepwise.scene(made, 1, steps((96, 128)), "any <span>leaf</span>")
    assert re.findall('alt="(.*?)"', html) == [
        "photograph any",
        "outline of the truth",
        "score, iteration 0",
        "belief, iteration 0",
        "score, iteration 1",
        "belief, iteration 1",
    ]
    assert "score −9.0 to 2.0" in html and "belief 0 to 1" in html
    assert "<b>iteration 0</b><br>IoU 40.0" in html and "<b>iteration 1</b><br>IoU 61.3" in html
    assert html == stepwise.scene(made, 1, steps((96, 128)), "any <span>leaf</span>")
    assert len(html) < 60_000
    # The scale of the scores is one for all: at iteration 1 they are brighter everywhere.
    pictures = [np.asarray(Image.open(BytesIO(base64.b64decode(data)))) for data in re.findall('base64,([^"]+)', html)]
    sums = [picture.astype(int).sum(axis=-1) for picture in pictures]
    assert (sums[4] > sums[2]).all()
    assert sums[3][:, 0].max() < 40 < 500 < sums[3][:, -1].min()
    assert sums[5][:, -1].max() < 40 < 500 < sums[5][:, 0].min()


def test_pictures_of_large_images_are_small():
    made = sample("any", 3, size=(375, 500))
    html = stepwise.scene(made, 1, steps((375, 500)), "any")
    assert set(re.findall(r'width="(\d+)" height="(\d+)"', html)) == {("200", "150")}
    assert stepwise.LONGEST < page.LONGEST
