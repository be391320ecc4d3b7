"""Prometheus loads the alerts and scrapes every process that has figures."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import aiohttp

from tests.stack.stack import Stack
from tests.stack.table import Table

TARGETS = 3  # the service and two replicas
LIMIT_SECONDS = 60
RULES = "/etc/prometheus/alerts.yml"


async def look_at_prometheus(stack: Stack, table: Table) -> None:
    """The rules and the targets, as Prometheus sees them."""
    async with aiohttp.ClientSession(stack.url("prometheus")) as http:
        groups = (await _ask(http, "rules"))["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        sick = [rule["name"] for rule in rules if rule["health"] == "err"]
        table.add(
            "prometheus: rules",
            f"{len(rules)} loaded, {len(sick)} with errors",
            good=bool(rules) and not sick,
        )
        targets = await _settled(http)
        up = [target for target in targets if target["health"] == "up"]
        table.add(
            "prometheus: targets",
            f"{len(up)} of {len(targets)} up",
            good=len(up) == len(targets) == TARGETS,
        )
        checked = stack.inside("prometheus", "promtool", "check", "rules", RULES)
        table.add("prometheus: promtool check rules", checked.strip().splitlines()[-1].strip())


async def _settled(http: aiohttp.ClientSession) -> list[dict[str, Any]]:
    deadline = time.monotonic() + LIMIT_SECONDS
    while True:
        found: list[dict[str, Any]] = (await _ask(http, "targets"))["activeTargets"]
        up = [target for target in found if target["health"] == "up"]
        if len(up) == len(found) == TARGETS or time.monotonic() > deadline:
            return found
        await asyncio.sleep(0.5)


async def _ask(http: aiohttp.ClientSession, what: str) -> dict[str, Any]:
    async with http.get(f"/api/v1/{what}") as answer:
        found: dict[str, Any] = (await answer.json())["data"]
        return found
