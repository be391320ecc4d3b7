"""An event costs what `bench/baseline.json` says: no statement, sync, hop or call more."""

from __future__ import annotations

import json

import pytest

from bench.costs import BASELINE, differences, measure
from inngest_outbox.outbox.sqlite import maintenance


@pytest.fixture(autouse=True)
def uninterrupted(monkeypatch):
    """No checkpoint comes between, however long a busy machine takes."""
    monkeypatch.setattr(maintenance, "_EVERY_SECONDS", 3600.0)


async def test_a_fixed_load_costs_what_the_committed_baseline_says():
    changed = differences(json.loads(BASELINE.read_text()), await measure())

    assert changed == [], "where this is meant: python -m bench.costs"


async def test_appends_of_64_requests_at_a_time_share_two_statements_and_one_sync():
    accept = json.loads(BASELINE.read_text())["accept"]

    statements = sum(accept.values()) - accept["hops"]
    assert (accept["COMMIT"], accept["hops"], statements) == (
        50,
        50,
        203,
    )  # one asks for the first number, two mark the log's beginning
