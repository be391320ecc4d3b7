"""The control socket: `outbox` commands reach the process that owns an SQLite outbox through it.

It is a Unix socket in a new folder that only this user may enter: the file system decides who may
send commands. The outbox's lock file has its path. The folder of a killed process has no listener,
and the lock file never names it again.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec
import structlog
from aiohttp import web

from service.console.operations.bulk import PAGE
from service.console.operations.sign_outs import SignOuts
from service.console.operations.socket_server import serve_at
from service.errors import ServiceError
from service.outbox.audit import Act
from service.outbox.model import Named
from service.outbox.ports import Repairs

ACTIONS = ("replay", "discard", "purge", "pause", "sign-out", "faults")
_MAX_BODY_BYTES = 4 * 1024 * 1024

log = structlog.get_logger(__name__)


class Command(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """The body of a command; each action reads its own fields."""

    actor: str = ""
    wanted: Named | None = None
    act: Act | None = None
    older_than_seconds: float | None = None
    paused: bool | None = None
    ask_now: bool = False
    reason: str = ""
    owners: tuple[str, ...] = ()


class Refusal(msgspec.Struct, frozen=True, gc=False):
    """The body of an answer other than 200."""

    error: str


@contextlib.asynccontextmanager
async def serve_control_socket(
    path: str,
    repairs: Repairs,
    faults: Callable[[], list[str]],
    sign_outs: SignOuts | None = None,
) -> AsyncIterator[None]:
    """Take commands at `path` in this context. `faults` says why events can't be stored."""
    app = web.Application(client_max_size=_MAX_BODY_BYTES)
    control = _Control(repairs, faults, sign_outs)
    for action in ACTIONS:
        app.router.add_post(f"/{action}", control.handler(action))
    async with serve_at(path, app):
        yield


class _Control:
    def __init__(
        self, repairs: Repairs, faults: Callable[[], list[str]], sign_outs: SignOuts | None
    ) -> None:
        self._repairs = repairs
        self._faults = faults
        self._sign_outs = sign_outs
        self._decode = msgspec.json.Decoder(Command).decode

    def handler(self, action: str) -> Callable[[web.Request], Awaitable[web.Response]]:
        """The handler of one action."""

        async def handle(request: web.Request) -> web.Response:
            try:
                command = self._decode(await request.read())
                result = await self._act(action, command)
            except msgspec.DecodeError as error:
                return _json(400, Refusal(str(error)))
            except ServiceError as error:
                return _json(503, Refusal(str(error)))
            return _json(200, result)

        return handle

    async def _act(self, action: str, command: Command) -> object:
        actor = command.actor
        if action == "faults":
            return self._faults()
        if action == "sign-out" and self._sign_outs is not None:
            return await self._sign_outs.sign_out(command.owners, actor=actor)
        if action == "pause" and command.paused is not None:
            return await self._repairs.set_paused(
                paused=command.paused,
                actor=actor,
                ask_now=command.ask_now,
                reason=command.reason,
            )
        if action == "purge" and command.older_than_seconds is not None:
            return await self._repairs.purge(
                older_than_seconds=command.older_than_seconds, actor=actor
            )
        change = self._repairs.replay if action == "replay" else self._repairs.discard
        return await change(_named(command), actor=actor, act=command.act)


def _named(command: Command) -> Named:
    """The rows of a change: a page of ids, so that no transaction is long."""
    if command.wanted is None or not command.wanted.ids:
        raise msgspec.ValidationError("the command names no rows")
    if len(command.wanted.ids) > PAGE:
        raise msgspec.ValidationError(f"the command names more than {PAGE} rows")
    return command.wanted


def _json(status: int, body: object) -> web.Response:
    return web.Response(
        status=status, body=msgspec.json.encode(body), content_type="application/json"
    )
