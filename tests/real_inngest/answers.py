"""The answers of a real server, as data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

ANSWERS: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("answers.yaml").read_text())
