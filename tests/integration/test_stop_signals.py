"""Signals that ask a process to stop while its program is about to be replaced."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.fleet import environment

LAST_LOOK = """
import asyncio, os, signal, sys, uvloop
from service.cli.signals import may_continue, stop_on_signals
from service.observe.log_stream import LogStream

async def main(early, late):
    stop = stop_on_signals(LogStream(1))
    if early:
        os.kill(os.getpid(), early)
    print(await may_continue(stop), flush=True)
    if late:
        os.kill(os.getpid(), late)

uvloop.run(main(*map(int, sys.argv[1:])))
"""

# A service whose new version has the outbox open when the stop comes.
SERVE = """
import os, signal, uvloop
from service.cli import serve
from service.cli.listening import open_listening
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


def run(script: str, *arguments: int, **variables: str) -> tuple[int, str]:
    """The exit status of a script in a process of its own, and its last line."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(
        command, env=variables or None, stdout=subprocess.PIPE, text=True, timeout=60, check=False
    )
    return done.returncode, done.stdout.splitlines()[-1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_before_the_last_look_is_seen_and_a_later_one_ends_the_process(number: int) -> None:
    assert run(LAST_LOOK, number, 0) == (0, "False")
    assert run(LAST_LOOK, 0, number) == (-number, "True")


def test_a_stop_while_the_new_version_has_the_outbox_open_ends_the_service(tmp_path: Path) -> None:
    settings = environment(f"sqlite:///{tmp_path / 'outbox.db'}", "http://127.0.0.1:1")
    assert run(SERVE, **settings) == (0, "stopped")
