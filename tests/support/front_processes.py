"""A service of several processes: its children, and what becomes of them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator

import psutil

from inngest_outbox.dev.fake_inngest.server import FakeInngest
from tests.support.fleet import Client, Process, client, environment, running
from tests.support.storage import PATIENCE_SECONDS, eventually


async def delivered(
    api: FakeInngest, ids: list[str], *, within_seconds: float = PATIENCE_SECONDS
) -> None:
    await eventually(
        lambda: all(api.ledger.times(event_id) for event_id in ids), within_seconds=within_seconds
    )


async def more_accepted(poster: Client, count: int) -> None:
    """Wait until more than so many further posts were accepted."""
    before = len(poster.accepted)
    await eventually(lambda: len(poster.accepted) > before + count)


async def all_gone(processes: list[psutil.Process]) -> None:
    await eventually(lambda: not any(process.is_running() for process in processes))


@contextlib.contextmanager
def ended_at_last(processes: list[psutil.Process]) -> Iterator[None]:
    """None of these outlives the block, also where a test fails while they are suspended."""
    try:
        yield
    finally:
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


def children_of(parent: Process) -> list[psutil.Process]:
    return psutil.Process(parent.process.pid).children()


def store_of(parent: Process) -> psutil.Process | None:
    """None while it is being started again."""
    return next((child for child in children_of(parent) if has(child, "--store")), None)


def fronts_of(parent: Process) -> list[psutil.Process]:
    return [child for child in children_of(parent) if has(child, "--store-socket")]


def has(process: psutil.Process, option: str) -> bool:
    try:
        return option in process.cmdline()
    except psutil.Error:
        return False


def kill_store(parent: Process) -> None:
    if store := store_of(parent):
        store.kill()


@contextlib.asynccontextmanager
async def two_fronts(
    outbox_url: str, api: FakeInngest, **changes: str
) -> AsyncIterator[tuple[Process, Client]]:
    settings = environment(outbox_url, api.url, WEB_CONCURRENCY="2", **changes)
    ready = r"Listening on (http://\S+) with 2 front processes"
    async with running("serve", environment=settings, ready=ready) as parent, client() as poster:
        await poster.sign_in(parent.url)
        yield parent, poster
