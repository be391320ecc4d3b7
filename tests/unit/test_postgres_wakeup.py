"""Which processes a wake-up reaches, and when a listening connection is given up; virtual time."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import psycopg
import pytest

from service.errors import OutboxUnavailableError
from service.outbox.postgres import notify as module
from service.outbox.postgres.connection import connection_string
from service.outbox.postgres.notify import HOLD_SERVED_LOCK, LISTEN
from tests.support.listening import Server
from tests.support.virtual_time import in_virtual_time, now


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    server = Server()
    monkeypatch.setattr(module, "psycopg", server.psycopg)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=now))
    return server


async def until(seconds: float) -> None:
    await asyncio.sleep(seconds - now())


@in_virtual_time
async def test_a_wait_ends_with_a_wake_up_or_at_its_timeout(server: Server) -> None:
    wakeup = server.wakeup
    for woken_at in (1.0, 3.0):
        waiting = asyncio.ensure_future(wakeup.wait(wakeup.generation, 60.0))
        await until(woken_at)
        assert not waiting.done()
        before = wakeup.generation
        wakeup.rows_are_due()
        assert wakeup.generation > before
        await waiting
        assert now() == woken_at
    await wakeup.wait(before, 60.0)
    assert now() == 3.0
    await wakeup.wait(wakeup.generation, 60.0)
    assert now() == 63.0


@in_virtual_time
async def test_rows_for_which_a_claim_waits_here_are_told_to_nobody(server: Server) -> None:
    async with server.wakeup as wakeup:
        await until(1)
        for ends in ("woken", "timed out", "cancelled"):
            waiting = asyncio.ensure_future(wakeup.wait(wakeup.generation, 2.0))
            await asyncio.sleep(1.0)
            if ends == "woken":
                wakeup.rows_are_due()
            elif ends == "cancelled":
                waiting.cancel()
            await asyncio.wait([waiting])
            await asyncio.sleep(1.0)
            assert server.told() == []
        one, two = (asyncio.ensure_future(wakeup.wait(wakeup.generation, at)) for at in (1, 3))
        await asyncio.sleep(2.0)
        assert (one.done(), two.done()) == (True, False)
        wakeup.rows_are_due()
        await two
        assert server.told() == []
        await asyncio.sleep(1.0)
        wakeup.rows_are_due()
        at = now()
        await asyncio.sleep(1.0)
        assert server.told() == [(at, "rows")]


@in_virtual_time
async def test_rows_are_told_to_others_unless_this_process_claimed_just_now(
    server: Server,
) -> None:
    async with server.wakeup as wakeup:
        wakeup.claims_here()
        await until(0.05)
        wakeup.rows_are_due()
        await until(9)
        wakeup.claims_here()
        await until(9.04)
        wakeup.rows_are_due()
        await until(9.06)
        wakeup.rows_are_due()
        await until(10)
    assert server.told() == [(0.05, "rows"), (9.06, "rows")]


@in_virtual_time
async def test_one_notification_covers_ten_milliseconds(server: Server) -> None:
    async with server.wakeup as wakeup:
        await until(1)
        wakeup.rows_are_due()
        wakeup.rows_are_due()
        await until(1.001)
        for _ in range(3):
            wakeup.rows_are_due()
            wakeup.settings_were_saved()
        await until(2)
        wakeup.settings_were_saved()
        assert wakeup._to_say.is_set()
        await until(3)
        assert not wakeup._to_say.is_set()
    assert sorted(server.told()) == [
        (1, "rows"),
        (1.01, "rows"),
        (1.01, "settings"),
        (2, "settings"),
    ]


@in_virtual_time
async def test_what_can_not_be_said_is_dropped(server: Server) -> None:
    async with server.wakeup as wakeup:
        await until(1)
        server.error = OutboxUnavailableError("down")
        wakeup.rows_are_due()
        await until(2)
        server.error = None
        wakeup.settings_were_saved()
        await until(3)
    assert server.told() == [(1, "rows"), (2, "settings")]


@in_virtual_time
async def test_a_process_hears_itself_every_five_seconds(server: Server) -> None:
    wakeup = server.wakeup
    before = wakeup.generation
    assert (wakeup.notify_ok, wakeup.poll_seconds) == (False, 0.2)
    async with wakeup as entered:
        assert entered is wakeup
        assert set(server.tasks) == {"outbox-listen", "outbox-notify"}
        await until(12)
        assert wakeup.generation == before + 1
        assert (wakeup.notify_ok, wakeup.poll_seconds) == (True, 2.0)
    assert server.tasks == {}
    assert [at for at, _ in server.nonces()] == [0, 5, 10]
    assert len({nonce for _, nonce in server.nonces()}) == 3
    assert server.gauges == [(0, 0), (0, 1)]
    how = {"autocommit": True, "prepare_threshold": None}
    assert server.connected == [(0, connection_string("postgresql://there/outbox"), how)]
    [session] = server.sessions
    lock = {"class": int.from_bytes(b"outb"), "backend": 77}
    assert session.given == [(HOLD_SERVED_LOCK, lock), (LISTEN, None)]


@in_virtual_time
async def test_what_other_processes_say_is_heard(server: Server) -> None:
    saved: list[float] = []
    async with server.wakeup as wakeup:
        await until(1)
        before = wakeup.generation
        server.say("other settings")
        server.say(f"{wakeup._sender} rows")
        server.say("other nonce")
        server.say("other")
        await until(2)
        wakeup.on_settings(lambda: saved.append(now()))
        assert (wakeup.generation, saved) == (before, [])
        server.say("other settings")
        await until(2.5)
        server.say(f"{wakeup._sender} settings")
        server.say("other nonce")
        await until(3)
        assert (wakeup.generation, saved) == (before, [2])
        waiting = asyncio.ensure_future(wakeup.wait(before, 60.0))
        await until(3.5)
        server.say("other rows")
        await waiting
        assert now() == 3.5
        assert wakeup.notify_ok
    assert saved == [2]


@in_virtual_time
async def test_senders_are_told_apart(server: Server) -> None:
    assert server.wakeup._sender != Server().wakeup._sender


@in_virtual_time
async def test_a_connection_that_hears_nothing_is_given_up_after_two_seconds(
    server: Server,
) -> None:
    server.is_deaf = True
    async with server.wakeup:
        await until(1.5)
        server.say("other rows")
        await until(40)
        assert server.times() == [0, 2.1, 4.3, 6.7, 9.5, 13.1, 18.3, 25.3, 32.3, 39.3]
        assert server.gauges == [(0, 0)]
        assert [one.is_open for one in server.sessions] == [False] * 9 + [True]


@in_virtual_time
async def test_a_connection_that_becomes_deaf_is_made_anew(server: Server) -> None:
    async with server.wakeup as wakeup:
        await until(6)
        server.is_deaf = True
        await until(11.5)
        assert wakeup.notify_ok
        await until(12.05)
        assert not wakeup.notify_ok
        await until(12.15)
        server.is_deaf = False
        await until(15)
        assert wakeup.notify_ok
    assert server.times() == [0, 12.1, 14.3]
    assert server.gauges == [(0, 0), (0, 1), (12, 0), (14.3, 1)]


@pytest.mark.parametrize("error", [psycopg.OperationalError("gone"), ConnectionResetError()])
@in_virtual_time
async def test_a_connection_that_breaks_is_made_anew_ever_more_slowly(
    server: Server, error: Exception
) -> None:
    async with server.wakeup as wakeup:
        await until(1)
        server.refuses = error
        server.say(error)
        await until(2)
        assert server.times() == [0, 1.1, 1.3, 1.7]
        assert not wakeup.notify_ok
        server.refuses = None
        before = wakeup.generation
        await until(3)
        assert wakeup.notify_ok
        assert wakeup.generation == before + 1
        server.say(error)
        await until(4)
    assert server.times() == [0, 1.1, 1.3, 1.7, 2.5, 3.1]
    assert not server.sessions[0].is_open


@in_virtual_time
async def test_a_connection_that_hears_again_after_long_is_made_anew_at_once(
    server: Server,
) -> None:
    server.is_deaf = True
    async with server.wakeup:
        await until(25)
        server.is_deaf = False
        await until(26)
        assert server.wakeup.notify_ok
        server.is_deaf = True
        await until(33)
    assert server.times()[-3:] == [18.3, 25.3, 32.4]
