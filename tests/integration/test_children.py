"""A child and its parent: what each says to the other and of it, and its start."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import psutil
import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from inngest_outbox.config.settings import Settings
from inngest_outbox.errors import ConfigurationError, OutboxUnavailableError
from inngest_outbox.observe.logs import LogStream
from inngest_outbox.observe.metrics import SHARED_FOLDER, forget_gauges, shared_registry
from inngest_outbox.outbox.link.socket_folder import STORE, listen_in
from inngest_outbox.outbox.link.store_link import open_link
from inngest_outbox.processes.banner import Announcer
from inngest_outbox.processes.child_process import (
    READY,
    WAITS,
    Child,
    ChildProcess,
    comes_first,
    lifeline,
    tell_fault,
)
from inngest_outbox.processes.child_supervisor import ChildSupervisor, SupervisorPolicy
from inngest_outbox.processes.parent import _greet
from inngest_outbox.processes.startup import (
    allow_many_connections,
    exit_on_fault,
    on_hangup,
    stop_on_signals,
)
from tests.support.fleet import ROOT, environment
from tests.support.raw_http import connected
from tests.support.storage import PATIENCE_SECONDS, eventually
from tests.support.virtual_time import in_virtual_time

TELLS = """
import sys
from inngest_outbox.processes.child_process import tell_fault
tell_fault(int(sys.argv[-1].partition("=")[2]), "x" + "é" * 4096 + "wr")
"""
SIGNALLED = """
import asyncio, os, signal, structlog
from inngest_outbox.observe.logs import configure_logs
from inngest_outbox.processes.startup import stop_on_signals
async def main():
    stop_on_signals(configure_logs(level="info", format_name="json"))
    structlog.get_logger().info("last_words")
    for _ in range(2):
        os.kill(os.getpid(), signal.SIGINT)
    await asyncio.Event().wait()
asyncio.run(main())
"""
RECORDS = """
import sys
from inngest_outbox.observe.metrics import PrometheusRecorder
recorder = PrometheusRecorder()
recorder.count("task_restarts", task="relay")
for name in ("event_loop_lag_seconds", "oldest_pending_seconds"):
    recorder.gauge(name, float(sys.argv[1]))
print(flush=True)
sys.stdin.read()
"""
LINGERS = """
import functools
from inngest_outbox.processes import acceptor, front_process, main
front_process._LINGER_SECONDS = 3600.0  # longer than any patience, and so are idle connections
acceptor.ServerPolicy = functools.partial(acceptor.ServerPolicy, keep_alive_seconds=3600.0)
main.main()
"""


async def test_of_a_child_that_could_not_be_started_it_is_said_why(tmp_path: Path) -> None:
    said: asyncio.Queue[str] = asyncio.Queue()
    child = Child("Front process 1", [str(tmp_path / "absent")], ())
    supervisor = ChildSupervisor(child, SupervisorPolicy({}, said.put_nowait, lambda _: None))
    supervisor.start()
    async with asyncio.timeout(PATIENCE_SECONDS):
        sentence = await said.get()
        supervisor.stop()
        assert await supervisor.ended() == 0
    assert sentence.startswith("Front process 1 could not be started (")
    assert "No such file" in sentence
    assert sentence.endswith("): starting it again.")


async def test_a_long_fault_is_cut_between_characters() -> None:
    child = Child("Front process 1", [sys.executable, "-c", TELLS], ())
    said: list[bytes] = []
    process = await ChildProcess.start(child, os.environ, said.append)
    assert os.getsid(process.pid) == process.pid  # Ctrl-C does not reach it
    async with asyncio.timeout(PATIENCE_SECONDS):
        assert await process.ended() == 0
    process.signal(signal.SIGTERM)  # none is left, nor for these
    process.go()
    process.hand_over()
    assert (process.fault, said) == ("x" + "é" * 2047, [])


class Ended:
    """A process that was killed."""

    pid = 1

    async def wait(self) -> int:
        return -9


async def test_what_a_child_said_before_its_end_is_heard_after_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another process that has its line is not waited for."""
    for seconds, fault in ((PATIENCE_SECONDS, "no room"), (0, None)):
        monkeypatch.setattr("inngest_outbox.processes.child_process._LAST_WORDS_SECONDS", seconds)
        parent, child = socket.socketpair()
        parent.settimeout(0)
        with child:
            if fault:
                tell_fault(child.fileno(), fault)
                child.shutdown(socket.SHUT_WR)
            ended = cast("asyncio.subprocess.Process", Ended())
            process = ChildProcess(ended, parent, lambda _: None)
            async with asyncio.timeout(PATIENCE_SECONDS):
                assert (await process.ended(), process.fault) == (-9, fault)


