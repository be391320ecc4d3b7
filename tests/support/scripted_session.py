"""An HTTP session that gives the answers of a test and keeps what it was asked."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

MIB = 1024 * 1024


class Asked(NamedTuple):
    """One request: what the session was called with."""

    method: str
    url: str
    named: dict[str, Any]


class Pieces:
    """A body that arrives in these pieces; a read returns one, whatever its size."""

    def __init__(self, pieces: tuple[bytes, ...]) -> None:
        self._left = list(pieces)

    async def read(self, _: int) -> bytes:
        return self._left.pop(0) if self._left else b""

    def at_eof(self) -> bool:
        return not self._left


@dataclass
class Answer:
    """An answer; its body arrives in pieces."""

    status: int = 200
    pieces: tuple[bytes, ...] = (b"{}",)
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "application/json"

    def __post_init__(self) -> None:
        self.content = Pieces(self.pieces)


class ScriptedSession:
    """Gives these answers one after the other; an exception is raised."""

    def __init__(self, *answers: Answer | Exception) -> None:
        self.asked: list[Asked] = []
        self._answers = list(answers)

    def get(self, url: str, **named: Any) -> contextlib.AbstractAsyncContextManager[Answer]:
        return self._answered(Asked("GET", url, named))

    def post(self, url: str, **named: Any) -> contextlib.AbstractAsyncContextManager[Answer]:
        return self._answered(Asked("POST", url, named))

    @contextlib.asynccontextmanager
    async def _answered(self, asked: Asked) -> AsyncIterator[Answer]:
        self.asked.append(asked)
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        yield replace(answer)  # a body of its own, whoever used this answer before
