"""A program on the generated client: posts an event, follows it, and prints what it was told.

`python posting.py <service's address> <event key>`
"""

from __future__ import annotations

import json
import sys

from outbox_client import AuthenticatedClient, Client
from outbox_client.api.events import (
    get_event,
    list_events,
    post_documents_aws_index,
    send_events,
)
from outbox_client.api.sign_in import dev_sign_in, get_session
from outbox_client.models import (
    DevLogin,
    EventView,
    ListEventsState,
    PostDocumentsAwsIndexBody,
    SendEventsBodyType1Item,
    State,
)
from outbox_client.types import Response

COOKIE = "outbox_session"


def signed_in(url: str) -> AuthenticatedClient:
    with Client(url) as nobody:
        body = DevLogin(email="ada@example.com", id="u-1", name="Ada ☃")
        dev_sign_in.sync(client=nobody, body=body)
        session = nobody.get_httpx_client().cookies[COOKIE]
    return AuthenticatedClient(url, f"{COOKIE}={session}", prefix="", auth_header_name="Cookie")


def post(client: AuthenticatedClient, name: str, key: str) -> Response:
    body = PostDocumentsAwsIndexBody(document_name=name)
    return post_documents_aws_index.sync_detailed(client=client, body=body, idempotency_key=key)


def delivered(client: AuthenticatedClient, event_id: str) -> EventView:
    while True:
        event = get_event.sync(event_id, client=client, wait=10)
        if event.state is State.DELIVERED:
            return event


def sent(url: str, key: str, *names: str) -> dict[str, object]:
    body = [SendEventsBodyType1Item.from_dict({"name": name}) for name in names]
    with Client(url) as nobody:
        return json.loads(send_events.sync(key, client=nobody, body=body))


def told(url: str, key: str) -> dict[str, object]:
    with signed_in(url) as client:
        session = get_session.sync(client=client)
        accepted = post(client, "example", "click-1")
        repeated = post(client, "example", "click-1")
        event = delivered(client, accepted.parsed.event_id)
        page = list_events.sync(client=client, limit=10, state=ListEventsState.DELIVERED)
        nameless = post(client, " ", "click-2")
        unknown = get_event.sync("00000000-0000-7000-8000-000000000000", client=client)
    stranger = AuthenticatedClient(url, "none", prefix="", auth_header_name="Cookie")
    with stranger:
        refused = list_events.sync(client=stranger)
    return {
        "user": session.user.name,
        "posted": [accepted.parsed.event_id, repeated.parsed.event_id],
        "state": event.state.value,
        "inngest_id": event.inngest_id,
        "listed": [one.id for one in page.events],
        "next_cursor": page.next_cursor,
        "nameless": [nameless.status_code, nameless.parsed.code],
        "unknown": unknown.code,
        "refused": refused.code,
        "sent": sent(url, key, "shop/order.paid", "shop/order.sent"),
        "half_sent": sent(url, key, "shop/order.paid", ""),
        "unknown_key": sent(url, "a-guess", "shop/order.paid"),
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(told(*sys.argv[1:])))
