"""The colour map of PASCAL VOC."""

from pipeline.figures import palette


def test_known_colours_of_voc():
    colours = palette.voc()
    assert colours.shape == (256, 3)
    known = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 12: (64, 0, 128), 15: (192, 128, 128), 20: (0, 64, 128)}
    assert {label: tuple(colours[label].tolist()) for label in known} == known
    assert tuple(colours[255].tolist()) == (224, 224, 192)
    assert len({tuple(colour) for colour in colours.tolist()}) == 256


def test_hexadecimal():
    assert palette.hexadecimal((0, 128, 255)) == "#0080ff"
