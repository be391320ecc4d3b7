"""The data of a declared event type: which value comes from which source."""

from __future__ import annotations

import contextlib
import re
from typing import Any
from unittest.mock import Mock

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inngest_outbox.event_types.declaration import declare
from inngest_outbox.event_types.declared_type import DataMapping, Sources, make_event_type
from inngest_outbox.event_types.template import check_template
from inngest_outbox.identity.user import User

ADA = User("next-auth", "u-1", "ada@example.com", "Ada", organization_id="acme")
DATA = {"report": "sales", "address": {"city": "Paris", "zip": None}, "none": None, "rows": [{}]}
BODY = {**DATA, "sendAt": None}
OBJECT = {"type": "object"}
SETTINGS = {"indexing": {"language": "fr", "none": None}}
SOURCES = Sources(BODY, ADA, msgspec.Raw(msgspec.json.encode(SETTINGS)), {"bucket": "documents"})


def data(template: dict[str, Any] | None) -> Any:
    """The data as Inngest gets it."""
    return msgspec.json.decode(msgspec.json.encode(DataMapping(template).build(SOURCES)))


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("$body.report", "sales"),
        ("$body.address.city", "Paris"),
        ("$body.none", None),
        ("$body.address.zip", None),
        ("$body", DATA),
        ("$user.id", "u-1"),
        ("$user.email", "ada@example.com"),
        ("$user.name", "Ada"),
        ("$user.organizationId", "acme"),
        ("$user.issuer", "next-auth"),
        ("$appSettings", SETTINGS),
        ("$appSettings.indexing.none", None),
        ("$appSettings.indexing.language", "fr"),
        ("$document.bucket", "documents"),
        ("text", "text"),
        ("$$body.report", "$body.report"),
        ("$$a$$b", "$a$$b"),
        (17, 17),
        (["$$a", 1, None, {"b": ["$$"]}], ["$a", 1, None, {"b": ["$"]}]),
        ({"deep": {"er": "$body.report"}}, {"deep": {"er": "sales"}}),
        ({"deep": "$body.other"}, {}),
    ],
)
def test_a_value_comes_from_its_source(source: Any, value: Any) -> None:
    assert data({"key": source}) == {"key": value}


@pytest.mark.parametrize(
    "source",
    [
        "$body.other",
        "$body.report.deeper",
        "$body.address.street",
        "$body.rows.deeper",
        "$appSettings.indexing.language.more",
        "$appSettings.other",
        "$document.object",
    ],
)
def test_a_source_without_a_value_leaves_its_key_out(source: str) -> None:
    assert data({"key": source, "kept": 1}) == {"kept": 1}


def test_without_a_template_the_data_is_the_body_without_its_send_at() -> None:
    assert data(None) == DATA
    delayed = Sources({"a": 1, "sendAt": 5}, ADA)
    assert DataMapping(None).build(delayed) == {"a": 1}
    assert data({}) == {}
    nobody = Sources({}, User("dev", "u-1"))
    assert DataMapping({"a": "$user.email"}).build(nobody) == {"a": None}


class Unreadable:
    async def effective(self, user: User) -> msgspec.Raw:
        raise LookupError


@pytest.mark.parametrize(
    ("template", "asks"),
    [
        ({"a": {"b": "$appSettings.x"}}, pytest.raises(LookupError)),
        ({"a": "$body.x", "b": ["$$appSettings"]}, contextlib.nullcontext()),
        (None, contextlib.nullcontext()),
    ],
)
async def test_application_settings_are_only_asked_for_where_they_are_used(
    template: Any, asks: Any
) -> None:
    body = {**OBJECT, "properties": {"x": {}}}
    declared = declare({"name": "a/b", "path": "/api/a", "body": body, "data": template})
    kind = make_event_type(declared, Mock(), Unreadable())  # type: ignore[arg-type]
    with asks:
        await kind.data({}, ADA)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=3)
    ),
    max_leaves=8,
)
KEYS = st.text(st.characters(codec="utf-8", exclude_characters="."), min_size=1)


