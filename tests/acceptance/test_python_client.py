"""A Python client that a generator made from the API's description, against a running service."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from service.fake_inngest.server import FakeInngest
from tests.support.api_description import COMMITTED
from tests.support.fleet import environment, running
from tests.support.python_packages import installed, run_with

HERE = Path(__file__).parent / "python_client"
pytestmark = pytest.mark.timeout(240)  # pip installs the generator


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Where the generated client and what it needs are."""
    made = tmp_path_factory.mktemp("python")
    generator = installed(HERE / "requirements.lock", made / "generator")
    (made / "generator.yml").write_text("post_hooks: []\n")
    run_with(
        [generator],
        *("-m", "openapi_python_client", "generate", "--meta", "none", "--fail-on-warning"),
        *("--path", str(COMMITTED), "--config", str(made / "generator.yml")),
        *("--output-path", str(made / "client" / "outbox_client")),
    )
    return [made / "client", generator]


async def test_a_generated_client_signs_in_posts_follows_lists_and_reads_errors(
    packages: list[Path], tmp_path: Path, inngest_api: FakeInngest
) -> None:
    settings = environment(f"sqlite:///{tmp_path / 'outbox.db'}", inngest_api.url)
    async with running("serve", environment=settings) as service:
        program = str(HERE / "posting.py")
        printed = await asyncio.to_thread(run_with, packages, program, service.url)
    told = json.loads(printed)
    event_id = told["posted"][0]
    assert told == {
        "user": "Ada ☃",
        "posted": [event_id, event_id],
        "state": "delivered",
        "inngest_id": inngest_api.ledger.kept(event_id=event_id)[0].server_id,
        "listed": [event_id],
        "next_cursor": None,
        "nameless": [400, "document_name_required"],
        "unknown": "not_found",
        "refused": "session_required",
    }
    assert inngest_api.ledger.times(event_id) == 1
