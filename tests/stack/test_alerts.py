"""Each alert fires when it should, as Prometheus' own promtool sees it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.stack.command import run
from tests.support.neighbours import lacks

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy" / "monitoring" / "alerts.yml"
CASES = Path(__file__).parent / "alert_cases.yml"


@pytest.fixture
def promtool() -> str:
    return shutil.which("promtool") or lacks("promtool")


def parsed(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def test_the_rules_are_valid(promtool: str) -> None:
    run(promtool, "check", "rules", str(RULES))


def test_each_alert_fires_when_it_should_and_not_before(promtool: str, tmp_path: Path) -> None:
    rules = parsed(RULES)
    for group in rules["groups"]:
        for rule in group["rules"]:
            del rule["annotations"]
    (tmp_path / RULES.name).write_text(yaml.safe_dump(rules), encoding="utf-8")
    shutil.copy(CASES, tmp_path)
    run(promtool, "test", "rules", CASES.name, cwd=tmp_path)


def test_each_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    alerts = {rule["alert"] for group in parsed(RULES)["groups"] for rule in group["rules"]}
    cases = [case for test in parsed(CASES)["tests"] for case in test["alert_rule_test"]]
    fires = {case["alertname"] for case in cases if case.get("exp_alerts")}
    silent = {case["alertname"] for case in cases if not case.get("exp_alerts")}
    assert fires == silent == alerts
