"""Values of clients are decoded as by others, and hold up nobody."""

from __future__ import annotations

import json
import sys

import msgspec
import pytest

from inngest_outbox.untyped_json import decode_untyped, decode_untyped_object

NUMBERS = [b"1e308", b"-1.7976931348623157e308", b"5e-324", b"1e-400", b"0.1", b"-0.0", b"1e23"]


def test_a_number_is_what_python_reads_or_refused_where_a_float_can_not_hold_it() -> None:
    for number in NUMBERS:
        text = b'{"a":%b}' % number
        assert decode_untyped_object(text) == json.loads(text)
    for number in (b"1e309", b"-1e999", b"9" * 400 + b".0"):
        with pytest.raises(msgspec.ValidationError):
            decode_untyped(b"[%b]" % number)


@pytest.mark.parametrize("number", NUMBERS)
def test_each_number_that_msgspec_may_read_slowly_is_read_by_python(number: bytes) -> None:
    """It reads them 10 to 25 times as fast near the limits of a float."""
    texts = [b"[%b,%b]" % (number, number), b'{"a":[%b,%b]}' % (number, number)]
    for decode, text in zip((decode_untyped, decode_untyped_object), texts, strict=True):
        happened: list[str] = []
        sys.setprofile(lambda _frame, what, _of, told=happened: told.append(what))
        decode(text)
        sys.setprofile(None)
        assert happened.count("call") == 2
