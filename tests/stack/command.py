"""Commands of the machine, and what the trial says while it waits for them."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
_started = time.monotonic()


class StackError(Exception):
    """The stack, or the machine under it, didn't do what it promises."""


def say(sentence: str) -> None:
    """One line with the seconds since the start."""
    sys.stdout.write(f"[{time.monotonic() - _started:5.0f} s] {sentence}\n")
    sys.stdout.flush()


def run(
    *command: str,
    check: bool = True,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float = 900,
    stdin: bytes | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run to the end; raise StackError with the command's last words when it fails."""
    done = subprocess.run(
        command,
        env=env,
        cwd=cwd,
        timeout=timeout,
        input=stdin.decode() if stdin else None,
        capture_output=True,
        text=True,
        check=False,
    )
    if check and done.returncode:
        words = (done.stderr or done.stdout).strip().splitlines()[-20:]
        raise StackError(f"{' '.join(command)}: exit {done.returncode}\n" + "\n".join(words))
    return done


def until(
    look: Callable[[], T],
    wanted: Callable[[T], bool] = bool,
    *,
    seconds: float,
    words: Callable[[T], str],
) -> T:
    """What `look` finds once it is as wanted; raises StackError with `words` after the seconds."""
    deadline = time.monotonic() + seconds
    while not wanted(found := look()):
        if time.monotonic() > deadline:
            raise StackError(words(found))
        time.sleep(0.2)
    return found
