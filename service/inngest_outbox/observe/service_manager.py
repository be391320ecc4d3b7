"""Readiness and watchdog for systemd (`Type=notify`): datagrams to the socket that it names.

Does nothing where no service manager asks, so every command can use it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import AsyncIterator, Mapping

_PINGS_IN_A_PERIOD = 3
_MICROSECONDS = 1_000_000
_NANOSECONDS_IN_MICROSECOND = 1000


class ServiceManager:
    """The manager that `environment` names by NOTIFY_SOCKET and WATCHDOG_USEC, if any."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        # A name that starts with @ is in Linux' abstract namespace.
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        period = environment.get("WATCHDOG_USEC", "")
        ours = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self._period_seconds = int(period) / _MICROSECONDS if period.isdigit() and ours else 0.0

    @contextlib.asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Tell that the event loop turns, until the end of the context."""
        pinging = asyncio.create_task(self._ping(), name="ping-watchdog")
        try:
            yield
        finally:
            pinging.cancel()

    @contextlib.asynccontextmanager
    async def told(self, status: str) -> AsyncIterator[None]:
        """Tell that the process is ready, that the event loop turns, and at the end that it stops.

        `status` is what `systemctl status` shows.
        """
        async with self.watched():
            self.ready(status)
            try:
                yield
            finally:
                self.stopping()

    def ready(self, status: str) -> None:
        """Tell that the process is ready, or ready again after `reloading`."""
        self._tell(f"READY=1\nSTATUS={status}")

    def reloading(self) -> None:
        """Tell that a new version is about to take the place of this one."""
        now = time.monotonic_ns() // _NANOSECONDS_IN_MICROSECOND
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={now}\nSTATUS=A new version takes over")

    def stopping(self) -> None:
        """Tell that the process stops."""
        self._tell("STOPPING=1\nSTATUS=Stopping")

    async def _ping(self) -> None:
        while self._period_seconds:
            self._tell("WATCHDOG=1")
            await asyncio.sleep(self._period_seconds / _PINGS_IN_A_PERIOD)

    def _tell(self, message: str) -> None:
        # A manager that is gone or busy must not stop the service.
        if not self._address:
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            out.settimeout(0)
            out.sendto(message.encode(), self._address)
