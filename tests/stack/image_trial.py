"""The service's image: built without a warning, small, one fixed user, nothing to build with."""

from __future__ import annotations

import json
import subprocess
import time

from tests.stack.command import run, say, until
from tests.stack.pinned_images import ROOT
from tests.stack.table import Table

IMAGE = "inngest-outbox:local"
HARDENED = ("--read-only", "--tmpfs=/tmp", "--cap-drop=ALL", "--security-opt=no-new-privileges")
MAX_ADDED_MB = 160
FAULTY = 2
START_SECONDS = 30
NAMED_VOLUME = "outbox-stack-named:/var/lib/outbox"


def _built(base: str) -> subprocess.CompletedProcess[str]:
    """Build, and once more where that fails: packages are downloaded meanwhile."""
    chosen = ("--build-arg", f"PYTHON_IMAGE={base}", "--tag", IMAGE)
    command = ("docker", "build", "--progress", "plain", *chosen, str(ROOT))
    first = run(*command, check=False)
    if first.returncode == 0:
        return first
    say("the build failed and is tried once more:\n" + "\n".join(first.stderr.splitlines()[-40:]))
    return run(*command)


def build_image(table: Table, *, base: str) -> None:
    """Build on the Python image `base` and look at the outcome."""
    began = time.monotonic()
    built = _built(base)
    seconds = time.monotonic() - began
    said = (built.stdout + built.stderr).lower()
    warnings = [line for line in said.splitlines() if "warn" in line]
    table.add(
        "image: build",
        f"{seconds:.0f} s, {len(warnings)} warnings {warnings[:3] or ''}".strip(),
        good=not warnings,
    )
    whole = _inspect(IMAGE)["Size"] / 1e6
    added = whole - _inspect(base)["Size"] / 1e6
    table.add(
        "image: size",
        f"{whole:.0f} MB, of them {added:.0f} MB above the Python image",
        good=added < MAX_ADDED_MB,
    )


def look_into_image(table: Table) -> None:
    """Who it runs as, what it refuses, what it lacks."""
    who = _inside("id").strip()
    table.add("image: user", who, good="uid=10001" in who and "gid=10001" in who)
    tools = _inside("sh", "-c", "command -v pip pip3 gcc cc make || true").split()
    table.add("image: build tools", str(len(tools)), good=not tools)
    done = run("docker", "run", "--rm", *HARDENED, IMAGE, check=False)
    table.add(
        "image: started without secrets",
        f"exit {done.returncode}: {done.stderr.strip().splitlines()[-1]}",
        good=done.returncode == FAULTY and "SESSION_SECRET" in done.stderr,
    )
    for kind, volume in (("anonymous", "/var/lib/outbox"), ("named", NAMED_VOLUME)):
        warned = "outbox_may_be_lost" in _said_at_start(f"--volume={volume}")
        figure = "warns" if warned else "no warning"
        table.add(f"image: on a volume, {kind}", figure, good=warned == (kind == "anonymous"))
    run("docker", "volume", "rm", NAMED_VOLUME.split(":", maxsplit=1)[0])
    labels = _inspect(IMAGE)["Config"]["Labels"]
    table.add("image: labels", str(len(labels)), good="org.opencontainers.image.title" in labels)


def _said_at_start(*options: str) -> str:
    """What a service says until it listens."""
    settings = ("--env=APP_ENV=development", "--env=INNGEST_DEV=http://inngest.invalid:8288")
    started = run("docker", "run", "--detach", *HARDENED, *settings, *options, IMAGE)
    container = started.stdout.strip()
    try:
        logged = until(
            lambda: run("docker", "logs", container),
            lambda logged: "Listening" in logged.stdout,
            seconds=START_SECONDS,
            words=lambda logged: f"it doesn't listen: {logged.stdout}{logged.stderr}",
        )
        return logged.stdout + logged.stderr
    finally:
        run("docker", "rm", "--force", "--volumes", container)


def _inside(*command: str) -> str:
    return run("docker", "run", "--rm", *HARDENED, IMAGE, *command).stdout


def _inspect(image: str) -> dict[str, object]:
    found: list[dict[str, object]] = json.loads(run("docker", "image", "inspect", image).stdout)
    return found[0]
