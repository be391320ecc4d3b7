"""The stack of docker-compose.yml, under a name and at ports of its own."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import socket
from collections.abc import Iterator, Mapping
from typing import Any

from tests.stack.command import StackError, run, say
from tests.stack.engine import WORK
from tests.stack.images import PYTHON
from tests.stack.pinned_images import ROOT, python_image

PROJECT = "outbox-stack"
PORTS = ("SERVICE", "INNGEST", "S3", "PROMETHEUS", "GRAFANA", "BALANCER", "VOLUMELESS")
EVERY_PROFILE = ("metrics", "postgres")
METRICS_TOKEN = "stack-metrics-token"
SHOWN_LINES = "30"


class Stack:
    """Commands to one stack. `profiles` are those that its commands see.

    `images` are the stand-ins by what they stand for; empty to pull.
    """

    def __init__(self, images: Mapping[str, str], profiles: tuple[str, ...]) -> None:
        self.profiles = profiles
        self.parts = _parts()
        self.ports = {name: _free_port() for name in PORTS}
        self._environment = {
            **os.environ,
            **{f"{name}_PORT": str(port) for name, port in self.ports.items()},
            "METRICS_TOKEN": METRICS_TOKEN,
        }
        self._files = ["--file", str(ROOT / "docker-compose.yml")]
        if images:
            standing_in = {part: _stand_in(one, images) for part, one in self.parts.items()}
            self._override("stand-ins", standing_in)

    def _override(self, name: str, services: Mapping[str, object]) -> None:
        override = WORK / f"{name}.json"
        override.write_text(json.dumps({"services": services}), encoding="utf-8")
        self._files += ["--file", str(override)]

    @contextlib.contextmanager
    def late(self, part: str, seconds: int) -> Iterator[None]:
        """Inside the block `up` starts a part's container now, and its program so much later."""
        files = list(self._files)
        command = f"sleep {seconds}; exec {shlex.join(self.parts[part]['command'])}"
        self._override("late", {part: {"command": ["bash", "-c", command]}})
        yield
        self._files = files

    def image(self, part: str) -> str:
        """The image that docker-compose.yml names for a part; for our own the one below it."""
        found = self.parts[part]
        return python_image() if "build" in found else str(found["image"])

    def url(self, part: str) -> str:
        """The address of a part on this machine."""
        return f"http://127.0.0.1:{self.ports[part.upper()]}"

    def compose(self, *words: str, timeout: float = 900) -> str:
        """What `docker compose` prints; raises StackError with its last words."""
        chosen = [word for profile in self.profiles for word in ("--profile", profile)]
        command = ["docker", "compose", "--project-name", PROJECT, *self._files, *chosen, *words]
        return run(*command, env=self._environment, cwd=ROOT, timeout=timeout).stdout

    def up(self, *parts: str) -> None:
        """Start parts, or all of the profiles, and return when they are healthy."""
        try:
            self.compose("up", "--detach", "--wait", "--wait-timeout", "180", *parts, timeout=300)
        except StackError:
            say("what isn't healthy said last:")
            for container in self.containers():
                if container.get("Health") != "healthy":
                    say(
                        self.compose(
                            "logs", "--no-color", "--tail", str(SHOWN_LINES), container["Service"]
                        )
                    )
            raise

    def containers(self, *parts: str) -> list[dict[str, str]]:
        """The containers of these parts, or all, as `docker compose ps` shows them."""
        lines = self.compose("ps", "--all", "--format", "json", *parts).splitlines()
        return [json.loads(line) for line in lines]

    def names(self, part: str) -> list[str]:
        """The names of a part's containers."""
        return sorted(container["Name"] for container in self.containers(part))

    def inside(self, part: str, *command: str) -> str:
        """What a command prints in the container of a part."""
        return self.compose("exec", "--no-TTY", part, *command)

    def stats(self, part: str = "service") -> dict[str, int]:
        """`outbox stats --json` of a service."""
        found: dict[str, int] = json.loads(self.inside(part, "outbox", "stats", "--json"))
        return found

    def remove(self) -> None:
        """Remove containers, networks and volumes of all profiles."""
        self.profiles = EVERY_PROFILE
        self.compose("down", "--volumes", "--remove-orphans")


@contextlib.contextmanager
def stack(images: Mapping[str, str]) -> Iterator[Stack]:
    """A stack that is removed at the end, and before, if an earlier run was killed."""
    made = Stack(images, EVERY_PROFILE)
    made.remove()
    try:
        yield made
    finally:
        made.remove()


def _parts() -> dict[str, Any]:
    """The parts of every profile, as docker-compose.yml has them."""
    command = ("docker", "compose", "--profile", "*", "config", "--format", "json")
    found: dict[str, Any] = json.loads(run(*command, cwd=ROOT).stdout)["services"]
    return found


def _stand_in(part: Mapping[str, Any], images: Mapping[str, str]) -> dict[str, object]:
    if "build" in part:
        return {"build": {"args": {"PYTHON_IMAGE": PYTHON}}}
    return {"image": images[part["image"]], "pull_policy": "never"}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
