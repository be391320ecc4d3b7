"""Every error that the service raises on purpose.

::

    ServiceError
    ├── ConfigurationError          the environment is faulty; lists every fault
    ├── OutboxError                 the durable queue
    │   ├── OutboxUnavailableError  can't write now; says when to try again
    │   ├── OutboxBusyError         another process serves this file
    │   ├── OutboxNotFoundError     there is no outbox at this address
    │   ├── SchemaTooNewError       the schema is from a later version
    │   └── OutboxMoveError         an outbox can't be moved there
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
        └── RateLimitedError

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


class OutboxBusyError(OutboxError):
    """Another process serves this outbox; an SQLite outbox has exactly one writing process."""


class OutboxNotFoundError(OutboxError):
    """There is no outbox at this address."""


class SchemaTooNewError(OutboxError):
    """The outbox was made by a newer version of this service; upgrade the service."""


class OutboxMoveError(OutboxError):
    """The outbox can't be moved there."""


class InngestApiError(ServiceError):
    """Inngest's REST API gave no answer that counts.

    `reached` is false where Inngest could not be reached at all.
    """

    def __init__(self, message: str | None = None, *, reached: bool = True) -> None:
        super().__init__(message or "Inngest's REST API gave no answer that counts.")
        self.reached = reached


class RefusedError(ServiceError):
    """The request is refused."""

    code: ClassVar[str] = "refused"

    def __init__(
        self, message: str | None = None, *, retry_after_seconds: int | None = None
    ) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class StorageNotConfiguredError(RefusedError):
    """The document storage is not configured."""

    code = "storage_not_configured"


class SessionRequiredError(RefusedError):
    """Sign in first: this needs a session."""

    code = "session_required"


class CrossSiteRequestError(RefusedError):
    """Requests from other sites are not accepted."""

    code = "cross_site_request"


class SignInFailedError(RefusedError):
    """The sign-in did not succeed. Start again."""

    code = "sign_in_failed"


class ProviderUnavailableError(RefusedError):
    """The identity provider can't be reached right now. Try again shortly."""

    code = "provider_unavailable"

    def __init__(self, message: str | None = None, *, retry_after_seconds: int = 5) -> None:
        super().__init__(message, retry_after_seconds=retry_after_seconds)


class OperatorRequiredError(RefusedError):
    """Only an operator may do this."""

    code = "operator_required"


class MetricsTokenRequiredError(RefusedError):
    """The metrics are for this machine, or for who knows the metrics token."""

    code = "metrics_token_required"


class JsonRequiredError(RefusedError):
    """Send the body as application/json."""

    code = "json_required"


class EncodingRefusedError(RefusedError):
    """Send the body as it is: no Content-Encoding but identity is accepted."""

    code = "content_encoding_refused"


class BodyTooLargeError(RefusedError):
    """The body is larger than is accepted here."""

    code = "body_too_large"


class BodyTimeoutError(RefusedError):
    """The body did not arrive in time."""

    code = "body_timeout"


class InvalidJsonError(RefusedError):
    """The body is not a JSON object in UTF-8."""

    code = "invalid_json"


class InvalidFieldError(RefusedError):
    """A field of the body is missing or invalid."""

    code = "invalid_field"


class DocumentNameRequiredError(RefusedError):
    """The body needs a documentName that is not blank."""

    code = "document_name_required"


class DocumentNameInvalidError(RefusedError):
    """The documentName is not one that is accepted here."""

    code = "document_name_invalid"


class DocumentNotFoundError(RefusedError):
    """There is no such document in the bucket: upload it first."""

    code = "document_not_found"


class StorageUnavailableError(RefusedError):
    """The document storage can't be asked right now. Try again shortly."""

    code = "storage_unavailable"

    def __init__(self, message: str | None = None, *, retry_after_seconds: int = 5) -> None:
        super().__init__(message, retry_after_seconds=retry_after_seconds)


class IdempotencyKeyInvalidError(RefusedError):
    """An Idempotency-Key is 1 to 255 visible ASCII characters."""

    code = "idempotency_key_invalid"


class IdempotencyKeyReusedError(RefusedError):
    """This Idempotency-Key was used for another body."""

    code = "idempotency_key_reused"


class TooManyPendingError(RefusedError):
    """You have too many events waiting. Try again later."""

    code = "too_many_pending"


class OutboxFullError(RefusedError):
    """The outbox is full. Try again later."""

    code = "outbox_full"


class NotFoundError(RefusedError):
    """There is nothing here."""

    code = "not_found"


class EventLeftError(RefusedError):
    """The event has been sent to Inngest, or is being sent, and can't be taken back."""

    code = "event_left"


class MethodNotAllowedError(RefusedError):
    """This path does not take that method."""

    code = "method_not_allowed"

    def __init__(self, message: str | None = None, *, allowed: Sequence[str]) -> None:
        super().__init__(message)
        self.allowed = tuple(sorted(allowed))


class MalformedRequestError(RefusedError):
    """The request is not valid HTTP."""

    code = "bad_request"


class HeadTooLargeError(RefusedError):
    """The request's headers are larger than is accepted here."""

    code = "headers_too_large"


class HeadTimeoutError(RefusedError):
    """The request's headers did not arrive in time."""

    code = "headers_timeout"


class ExpectationFailedError(RefusedError):
    """The Expect header asks for something that is not done here."""

    code = "expectation_failed"


class RateLimitedError(RefusedError):
    """You send requests faster than is allowed. Try again shortly."""

    code = "rate_limited"
