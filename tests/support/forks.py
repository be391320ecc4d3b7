"""A plugin of pytest: files of tests side by side, in processes forked once all are collected.

`pytest -p tests.support.forks --forks COUNT`. Collecting takes seconds, and each process of
pytest-xdist does it again. A process takes its next file before the last test of the one it has.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
from collections.abc import Iterator
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from pathlib import Path

import pytest

_FORK = multiprocessing.get_context("fork")
_INDEX_BYTES = 2


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--forks", type=int, required=True, metavar="COUNT")


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Print results without the names of files, whose tests come in turns."""
    config.pluginmanager.get_plugin("terminalreporter").showfspath = False


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    if session.testsfailed or session.config.option.collectonly:
        return None
    session.config._tmp_path_factory.getbasetemp()  # one of all processes
    files = _Files(session.items)
    processes: dict[Connection, ForkProcess] = {}
    try:
        for _ in range(session.config.getoption("--forks")):
            told, tells = _FORK.Pipe(duplex=False)
            processes[told] = _FORK.Process(target=_run, args=(session, files, tells))
            processes[told].start()
            tells.close()
        _report(session, list(processes))
    finally:
        for process in processes.values():
            if process.is_alive() and process.pid:
                os.kill(process.pid, signal.SIGINT)
            process.join()
    return True


class _Files:
    """The tests of the files that no process has taken yet: their indices wait in a pipe."""

    def __init__(self, items: list[pytest.Item]) -> None:
        by_file: dict[Path, list[pytest.Item]] = {}
        for item in items:
            by_file.setdefault(item.path, []).append(item)
        self._files = list(by_file.values())
        self._indices, writes = os.pipe()
        with os.fdopen(writes, "wb") as end:
            end.writelines(index.to_bytes(_INDEX_BYTES) for index in range(len(self._files)))

    def take(self) -> Iterator[pytest.Item]:
        while index := os.read(self._indices, _INDEX_BYTES):
            yield from self._files[int.from_bytes(index)]


class _Teller:
    """Sends what became of a test to the process that prints it."""

    def __init__(self, config: pytest.Config, tells: Connection) -> None:
        self._config = config
        self._tells = tells

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        hook = self._config.hook
        self._tells.send(hook.pytest_report_to_serializable(config=self._config, report=report))


def _run(session: pytest.Session, files: _Files, tells: Connection) -> None:
    plugins = session.config.pluginmanager
    plugins.unregister(name="terminalreporter")
    plugins.register(_Teller(session.config, tells))
    capture = plugins.get_plugin("capturemanager")
    capture.stop_global_capturing()  # into files that all processes would write
    capture.start_global_capturing()
    random.seed()
    tests = files.take()
    test = next(tests, None)
    try:
        while test:
            following = next(tests, None)
            session.config.hook.pytest_runtest_protocol(item=test, nextitem=following)
            test = following
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        session._setupstate.teardown_exact(None)
    finally:
        capture.stop_global_capturing()


def _report(session: pytest.Session, told: list[Connection]) -> None:
    """Print what the processes tell. What none has told by the end has failed."""
    hook = session.config.hook
    missing = {item.nodeid: item.location for item in session.items}
    while told:
        for one in wait(told):
            try:
                data = one.recv()
            except EOFError:
                told.remove(one)
                continue
            report = hook.pytest_report_from_serializable(config=session.config, data=data)
            hook.pytest_runtest_logreport(report=report)
            if report.when == "teardown":
                del missing[report.nodeid]
        if session.shouldfail:
            raise session.Failed(session.shouldfail)
    for test, location in missing.items():
        why = "The process that had taken this file ended before this test did."
        hook.pytest_runtest_logreport(
            report=pytest.TestReport(test, location, {}, "failed", why, "call")
        )
