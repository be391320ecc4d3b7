"""Reads a JSON or YAML file as plain JSON values."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import yaml

_MAX_DEPTH = 32
_TOO_DEEP = f"it is nested more than {_MAX_DEPTH} levels deep"
_find_surrogate = re.compile("[\ud800-\udfff]").search


def read_plain_values(path: Path) -> Any:
    """The content of the file. `.json` is JSON, `.yaml` and `.yml` are YAML.

    Raises OSError, and ValueError with a sentence for a file that is neither, names a key twice, or
    has a value that JSON does not have.
    """
    parsers = {".json": _json, ".yaml": _yaml, ".yml": _yaml}
    parse = parsers.get(path.suffix.lower())
    if parse is None:
        raise ValueError("name it .json, .yaml or .yml")
    try:
        found = parse(path.read_text("utf-8-sig"))
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8") from None
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    _check(found, "", 0)
    return found


def _json(text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_object, parse_int=_integer)
    except json.JSONDecodeError as error:
        raise ValueError(f"line {error.lineno} is not JSON: {error.msg}") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = _repeated([key for key, _ in pairs])
        raise ValueError(f"the key {twice} comes twice in one object")
    return found


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError("it has an integer of too many digits") from None


def _yaml(text: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506  (a SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}" if mark else "it"
        problem = getattr(error, "problem", None) or "it can't be read"
        raise ValueError(f"{where} is not YAML: {problem}") from None


class _Loader(yaml.SafeLoader):
    """A SafeLoader that refuses a key that comes twice, and a value that its tag does not fit."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:  # noqa: FBT001, FBT002
        """The value of what is written."""
        try:
            return super().construct_object(node, deep=deep)
        except (AttributeError, LookupError, ValueError) as error:
            problem = f"it is no {node.tag.rpartition(':')[2]}"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark) from error

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """The mapping as it is written."""
        # Later, when it is constructed, a merge key has added the keys of other mappings.
        node = super().compose_mapping_node(anchor)
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if len(set(keys)) < len(keys):
            raise yaml.MarkedYAMLError(
                problem=f"the key {_repeated(keys)} comes twice", problem_mark=node.start_mark
            )
        return node


def _repeated(keys: list[str]) -> str:
    return next(key for key in keys if keys.count(key) > 1)


def _check(value: Any, place: str, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise ValueError(_TOO_DEEP)
    if isinstance(value, dict):
        for key, one in value.items():
            if not isinstance(key, str) or not _is_json(key):
                where = place or "its top"
                raise ValueError(f"{where} has the key {key!a}; write it in quotes")
            _check(one, f"{place}.{key}".removeprefix("."), depth + 1)
    elif isinstance(value, list):
        for index, one in enumerate(value):
            _check(one, f"{place}[{index}]", depth + 1)
    elif not _is_json(value):
        raise ValueError(f"{place} is {value!a}, which JSON does not have; write it in quotes")


def _is_json(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, str):
        return value.isascii() or not _find_surrogate(value)
    return value is None or isinstance(value, bool | int)
