"""Histories of an outbox: several lives of a service, each of which is killed, and their checks.

One seed draws one history: who does what, how many calls each life has, when connections are cut.
Time is real, so a seed repeats what is asked, not the order in which it is answered.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import random
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import psycopg

from inngest_outbox.config.outbox_url import sqlite_path
from tests.support.linearizability import service_process
from tests.support.linearizability.check import Linearization
from tests.support.linearizability.record import Call, Recorder, complete, read_calls

LIFE_CALLS = (30, 200)
MOST_LIFE_SECONDS = 20.0
START_SECONDS = 300.0
SQLITE_ROWS = """
SELECT o.event_id, p.state, o.seq FROM outbox AS o JOIN outbox_rows AS p ON p.seq = o.seq
"""
POSTGRES_ROWS = "SELECT event_id, state, seq FROM outbox.rows"
SQLITE_PAUSED = "SELECT paused_by IS NOT NULL FROM outbox_delivery"
POSTGRES_PAUSED = "SELECT paused_by IS NOT NULL FROM outbox.delivery"
# The events under each claim.
SQLITE_CLAIMS = """
SELECT json_group_array(event_id) FROM outbox_claims JOIN outbox USING (seq) GROUP BY claim
"""
POSTGRES_CLAIMS = """
SELECT json_agg(event_id)::text
FROM outbox.claims AS c JOIN outbox.events AS o ON o.seq = ANY(c.seqs)
GROUP BY c.claim
"""
OTHERS = """
SELECT pid FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
ORDER BY pid
"""
_MOURNING_SECONDS = 0.1  # in which a front may answer for a store that is dead
_FORK = multiprocessing.get_context("fork")


class Trial:
    """One history of the outbox at `url`, with its files in `folder`."""

    def __init__(self, url: str, folder: Path, seed: int) -> None:
        self._url = url
        self._folder = folder
        self._seed = seed
        self._chance = random.Random(seed)
        self._log = folder / "calls"
        self._recorder = Recorder(self._log, "tables")
        self._is_sqlite = sqlite_path(url) is not None

    def run(self, lives: int) -> list[Call]:
        """Live through it; the calls in their order."""
        for number in range(lives):
            self._live(number)
            self._recorder.note("truth", self._truth())
        last = _started(service_process.end, self._url, self._log, "last")
        last.join(START_SECONDS)
        last.kill()
        if last.exitcode != 0:
            raise RuntimeError("the last process did not deliver what waited, or counts wrongly")
        calls = read_calls(self._log)
        complete(calls)
        return calls

    def check(self, calls: list[Call]) -> None:
        """Raises NotLinearizableError."""
        Linearization(calls, recovers=self._is_sqlite).check()

    def _live(self, number: int) -> None:
        name, seed = f"service{number}", f"{self._seed} {number}"
        ready, front_ready = self._folder / name, self._folder / f"front{number}"
        processes = [_started(service_process.serve, self._url, self._log, name, seed, ready)]
        try:
            _wait_for(ready.exists)
            name = f"terminal{number}"
            processes.append(
                _started(service_process.look, self._url, self._log, name, f"{seed} t")
            )
            if self._is_sqlite:
                processes.append(
                    _started(
                        service_process.front,
                        self._url,
                        self._log,
                        f"front{number}",
                        f"{seed} f",
                        front_ready,
                    )
                )
                _wait_for(front_ready.exists)
            self._wait()
            assert all(one.is_alive() for one in processes), "a process has ended"
        finally:
            for one in processes:
                one.kill()
                one.join()
                time.sleep(_MOURNING_SECONDS * self._is_sqlite)

    def _wait(self) -> None:
        """A life, by its calls. On PostgreSQL connections are cut in it, now and then."""
        calls = self._chance.randrange(*LIFE_CALLS)
        self._wait_for_calls(calls // 2)
        if not self._is_sqlite and self._chance.random() < 0.5:
            with self._tables() as tables:
                others = tables.execute(OTHERS).fetchall()
                for (pid,) in others[: 1 + self._chance.randrange(3)]:
                    tables.execute(f"SELECT pg_terminate_backend({pid})")
        self._wait_for_calls(calls - calls // 2)

    def _wait_for_calls(self, count: int) -> None:
        """Wait until about so many more calls were answered, but not for ever."""
        until = time.monotonic() + MOST_LIFE_SECONDS
        lines = self._log.read_bytes().count(b"\n") + 2 * count
        while self._log.read_bytes().count(b"\n") < lines and time.monotonic() < until:
            time.sleep(0.01)

    def _truth(self) -> dict[str, Any]:
        """What the tables hold when no process is left that could change them."""
        with self._tables() as tables:
            if not self._is_sqlite:
                _wait_for(lambda: not tables.execute(OTHERS).fetchall())
            rows = tables.execute(SQLITE_ROWS if self._is_sqlite else POSTGRES_ROWS).fetchall()
            [(paused,)] = tables.execute(
                SQLITE_PAUSED if self._is_sqlite else POSTGRES_PAUSED
            ).fetchall()
            claims = tables.execute(SQLITE_CLAIMS if self._is_sqlite else POSTGRES_CLAIMS)
            held = [json.loads(ids) for (ids,) in claims.fetchall()]
        return {"rows": rows, "paused": bool(paused), "claims": held}

    @contextlib.contextmanager
    def _tables(self) -> Iterator[Any]:
        path = sqlite_path(self._url)
        if path is None:
            with psycopg.connect(self._url, autocommit=True) as connection:
                yield connection
        else:
            # A connection that may write would copy the log of a killed process, and remove it.
            address = f"file:{path}?mode=ro"
            with contextlib.closing(sqlite3.connect(address, uri=True)) as connection:
                yield connection


def _started(work: Callable[..., None], *given: object) -> BaseProcess:
    process = _FORK.Process(target=work, args=given)
    process.start()
    return process


def _wait_for(reached: Callable[[], object]) -> None:
    until = time.monotonic() + START_SECONDS
    while not reached():
        assert time.monotonic() < until, "it never came"
        time.sleep(0.01)


@contextlib.contextmanager
def new_trial(url: str, seed: int) -> Iterator[Trial]:
    """A trial in a folder of its own; an empty `url` is an SQLite outbox in it."""
    with tempfile.TemporaryDirectory(prefix="calls-of-an-outbox-") as folder:
        yield Trial(url or f"sqlite:///{folder}/outbox.db", Path(folder), seed)
