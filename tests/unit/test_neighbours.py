from __future__ import annotations

import pytest

from tests.support.neighbours import lacks


@pytest.mark.parametrize(("ci", "outcome"), [("1", pytest.fail), ("", pytest.skip)])
def test_a_missing_neighbour_fails_in_ci_and_is_skipped_at_home(
    monkeypatch: pytest.MonkeyPatch, ci: str, outcome: type
) -> None:
    monkeypatch.setenv("CI", ci)
    with pytest.raises(outcome.Exception, match="pgbouncer"):
        lacks("pgbouncer")
