"""Those who post, deliver and ask over HTTP, beside operators."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp

from inngest_outbox.bootstrap.stores import Outbox
from inngest_outbox.errors import OutboxError
from inngest_outbox.outbox.model import Batch, Dead, Retry, Settlement, State
from tests.support.confirmed_delivery import event_for_inngest
from tests.support.linearizability.actors import Actor
from tests.support.linearizability.record import Recorder
from tests.support.storage import ask

_FEW = 5


class Sender(Actor):
    """Posts, and delivers as a relay and a confirmer do unless `delivers` is False."""

    def __init__(
        self,
        chance: random.Random,
        recorder: Recorder,
        known: deque[str],
        outbox: Outbox,
        *,
        delivers: bool = True,
    ) -> None:
        super().__init__(chance, recorder, known)
        self._delivers = delivers
        self._outbox = outbox
        self._sent: list[tuple[int, str]] = []
        self._settled = deque[tuple[Settlement, int]](maxlen=_FEW)

    def acts(self) -> dict[Callable[[], Awaitable[object]], float]:
        posts = {self.post: 3.0, self.post_several: 1.0, self.find: 1.0}
        delivers = {self.deliver: 3.0, self.confirm: 2.0, self.settle_again: 1.0}
        return {**posts, **delivers} if self._delivers else posts

    async def post(self) -> None:
        await self._append(1)

    async def post_several(self) -> None:
        await self._append(self.chance.randrange(2, 6))

    async def find(self) -> None:
        if event_id := self.one():
            find = self._outbox.intake.find
            await self.record(
                "show", event_id, lambda: find(event_id), lambda row: row.state if row else None
            )

    async def deliver(self) -> None:
        if not self._outbox.undelivered:
            return
        wanted = ask(self.chance.choice((1, 3, 20)))
        try:
            batch = await self._outbox.queue.claim(wanted)  # recorded by the outbox
        except OutboxError:
            await asyncio.sleep(0.02)
            return
        await asyncio.sleep(self.chance.choice((0.0, 0.003, 0.02)))
        settlement, asked = self._settlement(batch)
        settle = self._outbox.queue.settle
        stale = await self.record("settle", asked, lambda: settle(settlement), int)
        if stale is not None:
            self._settled.append((settlement, len(batch.entries)))
        self._sent += [
            (one.seq, one.event_id) for one in batch.entries if one.event_id in asked["sent"]
        ]

    async def settle_again(self) -> None:
        """A settlement that comes again finds no row under its claim, also where others have it."""
        if self._settled:
            settlement, count = self._settled.popleft()
            settle = self._outbox.queue.settle
            await self.record("settle again", count, lambda: settle(settlement), int)

    async def confirm(self) -> None:
        taken, self._sent = self._sent[:5], self._sent[5:]
        if not taken:
            return
        seqs, ids = [seq for seq, _ in taken], [event_id for _, event_id in taken]
        confirmations = self._outbox.confirmations
        if self.chance.random() < 0.2:
            await self.record("resend", ids, lambda: confirmations.resend(seqs, "lost"), int)
        else:
            await self.record("confirm", ids, lambda: confirmations.confirm(seqs), int)

    async def _append(self, count: int) -> None:
        events = [event_for_inngest() for _ in range(count)]
        ids = [event.id for event in events]
        append = self._outbox.intake.append_all
        receipts = await self.record(
            "append",
            ids,
            lambda: append(events, [None] * count),
            lambda receipts: [(one.event_id, one.seq) for one in receipts],
        )
        if receipts:
            self.known.extend(ids)

    def _settlement(self, batch: Batch) -> tuple[Settlement, dict[str, list[str]]]:
        by_end: dict[str, list[Any]] = {name: [] for name in ("delivered", "sent", "dead")}
        by_end["pending"] = []
        for entry in batch.entries:
            end = self.chance.choices(list(by_end), [3, 4, 3, 1])[0]
            by_end[end].append(entry)
        settlement = Settlement(
            batch.claim,
            delivered=[one.seq for one in by_end["delivered"]],
            sent=[one.seq for one in by_end["sent"]],
            dead=[Dead(one.seq, 1, "rejected", "it is bad") for one in by_end["dead"]],
            retry=[Retry(one.seq, 0.0, 0, isolated=False) for one in by_end["pending"]],
        )
        return settlement, {end: [one.event_id for one in ones] for end, ones in by_end.items()}


class Browser(Actor):
    """A user of the HTTP API at `url`, whose cookies `http` has."""

    def __init__(
        self,
        chance: random.Random,
        recorder: Recorder,
        known: deque[str],
        http: aiohttp.ClientSession,
        url: str,
    ) -> None:
        super().__init__(chance, recorder, known)
        self._http = http
        self._url = url

    def acts(self) -> dict[Callable[[], Awaitable[object]], float]:
        return {self.post: 2, self.events: 3, self.event: 2, self.take_back: 1}

    async def post(self) -> None:
        body = {"documentName": "example"}
        told = await self.record(
            "append",
            [],
            lambda: self._ask("POST", "/api/route", json=body),
            lambda answer: [(answer["eventId"], None)],
        )
        if told:
            self.known.append(told["eventId"])

    async def events(self) -> None:
        state = self.chance.choice((None, *(one.value for one in State)))
        asked = {"state": state, "limit": self.chance.choice((1, 5, 100))}
        query = {name: str(value) for name, value in asked.items() if value is not None}
        await self.record(
            "list",
            asked,
            lambda: self._ask("GET", "/api/events", params=query),
            lambda answer: [(one["id"], one["state"], None) for one in answer["events"]],
        )

    async def event(self) -> None:
        if event_id := self.one():
            await self.record(
                "show",
                event_id,
                lambda: self._ask("GET", f"/api/events/{event_id}"),
                lambda answer: answer.get("state"),
            )

    async def take_back(self) -> None:
        if event_id := self.one():
            await self.record(
                "discard",
                [event_id],
                lambda: self._ask("DELETE", f"/api/events/{event_id}"),
                lambda answer: [] if answer else [event_id],
            )

    async def _ask(self, method: str, path: str, **options: Any) -> Any:
        """The body of an answer; empty for 204. What 404 and 409 say has no `state`."""
        async with self._http.request(method, self._url + path, **options) as answer:
            if answer.status >= 500:
                raise aiohttp.ClientPayloadError
            assert answer.status in (200, 204, 404, 409), await answer.text()
            return None if answer.status == 204 else await answer.json()
