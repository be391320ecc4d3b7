"""When the log is filled, copied, emptied and given room, on a virtual clock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import structlog

from service.errors import OutboxUnavailableError
from service.outbox.sqlite.maintenance import SqliteMaintenance
from tests.support.virtual_time import in_virtual_time

PIECE, ROOM, LARGE = 40, 100, 64 * 1024 * 1024


class Log:
    """A log in numbers; `cut` is what is left of it after a truncation."""

    def __init__(self, _: Path) -> None:
        self.size, self.cut = ROOM, ROOM

    @property
    def is_large(self) -> bool:
        return self.size > ROOM

    @property
    def lacks_room(self) -> bool:
        return self.size < ROOM

    def fill(self, at: int) -> int:
        return min(ROOM, at + PIECE)

    def checkpoint(self) -> None:
        pass

    def truncate(self) -> None:
        self.size = self.cut

    def preallocate(self) -> None:
        self.size = ROOM


class Desk:
    """The maintenance and all that it asks; `acts` are what ran between two commits."""

    def __init__(self) -> None:
        self.short, self.count, self.notes, self.seconds = False, 0, 0, 0.0
        self.acts: list[tuple[Any, ...]] = []
        self.at: list[float] = []
        self.fault: Exception | None = None
        self.maintenance = SqliteMaintenance(
            Path("outbox.db"),
            self,  # type: ignore[arg-type]
            self,  # type: ignore[arg-type]
            self,  # type: ignore[arg-type]
            self,  # type: ignore[arg-type]
            lambda: self.seconds,
        )
        self.log: Any = self.maintenance._log

    def is_short(self) -> bool:
        return self.short

    def keep_note(self) -> None:
        self.notes += 1

    async def between_commits(self, work: Callable[..., Any], *given: Any) -> Any:
        if self.fault:
            raise self.fault
        self.acts.append((work.__name__, *given))
        self.at.append(round(asyncio.get_running_loop().time(), 3))
        return work(*given)

    def maintained(self, **changed: Any) -> list[tuple[Any, ...]]:
        """What one look does, after these changes."""
        for name, value in changed.items():
            setattr(self, name, value)
        self.acts.clear()
        asyncio.run(self.maintenance.maintain())
        return [*self.acts]


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.setattr("service.outbox.sqlite.maintenance.WriteAheadLog", Log)
    return Desk()


FILLED = [("fill", 0), ("fill", 40), ("fill", 80), ("fill", ROOM)]


def test_the_log_is_filled_piece_by_piece_once(desk: Desk) -> None:
    @in_virtual_time
    async def main() -> None:
        await desk.maintenance.fill()
        await desk.maintenance.fill()
        assert desk.acts == [*FILLED, ("fill", ROOM)]
        assert desk.at == [0, 0.02, 0.04, 0.06, 0.06]

    main()


def test_a_disk_that_becomes_short_ends_the_filling(desk: Desk) -> None:
    @in_virtual_time
    async def main() -> None:
        filling = asyncio.create_task(desk.maintenance.fill())
        await asyncio.sleep(0.03)
        desk.short = True
        await filling
        assert desk.acts == FILLED[:2]

    main()


def test_a_log_is_copied_when_nothing_was_written_since_the_last_look(desk: Desk) -> None:
    assert desk.maintained() == []
    assert desk.maintained(count=1) == []
    assert desk.maintained() == [("checkpoint",)]
    assert desk.maintained() == []
    assert desk.maintained(count=2) == []
    assert desk.maintained(count=3) == []
    assert desk.maintained() == [("checkpoint",)]
    assert desk.notes == 7


def test_a_large_log_is_emptied_until_no_reader_prevents_it(desk: Desk) -> None:
    desk.log.size = desk.log.cut = ROOM + 1
    assert desk.maintained(count=1) == []
    assert desk.maintained() == [("truncate",)]
    assert desk.maintained() == [("truncate",)]
    desk.log.cut = ROOM
    assert desk.maintained() == [("truncate",)]
    assert desk.maintained() == []


def test_a_short_disk_gets_a_large_log_back_at_once(desk: Desk) -> None:
    assert desk.maintained(count=1, short=True) == []
    desk.log.size = ROOM + 1
    assert desk.maintained(count=2) == [("truncate",)]
    assert desk.maintained(count=2) == []


def test_a_log_that_was_emptied_is_filled_again_and_one_that_was_copied_is_not(desk: Desk) -> None:
    asyncio.run(desk.maintenance.fill())
    desk.maintained(count=1)
    desk.maintained()
    desk.acts.clear()
    asyncio.run(desk.maintenance.fill())
    assert desk.acts == [("fill", ROOM)]
    desk.log.size = ROOM + 1
    desk.maintained(count=2, short=True)
    desk.acts.clear()
    desk.short = False
    asyncio.run(desk.maintenance.fill())
    assert desk.acts == FILLED


def test_missing_room_is_set_aside_where_there_is_room_and_filled(desk: Desk) -> None:
    asyncio.run(desk.maintenance.fill())
    desk.log.size = ROOM - 1
    assert desk.maintained(short=True) == []
    assert desk.maintained(short=False) == [("preallocate",)]
    assert desk.maintained() == []
    desk.acts.clear()
    asyncio.run(desk.maintenance.fill())
    assert desk.acts == FILLED


def test_a_log_that_stays_large_is_logged_once_a_minute(desk: Desk) -> None:
    desk.log.size = desk.log.cut = LARGE
    with structlog.testing.capture_logs() as lines:
        desk.maintained()
        assert lines == []
        desk.log.size = desk.log.cut = LARGE + 1
        desk.maintained()
        desk.maintained(seconds=60.0)
        assert len(lines) == 1
        desk.maintained(seconds=60.5)
        desk.maintained(seconds=61.0)
    said = {"event": "write_ahead_log_is_large", "log_level": "warning", "bytes": LARGE + 1}
    assert lines == [{**said, "cause": "a long reader, or the disk"}] * 2


def test_it_fills_at_the_start_and_looks_every_five_seconds(desk: Desk) -> None:
    @in_virtual_time
    async def main() -> None:
        running = asyncio.create_task(desk.maintenance.run())
        await asyncio.sleep(4)
        desk.count = 1
        await asyncio.sleep(12)
        running.cancel()
        assert desk.acts[: len(FILLED)] == FILLED
        looks = zip(desk.acts, desk.at, strict=True)
        assert [(act, at) for act, at in looks if act[0] != "fill"] == [(("checkpoint",), 10.06)]
        assert desk.notes == 3

    main()


@pytest.mark.parametrize(
    ("fault", "line"),
    [
        (OutboxUnavailableError("no disk"), {"log_level": "warning", "reason": "no disk"}),
        (KeyError("bug"), {"log_level": "error", "exc_info": True}),
    ],
)
def test_a_fault_is_logged_and_the_next_look_comes(
    desk: Desk, fault: Exception, line: dict[str, object]
) -> None:
    @in_virtual_time
    async def main() -> None:
        desk.fault = fault
        with structlog.testing.capture_logs() as lines:
            running = asyncio.create_task(desk.maintenance.run())
            await asyncio.sleep(1)
            desk.fault = None
            await asyncio.sleep(5)
            running.cancel()
        assert lines == [{"event": "maintenance_failed", **line}]
        assert desk.acts == FILLED

    main()
