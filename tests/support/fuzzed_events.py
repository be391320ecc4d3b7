"""Requests of events as a careless or hostile client makes them, from a seeded source of chance."""

from __future__ import annotations

import random
from collections.abc import Iterator

_VALUES = (
    *(b"null", b"true", b"0", b"-0", b"01", b"1.", b"1e308", b"1e400", b"-1e400", b"NaN"),
    *(b"1" * 308, b"1" * 310, b"9223372036854775808"),
    *(b"1795559419447", b"1795559419", b"4102444800000", b"4102444800001", b"315532800000", b"-5"),
    *(b'"a"', b'"a/b"', b'""', b'"\\u0000"', b'"\\ud800"', b'"\\ud83d\\ude00"', b'"\\u0130"'),
    *(b'"\xff"', b'"\xed\xa0\x80"', b'"\x01"', b'"\\q"', b'"inngest/x"', b'"INNGEST/y"'),
    *('"\u0130nngest/x"'.encode(), b"[]", b"{}", b'{"a":1}', b"[[[[1]]]]"),
    *(b'{"_inngest":1,"a":2}', b'{"x":"\\ud800\\u0041"}', b'{"x":1e999}', b'{"x":"\xff\xfe"}'),
    *(b'{"sessions":{"a":"b"}}', b'{"sessions":{"a":null}}', b'{"sessions":[]}'),
    *(b'{"sessions":{"a":1,"b":2,"c":3,"d":4,"e":5,"f":6}}', b'{"Sessions":{"a":true}}'),
    *(b'{"sessions":{"":"a"}}', b'{"sessions":{"a":""}}', b'{"propagated_sessions":{"a":null}}'),
    b'{"sessions":null,"propagated_sessions":{"a":"x"}}',
)
_GOOD = {
    b"name": b'"q"',
    b"id": b'"i"',
    b"ts": b"0",
    b"v": b'"1"',
    b"data": b'{"x":1}',
    b"user": b"{}",
    b"meta": b"{}",
}
_SPELLINGS = {
    **{name: (name, name.upper(), name.title()) for name in _GOOD},
    b"user": (b"user", b"USER", "u\u017fer".encode()),
    b"name": (b"name", b"Name", b"n\\u0061me"),
    b"more": (b"more",),
}
_TAILS = (*[b"]"] * 6, b"", b"}", b",]", b"] x", b" ", b",", b"]]")
_BYTES = (b"\x00", b"\xff", b'"', b"}", b"]", b",", b"{", b"[", b"\\", b"1", b"e")


def fuzzed_bodies(seed: int, count: int) -> Iterator[bytes]:
    """`count` bodies, the same for the same seed."""
    chance = random.Random(seed)
    for _ in range(count):
        yield _body(chance)


def _body(chance: random.Random) -> bytes:
    if chance.random() < 0.35:
        body = _event(chance)
    else:
        comma = chance.choice([b",", b" , ", b",", b",", b" ", b",,"])
        events = [_event(chance) for _ in range(chance.randrange(5))]
        body = b"[" + comma.join(events) + chance.choice(_TAILS)
    if chance.random() < 0.1:
        body = body[: chance.randrange(len(body) + 1)]
    if chance.random() < 0.1:
        at = chance.randrange(len(body) + 1)
        body = body[:at] + chance.choice(_BYTES) + body[at + chance.randrange(2) :]
    if chance.random() < 0.05:
        before = chance.choice([b" ", b"\n", b"\x0b", b"\xef\xbb\xbf", b""])
        body = before + body + chance.choice([b"", b" ", b"x"])
    return body


def _event(chance: random.Random) -> bytes:
    names = chance.sample(sorted(_SPELLINGS), chance.randrange(4))
    fields = [] if b"name" in names or chance.random() < 0.2 else [b'"name":"a/b"']
    for name in names:
        good = chance.random() < 0.4
        value = _GOOD.get(name, b"1") if good else chance.choice(_VALUES)
        fields.append(b'"' + chance.choice(_SPELLINGS[name]) + b'":' + value)
    chance.shuffle(fields)
    return chance.choice([b"", b" "]) + b"{" + b",".join(fields) + b"}"
