"""Liveness, readiness and metrics, for orchestrators and monitoring.

Ready means that posts can be accepted and are delivered or retried: the store is writable, the
background tasks run, the configuration is complete. An outage of Inngest does not make the service
unready; `detail` shows it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec
from aiohttp import web

from inngest_outbox.errors import MetricsTokenRequiredError
from inngest_outbox.outbox.link.messages import REASON_KEY
from inngest_outbox.web.openapi.endpoint import Access, Answer, Endpoint
from inngest_outbox.web.server.answers import json_answer
from inngest_outbox.web.server.proxies import check_metrics_access, is_local

_UNAVAILABLE = 503
_READY_EXAMPLE = {"status": "ready", "faults": [], "detail": {"undelivered": 0}}


class Alive(msgspec.Struct, frozen=True, gc=False):
    """The process answers."""

    status: str


class Readiness(msgspec.Struct, frozen=True, gc=False):
    """The readiness of the service, and the state of its parts."""

    status: str
    faults: list[str]
    detail: dict[str, object]


class Health:
    """The handlers of /healthz, /readyz and /metrics.

    `faults` returns a sentence for each reason why the service is unready, `detail` the state of
    its parts, `render_metrics` the exposition text with its content type.
    """

    def __init__(
        self,
        *,
        faults: Callable[[], list[str]],
        detail: Callable[[], Mapping[str, object]],
        render_metrics: Callable[[], tuple[bytes, str]],
        metrics_token: str | None,
    ) -> None:
        self._faults = faults
        self._detail = detail
        self._render_metrics = render_metrics
        self._metrics_token = metrics_token

    def routes(self) -> list[web.RouteDef]:
        """The routes to mount."""
        return [
            web.get("/healthz", self.healthz),
            web.get("/readyz", self.readyz),
            web.get("/metrics", self.metrics),
        ]

    def endpoints(self) -> list[Endpoint]:
        """The entries of the API's description."""
        return [
            Endpoint(
                method="GET",
                path="/healthz",
                name="isAlive",
                tag="health",
                summary="Liveness: the process answers",
                access=Access.ANYBODY,
                answers={200: Answer("Alive", Alive, {"status": "ok"})},
            ),
            Endpoint(
                method="GET",
                path="/readyz",
                name="isReady",
                tag="health",
                summary="Readiness: posts can be accepted",
                access=Access.ANYBODY,
                answers={
                    200: Answer("They can", Readiness, _READY_EXAMPLE),
                    _UNAVAILABLE: Answer("They can't: see `faults`", Readiness),
                },
            ),
            Endpoint(
                method="GET",
                path="/metrics",
                name="getMetrics",
                tag="health",
                summary="The figures in Prometheus' text format",
                access=Access.METRICS,
                answers={200: Answer("The figures", {"type": "string"}, content_type="text/plain")},
                errors=(MetricsTokenRequiredError,),
            ),
        ]

    async def healthz(self, request: web.Request) -> web.Response:
        """The process answers."""
        del request
        return json_answer(Alive("ok"))

    async def readyz(self, request: web.Request) -> web.Response:
        """200 when ready, 503 with the faults when not.

        Only this machine gets Inngest's own words, because they may quote an event.
        """
        faults, detail = self._faults(), dict(self._detail())
        if not is_local(request):
            detail = {name: _without_reason(value) for name, value in detail.items()}
        ready = Readiness("unready" if faults else "ready", faults, detail)
        return json_answer(ready, status=_UNAVAILABLE if faults else 200)

    async def metrics(self, request: web.Request) -> web.Response:
        """The figures in Prometheus' text format."""
        check_metrics_access(request, self._metrics_token)
        body, content_type = self._render_metrics()
        return web.Response(body=body, headers={"Content-Type": content_type})


def _without_reason(value: object) -> object:
    if isinstance(value, dict):
        return {name: inner for name, inner in value.items() if name != REASON_KEY}
    return value
