"""A request's body: read within its bounds, and taken only as the JSON that it says it is."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import Any
from unittest import mock

import msgspec
import pytest
from aiohttp import web

from inngest_outbox.errors import (
    BodyTimeoutError,
    BodyTooLargeError,
    EncodingRefusedError,
    InvalidFieldError,
    InvalidJsonError,
    JsonRequiredError,
    OutboxUnavailableError,
)
from inngest_outbox.web.server.body import (
    check_depth,
    read_body,
    read_json,
    read_json_bytes,
    read_raw_body,
)
from inngest_outbox.web.server.body_budget import (
    FREE_BYTES,
    WAIT_SECONDS,
    BodyBudget,
    Share,
    body_budget_key,
)
from inngest_outbox.web.server.connection import Connection
from tests.support.made_request import JSON, made_request
from tests.support.virtual_time import in_virtual_time, now


class Thing(msgspec.Struct, rename="camel"):
    size: int
    long_note: str = ""
    more: dict[str, int] = {}


DECODER = msgspec.json.Decoder(Thing)
TOO_DEEP = InvalidJsonError if sys.version_info < (3, 14) else None  # its stack has room


def length(size: int) -> dict[str, str]:
    return {"Content-Length": str(size)}


@pytest.mark.parametrize(
    ("body", "chunks", "headers", "most"),
    [
        (b"", [], {}, 0),
        (b"x" * 10, [], {}, 10),
        (b"x" * 10, [], length(10), 10),
        (b"x", [b"x" * 4, b"x" * 5], {}, 10),
        (b"x", [b"x" * 9], length(10), 10),
        (b"x", [b"x"], {}, 10),
    ],
)
async def test_a_body_up_to_its_bound_is_read_whole(
    body: bytes, chunks: list[bytes], headers: dict[str, str], most: int
) -> None:
    request = made_request(body, headers, chunks=chunks)
    assert await read_raw_body(request, max_bytes=most) == body + b"".join(chunks)


@pytest.mark.parametrize(
    ("body", "chunks", "headers", "ends"),
    [
        (b"x" * 11, [], {}, True),
        (b"x" * 11, [], length(11), True),
        (b"", [], length(11), False),  # it says so before any of it has come
        (b"x", [b"x" * 9, b"x"], {}, True),
        (b"x", [b"x" * 9, b"x"], {}, False),  # the rest is not waited for
    ],
)
async def test_a_body_above_its_bound_is_refused_at_once(
    body: bytes, chunks: list[bytes], headers: dict[str, str], *, ends: bool
) -> None:
    request = made_request(body, headers, chunks=chunks, ends=ends)
    with pytest.raises(BodyTooLargeError):
        await read_raw_body(request, max_bytes=10)


@in_virtual_time
async def test_the_bytes_of_a_body_that_ends_are_for_all_who_wait_and_fit() -> None:
    budget = BodyBudget(400)
    first, *others, late = [Share(budget, "ada") for _ in range(5)]
    await first.grow(30)
    await first.grow(60)
    small = Share(budget, "ada")
    await small.grow(40)  # what is left of the owner's part
    small.release()
    await first.grow(100)
    waiting = [asyncio.create_task(one.grow(50)) for one in others]
    await asyncio.sleep(1)
    first.release()
    await asyncio.sleep(1)
    assert [one.done() for one in waiting] == [True, True, False]
    others[0].release()
    await waiting[2]
    began = now()
    with pytest.raises(OutboxUnavailableError):
        await late.grow(1)
    assert now() - began == WAIT_SECONDS
    leaving = Share(budget, "ada")
    gone = asyncio.create_task(leaving.grow(1))
    await asyncio.sleep(1)
    gone.cancel()
    for one in (others[1], others[2], leaving):
        one.release()
    whole = [Share(budget, owner) for owner in ("ada", "bob", "eve", "kim")]
    for one in whole:
        await one.grow(100)  # nobody who gave up has a part
    of_bob, hasty, patient = [
        asyncio.create_task(Share(budget, owner).grow(50)) for owner in ("bob", "ada", "ada")
    ]
    await asyncio.sleep(1)
    hasty.cancel()
    await asyncio.sleep(1)
    whole[0].release()
    await patient
    whole[1].release()
    await of_bob
    assert [gone.cancelled(), hasty.cancelled()] == [True, True]


@in_virtual_time
async def test_a_body_that_says_its_size_counts_for_no_more() -> None:
    app = web.Application()
    app[body_budget_key] = BodyBudget(16 * FREE_BYTES)
    size = 2 * FREE_BYTES
    connection = mock.Mock(spec=Connection)
    request = made_request(b"x" * size, length(size), app=app, protocol=connection)
    assert len(await read_raw_body(request, max_bytes=size, owner="ada")) == size
    await Share(app[body_budget_key], "ada").grow(size)


@in_virtual_time
async def test_a_body_without_an_owner_counts_for_its_peer() -> None:
    app = web.Application()
    app[body_budget_key] = BodyBudget(8 * FREE_BYTES)

    async def size_from(peer: str) -> int:
        connection = mock.Mock(spec=Connection)
        request = made_request(b"x" * 2 * FREE_BYTES, app=app, protocol=connection)
        return len(await read_raw_body(request.clone(remote=peer), max_bytes=4 * FREE_BYTES))

    for peer in ("10.0.0.1", "10.0.0.2"):
        assert await size_from(peer) == 2 * FREE_BYTES
    # One that says how large it is counts before any of it has come.
    coming = []
    for peer, size in (("10.0.0.3", 2 * FREE_BYTES), ("10.0.0.1", FREE_BYTES)):  # one is small
        connection = mock.Mock(spec=Connection)
        said = made_request(b"", length(size), app=app, protocol=connection, ends=False)
        reading = read_raw_body(said.clone(remote=peer), max_bytes=4 * FREE_BYTES)
        coming.append(asyncio.create_task(reading))
    await asyncio.sleep(1)
    for peer in ("10.0.0.1", "10.0.0.3"):
        with pytest.raises(OutboxUnavailableError):
            await size_from(peer)
    for one in coming:
        with pytest.raises(BodyTimeoutError):
            await one


@in_virtual_time
@pytest.mark.parametrize(
    ("begun", "kib_a_second", "seconds", "is_read"),
    [
        (2 * FREE_BYTES, 80, 29, True),
        (2 * FREE_BYTES, 80, 31, False),
        (2 * FREE_BYTES, 48, 25, False),
        (FREE_BYTES, 0, 29, True),
        (0, 2, 29, True),
        (0, 2, 31, False),
    ],
)
async def test_a_body_has_30_seconds_and_a_large_one_comes_at_64_kib_a_second(
    begun: int, kib_a_second: int, seconds: int, *, is_read: bool
) -> None:
    request = made_request(b"x" * begun, ends=False)
    later = asyncio.get_running_loop().call_later
    for second in range(1, seconds):
        later(second, request.content.feed_data, b"x" * 1024 * kib_a_second)
    later(seconds, request.content.feed_eof)
    reading = read_raw_body(request, max_bytes=2**22)
    with contextlib.nullcontext() if is_read else pytest.raises(BodyTimeoutError):
        assert len(await reading) == begun + (seconds - 1) * 1024 * kib_a_second


@pytest.mark.parametrize("headers", [{}, length(2 * FREE_BYTES)])
@in_virtual_time
async def test_the_wait_for_a_share_is_no_slowness_of_the_client(headers: dict[str, str]) -> None:
    app = web.Application()
    app[body_budget_key] = BodyBudget(8 * FREE_BYTES, wait_seconds=60)
    other = Share(app[body_budget_key], "ada")
    await other.grow(2 * FREE_BYTES)
    body, connection = b"x" * 2 * FREE_BYTES, mock.Mock(spec=Connection)
    request = made_request(body, headers, app=app, protocol=connection, ends=False)
    later = asyncio.get_running_loop().call_later
    later(40, other.release)
    later(42, request.content.feed_eof)
    assert await read_raw_body(request, max_bytes=4 * FREE_BYTES, owner="ada") == body


@pytest.mark.parametrize("encoding", [None, "", "identity", " Identity "])
async def test_a_body_without_an_encoding_is_read(encoding: str | None) -> None:
    headers = {} if encoding is None else {"Content-Encoding": encoding}
    assert await read_body(made_request(b"x", headers), max_bytes=1) == b"x"
    with pytest.raises(BodyTooLargeError):
        await read_body(made_request(b"xx", headers), max_bytes=1)


@pytest.mark.parametrize(
    "encoding", ["gzip", "br", "identity, gzip", "GZIP", "gzip, identity", "x"]
)
async def test_a_body_in_an_encoding_is_refused(encoding: str) -> None:
    request = made_request(b"{}", {**JSON, "Content-Encoding": encoding})
    for read in (read_body, read_json_bytes):
        with pytest.raises(EncodingRefusedError):
            await read(request, max_bytes=1)  # though it is too large


@pytest.mark.parametrize(
    ("content_type", "is_json"),
    [
        ("application/json", True),
        ("application/json; charset=utf-8", True),
        ("Application/JSON", True),
        ("text/json", False),
        ("application/problem+json", False),
        ("application/jsonp", False),
        ("text/plain; application/json", False),
        (None, False),
    ],
)
async def test_only_what_says_that_it_is_json_is_read(
    content_type: str | None, *, is_json: bool
) -> None:
    headers = {"Content-Type": content_type} if content_type else {}
    if is_json:
        assert await read_json_bytes(made_request(b"{}", headers), max_bytes=2) == b"{}"
        with pytest.raises(BodyTooLargeError):
            await read_json_bytes(made_request(b"{ }", headers), max_bytes=2)
    else:
        request = made_request(b"{}", {**headers, "Content-Encoding": "gzip"})
        with pytest.raises(JsonRequiredError):  # whatever else is wrong
            await read_json_bytes(request, max_bytes=1)


@pytest.mark.parametrize(
    ("body", "refusal"),
    [
        (b'{"size": 1}', None),
        (b' \t\r\n{"size": 1, "other": [1]}', None),
        (b"", InvalidJsonError),
        (b"[1]", InvalidJsonError),
        (b'"text"', InvalidJsonError),
        (b'{"size": 1', InvalidJsonError),
        (b'{"size": 1} x', InvalidJsonError),
        (b'{"size": 1, "unread": "\xff"}', InvalidJsonError),
        (b'{"size": "one", "unread": "\xff"}', InvalidJsonError),
        (b'{"size": 1, "unread": "\xc3\xa9"}', None),
        (b'{"other": ' + b"[" * 32_000 + b"]" * 32_000 + b', "size": 1}', TOO_DEEP),
    ],
)
async def test_an_object_of_the_type_is_decoded_and_another_body_refused(
    body: bytes, refusal: Any
) -> None:
    if refusal is None:
        assert await read_json(made_request(body, JSON), DECODER) == Thing(1)
    else:
        with pytest.raises(refusal):
            await read_json(made_request(body, JSON), DECODER)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"{}", "size"),
        (b'{"size": "one"}', "size"),
        (b'{"size": 1, "longNote": 1}', "longNote"),
        (b'{"size": 1, "more": {"secret": "x"}}', "more"),
    ],
)
async def test_the_refusal_names_the_field_and_no_input_with_it(body: bytes, field: str) -> None:
    with pytest.raises(InvalidFieldError) as refused:
        await read_json(made_request(body, JSON), DECODER)
    assert str(refused.value) == f"The field {field} is missing or has a wrong value."


async def test_a_small_body_has_at_most_64_kib() -> None:
    body = b'{"size": 1}'.ljust(64 * 1024)
    assert await read_json(made_request(body, JSON), DECODER) == Thing(1)
    with pytest.raises(BodyTooLargeError):
        await read_json(made_request(body + b" ", JSON), DECODER)


@pytest.mark.parametrize(("levels", "is_taken"), [(500, True), (501, False)])
def test_a_body_is_nested_at_most_500_levels_deep(levels: int, *, is_taken: bool) -> None:
    body = b"[" * levels + b"]" * levels
    if is_taken:
        check_depth(body, msgspec.json.decode(body))
    else:
        with pytest.raises(InvalidJsonError, match="nested more than 500 levels deep"):
            check_depth(body, msgspec.json.decode(body))
