"""Starts and stops of a service of several processes, and what one process alone may do."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest

from inngest_outbox.config.outbox_url import url_in_schema
from inngest_outbox.dev.fake_inngest.server import FakeInngest
from inngest_outbox.outbox.link.served import running_service
from tests.support.fleet import ROOT, START_SECONDS, STOP_SECONDS, client, environment, running
from tests.support.front_processes import (
    all_gone,
    children_of,
    delivered,
    ended_at_last,
    more_accepted,
    two_fronts,
)
from tests.support.notified import notified
from tests.support.storage import eventually

SELDOM = {"WATCHDOG_USEC": "3000000000"}  # once in these tests


async def test_a_stop_under_load_answers_every_post_that_was_taken(
    memory_path: Path, inngest_api: FakeInngest
) -> None:
    outbox_url = f"sqlite:///{memory_path / 'outbox.db'}"
    async with two_fronts(outbox_url, inngest_api) as (parent, poster):
        await parent.said(", 0 events wait")
        host, port = parent.url.removeprefix("http://").split(":")
        reader, late = await asyncio.open_connection(host, int(port))
        late.write(b"POST /auth/dev-login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n")
        late.write(b"Content-Type: application/json\r\n\r\n{")
        posts = [asyncio.create_task(poster.post(parent.url)) for _ in range(300)]
        await more_accepted(poster, 20)
        parent.process.send_signal(signal.SIGTERM)
        await eventually(lambda: is_refused(host, int(port)))
        late.write(b"}")
        assert (await reader.readline()).startswith(b"HTTP/1.1 4")
        late.close()
        assert await parent.ended() == 0
        assert set(await asyncio.gather(*posts)) <= {200, 0}
    async with running("serve", environment=environment(outbox_url, inngest_api.url)):
        await delivered(inngest_api, poster.accepted)


async def is_refused(host: str, port: int) -> bool:
    """True where no process listens any more."""
    try:
        _, writer = await asyncio.open_connection(host, port)
    except ConnectionResetError:  # it waited for the listener that was closed
        return False
    except ConnectionRefusedError:
        return True
    writer.close()
    return False


async def test_limits_are_exact_over_all_fronts_which_stop_when_their_parent_is_killed(
    memory_path: Path, inngest_api: FakeInngest
) -> None:
    url = f"sqlite:///{memory_path / 'outbox.db'}"
    given = {"INNGEST_DEV": "http://127.0.0.1:1", "OUTBOX_MAX_PENDING_PER_USER": "20"}
    async with two_fronts(url, inngest_api, **given) as (parent, poster):
        statuses = await asyncio.gather(
            *(poster.post_on_a_new_connection(parent.url) for _ in range(60))
        )
        assert sorted(statuses) == [200] * 20 + [429] * 40
        children = children_of(parent)
        assert len(children) == 3
        parent.kill()
        await parent.ended()
        await all_gone(children)


@pytest.mark.parametrize(
    ("fronts", "level"), [("1", "info"), pytest.param("2", "warning", marks=pytest.mark.slow)]
)
async def test_intake_and_delivery_run_apart_in_a_schema_of_their_own(
    postgres_url: str,
    postgres_session: psycopg.Connection,
    short_path: Path,
    inngest_api: FakeInngest,
    fronts: str,
    level: str,
) -> None:
    given = {"WEB_CONCURRENCY": fronts, "OUTBOX_SCHEMA": "apart"}
    settings = environment(postgres_url, inngest_api.url, **given)
    async with (
        running("serve", "--no-relay", environment=settings) as intake,
        client() as poster,
    ):
        await poster.sign_in(intake.url)
        for _ in range(5):
            assert await poster.post(intake.url) == 200

        async def ready_detail() -> dict[str, Any]:
            _, readiness = await poster.readiness(intake.url)
            return dict(readiness["detail"])

        # An event that is stored while the rows are counted counts twice until the next count.
        detail = await eventually(ready_detail, lambda seen: seen["undelivered"] == 5)
        assert "delivery" not in detail
        assert (await poster.metrics(intake.url))["outbox_confirmations_ok"] == 1
        assert not any(inngest_api.ledger.times(event_id) for event_id in poster.accepted)
        with notified(short_path) as manager:
            logs = {"LOG_LEVEL": level, "LOG_FORMAT": "console" if level == "info" else "json"}
            told = {**settings, **manager.environment, **SELDOM, **logs}
            async with running("relay", environment=told, ready="Delivering") as relay:
                await delivered(inngest_api, poster.accepted)
                async with running_service(url_in_schema(postgres_url, "apart")):
                    pass  # `outbox upgrade` finds it, and not the relay
                relay.process.send_signal(signal.SIGHUP)  # as a terminal that closes
                assert await relay.ended() == 0
            if level == "info":
                assert any("[info     ] send " in line for line in relay.lines)
                assert "Stopping: finishing sends under way.\n" in relay.lines
            else:
                assert "send" not in {json.loads(line)["event"] for line in relay.lines}
            said = [manager.bound.recv(4096) for _ in range(3)]
            ready = b"READY=1\nSTATUS=Delivering"
            assert said == [ready, b"WATCHDOG=1", b"STOPPING=1\nSTATUS=Stopping"]
    postgres_session.execute("DROP SCHEMA apart CASCADE")


@pytest.mark.parametrize("fronts", ["1", pytest.param("2", marks=pytest.mark.slow)])
async def test_a_service_serves_beside_a_module_of_its_name_where_its_standard_streams_are_closed(
    tmp_path: Path, short_path: Path, fronts: str
) -> None:
    (tmp_path / "service.py").write_text("raise RuntimeError")
    outbox_url = f"sqlite:///{tmp_path / 'outbox.db'}"
    settings = environment(outbox_url, "http://127.0.0.1:1", WEB_CONCURRENCY=fronts)
    with notified(short_path) as manager:
        service = await asyncio.create_subprocess_exec(
            *("sh", "-c", f"exec {sys.executable} -P -m service serve <&- >&- 2>&-"),
            cwd=tmp_path,
            env={
                **os.environ,
                **settings,
                **manager.environment,
                **SELDOM,
                "PYTHONPATH": f"{ROOT}:{ROOT}/service",
            },
        )
        try:
            told = asyncio.get_running_loop().sock_recv
            async with asyncio.timeout(START_SECONDS):
                while not (await told(manager.bound, 4096)).startswith(b"READY=1"):
                    pass
            service.terminate()
            async with asyncio.timeout(STOP_SECONDS):
                assert await service.wait() == 0
        finally:
            if service.returncode is None:
                service.kill()


async def test_an_sqlite_outbox_is_not_served_without_a_relay(tmp_path: Path) -> None:
    settings = environment(f"sqlite:///{tmp_path / 'outbox.db'}", "http://127.0.0.1:1")
    with pytest.raises(AssertionError, match="exactly one process"):
        async with running("serve", "--no-relay", environment=settings):
            pass


@pytest.mark.slow
async def test_a_second_signal_ends_the_children_at_once(
    tmp_path: Path, inngest_api: FakeInngest
) -> None:
    outbox_url = f"sqlite:///{tmp_path / 'outbox.db'}"
    async with two_fronts(outbox_url, inngest_api) as (parent, _):
        children = children_of(parent)
        with ended_at_last(children):
            for child in children:
                child.suspend()
            parent.process.send_signal(signal.SIGINT)
            await parent.said("^Stopping: the processes finish requests and sends under way\\.$")
            parent.process.send_signal(signal.SIGINT)
            assert await parent.ended() == 130
            await all_gone(children)
