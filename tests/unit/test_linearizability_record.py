"""The record of a history: what a release says of the claim before it."""

from __future__ import annotations

from tests.support.linearizability.record import Call, complete


def test_what_is_released_was_claimed_in_the_same_life_of_the_service() -> None:
    truth = Call("tables-0", "truth", None, 90, 100, {"rows": [], "claims": [], "paused": False})
    calls = [truth, Call("service1-4", "release", ["e-1"], 200)]

    complete(calls)

    [claim] = [call for call in calls if call.kind == "claim"]
    assert (claim.began_ns, claim.ended_ns, claim.told) == (101, 200, ["e-1"])
