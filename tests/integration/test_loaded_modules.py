"""What a process loads: a service starts often, and each library takes its part of a start."""

from __future__ import annotations

import subprocess
import sys

LATER = ("inngest", "httpx", "aioboto3", "aiobotocore", "botocore", "psycopg", "psycopg_pool")


def loaded_by(statements: str) -> set[str]:
    program = f"import sys\n{statements}\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_commands_load_no_library_that_only_some_configurations_need() -> None:
    """Nor does what they migrate load the driver of PostgreSQL for an outbox of SQLite."""
    loaded = loaded_by(
        "import gc, inngest_outbox.processes.serve, inngest_outbox.processes.parent\n"
        "from inngest_outbox.loading import loading\n"
        "with loading():\n    import inngest_outbox.console.commands.main\n"
        "assert gc.isenabled()\n"
        "from inngest_outbox.outbox.schema import pending\nassert pending('sqlite:///no-such-file')\n"
        "from inngest_outbox.bootstrap.tracing import start_tracing\n"
        "from inngest_outbox.config.settings import Settings\n"
        "with start_tracing(Settings.load({})) as tracing:\n    assert tracing is None"
    )
    assert "aiohttp" in loaded
    assert loaded.isdisjoint({*LATER, "opentelemetry.sdk"})


def test_a_store_process_loads_no_pages_and_no_sessions() -> None:
    loaded = loaded_by(
        "import inngest_outbox.processes.main, inngest_outbox.processes.store_process"
    )
    assert "inngest_outbox.outbox.sqlite.store" in loaded
    assert loaded.isdisjoint(
        {*LATER, "inngest_outbox.web.app", "jinja2", "joserfc", "cryptography"}
    )


def test_a_front_process_loads_no_store_and_no_relay() -> None:
    loaded = loaded_by(
        "import inngest_outbox.processes.main, inngest_outbox.processes.front_process"
    )
    assert "inngest_outbox.web.app" in loaded
    stores = {"inngest_outbox.outbox.sqlite.store", "inngest_outbox.relay.relay"}
    assert loaded.isdisjoint({*LATER, *stores})


def test_a_worker_process_loads_nothing_that_only_a_server_needs() -> None:
    """So it stays small for a document of any size."""
    loaded = loaded_by("import inngest_outbox.processes.main, inngest_outbox.processes.worker")
    servers = (
        "inngest_outbox.bootstrap",
        "inngest_outbox.web",
        "inngest_outbox.outbox.sqlite",
        "inngest_outbox.relay",
    )
    libraries = ("psycopg", "authlib", "prometheus_client")
    assert not [name for name in loaded if name.startswith((*servers, *libraries))]


_TOLD = """
import asyncio, tempfile
from pathlib import Path
from inngest_outbox.processes.parent import _greet
from inngest_outbox.processes.banner import Announcer
from inngest_outbox.bootstrap.web_part import run_front_process
from inngest_outbox.config.values import InngestAddress
from inngest_outbox.config.settings import Settings
from inngest_outbox.outbox.link.messages import Status
from inngest_outbox.outbox.link.server import parts_of, serve_link
from tests.support.remote_storage import unix_socket
from tests.support.storage import SqliteStorage

async def main(folder):
    address = InngestAddress("http://one:1", "http://two:2", "key", None)
    settings = Settings.load({"SESSION_SECRET": "s" * 32})
    path = Path(folder) / "s"
    with unix_socket(path) as listening:
        async with (
            SqliteStorage(Path(folder) / "outbox.db").open() as store,
            serve_link(listening, parts_of(store), lambda: Status(inngest=address)),
        ):
            async with run_front_process(settings, str(path)):
                pass
            await _greet(Announcer(as_json=False), settings, 'http://here', 'Listening', path)

with tempfile.TemporaryDirectory() as folder:
    asyncio.run(main(folder))
"""


def test_a_front_process_and_the_parent_learn_from_the_store_process_where_inngest_is() -> None:
    loaded = loaded_by(_TOLD)
    assert "inngest_outbox.inngest.rest_api" in loaded  # it may be asked for runs
    assert "http://one:1" in loaded  # where events go, by the banner
    assert loaded.isdisjoint({"inngest", "httpx"})
