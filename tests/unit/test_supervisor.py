"""Background tasks can't die or hang unseen."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from structlog.testing import capture_logs

from inngest_outbox import supervisor as supervisors
from inngest_outbox.errors import OutboxUnavailableError
from inngest_outbox.observe.recorder import NullRecorder
from inngest_outbox.supervisor import Supervisor, run_supervisor
from tests.support.figures import Figures
from tests.support.virtual_time import in_virtual_time, now


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisors, "time", SimpleNamespace(monotonic=now))


FAILED = {"event": "task_failed", "log_level": "error", "exc_info": True}


async def until(reached: Callable[[], bool]) -> None:
    deadline = now() + 5
    while not reached():
        assert now() < deadline
        await asyncio.sleep(0.01)


class Ends:
    """A task that ends once, in its own way, and then stays."""

    def __init__(self, end: Callable[[], None]) -> None:
        self._end = end
        self.runs = 0

    async def run(self) -> None:
        self.runs += 1
        if self.runs == 1:
            self._end()
            return
        await asyncio.Event().wait()


def raises(error: BaseException) -> Callable[[], None]:
    def end() -> None:
        raise error

    return end


@pytest.mark.parametrize(
    ("end", "said"),
    [
        (lambda: None, {"event": "task_ended", "log_level": "error"}),
        (raises(ValueError("no")), FAILED),
        (raises(asyncio.CancelledError()), FAILED),
        (
            raises(OutboxUnavailableError("Full.")),
            {"event": "task_failed", "log_level": "warning", "reason": "Full."},
        ),
    ],
    ids=["returns", "raises", "is cancelled by something it waits for", "has no outbox for now"],
)
@in_virtual_time
async def test_a_task_that_ends_unasked_is_logged_counted_and_started_again(
    end: Callable[[], None], said: dict[str, object]
) -> None:
    recorder, task = Figures(), Ends(end)
    with capture_logs() as logged:
        async with run_supervisor(recorder) as supervisor:
            supervisor.watch("work", task.run, hung_after_seconds=0.05)
            await until(lambda: bool(supervisor.faults))
            assert supervisor.faults == ["work has ended and is being restarted"]
            await until(lambda: task.runs == 2)
            assert supervisor.faults == []
    assert recorder.got == [("count", "task_restarts", 1, ("task", "work"))]
    assert logged == [{"task": "work", **said}]


@in_virtual_time
async def test_a_task_that_keeps_failing_waits_ever_longer_and_is_a_fault_until_healthy() -> None:
    fails, told = asyncio.Event(), list[tuple[float, list[str]]]()

    async def work() -> None:
        told.append((round(now(), 2), supervisor.faults))
        if len(told) == 9:
            await fails.wait()
        if len(told) == 10:
            await asyncio.Event().wait()
        raise ValueError

    async with run_supervisor(NullRecorder()) as supervisor:
        supervisor.watch("work", work)
        await asyncio.sleep(26)
        assert supervisor.faults == ["work keeps failing"]
        await asyncio.sleep(1)
        assert supervisor.faults == []
        fails.set()
        await until(lambda: len(told) == 10)
    failing = [(at, ["work keeps failing"]) for at in (0.7, 1.5, 3.1, 6.3, 11.3, 16.3)]
    # At last its failures are counted from the beginning.
    assert told == [(0, []), (0.1, []), (0.3, []), *failing, (27.1, [])]


@in_virtual_time
async def test_a_task_that_does_not_beat_in_time_is_a_fault_and_a_stopped_one_is_none() -> None:
    async with run_supervisor(NullRecorder()) as supervisor:
        for name in ("work", "other"):
            supervisor.watch(name, asyncio.Event().wait, hung_after_seconds=0.05)
        await until(lambda: len(supervisor.faults) == 2)
        supervisor.beat("work")
        assert supervisor.faults == ["other does not answer"]
        await supervisor.stop("other")
        assert supervisor.faults == []
        for _ in range(2):
            await supervisor.stop("work")
        await asyncio.sleep(1)
        supervisor.beat("work")
        assert supervisor.faults == []


@in_virtual_time
async def test_closing_ends_the_last_started_first() -> None:
    ended = []

    async def work(name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(name)

    supervisor = Supervisor(NullRecorder())
    for name in ("one", "two"):
        supervisor.watch(name, lambda name=name: work(name))
    await asyncio.sleep(1)
    await supervisor.close()
    assert ended == ["two", "one"]


@in_virtual_time
async def test_a_task_that_loses_a_cancellation_is_ended_all_the_same() -> None:
    lost = asyncio.Event()

    async def loses_the_first() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            lost.set()
        await asyncio.Event().wait()

    async with run_supervisor(NullRecorder()) as supervisor:
        supervisor.watch("stubborn", loses_the_first)
        await asyncio.sleep(0)
        stopping = asyncio.create_task(supervisor.stop("stubborn"))
        stopped, _ = await asyncio.wait([stopping], timeout=10)
        assert lost.is_set()
        assert stopped == {stopping}
