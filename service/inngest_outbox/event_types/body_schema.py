"""The JSON Schema of a body: checks it, and says which field is wrong without repeating its value.

Patterns run on an engine in linear time. Formats are checked. No reference leaves the schema.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

from jsonschema_rs import (
    Draft202012Validator,
    RegexOptions,
    ValidationError,
    ValidationErrorKind,
    meta,
)

from inngest_outbox.errors import InvalidFieldError
from inngest_outbox.event_types.schema_tree import (
    DIALECT,
    Schema,
    check_references,
    checks_of_value,
    property_names,
)

SEND_AT = "sendAt"
SEND_AT_SCHEMA = {
    "description": "Hold the event until then: milliseconds since 1970. A time in the past holds "
    "nothing.",
    "type": ["integer", "null"],
    "minimum": 0,
    "maximum": 4_102_444_800_000,  # 2100-01-01
}
# Their messages would name keys that the client made up.
_UNNAMED = frozenset({"additionalProperties", "unevaluatedProperties", "propertyNames"})


class BodySchema:
    """A declared schema of an object, and the `sendAt` that every body may have beside it.

    Raises ValueError for a schema that is faulty, or that needs anything from elsewhere.
    """

    def __init__(self, declared: Schema) -> None:
        _check(declared)
        self.declared = declared
        properties = declared.get("properties", {})
        self.schema = {**declared, "properties": {**properties, SEND_AT: SEND_AT_SCHEMA}}
        self._names = property_names(self.schema)
        self._validate = _compiled(dict(declared)).validate
        self._validate_send_at = _compiled({"properties": {SEND_AT: SEND_AT_SCHEMA}}).validate
        for example in self.schema.get("examples", ()):
            self._check_example(example)

    @property
    def example(self) -> Any:
        """The first of the schema's `examples`, None without one."""
        return next(iter(self.schema.get("examples", ())), None)

    def check(self, body: Mapping[str, Any]) -> None:
        """Raise InvalidFieldError, which names the field, unless `body` is of the schema."""
        try:
            self._validate(without_send_at(body))
            if SEND_AT in body:
                self._validate_send_at(body)
        except ValidationError as error:
            sentence = _sentence(error, self._names)
        else:
            return
        # Outside of the handler: the error has the body, which must not reach a log as a cause.
        raise InvalidFieldError(sentence)

    def _check_example(self, example: Any) -> None:
        try:
            self.check(example)
        except InvalidFieldError as error:
            raise ValueError(f"an example is not of the schema: {error}") from None


def without_send_at(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """The fields that the sender declared: all but `sendAt`."""
    if isinstance(body, dict) and SEND_AT in body:
        return {key: body[key] for key in body if key != SEND_AT}
    return body


def _check(declared: Schema) -> None:
    try:
        meta.validate({**declared, "$schema": DIALECT})
    except ValidationError as error:
        raise ValueError(_fault(error)) from None
    if declared.get("type") != "object":
        raise ValueError("type: a body is an object; write type: object")
    check_references(declared)
    for one in checks_of_value(declared, declared):
        for keyword in ("properties", "required"):
            if SEND_AT in one.get(keyword, ()):
                raise ValueError(f"{keyword}: every body has {SEND_AT} already; leave it out")


def _compiled(schema: dict[str, Any]) -> Draft202012Validator:
    try:
        return Draft202012Validator(
            schema,
            validate_formats=True,
            ignore_unknown_formats=False,
            retriever=_refuse,
            pattern_options=RegexOptions(),
            mask="it",
        )
    except ValidationError as error:
        raise ValueError(_fault(error)) from None


def _fault(error: ValidationError) -> str:
    place = ".".join(map(str, error.instance_path))
    message = error.message.partition(". Adjust")[0]
    return f"{place}: {message}" if place else message


def _refuse(address: str) -> NoReturn:
    raise LookupError(address)


def _sentence(error: ValidationError, names: frozenset[str]) -> str:
    field = field_path(error.instance_path, names)
    kind = error.kind
    if isinstance(kind, ValidationErrorKind.Required):
        return f"The field {field}{'.' if field else ''}{kind.property} is missing."
    place = f"The field {field}" if field else "The body"
    if kind.name in _UNNAMED:
        return f"{place} has a field that is not allowed."
    return f"{place} is wrong: {error.message}."


def field_path(keys: Iterable[str | int], names: frozenset[str]) -> str:
    """The path of a field as far as its keys are of the schema's own `names`.

    >>> field_path(["items", 0, "price"], frozenset({"items", "price"}))
    'items[0].price'
    """
    path = ""
    for key in keys:
        if isinstance(key, str) and key not in names:
            break
        path += f"[{key}]" if isinstance(key, int) else f".{key}"
    return path.removeprefix(".")
