"""Batches of events for the fake Inngest, and how they are posted to it."""

from __future__ import annotations

import aiohttp

EVENTS = [{"id": f"e{n}", "name": "a", "data": {"documentName": f"d{n}"}} for n in range(3)]
POISONED = {"id": "bad", "name": "a", "data": {"documentName": "poison apple"}}


async def post(http, api, events=EVENTS, seconds=5.0):
    limit = aiohttp.ClientTimeout(total=seconds)
    async with http.post(
        f"{api.url}/e/key", json=events, timeout=limit, allow_redirects=False
    ) as response:
        return response.status, await response.text(), response.headers
