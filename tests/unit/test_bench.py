"""The bench's own rules: verdicts, ratios, counted syncs, a backlog that is what posts leave."""

from __future__ import annotations

import contextlib
import sqlite3

import msgspec

from bench import goals, posts
from bench.costs import differences
from bench.fill import fill
from bench.rounds import ratio
from service.identity.user import User
from service.outbox.event import encode_event

_STRACE = """\
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 98.30    0.059200         115       514           fdatasync
  1.70    0.001000         100        10         2 fsync
------ ----------- ----------- --------- --------- ----------------
100.00    0.060200         115       524         2 total
"""


def test_a_goal_is_met_at_its_limit_and_missed_beyond_it():
    least = goals.at_least("posts", 0.45, "posts")
    most = goals.at_most("p99", 1.2, "p99")

    assert [goals.verdict(least, figure) for figure in (0.45, 0.449)] == ["met", "**missed**"]
    assert [goals.verdict(most, figure) for figure in (1.2, 1.21)] == ["met", "**missed**"]
    assert goals.verdict(most, None) == "not measured"


def test_a_spoiled_round_does_not_move_the_ratio():
    above = [{"per_second": figure} for figure in (5.0, 0.1, 6.0)]
    below = [{"per_second": figure} for figure in (10.0, 10.0, 10.0)]

    assert ratio(above, below, "per_second") == 0.5


def test_the_table_replaces_what_stands_between_the_marks_of_the_readme(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- bench: begin -->\nold\n<!-- bench: end -->\nafter\n")

    goals.put_into(readme, {"start": 0.5})

    text = readme.read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "old" not in text
    assert "| start to first answer | <= 1 s | 0.50 s | met |" in text


def test_both_kinds_of_sync_are_counted_from_their_column():
    assert posts.count_syncs(_STRACE) == 524


def test_a_cost_that_rose_fell_or_is_new_is_a_difference():
    before = {"accept": {"COMMIT": 50, "gone": 1}}
    now = {"accept": {"COMMIT": 51, "new": 2}}

    assert differences(before, before) == []
    assert len(differences(before, now)) == 3


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
            "SELECT id, user_id, accepted_at, payload, bytes FROM outbox JOIN ready USING (seq)"
            " ORDER BY seq"
        ).fetchall()
    assert len(rows) == 3
    event_id, user_id, accepted_at, payload, size = rows[2]
    user = User(user_id, "ada@example.com", "Ada")
    data = Data("example", "documents", "eu-west-1", {})
    made = encode_event("documents/aws.index", data, user, accepted_at)
    assert payload.replace(event_id.encode(), made.id.encode()) == made.payload
    assert size == len(payload)
