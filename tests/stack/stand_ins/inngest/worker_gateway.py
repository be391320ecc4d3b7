"""Inngest's side of the workers' connections: it greets workers and runs functions step by step.

It speaks through the SDK's own messages. Each run goes to the worker that connected last; a run
whose worker goes away starts again with the next one, with the steps that it has.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import WSMsgType, web
from inngest.connect._internal import connect_pb2 as pb

FUNCTION = "documents-index-document"
RETRY_SECONDS = 1.0
CONCURRENCY = 4  # as the function asks for
_Kind = pb.GatewayMessageType
_Status = pb.SDKResponseStatus


@dataclass
class Run:
    """A run of the function; `status` and `output` are those of its end."""

    run_id: str
    event: dict[str, Any]
    status: str = "Running"
    output: object = None
    steps: dict[str, object] = field(default_factory=dict)
    attempt: int = 0


class _WorkerGoneError(Exception):
    """No worker is connected, or the one that was asked has gone."""


class WorkerGateway:
    """Runs events with whichever worker is connected. `registered` once one was.

    `ended` hears of each run that has its end.
    """

    def __init__(self, ended: Callable[[Run], None]) -> None:
        self.registered = False
        self._ended = ended
        self._at_once = asyncio.Semaphore(CONCURRENCY)
        self._worker: web.WebSocketResponse | None = None
        self._connected = asyncio.Event()
        self._replies: dict[str, asyncio.Future[pb.SDKResponse]] = {}
        self._runs: set[asyncio.Task[None]] = set()

    def add_routes(self, app: web.Application) -> None:
        """Add what workers ask."""
        app.router.add_post("/v0/connect/start", self._start)
        app.router.add_get("/v0/connect", self._connect)

    def begin(self, run: Run) -> None:
        """Run in the background until the function returns or fails for good."""
        task = asyncio.create_task(self._run(run))
        self._runs.add(task)
        task.add_done_callback(self._runs.discard)

    async def _start(self, request: web.Request) -> web.Response:
        url = str(request.url.with_scheme("ws").with_path("/v0/connect"))
        connection = f"connection-{uuid.uuid4().hex[:8]}"
        answer = pb.StartResponse(
            connection_id=connection, gateway_endpoint=url, gateway_group="stack"
        )
        return web.Response(body=answer.SerializeToString())

    async def _connect(self, request: web.Request) -> web.WebSocketResponse:
        worker = web.WebSocketResponse(protocols=["v0.connect.inngest.com"], heartbeat=20)
        await worker.prepare(request)
        await worker.send_bytes(_message(_Kind.GATEWAY_HELLO))
        async for raw in worker:
            if raw.type is WSMsgType.BINARY:
                await self._hear(worker, pb.ConnectMessage.FromString(raw.data))
        if self._worker is worker:
            self._worker = None
            self._connected.clear()
            for waiting in self._replies.values():
                if not waiting.done():
                    waiting.set_exception(_WorkerGoneError)
            self._replies.clear()
        return worker

    async def _hear(self, worker: web.WebSocketResponse, message: pb.ConnectMessage) -> None:
        if message.kind == _Kind.WORKER_CONNECT:
            ready = pb.GatewayConnectionReadyData(
                heartbeat_interval="10s", extend_lease_interval="5s"
            )
            await worker.send_bytes(_message(_Kind.GATEWAY_CONNECTION_READY, ready))
            self._worker, self.registered = worker, True
            self._connected.set()
        elif message.kind == _Kind.WORKER_HEARTBEAT:
            await worker.send_bytes(_message(_Kind.GATEWAY_HEARTBEAT))
        elif message.kind == _Kind.WORKER_PAUSE and self._worker is worker:
            self._worker = None
            self._connected.clear()
        elif message.kind == _Kind.WORKER_REPLY:
            reply = pb.SDKResponse.FromString(message.payload)
            ack = pb.WorkerReplyAckData(request_id=reply.request_id)
            await worker.send_bytes(_message(_Kind.WORKER_REPLY_ACK, ack))
            waiting = self._replies.pop(reply.request_id, None)
            if waiting and not waiting.done():
                waiting.set_result(reply)

    async def _run(self, run: Run) -> None:
        while run.status == "Running":
            await self._connected.wait()
            try:
                async with self._at_once:
                    reply = await self._ask(run)
            except (_WorkerGoneError, ConnectionError):
                await asyncio.sleep(RETRY_SECONDS)
                continue
            if not _advance(run, reply):
                run.attempt += 1
                await asyncio.sleep(RETRY_SECONDS)
        self._ended(run)

    async def _ask(self, run: Run) -> pb.SDKResponse:
        worker = self._worker
        if worker is None:
            raise _WorkerGoneError
        request_id = uuid.uuid4().hex
        answered: asyncio.Future[pb.SDKResponse] = asyncio.get_running_loop().create_future()
        self._replies[request_id] = answered
        await worker.send_bytes(_request(run, request_id))
        return await answered


def _advance(run: Run, reply: pb.SDKResponse) -> bool:
    """Take a reply's steps or end; False when the function is to be tried again."""
    body = json.loads(reply.body) if reply.body else None
    if reply.status == _Status.NOT_COMPLETED:
        for step in body:
            if step.get("error"):
                return False
            run.steps[step["id"]] = {"data": step["data"]}
        return True
    if reply.status == _Status.DONE:
        run.status, run.output = "Completed", body
    elif reply.no_retry:
        run.status, run.output = "Failed", body
    else:
        return False
    return True


def _message(kind: int, payload: Any = None) -> bytes:
    data = payload.SerializeToString() if payload else b""
    return bytes(pb.ConnectMessage(kind=kind, payload=data).SerializeToString())


def _request(run: Run, request_id: str) -> bytes:
    payload = {
        "ctx": {
            "attempt": run.attempt,
            "disable_immediate_execution": False,
            "run_id": run.run_id,
            "stack": {"stack": list(run.steps)},
        },
        "event": run.event,
        "events": [run.event],
        "steps": run.steps,
        "use_api": False,
    }
    request = pb.GatewayExecutorRequestData(
        request_id=request_id,
        app_name="documents",
        function_slug=FUNCTION,
        step_id="step",
        request_payload=json.dumps(payload).encode(),
    )
    return _message(_Kind.GATEWAY_EXECUTOR_REQUEST, request)
