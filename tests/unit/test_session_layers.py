"""The sessions of an event's meta are those that Inngest takes."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from service.web.intake.incoming import checked_meta
from service.web.intake.lenient_json import BadEventError


def checked(meta: str | dict[str, Any]) -> Any:
    """What is left of the meta; None where it is left out."""
    text = meta if isinstance(meta, str) else json.dumps(meta)
    found = checked_meta(msgspec.Raw(text.encode()))
    return None if found is msgspec.UNSET else json.loads(bytes(found))


def refusal(meta: str | dict[str, Any]) -> str:
    with pytest.raises(BadEventError) as refused:
        checked(meta)
    return str(refused.value)


@pytest.mark.parametrize("meta", ["null", {}, {"more": 1}])
def test_a_meta_without_sessions_has_none(meta: Any) -> None:
    assert checked(meta) == {}


def test_both_layers_are_kept_and_all_else_goes() -> None:
    meta = {"Sessions": {"a": "x"}, "PROPAGATED_SESSIONS": {"b": 1.5}, "more": 1}
    assert checked(meta) == {"sessions": {"a": "x"}, "propagated_sessions": {"b": 1.5}}


@pytest.mark.parametrize(
    "meta",
    [
        {"sessions": None, "propagated_sessions": {"a": "x"}},
        {"sessions": {"a": None}, "propagated_sessions": {"a": "x"}},
        {"sessions": {"a": "x"}, "propagated_sessions": None},
        {"sessions": {}, "propagated_sessions": {}},
    ],
)
def test_a_null_takes_inherited_sessions_away_and_stays(meta: dict[str, Any]) -> None:
    assert checked(meta) == meta


def test_an_inherited_session_is_not_null() -> None:
    assert "null" in refusal({"propagated_sessions": {"a": "x", "b": None}})


def of(count: int, value: object = "x") -> dict[str, object]:
    return {f"key-{at}": value for at in range(count)}


def test_an_event_has_at_most_five_sessions_of_its_own() -> None:
    for meta in ({"sessions": of(5)}, {"sessions": of(6, None)}):
        assert checked(meta) == meta
    inherited = {"sessions": of(5), "propagated_sessions": of(9)}
    assert checked(inherited) == inherited
    assert "more than 5 sessions" in refusal({"sessions": of(6)})


@pytest.mark.parametrize("layer", ["sessions", "propagated_sessions"])
@pytest.mark.parametrize("value", ["x", "\u00e9", 0, -1, 9, 10**30])
def test_a_session_is_a_string_or_a_number(layer: str, value: object) -> None:
    assert checked({layer: {"a": value}}) == {layer: {"a": value}}


@pytest.mark.parametrize("layer", ["sessions", "propagated_sessions"])
@pytest.mark.parametrize("value", [True, False, [], {}, [1]])
def test_a_session_is_nothing_else(layer: str, value: object) -> None:
    assert "not a string or a number" in refusal({layer: {"a": value}})


@pytest.mark.parametrize("layer", ["sessions", "propagated_sessions"])
@pytest.mark.parametrize("text", ["x", "\u00e9", '"'])
def test_a_key_has_1_to_128_bytes_and_an_id_1_to_512(layer: str, text: str) -> None:
    key, session_id = (text * (most // len(text.encode())) for most in (128, 512))
    assert checked({layer: {key: session_id}}) == {layer: {key: session_id}}
    for bad in ({key + "y": "x"}, {"a": session_id + "y"}, {"": "x"}, {"a": ""}):
        assert "an empty or a long key or id" in refusal({layer: bad})


def test_a_long_number_is_a_long_id() -> None:
    assert checked('{"sessions":{"a":%s}}' % ("1" * 512))
    assert "long" in refusal('{"sessions":{"a":%s}}' % ("1" * 513))


@pytest.mark.parametrize("meta", ["[]", "1", '{"sessions":[]}', '{"propagated_sessions":"x"}'])
def test_a_meta_and_its_layers_are_objects(meta: str) -> None:
    with pytest.raises(msgspec.DecodeError):
        checked(meta)
