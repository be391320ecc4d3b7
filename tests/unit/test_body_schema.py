"""The check of a body by its schema: which field is named, what never is, and faulty schemas."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inngest_outbox.errors import InvalidFieldError
from inngest_outbox.event_types.body_schema import BodySchema
from inngest_outbox.event_types.schema_tree import rewritten

SECRET = "a-value-of-the-client"
ORDER = {
    "type": "object",
    "required": ["report"],
    "properties": {
        "report": {"type": "string", "enum": ["sales", "stock"]},
        "month": {"type": "string", "pattern": "^[0-9]{4}-[0-9]{2}$"},
        "count": {"type": "integer", "minimum": 1, "multipleOf": 2},
        "mail": {"type": "string", "format": "email"},
        "items": {"type": "array", "uniqueItems": True, "items": {"$ref": "#/$defs/item"}},
        "labels": {
            "type": "object",
            "additionalProperties": {"type": "integer"},
            "propertyNames": {"maxLength": 3},
            "dependentRequired": {"a": ["b"]},
        },
        "place": {
            "type": "object",
            "allOf": [{"properties": {"city": {"type": "string"}}}],
            "unevaluatedProperties": False,
        },
        "rows": {"additionalProperties": {"items": {"type": "integer"}}},
    },
    "additionalProperties": False,
    "$defs": {
        "item": {"type": "object", "required": ["sku"], "properties": {"sku": {"type": "string"}}}
    },
}


def with_report(**fields: object) -> dict[str, object]:
    return {"report": "sales", **fields}


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({}, "The field report is missing."),
        ({"report": 1}, 'The field report is wrong: it is not of type "string".'),
        ({"report": SECRET}, 'The field report is wrong: it is not one of "sales" or "stock".'),
        (with_report(month=SECRET), 'The field month is wrong: it does not match "^'),
        (with_report(count=0), "The field count is wrong: it is less than the minimum of 1."),
        (with_report(count=3), "The field count is wrong: it is not a multiple of 2."),
        (with_report(mail=SECRET), 'The field mail is wrong: it is not a "email".'),
        (with_report(items=[{"sku": "a"}, {}]), "The field items[1].sku is missing."),
        (with_report(items=[{"sku": 1}]), "The field items[0].sku is wrong: "),
        (with_report(items=[SECRET] * 2), "The field items"),
        (with_report(**{SECRET: 1}), "The body has a field that is not allowed."),
        (with_report(labels={SECRET: 1}), "The field labels has a field that is not allowed."),
        (with_report(place={SECRET: 1}), "The field place has a field that is not allowed."),
        (with_report(place={"city": 1}), "The field place.city is wrong: "),
        (with_report(rows={SECRET: [1, SECRET]}), "The field rows is wrong: "),
        (with_report(labels={"a": 1}), "The field labels.b is missing."),
        (with_report(labels={"abc": SECRET}), "The field labels is wrong: "),
        (with_report(sendAt=-1), "The field sendAt is wrong: it is less than the minimum of 0."),
        *(
            (with_report(sendAt=wrong), "The field sendAt is wrong: ")
            for wrong in (SECRET, True, 0.5, 4_102_444_800_001, [1])
        ),
    ],
)
def test_a_refusal_names_the_field_and_no_value(body: dict[str, object], sentence: str) -> None:
    with pytest.raises(InvalidFieldError) as refused:
        BodySchema(ORDER).check(body)
    assert str(refused.value).startswith(sentence)
    assert SECRET not in str(refused.value)
    assert refused.value.__cause__ is refused.value.__context__ is None


@pytest.mark.parametrize("send_at", [None, 0, 1.0, 4_102_444_800_000])
def test_a_body_of_the_schema_is_taken_with_a_time_to_send_it(send_at: object) -> None:
    BodySchema(ORDER).check(with_report(month="2026-11", count=2, sendAt=send_at))


CLOSED = {"properties": {"a": {}}, "additionalProperties": False}


@pytest.mark.parametrize(
    "keywords",
    [
        {"propertyNames": {"enum": ["a"]}},
        {"minProperties": 1, "maxProperties": 1},
        {"patternProperties": {"": {"const": 1}}},
        {"additionalProperties": {"const": 1}},
        {"properties": {"a": {}}, "unevaluatedProperties": False},
        {"$ref": "#/$defs/closed"},
        *({keyword: [CLOSED]} for keyword in ("allOf", "anyOf", "oneOf")),
    ],
)
def test_a_schema_is_of_the_fields_beside_the_time_to_send(keywords: dict[str, object]) -> None:
    given = {"type": "object", "$defs": {"closed": CLOSED}, "examples": [{"a": 1, "sendAt": 5}]}
    checked = BodySchema({**given, **keywords, "required": ["a"]})
    for send_at in ({}, {"sendAt": None}, {"sendAt": 5}):
        checked.check({"a": 1, **send_at})
        for wrong in (send_at, {"a": 1, "sendAt": "x"}, {"a": 1, "b": 2, **send_at}):
            with pytest.raises(InvalidFieldError):
                checked.check(wrong)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.just(SECRET) | st.floats(allow_nan=False),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.just(SECRET) | st.text(max_size=4), inner)
    ),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from([*ORDER["properties"], "sendAt", SECRET]), VALUES))  # type: ignore[call-overload]
def test_whatever_is_wrong_no_value_of_the_client_is_told(body: dict[str, object]) -> None:
    try:
        BodySchema(ORDER).check(body)
    except InvalidFieldError as refused:
        assert SECRET not in str(refused)  # noqa: PT017


def test_a_pattern_that_backtracking_would_never_finish_is_answered() -> None:
    schema = BodySchema({"type": "object", "properties": {"a": {"pattern": "^(a+)+$"}}})
    with pytest.raises(InvalidFieldError):
        schema.check({"a": "a" * 500_000 + "!"})


def schema(**properties: object) -> dict[str, object]:
    return {"type": "object", "properties": properties}


EACH_OTHER = {"a": {"$ref": "#/$defs/b"}, "b": {"allOf": [{"$ref": "#/$defs/a"}]}}


@pytest.mark.parametrize(
    ("declared", "fault"),
    [
        ({"type": "string"}, "type: a body is an object; write type: object"),
        ({}, "type: a body is an object"),
        ({"type": ["object", "null"]}, "type: a body is an object; write type: object"),
        ({"type": "object", "properties": []}, "properties: [] is not of type"),
        (schema(a={"type": "text"}), "properties.a.type: "),
        (schema(a={"minimum": "1"}), 'properties.a.minimum: "1" is not of type "number"'),
        (schema(a={"pattern": "("}), "properties.a.pattern: "),
        (schema(a={"pattern": "(?=a)a"}), "properties.a.pattern: "),
        (schema(a={"pattern": "(a)\\1"}), "properties.a.pattern: "),
        (schema(a={"format": "emial"}), "Unknown format: 'emial'"),
        (schema(sendAt={"type": "integer"}), "properties: every body has sendAt already; leave it"),
        ({"type": "object", "required": ["sendAt"]}, "required: every body has sendAt already"),
        ({"type": "object", "allOf": [schema(sendAt={})]}, "properties: every body has sendAt al"),
        (schema(a={"$ref": "https://a.test/a.json"}), "leaves the schema; write #/$defs/…"),
        (schema(a={"$ref": "file:///etc/passwd"}), "leaves the schema"),
        (schema(a={"$ref": "other.json#/$defs/a"}), "leaves the schema"),
        (schema(a={"$ref": "#/$defs/a"}), "points to nothing"),
        *(
            ({**schema(a={"$ref": f"#/{place}"}), "allOf": [{}]}, "points to nothing")
            for place in ("allOf/x", "allOf/1", "type/x")
        ),
        (schema(a={"$ref": "#"}), "makes the schema contain itself"),
        (schema(a={"items": {"$ref": "#/properties/a"}}), "makes the schema contain itself"),
        ({"type": "object", "$defs": EACH_OTHER}, "makes the schema contain itself"),
        (schema(a={"$dynamicRef": "#a"}), "$dynamicRef is not taken"),
        (schema(a={"$anchor": "a"}), "$anchor is not taken; use $ref with #/$defs/…"),
        ({"type": "object", "$id": "https://example.com/"}, "$id is not taken"),
        ({"type": "object", "$schema": "https://example.com/"}, "the only $schema that is taken"),
        (schema(a={"$dynamicAnchor": "a"}), "$dynamicAnchor is not taken"),
        (schema(a={"$vocabulary": {"https://example.com/": True}}), "$vocabulary is not taken"),
        (
            schema(a={"$schema": "http://json-schema.org/draft-07/schema#"}),
            "$schema that is taken is https://json-schema.org/draft/2020-12/schema; leave it out",
        ),
        *(
            (
                {**schema(a={"type": "integer"}), "examples": [*before, {"a": "x"}, {"a": 1}]},
                "an example is not of the schema: The field a is wrong: it is not of type",
            )
            for before in ([], [{"a": 1}])
        ),
        (
            {"type": "object", "required": ["a"], "examples": [{}]},
            "an example is not of the schema: The field a is missing.",
        ),
        *(
            (
                {"type": "object", "examples": [one]},
                "an example is not of the schema: The body is w",
            )
            for one in ("sendAt", 5, ["sendAt"], None)
        ),
    ],
)
def test_a_faulty_schema_is_refused_with_its_place(declared: dict[str, object], fault: str) -> None:
    with pytest.raises(ValueError, match=re.escape(fault)) as refused:
        BodySchema(declared)
    assert "Adjust" not in str(refused.value)  # the validator's own words for programmers


@pytest.mark.parametrize("levels", [12, 30])
def test_references_that_double_are_counted_and_refused(levels: int) -> None:
    """Each level checks a value twice by the next one: 2^12 checks of one value, 2^30."""
    twice = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(levels)}
    definitions = {**twice, f"d{levels}": {"type": "string"}}
    declared = {**schema(a={"$ref": "#/$defs/d0"}), "$defs": definitions}
    with pytest.raises(ValueError, match="more than 4096 schemas; use fewer"):
        BodySchema(declared)
    BodySchema({**declared, **schema(a={"$ref": f"#/$defs/d{levels - 9}"})})
    one = {"$ref": f"#/$defs/d{levels}"}
    BodySchema({**declared, **schema(a={"allOf": [one] * 2047})})  # and the two around them
    with pytest.raises(ValueError, match="more than 4096 schemas; use fewer"):
        BodySchema({**declared, **schema(a={"allOf": [one] * 2048})})


TOO_LONG = (
    "many values take too long to check by oneOf, anyOf or multipleOf; write maxItems or "
    "maxProperties"
)
KINDS = {"oneOf": [{"const": number} for number in range(50)]}


REF = {"$ref": "#/$defs/kinds"}
OF_LISTS = ("items", "contains", "unevaluatedItems")
OF_OBJECTS = ("additionalProperties", "unevaluatedProperties", "propertyNames")


def bounded(keyword: str, values: object, most: int) -> dict[str, object]:
    return {keyword: values, "maxItems" if keyword in OF_LISTS else "maxProperties": most}


def nested(outer: int, inner: int) -> dict[str, object]:
    return bounded("items", bounded("items", KINDS, inner), outer)


@pytest.mark.parametrize(
    ("taken", "refused"),
    [
        *(
            (bounded(keyword, KINDS, 200_000), other)
            for keyword in (*OF_LISTS, *OF_OBJECTS)
            for other in (bounded(keyword, KINDS, 200_001), {keyword: KINDS})
        ),
        (bounded("patternProperties", {"^a": KINDS}, 100), {"patternProperties": {"^a": KINDS}}),
        *(({"items": {of: [{}] * 28}}, {"items": {of: [{}] * 29}}) for of in ("anyOf", "oneOf")),
        *(
            (bounded("items", one, 100), {"items": one})
            for one in (REF, {"anyOf": [REF]}, {"oneOf": [{}] * 15, "anyOf": [{}] * 15})
        ),
        (bounded("items", {"multipleOf": 0.01}, 10**5), {"items": {"multipleOf": 0.01}}),
        (nested(100, 2_000), nested(1_000, 1_000)),
        (nested(0, 400_000), nested(5, 400_000)),
        ({"items": {"items": {"anyOf": [{}] * 28}}}, {"items": {"items": KINDS}}),  # 1 MiB bounds
        ({"multipleOf": 0.01, **KINDS}, bounded("items", {"multipleOf": 0.01}, 10**5 + 1)),
        ({"prefixItems": [KINDS, {"anyOf": [{}] * 200}]}, {"prefixItems": [{"items": KINDS}]}),
    ],
)
def test_values_that_would_be_checked_for_seconds_need_a_bound(
    taken: dict[str, object], refused: dict[str, object]
) -> None:
    definitions = {"$defs": {"kinds": KINDS}}
    BodySchema({**schema(a=taken), **definitions})
    with pytest.raises(ValueError, match=f"^{TOO_LONG}$"):
        BodySchema({**schema(a=refused), **definitions})


def test_a_definition_may_be_used_twice_and_names_of_data_and_of_fields_are_no_keywords() -> None:
    one = {"$ref": "#/$defs/one"}
    named = {"dependentSchemas": {"$id": {}}, "patternProperties": {"$anchor": {}}}
    declared = {
        **schema(
            a=one, b={"items": one}, c={"const": {"$ref": "x"}}, d=named, e={"$ref": "#/$defs/any"}
        ),
        "$defs": {
            "any": True,
            "one": schema(**{"$id": {"type": "string"}, "default": one["$ref"] and {}}),
        },
    }
    BodySchema(declared).check({"a": {"$id": "x"}, "c": {"$ref": "x"}})


@pytest.mark.parametrize("reference", ["a~01b", "c%20d", "e~1f", "g/prefixItems/0"])
def test_a_reference_is_read_as_a_pointer_in_a_uri(reference: str) -> None:
    whole = {"type": "integer"}
    names = {"a~1b": whole, "c d": whole, "e/f": whole, "g": {"prefixItems": [whole]}}
    checked = BodySchema({**schema(a={"$ref": f"#/$defs/{reference}"}), "$defs": names})
    checked.check({"a": 1})
    with pytest.raises(InvalidFieldError):
        checked.check({"a": "x"})


def test_data_of_a_schema_are_no_schemas_and_its_first_example_is_shown() -> None:
    data = {"$ref": "nothing", "$id": "x"}
    declared = schema(a={"default": data}, b={"enum": [data]}, c={"examples": [data]})
    dialect = "https://json-schema.org/draft/2020-12/schema#"
    shown = BodySchema({**declared, "$schema": dialect, "examples": [{"a": 1}, {"a": 2}]})
    assert (shown.example, BodySchema(declared).example) == ({"a": 1}, None)


def test_in_another_document_references_start_elsewhere_and_data_stay() -> None:
    def declared(reference: str) -> dict[str, object]:
        one, data = {"$ref": reference}, {"$ref": "#/$defs/a"}
        fields = {"default": one, "a": {"default": data, "enum": [data]}}
        inner = {"anyOf": [one, True], "$defs": {"const": one}}
        return {"properties": fields, "items": one, "minItems": 1, **inner}

    assert rewritten(declared("#/$defs/a"), "#/x") == declared("#/x/$defs/a")
