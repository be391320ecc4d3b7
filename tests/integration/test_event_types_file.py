"""EVENT_TYPES_FILE: what it may say, and the sentence for each fault."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from docs.api_description import description, whole_service
from inngest_outbox.bootstrap.service import run_service
from inngest_outbox.errors import ConfigurationError
from inngest_outbox.event_types.declaration import RESERVED_PATHS
from inngest_outbox.event_types.types_file import load_event_types

REPORT = {
    "name": "report/requested",
    "path": "/api/reports",
    "body": {"type": "object", "properties": {"report": {"type": "string"}}},
}


@pytest.fixture
def load(tmp_path: Path):
    """The event types of a file with this text, or with these entries."""

    def load(text: str | None = None, *entries: Any, name: str = "types.yaml"):
        path = tmp_path / name
        path.write_text(json.dumps({"types": entries}) if text is None else text, "utf-8")
        return load_event_types(str(path))

    return load


def faults(load, *arguments: Any, **options: Any) -> list[str]:
    with pytest.raises(ConfigurationError) as refused:
        load(*arguments, **options)
    return list(refused.value.faults)


@pytest.mark.parametrize("name", ["types.json", "types.yaml", "types.YML"])
def test_json_and_yaml_give_the_same_types_beside_the_packaged_one(load, name):
    documents, report = load(None, REPORT, name=name)
    assert (documents.name, documents.path) == ("documents/aws.index", "/api/route")
    assert (report.name, report.path, report.data) == ("report/requested", "/api/reports", None)
    assert (report.who, report.document, report.enabled) == (["session"], False, True)
    assert (report.encrypt, report.expects_run, report.summary) == (None, False, None)


@pytest.mark.parametrize("name", ["types.json", "types.yaml"])
def test_a_file_may_begin_with_a_byte_order_mark(load, name):
    for entries in ([], [REPORT]):
        assert len(load("\ufeff" + json.dumps({"types": entries}), name=name)) == 1 + len(entries)


def test_an_entry_with_the_path_of_the_packaged_type_changes_it(load):
    [renamed] = load("types: [{path: /api/route, name: files/Uploaded, summary: null}]")
    [packaged] = load_event_types(None)
    assert (renamed.name, renamed.summary) == ("files/Uploaded", None)
    assert renamed.data == packaged.data
    assert renamed.document


FIELDS = "name, path, summary, body, data, who, document, encrypt, expects_run, enabled"


def changed(**fields: Any) -> dict[str, Any]:
    return {**REPORT, **fields}


@pytest.mark.parametrize(
    ("entry", "fault"),
    [
        (5, "entry 1: write an object with a name, a path and a body"),
        ({"name": "a/b", "path": "/api/a"}, "entry 1 (a/b): body is missing"),
        (
            changed(pth=1),
            f"(report/requested): pth is no field of an event type; the fields are {FIELDS}",
        ),
        (changed(name=""), "name: an event name has 1 to 256 characters"),
        (changed(name="x" * 257), "name: an event name has 1 to 256 characters"),
        (changed(name="Inngest/x"), "names that start with inngest/ are reserved; choose another"),
        (changed(name="a\n"), "name: an event name has a letter or a digit, and no control"),
        (changed(name="/"), "an event name has a letter or a digit, and no control characters"),
        (changed(name=5), "name: write a string"),
        (
            changed(path="/reports"),
            "path: write a path as /api/reports, with letters, digits and . _ ~ -",
        ),
        *((changed(path=one), "path: write a string") for one in ([], {}, None, 5)),
        (changed(path="/api/"), "path: write a path as /api/reports"),
        (changed(path="/api/a/../b"), "path: write a path as /api/reports"),
        (changed(path="/api/{id}"), "path: write a path as /api/reports"),
        (changed(path="/api/a/"), "path: write a path as /api/reports"),
        (changed(path="/api/a b"), "path: write a path as /api/reports"),
        (changed(path="/api/events"), "/api/events is the service's own; choose another path"),
        (changed(path="/api/events/mine"), "path: /api/events/mine is the service's own"),
        (changed(path="/api/settings"), "path: /api/settings is the service's own"),
        (changed(path="/api/uploads/mine"), "path: /api/uploads/mine is the service's own"),
        (changed(body="x"), "body: write a JSON Schema, as an object"),
        (changed(body={"type": "text"}), "body: type: "),
        (changed(data=["$body.report"]), "data: write an object"),
        (changed(data={"a": "$body.reprot"}), "data: there is no $body.reprot; the body's schema"),
        (changed(data={"a": {"b": ["$body.report"]}}), "data: $body.report stands in a list"),
        (changed(data={"a": "$document.bucket"}), "$document.bucket needs document: true"),
        (changed(who="everyone"), "who.0: everyone names nobody; write session, key, key NAME, "),
        (changed(who=["session", "key "]), "key NAME, next-auth, authjs, or an issuer's URL"),
        (changed(who="key a b"), "who.0: key a b names nobody"),
        (changed(who="https://"), "who.0: https:// names nobody"),
        (changed(who=[]), "who: "),
        (changed(who=5), "who: write a string or a list of strings"),
        (
            changed(document=True, body={"type": "object", "properties": {"documentName": {}}}),
            "document: the body needs documentName; add it to required",
        ),
        (changed(document="yes"), "document: write true or false"),
        (changed(summary=""), "summary: "),
        (changed(summary="x" * 201), "summary: "),
        ({"path": "/api/a", "body": {"type": "object"}}, "entry 1 (/api/a): name is missing"),
        (changed(enabled="no"), "enabled: write true or false"),
    ],
)
def test_a_faulty_entry_is_told_with_what_to_do(load, entry, fault):
    [told] = faults(load, None, entry)
    assert fault in told


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "é" * 255 + "1"),
        ("name", "\u00e9/1"),
        ("path", "/api/A-z_0/~9.x"),
        ("path", "/api/eventsource"),
        ("summary", "x" * 200),
        ("summary", "x"),
        ("who", ["key", "key Nightly-2._", "session"]),
        ("encrypt", ["report"]),
        ("encrypt", False),
        ("expects_run", True),
        ("data", {"a": "$$", "b": [["$$x"], {"c": 1}], "d": "$user"}),
    ],
)
def test_an_entry_is_taken_up_to_its_bounds(load, field, value):
    _, report = load(None, changed(**{field: value}))
    assert getattr(report, field) == value


def test_data_may_name_any_field_of_a_body_that_lists_none(load):
    data = {"a": "$body.anything.at.all", "b": "$body.sendAt"}
    assert load(None, changed(body={"type": "object"}, data=data))[1].data == data


def test_a_file_is_taken_up_to_its_depth(load):
    def nested(levels: int) -> str:
        inside = "".join(f'{{"a{level}": ' for level in range(levels)) + "1" + "}" * levels
        return json.dumps({"types": [changed(data=json.loads(inside))]})

    [_, report] = load(nested(29), name="types.json")
    assert list(report.data) == ["a0"]
    assert "more than 32 levels" in faults(load, nested(30), name="types.json")[0]


@pytest.mark.parametrize(
    ("word", "issuer"),
    [
        *[(one, one) for one in ("next-auth", "authjs", "dev", "shared")],
        ("https://id.example", "https://id.example"),
        ("http://id.example/", "http://id.example"),
        ("https://id.example/", "https://id.example"),  # the issuer of its users has no slash
    ],
)
def test_the_users_of_each_issuer_can_be_named(load, word, issuer):
    _, report = load(None, changed(who=word))
    assert report.who == [issuer]


def test_every_fault_of_the_file_is_told_at_once(load):
    told = faults(load, None, changed(pth=1, name="inngest/a", encrypt=[]), 5, REPORT, REPORT)
    assert len(told) == 7


@pytest.mark.parametrize(
    ("second", "fault"),
    [
        (changed(name="other"), "have the path /api/reports; change one of them"),
        (changed(path="/api/other"), "have the name report/requested; change one of them"),
        (changed(path="/api/b", name="report.requested"), "with the same letters and digits; "),
    ],
)
def test_two_types_with_one_path_or_name_are_refused(load, second, fault):
    [told] = faults(load, None, REPORT, changed(name="between", path="/api/c"), second)
    assert fault in told
    assert "entry 1 (report/requested) and entry 3 (" in told


def test_a_type_may_be_taken_away_and_leaves_its_path_and_name_to_another(load):
    packaged, own = {"path": "/api/route", "enabled": False}, changed(enabled=False)
    assert [one.path for one in load(None, packaged, own, REPORT)] == ["/api/reports"]


def test_a_type_with_the_name_of_the_packaged_one_is_refused(load):
    [told] = faults(load, None, changed(name="documents/aws.index"))
    assert "the packaged /api/route and entry 1 (documents/aws.index) have the name" in told


@pytest.mark.parametrize(
    ("text", "name", "fault"),
    [
        ("a: 1\ntypes: ]", "types.yaml", "line 2 is not YAML: "),
        ("types: !!python/name:os.system []", "types.yaml", "line 1 is not YAML: "),
        ("a: 1\nb: !!bool x", "types.yaml", "line 2 is not YAML: it is no bool"),
        ("a: !!timestamp x", "types.yaml", "line 1 is not YAML: it is no timestamp"),
        ("a: !!int ''", "types.yaml", "line 1 is not YAML: it is no int"),
        ("a: 2026-13-45", "types.yaml", "line 1 is not YAML: it is no timestamp"),
        ("types: [\a]", "types.yaml", "it is not YAML: it can't be read"),
        ("a: 1\nb: []\nb: []\nc: 1", "types.yaml", "line 1 is not YAML: the key b comes twice"),
        ("{[a]: 1}", "types.yaml", "line 1 is not YAML: found unhashable key"),
        ("~: a", "types.yaml", "its top has the key None; write it in quotes"),
        ("types: [{on: b}]", "types.yaml", "types[0] has the key True; write it in quotes"),
        ("types: [{name: a, 1: b}]", "types.yaml", "types[0] has the key 1; write it in quotes"),
        ("types: [{name: 2026-11-25}]", "types.yaml", "types[0].name is datetime.date(2026, 11, "),
        ('[{"\\ud800": 1}]', "types.json", "[0] has the key '\\ud800'; write it in quotes"),
        ("types: [.nan]", "types.yaml", "types[0] is nan, which JSON does not have; write it in q"),
        ("types: [{name: -.inf}]", "types.yaml", "types[0].name is -inf, which JSON does not"),
        ("types: &a [*a]", "types.yaml", "it is nested more than 32 levels deep"),
        ("types: " + "[" * 40 + "]" * 40, "types.yaml", "it is nested more than 32 levels deep"),
        ("[" * 100_000, "types.json", "it is nested more than 32 levels deep"),
        ("[" * 1_000, "types.yaml", "it is nested more than 32 levels deep"),
        ("", "types.yaml", "write an object with the one key types, which is a list of event "),
        ("types: 5", "types.yaml", "write an object with the one key types"),
        ("types: []\nmore: 1", "types.yaml", "write an object with the one key types"),
        ("{\n\n,}", "types.json", "line 3 is not JSON: "),
        ('{"b": [], "b": [], "c": 1}', "types.json", "the key b comes twice in one object"),
        ('{"a": %s}' % ("9" * 5000), "types.json", "it has an integer of too many digits"),
        ('{"a": {"b": "\\ud800"}}', "types.json", "a.b is '\\ud800', which JSON does not have"),
        ("types: []", "types.toml", "name it .json, .yaml or .yml"),
    ],
)
def test_a_file_that_can_not_be_read_is_told_with_the_reason(load, tmp_path, text, name, fault):
    with pytest.raises(ConfigurationError) as refused:
        load(text, name=name)
    assert str(refused.value).startswith(f"EVENT_TYPES_FILE: {tmp_path / name}: {fault}")


def test_yaml_may_merge_mappings(load):
    text = """types:
  - name: a/b
    path: /api/a
    body:
      $defs: {base: &base {type: string, minLength: 1}, short: &short {<<: *base, minLength: 2}}
      type: object
      properties:
        one: {<<: *short, maxLength: 9}
