"""One entry of the file of event types, and the rules of each of its fields."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from inngest_outbox.documents.document_name import DOCUMENT_NAME
from inngest_outbox.errors import ConfigurationError
from inngest_outbox.event_types.body_schema import BodySchema
from inngest_outbox.event_types.event_type import SESSION
from inngest_outbox.event_types.template import check_template
from inngest_outbox.identity.user import AUTH_JS_ISSUER, DEV_ISSUER, NEXT_AUTH_ISSUER, SHARED_ISSUER

# Every path of the service under /api/ is one of these, or starts with one and a slash.
RESERVED_PATHS = ("/api/events", "/api/settings", "/api/uploads")
_is_path = re.compile(r"/api(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+").fullmatch
_ISSUERS = f"{NEXT_AUTH_ISSUER}|{AUTH_JS_ISSUER}|{DEV_ISSUER}|{SHARED_ISSUER}"
_is_sender = re.compile(rf"session|key|{_ISSUERS}|key \S+|https?://\S+").fullmatch
_MAX_CHARS = 256


def _check_path(path: str) -> str:
    if not _is_path(path):
        raise ValueError("write a path as /api/reports, with letters, digits and . _ ~ -")
    if any(path == one or path.startswith(f"{one}/") for one in RESERVED_PATHS):
        raise ValueError(f"{path} is the service's own; choose another path")
    return path


def _check_sender(word: str) -> str:
    if not _is_sender(word):
        raise ValueError(
            f"{word} names nobody; write session, key, key NAME, next-auth, authjs, or an "
            "issuer's URL"
        )
    # The issuer of users is without the slash that the address may end with.
    return word.rstrip("/")


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _schema(declared: object) -> BodySchema:
    if not isinstance(declared, dict):
        raise ValueError("write a JSON Schema, as an object")  # noqa: TRY004  (pydantic takes it)
    return BodySchema(declared)


class Declaration(BaseModel):
    """An event type as the file declares it. `document`: its body names a document of the bucket.

    `data` is the template of the event's data; None is the body itself. `encrypt` names the fields
    of the data that are encrypted, True all of them; None encrypts all where there is a key, and
    leaves events that a machine sends by name as they are. `expects_run`: an event of this name
    without a run raises an alarm from the first one on.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, arbitrary_types_allowed=True
    )

    name: Annotated[str, AfterValidator(check_event_name)]
    path: Annotated[str, AfterValidator(_check_path)]
    summary: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    body: Annotated[BodySchema, BeforeValidator(_schema)]
    data: dict[str, Any] | None = None
    who: Annotated[
        list[Annotated[str, AfterValidator(_check_sender)]],
        BeforeValidator(_as_list),
        Field(min_length=1),
    ] = [SESSION]
    document: bool = False
    encrypt: bool | Annotated[list[str], Field(min_length=1)] | None = None
    expects_run: bool = False
    enabled: bool = True

    @property
    def encrypted_fields(self) -> Collection[str] | None:
        """The fields of the data to encrypt; None: all of them."""
        return self.encrypt if isinstance(self.encrypt, list) else None

    @model_validator(mode="after")
    def _agree(self) -> Declaration:
        if self.document and DOCUMENT_NAME not in self.body.schema.get("required", ()):
            raise ValueError(f"document: the body needs {DOCUMENT_NAME}; add it to required")
        check_template(self.data or {}, self.body.declared, document=self.document)
        return self


def declare(entry: object) -> Declaration:
    """The event type of an entry.

    Raises ConfigurationError with a sentence for each fault, which names the field.
    """
    try:
        return Declaration.model_validate(entry)
    except ValidationError as error:
        raise ConfigurationError([_sentence(fault) for fault in error.errors()]) from None


def _sentence(fault: Mapping[str, Any]) -> str:
    place = ".".join(map(str, fault["loc"]))
    if fault["type"] == "extra_forbidden":
        return f"{place} is no field of an event type; the fields are {', '.join(_FIELDS)}"
    if fault["type"] == "missing":
        return f"{place} is missing"
    message = _WORDS.get(fault["type"]) or fault["msg"].removeprefix("Value error, ")
    return f"{place}: {message}" if place else message


_WORDS = {
    "model_type": "write an object with a name, a path and a body",
    "dict_type": "write an object",
    "string_type": "write a string",
    "list_type": "write a string or a list of strings",
    "bool_type": "write true or false",
}
_FIELDS = tuple(Declaration.model_fields)


def check_event_name(name: str) -> str:
    """Return the name of an event type.

    Raises ValueError for a name that can't be shown, and for one that the Event API refuses: empty,
    over 256 characters, or reserved in any case. Source: pkg/event, pkg/consts of Inngest v1.43.
    """
    if not name or len(name) > _MAX_CHARS:
        raise ValueError(f"an event name has 1 to {_MAX_CHARS} characters")
    if name.lower().startswith("inngest/"):
        raise ValueError("event names that start with inngest/ are reserved; choose another name")
    if not name.isprintable() or not re.search("[A-Za-z0-9]", name):
        raise ValueError("an event name has a letter or a digit, and no control characters")
    return name
