"""Whatever an entry of the file is, it is declared and works, or it is refused with sentences."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from inngest_outbox.errors import ConfigurationError, InvalidFieldError
from inngest_outbox.event_types.declaration import declare
from inngest_outbox.event_types.declared_type import DataMapping, Sources
from inngest_outbox.event_types.schema_tree import rewritten
from inngest_outbox.identity.user import User

WORDS = st.sampled_from(
    [
        *("", "a", "object", "#", "#/", "#/$defs/a", "#/~2", "%zz", "https://a.example"),
        *("(", "$body", "$$"),
    ]
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 3) | st.just(10**400) | WORDS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(WORDS, inner, max_size=2),
    max_leaves=4,
)
KEYWORDS = st.sampled_from(
    [
        *("$ref", "$id", "$schema", "$defs", "type", "properties", "additionalProperties"),
        *("items", "required", "enum", "const", "not", "examples", "allOf", "if"),
        *("pattern", "format", "minimum"),
    ]
)
REFERENCES = st.sampled_from(["#/$defs/a", "#/$defs/b", "#/properties/a"])
SCHEMAS = st.recursive(
    st.sampled_from([{}, {"type": "string"}, {"minimum": 1}, True])
    | REFERENCES.map(lambda to: {"$ref": to}),
    lambda inner: (
        st.fixed_dictionaries({"properties": st.dictionaries(st.sampled_from("ab"), inner)})
        | st.fixed_dictionaries({"allOf": st.lists(inner, min_size=1, max_size=2)})
        | st.fixed_dictionaries({"items": inner})
        | st.dictionaries(KEYWORDS, ANYTHING, max_size=1)
    ),
    max_leaves=6,
)
BODIES = st.fixed_dictionaries(
    {"type": st.just("object")},
    optional={
        "properties": st.dictionaries(st.sampled_from("ab"), SCHEMAS),
        "$defs": st.dictionaries(st.sampled_from("ab"), SCHEMAS),
        "required": st.just(["a"]) | ANYTHING,
        "examples": st.just([{"a": "x"}]) | ANYTHING,
        "$schema": ANYTHING,
    },
)
SOURCES = st.sampled_from(
    ["$body", "$body.a", "$body.a.b", "$user.id", "$appSettings.x", "$user.x", "$"]
)
ENTRIES = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["a/b", "inngest/x", ""]) | ANYTHING,
        "path": st.sampled_from(["/api/a", "/api/events", "/x"]) | ANYTHING,
        "body": BODIES | ANYTHING,
    },
    optional={
        "data": st.dictionaries(WORDS, SOURCES | ANYTHING) | ANYTHING,
        "who": ANYTHING,
        "document": ANYTHING,
        "more": ANYTHING,
    },
)
GOOD = st.fixed_dictionaries(
    {"name": st.just("a/b"), "path": st.just("/api/a"), "body": BODIES},
    optional={"data": st.dictionaries(WORDS, SOURCES | ANYTHING)},
)


@settings(max_examples=4 * settings().max_examples)
@given(ENTRIES | GOOD | ANYTHING, st.dictionaries(st.sampled_from(["a", "b", "sendAt"]), ANYTHING))
def test_any_entry_is_declared_or_refused_with_sentences(entry: Any, body: dict[str, Any]) -> None:
    try:
        declared = declare(entry)
    except ConfigurationError as refused:
        assert all(refused.faults)  # noqa: PT017  (some entries are not refused)
        return
    rewritten(declared.body.schema, "#/components/schemas/Body")
    try:
        declared.body.check(body)
    except InvalidFieldError:
        return
    made = DataMapping(declared.data).build(Sources(body, User("dev", "u-1")))
    assert isinstance(msgspec.json.decode(msgspec.json.encode(made)), dict)
