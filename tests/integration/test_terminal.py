"""Words of Inngest's, of users and of operators can't steer a terminal or hide text in a log."""

from __future__ import annotations

import json
import logging
import os
import re
import select
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import msgspec
import pytest
import structlog

from inngest_outbox.console.commands import main as script
from inngest_outbox.console.operations.views import StatsView, stats_view
from inngest_outbox.console.terminal.tables import (
    console,
    delivery_text,
    destination_text,
    names_table,
    progress_bar,
    show_lines,
    state_text,
    stats_table,
)
from inngest_outbox.observe.logs import LogStream, RequestLine, configure_logs, request_log
from inngest_outbox.observe.printable import escaped_json
from inngest_outbox.outbox.event import Meta
from inngest_outbox.outbox.figures import Stats
from inngest_outbox.outbox.model import Dead, DeliveryRecord, Settlement, State
from inngest_outbox.outbox.sqlite.store import SqliteOutbox, open_sqlite_outbox
from inngest_outbox.runs.figures import NameView
from tests.support.outbox_command import outbox_command
from tests.support.storage import PATIENCE_SECONDS, claim, event
from tests.support.words import EVIL


@pytest.fixture
async def event_id(path: Path) -> AsyncIterator[str]:
    async with open_sqlite_outbox(path, max_pending=9, max_pending_per_user=9) as outbox:
        yield await evil_row(outbox)


async def evil_row(outbox: SqliteOutbox) -> str:
    """A dead row, a paused delivery and an audit entry whose words are all hostile."""
    one = event(f"u-{EVIL}", name=f"a{EVIL}")
    payload = msgspec.json.encode({"id": one.id, "data": {"appSettings": {EVIL: EVIL}}})
    meta = Meta(EVIL, EVIL)
    await outbox.intake.append(msgspec.structs.replace(one, payload=payload, meta=meta))
    batch = await claim(outbox)
    dead = [Dead(entry.seq, 3, EVIL, EVIL) for entry in batch.entries]
    await outbox.queue.settle(Settlement(batch.claim, dead=dead))
    where = {"destination": EVIL, "confirmation": EVIL}
    await outbox.delivery.save(DeliveryRecord("backing_off", EVIL, 1, 1, 5.0, 0, **where))
    await outbox.repairs.set_paused(paused=True, actor=EVIL, reason=EVIL)
    return one.id


async def prints(path: Path, *command: str) -> str:
    _, out, err = await outbox_command(path, *command)
    assert out + err, command
    return out


LOOKING = (["stats"], ["list"], ["check"], ["audit"], ["explain", f"a{EVIL}"])
RARE = (["stats", "--owners"], ["show", EVIL], ["replay", EVIL])
DRY = (["replay", "--all"], ["discard", "--all"])


async def test_no_command_prints_what_can_not_be_shown(path: Path, event_id: str) -> None:
    for form in ([], ["--json"]):
        for command in (*RARE, *LOOKING, *DRY, ["show", event_id], ["show", "--payload", event_id]):
            await prints(path, *command, *form)
    [row] = json.loads(await prints(path, "list", "--json"))
    shown = json.loads(await prints(path, "show", event_id, "--json"))
    assert row["name"] == shown["name"] == f"a{EVIL}"


