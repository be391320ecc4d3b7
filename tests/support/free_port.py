"""A port for a server that can't be given port 0."""

from __future__ import annotations

import atexit
import socket


def free_port() -> int:
    """A port of 127.0.0.1 that the system gives to nobody else until this process ends.

    A server may listen there, again after each stop; meanwhile connections are refused.
    """
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    one.bind(("127.0.0.1", 0))
    atexit.register(one.close)
    port: int = one.getsockname()[1]
    return port
