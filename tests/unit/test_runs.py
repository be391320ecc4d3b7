"""The runs of an event, read from Inngest's answers."""

from __future__ import annotations

import pytest

from service.inngest.runs import EventRun, Named, RunStatus, runs_of, stacks_of

BEGAN, ENDED = "2026-11-24T22:30:19.5Z", "2026-11-24T22:30:21Z"
BEGAN_MS = 1_795_559_419_500
ERROR = {"code": "1", "name": "TypeError", "message": "it broke", "stack": "at /srv/worker.js"}


def no_link(run_id: str, environment: str | None) -> None:
    del run_id, environment


def one(status: str, ended_at: str | None = None, output: object = None):
    [run] = runs_of([EventRun("01A", status, BEGAN, ended_at, output)], no_link)
    return run


@pytest.mark.parametrize(
    ("word", "before", "after"),
    [
        ("SCHEDULED", RunStatus.QUEUED, RunStatus.COMPLETED),
        ("QUEUED", RunStatus.QUEUED, RunStatus.COMPLETED),
        ("RUNNING", RunStatus.RUNNING, RunStatus.COMPLETED),
        ("COMPLETED", RunStatus.RUNNING, RunStatus.COMPLETED),
        ("FAILED", RunStatus.RUNNING, RunStatus.FAILED),
        ("CANCELLED", RunStatus.RUNNING, RunStatus.CANCELLED),
        ("SKIPPED", RunStatus.RUNNING, RunStatus.CANCELLED),
        ("A LATER WORD", RunStatus.RUNNING, RunStatus.COMPLETED),
    ],
)
def test_a_run_has_ended_once_inngest_gives_its_end_whatever_its_word(word, before, after):
    assert one(word).status is before
    assert one(word, ENDED).status is after


def test_a_run_that_ended_with_an_error_has_failed_whatever_the_word():
    assert one("RUNNING", ENDED, {"error": ERROR}).status is RunStatus.FAILED


def test_a_run_is_whole_with_its_end_and_its_output():
    assert not one("COMPLETED", None, {"pages": 3}).is_whole
    assert not one("COMPLETED", ENDED).is_whole
    assert one("COMPLETED", ENDED, {"pages": 3}).is_whole
    assert one("CANCELLED", ENDED).is_whole


def test_a_cancelled_run_has_no_output_whatever_inngest_says():
    run = one("CANCELLED", ENDED, {"error": "event not found in state store"})
    assert (run.output, run.is_whole) == (None, True)


def test_the_output_of_a_failed_attempt_is_not_the_run_s():
    run = one("RUNNING", None, {"error": ERROR})
    assert (run.status, run.output, run.ended_at) == (RunStatus.RUNNING, None, None)


@pytest.mark.parametrize("output", [ERROR, {"error": ERROR}, "no error", {"error": 7}])
def test_no_form_of_an_error_shows_its_stack(output):
    assert "worker.js" not in str(one("FAILED", ENDED, output).output)


def test_an_owner_sees_name_and_message_of_an_error_and_no_stack():
    assert one("FAILED", ENDED, {"error": ERROR}).output == {
        "name": "TypeError",
        "message": "it broke",
    }
    from_go = one("FAILED", ENDED, {"error": "it broke"}).output
    assert from_go == {"name": "Error", "message": "it broke"}
    told = [EventRun("01A", "FAILED", BEGAN, ENDED, {"error": ERROR}), EventRun("01B", "RUNNING")]
    assert stacks_of(told) == {"01A": "at /srv/worker.js"}


def test_a_result_is_shown_as_inngest_shows_it():
    assert one("COMPLETED", ENDED, {"data": "text"}).output == {"data": "text"}
    assert one("COMPLETED", ENDED, {"error": ERROR}).output == {"error": ERROR}


def test_the_first_run_comes_first_with_its_function_and_its_page():
    told = [
        EventRun("01B", "RUNNING", function=Named("resize")),
        EventRun("01A", "RUNNING", function=Named("index")),
    ]
    runs = runs_of(told, lambda run_id, environment: f"{environment}/{run_id}", "branch")
    assert [(run.id, run.function, run.url) for run in runs] == [
        ("01A", "index", "branch/01A"),
        ("01B", "resize", "branch/01B"),
    ]


@pytest.mark.parametrize("moment", ["yesterday", "", "0001-01-01T00:00:00Z"])
def test_a_time_that_can_not_be_read_is_not_known(moment):
    assert one("COMPLETED", moment).ended_at is None
    assert one("COMPLETED", moment).started_at == BEGAN_MS
