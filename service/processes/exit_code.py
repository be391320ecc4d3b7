"""Exit codes of the service's processes."""

from __future__ import annotations

FAULTY = 2  # a faulty configuration, or a start that can't succeed by repetition