"""
    [_, merged] = load(text)
    assert merged.body.schema["properties"]["one"] == {
        "type": "string",
        "minLength": 2,
        "maxLength": 9,
    }


def test_a_file_that_is_missing_or_not_utf8_is_told(tmp_path):
    with pytest.raises(ConfigurationError, match=r"none\.yaml: No such file"):
        load_event_types(str(tmp_path / "none.yaml"))
    (tmp_path / "folder.yaml").mkdir()
    with pytest.raises(ConfigurationError, match=r"folder\.yaml: Is a directory$"):
        load_event_types(str(tmp_path / "folder.yaml"))
    (tmp_path / "latin.yaml").write_bytes(b"types: [\xff]")
    with pytest.raises(ConfigurationError, match="it is not UTF-8"):
        load_event_types(str(tmp_path / "latin.yaml"))


async def test_every_path_of_the_service_under_api_is_reserved_and_no_operation_has_a_free_name(
    tmp_path,
):
    described = (await description(tmp_path))["paths"]
    own = {path for path in described if path.startswith("/api/") and path != "/api/route"}
    assert {"/".join(path.split("/")[:3]) for path in own} == set(RESERVED_PATHS)
    names = [one["operationId"] for path in own for one in described[path].values()]
    assert not [name for name in names if name.startswith("post") and name[4:5].isupper()]


async def test_the_example_file_makes_a_service_that_describes_it(tmp_path, aiohttp_client):
    example = Path(__file__).parents[2] / "examples" / "event-types" / "event-types.yaml"
    settings = whole_service(tmp_path).model_copy(update={"event_types_file": str(example)})
    async with run_service(settings) as service:
        client = await aiohttp_client(service.app)
        document = await (await client.get("/openapi.json")).json()
    entries = yaml.safe_load(example.read_text())["types"]
    validate(document)
    components = {"components": document["components"]}
    own = {"/api/route": "Hand a document over for indexing"}
    for entry in entries:
        described = document["paths"][entry["path"]]["post"]
        summary = own.get(entry["path"], f"Post the event {entry['name']}")
        assert described["summary"] == entry.get("summary", summary)
        content = described["requestBody"]["content"]["application/json"]
        Draft202012Validator({**content["schema"], **components}).validate(content["example"])
