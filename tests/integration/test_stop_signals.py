"""Signals that ask a process to stop while its program is about to be replaced."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.fleet import environment

# A program that becomes the next one. `early` comes before its last look, `late` after it.
TWO_PROGRAMS = """
import asyncio, os, signal, sys, uvloop
from service.processes.signals import may_continue, stop_on_signals
from service.observe.log_stream import LogStream

async def first(early, late):
    logs = LogStream(1)
    stop = stop_on_signals(logs)
    await asyncio.to_thread(print, "at work", flush=True)
    if early:
        os.kill(os.getpid(), early)
    logs.close()
    continues = await may_continue(stop)
    while len(os.listdir("/proc/self/task")) > 1:  # a joined thread may live a moment longer
        await asyncio.sleep(0.01)
    if late:
        os.kill(os.getpid(), late)
    return continues

async def following():
    async with asyncio.timeout(30):
        await stop_on_signals(LogStream(1)).wait()

program, *numbers = sys.argv[1:]
if program == "following":
    uvloop.run(following())
    print("the next program stops", flush=True)
elif uvloop.run(first(*map(int, numbers))):
    os.execv(sys.executable, [*sys.orig_argv[:3], "following"])
else:
    print("the first program stops", flush=True)
"""

# A service whose new version has the outbox open when the stop comes.
SERVE = """
import os, signal, uvloop
from service.processes import serve
from service.processes.listening import open_listening
from service.config.settings import Settings
from service.observe.logs import configure_logs

class Successor:
    def __init__(self, stop, say):
        pass
    async def comes(self):
        return True
    async def takes_over(self):
        os.kill(os.getpid(), signal.SIGTERM)
        return True
    async def replace(self):
        pass

serve.Successor = Successor
with open_listening("127.0.0.1", 0) as listening:
    logs = configure_logs(level="info", format_name="json")
    is_replaced = uvloop.run(serve.serve(Settings.load(os.environ), logs, listening))
print("replaced" if is_replaced else "stopped")
"""


def run(
    script: str, *arguments: object, within: tuple[str, ...] = (), **variables: str
) -> tuple[int, str]:
    """The exit status of a script in a process of its own, and its last line.

    `within` is the command that starts it.
    """
    command = [*within, sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(
        command, env=variables or None, stdout=subprocess.PIPE, text=True, timeout=60, check=False
    )
    return done.returncode, done.stdout.splitlines()[-1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_before_the_last_look_stops_the_program_and_a_later_one_its_next(
    number: int,
) -> None:
    assert run(TWO_PROGRAMS, "first", number, 0) == (0, "the first program stops")
    assert run(TWO_PROGRAMS, "first", 0, number) == (0, "the next program stops")


@pytest.mark.skipif(os.geteuid() != 0, reason="making a process 1 needs root")
def test_a_stop_of_process_1_is_not_lost_between_two_programs() -> None:
    alone = ("unshare", "--pid", "--fork", "--kill-child")
    done = run(TWO_PROGRAMS, "first", 0, signal.SIGTERM, within=alone)
    assert done == (0, "the next program stops")


def test_a_stop_while_the_new_version_has_the_outbox_open_ends_the_service(tmp_path: Path) -> None:
    settings = environment(f"sqlite:///{tmp_path / 'outbox.db'}", "http://127.0.0.1:1")
    assert run(SERVE, **settings) == (0, "stopped")
