"""The programs of the page for Python's web frameworks, as printed, against a running service."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from inngest_outbox.dev.fake_inngest.server import FakeInngest
from tests.support.fleet import ROOT, environment, running
from tests.support.python_packages import installed, run_with
from tests.support.storage import PATIENCE_SECONDS

PAGE = ROOT / "docs" / "guide" / "python.md"
LOCK = ROOT / "tests" / "integration" / "own_transaction" / "requirements.lock"
KEY = "0123456789abcdef"
POST_TWICE = "print([shop.post('/orders/17').json()['eventId'] for _ in range(2)])"
WSGI = f"""
import httpx
with httpx.Client(transport=httpx.WSGITransport(app), base_url="http://shop") as shop:
    {POST_TWICE}
"""
CALLERS = {
    "FastAPI": f"""
from fastapi.testclient import TestClient
from shop import app
with TestClient(app) as shop:
    {POST_TWICE}
""",
    "Django": f"""
from django.conf import settings
from django.core.wsgi import get_wsgi_application
settings.configure(ROOT_URLCONF="shop", ALLOWED_HOSTS=["shop"])
app = get_wsgi_application()
{WSGI}""",
    "Flask": f"from shop import app\n{WSGI}",
}
# pip installs the frameworks
pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return installed(LOCK, tmp_path_factory.mktemp("packages"))


@pytest.mark.parametrize("framework", CALLERS)
async def test_a_repeated_post_of_a_server_is_one_event(
    framework: str,
    packages: Path,
    tmp_path: Path,
    inngest_api: FakeInngest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    printed = PAGE.read_text(encoding="utf-8").split(f"<!-- check: {framework} -->\n```python\n")[1]
    (tmp_path / "shop.py").write_text(printed.split("```")[0])
    url = f"sqlite:///{tmp_path / 'outbox.db'}"
    settings = environment(url, inngest_api.url, OUTBOX_EVENT_KEYS=f"shop:{KEY}")
    async with running("serve", environment=settings) as service:
        monkeypatch.setenv("OUTBOX_SERVICE_URL", service.url)
        monkeypatch.setenv("OUTBOX_EVENT_KEY", KEY)
        ids = await asyncio.to_thread(run_with, [tmp_path, packages], "-c", CALLERS[framework])
        await inngest_api.ledger.wait_for_ids(1, timeout_seconds=PATIENCE_SECONDS)
    [arrived] = inngest_api.ledger.kept()
    event = json.loads(arrived.event)
    assert (event["name"], event["id"], event["data"]) == (
        "order/placed",
        "order-17",
        {"number": 17},
    )
    assert len(set(json.loads(ids.replace("'", '"')))) == 1
