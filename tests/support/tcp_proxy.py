"""A TCP proxy that can stop passing bytes on, as a black hole does, or cut its connections."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Self


class TcpProxy:
    """Passes bytes between clients and `target`, a unix socket or a port of this machine.

    While `black_hole` is set nothing is passed on, in old connections and new ones; connections
    that were open then stay dead for good, as after a firewall forgot them. `accepted` counts the
    connections.
    """

    def __init__(self, target: Path | int) -> None:
        self._target = target
        self.accepted = 0
        self._answer_bytes: int | None = None
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._generation = 0
        self._answers = 0
        self._black_hole = False

    @property
    def port(self) -> int:
        return self._server.sockets[0].getsockname()[1]

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def swallow(self) -> None:
        """Pass nothing on from now, nor ever again in the connections that are open."""
        self._black_hole = True
        self._generation += 1

    def swallow_answers(self) -> None:
        """Pass on what clients say, but none of the answers, for good in open connections."""
        self._answers += 1

    def truncate_answers(self, answer_bytes: int) -> None:
        """Pass on so many bytes of what each new connection is answered, then reset it."""
        self._answer_bytes = answer_bytes
        self.cut()

    def heal(self) -> None:
        """Pass new connections' bytes on."""
        self._black_hole = False
        self._answer_bytes = None

    def cut(self) -> None:
        """Reset all connections."""
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.accepted += 1
        self._writers.add(writer)
        try:
            if self._black_hole:
                await asyncio.Event().wait()
            far_reader, far_writer = await self._reach()
            self._writers.add(far_writer)
            generation, answers = self._generation, self._answers
            await asyncio.gather(
                self._pass_on(reader, far_writer, lambda: generation == self._generation),
                self._pass_on(
                    far_reader,
                    writer,
                    lambda: (generation, answers) == (self._generation, self._answers),
                    self._answer_bytes,
                ),
            )
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            self._writers.discard(writer)
            writer.transport.abort()

    async def _reach(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self._target, int):
            return await asyncio.open_connection("127.0.0.1", self._target)
        return await asyncio.open_unix_connection(str(self._target))

    async def _pass_on(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        passes: Callable[[], bool],
        at_most: int | None = None,
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if not passes():
                    await asyncio.Event().wait()
                writer.write(data[:at_most])
                await writer.drain()
                if at_most is not None and (at_most := at_most - len(data)) <= 0:
                    break
        writer.transport.abort()
