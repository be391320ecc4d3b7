"""Posts with a journal and without one: `python -m bench.journal [PUTS_MS]`.

The bucket is a process that answers puts after PUTS_MS (15), as S3 Standard does. In turns: without
a journal, with the usual bound on puts, and with one that bounds nothing. Prints how many puts each
makes, and what these cost in a month at Amazon's list price.
"""

from __future__ import annotations

import asyncio
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import uvloop
from aiohttp import web

from bench import processes
from bench.posts import CONNECTIONS, measured
from bench.processes import Server
from bench.receiver import serve
from bench.rounds import Figures, Run, in_turns, medians, ratio

_PUT_DOLLARS, _GET_DOLLARS = 0.005 / 1000, 0.0004 / 1000
_MONTH_SECONDS = 30 * 86400


class Bucket:
    """The objects' names and sizes; counts puts."""

    def __init__(self, put_ms: float) -> None:
        self._put_seconds = put_ms / 1000
        self._sizes: dict[str, int] = {}
        self.puts = 0

    async def put(self, request: web.Request) -> web.Response:
        body = await request.read()
        await asyncio.sleep(self._put_seconds)
        self.puts += 1
        self._sizes[request.path] = len(body)
        return web.Response(headers={"ETag": '"0"'})

    async def head(self, request: web.Request) -> web.Response:
        return web.Response(status=200 if request.path in self._sizes else 404)

    async def get(self, request: web.Request) -> web.Response:
        del request
        body = "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"
        return web.Response(text=body, content_type="application/xml")

    async def delete(self, request: web.Request) -> web.Response:
        for key in re.findall(r"<Key>([^<]+)</Key>", await request.text()):
            self._sizes.pop(f"{request.path}/{key}", None)
        return web.Response(text="<DeleteResult/>", content_type="application/xml")

    async def tell(self, request: web.Request) -> web.Response:
        del request
        return web.json_response({"puts": self.puts, "objects": len(self._sizes)})


async def _serve(put_ms: float) -> None:
    bucket, app = Bucket(put_ms), web.Application(client_max_size=2**28)
    app.router.add_get("/told", bucket.tell)
    app.router.add_route("HEAD", "/{tail:.*}", bucket.head)
    app.router.add_get("/{tail:.*}", bucket.get, allow_head=False)
    app.router.add_put("/{tail:.*}", bucket.put)
    app.router.add_post("/{tail:.*}", bucket.delete)
    await serve(app)


def main(put_ms: float) -> None:
    serving = processes.started([sys.executable, "-m", "bench.journal", "serve", str(put_ms)])
    with tempfile.TemporaryDirectory() as name, processes.sink() as sink, serving as bucket:
        run = Run(quick=False, folder=Path(name))
        found = in_turns(
            3,
            {
                "without": _posts(run, sink, bucket, None),
                "20 puts/s": _posts(run, sink, bucket, "20"),
                "unbounded": _posts(run, sink, bucket, "1000"),
                "20 puts/s, 1 client": _posts(run, sink, bucket, "20", connections=1),
            },
        )
        for key in ("20 puts/s", "unbounded"):
            run.found(f"posts with {key}", ratio(found[key], found["without"], "per_second"))
        for key, figures in medians(found).items():
            puts = figures["puts_per_second"]
            cost = (puts * _PUT_DOLLARS + _GET_DOLLARS / 2) * _MONTH_SECONDS
            run.say(f"{key:20} {figures}, {cost:,.0f} $ a month at this load")


def _posts(
    run: Run, sink: Server, bucket: Server, puts: str | None, connections: int = CONNECTIONS
) -> Callable[[], Figures]:
    """Posts to a service of its own, with at most so many puts a second; None has no journal."""

    def measure() -> Figures:
        settings = {
            "AWS_ENDPOINT_URL_S3": bucket.url,
            "OUTBOX_JOURNAL": "s3://journal/bench",
            "OUTBOX_JOURNAL_PUTS_PER_SECOND": puts or "",
        }
        with (
            tempfile.TemporaryDirectory(dir=run.folder) as folder,
            processes.service(sink.url, Path(folder), **(settings if puts else {})) as service,
        ):
            cookie = service.cookie("/auth/dev-login")
            measured(run, service, "/api/route", cookie, connections)  # warm
            before = _told(bucket)
            figures = measured(run, service, "/api/route", cookie, connections)
            after = _told(bucket)
            processes.wait_until_delivered(service)
        return {**figures, "puts_per_second": (after - before) / run.seconds}

    return measure


def _told(bucket: Server) -> int:
    return int(bucket.call("GET", "/told")[1]["puts"])


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        uvloop.run(_serve(float(sys.argv[2])))
    else:
        main(float(sys.argv[1]) if sys.argv[1:] else 15.0)
