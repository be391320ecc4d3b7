-- The outbox. A row of `outbox` is written once and never changed; where an event is, is which of
-- the other tables names its `seq`: exactly one of ready (pending), claims (delivering), done
-- (delivered or dead). What moves is narrow, so no payload is written a second time.
-- Times are milliseconds since 1970 by the store's clock.
CREATE TABLE outbox (
    seq             INTEGER PRIMARY KEY,
    id              TEXT    NOT NULL UNIQUE,
    name            TEXT    NOT NULL,
    user_id         TEXT    NOT NULL,
    accepted_at     INTEGER NOT NULL,
    trace           TEXT,
    idempotency_key TEXT,
    digest          TEXT,
    payload         BLOB    NOT NULL
) STRICT;

CREATE UNIQUE INDEX outbox_key ON outbox (user_id, idempotency_key)
    WHERE idempotency_key IS NOT NULL;

-- due_at 0 means "due at once, by any clock"; only delayed rows carry a time. The defaults are an
-- event's that was never sent. history is a JSON array of notes, null without one.
CREATE TABLE ready (
    seq           INTEGER PRIMARY KEY,
    bytes         INTEGER NOT NULL,
    due_at        INTEGER NOT NULL DEFAULT 0,
    alone         INTEGER NOT NULL DEFAULT 0,
    attempts      INTEGER NOT NULL DEFAULT 0,
    sends         INTEGER NOT NULL DEFAULT 0,
    first_sent_at INTEGER,
    history       TEXT
) STRICT;

CREATE INDEX ready_delayed ON ready (due_at) WHERE due_at > 0 AND alone = 0;
CREATE INDEX ready_alone ON ready (due_at) WHERE alone = 1;

CREATE TABLE claims (
    seq           INTEGER PRIMARY KEY,
    claim         TEXT    NOT NULL,
    claimed_at    INTEGER NOT NULL,
    lease_until   INTEGER NOT NULL,
    bytes         INTEGER NOT NULL,
    alone         INTEGER NOT NULL,
    attempts      INTEGER NOT NULL,
    sends         INTEGER NOT NULL,
    first_sent_at INTEGER,
    history       TEXT
) STRICT;

CREATE TABLE done (
    seq           INTEGER PRIMARY KEY,
    dead          INTEGER NOT NULL CHECK (dead IN (0, 1)),
    settled_at    INTEGER NOT NULL,
    alone         INTEGER NOT NULL,
    attempts      INTEGER NOT NULL,
    sends         INTEGER NOT NULL,
    first_sent_at INTEGER,
    history       TEXT,
    reason        TEXT,
    detail        TEXT
) STRICT;

CREATE INDEX done_dead ON done (seq) WHERE dead = 1;

CREATE TABLE lane (
    one        INTEGER PRIMARY KEY CHECK (one = 1),
    state      TEXT    NOT NULL DEFAULT 'open',
    reason     TEXT    NOT NULL DEFAULT '',
    window     INTEGER NOT NULL DEFAULT 1,
    failures   INTEGER NOT NULL DEFAULT 0,
    reopens_at INTEGER NOT NULL DEFAULT 0,
    since      INTEGER NOT NULL DEFAULT 0,
    rate       REAL    NOT NULL DEFAULT 0,
    paused_by  TEXT,
    revision   INTEGER NOT NULL DEFAULT 0
) STRICT;
INSERT INTO lane (one) VALUES (1);

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
