from __future__ import annotations

from service import errors
from service.web.server.errors import STATUS, error_response


def _leaves(kind: type[errors.ServiceError]) -> list[type[errors.ServiceError]]:
    below = kind.__subclasses__()
    return [kind] if not below else [leaf for one in below for leaf in _leaves(one)]


def test_every_refusal_has_its_status() -> None:
    refusals = [*_leaves(errors.RefusedError), errors.OutboxUnavailableError]
    assert [kind.__name__ for kind in refusals if kind not in STATUS] == []


def test_every_refusal_has_a_code_of_its_own() -> None:
    codes = [kind.code for kind in STATUS]
    assert len(codes) == len(set(codes))


def test_a_refusal_says_in_seconds_when_to_come_again() -> None:
    answer = error_response(errors.RateLimitedError(retry_after_seconds=7))
    assert (answer.status, answer.headers["Retry-After"]) == (429, "7")


def test_the_tree_in_the_docstring_names_every_class() -> None:
    named = errors.__doc__ or ""
    missing = [leaf.__name__ for leaf in _leaves(errors.ServiceError) if leaf.__name__ not in named]
    assert missing == []
