from __future__ import annotations

import pytest

from service.inngest.rest_api import EventRun
from service.inngest.runs import RunStatus, runs_of


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("Scheduled", RunStatus.QUEUED),
        ("Queued", RunStatus.QUEUED),
        ("Running", RunStatus.RUNNING),
        ("Completed", RunStatus.COMPLETED),
        ("Failed", RunStatus.FAILED),
        ("Cancelled", RunStatus.CANCELLED),
        ("Skipped", RunStatus.CANCELLED),
        ("a word of a later version", RunStatus.RUNNING),
    ],
)
def test_each_word_of_inngest_has_its_status(word, status):
    [run] = runs_of([EventRun("01A", word)])
    assert run.status is status


def test_the_first_run_comes_first_whatever_the_order_of_the_answer():
    runs = runs_of([EventRun("01B", "Running"), EventRun("01A", "Completed")])
    assert [run.id for run in runs] == ["01A", "01B"]


def test_a_run_that_goes_on_has_no_end_whatever_inngest_says():
    [run] = runs_of([EventRun("01A", "Running", "2026-11-24T22:30:19.5Z", "0001-01-01T00:00:00Z")])
    assert (run.started_at, run.ended_at) == (1_795_559_419_500, None)


def test_a_time_that_can_not_be_read_is_not_known():
    [run] = runs_of([EventRun("01A", "Completed", "yesterday", "")])
    assert (run.started_at, run.ended_at) == (None, None)
