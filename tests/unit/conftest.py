"""Fixtures that several unit tests ask for."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import structlog


@pytest.fixture(scope="module")
def quiet() -> Iterator[None]:
    """Nothing but what is critical is logged."""
    quiet = structlog.make_filtering_bound_logger(logging.CRITICAL)
    structlog.configure(wrapper_class=quiet, cache_logger_on_first_use=False)
    yield
    structlog.reset_defaults()
