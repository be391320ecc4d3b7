"""Held events without runs are seen, told by name, and raise an alarm where runs are expected."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog

from inngest_outbox.bootstrap.store_part import StorePart
from inngest_outbox.dev.fake_inngest.functions import Function
from inngest_outbox.dev.fake_inngest.server import FakeInngest
from inngest_outbox.observe.metrics import PrometheusRecorder
from inngest_outbox.runs.figures import NameView, load_names
from inngest_outbox.runs.turn import SCOPE
from tests.support.outbox_command import outbox_command, outbox_json
from tests.support.storage import eventually
from tests.support.watched_service import post, watched_service

TYPES = """
types:
  - {name: reports/first, path: /api/first, body: {type: object}, expects_run: true}
  - {name: reports/wanted, path: /api/wanted, body: {type: object}, expects_run: true}
  - {name: reports/unknown, path: /api/unknown, body: {type: object}}
"""


@pytest.fixture(autouse=True)
def _log() -> Iterator[None]:
    """The log of the service, which would share the standard output of the commands."""
    with structlog.testing.capture_logs():
        yield


@pytest.fixture
def changes(tmp_path: Path) -> dict[str, str]:
    types = tmp_path / "types.yaml"
    types.write_text(TYPES)
    return {"OUTBOX_NO_RUN_AFTER": "1s", "EVENT_TYPES_FILE": str(types)}


async def seen(part: StorePart, name: str, wanted: Callable[[NameView], object]) -> NameView:
    """What is known of a name, once it is as wanted."""

    async def look() -> NameView | None:
        kept = await load_names(part.outbox.scopes)
        return {one.name: one for one in kept.names}.get(name)

    found = await eventually(look, lambda one: one is not None and bool(wanted(one)))
    assert found
    return found


async def test_five_apps_are_told_rightly(
    path: Path, inngest: FakeInngest, changes: dict[str, str]
) -> None:
    inngest.runs.declare(
        Function(id="registered", trigger="reports/registered"),
        Function(id="failing", trigger="reports/failing", error={"name": "E", "message": "no"}),
        Function(id="limited", trigger="reports/limited", rate_limit_ms=3_600_000),
        Function(id="paused", trigger="reports/paused"),
    )
    async with watched_service(path, inngest.url, **changes) as part:
        intake = part.outbox.intake
        await post(intake, "reports/paused")
        await seen(part, "reports/paused", lambda one: one.with_run == 1)
        inngest.runs.declare(Function(id="paused", trigger="reports/paused", paused=True))
        for name in ("registered", "failing", "paused", "wanted", "unknown", "limited"):
            await post(intake, f"reports/{name}")
        await seen(part, "reports/limited", lambda one: one.with_run == 1)
        await post(intake, "reports/limited", 9)

        await seen(part, "reports/registered", lambda one: one.outcomes == {"completed": 1})
        await seen(part, "reports/failing", lambda one: one.outcomes == {"failed": 1})
        paused = await seen(part, "reports/paused", lambda one: one.no_run_since)
        assert dict(paused.outcomes) == {"completed": 1, "queued": 1}
        await seen(part, "reports/wanted", lambda one: one.no_run_since)
        unknown = await seen(part, "reports/unknown", lambda one: one.sampled)
        assert (unknown.expected, unknown.with_run) == (False, 0)
        await post(intake, "reports/limited")
        limited = await seen(part, "reports/limited", lambda one: one.sampled > 2)
        assert (limited.with_run, limited.expected) == (1, False)

        code, said, _ = await outbox_command(path, "check")
        assert code == 1
        assert "reports/paused starts no run since" in said
        assert "reports/wanted starts no run since" in said
        assert said.count("starts no run") == 2
        _, said, _ = await outbox_command(path, "explain", "reports/limited")
        asked = r"1 of (\d+) events that were asked about within 15 minutes have a run\."
        [count] = re.findall(asked, said)
        assert int(count) >= limited.sampled  # more may have been asked about since
        assert "may leave an event without a run" in said
        told = await outbox_json(path, "explain", "reports/limited")
        assert (told["name"], told["known"]["name"]) == ("reports/limited", "reports/limited")
        assert "\n".join(told["explanation"]).count("have a run.") == 1
        stats = await outbox_json(path, "stats")
        by_name = {one["name"]: one for one in stats["names"]}
        assert by_name["reports/failing"]["outcomes"] == {"failed": 1}


async def test_what_is_known_of_names_outlives_the_service(
    path: Path, inngest: FakeInngest, changes: dict[str, str]
) -> None:
    inngest.runs.declare(Function(id="one", trigger="nowhere"))
    recorder = PrometheusRecorder()
    async with watched_service(path, inngest.url, recorder, **changes) as part:
        await post(part.outbox.intake, "reports/wanted", 2)
        await seen(part, "reports/wanted", lambda one: one.no_run_since)
        await eventually(
            lambda: recorder.render()[0],
            lambda text: b'outbox_no_runs{name="reports/wanted"} 1.0' in text,
        )
    assert (await outbox_command(path, "check"))[0] == 1
    async with watched_service(path, inngest.url, **changes) as part:
        await seen(part, "reports/wanted", lambda one: one.no_run_since)
        inngest.runs.declare(Function(id="one", trigger="reports/wanted"))
        await post(part.outbox.intake, "reports/wanted")
        await seen(part, "reports/wanted", lambda one: one.no_run_since is None)
    assert (await outbox_command(path, "check"))[0] == 0


async def test_on_postgresql_one_process_watches_and_the_commands_know_it(
    postgres_url: str, inngest: FakeInngest, changes: dict[str, str]
) -> None:
    inngest.runs.declare(Function(id="one", trigger="nowhere"))
    async with (
        watched_service(postgres_url, inngest.url, **changes) as part,
        watched_service(postgres_url, inngest.url, **changes),
    ):
        await post(part.outbox.intake, "reports/wanted", 2)
        await seen(part, "reports/wanted", lambda one: one.no_run_since)
        code, said, _ = await outbox_command(postgres_url, "check")
        assert await part.outbox.scopes.load_scope(SCOPE, "turn")
    assert code == 1
    assert "reports/wanted starts no run since" in said
