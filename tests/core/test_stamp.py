"""Stamps: what they hold, that they can be told apart, that no time or path is in them."""

import json

from pipeline.core import closure, settings, stamp
from pipeline.core.settings import Settings


def made(**more):
    chosen = Settings({"system": "convcrf", "fit": {"parameters": ["theta_beta"]}})
    return stamp.make(
        "refine", inputs={"pack": "abc"}, settings=chosen, modules=["pipeline.systems.convcrf"], threads=1, **more
    )


def test_a_stamp_holds_what_the_output_rests_on():
    found = made(seed=3)
    assert found["stage"] == "refine"
    assert found["source"] == closure.source_hash("pipeline.refine", "pipeline.systems.convcrf")
    assert found["inputs"] == {"pack": "abc"}
    assert found["settings"] == {"system": "convcrf", "fit": {"parameters": ["theta_beta"]}}
    assert (found["seed"], found["threads"]) == (3, 1)
    assert found["versions"].keys() >= {"python", "torch", "numpy", "zarr"}
    assert found["commit"] == "unknown" or found["commit"].rstrip("+").isalnum()


def test_no_path_is_in_a_stamp():
    assert str(settings.ROOT) not in stamp.to_json(made())


def test_a_stamp_survives_json():
    assert json.loads(stamp.to_json(made())) == made()
    assert "\n" not in stamp.to_json(made())
    assert stamp.to_json({"b": 1, "a": "ü"}) == '{"a": "ü", "b": 1}'


def test_the_same_work():
    assert stamp.same_work(made(), made() | {"commit": "another"})
    assert not stamp.same_work(made(), made(seed=1))
    assert not stamp.same_work(made(), made() | {"source": "another"})
    assert not stamp.same_work(made(), made() | {"inputs": {"pack": "abe"}})


def test_outside_git_the_commit_is_unknown(tmp_path, monkeypatch):
    monkeypatch.setattr(stamp, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert stamp.commit() == "unknown"
