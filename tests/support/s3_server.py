"""An S3 API over HTTP: moto's server, on a free port."""

from __future__ import annotations

import contextlib
import urllib.request
from collections.abc import Iterator


@contextlib.contextmanager
def running_s3() -> Iterator[str]:
    """The address of an S3 API that runs until the block ends; then its buckets are gone.

    All servers of a process share their buckets, so that only one may be used at a time.
    """
    # A quarter of a second, which most test processes do without.
    from moto.moto_server.threaded_moto_server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    try:
        yield url
    finally:
        reset = urllib.request.Request(f"{url}/moto-api/reset", method="POST")
        with urllib.request.urlopen(reset, timeout=30):
            pass
        server.stop()
