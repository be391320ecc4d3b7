"""What the `outbox` commands print for people, line by line, and the options that change it."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import json
import platform
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import structlog

from inngest_outbox.console.commands import copies, events, journal, repairs, stats, tail
from inngest_outbox.console.operations.explain import spoken_time
from inngest_outbox.console.operations.search import Search
from inngest_outbox.console.operations.tail import Change
from inngest_outbox.console.terminal import selection
from inngest_outbox.errors import InngestApiError
from inngest_outbox.inngest.runs import EventRun, Named
from inngest_outbox.journal.comparison import StartView
from inngest_outbox.outbox import model
from inngest_outbox.outbox.event import Event, Meta
from inngest_outbox.outbox.link.messages import Status
from inngest_outbox.outbox.model import DeliveryRecord, Filter, Retry, Settlement, State
from inngest_outbox.outbox.schema import migrate
from inngest_outbox.outbox.sqlite.file.journalled import Restored
from inngest_outbox.outbox.sqlite.store import SqliteOutbox, open_sqlite_outbox
from inngest_outbox.runs.figures import NAMES, KeptNames, NameView
from inngest_outbox.runs.turn import SCOPE
from tests.support.outbox_command import outbox_command, outbox_json
from tests.support.rows import bury
from tests.support.storage import PATIENCE_SECONDS, append_all, claim, deliver, event

NOON_MS = 1_795_608_000_000  # 2026-11-25 12:00 UTC
DAY_MS = 86_400_000


@pytest.fixture(autouse=True)
def _log() -> Iterator[None]:
    """The log of the outbox under test, which would share the standard output."""
    with structlog.testing.capture_logs():
        yield


def about(seconds: float) -> Any:
    """Seconds that pass while the test does."""
    return pytest.approx(seconds, abs=PATIENCE_SECONDS)


def lines(out: str) -> list[str]:
    """The lines with one space between words."""
    return [" ".join(line.split()) for line in out.splitlines()]


async def waiting(outbox: SqliteOutbox, one: Event) -> Event:
    """The event, which was sent twice, alone the second time, and waits."""
    await outbox.intake.append(one)
    for note in ("answered 500", "answered 500 alone"):
        batch = await claim(outbox)
        again = Retry(batch.entries[0].seq, 0.0, 1, isolated=True, note=note)
        await outbox.queue.settle(Settlement(batch.claim, retry=[again]))
    return one


async def delivered(outbox: SqliteOutbox) -> Event:
    """An event that was delivered a day after its acceptance, without its payload."""
    one = event("U-9")
    old = msgspec.structs.replace(one, accepted_at_ms=one.accepted_at_ms - DAY_MS)
    await outbox.intake.append(old)
    await deliver(outbox, await claim(outbox))
    await outbox.repairs.purge_payloads(older_than_seconds=-1)
    return old


async def uneven(outbox: SqliteOutbox) -> int:
    """One dead row, two delivered, three sent, four claimed and five that wait, one for long.

    Returns when the first died.
    """
    [dead] = await bury(outbox)
    await append_all(outbox, 2, "u-2")
    await deliver(outbox, await claim(outbox))
    await append_all(outbox, 3, "u-3")
    batch = await claim(outbox)
    sent = [entry.seq for entry in batch.entries]
    await outbox.queue.settle(Settlement(batch.claim, sent=sent))
    await append_all(outbox, 4, "u-4")
    await claim(outbox)
    [new, *_] = await append_all(outbox, 4, "u-5")
    since_ms, due_ms = (new.accepted_at_ms - days * DAY_MS for days in (3, 2))
    meta = Meta(due_at_ms=due_ms)
    late = msgspec.structs.replace(event("u-5"), accepted_at_ms=since_ms, meta=meta)
    await outbox.intake.append(late)
    [row] = await outbox.inspector.rows(Filter(ids=(dead,)))
    return row.settled_at_ms or 0


async def test_each_figure_stands_under_its_own_name(live: SqliteOutbox, path: Path) -> None:
    died_ms = await uneven(live)
    where = {"destination": "cloud", "confirmation": "on\x1b"}
    trouble = DeliveryRecord("backing_off", "no\x1b", 1, 1, 60.0, 0, 1_234.5, **where)
    await live.delivery.save(trouble)
    told = await outbox_json(path, "stats")
    sizes = {name: told[name] for name in ("databaseBytes", "walBytes")}
    counts = {"pending": 5, "delivering": 4, "sent": 3, "delivered": 2, "dead": 1}
    figures = {
        **counts,
        "oldestPendingSeconds": about(3 * DAY_MS / 1000),
        "oldestDueSeconds": about(2 * DAY_MS / 1000),
        "delivery": {"state": "backing_off", "reason": "no\x1b", "reopensInSeconds": about(60)},
        "rate": 1_234.5,
        "etaSeconds": None,
        **where,
        **sizes,
        "serving": True,
    }
    dead = {"name": "documents/aws.index", "reason": "rejected", "rows": 1, "latestMs": died_ms}
    groups = [{**dead, "detail": "rejected: words"}]
    assert told == {"outbox": f"sqlite:///{path}", **figures, "names": [], "deadGroups": groups}
    late = "the oldest due row has waited 2 d, more than 1 h"
    behind = "9 wait and delivery is backing_off (no\x1b)"
    words = f"{late}; {behind}; 1 dead (see `outbox list --state dead`)"
    code, out, _ = await outbox_command(path, "check", "--json")
    critical = {"code": 2, "status": "CRITICAL", "message": words, "stats": figures}
    assert (code, json.loads(out)) == (2, critical)
    _, out, _ = await outbox_command(path, "check")
    data = " ".join(f"{state}={count}" for state, count in counts.items())
    seconds = r"oldest_pending=2(59|6\d)\d{3}\.\ds rate=1234\.5\n"
    words = words.replace("\x1b", "\ufffd")
    assert re.fullmatch(re.escape(f"OUTBOX CRITICAL - {words} | {data} ") + seconds, out)
    _, out, _ = await outbox_command(path, "stats", "--owners")
    mib = {name: f"{size / 1024**2:.1f} MiB" for name, size in sizes.items()}
    assert " | ".join(lines(out)) == (
        f"sqlite:///{path} | pending 5 | delivering 4 | sent 3 | delivered 2 | dead 1 | "
        "oldest pending 3 d | oldest due 2 d | delivery backing_off (no\ufffd) | "
        "events go to Inngest (cloud) | confirmation on\ufffd | rate 1,234.5 events/s | "
        f"drained in unknown | database {mib['databaseBytes']} | "
        f"write-ahead log {mib['walBytes']} | service running | DEAD NAME REASON LATEST | "
        f"1 documents/aws.index rejected {spoken_time(died_ms)} | OWNER ROWS BYTES | "
        "u-5 5 1,000 | u-4 4 800 | u-3 3 600 | u-2 2 400 | u-1 1 200"
    )
    assert "\n   1  documents" in out  # numbers stand below each other
    assert out.endswith("\nu-1       1    200\n")
    lost = "3 of them may not have reached Inngest, and never will.\n"
    assert (await outbox_command(path, "discard", "--state", "sent"))[2] == lost


async def test_show_has_the_facts_of_each_state(live: SqliteOutbox, path: Path) -> None:
    old = await delivered(live)
    [dead] = await bury(live)
    late = await waiting(live, event())
    [row] = await live.inspector.rows(Filter(ids=(old.id,)))
    at = spoken_time(row.settled_at_ms or 0)
    told = await outbox_json(path, "show", row.inngest_id or "", "--payload")
    assert (told["id"], told["payload"]) == (old.id, None)
    _, out, _ = await outbox_command(path, "show", old.id, "--payload")
    assert " | ".join(lines(out)) == (
        f"id {old.id} | id in Inngest {row.inngest_id} | state delivered | why delivered: Inngest "
        f"took it at {at}, 1 d after its acceptance; the row is removed after the retention. | "
        f"name {old.name} | user U-9 | attempts 1 (an outage adds none) | sends 1 | "
        f"accepted {spoken_time(old.accepted_at_ms)} | first sent "
        f"{spoken_time(row.first_sent_at_ms or 0)} | delivered {at} | payload removed"
    )
    [row] = await live.inspector.rows(Filter(ids=(dead,)))
    _, out, _ = await outbox_command(path, "show", dead)
    at = [line for line in lines(out) if line.startswith("dead 20")]
    assert len(at) == 1
    assert f"reason rejected: {row.detail}" in lines(out)
    _, out, _ = await outbox_command(path, "show", late.id)
    shown = lines(out)
    assert {"attempts 1 (an outage adds none)", "sends 2", "payload 200 bytes"} <= set(shown)
    assert [one.endswith("UTC answered 500") for one in shown].count(True) == 1
    _, out, _ = await outbox_command(path, "list")
    assert "payload removed" in out


class Inngest:
    """Answers of a REST API about one event, which Inngest has under another ULID than asked."""

    def __init__(self, *runs: str, is_away: bool = False) -> None:
        self._runs, self._is_away = runs, is_away

    async def run_ids(self, *asked: object) -> tuple[str, ...]:
        if self._is_away:
            raise InngestApiError
        return self._runs if asked == ("01ANSWERED", "branch-7") else ()

    async def run(self, run_id: str, environment: str) -> EventRun | None:
        if run_id == "r-gone":
            return None
        return EventRun(run_id, "Running", function=Named(f"resize in {environment}\x1b"))

    async def used_before(self, ulid: str, wire_id: str, name: str, environment: str) -> str:
        given = ulid, wire_id, name, environment
        assert given == ("01ANSWERED", "order-1795", "documents/aws.index", "branch-7")
        return "01OTHER"


async def test_show_names_five_runs_or_whose_id_it_was(
    live: SqliteOutbox, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, theirs = (
        msgspec.structs.replace(event(), meta=Meta(wire_id, "branch-7"))
        for wire_id in (None, "order-1795")
    )
    for one in (mine, theirs):
        await live.intake.append(one)
    batch = await claim(live)
    seqs = [entry.seq for entry in batch.entries]
    answered = [(seq, "01ANSWERED") for seq in seqs]
    await live.queue.settle(Settlement(batch.claim, delivered=seqs, answered=answered))

    waiting = msgspec.structs.replace(event(), meta=theirs.meta)
    await live.intake.append(waiting)

    def answers(*runs: str, is_away: bool = False) -> None:
        def reader(*_: object, timeout_seconds: float) -> Inngest:
            assert timeout_seconds == 3.0
            return Inngest(*runs, is_away=is_away)

        monkeypatch.setattr(events, "make_rest_api", reader)

    async def shown(event_id: str, *runs: str) -> list[str]:
        answers(*runs)
        _, out, _ = await outbox_command(path, "show", event_id)
        return [line for line in out.splitlines() if "run of" in line or "held its id" in line]

    monkeypatch.delenv("INNGEST_DEV", raising=False)
    monkeypatch.setenv("INNGEST_EVENT_KEY", "key")
    used = "Inngest runs nothing for it: it held its id before, as 01OTHER."
    assert await shown(theirs.id) == [used]
    assert await shown(mine.id) == await shown(waiting.id) == []
    many = "r-1", "r-2", "r-gone", "r-4", "r-5", "r-6"
    told = await shown(theirs.id, *many)
    assert await shown(mine.id, *many) == told
    said = "running run of resize in branch-7\ufffd"
    assert [line.partition(": ")[0] for line in told] == [said] * 4
    assert told[0].endswith(": https://app.inngest.com/env/branch-7/runs/r-1")
    one = await outbox_json(path, "show", theirs.id)
    assert [run["id"] for run in one["runs"]] == ["r-1", "r-2", "r-4", "r-5"]
    assert (one["idUsedBy"], one["destination"]) == (None, None)
    await live.delivery.save(DeliveryRecord("healthy", "", 1, 0, 0.0, 0, destination="fake"))
    for runs, said in ((("r-1",), told[0]), ((), used)):
        answers(*runs)
        _, out, _ = await outbox_command(path, "show", theirs.id)
        assert out.endswith(f"\n{said}\nThe service sends to a fake Inngest.\n")
    one = await outbox_json(path, "show", theirs.id)
    assert (one["runs"], one["idUsedBy"], one["destination"]) == ([], "01OTHER", "fake")
    answers("r-1", is_away=True)
    assert await outbox_json(path, "show", theirs.id) == {**one, "idUsedBy": None}
    answers("r-1")
    monkeypatch.setenv("PORT", "none")  # the service would not start
    assert await outbox_json(path, "show", theirs.id) == {**one, "idUsedBy": None}


async def test_stats_has_sizes_and_says_that_no_service_runs(path: Path) -> None:
    async with open_sqlite_outbox(path, max_pending=9, max_pending_per_user=9) as outbox:
        await bury(outbox, 2, "no\x1b")
        await bury(outbox, 1, "large")
        await append_all(outbox, 1)
        batch = await claim(outbox)
        later = Retry(batch.entries[0].seq, 900.0, 1, isolated=False)
        await outbox.queue.settle(Settlement(batch.claim, retry=[later]))
        await outbox.delivery.save(DeliveryRecord("backing_off", "503", 1, 1, 60.0, 0))
        name = NameView(name="a/B", expected=True, sampled=4, with_run=3, outcomes={"failed": 2})
        lost = NameView(
            name="a/c\x1b[/b]",
            expected=True,
            per_second=2.5,
            held_median_seconds=0.5,
            held_p95_seconds=3.0,
            start_median_seconds=4.0,
            start_p95_seconds=5.0,
            outcomes={"completed": 7, "failed": 1},
            dead=6,
            no_run_since=NOON_MS,
        )
        kept = KeptNames(event().accepted_at_ms, (name, lost))
        await outbox.scopes.save_scope(SCOPE, NAMES, msgspec.to_builtins(kept))
        [last, row, _] = await outbox.inspector.rows(Filter(state=State.DEAD))
    told = await outbox_json(path, "stats")
    groups = [(one["rows"], one["reason"]) for one in told["deadGroups"]]
    assert groups == [(2, "no\x1b"), (1, "large")]
    _, out, _ = await outbox_command(path, "stats")
    mib = {name: f"{told[name] / 1024**2:.1f} MiB" for name in ("databaseBytes", "walBytes")}
    assert re.sub(r"(oldest pending) [\d.]+ (s|min) ", r"\1 soon ", " | ".join(lines(out))) == (
        f"sqlite:///{path} | pending 1 | delivering 0 | sent 0 | delivered 0 | dead 3 | "
        "oldest pending soon | oldest due - | delivery backing_off (503) | rate 0.0 events/s | "
        f"drained in unknown | database {mib['databaseBytes']} | "
        f"write-ahead log {mib['walBytes']} | service not running | DEAD NAME REASON LATEST | "
        f"2 documents/aws.index no\ufffd {spoken_time(row.settled_at_ms or 0)} | "
        f"1 documents/aws.index large {spoken_time(last.settled_at_ms or 0)} | "
        "NAME PER S HELD START WITH RUN FAILED DEAD RUNS | a/B 0.0 - - 3 of 4 2 of 2 0 - | "
        "a/c\ufffd[/b] 2.5 0.5 s 4 s 0 of 0 1 of 8 6 missing"
    )
    assert out.endswith("  0.5 s    4 s    0 of 0  1 of 8     6  missing\n")
    waits = "no service runs on this outbox; it is sent when one starts."
    shown = await outbox_json(path, "show", batch.entries[0].event_id)
    assert shown["explanation"] == f"pending: it is due in 15 min, and {waits}"
    told = await outbox_json(path, "explain", lost.name)
    assert told["explanation"][0] == f"A pending {lost.name} event waits: {waits}"
    assert (told["name"], told["known"]["dead"]) == (lost.name, 6)
    told = await outbox_json(path, "explain", "a/x")
    assert (told["name"], told["known"]) == ("a/x", None)
    code, out, _ = await outbox_command(path, "check", "--json")
    said = json.loads(out)
    assert (code, said["stats"]["serving"]) == (1, False)
    missing = f"since {spoken_time(NOON_MS)} (see `outbox explain {lost.name}`)"
    assert said["message"] == (
        "1 wait and delivery is backing_off (503); 3 dead (see `outbox list --state dead`); "
        f"{lost.name} starts no run {missing}"
    )


async def test_stats_says_how_the_journal_is(
    live: SqliteOutbox, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = {"bucket": "s3://b/a", "state": "away", "reason": "HTTP 503\x1b"}
    counts = {"objects": 1_200, "missing": 3_000, "restored": 2_000}
    rest = {"restoredDead": 4_000, "mayRunTwice": 5_000, "refused": ["One is left.", "Another."]}

    async def told(_: str) -> Status:
        return Status(detail={"journal": {**journal, **counts, **rest}})

    monkeypatch.setattr(stats, "service_status", told)
    _, out, _ = await outbox_command(path, "stats")
    assert lines(out)[-4:] == [
        "journal s3://b/a: away (HTTP 503\ufffd), 1,200 objects, 3,000 events missing",
        "2,000 events came back from it, 4,000 dead; 5,000 may run twice",
        "One is left.",
        "Another.",
    ]
    assert (await outbox_json(path, "stats"))["journal"] == {**journal, **counts, **rest}
    journal |= {"state": "ok", "reason": None}
    counts["restored"] = 0
    _, out, _ = await outbox_command(path, "stats")
    assert lines(out)[-3:] == [
        "journal s3://b/a: ok, 1,200 objects, 3,000 events missing",
        "One is left.",
        "Another.",
    ]


def made_start(
    one: str, objects: int, size: int, unknown: int, *, ours: bool, live: bool
) -> StartView:
    return StartView(one, ours, live, objects, size, 1, unknown, 0, None)


async def test_the_journal_is_told_by_its_starts_and_what_came_back_of_them(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = made_start("5f3c", 1_200, 34_000, 0, ours=True, live=False)
    other = made_start("9a1b", 2, 700, 5_000, ours=False, live=True)
    running = made_start("a0", 1, 1, 1, ours=True, live=True)
    ended = made_start("b0", 0, 0, 0, ours=False, live=False)
    brought_back = list[list[str]]()

    class Desk:
        async def starts(self) -> list[StartView]:
            return [mine, other, running, ended]

        async def restore(self, ids: list[str]) -> Restored:
            brought_back.append(ids)
            return Restored(2_000, 3_000, 4_000)

    for name in ("open_journal_look", "open_journal_desk"):
        monkeypatch.setattr(journal, name, lambda _: contextlib.nullcontext(Desk()))
    never = " that this file has never had\n"
    first = "5f3c  this file's: 1,200 objects, 34,000 bytes; 0 events" + never
    second = "9a1b  another file's, runs or was killed: 2 objects, 700 bytes; 5,000 events" + never
    third = "a0  this file's, runs or was killed: 1 object, 1 byte; 1 event" + never
    last = "b0  another file's: 0 objects, 0 bytes; 0 events" + never
    nothing = "There is nothing of that in the journal.\n"
    dry = "Nothing was changed: give --yes to do it.\n"
    old = "4,000 are older than Inngest remembers and may run twice.\n"
    back = f"Brought back 2,000 pending and 3,000 dead events; {old}"
    for options, code, said in (
        ("--yes", 0, first + second + third + last),
        ("", 0, first + second + third + last),
        ("--restore 9a1b --restore 9a1b", 0, second + dry),
        ("--restore 9a1b --restore 5f3c --yes", 0, first + second + back),
        ("--restore 9a1b --restore 0000 --yes", 1, second + back),
        ("--restore 0000", 1, nothing + dry),
    ):
        assert await outbox_command(path, "journal", *options.split()) == (code, said, ""), options
    assert brought_back == [["9a1b", "5f3c"], ["9a1b", "0000"]]
    told = await outbox_json(path, "journal", "--restore", "9a1b")
    assert told == {"starts": [msgspec.to_builtins(other)], "restored": None}
    told = await outbox_json(path, "journal", "--restore", "9a1b", "--yes")
    assert told["restored"] == {"pending": 2_000, "dead": 3_000, "old": 4_000}


async def test_a_search_has_its_time(
    live: SqliteOutbox, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = list[float]()

    def searching(*parts: Any) -> Search:
        given.append(parts[2].budget_seconds)
        return Search(*parts)

    for module in (events, selection):
        monkeypatch.setattr(module, "Search", searching)
    for command in (["list"], ["replay", "--all"], ["purge"]):
        await outbox_command(path, *command)
    assert given == [8.0, 2.0, 2.0, 2.0]  # to find, to count, and until it is said how far it is


async def test_stats_keeps_the_password_to_itself(postgres_url: str) -> None:
    scheme, _, rest = postgres_url.partition("://")
    secret = f"{scheme}://{rest.partition('@')[0]}:hidden@{rest.partition('@')[2]}"
    _, out, _ = await outbox_command(secret, "stats")
    assert "pending" in out
    assert not [one for one in lines(out) if one.startswith(("service ", "write-ahead log "))]
    assert "hidden" not in out
    assert "hidden" not in (await outbox_json(secret, "stats"))["outbox"]
    assert (await outbox_json(secret, "sign-out", "ada"))["user"] == "ada"  # and no log line


async def test_the_audit_is_read_as_sentences(live: SqliteOutbox, path: Path) -> None:
    ids = await bury(live, 5)
    await outbox_command(path, "pause")
    await live.repairs.replay(model.Named(tuple(ids[:1])), actor="ada")
    await live.repairs.discard(model.Named(tuple(ids[1:])), actor="ada")
    _, out, _ = await outbox_command(path, "audit", "--limit", "2")
    shown = lines(out)
    assert [line.partition(" UTC ")[2] for line in shown if " UTC " in line] == [
        "ada discard 4 events (4 given ids)",
        "ada replay 1 event (1 given id)",
    ]
    assert out.splitlines()[4] == "  and 1 more; --json names all"
    for _ in range(21):
        await live.repairs.set_paused(paused=True, actor="kim", reason="down")
    assert len(await outbox_json(path, "audit")) == 20
    [deed] = await outbox_json(path, "audit", ids[0], "--limit", "1")
    assert deed["action"] == "replay"
    [last] = await outbox_json(path, "audit", "--limit", "1")
    _, out, _ = await outbox_command(path, "audit", "--limit", "1")
    assert out == f"{spoken_time(last['at'])}  kim  pause  down\n"


async def test_a_sign_out_is_of_one_issuer_or_of_each(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_sqlite_outbox(path, max_pending=9, max_pending_per_user=9) as outbox:
        await outbox.intake.append(msgspec.structs.replace(event("Ada"), owner="dev Ada"))
    told = await outbox_json(path, "sign-out", "Ada", "--issuer", "https://id.example/A/")
    assert told == {"user": "Ada", "issuers": ["https://id.example/A"], "hasEvents": False}
    monkeypatch.setenv("OIDC_ISSUER", " https://own.example/ ")
    told = await outbox_json(path, "sign-out", "Ada", "--issuer", "")
    assert (told["issuers"], told["hasEvents"]) == (["https://own.example", "dev", "shared"], True)
    ended = "Ended the sessions of Ada (https://own.example, dev, shared).\n"
    assert await outbox_command(path, "sign-out", "Ada", "--actor", "kim") == (0, ended, "")
    acts = await outbox_json(path, "audit")
    assert [record["detail"] for record in acts] == [
        *2 * ["https://own.example Ada, dev Ada, shared Ada"],
        "https://id.example/A Ada",
    ]
    here = f"{getpass.getuser()}@{platform.node()}"
    assert [record["actor"] for record in acts] == ["kim", here, here]


async def test_a_resume_now_ends_the_wait_for_inngest(path: Path) -> None:
    async with open_sqlite_outbox(path, max_pending=9, max_pending_per_user=9) as outbox:
        await outbox.delivery.save(DeliveryRecord("backing_off", "503", 1, 1, 600.0, 0))
    for options, is_over in (((), False), (("--now",), True)):
        await outbox_command(path, "pause")
        assert (await outbox_command(path, "resume", *options))[1] == "Delivery is resumed.\n"
        delivery = (await outbox_json(path, "stats"))["delivery"]
        assert (delivery["reopensInSeconds"] == 0) is is_over


async def test_a_reason_is_said_without_what_is_around_it(path: Path) -> None:
    migrate(f"sqlite:///{path}")
    for reason, said in (
        ("  ", "Delivery is paused by ada. Posts are still accepted.\n"),
        (" down. ", "Delivery is paused by ada: down. Posts are still accepted.\n"),
        ("a\x1b[2J", "Delivery is paused by ada: a\ufffd[2J. Posts are still accepted.\n"),
    ):
        _, out, _ = await outbox_command(path, "pause", "--actor", "ada", "--reason", reason)
        assert out == said


async def test_a_purge_keeps_what_the_retention_keeps(
    live: SqliteOutbox, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await delivered(live)

    async def days_ago(days: int) -> None:
        for table, at in (("outbox", "accepted_at_ms"), ("outbox_done", "settled_at_ms")):
            earlier = f"UPDATE {table} SET {at} = {at} - {days} * 86400000"
            await live.writer.between_commits(lambda c, earlier=earlier: c.execute(earlier))

    await days_ago(6)
    assert (await outbox_json(path, "purge"))["rows"] == 0
    _, out, _ = await outbox_command(path, "purge", "--older-than", "5d")
    assert out.startswith("Would remove 1 row delivered longer than 5 d ago. ")
    with monkeypatch.context() as few:
        few.setattr(repairs, "_COUNTED", 0)
        assert "remove more than 0 rows" in (await outbox_command(path, "purge"))[1]
    with monkeypatch.context() as configured:
        configured.setenv("OUTBOX_RETENTION", "0s")
        assert (await outbox_json(path, "purge"))["rows"] == 1
    await days_ago(1)
    assert (await outbox_json(path, "purge"))["rows"] == 1


async def test_a_command_that_takes_long_tells_how_far_it_is(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = list[tuple[str, int, int]]()

    @contextlib.contextmanager
    def bar(action: str) -> Iterator[Callable[[int, int], None]]:
        yield lambda done, total: seen.append((action, done, total))

    for module in (copies, selection):
        monkeypatch.setattr(module, "progress_bar", bar)
    async with open_sqlite_outbox(path, max_pending=9, max_pending_per_user=9) as outbox:
        await bury(outbox, 3)
    for action, command in (
        ("copying", f"backup {path}.1"),
        ("copying", f"recover {path}.2"),
        ("replaying", "replay --all --yes"),
        ("moving", f"move --to sqlite:///{path}.3"),
    ):
        seen.clear()
        assert (await outbox_command(path, *command.split()))[0] == 0
        assert seen[-1] == (action, seen[-1][1], max(1, seen[-1][1])), command


async def test_a_beginning_of_very_many_ids_says_so(live: SqliteOutbox, path: Path) -> None:
    for more, count in ((10, "10"), (1, "more than 10")):
        await append_all(live, more)
        code, _, err = await outbox_command(path, "show", "0")
        assert (code, len(err.splitlines())) == (2, 11)
        assert err.startswith(f"outbox: 0 is the beginning of {count} ids:\n")
    assert len(await outbox_json(path, "list", "--state", " Pending ")) == 11


async def test_tail_tells_of_each_state_when_it_began_and_why(
    live: SqliteOutbox, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def end(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(tail, "asyncio", SimpleNamespace(run=asyncio.run, sleep=end))
    old = await delivered(live)
    tomorrow_ms = event().accepted_at_ms + DAY_MS
    await live.intake.append(
        msgspec.structs.replace(event(), id="ahead", accepted_at_ms=tomorrow_ms)
    )
    await deliver(live, await claim(live))
    [dead] = await bury(live)
    being = msgspec.structs.replace(event(), accepted_at_ms=old.accepted_at_ms)
    await waiting(live, being)
    await claim(live)
    late = await waiting(live, event())
    [new] = await append_all(live, 1)
    await live.intake.append(event(name="other\x7f"))
    rows = {row.id: row for row in await live.inspector.rows(Filter(name=old.name))}
    _, out, _ = await outbox_command(path, "tail", "--name", old.name)
    newest, buried = ["--lines", "1"], ["--state", "dead", "--user", rows[dead].user_id]
    for options in (newest, [*newest, "--json"], ["--user", old.user_id], buried):
        _, told, _ = await outbox_command(path, "tail", *options)
        assert (told.count("\n"), told[:-1].isprintable()) == (1, True)
    assert (await outbox_command(path, "tail", "--lines", "0"))[1:] == ("", "")
    settled_ms = rows[old.id].settled_at_ms or 0
    assert out[:9] == time.strftime("%H:%M:%S ", time.gmtime(settled_ms / 1000))
    assert [line[9:] for line in out.splitlines()] == [
        f"delivered  {old.id} after 1 d",
        "delivered  ahead after 0 s",
        f"dead       {dead} rejected: {rows[dead].detail}",
        f"delivering {being.id} {being.user_id} {being.name}",
        f"pending    {late.id} answered 500 alone",
        f"pending    {new.id} {new.user_id} {new.name}",
    ]
    _, out, _ = await outbox_command(path, "tail", "--name", old.name, "--json")
    told = {one["id"]: one["at"] for one in map(json.loads, out.splitlines())}
    assert told.pop(being.id) >= new.accepted_at_ms  # when it was seen
    assert told == {
        **{one: rows[one].settled_at_ms for one in (old.id, "ahead")},
        dead: rows[dead].settled_at_ms,
        late.id: rows[late.id].history[-1].at,
        new.id: new.accepted_at_ms,
    }
    seen = [Change(what, rows[one]) for what in ("accepted", "gone") for one in (old.id, dead)]

    async def begin(*_: object) -> list[Change]:
        return seen

    monkeypatch.setattr(tail, "Tail", lambda _: SimpleNamespace(begin=begin))
    _, out, _ = await outbox_command(path, "tail")
    assert [line[9:] for line in out.splitlines()] == [
        f"{one.what:10} {one.row.id} {one.row.user_id} {one.row.name}" for one in seen
    ]
    _, out, _ = await outbox_command(path, "tail", "--json")
    *accepted, first, second = (json.loads(line)["at"] for line in out.splitlines())
    assert accepted == [one.row.accepted_at_ms for one in seen[:2]]
    assert min(first, second) >= new.accepted_at_ms  # when it was seen
