"""Grafana's published types know every field of the dashboard."""

from __future__ import annotations

import copy
import json
import typing
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard
from pydantic import ConfigDict, TypeAdapter, ValidationError

from tests.stack.pinned_images import ROOT

FILE = ROOT / "deploy" / "monitoring" / "dashboard.json"
ANY_CLASS = ConfigDict(arbitrary_types_allowed=True)


@pytest.fixture
def dashboard() -> dict[str, Any]:
    plugins.register_default_plugins()
    found: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return found


def faults(dashboard: dict[str, Any]) -> set[str]:
    """The fields whose values have another type, or which the types don't know."""
    read = Dashboard.from_json(dashboard)
    written = json.loads(JSONEncoder().encode(read))
    return set(of_another_type(read)) | set(unknown(dashboard, written))


def of_another_type(value: object) -> Iterator[str]:
    if isinstance(value, list | dict):
        for one in value.values() if isinstance(value, dict) else value:
            yield from of_another_type(one)
    elif hasattr(value, "to_json"):
        for name, hint in typing.get_type_hints(type(value)).items():
            held = getattr(value, name)
            try:
                TypeAdapter(hint, config=ANY_CLASS).validate_python(held)
            except ValidationError:
                yield name
            yield from of_another_type(held)


def unknown(given: object, written: object) -> Iterator[str]:
    """The fields that a reader with these types loses."""
    if isinstance(given, dict) and isinstance(written, dict):
        yield from given.keys() - written.keys()
        for name in given.keys() & written.keys():
            yield from unknown(given[name], written[name])
    elif isinstance(given, list) and isinstance(written, list):
        for one, other in zip(given, written, strict=True):
            yield from unknown(one, other)


def test_each_field_is_one_of_grafana_and_has_its_type(dashboard: dict[str, Any]) -> None:
    assert faults(dashboard) == set()


def test_a_misspelt_field_and_a_wrong_type_are_found(dashboard: dict[str, Any]) -> None:
    broken = copy.deepcopy(dashboard)
    [first, second, *_] = broken["panels"]
    first["targets"][0]["expresion"] = first["targets"][0].pop("expr")
    first["fieldConfig"]["defaults"]["units"] = "s"
    second["gridPos"]["w"] = "four"
    second["targets"][0]["expr"] = 5
    assert faults(broken) == {"expresion", "units", "w", "expr"}


def test_each_panel_has_a_place_of_its_own_and_the_data_source_of_the_stack(
    dashboard: dict[str, Any],
) -> None:
    stack = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    [source] = yaml.safe_load(stack["configs"]["grafana-source"]["content"])["datasources"]
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        assert panel["datasource"] == {"type": source["type"], "uid": source["uid"]}
        place = panel["gridPos"]
        columns = range(place["x"], place["x"] + place["w"])
        squares = {(x, y) for x in columns for y in range(place["y"], place["y"] + place["h"])}
        assert squares.isdisjoint(taken)
        assert place["x"] + place["w"] <= 24
        taken |= squares