@pytest.fixture
def root_logger(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Logs are configured for the whole process: put back what was there."""
    for name in ("enabled", "write"):
        monkeypatch.setattr(request_log, name, getattr(request_log, name))
    root, before = logging.getLogger(), structlog.get_config()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.configure(**before)


def written(
    folder: Path, format_name: str, write: Callable[[], object], *, level: str = "info"
) -> str:
    with (folder / "log").open("w+", encoding="utf-8", newline="") as stream:
        logs = configure_logs(level=level, format_name=format_name, stream=stream)
        write()
        logs.close()
        stream.seek(0)
        return stream.read()


@pytest.mark.usefixtures("root_logger")
@pytest.mark.parametrize("format_name", ["json", "console"])
def test_no_log_line_holds_what_can_not_be_shown(tmp_path: Path, format_name: str) -> None:
    def write() -> None:
        structlog.get_logger().warning("inngest_in_trouble", reason=EVIL)

    line = written(tmp_path, format_name, write)
    assert "inngest_in_trouble" in line
    assert line.removesuffix("\n").isprintable()
    assert format_name == "console" or json.loads(line)["reason"] == EVIL


@pytest.mark.usefixtures("root_logger")
@pytest.mark.faulty
def test_a_lookup_that_fails_when_nobody_waits_for_it_is_no_error(tmp_path: Path) -> None:
    faults = (
        (OSError(), "gaierror exception in shielded future"),
        (ValueError(), "ValueError exception in shielded future"),
        (OSError(), "Task exception was never retrieved"),
    )

    def write() -> None:
        for error, words in faults:
            logging.getLogger("asyncio").error(words, exc_info=error)

    lines = written(tmp_path, "json", write).splitlines()
    assert [json.loads(line)["event"] for line in lines] == [words for _, words in faults[1:]]


@pytest.mark.usefixtures("root_logger")
def test_a_warning_is_written_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inngest_outbox.observe.logs.FLUSH_SECONDS", 3600.0)
    flushed, flush = [], LogStream.flush
    monkeypatch.setattr(LogStream, "flush", lambda stream: flushed.append(flush(stream)))
    read_end, write_end = os.pipe()
    with os.fdopen(write_end, "w") as pipe, os.fdopen(read_end, "rb", buffering=0) as reader:
        logs = configure_logs(level="info", format_name="json", stream=pipe)
        structlog.get_logger().warning("loud")
        assert select.select([reader], [], [], PATIENCE_SECONDS)[0]
        events = [json.loads(line)["event"] for line in reader.read(10**6).splitlines()]
        structlog.get_logger().info("quiet")
        logs.close()
    assert events == ["loud"]
    assert len(flushed) == 1  # a thread is not woken for each line


def test_a_control_character_of_ascii_is_an_escape_in_json() -> None:
    assert escaped_json('"\x7f\x85"\n') == '"\\u007f\\u0085"\n'
    assert escaped_json('"\x7f"\n') == '"\\u007f"\n'
    assert escaped_json('"\U000e0041"') == '"\\udb40\\udc41"'  # an invisible A, as JSON has it


@pytest.mark.usefixtures("root_logger")
def test_a_line_leaves_out_what_is_not_known_and_keeps_the_order(tmp_path: Path) -> None:
    def write() -> None:
        structlog.get_logger().info("send", events=3, delivered=2, dead=None)

    line = written(tmp_path, "console", write)
    assert "dead" not in line
    assert line.index("send") < line.index("events=3") < line.index("delivered=2")
    fields = json.loads(written(tmp_path, "json", write))
    assert list(fields) == ["events", "delivered", "event", "level", "timestamp"]


@pytest.mark.usefixtures("root_logger")
def test_the_log_is_console_text_on_a_terminal_and_else_json() -> None:
    parent, child = os.openpty()
    with os.fdopen(child, "w") as terminal, os.fdopen(parent) as screen:
        logs = configure_logs(level="info", format_name="auto", stream=terminal)
        structlog.get_logger().info("send", events=3)
        logs.close()
        shown = screen.readline()
    read_end, write_end = os.pipe()
    with os.fdopen(write_end, "w") as pipe, os.fdopen(read_end) as reader:
        logs = configure_logs(level="info", format_name="auto", stream=pipe)
        structlog.get_logger().info("send", events=3)
        logs.close()
        piped = reader.readline()
    assert "\x1b[" in shown  # colours
    assert "{" not in shown
    assert json.loads(piped)["event"] == "send"


def figures(state: str, paused_by: str | None = None, dead: int = 0) -> StatsView:
    record = DeliveryRecord(state, "", 1, 0, 0.0, 0, paused_by=paused_by)
    size = 3 * 1024**3
    return stats_view(Stats(0, 0, 0, dead, None, None, record, size, None), serving=None)


COLOURED = (
    *zip(map(state_text, State), ("33", "36", "34", "32", "1;31"), strict=True),
    (delivery_text(figures("healthy")), "32"),
    (delivery_text(figures("recovering")), "33"),
    (delivery_text(figures("backing_off")), "1;31"),
    (delivery_text(figures("healthy", "ada")), "1;31"),
    (destination_text("fake"), "1;33"),
)


def test_a_terminal_has_colours_and_a_progress_bar_that_no_program_reads(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "97")
    monkeypatch.delenv("NO_COLOR", raising=False)

    def shown(end: bytes) -> str:
        found = b""
        while end not in found and select.select([screen], [], [], PATIENCE_SECONDS)[0]:
            found += screen.read(10**4)
        return found.decode()

    parent, child = os.openpty()
    with os.fdopen(child, "w") as terminal, os.fdopen(parent, "rb", buffering=0) as screen:
        monkeypatch.setattr(sys, "stderr", terminal)
        with progress_bar("copying") as progress:
            progress(1, 4)
        show_lines(state_text(State.DEAD))
        print("next", end="", file=terminal, flush=True)
        assert "copying" in (bar := shown(b"next"))
        assert "25%" in bar
        assert bar.endswith("\x1b[1A\x1b[2Knext")  # the bar is gone
        monkeypatch.setattr(sys, "stdout", terminal)
        for text, code in COLOURED:
            show_lines(text)
            assert shown(b"\r\n") == f"\x1b[{code}m{text.plain}\x1b[0m\r\n"
        for dead in (0, 7):  # no dead rows are no alarm
            show_lines(stats_table(figures("healthy", dead=dead)))
            stats = shown(b"MiB")
            red = re.findall(r"1;31m(\S*)", stats)
            assert red == (["7"] if dead else [])
            assert " 0 s " in stats
            assert " 3,072.0 MiB " in stats
        show_lines(names_table([NameView(name="a/b", expected=True, no_run_since=1)]))
        assert "1;31mmissing" in shown(b"missing")
        assert console().width == 97
    assert capsys.readouterr().out == "dead\n"


@pytest.mark.usefixtures("root_logger")
def test_lines_below_the_level_are_not_written(tmp_path: Path) -> None:
    levels = ["debug", "info", "warning", "error"]

    def write() -> None:
        for level in levels:
            getattr(structlog.get_logger(), level)("send")

    for least, level in enumerate(levels):
        lines = written(tmp_path, "json", write, level=level).splitlines()
        assert [json.loads(line)["level"] for line in lines] == levels[least:]
        assert request_log.enabled is (level in ("debug", "info"))


LINE = RequestLine("request", "info", "now", "r-1", "GET", "/a", 200, 1.5, event_id="e-1")


@pytest.mark.usefixtures("root_logger")
def test_a_request_is_one_line_for_programs_and_for_people(tmp_path: Path) -> None:
    def write() -> None:
        request_log.write(LINE)

    assert json.loads(written(tmp_path, "json", write)) == {
        "event": "request",
        "level": "info",
        "timestamp": "now",
        "request_id": "r-1",
        "method": "GET",
        "route": "/a",
        "status": 200,
        "ms": 1.5,
        "event_id": "e-1",
    }
    shown = written(tmp_path, "console", write)
    assert shown.count("\n") == 1
    assert shown.rstrip().endswith(
        "request_id=r-1 method=GET route=/a status=200 ms=1.5 event_id=e-1"
    )
    assert "now" not in shown  # the console has a time of its own


def fail_with_a_secret(event: str) -> None:
    secret = "secret".upper()
    try:
        getattr(secret, EVIL)
    except AttributeError:
        structlog.get_logger().exception(event)


def assert_is_traceback(lines: list[str]) -> None:
    """It has lines that can be shown, and not the variables."""
    assert "Traceback (most recent call last):" in lines
    assert "gnp.exe" in "".join(lines)
    assert all(line.isprintable() and "SECRET" not in line for line in lines)


@pytest.mark.usefixtures("root_logger")
def test_a_fault_has_its_traceback_and_libraries_warnings_are_in_the_log(tmp_path: Path) -> None:
    def write() -> None:
        fail_with_a_secret("request_failed")
        logging.getLogger("library").info("quiet")
        logging.getLogger("library").warning("loud")

    first, loud = map(json.loads, written(tmp_path, "json", write).splitlines())
    assert "Traceback" in first["exception"]
    assert (loud["event"], loud["level"]) == ("loud", "warning")
    *fault, loud = written(tmp_path, "console", write).splitlines()
    assert_is_traceback(fault)
    assert " ".join(loud.split()[1:]) == "[warning ] loud"


@pytest.mark.usefixtures("root_logger")
def test_a_command_logs_on_standard_error_and_leaves_its_own_faults_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    own = ("database_lost", "database_still_lost", "database_back", "statement_failed")

    def command(**_: object) -> None:
        for fault in ("file_check_incomplete", *own):
            structlog.get_logger().warning(fault)
        fail_with_a_secret("task_failed")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(script, "app", command)
    script.main()
    said = capsys.readouterr()
    assert (said.out, "file_check_incomplete" in said.err) == ("", True)
    assert not any(fault in said.err for fault in own)
    assert_is_traceback(said.err.splitlines())

    def failing(**_: object) -> None:
        raise RuntimeError("not\x1b foreseen")

    monkeypatch.setattr(script, "app", failing)
    with pytest.raises(SystemExit, match="2"):
        script.main()
    assert capsys.readouterr().err.endswith("RuntimeError: not\ufffd foreseen\n")


def test_the_lines_before_a_crash_are_written() -> None:
    crash = """
import structlog
from inngest_outbox.observe.logs import configure_logs
configure_logs(level="info", format_name="json")
structlog.get_logger().info("last_words")
raise RuntimeError
"""
    done = subprocess.run(
        [sys.executable, "-c", crash], capture_output=True, text=True, check=False
    )
    assert '"event":"last_words"' in done.stderr
