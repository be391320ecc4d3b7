"""A neighbour's small JSON answer, fetched within bounds."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import aiohttp
import msgspec
import pytest

from service.errors import ProviderUnavailableError
from service.identity.remote_answer import decode, fetch

MIB = 1024 * 1024
URL = "https://neighbour.example/who"


class Neighbour:
    """An HTTP client that answers with these chunks, or fails."""

    def __init__(
        self, chunks: Sequence[bytes] = (b"{}",), status: int = 200, error: Exception | None = None
    ) -> None:
        self.status = status
        self._chunks = chunks
        self._error = error
        self.read = 0
        self.asked: list[tuple[str, dict[str, Any]]] = []

    @asynccontextmanager
    async def get(self, url: str, **options: Any) -> AsyncIterator[Any]:
        self.asked.append((url, options))
        yield self

    @property
    def content(self) -> Neighbour:
        return self

    async def iter_any(self) -> AsyncIterator[bytes]:
        if self._error:
            raise self._error
        for chunk in self._chunks:
            self.read += len(chunk)
            yield chunk


async def fetched(neighbour: Neighbour) -> bytes | None:
    return await fetch(cast("aiohttp.ClientSession", neighbour), URL, {"Accept": "x"})


async def test_it_is_asked_once_without_following_it_elsewhere() -> None:
    neighbour = Neighbour([b'{"a"', b":1}"])
    assert await fetched(neighbour) == b'{"a":1}'
    [(url, options)] = neighbour.asked
    assert (url, options["headers"], options["allow_redirects"]) == (URL, {"Accept": "x"}, False)
    assert options["timeout"] == aiohttp.ClientTimeout(total=5.0)


@pytest.mark.parametrize("status", [201, 204, 302, 401, 404, 500])
async def test_only_200_is_an_answer(status: int) -> None:
    assert await fetched(Neighbour(status=status)) is None


@pytest.mark.parametrize("status", [200, 500])
async def test_an_answer_has_at_most_1_mib(status: int) -> None:
    body = await fetched(Neighbour([b"x" * MIB]))
    assert body == b"x" * MIB
    neighbour = Neighbour([b"x" * MIB, b"x", b"x" * MIB], status)
    with pytest.raises(ProviderUnavailableError, match="too large"):
        await fetched(neighbour)
    assert neighbour.read == MIB + 1


@pytest.mark.parametrize(
    "error", [aiohttp.ClientConnectionError(), TimeoutError(), ValueError("a bad URL")]
)
async def test_without_an_answer_it_is_unavailable(error: Exception) -> None:
    with pytest.raises(ProviderUnavailableError) as refused:
        await fetched(Neighbour(error=error))
    assert refused.value.__cause__ is error


class Named(msgspec.Struct):
    name: str


def test_an_answer_is_what_it_should_be_or_none() -> None:
    assert decode(b'{"name":"a","more":1}', Named).name == "a"
    for body in (b"", b"{}", b"[]", b'{"name":1}', b"\xff", b"[" * 100_000):
        with pytest.raises(ProviderUnavailableError, match="unexpected form"):
            decode(body, Named)
