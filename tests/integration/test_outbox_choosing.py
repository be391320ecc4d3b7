"""How the commands choose rows: by ids and their beginnings, by time; the same on both stores."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import json
import os
import platform
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner

from inngest_outbox.console.commands.main import app
from inngest_outbox.console.operations.search import SearchPolicy
from inngest_outbox.console.terminal import options, selection
from inngest_outbox.outbox.model import State
from tests.support.outbox_command import SCRIPT, outbox_command, outbox_json
from tests.support.rows import bury_all
from tests.support.storage import append_all, event, storage_at
from tests.support.virtual_time import VirtualLoop, now

NOON_MS = 1_795_608_000_000  # 2026-11-25 12:00 UTC
MINUTE_MS = 60_000


@pytest.fixture
async def outbox(store_url: str) -> None:
    """Four dead events, whose outbox no service holds."""
    async with storage_at(store_url).open() as opened:
        await bury_all(
            opened,
            *(
                msgspec.structs.replace(
                    event(f"u-{n}", name="a\x1b[2J"),
                    id=event_id,
                    accepted_at_ms=NOON_MS + n * MINUTE_MS,
                )
                for n, event_id in enumerate(("019e-aa", "019e-ab", "019f-aa", "019f-b"))
            ),
        )


async def listed(store_url: str, *options: str) -> list[str]:
    return [row["id"] for row in await outbox_json(store_url, "list", *options)]


def asked(store_url: str, words: str) -> dict[str, str]:
    """How bash asks for what the last word may become."""
    return {
        "_OUTBOX_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(words.count(" ")),
        "OUTBOX_URL": store_url,
    }


async def completed(environment_url: str, words: str) -> list[str]:
    """What bash is offered for the last word."""
    runner = CliRunner(env=asked(environment_url, words))
    result = await asyncio.to_thread(runner.invoke, app, [], prog_name="outbox")
    assert result.exit_code == 0
    return result.stdout.split()


async def told_by_zsh(environment_url: str, words: str) -> str:
    """What zsh is offered for the last word, with its meaning."""
    asking = {"_OUTBOX_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": words}
    runner = CliRunner(env={**asking, "OUTBOX_URL": environment_url})
    return (await asyncio.to_thread(runner.invoke, app, [], prog_name="outbox")).stdout


@pytest.mark.usefixtures("outbox")
async def test_a_beginning_of_an_id_names_an_event_and_of_several_none(store_url: str) -> None:
    assert (await outbox_json(store_url, "show", "019f-a"))["id"] == "019f-aa"
    assert (await outbox_json(store_url, "show", "019f-b", "--payload"))["payload"]
    row = "  {}  dead  a\ufffd[2J\n".format
    first = f"outbox: 019e is the beginning of 2 ids:\n{row('019e-ab')}{row('019e-aa')}"
    second = f"outbox: 019f is the beginning of 2 ids:\n{row('019f-b')}{row('019f-aa')}"
    for command, told in (
        ("show 019e", first),
        ("replay 019e 019f-b --yes", first),
        ("discard 019e 019f", first + second),
    ):
        assert await outbox_command(store_url, *command.split()) == (2, "", told)
    for command in ("replay", "discard"):
        code, _, err = await outbox_command(store_url, command, "019f-b", "--user", "u-0", "--yes")
        assert (code, "019f-b: it does not match the filter" in err) == (1, True)
    assert len(await listed(store_url, "--state", "dead")) == 4


@pytest.mark.usefixtures("outbox")
async def test_rows_are_changed_by_how_their_ids_begin(store_url: str) -> None:
    answer = await outbox_json(store_url, "replay", "019e-aa", "019f-a", "--all", "--yes")
    assert sorted(answer["ids"]) == ["019e-aa", "019f-aa"]
    code, _, err = await outbox_command(store_url, "replay", "019f-a", "--yes")
    assert code == 1
    assert "019f-aa: it is pending. Nothing was changed." in err
    discard = ("discard", "019f-b", "--all", "--yes")
    assert (await outbox_json(store_url, *discard))["ids"] == ["019f-b"]
    code, _, err = await outbox_command(store_url, "discard", "019f-b", "--yes")
    assert (code, "019f-b: there is no such event" in err) == (1, True)


@pytest.mark.usefixtures("outbox")
async def test_rows_are_listed_and_changed_by_the_time_of_their_acceptance(store_url: str) -> None:
    assert await listed(store_url, "--since", " 2026-11-25T12:02 ") == ["019f-b", "019f-aa"]
    assert await listed(store_url, "--until", "2026-11-25 13:01+01:00") == ["019e-aa"]
    window = ("--since", "2026-11-25T12:01:00Z", "--until", "2026-11-25T12:02:00Z")
    assert await listed(store_url, *window) == ["019e-ab"]
    assert (await outbox_json(store_url, "replay", *window, "--yes"))["ids"] == ["019e-ab"]
    assert (await outbox_json(store_url, "discard", *window, "--state", "pending"))["ids"] == [
        "019e-ab"
    ]
    latest = ("--until", "9999-12-31T23:59:59.999999")
    assert len((await outbox_json(store_url, "replay", *latest, "--yes"))["ids"]) == 3
    last, audit = await outbox_json(store_url, "audit")
    assert "until=9999-12-31T23:59:59Z" in last["detail"]
    assert "since=2026-11-25T12:01:00Z, until=2026-11-25T12:02:00Z" in audit["detail"]
    assert audit["actor"] == f"{getpass.getuser()}@{platform.node()}"
    assert await listed(store_url, "--until", "9999d") == []


async def test_a_time_and_a_state_that_there_is_not_are_refused(tmp_path: Path) -> None:
    for option, words in (
        (("--since", "yesterday"), "10m or 7d"),
        (("--since", "0001-01-01T00:00+14:00"), "10m or 7d"),
        (("--until", "9999-12-31T23:59:59-14:00"), "10m or 7d"),
        (("--state", "nope"), "write one of pending, delivering, sent, delivered, dead"),
    ):
        code, _, err = await outbox_command(tmp_path / "outbox.db", "list", *option)
        told = " ".join(err.replace("│", " ").split())
        assert (code, words in told, "Value error" in told) == (2, True, False), told


@pytest.mark.usefixtures("outbox")
async def test_a_list_that_is_cut_says_how_many_there_are(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, _, err = await outbox_command(store_url, "list", "--limit", "3")
    words, cursor = err.split(" --cursor ")
    assert words == "3 of 4; --limit shows more,"
    below = ("--cursor", cursor.split()[0], "--reason", "rejected")
    assert await listed(store_url, *below) == ["019e-aa"]
    _, _, err = await outbox_command(store_url, "list", "--limit", "4")
    assert err == ""
    _, out, err = await outbox_command(store_url, "list", "--limit", "1", "--json")
    assert ([row["state"] for row in json.loads(out)], err) == ([State.DEAD], "")
    hasty = SearchPolicy(first_window=1, budget_seconds=0.0)
    monkeypatch.setattr(selection, "_TOLD_OFTEN", hasty)
    back = "Searched back to rows of 2026-11-25 12:0{}:00 UTC; {} found.\n".format
    first, second = back(3, "1 row"), back(2, "2 rows")
    whole = first + second + back(1, "3 rows")
    for limit, told in (("4 rows", whole), ("2 rows", first), ("1 row", "")):
        _, out, err = await outbox_command(store_url, "replay", "--all", "--limit", limit[0])
        reached = f"The limit of {limit} is reached: more may match. Run the command again, "
        assert f"Would replay {limit}." in out
        assert err == f"{told}{reached}or give a larger --limit.\n"


@pytest.mark.usefixtures("outbox")
async def test_the_shell_completes_ids_and_tells_what_they_are(store_url: str) -> None:
    assert await completed(store_url, "outbox show 019f") == ["019f-b", "019f-aa"]
    assert await completed(store_url, "outbox discard 019e-aa 019e-ab") == ["019e-ab"]
    assert await completed(store_url, "outbox verify --ids 019f-a") == ["019f-aa"]
    assert len(await completed(store_url, "outbox show ")) == 4
    assert await completed(store_url, "outbox show a\udcff") == []
    assert '"019f-b":"dead a\ufffd[2J rejected"' in await told_by_zsh(store_url, "outbox show 019f")
    given = f"outbox show --url {store_url}"
    assert await completed("nonsense", f"{given} 019f-a") == ["019f-aa"]
    assert (await outbox_json(store_url, "replay", "019e-aa", "--yes"))["done"]
    assert await completed(store_url, "outbox replay 019e") == ["019e-ab"]
    assert await completed(store_url, "outbox discard 019e") == ["019e-ab", "019e-aa"]
    assert '"019e-aa":"pending a\ufffd[2J"' in await told_by_zsh(store_url, "outbox show 019e")
    async with storage_at(store_url).open() as opened:
        await append_all(opened, 27)
    assert len(await completed(store_url, "outbox show 0")) == 30  # the newest of 31
    assert await completed(store_url, "outbox show 019e-aa") == ["019e-aa"]  # the oldest


async def test_completion_is_silent_without_an_outbox(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await completed(f"sqlite:///{tmp_path / 'none.db'}", "outbox show 0") == []
    assert await completed("postgresql://127.0.0.1:1/none", "outbox show 0") == []
    assert await completed("nonsense", "outbox show 0") == []
    monkeypatch.setenv("OUTBOX_SCHEMA", "a b")
    assert await completed("postgresql://h/x", "outbox show 0") == []


def test_completion_gives_up_on_an_outbox_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    gave_up_at = list[float]()

    @contextlib.asynccontextmanager
    async def hanging(_: str) -> AsyncIterator[None]:
        try:
            await asyncio.sleep(60)
            yield
        finally:
            gave_up_at.append(now())

    def run(work: Coroutine[None, None, None]) -> None:
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            runner.run(work)

    monkeypatch.setattr(options, "open_reading", hanging)
    monkeypatch.setattr(options, "asyncio", SimpleNamespace(run=run, timeout=asyncio.timeout))
    asking: Any = SimpleNamespace(info_name="show", params={})
    assert list(options.complete_ids(asking, "0")) == []
    assert gave_up_at == [2.0]


async def test_the_script_completes_states_for_the_shell() -> None:
    variables = os.environ | asked("", "outbox list --state de")
    process = await asyncio.create_subprocess_exec(
        *SCRIPT, env=variables, stdout=asyncio.subprocess.PIPE
    )
    offered, _ = await process.communicate()
    assert offered.decode().split() == ["delivering", "delivered", "dead"]


@pytest.mark.usefixtures("outbox")
async def test_a_change_that_stops_at_its_limit_says_so(store_url: str) -> None:
    _, out, err = await outbox_command(store_url, "replay", "--all", "--limit", "3", "--yes")
    assert (out, "The limit of 3 rows" in err) == ("Replayed 3 rows.\n", True)
    _, out, err = await outbox_command(store_url, "replay", "--all", "--limit", "3", "--yes")
    assert (out, "is reached" in err) == ("Replayed 1 row.\n", False)
    assert (await outbox_command(store_url, "list", "--state", "dead", "--json"))[2] == ""
    discard = ("discard", "--state", "pending", "--limit", "3")
    _, out, err = await outbox_command(store_url, *discard)
    assert ("Would discard 3 rows." in out, "The limit of 3 rows" in err) == (True, True)
