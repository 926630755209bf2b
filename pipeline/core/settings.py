"""Settings: one YAML file, checked by one JSON schema, then frozen.

The YAML files under ``config/`` hold every value; the schemas under ``workflow/schemas/`` say which keys
there are and what each may be. Neither this module nor any other supplies a default.
"""

import difflib
import math
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import jsonschema
import referencing
import yaml

from pipeline.core.errors import SettingsError

ROOT = Path(__file__).resolve().parents[2]
SCHEMAS = ROOT / "workflow" / "schemas"


class Settings(Mapping):
    """A frozen mapping whose keys are attributes too; nested mappings are Settings, lists are tuples."""

    def __init__(self, values):
        object.__setattr__(self, "_values", {key: _freeze(value) for key, value in values.items()})

    def __getitem__(self, key):
        return self._values[key]

    def __iter__(self):
        return iter(self._values)

    def __len__(self):
        return len(self._values)

    def __getattr__(self, key):
        if key.startswith("_") or key not in self._values:
            raise AttributeError(f"no setting named {key!r}; there are {', '.join(self._values)}")
        return self._values[key]

    def __setattr__(self, key, value):
        raise AttributeError(f"settings are frozen; change {key!r} in its YAML file")

    def __getstate__(self):
        return self._values

    def __setstate__(self, values):
        object.__setattr__(self, "_values", values)

    def __repr__(self):
        return f"Settings({self._values!r})"

    def plain(self):
        """Return the same values as plain dicts and lists, for JSON."""
        return _thaw(self)


def read(path, kind):
    """Read and check one settings file.

    Parameters
    ----------
    path : str or Path
        A YAML file.
    kind : {"config", "downloads", "packs", "nets", "systems"}
        What it describes; picks the schema, for the last three by the file's own key `reader`, `source`
        or `system`.

    Returns
    -------
    Settings

    Raises
    ------
    SettingsError
        If the file is missing, is not YAML, or holds something its schema does not allow.
    """
    path = Path(path)
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except FileNotFoundError:
        raise SettingsError(path, "no such file", f"settings of kind '{kind}'", _near_file(path)) from None
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(path, " ".join(str(error).split()), "a YAML mapping", "mend the file") from None
    return check(values, kind, where=path)


def check(values, kind, where):
    """Check plain values against the schema of their kind and freeze them; `where` names them in errors."""
    if not isinstance(values, dict):
        raise SettingsError(where, type(values).__name__, "a mapping of keys to values", "mend the file")
    _validate(values, schema_of(values, kind, where), where)
    if "network" in values:
        network = values["network"]
        _validate(network, _schema_by(network, "networks", "architecture", where), where, ("network",))
    return Settings(values)


def schema_of(values, kind, where):
    """Return the path of the schema that rules `values`."""
    by = {"packs": "reader", "nets": "source", "systems": "system"}.get(kind)
    return _schema_by(values, kind, by, where) if by else SCHEMAS / f"{kind}.schema.yaml"


def nearest(word, known):
    """Say which of `known` the user may have meant by `word`, or list them."""
    close = difflib.get_close_matches(str(word), [str(name) for name in known], n=1, cutoff=0.5)
    return f"did you mean '{close[0]}'?" if close else f"there are {', '.join(sorted(map(str, known)))}"


def _schema_by(values, folder, key, where):
    known = sorted(path.name.removesuffix(".schema.yaml") for path in (SCHEMAS / folder).glob("*.schema.yaml"))
    if key not in values:
        raise SettingsError(where, f"no key '{key}'", f"one of {', '.join(known)}", f"add the key '{key}'")
    if values[key] not in known:
        raise SettingsError(f"{where}, key '{key}'", f"'{values[key]}'", "a known name", nearest(values[key], known))
    return SCHEMAS / folder / f"{values[key]}.schema.yaml"


@cache
def _validator(path):
    return _Validator(_schema(path), registry=referencing.Registry(retrieve=_part))


def _schema(path):
    return yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)


def _part(name):
    """Find what a schema names by `$ref`: a path from the schemas' folder on."""
    return referencing.Resource.from_contents(_schema(SCHEMAS / name))


def _validate(values, schema, where, prefix=()):
    errors = sorted(_validator(schema).iter_errors(values), key=lambda error: len(error.absolute_path))
    if errors:
        raise _explain(errors[0], where, prefix)


