"""`python -m inngest_outbox demo`: half a minute of trouble in which nothing is lost.

A real service on an outbox of its own, with a fake Inngest that answers at once and stores later:
posts at a steady pace, Inngest is taken away, loses what it had not stored and comes back, a
poisoned event is found and replayed, the process is killed and started again. Ends with the count
of what Inngest holds; 1 when an accepted event is not among it.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

from inngest_outbox.bootstrap.operations import open_reading, open_writing
from inngest_outbox.console.operations.views import Movement, moved, stats_view
from inngest_outbox.dev.demo.picture import DemoPicture, demo_picture
from inngest_outbox.dev.demo.posts import POISON, DemoPosts, demo_posts
from inngest_outbox.dev.demo.service import DemoService, demo_service
from inngest_outbox.dev.fake_inngest.faults import Poison
from inngest_outbox.dev.fake_inngest.server import FakeInngest, FakeOptions
from inngest_outbox.errors import OutboxError
from inngest_outbox.outbox.model import Named, State

LOOK_SECONDS = 0.25
PATIENCE_SECONDS = 30.0
ACTOR = "demo"
_STORE_RATE = 1_000.0


@dataclass(frozen=True, slots=True)
class Pace:
    """The pace of the demo: posts per second, seconds in each act."""

    posts_per_second: float = 200.0
    calm_seconds: float = 4.0
    hanging_seconds: float = 1.0
    outage_seconds: float = 7.0
    after_seconds: float = 3.0


@dataclass(frozen=True, slots=True)
class Count:
    """The counts at the end: events answered with 200, held by Inngest, lost."""

    accepted: int
    held: int
    lost: int


@dataclass(slots=True)
class _Stage:
    """The parts of the demo."""

    inngest: FakeInngest
    service: DemoService
    posts: DemoPosts
    picture: DemoPicture
    latest: Movement | None = None


async def demo(pace: Pace) -> int:
    """Play and print the count; the exit code."""
    with tempfile.TemporaryDirectory(prefix="outbox-demo-") as folder:
        options = FakeOptions(store_rate=_STORE_RATE)
        async with (
            FakeInngest(options=options) as inngest,
            demo_service(Path(folder), inngest.url) as service,
        ):
            with demo_picture() as picture:
                async with demo_posts(lambda: service.url) as posts:
                    count = await _play(_Stage(inngest, service, posts, picture), pace)
    sys.stdout.write(
        f"\naccepted {count.accepted}, held by Inngest {count.held}, lost {count.lost}\n"
    )
    sys.stdout.flush()
    return 1 if count.lost or not count.accepted else 0


async def _play(stage: _Stage, pace: Pace) -> Count:
    async with _looking_on(stage):
        async with _posting(stage, pace.posts_per_second):
            await _acts(stage, pace)
        stage.picture.tell("The posts end; the rest drains.")
        await _eventually(stage, lambda seen: not _missing(stage) and not seen.view.waiting)
    missing = _missing(stage)
    accepted = len(stage.posts.accepted)
    return Count(accepted, accepted - len(missing), len(missing))


async def _acts(stage: _Stage, pace: Pace) -> None:
    tell = stage.picture.tell
    tell(f"Four users post {pace.posts_per_second:g} events per second; Inngest takes them.")
    await asyncio.sleep(pace.calm_seconds)
    stage.inngest.storing.rate = 0.0
    tell("Inngest still answers, but its store hangs.")
    await asyncio.sleep(pace.hanging_seconds)
    await stage.inngest.close()
    tell(f"Inngest goes away and loses {stage.inngest.storing.lost} events that it had answered.")
    tell("Posts are answered as before, and kept.")
    await asyncio.sleep(pace.outage_seconds)
    stage.inngest.storing.rate = _STORE_RATE
    await stage.inngest.start()
    tell("Inngest is back. The backlog drains, and what Inngest lost goes again.")
    await asyncio.sleep(pace.after_seconds)
    await _poison(stage)
    tell("The service is killed (SIGKILL). Posts are not answered, and try again.")
    await stage.service.kill()
    await stage.service.start()
    tell("It is started again on the same file and continues where it was.")
    await asyncio.sleep(pace.after_seconds)


async def _poison(stage: _Stage) -> None:
    """One event is refused by Inngest: it is found alone, and replayed when that is repaired."""
    stage.inngest.faults.add(Poison("the function's owner has deleted it"), times=None)
    event_id = await stage.posts.post(POISON)
    stage.picture.tell("One event is refused by Inngest. The others pass it by.")
    if not await _eventually(stage, lambda seen: seen.view.dead > 0):
        stage.picture.tell("It is not dead yet.")
        stage.inngest.faults.clear()
        return
    stage.inngest.faults.clear()
    async with open_writing(stage.service.outbox_url) as outbox:
        await outbox.repairs.replay(Named((event_id,), State.DEAD), actor=ACTOR)
    stage.picture.tell("It is dead and keeps the reason. The cause is repaired.")
    stage.picture.tell(f"`outbox replay {event_id} --yes` sends it again.")


@contextlib.asynccontextmanager
async def _posting(stage: _Stage, per_second: float) -> AsyncIterator[None]:
    posting = asyncio.create_task(stage.posts.keep_posting(per_second), name="demo-posts")
    try:
        yield
    finally:
        posting.cancel()
        await asyncio.wait([posting])


@contextlib.asynccontextmanager
async def _looking_on(stage: _Stage) -> AsyncIterator[None]:
    looking_on = asyncio.create_task(_look(stage), name="demo-picture")
    try:
        yield
    finally:
        looking_on.cancel()
        await asyncio.wait([looking_on])


async def _look(stage: _Stage) -> None:
    looked_at = time.monotonic()
    while True:
        with contextlib.suppress(OutboxError):
            async with open_reading(stage.service.outbox_url) as outbox:
                view = stats_view(await outbox.inspector.stats(), serving=True)
            now = time.monotonic()
            stage.latest = moved(stage.latest, view, now - looked_at)
            looked_at = now
            arrived = stage.inngest.store.id_count
            stage.picture.show(stage.latest, len(stage.posts.accepted), arrived)
        await asyncio.sleep(LOOK_SECONDS)


async def _eventually(stage: _Stage, reached: Callable[[Movement], bool]) -> bool:
    """Wait until a look shows it; False when none did in good time."""
    until = time.monotonic() + PATIENCE_SECONDS
    while not (stage.latest and reached(stage.latest)):
        if time.monotonic() > until:
            return False
        await asyncio.sleep(LOOK_SECONDS)
    return True


def _missing(stage: _Stage) -> set[str]:
    """The events that were answered with 200 and are not held by Inngest."""
    return stage.posts.accepted.difference(stage.inngest.store.ids)
