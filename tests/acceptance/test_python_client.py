"""A Python client that a generator made from the API's description, against a running service."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from docs.api_description import description
from inngest_outbox.dev.fake_inngest.server import FakeInngest
from tests.support.fleet import environment, running
from tests.support.python_packages import installed, run_with

KEY = "a-key-of-the-tests-only"
HERE = Path(__file__).parent / "python_client"
# pip installs the generator
pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Where the generated client and what it needs are."""
    made = tmp_path_factory.mktemp("python")
    generator = installed(HERE / "requirements.lock", made / "generator")
    (made / "generator.yml").write_text("post_hooks: []\n")
    (made / "openapi.json").write_text(json.dumps(asyncio.run(description(made))))
    run_with(
        [generator],
        *("-m", "openapi_python_client", "generate", "--meta", "none", "--fail-on-warning"),
        *("--path", str(made / "openapi.json"), "--config", str(made / "generator.yml")),
        *("--output-path", str(made / "client" / "outbox_client")),
    )
    return [made / "client", generator]


async def test_a_generated_client_signs_in_posts_follows_lists_sends_and_reads_errors(
    packages: list[Path], tmp_path: Path, inngest_api: FakeInngest
) -> None:
    url = f"sqlite:///{tmp_path / 'outbox.db'}"
    settings = environment(url, inngest_api.url, OUTBOX_EVENT_KEYS=f"shop:{KEY}")
    async with running("serve", environment=settings) as service:
        program = str(HERE / "posting.py")
        printed = await asyncio.to_thread(run_with, packages, program, service.url, KEY)
    told = json.loads(printed)
    event_id = told["posted"][0]
    ids = [*told["sent"]["ids"], *told["half_sent"]["ids"]]
    assert len(set(filter(None, ids))) == 3
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
        "sent": {"ids": ids[:2], "status": 200},
        "half_sent": {
            "ids": ids[2:],
            "status": 400,
            "error": "The event's name must be present",
        },
        "unknown_key": {"ids": [], "status": 401, "error": "Event key not found"},
    }
    assert inngest_api.ledger.times(event_id) == 1
