"""A JSON Schema as a tree: its subschemas, its references, and what may not be in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

Schema = Mapping[str, Any]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_NAMED = frozenset({"properties", "patternProperties", "$defs", "dependentSchemas"})
MAX_CHECKS = 4_096
# A body of 1 MiB has about so many values. An alternative takes 0.1 µs, a remainder 10 µs.
_MOST_VALUES = 350_000
_MOST_REPEATS = 10_000_000
_REMAINDER_COST = 100
_REPEATED = {
    **dict.fromkeys(("items", "contains", "unevaluatedItems"), "maxItems"),
    **dict.fromkeys(("additionalProperties", "patternProperties"), "maxProperties"),
    **dict.fromkeys(("unevaluatedProperties", "propertyNames"), "maxProperties"),
}
# Their subschemas are of the same value as the schema that they stand in.
_SAME_VALUE = ("allOf", "anyOf", "oneOf", "if", "then", "else", "dependentSchemas")
_DATA = frozenset({"const", "enum", "examples", "default"})
_ELSEWHERE = ("$id", "$anchor", "$dynamicRef", "$dynamicAnchor", "$vocabulary")


def subschemas(schema: Schema) -> Iterator[Schema]:
    """The schema and every schema in it."""
    yield schema
    for key, value in schema.items():
        for child in _children(key, value):
            if isinstance(child, Mapping):
                yield from subschemas(child)


def _children(keyword: str, value: Any) -> Iterator[Any]:
    if keyword in _NAMED:
        yield from value.values()
    elif isinstance(value, list) and keyword not in _DATA:
        yield from value
    elif keyword not in _DATA:
        yield value


def property_names(schema: Schema) -> frozenset[str]:
    """Every name under `properties`, at any depth."""
    return frozenset(name for one in subschemas(schema) for name in one.get("properties", ()))


def rewritten(schema: Schema, base: str) -> dict[str, Any]:
    """The schema as it reads at `base` of another document: its references start there.

    >>> rewritten({"items": {"$ref": "#/$defs/row"}}, "#/components/schemas/Rows")
    {'items': {'$ref': '#/components/schemas/Rows/$defs/row'}}
    """
    return {key: _moved(key, value, base) for key, value in schema.items()}


def _moved(keyword: str, value: Any, base: str) -> Any:
    if keyword == "$ref":
        return f"{base}{value[1:]}"
    if keyword in _DATA:
        return value
    if keyword in _NAMED:
        return {name: _moved("", one, base) for name, one in value.items()}
    if isinstance(value, list):
        return [_moved("", one, base) for one in value]
    return rewritten(value, base) if isinstance(value, Mapping) else value


def resolve(root: Schema, reference: str) -> Any:
    """The target of a reference such as `#/$defs/city`. Raises ValueError for nothing."""
    found: Any = root
    try:
        for part in unquote(reference).split("/")[1:]:
            key = part.replace("~1", "/").replace("~0", "~")
            found = found[int(key)] if isinstance(found, list) else found[key]
    except (KeyError, IndexError, TypeError, ValueError):
        raise ValueError(f"the $ref {reference} points to nothing in the schema") from None
    return found


def checks_of_value(root: Schema, schema: Any) -> Iterator[Schema]:
    """The schema and every one that it applies to the same value; nothing for True or False."""
    if isinstance(schema, Mapping):
        yield schema
        if "$ref" in schema:
            yield from checks_of_value(root, resolve(root, schema["$ref"]))
        for keyword in _SAME_VALUE:
            for child in _children(keyword, schema[keyword]) if keyword in schema else ():
                yield from checks_of_value(root, child)


def check_references(root: Schema) -> None:
    """Raise ValueError unless the schema stands alone and every value is checked in bounded time.

    It may have no reference to elsewhere, none to nothing, and none to a schema around it.
    """
    for one in subschemas(root):
        if one.get("$schema", DIALECT) not in (DIALECT, f"{DIALECT}#"):
            raise ValueError(f"the only $schema that is taken is {DIALECT}; leave it out")
        for keyword in _ELSEWHERE:
            if keyword in one:
                raise ValueError(f"{keyword} is not taken; use $ref with #/$defs/…")
    _follow(root, root, open_references=frozenset({"#"}), followed=set())
    if _checks(root, root, {}) > MAX_CHECKS:
        raise ValueError(f"its references lead to more than {MAX_CHECKS} schemas; use fewer $ref")
    if _repeats(root, root, 1) > _MOST_REPEATS:
        raise ValueError(
            "many values take too long to check by oneOf, anyOf or multipleOf; "
            "write maxItems or maxProperties"
        )


def _follow(
    root: Schema, schema: Schema, *, open_references: frozenset[str], followed: set[str]
) -> None:
    for one in subschemas(schema):
        reference = one.get("$ref")
        if reference is None or reference in followed:
            continue
        if not reference.startswith("#"):
            raise ValueError(f"the $ref {reference} leaves the schema; write #/$defs/…")
        if reference in open_references:
            raise ValueError(f"the $ref {reference} makes the schema contain itself")
        target = resolve(root, reference)
        if isinstance(target, Mapping):
            _follow(root, target, open_references=open_references | {reference}, followed=followed)
        followed.add(reference)


def _repeats(root: Schema, schema: Schema, times: int) -> int:
    """The alternatives that the values of one body may be checked by, in all.

    `times` is how many values of a body may be checked by `schema`.
    """
    alternatives = len(schema.get("oneOf", ())) + len(schema.get("anyOf", ()))
    cost = times * (alternatives + _REMAINDER_COST * ("multipleOf" in schema))
    for keyword, value in schema.items():
        most = schema.get(_REPEATED.get(keyword, ""), _MOST_VALUES) if keyword in _REPEATED else 1
        for child in _children(keyword, value) if keyword != "$defs" else ():
            if isinstance(child, Mapping):
                cost += _repeats(root, child, min(_MOST_VALUES, times * int(most)))
    target = resolve(root, schema["$ref"]) if "$ref" in schema else None
    return cost + (_repeats(root, target, times) if isinstance(target, Mapping) else 0)


def _checks(root: Schema, schema: Schema, known: dict[str, int]) -> int:
    """The schemas that a value may be checked by, each as often as references lead to it."""
    count = 0
    used = {key: value for key, value in schema.items() if key != "$defs"}
    for one in subschemas(used):
        count += 1
        if (reference := one.get("$ref")) is not None:
            if reference not in known:
                target = resolve(root, reference)
                known[reference] = (
                    _checks(root, target, known) if isinstance(target, Mapping) else 1
                )
            count += known[reference]
    return count
