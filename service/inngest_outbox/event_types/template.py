"""The template of an event's data: the sources that it may name.

A source is a string that starts with `$`: a root, and the keys that lead from it to the value, as
in `$body.address.city`. Every other value stands for itself. `$$` at the start of a string stands
for one `$`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from inngest_outbox.event_types.body_schema import SEND_AT
from inngest_outbox.event_types.schema_tree import Schema, checks_of_value

USER_FIELDS = ("id", "email", "name", "organizationId", "issuer")
DOCUMENT_FIELDS = ("bucket", "region", "object", "unchecked")
_ROOTS = ("body", "user", "appSettings", "document")


def is_source(value: object) -> bool:
    """True when a value of a template names a source."""
    return isinstance(value, str) and value.startswith("$") and not value.startswith("$$")


def split_source(source: str) -> tuple[str, list[str]]:
    """The root of a source and its keys.

    >>> split_source("$body.address.city")
    ('body', ['address', 'city'])
    """
    root, *keys = source[1:].split(".")
    return root, keys


def sources_of(value: object, *, in_list: bool = False) -> Iterator[tuple[str, bool]]:
    """Every source of a template, with True for one that stands in a list.

    >>> list(sources_of({"city": "$body.address.city", "from": {"kinds": ["web", "$user"]}}))
    [('$body.address.city', False), ('$user', True)]
    """
    if isinstance(value, Mapping):
        for one in value.values():
            yield from sources_of(one, in_list=in_list)
    elif isinstance(value, list):
        for one in value:
            yield from sources_of(one, in_list=True)
    elif isinstance(value, str) and is_source(value):
        yield value, in_list


def check_template(template: Mapping[str, Any], schema: Schema, *, document: bool) -> None:
    """Raise ValueError for a source that no event can have, or that stands in a list.

    `schema` is the body's. `document` is true where the event type has a document.
    """
    for source, in_list in sources_of(template):
        if in_list:
            raise ValueError(f"data: {source} stands in a list; give it a key of an object")
        root, keys = split_source(source)
        if root not in _ROOTS or "" in keys:
            roots = ", ".join(f"${one}" for one in _ROOTS)
            raise ValueError(
                f"data: {source} is no source; begin with one of {roots}, or write $$ for a $"
            )
        if root == "body" and keys != [SEND_AT]:
            _check_body(source, keys, schema)
        elif root == "user" and keys:
            _check_field(source, keys, USER_FIELDS)
        elif root == "document":
            if not document:
                raise ValueError(f"data: {source} needs document: true")
            _check_field(source, keys, DOCUMENT_FIELDS)


def _check_field(source: str, keys: list[str], fields: tuple[str, ...]) -> None:
    if len(keys) != 1 or keys[0] not in fields:
        root = split_source(source)[0]
        raise ValueError(f"data: there is no {source}; ${root} has {', '.join(fields)}")


def _check_body(source: str, keys: list[str], schema: Schema) -> None:
    """Follow the keys as far as the schema lists its properties."""
    found = [schema]
    for key in keys:
        checks = [check for one in found for check in checks_of_value(schema, one)]
        listed = [check["properties"] for check in checks if "properties" in check]
        if not listed:
            return
        found = [fields[key] for fields in listed if key in fields]
        if not found:
            raise ValueError(f"data: there is no {source}; the body's schema has no {key} there")
