"""Which source files a module rests on, read from its imports, and one hash over them.

Snakemake cannot see that a rule's Python module changed, so each rule carries this hash as a parameter:
an edit reruns what rests on the edited file, and nothing else.
"""

import ast
import hashlib
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]


@cache
def source_hash(*modules):
    """Return 12 hexadecimal digits over the sources that `modules` ("pipeline.refine", …) import, and theirs.

    A module found by name at run time (a system, a network, a reader) is not seen here: name it too.
    """
    content = hashlib.sha256()
    for path in sorted(set().union(*map(sources, modules))):
        content.update(str(path.relative_to(PACKAGE)).encode() + b"\0" + path.read_bytes())
    return content.hexdigest()[:12]


def sources(module):
    """Return the set of files of this package that `module` imports, directly or through others."""
    found, waiting = set(), [module]
    while waiting:
        path = _file(waiting.pop())
        if path is None or path in found:
            continue
        found.add(path)
        waiting.extend(_imports(path))
        # What a module reads stands beside it: a kernel's CUDA source, a page's frame.
        found.update(file for ending in ("*.cu", "*.html") for file in path.parent.glob(ending))
    return found


def _file(module):
    """Return the file of a dotted name inside the package, or None if it is something else."""
    parts = module.split(".")
    if parts[0] != PACKAGE.name:
        return None
    path = PACKAGE.joinpath(*parts[1:])
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


@cache
def _imports(path):
    """List every dotted name `path` imports, with the packages above each, which Python runs too."""
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module] + [f"{node.module}.{alias.name}" for alias in node.names]
    return [".".join(parts[: i + 1]) for name in names for parts in [name.split(".")] for i in range(len(parts))]
