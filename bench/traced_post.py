"""Runs `serve` from a checkout, posts to it, and counts which of its functions each post called.

A program of its own: the arguments are the checkout and an empty folder. It needs nothing of this
repository, so that an older checkout can be traced. The result is `posts.json` in the folder.
"""

from __future__ import annotations

import http.client
import http.server
import json
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

_WARM_UP, _POSTS = 30, 15
_QUIET_SECONDS = 0.3  # until the event before is delivered or its delivery waits
_BODY = json.dumps({"documentName": "example"})
_JSON = {"Content-Type": "application/json"}


class Trace:
    """Calls of functions of `service/` while `on`; aiohttp ends it when the answer has left."""

    def __init__(self, tree: Path) -> None:
        self._home = f"{tree / 'service' / 'inngest_outbox'}{os.sep}"
        self.on = False
        self.calls: list[str] = []

    def __call__(self, frame: FrameType, event: str, _: object) -> None:
        if not self.on:
            return
        if event == "call" and frame.f_code.co_filename.startswith(self._home):
            self.calls.append(frame.f_code.co_filename)
        elif event == "return" and frame.f_code.co_name == "finish_response":
            self.on = False


class Inngest(http.server.BaseHTTPRequestHandler):
    """Answers each event with an id."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Take the events."""
        events = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer = json.dumps({"ids": [str(at) for at, _ in enumerate(events)], "status": 200})
        self.send_response(http.HTTPStatus.OK)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer.encode())

    def log_message(self, *_: object) -> None:
        """Log nothing."""


def main() -> None:
    """Trace a service on a free port in this process; its client is a thread."""
    tree, folder = Path(sys.argv[1]), Path(sys.argv[2])
    port = _free_port()
    os.chdir(folder)
    os.environ |= {
        "APP_ENV": "development",
        "PORT": str(port),
        "OUTBOX_URL": f"sqlite:///{folder / 'outbox.db'}",
        "AWS_S3_REGION": "eu-west-1",
        "AWS_S3_BUCKET": "documents",
        "LOG_LEVEL": "error",
        "INNGEST_DEV": _start_inngest(),
    }
    sys.path.insert(0, str(tree))
    sys.argv = ["service", "serve"]
    trace = Trace(tree)
    threading.Thread(target=_client, args=(port, trace), daemon=True).start()
    threading.setprofile(trace)
    sys.setprofile(trace)
    from inngest_outbox.__main__ import main as serve

    serve()


def _client(port: int, trace: Trace) -> None:
    try:
        posts = [_post_traced(connection, cookie, trace) for connection, cookie in _ready(port)]
        Path("posts.json").write_text(json.dumps(posts))
    finally:
        os.kill(os.getpid(), signal.SIGTERM)


def _ready(port: int) -> list[tuple[http.client.HTTPConnection, str]]:
    _wait_until_ready(port)
    connection = http.client.HTTPConnection("127.0.0.1", port)
    user = json.dumps({"email": "ada@example.com", "name": "Ada", "id": "u-1"})
    connection.request("POST", "/auth/dev-login", user, _JSON)
    answer = connection.getresponse()
    answer.read()
    cookie = answer.headers["Set-Cookie"].split(";")[0]
    for _ in range(_WARM_UP):
        _post(connection, cookie)
    return [(connection, cookie)] * _POSTS


def _post_traced(
    connection: http.client.HTTPConnection, cookie: str, trace: Trace
) -> dict[str, int]:
    time.sleep(_QUIET_SECONDS)
    trace.calls = []
    trace.on = True
    _post(connection, cookie)
    trace.on = False
    return {"calls": len(trace.calls), "modules": len(set(trace.calls))}


def _post(connection: http.client.HTTPConnection, cookie: str) -> None:
    connection.request("POST", "/api/route", _BODY, _JSON | {"Cookie": cookie})
    answer: Any = connection.getresponse()
    body = answer.read()
    if answer.status != http.client.OK:
        raise SystemExit(f"the post was answered {answer.status}: {body!r}")


def _wait_until_ready(port: int) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise SystemExit("the service did not start")


def _start_inngest() -> str:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Inngest)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


if __name__ == "__main__":
    main()