def _explain(error, where, prefix):
    """Turn the first fault of a validation into the error form of the house."""
    path = [*prefix, *error.absolute_path]
    if error.validator == "additionalProperties":
        known = error.schema["properties"]
        unknown = sorted(set(error.instance) - set(known))[0]
        key = ".".join(map(str, [*path, unknown]))
        return SettingsError(f"{where}, key '{key}'", "an unknown key", "a known one", nearest(unknown, known))
    if error.validator == "required":
        missing = next(key for key in error.validator_value if key not in error.instance)
        key = ".".join(map(str, [*path, missing]))
        about = error.schema["properties"].get(missing, {}).get("description", "a value")
        return SettingsError(f"{where}, key '{key}'", "nothing", about, "add the key")
    if error.validator == "oneOf":
        return _explain_choice(error, where, path, prefix)
    key = ".".join(map(str, path)) or "the whole file"
    wanted = {
        "type": lambda: f"a value of type {error.validator_value}",
        "enum": lambda: f"one of {', '.join(map(str, error.validator_value))}",
    }.get(error.validator, lambda: f"{error.validator} {error.validator_value}")()
    about = error.schema.get("description")
    expected = f"{wanted} ({about})" if about else wanted
    return SettingsError(f"{where}, key '{key}'", repr(error.instance), expected, "mend the value")


def _explain_choice(error, where, path, prefix):
    """Explain a fault among alternatives: keys of which one is given, types, or mappings told apart by their `name`."""
    branches, given = error.validator_value, error.instance
    if all(set(branch) == {"required"} for branch in branches):
        keys = [branch["required"][0] for branch in branches]
        found = " and ".join(key for key in keys if key in given) or "nothing"
        key = ".".join(map(str, [*path, keys[0]]))
        return SettingsError(f"{where}, key '{key}'", found, f"one of {', '.join(keys)}", "give exactly one of them")
    if any("name" not in branch.get("properties", {}) for branch in branches):
        if deeper := next((fault for fault in error.context if len(fault.absolute_path) > len(error.absolute_path)), 0):
            return _explain(deeper, where, prefix)
        about = error.schema.get("description", "another value")
        return SettingsError(f"{where}, key '{'.'.join(map(str, path))}'", repr(given), about, "mend the value")
    rules = [branch["properties"]["name"] for branch in branches]
    names = [rule.get("enum") or [rule["const"]] for rule in rules]
    known = ", ".join(name for some in names for name in some)
    name = given.get("name") if isinstance(given, dict) else given
    meant = next((place for place, some in enumerate(names) if name in some and given is not name), None)
    if meant is not None:
        return _explain(next(fault for fault in error.context if fault.schema_path[0] == meant), where, prefix)
    key, expected = ".".join(map(str, path)), f"a mapping whose `name` is one of {known}"
    return SettingsError(f"{where}, key '{key}'", repr(given), expected, "mend the value")


def _near_file(path):
    known = sorted(file.name for file in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
    return nearest(path.name, known) if known else "check the path"


def _freeze(value):
    if isinstance(value, dict):
        return Settings(value)
    return tuple(map(_freeze, value)) if isinstance(value, list) else value


def _thaw(value):
    if isinstance(value, Settings):
        return {key: _thaw(item) for key, item in value.items()}
    return [_thaw(item) for item in value] if isinstance(value, tuple) else value


def _is_number(checker, value):
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_integer(checker, value):
    return isinstance(value, int) and not isinstance(value, bool)


# JSON knows no infinity, and takes 2.0 for an integer, which Python's range does not.
_Validator = jsonschema.validators.extend(
    jsonschema.Draft202012Validator,
    type_checker=jsonschema.Draft202012Validator.TYPE_CHECKER.redefine_many(
        {"number": _is_number, "integer": _is_integer}
    ),
)


class _Loader(yaml.SafeLoader):
    """YAML as people write it: 1e-3 is a number, and a key given twice is a fault."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=deep) for key, _ in node.value]
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice is not None:
            raise yaml.YAMLError(f"the key '{twice}' stands twice (line {node.start_mark.line + 1} on)")
        return super().construct_mapping(node, deep=deep)


_Loader.yaml_implicit_resolvers = {
    first: list(rules) for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)
