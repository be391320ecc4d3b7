"""The bench's own rules: verdicts, ratios, counted syncs."""

from __future__ import annotations

from bench import goals, posts
from bench.costs import differences
from bench.rounds import ratio

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


def test_both_kinds_of_sync_are_counted_from_their_column():
    assert posts.count_syncs(_STRACE) == 524


def test_a_cost_that_rose_fell_or_is_new_is_a_difference():
    before = {"accept": {"COMMIT": 50, "gone": 1}}
    now = {"accept": {"COMMIT": 51, "new": 2}}

    assert differences(before, before) == []
    assert len(differences(before, now)) == 3
