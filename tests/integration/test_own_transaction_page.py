"""The page's examples of an event inside the application's own transaction, run as they are.

Each application saves a document, fails to save it again, saves another and is killed at once. What
Inngest may get is one event of each document that is there.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from inngest_outbox.outbox.schema import migrate
from tests.support.node_packages import installed as npm_installed
from tests.support.node_packages import with_packages
from tests.support.postgres_server import PostgresServer
from tests.support.python_packages import installed, run_with
from tests.support.storage import PostgresStorage, claim, claims_nothing, ids

PAGE = Path(__file__).parents[2] / "docs" / "guide" / "own-transaction.md"
APPLICATIONS = Path(__file__).parent / "own_transaction"
TOOLS = {
    "drizzle-kit": ("drizzle-kit/bin.cjs", "push", "--force", "--config", "drizzle.config.mjs"),
    "prisma": ("prisma/build/index.js", "db", "push", "--accept-data-loss", "--skip-generate"),
}
OBJECTS = """
SELECT oid::regclass::text, attname, atttypid::regtype::text
FROM pg_class JOIN pg_attribute ON attrelid = oid WHERE relnamespace = 'outbox'::regnamespace
UNION ALL
SELECT oid::regprocedure::text, prosrc, NULL FROM pg_proc
WHERE pronamespace = 'outbox'::regnamespace ORDER BY 1, 2
"""
PRISMA = ("prisma@7.10.1", "@prisma/client@7.10.0", "@prisma/adapter-pg@7.10.0")
OFFLINE = {  # Prisma asks for no newer version, and for no binary
    "CHECKPOINT_DISABLE": "1",
    "PRISMA_SCHEMA_ENGINE_BINARY": sys.executable,
    "PRISMA_QUERY_ENGINE_LIBRARY": sys.executable,
}
SAVED = ["first.pdf", "last.pdf"]


@pytest.fixture
def database(postgres: PostgresServer) -> Iterator[str]:
    """The database of an application, with its table of documents."""
    with postgres.database("shop") as url:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("CREATE TABLE documents (name text PRIMARY KEY)")
        yield url


@pytest.fixture(scope="module")
def python_packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    lock = APPLICATIONS / "requirements.lock"
    return installed(lock, tmp_path_factory.mktemp("packages"))


def example(of: str) -> str:
    """The code on the page below this mark."""
    fence = PAGE.read_text(encoding="utf-8").split(f"<!-- check: {of} -->\n```")[1].split("```")[0]
    return fence.partition("\n")[2]


async def saves(database: str, command: list[str], folder: Path, **environment: str) -> None:
    """Run an application of the example; check the events and documents that it leaves."""
    async with PostgresStorage(database).open() as outbox:
        first = asyncio.create_task(claim(outbox))
        host = database.partition("host=")[2]
        process = await asyncio.create_subprocess_exec(
            *(*command, host, "shop"), cwd=folder, env={**os.environ, **environment}
        )
        assert await process.wait() == -signal.SIGKILL
        claimed = ids(await first)
        if len(claimed) < len(SAVED):
            claimed += ids(await claim(outbox))
        assert await claims_nothing(outbox)
        wires = [json.loads(await outbox.inspector.payload(one) or "") for one in claimed]
    assert [(wire["name"], wire["data"], wire["user"]["id"]) for wire in wires] == [
        ("documents/saved", {"documentName": name}, "u-1") for name in SAVED
    ]
    with psycopg.connect(database) as connection:
        kept = connection.execute("SELECT name FROM documents ORDER BY name").fetchall()
    assert kept == [(name,) for name in SAVED]


async def test_the_event_of_the_example_in_sql_is_delivered_after_its_commit(
    database: str,
) -> None:
    async with PostgresStorage(database).open() as outbox:
        with psycopg.connect(database, autocommit=True) as connection:
            connection.execute(example("SQL").encode())
        event = json.loads((await claim(outbox)).payloads)
    assert (event["name"], event["data"]) == ("documents/saved", {"documentName": "q3.pdf"})


@pytest.mark.slow
async def test_the_example_with_drizzle(node_packages: Path, database: str) -> None:
    shutil.copytree(APPLICATIONS, node_packages, dirs_exist_ok=True)
    (node_packages / "page.mjs").write_text(example("Drizzle"))
    await saves(database, ["node", "drizzle.mjs"], node_packages)


@pytest.mark.soak
async def test_the_example_with_prisma(tmp_path: Path, database: str) -> None:
    """Only Prisma's migrations need its schema engine, whose binary npm does not have."""
    with_packages(tmp_path, *PRISMA)
    shutil.copytree(APPLICATIONS, tmp_path, dirs_exist_ok=True)
    (tmp_path / "page.mjs").write_text(example("Prisma"))
    command = ("node", "node_modules/prisma/build/index.js", "generate")
    generating = await asyncio.create_subprocess_exec(
        *command, cwd=tmp_path, env={**os.environ, **OFFLINE}
    )
    assert await generating.wait() == 0
    await saves(database, ["node", "prisma.mjs"], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("framework", ["SQLAlchemy", "Django"])
async def test_the_example_in_python(
    python_packages: Path, tmp_path: Path, database: str, framework: str
) -> None:
    name = framework.lower()
    shutil.copy(APPLICATIONS / f"with_{name}.py", tmp_path / "shop.py")
    shutil.copy(APPLICATIONS / f"{name}_models.py", tmp_path / "models.py")
    (tmp_path / "page.py").write_text(example(framework))
    command = [sys.executable, "shop.py"]
    await saves(database, command, tmp_path, PYTHONPATH=str(python_packages))


@pytest.mark.slow
async def test_alembic_leaves_the_outbox_alone(
    python_packages: Path, tmp_path: Path, database: str
) -> None:
    migrate(database)
    shutil.copy(APPLICATIONS / "with_alembic.py", tmp_path / "compare.py")
    shutil.copy(APPLICATIONS / "sqlalchemy_models.py", tmp_path / "models.py")
    host = database.partition("host=")[2]
    run_with([python_packages, tmp_path], str(tmp_path / "compare.py"), host, "shop")


@pytest.fixture(scope="module")
def migration_tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tools")
    return npm_installed(APPLICATIONS / "migration_tools", folder / "tools")


@pytest.mark.slow
@pytest.mark.parametrize("tool", TOOLS)
async def test_a_migration_tool_changes_the_application_and_leaves_the_outbox_alone(
    migration_tools: Path, database: str, tool: str
) -> None:
    """Each may drop what its models lack: where it compares the outbox's schema, it drops it."""
    migrate(database)
    script, *arguments = TOOLS[tool]
    place = {"HOST": database.partition("host=")[2], "DATABASE": "shop"}
    with psycopg.connect(database, autocommit=True) as connection:
        before = connection.execute(OBJECTS).fetchall()
        changing = await asyncio.create_subprocess_exec(
            *("node", f"node_modules/{script}", *arguments),
            cwd=migration_tools,
            env={**os.environ, **OFFLINE, **place},
        )
        assert await changing.wait() == 0
        assert connection.execute("SELECT name, size FROM public.documents").fetchall() == []
        assert connection.execute(OBJECTS).fetchall() == before
