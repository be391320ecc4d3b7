"""docker-compose.yml as Compose understands it."""

from __future__ import annotations

import json
import shutil
from typing import Any

from tests.stack.command import run
from tests.stack.pinned_images import ROOT
from tests.support.neighbours import lacks

# After a stop requests may finish for 15 s; the rest is a reserve.
SERVE_SECONDS = 20.0


def compose_services(profile: str) -> dict[str, Any]:
    """The services of the default profile and of `profile`; `*` is every one."""
    program = shutil.which("docker-compose") or lacks("docker-compose")
    chosen = ["--profile", profile] if profile else []
    done = run(program, *chosen, "config", "--format", "json", cwd=ROOT)
    assert done.stderr == ""
    found: dict[str, Any] = json.loads(done.stdout)["services"]
    return found
