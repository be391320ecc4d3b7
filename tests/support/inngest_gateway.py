"""Stands for Inngest's side of a worker connection, over real HTTP and a real websocket.

It greets workers, runs a function step by step as Inngest does (each reply's steps are remembered
and the function is called again), and takes events. It speaks through the SDK's own messages, so a
test with it proves this service's side, not the SDK's. A real server is used where one is
configured.
"""

from __future__ import annotations

import asyncio
import json
import uuid

import msgspec
from aiohttp import WSMsgType, web
from inngest.connect._internal import connect_pb2 as pb

FUNCTION = "documents-index-document"
_Kind = pb.GatewayMessageType


class Outcome(msgspec.Struct, frozen=True):
    """How a run ended: `status` is DONE or ERROR."""

    status: str
    output: object
    no_retry: bool
    steps: tuple[str, ...]


class InngestGateway:
    """The handlers, and what they saw. `refusals` is how many connections get `refusal` first."""

    def __init__(self, refusals=0, refusal=401):
        self.refusals = refusals
        self.refusal = refusal
        self.events = []
        self.paused = asyncio.Event()
        self.replied = 0
        self._worker = asyncio.Queue()
        self._replies = asyncio.Queue()

    async def drop(self):
        """Close the connection of the worker that connected first; it may connect again."""
        worker = await self._worker.get()
        await worker.close()

    def app(self):
        app = web.Application()
        app.router.add_post("/v0/connect/start", self._start)
        app.router.add_get("/ws", self._connect)
        app.router.add_post("/e/{key}", self._event)
        return app

    async def run(self, event_id, data):
        """Run the function on an event until it ends."""
        event = {"id": event_id, "name": "documents/aws.index", "data": data, "ts": 1}
        steps, names = {}, []
        worker = await self._worker.get()
        self._worker.put_nowait(worker)
        while True:
            await worker.send_bytes(_request(event, steps))
            reply = await self._replies.get()
            body = json.loads(reply.body) if reply.body else None
            if reply.status != pb.SDKResponseStatus.NOT_COMPLETED:
                status = pb.SDKResponseStatus.Name(reply.status)
                return Outcome(status, body, reply.no_retry, tuple(names))
            for step in body:
                if step.get("error"):
                    return Outcome("ERROR", step["error"], reply.no_retry, tuple(names))
                steps[step["id"]] = {"data": step["data"]}
                names.append(step["displayName"])

    async def _start(self, request):
        if self.refusals:
            self.refusals -= 1
            return web.Response(status=self.refusal)
        url = str(request.url.with_scheme("ws").with_path("/ws"))
        answer = pb.StartResponse(connection_id="c-1", gateway_endpoint=url, gateway_group="g")
        return web.Response(body=answer.SerializeToString())

    async def _connect(self, request):
        ws = web.WebSocketResponse(protocols=["v0.connect.inngest.com"])
        await ws.prepare(request)
        await ws.send_bytes(_message(_Kind.GATEWAY_HELLO))
        async for raw in ws:
            if raw.type is not WSMsgType.BINARY:
                continue
            message = pb.ConnectMessage.FromString(raw.data)
            if message.kind == _Kind.WORKER_CONNECT:
                ready = pb.GatewayConnectionReadyData(
                    heartbeat_interval="10s", extend_lease_interval="5s"
                )
                await ws.send_bytes(_message(_Kind.GATEWAY_CONNECTION_READY, ready))
                self._worker.put_nowait(ws)
            elif message.kind == _Kind.WORKER_PAUSE:
                self.paused.set()
            elif message.kind == _Kind.WORKER_REPLY:
                reply = pb.SDKResponse.FromString(message.payload)
                ack = pb.WorkerReplyAckData(request_id=reply.request_id)
                await ws.send_bytes(_message(_Kind.WORKER_REPLY_ACK, ack))
                self.replied += 1
                self._replies.put_nowait(reply)
        return ws

    async def _event(self, request):
        events = await request.json()
        self.events += events
        return web.json_response({"ids": ["01" for _ in events], "status": 200})


def _message(kind, payload=None):
    data = payload.SerializeToString() if payload else b""
    return pb.ConnectMessage(kind=kind, payload=data).SerializeToString()


def _request(event, steps):
    payload = {
        "ctx": {
            "attempt": 0,
            "disable_immediate_execution": False,
            "run_id": "r-1",
            "stack": {"stack": list(steps)},
        },
        "event": event,
        "events": [event],
        "steps": steps,
        "use_api": False,
    }
    request = pb.GatewayExecutorRequestData(
        request_id=uuid.uuid4().hex,
        app_name="documents",
        function_slug=FUNCTION,
        step_id="step",
        request_payload=json.dumps(payload).encode(),
    )
    return _message(_Kind.GATEWAY_EXECUTOR_REQUEST, request)
