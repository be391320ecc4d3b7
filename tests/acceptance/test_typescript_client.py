"""The TypeScript client against a running service: in Chromium, and in Node."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from inngest_outbox.dev.fake_inngest.server import FakeInngest
from tests.support.browser import Browser, chromium
from tests.support.fleet import Process, environment, running
from tests.support.front_server import FrontServer
from tests.support.node_packages import ROOT, built_client, npm, with_packages
from tests.support.storage import PATIENCE_SECONDS, eventually

# npm installs, then a browser starts
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
COOKIE = "outbox_session"


@pytest.fixture(scope="module")
def client_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built_client(tmp_path_factory.mktemp("client"))


@contextlib.asynccontextmanager
async def served(folder: Path, api: FakeInngest) -> AsyncIterator[Process]:
    settings = environment(f"sqlite:///{folder / 'outbox.db'}", api.url)
    async with running("serve", environment=settings) as service:
        yield service


@pytest.fixture
async def service(tmp_path: Path, inngest_api: FakeInngest) -> AsyncIterator[Process]:
    async with served(tmp_path, inngest_api) as process:
        yield process


@pytest.fixture
async def front(client_package: Path, service: Process) -> AsyncIterator[FrontServer]:
    async with FrontServer(client_package / "dist", service.url) as server:
        yield server


@pytest.fixture
async def browser(tmp_path: Path, front: FrontServer) -> AsyncIterator[Browser]:
    async with chromium(tmp_path / "profile") as one:
        await one.open(f"{front.url}/no-such-page")
        await one.add_cookie(COOKIE, await session_of(front.service_url))
        await one.open(front.url)
        await one.shows("#seen", "ready")
        yield one


async def session_of(service_url: str) -> str:
    body = {"email": "ada@example.com", "id": "u-1"}
    async with (
        aiohttp.ClientSession() as http,
        http.post(f"{service_url}/auth/dev-login", json=body) as answer,
    ):
        return answer.cookies[COOKIE].value


async def click(browser: Browser, times: int) -> None:
    await browser.run(f"for (let n = 0; n < {times}; n++) document.querySelector('#post').click()")


async def queued(browser: Browser, count: int) -> None:
    await eventually(
        lambda: browser.run("return outbox.queued().then((entries) => entries.length)"),
        lambda seen: seen == count,
    )


async def answered(browser: Browser, count: int) -> list[str]:
    return await eventually(lambda: browser.run("return answers"), lambda seen: len(seen) == count)


async def test_a_hundred_clicks_through_every_outage_are_a_hundred_events_each_once(
    tmp_path: Path,
    inngest_api: FakeInngest,
    service: Process,
    front: FrontServer,
    browser: Browser,
) -> None:
    await click(browser, 20)
    known = await answered(browser, 20)
    await inngest_api.close()
    await click(browser, 20)
    known = await answered(browser, 40)
    service.kill()
    await click(browser, 20)
    await queued(browser, 20)
    await front.cut()
    await click(browser, 40)
    await queued(browser, 60)
    await browser.open_tab_instead()
    await inngest_api.start()
    await front.mend()
    async with served(tmp_path, inngest_api) as restarted:
        front.service_url = restarted.url
        await browser.open(front.url)
        await queued(browser, 0)
        await inngest_api.ledger.wait_for_ids(100, timeout_seconds=PATIENCE_SECONDS)
        page = await browser.run("return outbox.list({ limit: 100 })")
    listed = [event["id"] for event in page["events"]]
    assert (len(listed), page["nextCursor"]) == (100, None)
    assert inngest_api.store.ids == set(listed)
    assert set(inngest_api.ledger.ids) == set(listed)
    assert set(known) < set(listed)


async def test_what_inngest_says_is_shown_on_the_page(
    inngest_api: FakeInngest, browser: Browser
) -> None:
    await browser.run("outbox.submit({ documentName: 'example' }).then((a) => follow(a.eventId))")
    await inngest_api.ledger.wait_for_ids(1, timeout_seconds=PATIENCE_SECONDS)
    await browser.shows("#seen", "completed")


async def test_two_tabs_send_what_is_queued_once(
    inngest_api: FakeInngest, front: FrontServer, browser: Browser
) -> None:
    await front.cut()
    await click(browser, 10)
    await queued(browser, 10)
    await front.mend()
    await browser.open_tab(front.url)
    await queued(browser, 0)
    await inngest_api.ledger.wait_for_ids(10, timeout_seconds=PATIENCE_SECONDS)
    assert [inngest_api.ledger.times(one) for one in inngest_api.ledger.ids] == [1] * 10


async def test_a_page_hears_what_another_page_queues(browser: Browser) -> None:
    assert await browser.run(
        """
        const other = document.body.appendChild(document.createElement("iframe"));
        other.src = "/";
        other.onload = () => other.contentWindow.outbox.submit({ documentName: "example" });
        return new Promise((heard) => outbox.onQueueChange(() => heard(true)));
        """
    )


async def test_an_event_that_is_posted_while_signed_out_is_sent_after_the_sign_in(
    inngest_api: FakeInngest, front: FrontServer, browser: Browser
) -> None:
    await browser.delete_cookies()
    code = await browser.run(
        "return outbox.submit({ documentName: 'example' }).catch((error) => error.code)"
    )
    assert code == "session_required"
    await queued(browser, 1)
    of_another_user = await browser.run(
        """
        const { OutboxClient } = await import("/client/index.js");
        return new OutboxClient({ account: "u-2" }).queued();
        """
    )
    assert of_another_user == []
    await browser.add_cookie(COOKIE, await session_of(front.service_url))
    await browser.open(front.url)
    await queued(browser, 0)
    await inngest_api.ledger.wait_for_ids(1, timeout_seconds=PATIENCE_SECONDS)


async def run_in_node(client_package: Path, script: str) -> Any:
    """What the script printed, as JSON."""
    node = await asyncio.create_subprocess_exec(
        str(shutil.which("node")),
        "--input-type=module",
        "--eval",
        script,
        cwd=client_package,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(PATIENCE_SECONDS):
        out, err = await node.communicate()
    assert node.returncode == 0, err.decode()
    return json.loads(out)


async def test_the_client_works_in_node(
    client_package: Path, service: Process, inngest_api: FakeInngest
) -> None:
    session = await session_of(service.url)
    script = f"""
    import {{ OutboxClient }} from "inngest-outbox-client";
    const headers = () => ({{ cookie: "{COOKIE}={session}" }});
    const outbox = new OutboxClient({{ baseUrl: "{service.url}", headers }});
    const {{ eventId }} = await outbox.submit({{ documentName: "example" }});
    const seen = [];
    for await (const event of outbox.watch(eventId)) seen.push(event.state);
    const last = await outbox.waitFor(eventId);
    const refused = await outbox.takeBack(eventId).catch((error) => error.code);
    const {{ events }} = await outbox.list({{ state: "delivered" }});
    const listed = events.map((event) => event.id);
    console.log(JSON.stringify({{ eventId, seen, last, refused, listed }}));
    """
    told = await run_in_node(client_package, script)
    assert told["seen"][-1] == told["last"]["state"] == "delivered"
    assert told["refused"] == "event_left"
    assert told["listed"] == [told["eventId"]] == list(inngest_api.ledger.ids)


async def test_events_of_a_machine_leave_together_and_once(
    client_package: Path, tmp_path: Path, inngest_api: FakeInngest
) -> None:
    url = f"sqlite:///{tmp_path / 'outbox.db'}"
    settings = environment(url, inngest_api.url, OUTBOX_EVENT_KEYS="shop:0123456789abcdef")
    async with running("serve", environment=settings) as service:
        script = f"""
        import {{ OutboxClient }} from "inngest-outbox-client";
        const headers = async () => ({{ authorization: "Bearer 0123456789abcdef" }});
        let requests = 0;
        const lossy = async (url, init) => {{
          const answer = await fetch(url, init);
          requests += 1;
          if (requests === 1) throw new TypeError("The answer is lost.");
          return answer;
        }};
        const outbox = new OutboxClient({{ baseUrl: "{service.url}", headers, fetch: lossy }});
        const path = "/api/events";
        const send = (n) => outbox.submit({{ name: "n", data: {{ n }} }}, {{ path }});
        const all = await Promise.all([1, 2, 3].map(send));
        console.log(JSON.stringify({{ ids: all.map((one) => one.eventId), requests }}));
        """
        told = await run_in_node(client_package, script)
        await inngest_api.ledger.wait_for_ids(3, timeout_seconds=PATIENCE_SECONDS)
    arrived = [json.loads(kept.event)["data"]["n"] for kept in inngest_api.ledger.kept()]
    assert (sorted(arrived), len(set(told["ids"])), told["requests"]) == ([1, 2, 3], 3, 2)


def test_the_client_passes_its_own_tests(client_package: Path) -> None:
    npm(client_package, "test")


async def test_the_packed_client_has_the_types_of_a_running_service(
    client_package: Path, tmp_path: Path, inngest_api: FakeInngest
) -> None:
    types_file = ROOT / "examples" / "event-types" / "event-types.yaml"
    settings = environment(
        f"sqlite:///{tmp_path / 'outbox.db'}",
        inngest_api.url,
        OUTBOX_EVENT_KEYS="shop:0123456789abcdef",
        EVENT_TYPES_FILE=str(types_file),
    )
    project = await asyncio.to_thread(project_with, client_package, tmp_path / "project")
    async with running("serve", environment=settings) as service:
        make = ("inngest-outbox-client", "types", service.url, "-o", "outbox.d.ts")
        await asyncio.to_thread(npm, project, "exec", "--", *make)
    strict = (
        "--strict",
        "--noEmit",
        "--skipLibCheck",
        "--target",
        "es2022",
        "--module",
        "nodenext",
    )
    npm(project, "exec", "--", "tsc", *strict, "types.ts")


def project_with(client_package: Path, project: Path) -> Path:
    """A project of somebody else that has the packed client and the tools of its tests."""
    project.mkdir()
    npm(client_package, "pack", "--ignore-scripts", "--pack-destination", str(project))
    [packed] = project.glob("*.tgz")
    tools = json.loads((client_package / "package.json").read_text())["devDependencies"]
    with_packages(project, str(packed), *(f"{name}@{tools[name]}" for name in tools))
    shutil.copy(client_package / "tests" / "types.ts", project)
    (project / "package.json").write_text('{"type": "module"}')
    return project
