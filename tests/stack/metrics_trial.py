"""Prometheus loads the alerts and scrapes every process; Grafana has its dashboard's figures."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import aiohttp

from tests.stack.pinned_images import ROOT
from tests.stack.stack import Stack
from tests.stack.table import Table

TARGETS = 3  # the service and two replicas
LIMIT_SECONDS = 60
RULES = "/etc/prometheus/alerts.yml"


async def look_at_metrics(stack: Stack, table: Table) -> None:
    """The rules and the targets, as Prometheus sees them; each query of the dashboard."""
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
        await _query_dashboard(stack, table, http)


async def _query_dashboard(stack: Stack, table: Table, prometheus: aiohttp.ClientSession) -> None:
    """Grafana's home page is the repository's dashboard, and Prometheus understands its queries."""
    wanted = json.loads((ROOT / "deploy/monitoring/dashboard.json").read_text(encoding="utf-8"))
    home = f"{stack.url('grafana')}/api/dashboards/home"
    async with aiohttp.ClientSession() as http, http.get(home) as answer:
        shown = (await answer.json(content_type=None))["dashboard"].get("title")
    queries = [target["expr"] for panel in wanted["panels"] for target in panel["targets"]]
    failed = [query for query in queries if not await _answers(prometheus, query)]
    table.add(
        "grafana: home dashboard, its queries",
        f"{shown}; {len(queries)} queries, {len(failed)} not answered {failed or ''}".strip(),
        good=shown == wanted["title"] and bool(queries) and not failed,
    )


async def _answers(prometheus: aiohttp.ClientSession, query: str) -> bool:
    asked = {"query": query.replace("$__rate_interval", "1m")}
    async with prometheus.get("/api/v1/query", params=asked) as answer:
        return answer.status == 200 and (await answer.json())["status"] == "success"


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