@given(st.dictionaries(KEYS, JSON, max_size=4), st.data())
def test_every_field_that_is_mapped_arrives_unchanged_under_its_key(
    body: dict[str, Any], draw: st.DataObject
) -> None:
    wanted = draw.draw(st.lists(st.sampled_from([*body, "absent"])))
    template = {f"key-{name}": f"$body.{name}" for name in wanted}
    made = DataMapping(template).build(Sources(body, ADA))
    expected = {f"key-{name}": body[name] for name in wanted if name in body}
    assert msgspec.json.decode(msgspec.json.encode(made)) == expected


@given(st.dictionaries(st.text(st.characters(codec="utf-8")), JSON, max_size=4))
def test_constants_stand_for_themselves(values: dict[str, Any]) -> None:
    def escaped(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: escaped(one) for key, one in value.items()}
        if isinstance(value, list):
            return [escaped(one) for one in value]
        return f"${value}" if isinstance(value, str) and value.startswith("$") else value

    made = DataMapping({key: escaped(value) for key, value in values.items()}).build(SOURCES)
    assert made == values


SCHEMA = {
    **OBJECT,
    "properties": {
        "report": {"type": "string"},
        "address": {"$ref": "#/$defs/address"},
        "labels": {"type": "object"},
        "any": True,
    },
    "$defs": {
        "address": {"$ref": "#/$defs/place"},
        "place": {"type": "object", "properties": {"city": {}}},
    },
}


FORM = (
    "$bdy.report is no source; begin with one of $body, $user, $appSettings, $document, or write "
    "$$ for a $"
)


@pytest.mark.parametrize(
    ("template", "fault"),
    [
        ({"b": "$body", "a": "$bdy.report"}, FORM),
        ({"a": "$"}, "$ is no source"),
        ({"a": "$body."}, "$body. is no source"),
        ({"a": "$body.reprot"}, "no $body.reprot; the body's schema has no reprot there"),
        ({"a": {"b": "$body.address.street"}}, "there is no $body.address.street"),
        ({"a": "$user.age"}, "$user has id, email, name, organizationId, issuer"),
        ({"a": "$user.id.x"}, "there is no $user.id.x"),
        ({"a": "$document.bucket"}, "$document.bucket needs document: true"),
        ({"a": ["$body.report"]}, "$body.report stands in a list; give it a key of an object"),
        ({"a": [[{"b": "$user.id"}]]}, "$user.id stands in a list"),
    ],
)
def test_a_source_that_can_not_be_is_refused(template: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValueError, match=re.escape(fault)):
        check_template(template, SCHEMA, document=False)


CITY = {"properties": {"city": {"properties": {"name": {}}}}}
BESIDE: dict[str, Any] = {
    "$ref": "#/$defs/city",
    **{key: [True, CITY] for key in ("allOf", "anyOf", "oneOf")},
    **{key: {"allOf": [{"$ref": "#/$defs/city"}]} for key in ("if", "then", "else")},
    "dependentSchemas": {"zip": CITY},
}


@pytest.mark.parametrize("keyword", BESIDE)
def test_a_source_may_be_listed_by_every_schema_of_its_place(keyword: str) -> None:
    place = {"properties": {"zip": {}, "city": {}}, keyword: BESIDE[keyword]}
    schema = {**place, "properties": {**place["properties"], "a": place}, "$defs": {"city": CITY}}
    for at in ("$body", "$body.a"):
        check_template({"a": f"{at}.zip", "b": f"{at}.city.name"}, schema, document=False)
        for absent in ("street", "city.street"):
            with pytest.raises(ValueError, match="the body's schema has no street there"):
                check_template({"a": f"{at}.{absent}"}, schema, document=False)


@pytest.mark.parametrize("source", ["$document", "$document.size", "$document.object.size"])
def test_a_document_has_four_fields(source: str) -> None:
    with pytest.raises(ValueError, match="bucket, region, object, unchecked"):
        check_template({"a": source}, SCHEMA, document=True)


def test_sources_that_an_event_may_have_are_taken() -> None:
    good = {
        "a": "$body.report",
        "b": "$body.address.city",
        "c": {"d": "$body.labels.any.thing", "e": "$body.any.thing"},
        "e": "$document.object",
        "i": "$appSettings.indexing.language",
        "f": ["$$x"],
        "g": "$body",
        "h": "$body.sendAt",
    }
    schema = {**SCHEMA, "properties": {**SCHEMA["properties"], "sendAt": {}}}  # type: ignore[dict-item]
    check_template(good, schema, document=True)
