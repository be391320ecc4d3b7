"""How the parent of several processes replaces its store process when a step fails."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from typing import ClassVar

import pytest

from inngest_outbox.errors import UpgradeError
from inngest_outbox.processes.child_process import READY, WAITS, Child
from inngest_outbox.processes.process_pool import ProcessPool
from tests.support.virtual_time import in_virtual_time, now

STORE, FRONT = Child("store", ["store"], ()), Child("front", ["front"], ())
ENDED: list[int] = []
SLOW_SECONDS = 90.0  # OUTBOX_DRAIN_SECONDS can be 600


class Process:
    """In place of a ChildProcess; remembers what it was told."""

    started: ClassVar[list[Process]]
    starting_seconds = letting_go_seconds = opening_seconds = 0.0
    loading_seconds = 1.0
    start_errors: ClassVar[list[OSError]]

    def __init__(self, child: Child, said: Callable[[bytes], None]) -> None:
        self.child, self._said = child, said
        self.pid = len(self.started)
        self.fault: str | None = None
        self._end: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.serves = False
        self.started.append(self)
        slower = {STORE.name: 1.1, FRONT.name: 1.0}.get(child.name, 1.2)
        seconds = self.loading_seconds * slower
        asyncio.get_running_loop().call_later(seconds, self._come)

    @classmethod
    async def start(cls, child: Child, _: object, said: Callable[[bytes], None]) -> Process:
        await asyncio.sleep(cls.starting_seconds)
        if cls.start_errors:
            raise cls.start_errors.pop()
        return cls(child, said)

    def _come(self) -> None:
        if not self._end.done():
            self.is_waiting = "--take-over" in self.child.command
            self.serves = not self.is_waiting
            self._said(READY if self.serves else WAITS)

    @property
    def is_running(self) -> bool:
        return not self._end.done()

    opens = True
    may_open = False
    fault_of_fronts = ""

    def go(self) -> None:
        if self.child.name == FRONT.name and self.fault_of_fronts:
            self.fault = self.fault_of_fronts
            self._stop(-2)
            return
        if self.child.name == STORE.name:
            others = {one for one in self.started if one.is_running and one.may_open} - {self}
            assert not others, "two stores were told to open the outbox"
            self.may_open = True
        if self.opening_seconds:  # a front opens no outbox
            share = 1 if self.child.name == STORE.name else 0.1
            asyncio.get_running_loop().call_later(self.opening_seconds * share, self._open)
        elif self.is_waiting and self.opens:
            self._open()

    def _open(self) -> None:
        self.is_waiting, self.serves = False, True
        self._said(READY)

    is_waiting = False

    def hand_over(self) -> None:
        if self.child.name == FRONT.name and not self.hangs:
            asyncio.get_running_loop().call_later(self.stopping_seconds, self._stop, 0)
            return
        asyncio.get_running_loop().call_later(self.letting_go_seconds, self._let_go)

    def _let_go(self) -> None:
        if self.is_running:
            self.serves, self.may_open, self.is_waiting = False, False, True
            self._said(WAITS)

    stopping_seconds = 0.0
    hangs = False

    def signal(self, number: signal.Signals) -> None:
        if number == signal.SIGKILL:
            self._stop(number)
        elif not self.hangs:
            seconds = self.stopping_seconds if self.child.name == FRONT.name else 0.0
            asyncio.get_running_loop().call_later(seconds, self._stop, number)

    def _stop(self, number: int) -> None:
        if self.is_running:
            self.serves = False
            self._end.set_result(-number)

    async def ended(self) -> int:
        return await asyncio.shield(self._end)


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Process]]:
    """At the end none is left, and of each its end was told once."""

    class Own(Process):
        started: ClassVar[list[Process]] = []
        start_errors: ClassVar[list[OSError]] = []

    monkeypatch.setattr("inngest_outbox.processes.child_supervisor.ChildProcess", Own)
    ENDED.clear()
    yield Own
    assert alive(Own) == 0
    assert sorted(ENDED) == [one.pid for one in Own.started]


async def ready_pool(*more: Child) -> tuple[ProcessPool, asyncio.Task[int]]:
    """A store, a front and `more` at work, and the task that keeps them."""
    own = ProcessPool(
        STORE, [FRONT, *more], {}, say=print, ended=ENDED.append, store_once=["--accept-loss"]
    )
    running = asyncio.create_task(own.run())
    await own.ready()
    return own, running


@contextlib.asynccontextmanager
async def working_pool(*more: Child) -> AsyncIterator[ProcessPool]:
    """Such a pool, which stops well at the end of the block."""
    own, running = await ready_pool(*more)
    yield own
    own.stop()
    assert await running == 0


async def stop_in_an_upgrade(own: ProcessPool) -> None:
    """Stop three seconds after the upgrade has begun, as SIGTERM does."""
    upgrading = asyncio.create_task(own.upgrade())
    await asyncio.sleep(3)
    upgrading.cancel()
    own.stop()


def serving(processes: type[Process], name: str) -> int:
    return sum(one.child.name == name and one.serves for one in processes.started)


def alive(processes: type[Process]) -> int:
    return sum(one.is_running for one in processes.started)


@in_virtual_time
async def test_a_store_that_lets_go_too_late_gets_the_outbox_back(processes: type[Process]) -> None:
    processes.letting_go_seconds = SLOW_SECONDS
    async with working_pool() as own:
        assert serving(processes, "store") == 1  # it is waited for as the fronts are
        processes.hangs = True
        with pytest.raises(
            UpgradeError, match=r"^The old version continues\. Its store process kept the outbox\.$"
        ):
            await own.upgrade()
        assert (alive(processes), now() < 65) == (2, True)  # the new ones are killed
        processes.hangs = False
        await asyncio.sleep(10 * SLOW_SECONDS)
        assert serving(processes, "store") == 1
        processes.letting_go_seconds, processes.opening_seconds = 0.0, 5.0
        processes.started[0].opening_seconds = 1.0
        upgrading = asyncio.create_task(own.upgrade())
        await asyncio.sleep(3)
        assert serving(processes, "store") == 0  # the next time it takes nothing back
        await upgrading


@in_virtual_time
async def test_a_child_that_can_not_be_started_is_tried_every_five_seconds_until_a_stop(
    processes: type[Process],
) -> None:
    own, running = await ready_pool()
    processes.start_errors += [OSError(errno.EAGAIN, "unavailable")] * 1000
    processes.started[0].signal(signal.SIGKILL)
    await asyncio.sleep(60)
    left = len(processes.start_errors)
    await asyncio.sleep(600)
    assert left - len(processes.start_errors) == 120
    own.stop()
    stopped_at = now()
    assert await running == 0
    assert now() - stopped_at < 0.1


@pytest.mark.parametrize("child", [STORE, FRONT], ids=lambda child: child.name)
@in_virtual_time
async def test_a_child_whose_first_start_is_faulty_ends_the_service_with_2(
    processes: type[Process], child: Child
) -> None:
    fronts = [FRONT, Child("another", ["front"], ())]
    own = ProcessPool(STORE, fronts, {}, say=print, ended=ENDED.append)
    running = asyncio.create_task(own.run())
    await asyncio.sleep(0.5)
    [faulty] = [one for one in processes.started if one.child.name == child.name]
    faulty._stop(-2)
    assert await running == 2
    assert len(processes.started) == 3


@in_virtual_time
async def test_a_start_that_may_succeed_later_is_tried_again_and_accepts_no_loss(
    processes: type[Process],
) -> None:
    later = asyncio.get_running_loop().call_later
    later(0.5, lambda: processes.started[0]._stop(-1))
    async with working_pool():
        processes.started[1]._stop(-2)  # a fault that it did not have at its start
        await asyncio.sleep(10)
        assert serving(processes, "store") == serving(processes, "front") == 1
        stores = [one.child for one in processes.started if one.child.name == "store"]
        assert ["--accept-loss" in one.command for one in stores] == [True, False]


@in_virtual_time
async def test_a_stop_while_a_child_is_being_started_ends_it(processes: type[Process]) -> None:
    async with working_pool():
        processes.starting_seconds = 10.0
        processes.started[0].signal(signal.SIGKILL)
        await asyncio.sleep(5)
    assert len(processes.started) == 3


@in_virtual_time
async def test_no_upgrade_begins_in_a_stop(processes: type[Process]) -> None:
    own, running = await ready_pool()
    processes.stopping_seconds = 20.0
    own.stop()
    with pytest.raises(UpgradeError, match=r"^There is no upgrade: the service stops\.$"):
        await own.upgrade()
    assert await running == 0
    assert len(processes.started) == 2


@in_virtual_time
async def test_a_child_that_was_ready_comes_again_at_once_however_often_it_failed_before(
    processes: type[Process], capsys: pytest.CaptureFixture[str]
) -> None:
    async with working_pool():
        for failures in (0, 5):
            processes.start_errors += [OSError(errno.EAGAIN, "unavailable")] * failures
            processes.started[-1 if failures else 0].signal(signal.SIGKILL)
            await asyncio.sleep(30)
        assert serving(processes, "store") == 1
        count = len(processes.started)
        processes.started[-1].signal(signal.SIGKILL)
        await asyncio.sleep(0.15)
        assert len(processes.started) == count + 1
    assert capsys.readouterr().out.count("store ended with -9: starting it again.\n") == 3


@in_virtual_time
async def test_an_upgrade_whose_program_can_not_be_started_fails_and_the_next_one_succeeds(
    processes: type[Process], capsys: pytest.CaptureFixture[str]
) -> None:
    async with working_pool() as own:
        processes.start_errors.append(FileNotFoundError(errno.ENOENT, "No such file"))
        with pytest.raises(
            UpgradeError,
            match=r"^The old version continues\. store of the new version did not load: "
            r"It could not be started: .*No such file\.$",
        ):
            await own.upgrade()
        assert now() < 5
        assert "starting it again" not in capsys.readouterr().out
        assert serving(processes, "store") == serving(processes, "front") == 1
        processes.loading_seconds = 1000.0
        with pytest.raises(
            UpgradeError,
            match=r"^The old .* continues\. store .* did not load: It hangs; see its log\.$",
        ):
            await own.upgrade()
        assert (alive(processes), now() < 70) == (2, True)


@in_virtual_time
async def test_an_upgrade_after_a_crash_starts_each_process_once(processes: type[Process]) -> None:
    processes.letting_go_seconds, processes.opening_seconds = 50.0, 500.0
    processes.loading_seconds = processes.stopping_seconds = 50.0
    async with working_pool() as own:
        processes.started[0].signal(signal.SIGKILL)
        await asyncio.sleep(60)
        crashed = len(processes.started)
        await own.upgrade()
        assert await processes.started[1].ended() == 0  # the front lets go, no signal ends it
        assert serving(processes, "store") == serving(processes, "front") == 1
        assert len(processes.started) == crashed + 2
        for _ in range(2):  # the second time before they are ready
            for one in processes.started[-2:]:
                one.signal(signal.SIGKILL)
            await asyncio.sleep(10)
        await asyncio.sleep(120)
        assert serving(processes, "store") == serving(processes, "front") == 1


@in_virtual_time
async def test_a_stop_while_the_store_lets_go_leaves_it_to_the_last_requests(
    processes: type[Process],
) -> None:
    processes.letting_go_seconds, processes.stopping_seconds = 5.0, 20.0
    own, running = await ready_pool()
    await stop_in_an_upgrade(own)
    await asyncio.sleep(10)
    assert not running.done()
    assert serving(processes, "store") == 1
    assert await running == 0
    assert await processes.started[0].ended() == -signal.SIGTERM


@pytest.mark.parametrize("store", [0, 2])
@in_virtual_time
async def test_an_upgrade_after_which_no_version_has_the_outbox_says_so(
    processes: type[Process], store: int
) -> None:
    async with working_pool() as own:
        if store:
            processes.started[0].signal(signal.SIGKILL)  # an earlier end is no reason
        await asyncio.sleep(10)
        processes.opens = False
        with pytest.raises(
            UpgradeError,
            match=r"^No version has the outbox\. The new store process did not open the outbox: "
            r"It hangs; see its log\. The old one could not either: It hangs; see its log\.$",
        ):
            await own.upgrade()
        assert 670 < now() < 680
        processes.started[store]._stop(-2)  # a start that is faulty now, but was not the first one
        await asyncio.sleep(2)
        assert serving(processes, "store") == 1


@in_virtual_time
async def test_a_store_that_has_let_go_gets_the_outbox_back_when_the_new_one_does_not_come(
    processes: type[Process],
) -> None:
    async with working_pool() as own:
        processes.started[0].opens = True
        processes.started[0].opening_seconds = 50.0
        processes.opens = False
        later = asyncio.get_running_loop().call_later
        later(9, lambda: processes.started[2].signal(signal.SIGKILL))
        with pytest.raises(
            UpgradeError,
            match=r"^The old version continues\. The new store process did not open the outbox: "
            r"It ended with -9; see its log\.$",
        ):
            await own.upgrade()
        assert (alive(processes), now() < 65) == (2, True)
        assert processes.started[0].serves


@in_virtual_time
async def test_a_stop_when_the_store_has_just_let_go_gives_it_the_outbox_for_the_last_requests(
    processes: type[Process],
) -> None:
    processes.letting_go_seconds, processes.stopping_seconds = SLOW_SECONDS, 20.0
    own, running = await ready_pool()
    upgrading = asyncio.create_task(own.upgrade())
    await asyncio.sleep(3)
    processes.started[0]._let_go()
    upgrading.cancel()
    own.stop()
    assert processes.started[0].serves
    assert await running == 0


@in_virtual_time
async def test_after_an_upgrade_whose_fronts_do_not_come_the_old_ones_serve_and_it_is_said_why(
    processes: type[Process],
) -> None:
    async with working_pool(FRONT, FRONT, Child("a front that comes", ["front"], ())) as own:
        assert all(one.serves for one in processes.started)  # each was waited for
        processes.fault_of_fronts = "no such module"
        later = asyncio.get_running_loop().call_later
        later(0.5, lambda: setattr(processes.started[-3], "fault_of_fronts", "no memory"))
        later(0.5, lambda: setattr(processes.started[-1], "opening_seconds", 10.0))
        split = "The store process is of the new version, the front processes are of the old one"
        with pytest.raises(UpgradeError, match=f"^{split}: a new one did not come. ") as told:
            await own.upgrade()
        faults = str(told.value).partition("come. ")[2].split("; ")
        assert sorted(faults) == ["no memory", "no such module"]
        assert len(processes.started) == 10  # none of those that failed was started again
        processes.fault_of_fronts = ""
        later(0.5, lambda: setattr(processes.started[-2], "opens", False))
        with pytest.raises(
            UpgradeError, match=rf"^{split}: a new one did not come. It hangs; see its log\.$"
        ):
            await own.upgrade()
        assert (alive(processes), now() < 70) == (5, True)
        assert (serving(processes, "store"), serving(processes, "front")) == (1, 3)


@pytest.mark.parametrize("how", ["stop", "kill"])
@pytest.mark.parametrize("slow", ["loading_seconds", "letting_go_seconds", "opening_seconds"])
@in_virtual_time
async def test_a_stop_in_an_upgrade_ends_both_versions_and_a_kill_at_once(
    processes: type[Process], slow: str, how: str
) -> None:
    own, running = await ready_pool(FRONT)
    setattr(processes, slow, 5.0)
    upgrading = asyncio.create_task(own.upgrade())
    await asyncio.sleep(3)
    upgrading.cancel()
    getattr(own, how)()
    assert len(processes.started) == 6
    assert how == "stop" or alive(processes) == 0
    assert await running == 0


@in_virtual_time
async def test_a_stop_while_the_store_stops_serving_ends_it_by_its_own_hand(
    processes: type[Process],
) -> None:
    processes.letting_go_seconds = 5.0
    own, running = await ready_pool()
    later = asyncio.get_running_loop().call_later
    later(2.5, lambda: setattr(processes.started[3], "stopping_seconds", 20.0))  # a new front
    await stop_in_an_upgrade(own)
    assert await running == 0
    assert await processes.started[0].ended() == -signal.SIGTERM


@in_virtual_time
async def test_an_upgrade_does_not_wait_for_a_front_that_hangs(processes: type[Process]) -> None:
    async with working_pool(FRONT) as own:
        processes.started[-1].hangs = True
        await own.upgrade()
        assert (60 < now() < 65, len(ENDED)) == (True, 3)
        assert await processes.started[0].ended() == -signal.SIGTERM
