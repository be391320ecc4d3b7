"""What people and the service manager are told of an upgrade, and what a stop makes of it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from service.console.commands import upgrade
from service.errors import OutboxUnavailableError
from service.processes.successor import Successor
from service.processes.upgrades import STOPPED, Outcome, Upgrades
from tests.support.virtual_time import in_virtual_time

BEGINS = ["Upgrade: the new version loads."]


class Manager:
    """A service manager; remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def reloading(self) -> None:
        self.told.append("reloading")

    def ready(self, status: str) -> None:
        self.told.append(f"ready: {status}")


@pytest.mark.parametrize(
    ("outcome", "said", "told"),
    [
        (Outcome(), ["Upgrade: done."], ["ready: Listening"]),
        (Outcome("No disk."), ["Upgrade failed: No disk."], ["ready: Listening"]),
        (Outcome(restarts=True), [], []),
        (STOPPED, ["Upgrade: given up, because the service stops."], []),
    ],
)
async def test_the_process_is_ready_again_unless_another_comes_or_it_stops(
    outcome: Outcome, said: list[str], told: list[str]
) -> None:
    async def replace() -> Outcome:
        return outcome

    manager: Any = Manager()
    lines: list[str] = []
    upgrades = Upgrades(replace, lines.append, manager, "Listening")
    assert await upgrades.ask() == outcome
    assert lines == BEGINS + said
    assert manager.told == ["reloading", *told]


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        (STOPPED, "There is no upgrade. The service stops."),
        (Outcome("No disk."), "The old version continues. No disk."),
    ],
)
async def test_the_command_says_why_the_new_version_does_not_serve(
    monkeypatch: pytest.MonkeyPatch, outcome: Outcome, words: str
) -> None:
    async def find_services(_: str) -> dict[str, None]:
        return {"socket": None}

    async def ask_for_upgrade(_: str) -> Outcome:
        return outcome

    monkeypatch.setattr(upgrade, "find_services", find_services)
    monkeypatch.setattr(upgrade, "ask_for_upgrade", ask_for_upgrade)
    with pytest.raises(OutboxUnavailableError, match=f"^{words}$"):
        await upgrade._upgrade("sqlite:///outbox.db")


class NewVersion:
    """In place of a Keeper: a new version that loads and opens the outbox as it is told."""

    fault = "No module."
    loads = opens = True

    def __init__(self, *_: object) -> None:
        pass

    def start(self, *, take_over: bool) -> None:
        assert take_over

    async def waits(self) -> None:
        pass

    async def ready(self) -> None:
        pass

    async def comes(self, saying: Any, _: float) -> bool:
        await saying()
        return self.loads if saying == self.waits else self.opens

    def go(self) -> None:
        pass

    def stop(self, _: int) -> None:
        pass

    async def ended(self) -> int:
        return 0


@pytest.fixture
def version(monkeypatch: pytest.MonkeyPatch) -> type[NewVersion]:
    class Version(NewVersion):
        pass

    monkeypatch.setattr("service.processes.successor.Keeper", Version)
    return Version


@pytest.mark.parametrize(
    ("opens", "outcome"),
    [
        (True, Outcome(restarts=True)),
        (False, Outcome("The new version did not open the outbox: No module.")),
    ],
)
def test_a_new_version_takes_over_when_it_has_opened_the_outbox(
    version: type[NewVersion], *, opens: bool, outcome: Outcome
) -> None:
    version.opens = opens

    @in_virtual_time
    async def main() -> None:
        successor = Successor(asyncio.Event(), print)
        replacing = asyncio.create_task(successor.replace())
        assert await successor.comes()
        assert await successor.takes_over() is opens
        assert await replacing == outcome

    main()


def test_a_version_that_could_not_open_the_outbox_wants_it_no_more(
    version: type[NewVersion],
) -> None:
    version.opens = False

    @in_virtual_time
    async def main() -> None:
        successor = Successor(asyncio.Event(), print)
        replacing = asyncio.create_task(successor.replace())
        assert await successor.comes()
        assert not await successor.takes_over()
        await replacing
        coming = asyncio.create_task(successor.comes())
        await asyncio.sleep(1)
        assert not coming.done()
        version.opens = True
        replacing = asyncio.create_task(successor.replace())
        assert await coming
        await asyncio.sleep(1)
        assert not replacing.done()
        assert await successor.takes_over()
        assert await replacing == Outcome(restarts=True)

    main()


def test_a_stop_after_the_new_version_has_opened_the_outbox_is_obeyed(
    version: type[NewVersion],
) -> None:
    @in_virtual_time
    async def main() -> None:
        stop = asyncio.Event()
        successor = Successor(stop, print)
        replacing = asyncio.create_task(successor.replace())
        assert await successor.comes()
        taking_over = asyncio.create_task(successor.takes_over())
        assert (await replacing).restarts
        stop.set()
        assert await taking_over is False

    main()


@pytest.mark.parametrize("loads", [False, True])
def test_an_upgrade_during_a_stop_is_no_failure(version: type[NewVersion], *, loads: bool) -> None:
    version.loads = loads

    @in_virtual_time
    async def main() -> None:
        stop = asyncio.Event()
        successor = Successor(stop, print)
        replacing = asyncio.create_task(successor.replace())
        stop.set()
        assert await successor.comes() is False
        assert await replacing == STOPPED

    main()
