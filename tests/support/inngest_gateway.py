"""Inngest's side of a worker connection, as the stack has it, over real HTTP and a real websocket.

It speaks through the SDK's own messages, so a test with it proves this service's side, not the
SDK's. A real server is used where one is configured.
"""

from __future__ import annotations

import asyncio
import json

import msgspec
from aiohttp import web
from inngest.connect._internal import connect_pb2 as pb

from tests.stack.stand_ins.inngest.worker_gateway import Run, WorkerGateway


class Outcome(msgspec.Struct, frozen=True):
    """How a run ended: `status` is DONE or ERROR."""

    status: str
    output: object
    no_retry: bool
    steps: tuple[str, ...]


class InngestGateway(WorkerGateway):
    """Takes events, too. `refusals` is how many connections get `refusal` first."""

    def __init__(self, refusals):
        super().__init__(lambda _: None)
        self.refusals = refusals
        self.refusal = 401
        self.events = []
        self.paused = asyncio.Event()
        self.replied = 0

    async def drop(self):
        """Close the connection of the worker; it may connect again."""
        await self._worker.close()

    def app(self):
        app = web.Application()
        self.add_routes(app)
        app.router.add_post("/e/{key}", self._event)
        return app

    async def run(self, event_id, data):
        """Run the function on an event until it ends, or fails once."""
        event = {"id": event_id, "name": "documents/aws.index", "data": data, "ts": 1}
        run, names = Run("r-1", event), []
        await self._connected.wait()
        while True:
            reply = await self._ask(run)
            body = json.loads(reply.body) if reply.body else None
            if reply.status != pb.SDKResponseStatus.NOT_COMPLETED:
                status = pb.SDKResponseStatus.Name(reply.status)
                return Outcome(status, body, reply.no_retry, tuple(names))
            for step in body:
                if step.get("error"):
                    return Outcome("ERROR", step["error"], reply.no_retry, tuple(names))
                run.steps[step["id"]] = {"data": step["data"]}
                names.append(step["displayName"])

    async def _start(self, request):
        if self.refusals:
            self.refusals -= 1
            return web.Response(status=self.refusal)
        return await super()._start(request)

    async def _hear(self, worker, message):
        if message.kind == pb.GatewayMessageType.WORKER_PAUSE:
            self.paused.set()
        if message.kind == pb.GatewayMessageType.WORKER_REPLY:
            self.replied += 1
        await super()._hear(worker, message)

    async def _event(self, request):
        events = await request.json()
        self.events += events
        return web.json_response({"ids": ["01" for _ in events], "status": 200})
