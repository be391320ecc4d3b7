"""Every error that the service raises on purpose.

::

    ServiceError
    ├── ConfigurationError          the environment is faulty; lists every fault
    ├── OutboxError                 the durable queue
    │   ├── OutboxUnavailableError  can't write now; says when to try again
    │   │   └── DatabaseAwayError       the database can't be reached; a later start may succeed
    │   ├── OutboxBusyError         another process serves this file
    │   ├── OutboxNotFoundError     there is no outbox at this address
    │   ├── SchemaTooNewError       the schema is from a later version
    │   ├── SchemaTooOldError       the schema is from before 0.1.0
    │   ├── OutboxMoveError         an outbox can't be moved there
    │   └── UpgradeError            the new version does not serve; says which one does
    ├── InngestApiError             Inngest's REST API does not say
    └── RefusedError                a request is refused; carries its code
        ├── StorageNotConfiguredError   ├── InvalidFieldError
        ├── SessionRequiredError        ├── DocumentNameRequiredError
        ├── CrossSiteRequestError       ├── DocumentNameInvalidError
        ├── SignInFailedError           ├── DocumentNotFoundError
        ├── ProviderUnavailableError    ├── StorageUnavailableError
        ├── OperatorRequiredError       ├── IdempotencyKeyInvalidError
        ├── MetricsTokenRequiredError   ├── IdempotencyKeyReusedError
        ├── JsonRequiredError           ├── TooManyPendingError
        ├── BodyTooLargeError           ├── OutboxFullError
        ├── BodyTimeoutError            ├── NotFoundError
        ├── InvalidJsonError            ├── EventLeftError
        ├── EncodingRefusedError        ├── MethodNotAllowedError
        ├── HeadTooLargeError           ├── MalformedRequestError
        ├── HeadTimeoutError            ├── ExpectationFailedError
        ├── RateLimitedError            ├── SenderNotAllowedError
        └── EventKeyRequiredError

A message is for a person, never holds input, and defaults to the class docstring.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar


class ServiceError(Exception):
    """Something went wrong."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip())


class ConfigurationError(ServiceError):
    """The configuration is faulty."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = tuple(faults)


class OutboxError(ServiceError):
    """The outbox can't do this."""


class OutboxUnavailableError(OutboxError):
    """The outbox can't take events right now. Try again shortly."""

    code: ClassVar[str] = "outbox_unavailable"

    def __init__(self, message: str | None = None, *, retry_after_seconds: int = 2) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class DatabaseAwayError(OutboxUnavailableError):
    """The outbox's database can't be reached."""


class OutboxBusyError(OutboxError):
    """Another process serves this outbox; an SQLite outbox has exactly one writing process."""


class OutboxNotFoundError(OutboxError):
    """There is no outbox at this address."""


class SchemaTooOldError(OutboxError):
    """This outbox was made by a version before 0.1.0, and was not touched.

    Start that version once more, without posts, until `outbox stats` counts nothing that waits;
    then start this version with another OUTBOX_URL.
    """

    def __init__(self) -> None:
        super().__init__(" ".join((type(self).__doc__ or "").split()))


class SchemaTooNewError(OutboxError):
    """The outbox was made by a newer version of this service; upgrade the service."""


class OutboxMoveError(OutboxError):
    """The outbox can't be moved there."""


class UpgradeError(OutboxError):
    """The new version does not serve."""


class InngestApiError(ServiceError):
    """Inngest's REST API gave no usable answer.

    `reached` is false where Inngest could not be reached at all, `refused` is true where it does
    not let the signing key ask.
    """

    def __init__(
        self, message: str | None = None, *, reached: bool = True, refused: bool = False
    ) -> None:
        super().__init__(message or "Inngest's REST API gave no usable answer.")
        self.reached = reached
        self.refused = refused


class RefusedError(ServiceError):
    """The request is refused."""

    code: ClassVar[str] = "refused"

    def __init_subclass__(cls, code: str) -> None:
        super().__init_subclass__()
        cls.code = code

    def __init__(
        self, message: str | None = None, *, retry_after_seconds: int | None = None
    ) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class StorageNotConfiguredError(RefusedError, code="storage_not_configured"):
    """The document storage is not configured."""


