"""Changes of operators and of the retention reach the store as they were asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import pytest
import structlog

from inngest_outbox.console.operations.actions import OperatorActions, Payloads, SessionSignOuts
from inngest_outbox.errors import OutboxUnavailableError
from inngest_outbox.identity.session_revision import session_scope_id
from inngest_outbox.observe.recorder import NullRecorder
from inngest_outbox.outbox.audit import Act, Deed, ErasedRecords
from inngest_outbox.outbox.model import Named
from tests.support.figures import Figures
from tests.support.memory_outbox import HEALTHY_DELIVERY

ADA = "ada@example.com"
WANTED, ONE, ACT = Named(("e-1", "e-2")), Named(("e-1",)), Act("a-1", "all")
BY_ADA = {"actor": ADA, "act": ACT}
PAUSE = {"paused": True, "actor": ADA, "reason": "an upgrade"}
RESUME = {"paused": False, "actor": ADA, "ask_now": True}
ANSWERS = {
    "purge": 0,
    "purge_payloads": 3,
    "erase_records": ErasedRecords(1, 2),
    "set_paused": HEALTHY_DELIVERY,
}


def answer(name: str, what: Sequence[Any]) -> object:
    return ANSWERS[name] if name in ANSWERS else list(what[0].ids[1:])


class Changes:
    """Repairs that remember what they were asked for, and give these answers.

    The first of several rows has changed meanwhile. `told` gets nothing before.
    """

    def __init__(self, told: Sequence[object] = ()) -> None:
        self._told = told
        self.asked: list[tuple[object, ...]] = []

    def __getattr__(self, name: str) -> Any:
        async def change(*what: object, **named: object) -> object:
            assert not self._told
            self.asked.append((name, *what, named))
            return answer(name, what)

        return change


@pytest.mark.parametrize(
    ("name", "what", "named", "more", "action", "rows"),
    [
        ("replay", [WANTED], BY_ADA, {}, "replay", 1),
        ("replay", [ONE], BY_ADA, {}, "replay", 0),
        ("discard", [WANTED], BY_ADA, {}, "discard", 1),
        ("discard", [ONE], BY_ADA, {}, "discard", 0),
        ("purge", [], {"older_than_seconds": 9.0, "actor": ADA}, {}, "purge", 0),
        ("erase_records", ["dev u-1"], {"actor": ADA}, {}, "erase", None),
        ("set_paused", [], PAUSE, {"ask_now": False}, "pause", None),
        ("set_paused", [], RESUME, {"reason": ""}, "resume", None),
    ],
)
async def test_a_change_is_made_counted_and_logged_without_the_e_mail(
    name: str,
    what: list[Any],
    named: dict[str, object],
    more: dict[str, object],
    action: str,
    rows: int | None,
) -> None:
    figures = Figures()
    changes = Changes(figures.got)
    actions = OperatorActions(cast("Any", changes), figures)
    with structlog.testing.capture_logs() as lines:
        assert await getattr(actions, name)(*what, **named) == answer(name, what)
    assert changes.asked == [(name, *what, {**named, **more})]
    assert figures.got == [("count", "operator_actions", 1, ("action", action))]
    logged = {"action": action, "actor": "a***@example.com", "rows": rows}
    assert lines == [{"event": "operator_action", "log_level": "warning", **logged}]


async def test_the_retention_is_an_actor_in_the_log_and_of_payloads_there_is_no_word() -> None:
    changes = Changes()
    actions = OperatorActions(cast("Any", changes), NullRecorder())
    with structlog.testing.capture_logs() as lines:
        assert await actions.purge(older_than_seconds=90.0, actor=None) == 0
        assert await actions.purge_payloads(older_than_seconds=60.0) == 3
    assert [line["actor"] for line in lines] == ["retention"]
    rows = ("purge", {"older_than_seconds": 90.0, "actor": None})
    assert changes.asked == [rows, ("purge_payloads", {"older_than_seconds": 60.0})]


class Saved:
    """Scopes that remember what was saved, and the deeds. `told` gets nothing before."""

    def __init__(self, told: Sequence[object]) -> None:
        self._told = told
        self.saved: list[tuple[str, int, Deed]] = []
        self.values: dict[str, object] = {}

    async def save_audited(
        self, scope: str, settings: Mapping[str, dict[str, object]], deed: Deed
    ) -> None:
        assert not self._told
        self.values |= settings
        self.saved.append((scope, len(settings), deed))


@pytest.mark.parametrize("owners", [["dev Ada"], ["shared u-1", "https://id.example u-1"]])
@pytest.mark.parametrize("logged", [False, True])
async def test_a_sign_out_is_in_the_audit_and_in_the_log_of_a_service(
    owners: list[str], *, logged: bool
) -> None:
    count = len(owners)
    with structlog.testing.capture_logs() as lines:
        scopes = Saved(lines)
        assert await SessionSignOuts(scopes, logged=logged).sign_out(owners, actor=ADA) == count
    deed = Deed(ADA, "sign-out", ", ".join(owners))
    assert scopes.saved == [("session", count, deed)]
    assert set(scopes.values) == {session_scope_id(owner) for owner in owners}
    assert len({str(revision) for revision in scopes.values.values()}) == count
    line = {"action": "sign_out", "actor": "a***@example.com", "owners": count}
    wanted = [{"event": "operator_action", "log_level": "warning", **line}]
    assert lines == (wanted if logged else [])


class Stored:
    """Two events' payloads, one of them removed, and an audit."""

    def __init__(self) -> None:
        self.audit: list[tuple[object, ...]] = []

    async def payload(self, event_id: str) -> bytes | None:
        return {"known": b"{}", "purged": b""}.get(event_id)

    async def record(
        self, action: str, *, actor: str, event_id: str | None = None, detail: str = ""
    ) -> None:
        self.audit.append((action, actor, event_id, detail))


class Key:
    """Opens every payload."""

    def revealed(self, payload: bytes) -> tuple[bytes, int]:
        return b"plain " + payload, 0


async def test_a_look_at_payloads_is_in_the_audit_and_counted() -> None:
    stored, figures = Stored(), Figures()
    payloads = Payloads(cast("Any", stored), cast("Any", stored), figures)
    assert await payloads.show("unknown", actor="kim") is None
    assert (stored.audit, figures.got) == ([], [])
    assert await payloads.show("known", actor="kim") == b"{}"
    assert await payloads.show("purged", actor="kim") == b""
    await payloads.searched(actor="kim")
    decrypting = Payloads(cast("Any", stored), cast("Any", stored), figures, cast("Any", Key()))
    assert await decrypting.show("known", actor="kim") == b"plain {}"
    assert stored.audit == [
        ("payload", "kim", "known", "looked at the payload"),
        ("payload", "kim", "purged", "looked at the payload"),
        ("payload", "kim", None, "searched the payloads"),
        ("payload", "kim", "known", "looked at the payload, decrypted"),
    ]
    assert figures.got == [("count", "operator_actions", 1, ("action", "payload"))] * 4


async def test_a_look_that_the_audit_does_not_take_is_neither_shown_nor_counted() -> None:
    class Full(Stored):
        async def record(self, *_: object, **__: object) -> None:
            raise OutboxUnavailableError

    stored, figures = Full(), Figures()
    payloads = Payloads(cast("Any", stored), cast("Any", stored), figures)
    for look in (payloads.show("known", actor="kim"), payloads.searched(actor="kim")):
        with pytest.raises(OutboxUnavailableError):
            await look
    assert figures.got == []
