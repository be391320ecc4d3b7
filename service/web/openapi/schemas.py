"""The JSON Schemas of the description, made from types and from errors."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from service.errors import OutboxUnavailableError, RefusedError
from service.event_types.schema_tree import rewritten
from service.web.openapi.endpoint import Endpoint, Kind, NamedSchema
from service.web.server.errors import SERVER_CODES, STATUS, ErrorAnswer

_REF = "#/components/schemas/{name}"


class Schemas:
    """The schemas of the endpoints. `components` has those with a name."""

    def __init__(self, endpoints: Iterable[Endpoint]) -> None:
        table = list(endpoints)
        bodies = [one.body for one in table if one.body]
        answers = [answer for one in table for answer in one.answers.values()]
        kinds = [*(one.kind for one in bodies), *(one.kind for one in answers), ErrorAnswer]
        types = [kind for kind in dict.fromkeys(map(_hashable, kinds)) if isinstance(kind, type)]
        described, self.components = _components(types)
        self._described = dict(zip(types, described, strict=True))
        for body in bodies:
            if isinstance(body.kind, type) and body.required:
                _require(self.components[body.kind.__name__], body.required)
        for kind in kinds:
            if isinstance(kind, NamedSchema):
                self.components[kind.name] = rewritten(kind.schema, _REF.format(name=kind.name))
        self.components["ErrorCode"] = {"type": "string", "enum": _all_codes()}
        self.components["ErrorAnswer"]["properties"]["code"] = {
            "$ref": _REF.format(name="ErrorCode")
        }

    def of(self, kind: Kind) -> dict[str, Any]:
        """The schema of `kind`: a reference to its component, or the given schema."""
        if isinstance(kind, NamedSchema):
            return {"$ref": _REF.format(name=kind.name)}
        return dict(kind) if isinstance(kind, Mapping) else self._described[kind]


def error_schema(codes: Iterable[str]) -> dict[str, Any]:
    """The schema of a failure with one of `codes`."""
    return {
        "type": "object",
        "required": ["status", "code", "error"],
        "properties": {
            "status": {"const": "error"},
            "code": {"type": "string", "enum": sorted(codes)},
            "error": {"type": "string", "description": "A sentence for a person."},
        },
    }


def _require(schema: dict[str, Any], names: Iterable[str]) -> None:
    schema["required"] = list(names)
    for name in names:
        schema["properties"][name].pop("default", None)


def _hashable(kind: Kind | None) -> type | None:
    return kind if isinstance(kind, type) else None


def _all_codes() -> list[str]:
    answered = (kind for kind in STATUS if issubclass(kind, (RefusedError, OutboxUnavailableError)))
    return sorted({kind.code for kind in answered} | set(SERVER_CODES))


def _components(kinds: Iterable[type]) -> tuple[tuple[dict[str, Any], ...], dict[str, Any]]:
    """The schemas of the kinds, and of all with a name. Older Pythons indent their docstrings."""
    schemas, named = msgspec.json.schema_components(
        kinds, schema_hook=_any_value, ref_template=_REF
    )
    for schema in named.values():
        if "description" in schema:
            schema["description"] = inspect.cleandoc(schema["description"])
    return schemas, named


def _any_value(kind: type) -> dict[str, Any]:
    if kind is object:
        return {"description": "Any JSON value."}
    raise NotImplementedError
