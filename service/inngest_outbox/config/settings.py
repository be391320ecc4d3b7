"""The process's configuration: one frozen model, read once from the environment.

Make settings with `Settings.load`: it reports every fault at once. Each field is a variable, under
its name or alias in capitals. `variables.py` has the meaning of each variable.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
)

from inngest_outbox.config.faults import cross_faults
from inngest_outbox.config.outbox_url import sqlite_file, url_in_schema
from inngest_outbox.config.values import (
    EncryptionKeys,
    InngestAddress,
    Names,
    Seconds,
    Secret,
    Secrets,
    SecretsAsWritten,
    lower,
    s3_place,
)
from inngest_outbox.errors import ConfigurationError

# In place of pydantic's words, which repeat themselves.
_UNREADABLE = {
    "int_parsing": "write a whole number",
    "float_parsing": "write a number",
    "bool_parsing": "write true or false",
}
# What others read with the white space around it.
_AS_WRITTEN = {
    "AUTH_SECRET",
    "AUTH_SECRET_1",
    "AUTH_SECRET_2",
    "AUTH_SECRET_3",
    "NEXTAUTH_SECRET",
    "OUTBOX_ENCRYPTION_KEY",
}


class Settings(BaseModel):
    """Everything that the environment decides. Durations are seconds, sizes bytes."""

    # A field is given by the name of its variable.
    model_config = ConfigDict(frozen=True, alias_generator=str.upper)

    app_env: Annotated[Literal["development", "production"], BeforeValidator(lower)] = "development"
    host: str = "127.0.0.1"
    port: int = Field(default=3000, ge=0, le=65535)
    web_concurrency: int = Field(default=1, ge=1, le=64)

    outbox_url: str = "sqlite:///data/outbox.db"
    outbox_schema: str | None = None
    batch_events: int = Field(default=500, ge=1, le=5000, validation_alias="OUTBOX_BATCH_EVENTS")
    batch_bytes: ByteSize = Field(
        default=ByteSize(1024 * 1024), ge=1024, validation_alias="OUTBOX_BATCH_BYTES"
    )
    senders: int = Field(default=4, ge=1, le=64, validation_alias="OUTBOX_SENDERS")
    send_timeout_seconds: Seconds = Field(
        default=10.0, gt=0, le=300, validation_alias="OUTBOX_SEND_TIMEOUT"
    )
    drain_seconds: Seconds = Field(
        default=10.0, ge=0, le=600, validation_alias="OUTBOX_DRAIN_SECONDS"
    )
    max_pending: int = Field(default=1_000_000, ge=1, validation_alias="OUTBOX_MAX_PENDING")
    max_pending_per_user: int = Field(
        default=100_000, ge=1, validation_alias="OUTBOX_MAX_PENDING_PER_USER"
    )
    max_bytes: ByteSize | None = Field(default=None, ge=1, validation_alias="OUTBOX_MAX_BYTES")
    max_bytes_per_user: ByteSize = Field(
        default=ByteSize(4 * 1024**3), ge=1, validation_alias="OUTBOX_MAX_BYTES_PER_USER"
    )
    max_body_bytes_in_flight: ByteSize = Field(
        default=ByteSize(128 * 1024**2),
        ge=1024**2,
        validation_alias="OUTBOX_MAX_BODY_BYTES_IN_FLIGHT",
    )
    retention_seconds: Seconds = Field(
        default=7 * 86400.0, ge=1, validation_alias="OUTBOX_RETENTION"
    )

    payload_retention_seconds: Seconds | None = Field(
        default=None, ge=86400, validation_alias="OUTBOX_PAYLOAD_RETENTION"
    )
    encryption_keys: EncryptionKeys = Field(default=(), validation_alias="OUTBOX_ENCRYPTION_KEY")
    journal: str | None = Field(default=None, validation_alias="OUTBOX_JOURNAL")
    journal_away: Annotated[Literal["refuse", "accept"], BeforeValidator(lower)] = Field(
        default="refuse", validation_alias="OUTBOX_JOURNAL_AWAY"
    )
    journal_puts_per_second: float = Field(
        default=20.0, gt=0, le=1000, validation_alias="OUTBOX_JOURNAL_PUTS_PER_SECOND"
    )
    show_decrypted: bool = Field(default=False, validation_alias="OUTBOX_SHOW_DECRYPTED")

    s3_region: str | None = Field(default=None, validation_alias="AWS_S3_REGION")
    s3_bucket: str | None = Field(default=None, validation_alias="AWS_S3_BUCKET")
    document_check: Annotated[Literal["off", "enrich", "require"], BeforeValidator(lower)] = "off"
    document_scope: Annotated[Literal["own", "uploads", "any"], BeforeValidator(lower)] = "uploads"
    app_settings_file: str | None = None
    event_types_file: str | None = None

    inngest_event_key: Secret = None
    inngest_event_key_fallback: Secret = None
    inngest_dev: str | None = None
    inngest_base_url: str | None = None
    inngest_api_base_url: str | None = None
    inngest_event_api_base_url: str | None = None
    inngest_env: str | None = None
    inngest_signing_key: Secret = None
    inngest_ui_url: str | None = None
    fake_inngest_url: str | None = Field(default=None, exclude=True)
    known_inngest: InngestAddress | None = Field(default=None, exclude=True)
    accepts_loss: bool = Field(default=False, exclude=True)
    confirm: Annotated[Literal["auto", "on", "off"], BeforeValidator(lower)] = Field(
        default="auto", validation_alias="OUTBOX_CONFIRM"
    )
    unconfirmed_max: int = Field(
        default=10_000, ge=100, le=1_000_000, validation_alias="OUTBOX_UNCONFIRMED_MAX"
    )
    no_run_seconds: Seconds = Field(default=300.0, gt=0, validation_alias="OUTBOX_NO_RUN_AFTER")
    alarm_url: Secret = None  # the address of a chat is its secret
    alarm_secret: Secret = None

    session_secret: Secrets = ()
    nextauth_secret: Secret = None
    auth_secrets: SecretsAsWritten = Field(default=(), validation_alias="AUTH_SECRET")
    auth_secret_1: Secret = None
    auth_secret_2: Secret = None
    auth_secret_3: Secret = None
    nextauth_url: str | None = None
    oidc_issuer: str | None = None
    oidc_client_id: str | None = None
    oidc_client_secret: Secret = None
    jwt_issuer: str | None = None
    jwt_audience: str | None = None
    jwt_jwks_url: str | None = None
    jwt_id_claim: str = "sub"
    dev_login: bool = False
    user_ids_shared: bool = False
    event_keys: Secrets = Field(default=(), validation_alias="OUTBOX_EVENT_KEYS")
    event_ids_shared: Names = Field(default=(), validation_alias="OUTBOX_EVENT_IDS_SHARED")
    rate_limit_per_user: float | None = Field(default=None, gt=0, le=100_000)
    allowed_origins: Names = ()
    trusted_proxies: Names = ()
    operator_emails: Names = ()
    metrics_token: Secret = None
    otel_exporter_otlp_endpoint: str | None = None

    log_level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(lower)] = (
        "info"
    )
    log_format: Annotated[Literal["auto", "console", "json"], BeforeValidator(lower)] = "auto"

    @field_validator("*", mode="before")
    @classmethod
    def _text(cls, given: object) -> object:
        try:
            str(given).encode()
        except UnicodeEncodeError:
            raise ValueError("it is no text in UTF-8") from None
        return given

    @classmethod
    def load(cls, environ: Mapping[str, str]) -> Self:
        """The settings that `environ` gives.

        Raises ConfigurationError with every fault, each naming its variable.
        """
        given = {
            variable: environ[variable] if variable in _AS_WRITTEN else stripped
            for variable in cls.variables()
            if (stripped := environ.get(variable, "").strip())
        }
        faults: list[str] = []
        try:
            settings = cls.model_validate(given)
        except ValidationError as error:
            names = {fault["loc"][0] for fault in error.errors()}
            faults = [_sentence(fault) for fault in error.errors()]
            well = {key: value for key, value in given.items() if key not in names}
            settings = cls.model_validate(well)
        faults += cross_faults(settings)
        if faults:
            raise ConfigurationError(faults)
        return settings

    @classmethod
    def variables(cls) -> dict[str, str]:
        """Each environment variable with the name of the field that it sets."""
        return {
            str(field.validation_alias): name
            for name, field in cls.model_fields.items()
            if not field.exclude
        }

    @property
    def production(self) -> bool:
        """True for a production process."""
        return self.app_env == "production"

    @property
    def loopback(self) -> bool:
        """True when the service listens on this machine only."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def inngest_dev_mode(self) -> bool:
        """True when events go to a dev server, which takes them without a key.

        INNGEST_DEV decides; without it, development without an event key does so too.
        """
        if self.inngest_dev is None:
            return not self.production and self.inngest_event_key is None
        return self.inngest_dev.lower() not in ("0", "false")

    @property
    def inngest_dev_url(self) -> str | None:
        """The dev server's address that INNGEST_DEV gives, None when it is a plain flag."""
        value = self.inngest_dev or ""
        return value if "." in value or ":" in value else None

    def with_fake_inngest(self, url: str) -> Self:
        """The same, but events go to the fake Inngest at `url`."""
        return self.model_copy(update={"inngest_base_url": url, "fake_inngest_url": url})

    def with_accepted_loss(self, *, accepts: bool) -> Self:
        """The same; `accepts` starts an SQLite file whose log is missing or another file's."""
        return self.model_copy(update={"accepts_loss": accepts})

    def with_known_inngest(self, address: InngestAddress | None) -> Self:
        """The same with the address that another process has found out; None says nothing."""
        return self.model_copy(update={"known_inngest": address})

    @property
    def names_inngest(self) -> bool:
        """True when a variable names the address or the key of Inngest."""
        named = (
            self.inngest_event_key,
            self.inngest_dev,
            self.inngest_base_url,
            self.inngest_event_api_base_url,
        )
        return any(one is not None for one in named)

    @property
    def auth_js_secrets(self) -> list[SecretStr]:
        """The secrets of Auth.js: those with a number, the newest first, then AUTH_SECRET."""
        newest_first = (self.auth_secret_3, self.auth_secret_2, self.auth_secret_1)
        return [one for one in (*newest_first, *self.auth_secrets) if one]

    @property
    def missing_storage(self) -> list[str]:
        """The variables without which no document can be handed over."""
        needed = {"AWS_S3_REGION": self.s3_region, "AWS_S3_BUCKET": self.s3_bucket}
        return [variable for variable, value in needed.items() if not value]

    @property
    def store_url(self) -> str:
        """The address of the outbox, with the schema of its tables."""
        return url_in_schema(self.outbox_url, self.outbox_schema)

    @property
    def journal_place(self) -> tuple[str, str] | None:
        """The bucket and the prefix of the journal, None without one."""
        return s3_place(self.journal) if self.journal else None

    @property
    def sqlite_path(self) -> str | None:
        """The file of an SQLite outbox, None for another store.

        `sqlite:///data/outbox.db` is relative, `sqlite:////var/outbox.db` absolute.
        """
        return sqlite_file(self.outbox_url)


def _sentence(fault: Mapping[str, Any]) -> str:
    said = str(fault["msg"]).removeprefix("Value error, ")
    message = _UNREADABLE.get(str(fault["type"]), said)
    return f"{fault['loc'][0]}: {message[:1].lower()}{message[1:]}"
