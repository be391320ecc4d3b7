-- The outbox. Times are milliseconds since 1970 by the store's clock.
-- state: 0 pending (under a claim: delivering), 1 delivered, 2 dead.
-- due_at 0 means "due at once, by any clock"; only delayed rows carry a time.
CREATE TABLE outbox (
    seq             INTEGER PRIMARY KEY,
    id              TEXT    NOT NULL UNIQUE,
    name            TEXT    NOT NULL,
    user_id         TEXT    NOT NULL,
    accepted_at     INTEGER NOT NULL,
    state           INTEGER NOT NULL DEFAULT 0 CHECK (state IN (0, 1, 2)),
    isolated           INTEGER NOT NULL DEFAULT 0,
    due_at          INTEGER NOT NULL DEFAULT 0,
    attempts        INTEGER NOT NULL DEFAULT 0,
    sends           INTEGER NOT NULL DEFAULT 0,
    first_sent_at   INTEGER,
    settled_at      INTEGER,
    reason          TEXT,
    detail          TEXT,
    history         TEXT    NOT NULL DEFAULT '[]',
    trace           TEXT,
    idempotency_key TEXT,
    digest          TEXT,
    payload         BLOB    NOT NULL
) STRICT;

-- What a claim looks for, in the order in which it takes it. Rows leave it when they settle.
CREATE INDEX outbox_due ON outbox (isolated, due_at) WHERE state = 0;
CREATE INDEX outbox_dead ON outbox (settled_at) WHERE state = 2;
CREATE UNIQUE INDEX outbox_key ON outbox (user_id, idempotency_key)
    WHERE idempotency_key IS NOT NULL;

-- One small row for each claimed outbox row, so that claiming never rewrites a payload's page.
CREATE TABLE claims (
    seq         INTEGER PRIMARY KEY,
    claim       TEXT    NOT NULL,
    claimed_at  INTEGER NOT NULL,
    lease_until INTEGER NOT NULL
) STRICT;

CREATE TABLE outbox_delivery (
    one        INTEGER PRIMARY KEY CHECK (one = 1),
    state      TEXT    NOT NULL DEFAULT 'healthy',
    reason     TEXT    NOT NULL DEFAULT '',
    window     INTEGER NOT NULL DEFAULT 1,
    failures   INTEGER NOT NULL DEFAULT 0,
    reopens_at INTEGER NOT NULL DEFAULT 0,
    since      INTEGER NOT NULL DEFAULT 0,
    rate       REAL    NOT NULL DEFAULT 0,
    paused_by  TEXT,
    revision   INTEGER NOT NULL DEFAULT 0
) STRICT;
INSERT INTO outbox_delivery (one) VALUES (1);

CREATE TABLE scopes (
    scope    TEXT    NOT NULL CHECK (scope IN ('organization', 'user')),
    scope_id TEXT    NOT NULL,
    settings TEXT    NOT NULL,
    saved_at INTEGER NOT NULL,
    PRIMARY KEY (scope, scope_id)
) STRICT;

CREATE TABLE audit (
    seq    INTEGER PRIMARY KEY,
    at     INTEGER NOT NULL,
    actor  TEXT    NOT NULL,
    action TEXT    NOT NULL,
    detail TEXT    NOT NULL
) STRICT;
