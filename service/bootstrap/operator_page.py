"""The operators' pages, made from the parts of an outbox."""

from __future__ import annotations

from collections.abc import Callable

from service.bootstrap.web_outbox import WebOutbox
from service.console.operations.actions import OperatorActions
from service.console.operations.payloads import Payloads
from service.console.operations.proposals import Proposals
from service.console.operations.sampler import Sampler
from service.console.operations.search import Search, SearchPolicy
from service.console.pages.access import OperatorAccess
from service.console.pages.audit_page import AuditPage
from service.console.pages.changes import Changes
from service.console.pages.chart_source import ChartSource
from service.console.pages.event_list import EventList
from service.console.pages.event_page import EventPage
from service.console.pages.overview import Overview
from service.console.pages.page import OperatorPage
from service.console.pages.pausing import Pausing
from service.console.pages.renderer import Renderer
from service.encryption import Encryption
from service.observe.recorder import Recorder

_CHANGE_SEARCH = SearchPolicy(budget_seconds=8.0)


def make_operator_page(
    outbox: WebOutbox,
    sampler: Sampler,
    recorder: Recorder,
    *,
    access: OperatorAccess,
    link: Callable[[str], str | None],
    encryption: Encryption | None,
) -> OperatorPage:
    """All pages. `link` gives the address of an event in Inngest by its ULID.

    With `encryption`, operators see encrypted data in plain.
    """
    inspector, positions = outbox.inspector, outbox.positions
    actions = OperatorActions(outbox.repairs, recorder)
    payloads = Payloads(inspector, outbox.trail, recorder, encryption)
    renderer = Renderer()
    return OperatorPage(
        Overview(inspector, sampler, ChartSource(outbox.samples, sampler), access, renderer),
        EventList(inspector, Search(inspector, positions), access, renderer),
        EventPage(inspector, outbox.samples, payloads, access, renderer, link),
        Changes(Proposals(Search(inspector, positions, _CHANGE_SEARCH), actions), access, renderer),
        Pausing(actions, access, renderer),
        AuditPage(inspector, access, renderer),
    )
