"""The images of the stack: pulled, or stand-ins made of Debian's and PyPI's packages.

A stand-in has its own name. It is made by the table of images: it runs the same software where
Debian has it, as the same user, and has the tools of the table and no others.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.stack.command import StackError, run, say
from tests.stack.engine import WORK
from tests.stack.pinned_images import COMPARED_TOOLS, PinnedImage, pinned_images, python_image

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
OF_BUSYBOX = ("wget", "nc")


def pull_python() -> str:
    """The image that the Dockerfile builds on, pulled."""
    run("docker", "pull", "--quiet", python_image())
    return python_image()


def make_python() -> str:
    """The stand-in for the image that the Dockerfile builds on."""
    if run("docker", "image", "inspect", PYTHON, check=False).returncode:
        _make_python()
    return PYTHON


def make_stand_ins() -> dict[str, str]:
    """Build the other stand-ins, after the service's own image; each by what it stands for."""
    run("docker", "build", "--quiet", "--tag", f"{PREFIX}/tools", str(STAND_INS / "tools"))
    pinned = [one for one in pinned_images().values() if one.image != python_image()]
    with ThreadPoolExecutor(BUILT_AT_ONCE) as pool:
        names = (one.image for one in pinned)
        return dict(zip(names, pool.map(_build, pinned), strict=True))


def _build(pinned: PinnedImage) -> str:
    image = f"{PREFIX}/{pinned.stand_in}"
    say(f"building the stand-in {image}")
    whole = f"{image}-with-tools"
    run("docker", "build", "--quiet", "--tag", whole, str(STAND_INS / pinned.stand_in))
    lines = f"FROM {whole}\nUSER root\nRUN {_leave(pinned.tools)}\nUSER {pinned.user}\n"
    run("docker", "build", "--quiet", "--tag", image, "-", stdin=lines.encode())
    return image


def _leave(tools: tuple[str, ...]) -> str:
    """The command that leaves these of the compared tools."""
    made = [f"ln -sf busybox /usr/bin/{tool}" for tool in OF_BUSYBOX]
    gone = [f"rm -f /usr/bin/{tool}" for tool in COMPARED_TOOLS if tool not in tools]
    return " && ".join(made + gone)


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
