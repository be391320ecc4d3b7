"""The table of images: what docker-compose.yml and the Dockerfile may ask of each."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.stack.command import StackError

ROOT = Path(__file__).parents[2]
# The tools that an image has only if the table says so.
COMPARED_TOOLS = ("sh", "bash", "wget", "curl", "nc")


@dataclass(frozen=True, slots=True)
class PinnedImage:
    """One row. `user` is the number that its containers start as."""

    image: str
    base: str
    user: str
    tools: tuple[str, ...]
    asked: str
    read_in: str
    programs: tuple[str, ...] = ()
    ports: tuple[int, ...] = ()
    variables: tuple[str, ...] = ()
    files: tuple[str, ...] = ()

    @property
    def stand_in(self) -> str:
        """The folder of its stand-in."""
        return self.image.split(":", maxsplit=1)[0].rpartition("/")[2]


def pinned_images() -> dict[str, PinnedImage]:
    """The rows by their image."""
    rows = yaml.safe_load((ROOT / "tests/stack/images.yaml").read_text(encoding="utf-8"))
    return {row["image"]: PinnedImage(**row) for row in rows}


def python_image() -> str:
    """The image that the Dockerfile builds on."""
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    found = re.search(r"^ARG PYTHON_IMAGE=(\S+)", dockerfile, re.MULTILINE)
    if found is None:
        raise StackError("the Dockerfile names no PYTHON_IMAGE")
    return found[1]
