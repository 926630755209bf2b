"""The colour map of PASCAL VOC; places of many systems."""

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


def test_many_systems_go_round_and_leave_the_first_colour_alone():
    names = [f"system{number}" for number in range(20)]
    places = palette.places(names)
    assert list(places) == names
    assert [places[name] for name in names[: len(palette.SERIES)]] == list(range(len(palette.SERIES)))
    assert {places[name] for name in names[1:]} == set(range(1, len(palette.SERIES)))
