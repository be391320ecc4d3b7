"""A whole service: `serve` in a process of its own, posts over HTTP, deliveries that are confirmed.

It is killed at a sync and started again; syncs fail. Inngest stores behind its answers, and loses
what it has not stored when the service is killed. It is not on the recorded disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path

import aiohttp

import inngest_outbox.processes.serve  # noqa: F401  (loaded once, before the service is forked)
from inngest_outbox.dev.fake_inngest.ledger import Arrival
from inngest_outbox.dev.fake_inngest.server import FakeInngest, FakeOptions
from inngest_outbox.processes.main import main
from tests.support.confirmed_delivery import SIGNING_KEY, self_hosted_service
from tests.support.fleet import client
from tests.support.free_port import free_port
from tests.support.power_cuts.answers import AnswersFile
from tests.support.power_cuts.small_files import DATABASE, LOG
from tests.support.storage import eventually

ROUNDS = 14
GROUP = 4
STORE_RATE = 100
NAME_CHARACTERS = 700
START_SECONDS = 100.0
_FORK = multiprocessing.get_context("fork")


class ServiceLoad:
    """Two lives of a service. The first is killed."""

    def __init__(self, folder: Path, elsewhere: Path) -> None:
        self._log = folder.parent / "service.log"
        self._faults = Path(os.environ["DISK_SHIM_FAULTS"])
        self._answers = AnswersFile(folder)
        self._url = f"http://127.0.0.1:{free_port()}"
        self._inngest_port = free_port()
        self._store = elsewhere / "inngest.db"
        self._is_settled = set[str]()
        self._answered = list[str]()
        self._environment = self_hosted_service(
            f"sqlite:///{folder / DATABASE}",
            f"http://127.0.0.1:{self._inngest_port}",
            PORT=self._url.rpartition(":")[2],
        )

    def run(self) -> None:
        with self._serving() as service:
            asyncio.run(self._live(is_last=False))
        assert service.exitcode == -signal.SIGKILL, self._log.read_text()
        with self._serving() as service:
            asyncio.run(self._live(is_last=True))
            os.kill(service.pid or 0, signal.SIGTERM)
        assert service.exitcode == 0, self._log.read_text()

    @contextlib.contextmanager
    def _serving(self) -> Iterator[multiprocessing.process.BaseProcess]:
        """A service, until it has ended."""
        service = _FORK.Process(target=_serve, args=(self._environment, self._log))
        service.start()
        try:
            yield service
            service.join(START_SECONDS)
        finally:
            service.kill()
            service.join()

    async def _live(self, *, is_last: bool) -> None:
        async with self._inngest(), client() as user:
            await user.sign_in(self._url)
            http = user.session
            for number in range(ROUNDS):
                if number == ROUNDS // 2:
                    self._faults.write_text(LOG)
                await self._round(http)
            if is_last:
                await self._all_settled(http)
            else:
                self._faults.write_text(f"!{LOG}")
                with contextlib.suppress(aiohttp.ClientError):
                    await self._round(http)

    @contextlib.asynccontextmanager
    async def _inngest(self) -> AsyncIterator[FakeInngest]:
        """Inngest, whose acts are noted before it answers."""
        options = FakeOptions(
            signing_key=SIGNING_KEY, store_rate=STORE_RATE, store_path=self._store
        )
        async with FakeInngest(port=self._inngest_port, options=options) as inngest:
            accept, store = inngest.storing.accept, inngest.store.store

            def accepting(arrivals: Sequence[Arrival]) -> None:
                self._answers.tell(f"took {one.id} {one.server_id}" for one in arrivals)
                accept(arrivals)

            def storing(arrivals: Sequence[Arrival], now_ms: int) -> None:
                self._answers.tell(f"held {one.id} {one.server_id}" for one in arrivals)
                store(arrivals, now_ms)

            inngest.storing.accept, inngest.store.store = accepting, storing  # type: ignore[method-assign]
            yield inngest

    async def _round(self, http: aiohttp.ClientSession) -> None:
        """Posts at once. What was seen delivered before one was answered is on disk with it."""
        delivered = await self._delivered(http)
        if any(await asyncio.gather(*(self._post(http) for _ in range(GROUP)))):
            self._answers.tell(f"settled {one}" for one in delivered - self._is_settled)
            self._is_settled |= delivered

    async def _post(self, http: aiohttp.ClientSession) -> bool:
        body = {"documentName": "n" * NAME_CHARACTERS}
        async with http.post(f"{self._url}/api/route", json=body) as answer:
            if answer.status != 200:
                await asyncio.sleep(0.05)
                return False
            event_id = (await answer.json())["eventId"]
        self._answers.tell([event_id])
        self._answered.append(event_id)
        return True

    async def _delivered(self, http: aiohttp.ClientSession) -> set[str]:
        asked = {"state": "delivered", "limit": "100"}
        async with http.get(f"{self._url}/api/events", params=asked) as answer:
            assert answer.status == 200, await answer.text()
            return {one["id"] for one in (await answer.json())["events"]}

    async def _all_settled(self, http: aiohttp.ClientSession) -> None:
        """Wait until what was posted last is delivered, and on disk as such."""
        last = set(self._answered[-GROUP:])
        await eventually(
            lambda: self._delivered(http),
            lambda seen: last <= seen,
            within_seconds=START_SECONDS,
        )
        await self._round(http)


def _serve(settings: Mapping[str, str], log: Path) -> None:
    """`python -m inngest_outbox serve`, in a process that is forked for it."""
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ.update(settings)
    sys.argv = ["service", "serve"]
    main()


def run(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as elsewhere:
        os.chdir(elsewhere)  # where no .env of a developer's is
        ServiceLoad(folder, Path(elsewhere)).run()
