"""The operators' pages, made from the parts of an outbox."""

from __future__ import annotations

from collections.abc import Callable

from service.bootstrap.web_outbox import WebOutbox
from service.observe.recorder import Recorder
from service.operations.actions import OperatorActions
from service.operations.payloads import Payloads
from service.operations.proposals import Proposals
from service.operations.sampler import Sampler
from service.operations.search import Search, SearchPolicy
from service.web.operator_page.access import OperatorAccess
from service.web.operator_page.audit_page import AuditPage
from service.web.operator_page.changes import Changes
from service.web.operator_page.chart_source import ChartSource
from service.web.operator_page.event_list import EventList
from service.web.operator_page.event_page import EventPage
from service.web.operator_page.overview import Overview
from service.web.operator_page.page import OperatorPage
from service.web.operator_page.pausing import Pausing
from service.web.operator_page.renderer import Renderer

_CHANGE_SEARCH = SearchPolicy(budget_seconds=8.0)


def make_operator_page(
    outbox: WebOutbox,
    sampler: Sampler,
    recorder: Recorder,
    *,
    access: OperatorAccess,
    link: Callable[[str], str | None],
) -> OperatorPage:
    """All pages. `link` gives the address of an event in Inngest by its ULID."""
    inspector, positions = outbox.inspector, outbox.positions
    actions = OperatorActions(outbox.repairs, recorder)
    payloads = Payloads(inspector, outbox.trail, recorder)
    renderer = Renderer()
    return OperatorPage(
        Overview(inspector, sampler, ChartSource(outbox.samples, sampler), access, renderer),
        EventList(inspector, Search(inspector, positions), access, renderer),
        EventPage(inspector, outbox.samples, payloads, access, renderer, link),
        Changes(Proposals(Search(inspector, positions, _CHANGE_SEARCH), actions), access, renderer),
        Pausing(actions, access, renderer),
        AuditPage(inspector, access, renderer),
    )
