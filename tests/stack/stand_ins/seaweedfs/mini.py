"""moto's S3 in memory under the command and the variables of `weed mini`.

A form is refused when it breaks the policy that is signed with it. Signatures are not checked.
"""

from __future__ import annotations

import base64
import io
import json
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any

import boto3
from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from werkzeug import Request
from werkzeug.serving import make_server

REGION = "eu-west-1"
moto = DomainDispatcherApplication(create_backend_app)


def serve(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
    """A WSGI application: the health check, then forms by their policy, then moto."""
    if environ["PATH_INFO"] == "/healthz":
        start("200 OK", [])
        return [b""]
    if environ.get("CONTENT_TYPE", "").startswith("multipart/form-data"):
        body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
        environ["wsgi.input"] = io.BytesIO(body)
        if not allowed(Request({**environ, "wsgi.input": io.BytesIO(body)})):
            start("403 Forbidden", [])
            return [b"the form breaks its policy"]
    found: Iterable[bytes] = moto(environ, start)
    return found


def allowed(form: Request) -> bool:
    """True when a form's fields and size are those of its policy."""
    fields = {name.lower(): value for name, value in form.form.items()}
    fields["bucket"] = form.path.strip("/")
    policy = json.loads(base64.b64decode(fields["policy"]))
    for condition in policy["conditions"]:
        if isinstance(condition, dict):
            if any(fields.get(name.lower()) != value for name, value in condition.items()):
                return False
        elif condition[0] == "content-length-range":
            size = len(form.files["file"].read())
            if not condition[1] <= size <= condition[2]:
                return False
    return True


def main() -> None:
    """Serve until SIGTERM, with the bucket that S3_BUCKET names."""
    command, *options = sys.argv[1:]
    assert command == "mini"
    [port] = re.findall(r"-s3\.port=(\d+)", " ".join(options))
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    server = make_server(
        "0.0.0.0", int(port), serve, threaded=True, request_handler=MotoRequestHandler
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}", region_name=REGION)
    where: Any = {"LocationConstraint": REGION}
    client.create_bucket(Bucket=os.environ["S3_BUCKET"], CreateBucketConfiguration=where)
    signal.pause()


main()
