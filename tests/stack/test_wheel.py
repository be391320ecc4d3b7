"""The wheel in an environment of its own, run as `pipx` and `uvx` run it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stack.command import run

ROOT = Path(__file__).parents[2]
LIMIT_SECONDS = 60
pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel; its dependencies are those of the tests."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
    build = ("--no-build-isolation", "--no-deps", "--wheel-dir", str(folder))
    run(*pip, "wheel", *build, str(ROOT))
    [wheel] = folder.glob("*.whl")
    venv = folder / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", str(venv))
    run(*pip, "--python", str(venv), "install", "--no-deps", str(wheel))
    [site] = venv.glob("lib/*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return venv


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working directory with somebody else's package of that name."""
    package = tmp_path / "inngest_outbox"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('another service')")
    return tmp_path


@pytest.fixture
def environment(installed: Path, tmp_path: Path) -> dict[str, str]:
    return {
        "PATH": f"{installed / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "OUTBOX_URL": f"sqlite:///{tmp_path}/outbox.db",
        "INNGEST_DEV": "http://inngest.invalid:8288",
        "PORT": "0",
        "WEB_CONCURRENCY": "2",
    }


@pytest.fixture
def url(installed: Path, environment: dict[str, str], folder: Path) -> Iterator[str]:
    """A running service of the wheel."""
    command = [str(installed / "bin" / "inngest-outbox"), "serve"]
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "Listening on " in line:
                yield line.split("Listening on ")[1].split()[0]
                break
        process.terminate()
        assert process.wait(LIMIT_SECONDS) == 0


def test_an_installed_service_runs_beside_a_folder_of_its_name(
    url: str, installed: Path, environment: dict[str, str], folder: Path
) -> None:
    for path in ("/healthz", "/openapi.json", "/docs"):
        with urllib.request.urlopen(url + path, timeout=LIMIT_SECONDS) as answer:
            assert answer.status == 200
    outbox = str(installed / "bin" / "outbox")
    stats = run(outbox, "stats", "--json", cwd=folder, env=environment)
    assert json.loads(stats.stdout)["pending"] == 0


def test_it_holds_the_migrations_the_pages_and_the_default_settings(installed: Path) -> None:
    [package] = installed.glob("lib/*/site-packages/inngest_outbox")
    found = {file.suffix for file in package.rglob("*") if file.is_file()}
    assert {".py", ".sql", ".html", ".css", ".js", ".json"} <= found
    for dialect in ("sqlite", "postgresql"):
        assert list((package / "migrations" / dialect).glob("0001*.sql"))