def test_processes_that_share_a_folder_have_the_sums_the_latest_figures_and_the_worst_lag(
    tmp_path: Path,
) -> None:
    def figures() -> dict[str, float]:
        text = generate_latest(shared_registry(str(tmp_path))).decode()
        families = text_string_to_metric_families(text)
        return {one.name: one.value for family in families for one in family.samples if one.value}

    given = {"env": {**os.environ, SHARED_FOLDER: str(tmp_path)}, "stdin": -1, "stdout": -1}
    with contextlib.ExitStack() as stack:
        pids = []
        for seconds in ("3", "1"):
            command = [sys.executable, "-c", RECORDS, seconds]
            process = stack.enter_context(subprocess.Popen(command, **given))  # type: ignore[call-overload]
            assert process.stdout.read(1)
            pids.append(process.pid)
        found, at_work = figures(), [psutil.Process(pid) for pid in pids]
        for name in ("process_cpu_seconds_total", "process_resident_memory_bytes"):
            assert found.pop(name) > 0
        shared = {"outbox_task_restarts_total": 2, "outbox_oldest_pending_seconds": 1}
        assert found == {
            **shared,
            "outbox_event_loop_lag_seconds": 3,
            "process_open_fds": sum(one.num_fds() for one in at_work),
            "process_virtual_memory_bytes": sum(one.memory_info().vms for one in at_work),
        }
        forget_gauges(pids[0], str(tmp_path))
        found = {name: one for name, one in figures().items() if name.startswith("outbox")}
        assert found == {**shared, "outbox_event_loop_lag_seconds": 1}


def test_a_second_signal_ends_a_process_at_once_with_what_it_has_logged() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SIGNALLED], capture_output=True, text=True, check=False
    )
    assert done.returncode == 130
    assert '"event":"last_words"' in done.stderr


async def many_turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_child_hands_over_also_when_it_was_asked_before_it_was_ready() -> None:
    parent, child = socket.socketpair()
    stop, gone = asyncio.Event(), asyncio.Event()
    with parent, child:
        async with lifeline(child.fileno(), gone.set) as line, asyncio.timeout(PATIENCE_SECONDS):
            parent.send(b"h")
            line.ready()
            await line.hand_over(stop)
            parent.send(b"g")
            assert await line.may_go(stop)
            again = asyncio.create_task(line.hand_over(stop))  # the word before was used
            await many_turns()
            assert not again.done()
            parent.send(b"h")
            await again
            waiting = asyncio.create_task(line.may_go(stop))  # so was this one
            parent.send(b"h")  # asks for nothing that is here
            await many_turns()
            assert not waiting.done()
            parent.send(b"g")
            assert await waiting
            for turns in range(4):  # at the same time as the stop
                waiting = asyncio.create_task(line.may_go(stop))
                await many_turns()
                parent.send(b"g")
                for _ in range(turns):
                    await asyncio.sleep(0)
                stop.set()
                assert not await waiting
                stop.clear()
            parent.close()  # with words that it has not read, as a parent that is killed
            await gone.wait()
            line.ready()  # to nobody
    await many_turns()
    assert asyncio.all_tasks() == {asyncio.current_task()}  # none waits for `stop`
    stop.set()
    assert not await line.may_go(stop)
    assert await comes_first(asyncio.sleep(0), asyncio.sleep(0))  # at the same time


class Served:
    """A child that serves on `listening`, started where few files may be open."""

    def __init__(self, process: ChildProcess, said: asyncio.Queue[bytes]) -> None:
        self.process, self.said = process, said

    def may_open_many_files(self) -> bool:
        soft, hard = resource.prlimit(self.process.pid, resource.RLIMIT_NOFILE)
        return soft == min(hard, 65_536)


@contextlib.asynccontextmanager
async def child(
    outbox: Path,
    listening: socket.socket,
    *options: str,
    program: tuple[str, str] = ("-m", "inngest_outbox"),
) -> AsyncIterator[Served]:
    said: asyncio.Queue[bytes] = asyncio.Queue()
    command = [sys.executable, *program, "serve", *options]
    handle = listening.fileno()
    told = environment(f"sqlite:///{outbox}", "http://127.0.0.1:1", PYTHONPATH=str(ROOT))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 1024), hard))
    try:
        process = await ChildProcess.start(
            Child("child", [*command, f"--listen-fd={handle}"], [handle]), told, said.put_nowait
        )
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    try:
        yield Served(process, said)
    finally:
        process.signal(signal.SIGKILL)
        await process.ended()


@pytest.mark.parametrize(
    ("soft", "hard", "wanted"),
    [
        (1024, 4096, 4096),
        (1024, 10**6, 65_536),
        (1024, resource.RLIM_INFINITY, 65_536),
        (65_537, 10**6, 65_537),
        (65_537, resource.RLIM_INFINITY, 65_537),
        (10**6, 10**6, 10**6),
    ],
)
def test_65_536_files_are_asked_for_or_all_that_may_be_and_what_is_refused_is_no_error(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, wanted: int
) -> None:
    asked: list[tuple[int, int]] = []

    def refuse(_: int, limits: tuple[int, int]) -> None:
        asked.append(limits)
        raise OSError if hard == 4096 else ValueError

    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    allow_many_connections()
    assert asked == [(wanted, hard)]


