"""The systemd units on a machine of its own: start, restart, upgrade, watchdog, stop, a fault."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.stack.command import run, until
from tests.stack.pinned_images import ROOT
from tests.stack.table import Table

MACHINE = "outbox-stack-machine"
UNIT = "inngest-outbox"
LIMIT_SECONDS = 90
WATCHDOG = (
    f"mkdir -p /run/systemd/system/{UNIT}.service.d;"
    f"printf '[Service]\\nWatchdogSec=5\\n' >/run/systemd/system/{UNIT}.service.d/soon.conf;"
    f"systemctl daemon-reload; systemctl restart {UNIT}"
)
_COMMAND = (
    f"cd /var/lib/{UNIT} && runuser -u {UNIT} -- "
    f"env OUTBOX_URL=sqlite:////var/lib/{UNIT}/outbox.db "
    f"/opt/{UNIT}/bin/python -m inngest_outbox.console.commands.main"
)
BY_HAND = f"{_COMMAND} pause && {_COMMAND} resume"
UPGRADE = f"{_COMMAND} upgrade"
FAULTY = f"sed -i /SESSION_SECRET/d /etc/inngest-outbox/environment; systemctl restart {UNIT}"

# Asks on a new connection each time, until a file appears; prints how many asked and were refused.
ASK = """
import pathlib, urllib.request
asked = refused = 0
while not pathlib.Path("/tmp/enough").exists():
    asked += 1
    try:
        urllib.request.urlopen("http://127.0.0.1:3000/healthz", timeout=60).read()
    except OSError:
        refused += 1
print(asked, refused)
"""
ONE, TWO = "WEB_CONCURRENCY=1", "WEB_CONCURRENCY=2"


def run_by_systemd(table: Table, base: str) -> None:
    """Boot a container of `base` with systemd and try the unit in it."""
    dockerfile = str(Path(__file__).parent / "machine" / "Dockerfile")
    chosen = ("--file", dockerfile, "--build-arg", f"BASE={base}", "--tag", MACHINE)
    run("docker", "build", "--quiet", *chosen, str(ROOT / "deploy" / "systemd"))
    options = ("--privileged", "--cgroupns=private", "--tmpfs=/run", "--tmpfs=/tmp")
    run("docker", "run", "--detach", "--name", MACHINE, *options, MACHINE)
    try:
        _try_unit(table)
    finally:
        run("docker", "rm", "--force", "--volumes", MACHINE)


def _try_unit(table: Table) -> None:
    found = _once({"ActiveState": "active"})
    table.add("systemd: started", found["StatusText"], good="Listening" in found["StatusText"])
    for processes in (ONE, TWO):
        _refuse_nobody(table, processes)
    said = _inside("sh", "-c", BY_HAND).splitlines()[-1]
    table.add("systemd: commands by hand", said, good=said == "Delivery is resumed.")
    _inside("sh", "-c", WATCHDOG)
    before = _once({"ActiveState": "active"})
    began = time.monotonic()
    _inside("systemctl", "kill", "--signal=STOP", "--kill-whom=main", UNIT)
    _once({"ActiveState": "active"}, other_pid=before["MainPID"])
    seconds = time.monotonic() - began
    table.add("systemd: frozen, with a watchdog of 5 s", f"replaced after {seconds:.1f} s")
    _inside("systemctl", "stop", f"{UNIT}.socket", UNIT)
    found = _once({"ActiveState": "inactive"})
    stopped = f"{found['Result']}, exit {found['ExecMainStatus']}"
    table.add("systemd: stopped", stopped, good=stopped == "success, exit 0")
    _inside("sh", "-c", f"{FAULTY} || true")
    found = _once({"ActiveState": "failed"})
    ended = f"failed, exit {found['ExecMainStatus']}, {found['NRestarts']} restarts"
    table.add("systemd: no session secret", ended, good=ended == "failed, exit 2, 0 restarts")


def _refuse_nobody(table: Table, processes: str) -> None:
    """Restart while a client asks on new connections; several processes are upgraded too."""
    _inside("sh", "-c", f"echo {processes} >>/etc/inngest-outbox/environment; rm -f /tmp/enough")
    _inside("systemctl", "restart", UNIT)
    with ThreadPoolExecutor(1) as beside:
        asking = beside.submit(_inside, "/opt/inngest-outbox/bin/python", "-c", ASK)
        try:
            _inside("systemctl", "restart", UNIT)
            if processes == TWO:
                _inside("sh", "-c", UPGRADE)
        finally:
            _inside("touch", "/tmp/enough")
        asked, refused = asking.result().split()
    good = refused == "0" and _once({"ActiveState": "active"})["NRestarts"] == "0"
    what = f"systemd: restarted and upgraded, {processes}"
    table.add(what, f"{refused} of {asked} connections refused", good=good)


def _once(wanted: Mapping[str, str], other_pid: str = "") -> dict[str, str]:
    """The unit's properties once they are as wanted, with another process than `other_pid`."""

    def properties() -> dict[str, str]:
        shown = run("docker", "exec", MACHINE, "systemctl", "show", UNIT, check=False).stdout
        return dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)

    def words(_: dict[str, str]) -> str:
        log = _inside("journalctl", "--no-pager", "--lines=10", "--unit", UNIT)
        return f"the unit isn't {dict(wanted)}: {log}"

    return until(
        properties,
        lambda found: wanted.items() <= found.items() and found["MainPID"] != other_pid,
        seconds=LIMIT_SECONDS,
        words=words,
    )


def _inside(*command: str) -> str:
    return run("docker", "exec", MACHINE, *command).stdout
