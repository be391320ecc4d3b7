"""The endpoints of the API's description: one `Endpoint` for each route.

A schema is the type that decodes or encodes, or a JSON Schema, with or without a name of its own.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from inngest_outbox.errors import OutboxUnavailableError, RefusedError

JSON = "application/json"
JsonSchema: TypeAlias = Mapping[str, Any]
ErrorType: TypeAlias = type[RefusedError | OutboxUnavailableError]


@dataclass(frozen=True, slots=True, eq=False)
class NamedSchema:
    """A JSON Schema that is a component of the description. Its references start at its root."""

    name: str
    schema: JsonSchema


Kind: TypeAlias = type | JsonSchema | NamedSchema


class Access(enum.StrEnum):
    """The callers of an endpoint."""

    ANYBODY = "anybody"
    USER = "user"
    OWNER = "user or event key"
    OPERATOR = "operator"
    EVENT_KEY = "event key"
    METRICS = "metrics"


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a request. A path parameter is always required, the others never."""

    name: str
    text: str
    schema: JsonSchema = field(default_factory=lambda: {"type": "string"})
    place: Literal["path", "query", "header"] = "query"


@dataclass(frozen=True, slots=True)
class Body:
    """A request's JSON body. `required` names fields that the type does not require itself."""

    kind: Kind
    example: object
    required: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class ResponseHeader:
    """A header of an answer."""

    name: str
    text: str
    schema: JsonSchema = field(default_factory=lambda: {"type": "string"})


RETRY_AFTER = ResponseHeader(
    "Retry-After", "Seconds to wait before a retry.", {"type": "integer", "minimum": 1}
)
MAY_BE_RETRIED = frozenset({429, 503})


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer other than an error. `kind` is None when it has no body.

    `is_json_in_text` says that `content_type` is not JSON's, though the text is JSON of `kind`.
    """

    text: str
    kind: Kind | None = None
    example: object = None
    content_type: str = JSON
    headers: Sequence[ResponseHeader] = ()
    is_json_in_text: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One endpoint: `name` is its operationId, `errors` may be raised besides `answers`."""

    method: str
    path: str
    name: str
    tag: str
    summary: str
    answers: Mapping[int, Answer]
    access: Access = Access.USER
    parameters: Sequence[Parameter] = ()
    body: Body | None = None
    errors: Sequence[ErrorType] = ()
