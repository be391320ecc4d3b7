"""The wheel, installed by itself and run from an empty folder."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIMIT_SECONDS = 60


def python(*arguments: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT_SECONDS,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the wheel installs, and nothing of the repository."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = ("-m", "pip", "--quiet", "--disable-pip-version-check")
    build = ("--no-build-isolation", "--no-deps", "--wheel-dir", str(folder))
    python(*pip, "wheel", *build, str(ROOT))
    [wheel] = folder.glob("*.whl")
    python(*pip, "install", "--no-deps", "--target", str(folder / "site"), str(wheel))
    return folder / "site"


@pytest.fixture
def environment(installed: Path, tmp_path: Path) -> dict[str, str]:
    """The wheel's service comes before the repository's, which the test's Python knows too."""
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": f"{installed}{os.pathsep}{sysconfig.get_path('purelib')}",
        "OUTBOX_URL": f"sqlite:///{tmp_path}/outbox.db",
        "INNGEST_DEV": "http://inngest.invalid:8288",
        "PORT": "0",
    }


def test_it_holds_the_migrations_the_pages_and_the_default_settings(installed: Path) -> None:
    found = {file.suffix for file in (installed / "service").rglob("*") if file.is_file()}
    assert {".py", ".sql", ".html", ".css", ".js", ".json"} <= found
    for dialect in ("sqlite", "postgresql"):
        assert list((installed / "service" / "migrations" / dialect).glob("0001*.sql"))
    assert (installed / "bin" / "outbox").exists()


@pytest.fixture
def url(environment: dict[str, str], tmp_path: Path) -> Iterator[str]:
    """A running service of the wheel."""
    command = [sys.executable, "-m", "service", "serve"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "Listening on " in line:
                yield line.split("Listening on ")[1].split()[0]
                break
        process.terminate()
        assert process.wait(LIMIT_SECONDS) == 0


def test_it_runs(url: str, environment: dict[str, str], installed: Path, tmp_path: Path) -> None:
    for path in ("/healthz", "/openapi.json", "/docs"):
        with urllib.request.urlopen(url + path, timeout=LIMIT_SECONDS) as answer:
            assert answer.status == 200
    used = subprocess.run(
        [sys.executable, "-c", "import service; print(service.__file__)"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert used.stdout.startswith(str(installed))
