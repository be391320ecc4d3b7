"""Which settings a PostgreSQL outbox stores, and what a bulk change leaves in the audit."""

from __future__ import annotations

from typing import Any

import pytest

from service.outbox.postgres.settings import SAVE_AUDITED, PostgresSettings
from tests.support.postgres_room import START_MS, Room, RoomPool


class Wakeup:
    def settings_were_saved(self) -> None:
        return


@pytest.fixture
def settings(pool: Any) -> PostgresSettings:
    given: Any = Wakeup()
    return PostgresSettings(pool, given, given)


async def test_settings_are_those_of_a_scope_and_an_id(settings: PostgresSettings) -> None:
    await settings.save_scope("user", "ada", {"a": 1})
    await settings.save_scope("user", "bob", {"b": 2})
    await settings.save_scope("organization", "ada", {"c": 3})
    await settings.save_scope("user", "ada", {"d": [4]})
    assert await settings.load_scope("user", "ada") == {"d": [4]}
    assert await settings.load_scope("user", "bob") == {"b": 2}
    assert await settings.load_scope("organization", "ada") == {"c": 3}
    assert await settings.load_scope("organization", "bob") is None


async def test_every_save_raises_the_revision_by_one(
    room: Room, settings: PostgresSettings
) -> None:
    for revision in (1, 2):
        await settings.save_scope("user", "ada", {})
        assert settings.scope_revision == revision
    await settings.save_audited("user", {"ada": {}, "bob": {}}, actor="a", action="b", detail="c")
    assert settings.scope_revision == 3
    assert room.run("SELECT settings_revision FROM outbox_meta") == [(3,)]


async def test_a_bulk_change_is_in_the_audit_once(
    room: Room, settings: PostgresSettings, pool: RoomPool
) -> None:
    room.at(5)
    await settings.save_scope("user", "ada", {"old": 1})
    await settings.save_audited("user", {"ada": {}}, actor="di", action="import", detail="one")
    given = {"ada": {"a": 1}, "bob": {"b": 2}}
    await settings.save_audited("user", given, actor="cy", action="import", detail="two")
    assert await settings.load_scope("user", "ada") == {"a": 1}
    assert await settings.load_scope("user", "bob") == {"b": 2}
    _, saved, _ = pool.asked[-3]
    assert saved["actor"] == "cy"
    room.run(SAVE_AUDITED, saved)  # its answer was lost
    earlier, audited = room.table("audit")
    assert earlier["actor"] == "di"
    names = ("at_ms", "actor", "action", "detail", "ids")
    said = [START_MS + 5000, "cy", "import", "two", "[]"]
    assert [audited[name] for name in names] == said