class SessionRequiredError(RefusedError, code="session_required"):
    """Sign in first: this needs a session."""


class CrossSiteRequestError(RefusedError, code="cross_site_request"):
    """Requests from other sites are not accepted."""


class SignInFailedError(RefusedError, code="sign_in_failed"):
    """The sign-in did not succeed. Start again."""


class ProviderUnavailableError(RefusedError, code="provider_unavailable"):
    """The identity provider can't be reached right now. Try again shortly."""

    def __init__(self, message: str | None = None, *, retry_after_seconds: int = 5) -> None:
        super().__init__(message, retry_after_seconds=retry_after_seconds)


class OperatorRequiredError(RefusedError, code="operator_required"):
    """Only an operator may do this."""


class EventKeyRequiredError(RefusedError, code="event_key_required"):
    """This needs an event key, as a bearer token."""


class MetricsTokenRequiredError(RefusedError, code="metrics_token_required"):
    """The metrics are for this machine, or for requests with the metrics token."""


class JsonRequiredError(RefusedError, code="json_required"):
    """Send the body as application/json."""


class EncodingRefusedError(RefusedError, code="content_encoding_refused"):
    """Send the body without a Content-Encoding."""


class BodyTooLargeError(RefusedError, code="body_too_large"):
    """The body is too large."""


class BodyTimeoutError(RefusedError, code="body_timeout"):
    """The body did not arrive in time."""


class InvalidJsonError(RefusedError, code="invalid_json"):
    """The body is not a JSON object in UTF-8."""


class InvalidFieldError(RefusedError, code="invalid_field"):
    """A field of the body is missing or invalid."""


class DocumentNameRequiredError(RefusedError, code="document_name_required"):
    """The body needs a documentName that is not blank."""


class DocumentNameInvalidError(RefusedError, code="document_name_invalid"):
    """This documentName is not allowed."""


class DocumentNotFoundError(RefusedError, code="document_not_found"):
    """There is no such document in the bucket: upload it first."""


class StorageUnavailableError(RefusedError, code="storage_unavailable"):
    """The document storage can't be asked right now. Try again shortly."""

    def __init__(self, message: str | None = None, *, retry_after_seconds: int = 5) -> None:
        super().__init__(message, retry_after_seconds=retry_after_seconds)


class IdempotencyKeyInvalidError(RefusedError, code="idempotency_key_invalid"):
    """An Idempotency-Key is 1 to 255 visible ASCII characters."""


class IdempotencyKeyReusedError(RefusedError, code="idempotency_key_reused"):
    """This Idempotency-Key was used for another body."""


class TooManyPendingError(RefusedError, code="too_many_pending"):
    """You have too many events waiting. Try again later."""


class OutboxFullError(RefusedError, code="outbox_full"):
    """The outbox is full. Try again later."""


class NotFoundError(RefusedError, code="not_found"):
    """There is nothing here."""


class EventLeftError(RefusedError, code="event_left"):
    """The event has been sent to Inngest, or is being sent, and can't be taken back."""


class MethodNotAllowedError(RefusedError, code="method_not_allowed"):
    """This path does not take that method."""

    def __init__(self, message: str | None = None, *, allowed: Sequence[str]) -> None:
        super().__init__(message)
        self.allowed = tuple(allowed)


class MalformedRequestError(RefusedError, code="bad_request"):
    """The request is not valid HTTP."""


class HeadTooLargeError(RefusedError, code="headers_too_large"):
    """The request's headers are too large."""


class HeadTimeoutError(RefusedError, code="headers_timeout"):
    """The request's headers did not arrive in time."""


class ExpectationFailedError(RefusedError, code="expectation_failed"):
    """This Expect header is not supported."""


class SenderNotAllowedError(RefusedError, code="sender_not_allowed"):
    """You may not post this event."""


class RateLimitedError(RefusedError, code="rate_limited"):
    """You send too many requests. Try again shortly."""
