"""A JSON Schema as rows of text: each field with its type, its limits and its meaning."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_LIMITS = {
    "format": "{}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minimum": "at least {}",
    "maximum": "at most {}",
    "minItems": "at least {} items",
    "maxItems": "at most {} items",
    "pattern": "matches {}",
    "default": "default {}",
}


@dataclass(frozen=True, slots=True)
class FieldRow:
    """One field of an object, or one parameter."""

    name: str
    type: str
    limits: str
    text: str
    required: bool


def field_rows(schema: Mapping[str, Any], components: Mapping[str, Any]) -> list[FieldRow]:
    """The fields of an object's schema, which may be a reference; none for anything else."""
    found = _resolve(schema, components)
    required = found.get("required", ())
    return [
        FieldRow(name, type_name(one), limits(one), _meaning(one), name in required)
        for name, one in found.get("properties", {}).items()
    ]


def type_name(schema: Mapping[str, Any]) -> str:
    """The type of a value, in a few words.

    >>> type_name({"anyOf": [{"type": "string"}, {"type": "null"}]})
    'string or null'
    >>> type_name({"type": "array", "items": {"$ref": "#/components/schemas/EventView"}})
    'list of EventView'
    """
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "const" in schema:
        return f"“{schema['const']}”"
    if "enum" in schema:
        return ", ".join(map(str, schema["enum"]))
    if "anyOf" in schema:
        return " or ".join(map(type_name, schema["anyOf"]))
    kind = schema.get("type", "any")
    if kind == "array":
        return f"list of {type_name(schema.get('items', {}))}"
    return " or ".join(kind) if isinstance(kind, list) else str(kind)


def limits(schema: Mapping[str, Any]) -> str:
    """The limits of a value, in words.

    >>> limits({"type": "string", "minLength": 1, "maxLength": 9})
    'at least 1 characters, at most 9 characters'
    """
    return ", ".join(_limits(schema))


def _limits(schema: Mapping[str, Any]) -> Iterator[str]:
    for name, words in _LIMITS.items():
        if schema.get(name) is not None:
            yield words.format(schema[name])
    for one in schema.get("anyOf", ()):
        yield from _limits(one)


def _meaning(schema: Mapping[str, Any]) -> str:
    told = (one.get("description", "") for one in (schema, *schema.get("anyOf", ())))
    return next(filter(None, told), "")


def _resolve(schema: Mapping[str, Any], components: Mapping[str, Any]) -> Mapping[str, Any]:
    name = str(schema.get("$ref", "")).rpartition("/")[2]
    return components.get(name, schema) if name else schema
