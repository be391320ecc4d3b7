"""A neighbour that a machine lacks: its tests are skipped at home and fail in CI."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def lacks(neighbour: str) -> NoReturn:
    """Skip the test, or fail it in CI."""
    if os.environ.get("CI"):
        pytest.fail(f"CI needs {neighbour}")
    pytest.skip(f"no {neighbour} on this machine")
