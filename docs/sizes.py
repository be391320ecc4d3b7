"""The bounds of requests, as the page on limits shows them."""

from __future__ import annotations

from collections.abc import Iterator

from inngest_outbox.app_settings.app_settings import MAX_SETTINGS_BYTES
from inngest_outbox.documents.document_name import MAX_NAME_BYTES, MAX_UPLOAD_BYTES
from inngest_outbox.outbox.event import MAX_EVENT_BYTES
from inngest_outbox.outbox.storable import MAX_DEPTH
from inngest_outbox.web.events.followed_event import FollowPolicy
from inngest_outbox.web.intake.event_batch import MAX_BATCH_BYTES
from inngest_outbox.web.intake.event_route import MAX_BODY_BYTES as MAX_POST_BYTES
from inngest_outbox.web.intake.incoming import MAX_NAME_CHARS
from inngest_outbox.web.intake.lenient_json import MAX_EVENTS
from inngest_outbox.web.server.body import (
    BODY_SECONDS,
    MAX_BODY_BYTES,
    SLOW_SECONDS,
    SLOWEST_BYTES_A_SECOND,
)
from inngest_outbox.web.server.body_budget import FREE_BYTES, WAIT_SECONDS
from inngest_outbox.web.server.request_parser import (
    BODY_PER_FRAMING,
    FRAMING_BYTES,
    HEAD_BYTES,
    HEADER_BYTES,
    MAX_PIPELINED,
    PIECE_BYTES,
)
from inngest_outbox.web.server.server import LINGER_SECONDS, ServerPolicy

_UNITS = (("GiB", 1024**3), ("MiB", 1024**2), ("KiB", 1024), ("bytes", 1))


def spelled_size(count: int) -> str:
    """A number of bytes in the largest unit that divides it, such as 1 MiB."""
    return next(f"{count // size} {unit}" for unit, size in _UNITS if count % size == 0)


def size_rows() -> Iterator[tuple[str, str]]:
    """Each bounded thing with its bound."""
    policy, follow = ServerPolicy(), FollowPolicy()
    admission = policy.admission
    yield "body of a post", f"{spelled_size(MAX_POST_BYTES)}, within {BODY_SECONDS:g} s"
    slowest = f"{spelled_size(SLOWEST_BYTES_A_SECOND)} a second after {SLOW_SECONDS:g} s"
    yield (
        f"body above {spelled_size(FREE_BYTES)}",
        f"at least {slowest}; it waits {WAIT_SECONDS:g} s for its share of the memory",
    )
    events = f"{MAX_EVENTS:,} events of {spelled_size(MAX_EVENT_BYTES)} each"
    yield (
        "body of `POST /e/{key}` and `POST /api/events`",
        f"{spelled_size(MAX_BATCH_BYTES)}, {events}",
    )
    yield "name and id of such an event", f"{MAX_NAME_CHARS:,} characters each"
    yield "body of sign-ins and of `POST /api/uploads`", spelled_size(MAX_BODY_BYTES)
    yield "body of settings", spelled_size(MAX_SETTINGS_BYTES)
    yield "nesting of a body", f"{MAX_DEPTH} levels"
    head = f"{spelled_size(HEAD_BYTES)} within {policy.head_seconds:g} s"
    yield "the request's head", f"{head}, each header {spelled_size(HEADER_BYTES)}"
    share = f"a byte for each {BODY_PER_FRAMING} of the body"
    framing = f"{spelled_size(FRAMING_BYTES)}, and {share}"
    yield "chunk sizes and trailers of a chunked body", framing
    yield "an answer that the client does not read", f"{policy.unread_seconds:g} s"
    yield "a connection without a request", f"{policy.keep_alive_seconds:g} s"
    yield "a request under way when the service stops", f"{policy.shutdown_seconds:g} s"
    last = "a connection's last request when its process stops"
    yield last, f"{LINGER_SECONDS:g} s"
    yield "requests that one connection may have waiting", f"{MAX_PIPELINED}"
    late = f"another one waits {admission.post_wait_seconds:g} s at most"
    yield "posts that run at once in a process", f"{admission.posts}; {late}"
    turn = f"{admission.least} to {admission.most}, in {admission.turn_seconds * 1000:g} ms"
    yield "requests that begin in one turn of the event loop", turn
    pieces = f"{admission.pieces_seconds * 1000:g} ms of a turn"
    yield f"parsing of pieces above {spelled_size(PIECE_BYTES)}", pieces
    yield "streams and long polls of a process", f"{follow.max_followers:,}"
    yield "a long poll", f"{follow.max_wait_seconds} s"
    beats = f"with a comment after {follow.beat_seconds:g} s without a change"
    yield "a stream of an event", f"{follow.stream_seconds:g} s, {beats}"
    asks = f"{follow.asks_at_once} at a time, for each event every {follow.ask_seconds:g} s"
    slow = (
        f"{follow.trouble_seconds:g} s after a failure, and {follow.slow_seconds:g} s if it is slow"
    )
    yield "questions to Inngest about the runs of followed events", f"{asks}; {slow}"
    yield "`documentName`", f"{MAX_NAME_BYTES:,} bytes of UTF-8"
    yield "one upload", spelled_size(MAX_UPLOAD_BYTES)
