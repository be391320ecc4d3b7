"""The meaning of each environment variable, grouped as the documentation shows them.

The invariant: every variable that `Settings` reads is named here once, and nothing else.
"""

from __future__ import annotations

VARIABLES: dict[str, dict[str, str]] = {
    "The service": {
        "APP_ENV": "`development` or `production`. Production needs its secrets, sets Secure "
        "cookies and refuses the development sign-in.",
        "HOST": "The address to listen on.",
        "PORT": "The port to listen on. 0 picks a free one.",
        "WEB_CONCURRENCY": (
            "Front processes that take requests. Above 1, one store process behind them owns the "
            "outbox and delivers."
        ),
        "LOG_LEVEL": "`debug`, `info`, `warning` or `error`.",
        "LOG_FORMAT": "`console`, `json` or `auto`: console on a terminal, else JSON.",
        "METRICS_TOKEN": "Opens `/metrics` to other machines, as a Bearer token.",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "Where traces go. Needs the extra `otel`.",
    },
    "The outbox": {
        "OUTBOX_URL": "`sqlite:///path/to/file` (four slashes for an absolute path) or "
        "`postgresql://host/database`.",
        "OUTBOX_SCHEMA": "The schema of the tables in PostgreSQL; `outbox` without it.",
        "OUTBOX_BATCH_EVENTS": "The largest batch, in events.",
        "OUTBOX_BATCH_BYTES": "The largest batch, in bytes.",
        "OUTBOX_SENDERS": "Batches that are sent at the same time.",
        "OUTBOX_SEND_TIMEOUT": "The time limit of one send.",
        "OUTBOX_DRAIN_SECONDS": "How long a stop waits for sends in flight.",
        "OUTBOX_MAX_PENDING": "Pending and delivering events in all. Above it posts get 503 "
        "`outbox_full`.",
        "OUTBOX_MAX_PENDING_PER_USER": "Pending and delivering events of one user. Above it posts "
        "get 429 `too_many_pending`.",
        "OUTBOX_MAX_BYTES": "Bytes of all stored events, delivered and dead ones included. "
        "Above it posts get 503 `outbox_full`.",
        "OUTBOX_MAX_BYTES_PER_USER": "Bytes of one user's stored events, delivered and dead ones "
        "included. Above it posts get 429 `too_many_pending`.",
        "OUTBOX_MAX_BODY_BYTES_IN_FLIGHT": "Bytes of requests above 64 KiB that a process has "
        "at one time. Others wait 5 s, then get 503 `outbox_unavailable`. A quarter at most is one "
        "sender's.",
        "OUTBOX_RETENTION": "Delivered events are kept this long.",
        "OUTBOX_PAYLOAD_RETENTION": "The payloads of delivered events are kept this long, at least "
        "24h. Unset: as long as the events.",
        "OUTBOX_ENCRYPTION_KEY": "Encrypts the data of events that are made here, as Inngest's "
        "encryption middleware does: `key`, or `key,old` while keys are rotated.",
        "OUTBOX_JOURNAL": "`s3://bucket/prefix`: an accepted event is also there before its "
        "answer, on SQLite. See [Without a volume](../guide/without-a-volume.md).",
        "OUTBOX_JOURNAL_AWAY": "While that bucket is away: `refuse` answers posts with 503, "
        "`accept` answers them from the disk and puts their events later.",
        "OUTBOX_JOURNAL_PUTS_PER_SECOND": "The most objects that are put in a second. Above it "
        "groups of events wait and grow.",
        "OUTBOX_SHOW_DECRYPTED": "`1`: operators see encrypted data in plain. Each look is in the "
        "audit.",
        "OUTBOX_CONFIRM": "`on`: an event is delivered when Inngest holds it. `off`: when Inngest "
        "answers. `auto`: on for a self-hosted Inngest with `INNGEST_SIGNING_KEY`.",
        "OUTBOX_UNCONFIRMED_MAX": "Events that Inngest may have answered and not yet stored.",
        "OUTBOX_NO_RUN_AFTER": "An event that Inngest holds this long without a run starts none.",
    },
    "Inngest": {
        "INNGEST_EVENT_KEY": "The event key. Required in production unless `INNGEST_DEV` is set.",
        "INNGEST_EVENT_KEY_FALLBACK": "Tried when the first key is refused, for key rotation.",
        "INNGEST_DEV": "`1` or the address of a dev server; `0`: there is none, in development "
        "either.",
        "INNGEST_BASE_URL": "The address of a self-hosted Inngest, for events and the worker.",
        "INNGEST_EVENT_API_BASE_URL": "The address for events. Wins over `INNGEST_BASE_URL`.",
        "INNGEST_API_BASE_URL": "The address for the worker. Wins over `INNGEST_BASE_URL`.",
        "INNGEST_ENV": "The Inngest environment that events go to.",
        "INNGEST_UI_URL": "Where people open the pages of a self-hosted Inngest, for links. Unset: "
        "the address that events go to.",
        "INNGEST_SIGNING_KEY": "Asks Inngest's REST API what it holds; serves the worker.",
    },
    "Alarms": {
        "ALARM_URL": "Where alarms go: an address that takes a POST of JSON, or `inngest`: each is "
        "an event `outbox/alarm`. Unset: they are in `outbox check` and the metrics only.",
        "ALARM_SECRET": "Signs those POSTs as Standard Webhooks does: `whsec_` and 24 to 64 bytes "
        "in base64. Required with an address.",
    },
    "Event types, documents and application settings": {
        "EVENT_TYPES_FILE": "Event types beside `POST /api/route`, as JSON or YAML.",
        "AWS_S3_REGION": "The bucket's region. Required for `POST /api/route` and uploads.",
        "AWS_S3_BUCKET": "The bucket. Required like its region.",
        "DOCUMENT_CHECK": "`off`, `enrich` or `require`: whether a post asks S3 for its document.",
        "DOCUMENT_SCOPE": "`own`: a user may name their own uploads only. `uploads`: any document "
        "but the uploads of others. `any`: every document.",
        "APP_SETTINGS_FILE": "System defaults of the application settings, as JSON.",
    },
    "Sign-in": {
        "SESSION_SECRET": "Secrets of the service's own cookie, separated by commas, at least 16 "
        "characters each. The first one signs, all are read. Required in production; in "
        "development one is made beside the outbox.",
        "NEXTAUTH_SECRET": "Accepts sessions of next-auth 4.",
        "AUTH_SECRET": "Accepts sessions of Auth.js 5. Several are separated by commas.",
        "AUTH_SECRET_1": "A further Auth.js secret.",
        "AUTH_SECRET_2": "A further Auth.js secret.",
        "AUTH_SECRET_3": "A further Auth.js secret.",
        "NEXTAUTH_URL": "The front end's address. Set it where next-auth keeps its sessions in a "
        "database: the service then asks the front end whose session it is.",
        "OIDC_ISSUER": "The OpenID Connect provider, https or an address of this machine.",
        "OIDC_CLIENT_ID": "The client's id at the provider.",
        "OIDC_CLIENT_SECRET": "The client's secret. Not needed for a public client.",
        "JWT_ISSUER": "Accepts bearer tokens of this issuer (Better Auth, Clerk, Auth0, Keycloak, "
        "Supabase), checked with the keys that it publishes.",
        "JWT_AUDIENCE": "The audience that a token must name. Unset: any, also other services'.",
        "JWT_JWKS_URL": "Where the issuer's keys are. Unset: where its metadata says.",
        "JWT_ID_CLAIM": "The claim that is the user's id.",
        "USER_IDS_SHARED": "`1`: front end, provider and development sign-in "
        "mean the same person by the same id.",
        "DEV_LOGIN": "`1` opens the development sign-in to other machines, if the Host of "
        "their requests is a loopback name: a published port or a tunnel.",
        "OUTBOX_EVENT_KEYS": "Event keys of machines, `name:key`, separated by commas. A name may "
        "have several keys, so that they can be replaced one by one. Unset: no machine may post.",
        "OUTBOX_EVENT_IDS_SHARED": "Names of machines that use each other's event ids on purpose, "
        "separated by commas. Others' events keep their ids apart for 24 h.",
        "ALLOWED_ORIGINS": "Origins that may call with credentials, as browsers send them "
        "(`https://a.example`), separated by commas.",
        "TRUSTED_PROXIES": "Addresses or networks of the reverse proxies whose `X-Forwarded-Host` "
        "and `X-Forwarded-Proto` count. Unset: this machine's.",
        "RATE_LIMIT_PER_USER": "Requests that a user may send in a second, to each process. Unset: "
        "no limit.",
        "OPERATOR_EMAILS": "E-mails of the operators, separated by commas. Only an e-mail that the "
        "provider says is verified counts.",
    },
}
