"""The record of a history: torn lines, and what a release says of the claim before it."""

from __future__ import annotations

from pathlib import Path

from tests.support.linearizability.record import Call, Recorder, complete, read_calls


def test_what_is_released_was_claimed_in_the_same_life_of_the_service() -> None:
    truth = Call("tables-0", "truth", None, 90, 100, {"rows": [], "claims": [], "paused": False})
    calls = [truth, Call("service1-4", "release", ["e-1"], 200)]

    complete(calls)

    [claim] = [call for call in calls if call.kind == "claim"]
    assert (claim.began_ns, claim.ended_ns, claim.told) == (101, 200, ["e-1"])


def test_a_line_that_a_kill_has_torn_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "calls"
    Recorder(path, "killed").note("truth", {"rows": ["e-1"]})
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.rindex(b"e-1")])
    Recorder(path, "later").note("count", 3)

    calls = {call.name: call for call in read_calls(path)}

    assert [(call.kind, call.ended_ns is None) for call in calls.values()] == [
        ("truth", True),
        ("count", False),
    ]
