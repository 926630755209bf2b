"""Which files a stage rests on: those it imports, no others; an edit of one changes the hash."""

import shutil

import pytest

from pipeline.core import closure


def names(module):
    return {str(path.relative_to(closure.PACKAGE)) for path in closure.sources(module)}


def test_refine_rests_on_what_it_imports():
    found = names("pipeline.refine")
    assert found >= {
        "refine.py",
        "__init__.py",
        "core/stage.py",
        "core/errors.py",
        "formats/packs.py",
        "formats/stores.py",
        "systems/__init__.py",
    }


def test_refine_rests_on_no_other_stage_nor_on_what_they_alone_need():
    found = names("pipeline.refine")
    assert not found & {"report.py", "train.py", "cache.py", "fit.py", "formats/weights.py", "metrics/overlap.py"}
    assert not any(name.startswith(("nets/", "figures/", "datasets/")) for name in found)


def test_systems_are_found_by_name_and_named_too():
    assert "systems/convcrf.py" not in names("pipeline.refine")
    assert names("pipeline.systems.convcrf") >= {
        "systems/convcrf.py",
        "algorithms/mean_field.py",
        "kernels/window/reference.py",
    }
    assert closure.source_hash("pipeline.refine") != closure.source_hash("pipeline.refine", "pipeline.systems.convcrf")


def test_files_read_beside_a_module_count():
    """The page of the report is text that page.py reads."""
    assert "figures/page.html" in names("pipeline.report")


def test_foreign_modules_have_no_sources():
    assert closure.sources("numpy.linalg") == set()
    assert closure.sources("pipeline.nowhere") == set()


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """A copy of the package in which files can be edited."""

    def clear():
        closure.source_hash.cache_clear()
        closure._imports.cache_clear()

    copy = tmp_path / "pipeline"
    shutil.copytree(closure.PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(closure, "PACKAGE", copy)
    clear()
    yield copy, clear
    clear()


@pytest.mark.parametrize(
    ("edited", "changes"),
    [
        ("refine.py", True),
        ("core/stage.py", True),
        ("formats/stores.py", True),
        ("kernels/window/reference.py", True),
        ("report.py", False),
        ("nets/resnet_fcn.py", False),
        ("datasets/embedded.py", False),
    ],
)
def test_an_edit_changes_the_hash_of_what_rests_on_it(copied, edited, changes):
    copy, clear = copied
    modules = "pipeline.refine", "pipeline.systems.convcrf"
    before = closure.source_hash(*modules)
    with (copy / edited).open("a", encoding="utf-8") as file:
        file.write("\n# a remark\n")
    clear()
    assert (closure.source_hash(*modules) != before) is changes


def test_a_new_cuda_source_beside_a_module_counts(copied):
    copy, clear = copied
    before = closure.source_hash("pipeline.systems.convcrf")
    (copy / "kernels" / "window" / "kernel.cu").write_text("// nothing yet\n", encoding="utf-8")
    clear()
    assert closure.source_hash("pipeline.systems.convcrf") != before


def test_the_hash_does_not_depend_on_the_order():
    one, other = "pipeline.refine", "pipeline.systems.convcrf"
    assert closure.source_hash(one, other) == closure.source_hash(other, one)
    assert len(closure.source_hash(one)) == 12
