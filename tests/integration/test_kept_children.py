"""What is said of a child that could not be started, or that told why it ends."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from service.processes.child_process import Child, ChildProcess
from service.processes.child_supervisor import ChildSupervisor, SupervisorPolicy

TELLS = """
import sys
from service.processes.child_process import tell_fault
tell_fault(int(sys.argv[-1].partition("=")[2]), "x" + "é" * 4096)
"""


async def test_of_a_child_that_could_not_be_started_it_is_said_why(tmp_path: Path) -> None:
    said: asyncio.Queue[str] = asyncio.Queue()
    child = Child("Front process 1", [str(tmp_path / "absent")], ())
    supervisor = ChildSupervisor(child, SupervisorPolicy({}, said.put_nowait, lambda _: None))
    supervisor.start()
    async with asyncio.timeout(10):
        sentence = await said.get()
        supervisor.stop()
        assert await supervisor.ended() == 0
    assert sentence.startswith("Front process 1 could not be started (")
    assert "No such file" in sentence
    assert sentence.endswith("): starting it again.")


async def test_a_long_fault_is_cut_between_characters() -> None:
    child = Child("Front process 1", [sys.executable, "-c", TELLS], ())
    process = await ChildProcess.start(child, os.environ, lambda _: None)
    async with asyncio.timeout(60):
        assert await process.ended() == 0
    assert process.fault == "x" + "é" * 2047
