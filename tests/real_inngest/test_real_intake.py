"""What the Event API answers, and the ids that it gives."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from service.dev.fake_inngest.event_api import SEED_HEADER
from tests.real_inngest.answers import ANSWERS
from tests.real_inngest.inngest_handle import Inngest
from tests.support.inngest_process import EVENT_KEY

ULID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")


@pytest.mark.parametrize("case", ANSWERS["intake"], ids=lambda case: case["body"] or "nothing")
async def test_a_request_is_answered_so(inngest: Inngest, case: dict[str, Any]) -> None:
    status, answer = await inngest.post(case["body"], key=case.get("key", EVENT_KEY))
    ids = answer.get("ids")
    shown = None if ids is None else ["ULID" if ULID.fullmatch(one) else one for one in ids]
    assert (status, answer["status"], shown) == (case["status"], case["status"], case["ids"])
    assert ("error" in answer) == (status != 200)


@pytest.mark.parametrize("case", ANSWERS["seeds"], ids=lambda case: case["seed"])
async def test_a_seed_gives_these_ids(inngest: Inngest, case: dict[str, Any]) -> None:
    events = json.dumps([{"name": "a"}, {"name": "a"}])
    given = [(await inngest.post(events, {SEED_HEADER: case["seed"]}))[1]["ids"] for _ in range(2)]
    if case["ids"]:
        assert given == [case["ids"], case["ids"]]
    else:
        assert len({*given[0], *given[1]}) == 4
