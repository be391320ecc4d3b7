"""A large value is refused for what its decoder would refuse, though nobody decodes it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.identity.user import User
from service.outbox.storable import MAX_DEPTH
from service.web.intake.incoming import read_events
from service.web.intake.lenient_json import LARGE_BYTES, BadEventError, faults

TEXT = st.text(st.sampled_from('[]{}",:\\ae1E9+-.\n\u00e9'), max_size=8)
NUMBERS = st.sampled_from(
    ["1", "-0.5", "1e308", "1.5E-400", "1e309", "-2E+400", "9" * 308, "9" * 310]
)
VALUES = st.recursive(
    TEXT.map(json.dumps) | NUMBERS | st.sampled_from(["null", "true", "false"]),
    lambda inner: (
        st.lists(inner, max_size=4).map(lambda parts: f"[{', '.join(parts)}]")
        | st.dictionaries(TEXT.map(json.dumps), inner, max_size=4).map(
            lambda fields: "{" + ",".join(f"{key} :{one}" for key, one in fields.items()) + "}"
        )
    ),
    max_leaves=12,
)


def found(value: bytes, piece_bytes: int = 64 * 1024) -> list[str]:
    return [words for words in faults(value, piece_bytes) if words]


def numbers_of(decoded: object) -> Iterator[float]:
    if isinstance(decoded, float):
        yield decoded
    for one in decoded if isinstance(decoded, list) else ():
        yield from numbers_of(one)
    for one in decoded.values() if isinstance(decoded, dict) else ():
        yield from numbers_of(one)


@given(VALUES, st.integers(1, 12))
def test_what_a_decoder_refuses_is_refused_wherever_the_pieces_end(value: str, size: int) -> None:
    is_refused = any(map(math.isinf, numbers_of(json.loads(value, parse_int=float))))
    assert bool(found(f"[{value}]".encode(), size)) is is_refused


@pytest.mark.parametrize("size", [7, 64 * 1024])
@pytest.mark.parametrize(("opens", "closes"), [(b"[", b"]"), (b'{"[":', b"}")])
def test_a_value_has_at_most_500_levels(opens: bytes, closes: bytes, size: int) -> None:
    def nested(levels: int) -> bytes:
        inner = opens * (levels - 1) + b"1" + closes * (levels - 1)
        return b"[" + b",".join([inner] * 3) + b"]"

    assert found(nested(MAX_DEPTH), size) == []
    assert found(nested(MAX_DEPTH + 1), size) == [
        f"An event is nested more than {MAX_DEPTH} levels deep"
    ]


FILLER = b'"filler":"%b",' % (b"x[{1e400" * (LARGE_BYTES // 8))


@pytest.mark.parametrize("field", [b"data", b"user"])
@pytest.mark.parametrize("value", [b"1e400", b"[" * 501 + b"]" * 501])
def test_a_large_event_with_such_a_value_is_refused(field: bytes, value: bytes) -> None:
    event = b'{"name":"a","%b":{%b"x":%b}}'
    good = event % (field, FILLER, b"1")
    assert [one for one in read_events(good, User("key", "a"), 1) if one]
    with pytest.raises(BadEventError):
        list(read_events(event % (field, FILLER, value), User("key", "a"), 1))


@pytest.mark.parametrize("data", [b"[%b]", b'"%b"'])
def test_large_data_must_be_an_object(data: bytes) -> None:
    values = data % b",".join([b"1"] * LARGE_BYTES)
    with pytest.raises(BadEventError, match="must be an object"):
        list(read_events(b'{"name":"a","data":%b}' % values, User("key", "a"), 1))


def test_what_is_not_unicode_in_a_large_event_is_replaced() -> None:
    body = b'{"name":"a","data":{%b"x":"\xff"}}' % FILLER
    [event] = [one.event for one in read_events(body, User("key", "a"), 1) if one]
    assert json.loads(event.payload)["data"]["x"] == "\ufffd"
