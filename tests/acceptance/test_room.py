"""A running service without room, for one user or for anybody: what it answers, and to whom."""

from __future__ import annotations

from pathlib import Path

from service.dev.fake_inngest.faults import ScriptedAnswer
from service.dev.fake_inngest.server import FakeInngest
from tests.support.fleet import environment
from tests.support.poster import GOOD, Poster
from tests.support.service_here import service_here
from tests.support.storage import eventually


async def test_a_user_without_room_and_a_full_outbox_are_told_so_and_used_keys_still_answer(
    tmp_path: Path,
) -> None:
    async with FakeInngest() as failing:
        failing.faults.add(ScriptedAnswer(500), times=None)
        settings = environment(
            f"sqlite:///{tmp_path / 'outbox.db'}",
            failing.url,
            OUTBOX_MAX_PENDING="3",
            OUTBOX_MAX_PENDING_PER_USER="2",
        )
        async with service_here(settings) as service:
            ada, bob = Poster(service.url), Poster(service.url)
            await ada.sign_in("ada")
            await bob.sign_in("bob")
            _, first = await ada.post(Idempotency_Key="k")
            assert (await ada.post())[0] == 200
            assert await ada.refused(json=GOOD) == (429, "too_many_pending")
            assert int(ada.headers["Retry-After"]) > 0
            assert (await bob.post())[0] == 200
            assert await bob.refused(json=GOOD) == (503, "outbox_full")
            assert int(bob.headers["Retry-After"]) > 0
            # This user's own limit is asked before the outbox's, a used key before both.
            assert await ada.refused(json=GOOD) == (429, "too_many_pending")
            assert await ada.post(Idempotency_Key="k") == (200, first)
            other = {"json": {"documentName": "other"}, "headers": {"Idempotency-Key": "k"}}
            assert await ada.refused(**other) == (422, "idempotency_key_reused")
            failing.faults.clear()
            await eventually(bob.post, lambda answer: answer[0] == 200)
            await ada.http.close()
            await bob.http.close()
