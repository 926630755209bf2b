"""Settings files: what is read, and the one line that says what is wrong with them."""

import copy
import pickle
import re
import shutil

import observe
import pytest
import yaml

from pipeline import datasets
from pipeline.core import settings
from pipeline.core.errors import SettingsError
from pipeline.core.settings import ROOT, Settings

CONFIG = ROOT / "config"
KINDS = ("packs", "nets", "systems")


def write(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def edited(tmp_path, source, *edits):
    """Copy a file of config/ with the line of each (key, new) replaced, whatever its value there."""
    text = (CONFIG / source).read_text(encoding="utf-8")
    for key, new in edits:
        text, count = re.subn(rf"^( *){re.escape(key)}:.*$", lambda found, new=new: found[1] + new, text, flags=re.M)
        assert count == 1
    return write(tmp_path, text)


def refusal(path, kind):
    said = observe.refusal(lambda: settings.read(path, kind), SettingsError)
    assert said.startswith(str(path))
    return said


@pytest.mark.parametrize(
    "path",
    [
        path
        for home in (CONFIG, ROOT / "benchmarks/photographs")
        for kind in KINDS
        for path in sorted((home / kind).glob("*.yaml"))
    ],
    ids=str,
)
def test_every_file_is_valid(path):
    assert settings.read(path, path.parent.name)


def test_the_config_is_valid():
    assert settings.read(CONFIG / "config.yaml", "config").seed == 0


def test_an_unknown_key_names_the_nearest(tmp_path):
    path = edited(tmp_path, "systems/convcrf.yaml", ("theta_beta", "theta_betta: 20.0"))
    assert "key 'theta_betta': found an unknown key" in refusal(path, "systems")
    assert "did you mean 'theta_beta'?" in refusal(path, "systems")


def test_an_unknown_key_inside_another_is_named_with_its_way(tmp_path):
    path = edited(tmp_path, "nets/resnet18.yaml", ("hue", "hue: 0.02\n      sharpnes: 1"))
    assert "key 'train.augmentation.jitter.sharpnes'" in refusal(path, "nets")


def test_a_missing_key_is_named_with_what_it_means(tmp_path):
    path = edited(tmp_path, "systems/convcrf.yaml", ("theta_gamma", "#"))
    assert "key 'theta_gamma': found nothing, expected px; add the key" in refusal(path, "systems")


@pytest.mark.parametrize(
    ("source", "key", "new", "said"),
    [
        ("systems/convcrf.yaml", "blur", "blur: much", "key 'blur': found 'much', expected a value of type integer"),
        ("systems/convcrf.yaml", "blur", "blur: true", "key 'blur': found True"),
        ("systems/convcrf.yaml", "blur", "blur: 2.5", "key 'blur': found 2.5"),
        ("systems/convcrf.yaml", "theta_beta", "theta_beta: 0", "key 'theta_beta': found 0, expected exclusiveM"),
        ("systems/convcrf.yaml", "start", "start: max", "expected one of softmax, log_softmax"),
        ("nets/resnet18.yaml", "depth", "depth: 19", "key 'network.depth': found 19, expected one of 18, 34, 50"),
        ("nets/resnet18.yaml", "crop", "crop: [112]", "key 'train.crop'"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(tmp_path, source, key, new, said):
    path = edited(tmp_path, source, (key, new))
    assert said in refusal(path, source.split("/")[0])


@pytest.mark.parametrize(
    ("key", "new", "said"),
    [
        ("epochs", "epochs: 12\n  iterations: 9", "key 'train.epochs': found epochs and iterations, expected one of"),
        ("epochs", "#", "key 'train.epochs': found nothing, expected one of epochs, iterations; give exactly one"),
        ("epochs", "iterations: 0", "key 'train.iterations': found 0"),
        ("schedule", "schedule: poly", "key 'train.schedule': found 'poly', expected a mapping whose `name` is one of"),
        ("schedule", "schedule: {name: pole}", "one of constant, poly, squared_poly, step"),
        ("schedule", "schedule: {name: [poly]}", "one of constant, poly, squared_poly, step"),
        ("schedule", "schedule: {power: 1}", "one of constant, poly, squared_poly, step"),
        ("schedule", "schedule: {name: poly}", "key 'train.schedule.power': found nothing, expected exponent"),
        ("schedule", "schedule: {name: poly, powr: 1}", "did you mean 'power'?"),
        ("schedule", "schedule: {name: constant, power: 1}", "key 'train.schedule.power': found an unknown key"),
        ("schedule", "schedule: {name: step, every: 0, factor: 1}", "key 'train.schedule.every': found 0"),
        ("optimiser", "optimiser: {name: sgd, momentum: 1}", "key 'train.optimiser.momentum': found 1"),
    ],
)
def test_a_fault_among_alternatives_is_that_of_the_one_meant(tmp_path, key, new, said):
    assert said in refusal(edited(tmp_path, "nets/resnet18.yaml", (key, new)), "nets")


@pytest.mark.parametrize("value", [".nan", ".inf"])
def test_numbers_must_be_finite(tmp_path, value):
    path = edited(tmp_path, "systems/convcrf.yaml", ("temperature", f"temperature: {value}"))
    assert "key 'temperature'" in refusal(path, "systems")


def test_a_whole_number_written_as_a_float_is_a_whole_number(tmp_path):
    """YAML reads 1e1 as a float; what counts pixels, epochs or images must not get one."""
    path = edited(tmp_path, "systems/convcrf.yaml", ("epochs", "epochs: 1e1"), ("blur", "blur: 2.0"))
    try:
        found = settings.read(path, "systems")
    except SettingsError:
        return
    assert isinstance(found.fit.epochs, int)
    assert isinstance(found.blur, int)


@pytest.mark.parametrize("text", ["2e-3", "2E-3", "+2.e-3", ".2e-2", "2.0e-3", "0.002"])
def test_numbers_are_written_as_people_do(tmp_path, text):
    path = edited(tmp_path, "nets/resnet18.yaml", ("learning_rate", f"learning_rate: {text}"))
    assert settings.read(path, "nets").train.learning_rate == 0.002


def test_a_key_given_twice_is_a_fault(tmp_path):
    path = edited(tmp_path, "systems/convcrf.yaml", ("blur", "blur: 2\nblur: 4"))
    assert "the key 'blur' stands twice" in refusal(path, "systems")


def test_a_key_given_twice_inside_another_is_a_fault(tmp_path):
    path = edited(tmp_path, "systems/convcrf.yaml", ("batch", "batch: 6\n  batch: 8"))
    assert "the key 'batch' stands twice" in refusal(path, "systems")


@pytest.mark.parametrize("text", ["", "just words", "- a\n- b", "a: [", "\ta: 1"])
def test_what_is_no_mapping_is_refused(tmp_path, text):
    assert "mend the file" in refusal(write(tmp_path, text), "systems")


def test_bytes_that_are_no_text_are_refused(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"system: \xff\xfe")
    assert "expected a YAML mapping" in refusal(path, "systems")


def test_a_missing_file_names_the_nearest(tmp_path):
    shutil.copy(CONFIG / "systems" / "convcrf.yaml", tmp_path)
    assert "found no such file" in refusal(tmp_path / "concrf.yaml", "systems")
    assert "did you mean 'convcrf.yaml'?" in refusal(tmp_path / "concrf.yaml", "systems")
    assert "check the path" in refusal(tmp_path / "no" / "convcrf.yaml", "systems")


def test_a_folder_is_no_settings_file(tmp_path):
    refusal(tmp_path, "systems")


@pytest.mark.parametrize(
    ("kind", "key", "word", "close"),
    [
        ("packs", "reader", "embeddd", "embedded"),
        ("systems", "system", "convcrv", "convcrf"),
        ("nets", "source", "traim", "train"),
    ],
)
def test_an_unknown_name_names_the_nearest(tmp_path, kind, key, word, close):
    said = refusal(write(tmp_path, f"{key}: {word}"), kind)
    assert f"key '{key}': found '{word}'" in said
    assert f"did you mean '{close}'?" in said
    assert f"no key '{key}'" in refusal(write(tmp_path, "trimap: void"), kind)


def test_an_unknown_architecture_names_the_nearest(tmp_path):
    path = edited(tmp_path, "nets/resnet18.yaml", ("architecture", "architecture: resnet_fnc"))
    assert "did you mean 'resnet_fcn'?" in refusal(path, "nets")


def test_an_unknown_reader_is_refused_where_it_is_looked_for():
    with pytest.raises(SettingsError, match=r"found 'vok', expected a known reader; did you mean 'voc'\?"):
        datasets.read(Settings({"reader": "vok"}), seed=0)


def test_a_part_of_a_reader_is_no_reader():
    with pytest.raises(SettingsError, match="expected a known reader"):
        datasets.read(Settings({"reader": "embedded_shapes"}), seed=0)


# The frozen form


def test_settings_are_frozen():
    found = settings.read(CONFIG / "systems" / "convcrf.yaml", "systems")
    with pytest.raises(AttributeError, match="settings are frozen; change 'blur'"):
        found.blur = 4
    with pytest.raises(TypeError):
        found["blur"] = 4
    assert isinstance(found.fit, Settings)
    assert isinstance(found.fit.parameters, Settings)


def test_a_wrong_attribute_lists_those_there_are():
    with pytest.raises(AttributeError, match="no setting named 'blurx'; there are blur, size"):
        _ = Settings({"blur": 1, "size": 2}).blurx


def test_settings_travel_and_come_back_plain():
    values = yaml.safe_load((CONFIG / "systems" / "convcrf.yaml").read_text(encoding="utf-8"))
    found = settings.read(CONFIG / "systems" / "convcrf.yaml", "systems")
    assert found.plain() == values
    assert pickle.loads(pickle.dumps(found)) == found == copy.deepcopy(found)
    assert pickle.loads(pickle.dumps(Settings({}))) == Settings({})


def test_a_value_of_a_type_that_is_none_of_several(tmp_path):
    path = edited(tmp_path, "packs/camvid.yaml", ("colours", "colours: 5"))
    assert "key 'colours': found 5, expected none where labels are values; or the colour of every class" in refusal(
        path, "packs"
    )


def test_a_fault_inside_one_of_several_types_is_named_with_its_way(tmp_path):
    path = edited(tmp_path, "packs/msrc21.yaml", ("cow", "cow: [0, 0]"))
    assert "key 'colours.cow': found [0, 0], expected minItems 3" in refusal(path, "packs")
