"""What the bench writes: its table, and a backlog that is what posts leave."""

from __future__ import annotations

import contextlib
import json
import sqlite3

import msgspec
import pytest

from bench import front_door, goals, results
from bench.fill import fill
from inngest_outbox.identity.user import User
from inngest_outbox.outbox.event import encode_event

_FOUND = {
    "goals": {
        "posts_to_parse": {"figure": 0.4145},
        "posts_to_sdk": {"figure": 13.9505},
        "drain_to_sdk": {"figure": 2.3806},
        "idle_to_direct": {"figure": 1.619},
    },
}


def test_the_table_replaces_what_stands_between_the_marks_of_its_page(tmp_path):
    page = tmp_path / "performance.md"
    page.write_text("before\n<!-- bench: begin -->\nold\n<!-- bench: end -->\nafter\n")

    goals.put_into(page, {"start": 0.5})

    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "old" not in text
    assert "| start to first answer | <= 1 s | 0.50 s | met |" in text


def test_the_readme_has_the_figures_of_the_results():
    found = json.loads(results.RESULTS.read_text())
    readme = results.README.read_text()
    assert readme == front_door.with_figures(readme, found)


def test_figures_replace_the_older_ones_of_their_rows_alone():
    page = "".join(f"{begins} old |\n" for begins in front_door.rows(_FOUND))

    told = front_door.with_figures(f"above\n{page}| another | old |\n", _FOUND)

    assert told.splitlines() == [
        "above",
        "| a handler that parses the body and stores nothing | takes 41% of its posts a second |",
        f"{front_door.SDK} takes 14.0 times as many posts a second |",
        f"{front_door.LOOP} delivers a backlog 2.4 times as fast |",
        "| a direct send, both idle | takes 1.6 times as long until the event arrives |",
        "| another | old |",
    ]
    with pytest.raises(ValueError, match="not enough values"):
        front_door.with_figures("another page", _FOUND)


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
