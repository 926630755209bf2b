"""Imports point one way, and only formats and datasets open data files; read from the sources."""

import ast

import pytest

from pipeline.core.closure import PACKAGE

FOLDERS = (
    "algorithms",
    "closeups",
    "core",
    "datasets",
    "figures",
    "formats",
    "kernels",
    "metrics",
    "nets",
    "systems",
    "tools",
)
STAGES = tuple(sorted(path.stem for path in PACKAGE.glob("[a-z]*.py")))
MAY_IMPORT = {
    "core": {"core"},
    "datasets": {"datasets", "core"},
    "formats": {"formats", "core"},
    "nets": {"nets", "algorithms", "kernels", "core"},
    "kernels": {"kernels", "core"},
    "metrics": {"metrics", "core"},
    "figures": {"figures", "core"},
    "algorithms": {"algorithms", "kernels", "metrics", "core"},
    "systems": {"systems", "algorithms", "kernels", "nets", "metrics", "core"},
    "closeups": set(FOLDERS) - {"datasets", "tools"},
    "tools": set(FOLDERS),
    "stage": set(FOLDERS),
}
OPENERS = {"h5py", "zarr", "safetensors", "PIL"}
CALLS = {"load", "loadtxt", "genfromtxt", "fromfile", "memmap", "imread"}
SOURCES = sorted(PACKAGE.rglob("*.py"))


def name_of(path):
    return str(path.relative_to(PACKAGE))


def part_of(path):
    """Return the folder of a file, or "stage"; the package's own __init__ and __main__ count as stages."""
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else "stage"


def tree(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(path):
    """List the dotted names that a file imports, relative ones refused."""
    names = []
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}, line {node.lineno}: a relative import"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def parts_imported(path):
    """Return the parts of the package that a file imports: folders, or names of stages."""
    dotted = [name.split(".") for name in imported(path)]
    return {names[1] for names in dotted if names[0] == PACKAGE.name and len(names) > 1}


def test_the_folders_are_those_known_here():
    folders = {path.parent.relative_to(PACKAGE).parts[0] for path in SOURCES if path.parent != PACKAGE}
    assert folders == set(FOLDERS)


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_imports_point_one_way(path):
    allowed = MAY_IMPORT[part_of(path)] | ({"__init__"} if part_of(path) == "stage" else set())
    assert parts_imported(path) <= allowed


@pytest.mark.parametrize(
    "path", [path for path in SOURCES if part_of(path) not in ("formats", "datasets")], ids=name_of
)
def test_only_formats_and_datasets_open_data_files(path):
    found = {name.split(".")[0] for name in imported(path)} & OPENERS
    # Figures draw and encode pictures for the page; they read none, which the calls below would show.
    assert found <= ({"PIL"} if part_of(path) == "figures" else set())
    calls = [node.func for node in ast.walk(tree(path)) if isinstance(node, ast.Call)]
    opened = [
        f"{call.value.id}.{call.attr}"
        for call in calls
        if isinstance(call, ast.Attribute) and isinstance(call.value, ast.Name)
        if (call.value.id, call.attr) == ("Image", "open") or (call.value.id in ("np", "torch") and call.attr in CALLS)
    ]
    assert opened == []


@pytest.mark.parametrize("path", [path for path in SOURCES if part_of(path) not in ("stage", "tools")], ids=name_of)
def test_only_stages_read_a_command_line_or_print(path):
    names = {node.id for node in ast.walk(tree(path)) if isinstance(node, ast.Name)}
    assert "print" not in names
    if name_of(path) != "core/stage.py":
        assert "argparse" not in {name.split(".")[0] for name in imported(path)}
