"""`outbox sign-out`: an operator ends a user's sessions, whether the service runs or not."""

from __future__ import annotations

from pathlib import Path

from inngest_outbox.dev.fake_inngest.server import FakeInngest
from tests.support.fleet import environment, running
from tests.support.outbox_command import outbox_command
from tests.support.poster import Poster


async def who(poster: Poster) -> str | None:
    user = (await poster.ask("GET", "/auth/session"))[1]["user"]
    return user and user["id"]


async def test_a_running_service_ends_the_sessions_at_once(
    tmp_path: Path, inngest_api: FakeInngest
) -> None:
    path = tmp_path / "outbox.db"
    settings = environment(f"sqlite:///{path}", inngest_api.url)
    async with running("serve", environment=settings) as service:
        ada, bob = Poster(service.url), Poster(service.url)
        await ada.sign_in("ada")
        await bob.sign_in("bob")
        code, out, _ = await outbox_command(path, "sign-out", "ada", "--actor", "kim")
        assert (code, "Ended the sessions of ada" in out) == (0, True)
        await service.said('"sign_out".*"operator_action"')
        assert (await who(ada), await who(bob)) == (None, "bob")
        await ada.sign_in("ada")
        assert await who(ada) == "ada"
        await outbox_command(path, "sign-out", "ada", "--issuer", "https://issuer.example")
        assert await who(ada) == "ada"
        await ada.http.close()
        await bob.http.close()
