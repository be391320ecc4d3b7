"""An S3 API over HTTP: moto's server, on a free port."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from moto.moto_server.threaded_moto_server import ThreadedMotoServer


@contextlib.contextmanager
def running_s3() -> Iterator[str]:
    """The address of an S3 API that runs until the block ends."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()