async def test_one_process_may_open_many_files(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        async with child(tmp_path / "outbox.db", unused) as one:
            await eventually(one.may_open_many_files)


async def test_a_store_process_accepts_the_loss_of_its_log_at_its_first_start_alone(
    tmp_path: Path, short_path: Path
) -> None:
    outbox = tmp_path / "outbox.db"
    with listen_in(short_path, STORE) as listening:
        async with (
            child(outbox, listening, "--store", "--accept-loss") as store,
            asyncio.timeout(PATIENCE_SECONDS),
        ):
            assert await store.said.get() == READY
            assert store.may_open_many_files()
            async with open_link(str(short_path / STORE)) as link:
                known = link.status.inngest
            assert known
            assert known.event_api_origin == "http://127.0.0.1:1"  # which fronts need not find out
            shutil.copy(outbox, tmp_path / "copy")
            store.process.hand_over()
            assert await store.said.get() == WAITS
            shutil.copy(tmp_path / "copy", outbox)
            store.process.go()
            assert await store.process.ended() == 2
            assert "without its log" in str(store.process.fault)


async def test_a_store_process_takes_back_an_outbox_that_can_not_be_written(
    tmp_path: Path, short_path: Path
) -> None:
    """Else no version would serve; it takes none over that is so."""
    with listen_in(short_path, STORE) as listening:
        async with (
            child(tmp_path / "outbox.db", listening, "--store", "--take-over") as store,
            asyncio.timeout(PATIENCE_SECONDS),
        ):
            assert await store.said.get() == WAITS
            store.process.go()
            assert await store.said.get() == READY
            store.process.hand_over()
            assert await store.said.get() == WAITS
            _, hard = resource.prlimit(store.process.pid, resource.RLIMIT_FSIZE)
            resource.prlimit(store.process.pid, resource.RLIMIT_FSIZE, (1, hard))
            store.process.go()
            assert await store.said.get() == READY


async def test_a_stop_does_not_wait_for_clients_that_a_replaced_front_leaves_time(
    tmp_path: Path,
) -> None:
    """A front without a store is replaced, and stopped while it has a client."""
    async with contextlib.AsyncExitStack() as stack, asyncio.timeout(PATIENCE_SECONDS):
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        options = ("--store-socket", str(tmp_path / "none"))
        opening = child(tmp_path, listening, *options, program=("-c", LINGERS))
        front = await stack.enter_async_context(opening)
        assert await front.said.get() == READY
        assert front.may_open_many_files()
        port = listening.getsockname()[1]
        await stack.enter_async_context(connected(port))
        used = await stack.enter_async_context(connected(port))
        front.process.hand_over()
        while not await is_last_answer(*used):
            pass
        front.process.signal(signal.SIGTERM)
        assert await front.process.ended() == 0


async def is_last_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: here\r\n\r\n")
    head = await reader.readuntil(b"\r\n\r\n")
    await reader.readuntil(b"}")
    return b"\r\nConnection: close\r\n" in head


@in_virtual_time
async def test_where_the_store_process_does_not_answer_the_parent_says_where_it_listens(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    announcer = Announcer(as_json=False)
    await _greet(announcer, Settings.load({}), "http://x", "Listening on x", tmp_path / "none")
    assert capfd.readouterr().out == "Listening on x\n"


@pytest.mark.parametrize(
    ("error", "code", "sentences"),
    [
        (ConfigurationError(["HOST: no", "PORT: no"]), 2, ["HOST: no", "PORT: no"]),
        (OutboxUnavailableError("The disk\x1b is full."), 2, ["The disk\ufffd is full."]),
        (OSError(98, "in use"), 1, ["can't start: [Errno 98] in use"]),
        (BrokenPipeError(32, "no reader"), 1, ["can't start: [Errno 32] no reader"]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_start_that_fails_says_why_here_and_to_its_parent(
    error: Exception, code: int, sentences: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    said = [f"configuration: {one}" for one in sentences] if len(sentences) > 1 else sentences
    told: list[str] = []
    with pytest.raises(SystemExit) as end, exit_on_fault(told.append):
        raise error
    assert end.value.code == code
    assert told == ["; ".join(said)]
    assert capsys.readouterr().err.splitlines() == said


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stdin", "before", "then"),
    [
        (Terminal(), signal.SIG_DFL, ["stop"]),
        (Terminal(), signal.SIG_IGN, []),  # by nohup
        (io.StringIO(), signal.SIG_DFL, ["upgrade", "upgrade"]),
    ],
)
async def test_a_hangup_asks_for_a_stop_at_a_terminal_and_else_for_an_upgrade(
    monkeypatch: pytest.MonkeyPatch,
    stdin: io.StringIO,
    before: signal.Handlers,
    then: list[str],
) -> None:
    heard: list[str] = []
    loop = asyncio.get_running_loop()
    monkeypatch.setattr("sys.stdin", stdin)
    was = signal.signal(signal.SIGHUP, before)
    try:
        stop = stop_on_signals(cast("LogStream", None))
        on_hangup(lambda: heard.append("upgrade"))
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGHUP)
            await many_turns()
        assert heard + ["stop"] * stop.is_set() == then
    finally:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.remove_signal_handler(number)
        signal.signal(signal.SIGHUP, was)
