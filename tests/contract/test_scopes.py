"""The scopes of settings as the store keeps them."""

from __future__ import annotations

from service.identity.session_revision import SessionRevisions
from tests.support.storage import Outbox, Storage, eventually


async def test_a_scope_is_loaded_as_it_was_saved(outbox: Outbox) -> None:
    settings: dict[str, object] = {"a": {"b": [1, None, "ü\x00"]}, "c": 1.5}
    assert await outbox.settings.load_scope("user", "u-1") is None
    await outbox.settings.save_scope("user", "u-1", settings)
    await outbox.settings.save_scope("organization", "u-1", {"other": True})
    assert await outbox.settings.load_scope("user", "u-1") == settings
    await outbox.settings.save_scope("user", "u-1", {})
    assert await outbox.settings.load_scope("user", "u-1") == {}
    assert await outbox.settings.load_scope("organization", "u-1") == {"other": True}


async def test_a_users_session_revision_is_a_scope_of_its_own(outbox: Outbox) -> None:
    await outbox.settings.save_scope("user", "dev u-1", {"a": 1})
    revisions = SessionRevisions(outbox.settings)
    assert await revisions.current("dev u-1") == ""
    await revisions.end_all("dev u-1")
    ended = await SessionRevisions(outbox.settings).current("dev u-1")
    assert ended != ""
    assert await outbox.settings.load_scope("user", "dev u-1") == {"a": 1}


async def test_saving_a_scope_raises_the_revision(outbox: Outbox) -> None:
    before = outbox.settings.scope_revision
    await outbox.settings.save_scope("user", "u-1", {"a": 1})
    await eventually(lambda: outbox.settings.scope_revision > before)


async def test_scopes_survive_a_restart(storage: Storage) -> None:
    async with storage.open() as outbox:
        await outbox.settings.save_scope("user", "u-1", {"a": 1})
    async with storage.open() as outbox:
        assert await outbox.settings.load_scope("user", "u-1") == {"a": 1}
