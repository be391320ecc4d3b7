"""What the bench writes: its table, and a backlog that is what posts leave."""

from __future__ import annotations

import contextlib
import json
import sqlite3

import msgspec

from bench import goals, results
from bench.fill import fill
from bench.rounds import Run
from service.identity.user import User
from service.outbox.event import encode_event


def test_the_table_replaces_what_stands_between_the_marks_of_its_page(tmp_path):
    page = tmp_path / "performance.md"
    page.write_text("before\n<!-- bench: begin -->\nold\n<!-- bench: end -->\nafter\n")

    goals.put_into(page, {"start": 0.5})

    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "old" not in text
    assert "| start to first answer | <= 1 s | 0.50 s | met |" in text


def test_figures_that_a_part_did_not_measure_stay(tmp_path):
    page = tmp_path / "performance.md"
    page.write_text("<!-- bench: begin -->\n<!-- bench: end -->\n")
    file = tmp_path / "results.json"
    whole = Run(
        quick=False,
        folder=tmp_path,
        figures={"start": 0.5, "posts_confirmed": 0.7},
        details={"machine": "one"},
    )
    results.write(whole, tmp_path, keep=False, results=file)

    part = Run(
        quick=False,
        folder=tmp_path,
        figures={"posts_confirmed": 0.95},
        details={"machine": "two", "posts": 1},
    )
    results.write(part, tmp_path, keep=True, results=file)

    found = json.loads(file.read_text())
    assert {key: one["figure"] for key, one in found["goals"].items()} == {
        "start": 0.5,
        "posts_confirmed": 0.95,
    }
    assert (found["machine"], found["posts"]) == ("one", 1)
    assert "| 0.50 s | met |" in page.read_text()
    assert "| >= 0.9 | 0.95 | met |" in page.read_text()


def test_a_filled_backlog_holds_what_posts_leave(tmp_path):
    class Data(msgspec.Struct, rename="camel"):
        document_name: str
        bucket: str
        region: str
        app_settings: dict[str, object]

    path = tmp_path / "outbox.db"
    fill(path, 3)

    with contextlib.closing(sqlite3.connect(path)) as connection:
        rows = connection.execute(
            "SELECT event_id, user_id, accepted_at_ms, payload, payload_bytes "
            "FROM outbox JOIN outbox_ready USING (seq) ORDER BY seq"
        ).fetchall()
    assert len(rows) == 3
    event_id, user_id, accepted_at, payload, size = rows[2]
    user = User("dev", user_id, "ada@example.com", "Ada")
    data = Data("example", "documents", "eu-west-1", {})
    made = encode_event("documents/aws.index", data, user, accepted_at)
    assert payload.replace(event_id.encode(), made.id.encode()) == made.payload
    assert size == len(payload)
