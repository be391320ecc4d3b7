"""The images of the stack: from the registry, or stand-ins made of Debian's and PyPI's packages.

A stand-in has its own name. It offers the commands, ports, settings and health checks that
docker-compose.yml uses, and runs the same software where Debian has it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.stack.command import StackError, run, say
from tests.stack.engine import WORK

ROOT = Path(__file__).parents[2]
STAND_INS = Path(__file__).parent / "stand_ins"
PREFIX = "outbox-stack"
PYTHON = f"{PREFIX}/python"
PIP = "24.0"
SUITE = "trixie"
BUILT_AT_ONCE = 3
# What the interpreter links against.
LIBRARIES = (
    "ca-certificates,libssl3t64,libffi8,libsqlite3-0,zlib1g,libbz2-1.0,liblzma5,"
    "libreadline8t64,libncursesw6,libuuid1,libexpat1"
)


def official_python() -> str | None:
    """The Dockerfile's own base image where it can be had, else None."""
    if os.environ.get("STACK_IMAGES") == "stand-ins":
        return None
    dockerfile = (ROOT / "Dockerfile").read_text("utf-8")
    found = re.search(r"^ARG PYTHON_IMAGE=(\S+)", dockerfile, re.MULTILINE)
    if found is None:
        raise StackError("the Dockerfile names no PYTHON_IMAGE")
    try:
        pulled = run("docker", "pull", "--quiet", found[1], check=False, timeout=120)
    except subprocess.TimeoutExpired:
        return None
    return found[1] if pulled.returncode == 0 else None


def make_python() -> None:
    """The stand-in for the official Python image."""
    if run("docker", "image", "inspect", PYTHON, check=False).returncode:
        _make_python()


def make_stand_ins() -> dict[str, str]:
    """Build the other stand-ins, after the service's own image; the name of each part's image."""
    _build("tools")
    names = sorted(folder.name for folder in STAND_INS.iterdir() if folder.name != "tools")
    with ThreadPoolExecutor(BUILT_AT_ONCE) as pool:
        return dict(zip(names, pool.map(_build, names), strict=True))


def _build(name: str) -> str:
    image = f"{PREFIX}/{name}"
    say(f"building the stand-in {image}")
    run("docker", "build", "--quiet", "--tag", image, str(STAND_INS / name))
    return image


def _make_python() -> None:
    if sys.base_prefix == "/usr":
        raise StackError("an image is made of a Python outside /usr: make stack PYTHON=…")
    say(f"making {PYTHON}: Debian {SUITE}, this machine's Python, pip {PIP}")
    tree = _root_filesystem()
    packed = subprocess.Popen(["tar", "-C", str(tree), "-c", "."], stdout=subprocess.PIPE)
    changes = (
        "ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin",
        "ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt",
        'CMD ["python3"]',
    )
    chosen = [word for change in changes for word in ("--change", change)]
    subprocess.run(
        ["docker", "import", *chosen, "-", f"{PREFIX}/base"],
        stdin=packed.stdout,
        stdout=subprocess.DEVNULL,
        check=True,
    )
    packed.wait()
    install = "python -m ensurepip && python -m pip install --root-user-action=ignore"
    lines = f"FROM {PREFIX}/base\nRUN {install} pip=={PIP} && ln -sf pip3 /usr/local/bin/pip\n"
    run("docker", "build", "--quiet", "--tag", PYTHON, "-", stdin=lines.encode())


def _root_filesystem() -> Path:
    tree = WORK / "rootfs"
    whole = WORK / "rootfs.whole"
    if whole.exists():
        return tree
    shutil.rmtree(tree, ignore_errors=True)
    run("debootstrap", "--variant=minbase", f"--include={LIBRARIES}", SUITE, str(tree))
    run("cp", "-a", f"{sys.base_prefix}/.", str(tree / "usr/local/"))
    for library in (tree / "usr/local/lib").glob("python3.*"):
        for part in ("site-packages", "test"):
            shutil.rmtree(library / part, ignore_errors=True)
        (library / "site-packages").mkdir()
    shutil.rmtree(tree / "usr/local/bin")
    (tree / "usr/local/bin").mkdir()
    for program in Path(sys.base_prefix, "bin").glob("python3*"):
        shutil.copy2(program, tree / "usr/local/bin" / program.name, follow_symlinks=False)
    (tree / "usr/local/bin/python").symlink_to("python3")
    shutil.copy2("/etc/ssl/certs/ca-certificates.crt", tree / "etc/ssl/certs/")
    run("chroot", str(tree), "ldconfig")
    whole.touch()
    return tree
