from __future__ import annotations

import re

from service.operations.rates import moved
from service.operations.sampler import Point
from service.operations.views import stats_view
from service.outbox.model import DeliveryRecord
from service.outbox.stats import Stats
from service.web.operator_page.charts import backlog_chart, rates_chart
from service.web.operator_page.view import OperatorView, delivery_words, figures

NOW = 1_795_559_419_447
MINUTE_MS = 60_000


def points_of(svg: str, kind: str) -> list[tuple[float, float]]:
    found = re.search(rf'class="{kind}" points="([^"]*)"', svg)
    assert found
    pairs = (pair.split(",") for pair in found.group(1).split())
    return [(float(x), float(y)) for x, y in pairs]


def test_the_backlog_runs_from_left_to_right_and_its_peak_is_on_top() -> None:
    hour = [Point(NOW - m * MINUTE_MS, 60 - m, 0.0, 0.0) for m in range(60, -1, -10)]
    svg = backlog_chart(hour, NOW)
    line = points_of(svg, "waiting")
    assert "60 now, 60 at most" in svg
    assert [x for x, _ in line] == sorted(x for x, _ in line)
    assert (line[0][0], line[-1][0]) == (0.0, 720.0)
    assert min(y for _, y in line) == line[-2][1] == 4.0
    assert line[1] == (0.0, 120.0)


def test_both_rates_share_one_scale() -> None:
    svg = rates_chart([Point(NOW, 0, 10.0, 20.0)], NOW)
    assert points_of(svg, "accepted") == [(720.0, 62.0)]
    assert points_of(svg, "delivered") == [(720.0, 4.0)]
    assert "accepted 10.0" in svg


def test_an_empty_hour_is_an_empty_picture() -> None:
    assert points_of(backlog_chart([], NOW), "waiting") == []
    assert points_of(rates_chart([], NOW), "delivered") == []


def test_before_the_first_look_the_page_says_so() -> None:
    text = OperatorView().page(None, (), (), now_ms=NOW)
    assert "not been looked at" in text
    assert "$" not in re.sub(r"<script>.*</script>", "", text, flags=re.DOTALL)


def test_a_delivery_in_trouble_is_told_in_words() -> None:
    delivery = DeliveryRecord("backing_off", "503 <busy>", 1, 3, 2.5, 0)
    view = stats_view(Stats(4, 0, 0, 0, 9.0, 9.0, delivery, None, None), serving=True)
    assert delivery_words(view) == "backing_off (503 <busy>), asks Inngest again in 2.5 s"
    assert "nothing moves" in figures(moved(None, view, 0.0), (), NOW)
    assert "503 &lt;busy&gt;" in OperatorView().page(moved(None, view, 0), (), (), now_ms=NOW)
