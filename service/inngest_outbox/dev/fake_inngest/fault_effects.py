"""The effects of a scripted fault on a request.

`faults` decides which fault a request meets. The invariant: what a fault accepts is in the ledger
before the client sees its effect.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from http import HTTPStatus

from aiohttp import web

from inngest_outbox.dev.fake_inngest.events import Reading, WireEvent
from inngest_outbox.dev.fake_inngest.faults import (
    Action,
    Cut,
    Drip,
    Fault,
    FaultScript,
    Hang,
    Partial,
    Poison,
    Reset,
    ScriptedAnswer,
    Slow,
    TooLarge,
)

_LINGER_NOT = struct.pack("ii", 1, 0)


def stores_events(action: Action) -> bool:
    """True when events are accepted in spite of the fault."""
    match action:
        case ScriptedAnswer() | Hang():
            return action.store
        case Reset():
            return action.when == "stored"
        case TooLarge():
            return False
        case _:
            return True


def apply_fault(reading: Reading, fault: Fault) -> Reading:
    """The part of `reading` that is taken under `fault`."""
    match fault.action:
        case Partial():
            return Reading(reading.events[: -fault.action.missing], reading.error)
        case Poison() if fault.match:
            healthy: list[WireEvent] = []
            for event in reading.events:
                if fault.match.fits(event):
                    return Reading(healthy, fault.action.error)
                healthy.append(event)
    return reading


def empty_ids(fault: Fault | None, event_count: int) -> list[str]:
    """The empty ids that `fault` answers for the events it left out, of `event_count`."""
    if fault and isinstance(fault.action, Partial) and fault.action.blank:
        return [""] * min(fault.action.missing, event_count)
    return []


async def respond(
    action: Action, request: web.Request, script: FaultScript, answer: web.Response
) -> web.StreamResponse:
    """Answer `request` as the fault wants; `answer` is the true one."""
    match action:
        case ScriptedAnswer():
            return _scripted(action)
        case TooLarge():
            return _scripted(ScriptedAnswer(413))
        case Drip():
            return await _drip(request, answer, script, action.seconds)
        case Slow():
            await script.pause(action.seconds)
            return answer
        case Partial() | Poison():
            return answer
        case Hang():
            await script.pause(None)
        case Cut():
            await _begin(request, answer, action.answer_bytes)
        case Reset():
            pass
    return reset(request)


def reset(request: web.Request) -> web.Response:
    """Reset the connection (RST, not FIN); the response is never seen."""
    transport = request.transport
    if transport is not None:
        connection: socket.socket = transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
        transport.abort()
    return web.Response()


def _scripted(action: ScriptedAnswer) -> web.Response:
    body = action.body
    if body is None:
        words = HTTPStatus(action.status).phrase
        body = f'{{"error":"{words}","status":{action.status}}}'
    headers = dict(action.headers)
    if action.retry_after is not None:
        headers["Retry-After"] = str(action.retry_after)
    return web.Response(
        status=action.status, text=body, content_type=action.content_type, headers=headers
    )


async def _drip(
    request: web.Request, answer: web.Response, script: FaultScript, seconds: float
) -> web.StreamResponse:
    response = await _begin(request, answer, 0)
    with contextlib.suppress(ConnectionResetError):  # the client waits no longer
        for byte in _body(answer):
            await script.pause(seconds)
            await response.write(bytes([byte]))
        await response.write_eof()
    return response


async def _begin(request: web.Request, answer: web.Response, body_bytes: int) -> web.StreamResponse:
    body = _body(answer)
    response = web.StreamResponse(status=answer.status)
    response.content_type = answer.content_type
    response.content_length = len(body)
    await response.prepare(request)
    await response.write(body[:body_bytes])
    await asyncio.sleep(0)
    return response


def _body(answer: web.Response) -> bytes:
    return answer.body if isinstance(answer.body, bytes) else b""
