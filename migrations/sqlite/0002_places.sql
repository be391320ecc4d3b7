-- What changes of a row goes apart from its payload. From here on a row of `outbox` is written once
-- and never changed; where an event is, is which of the other tables names its `seq`: exactly one of
-- ready (pending), claims (delivering), done (delivered or dead). What moves is narrow.
-- Needs room for a second copy of the payloads while it runs.

-- due_at 0 means "due at once, by any clock"; only delayed rows carry a time. The defaults are an
-- event's that was never sent. history is a JSON array of notes, null without one.
CREATE TABLE ready (
    seq           INTEGER PRIMARY KEY,
    bytes         INTEGER NOT NULL,
    due_at        INTEGER NOT NULL DEFAULT 0,
    isolated         INTEGER NOT NULL DEFAULT 0,
    attempts      INTEGER NOT NULL DEFAULT 0,
    sends         INTEGER NOT NULL DEFAULT 0,
    first_sent_at INTEGER,
    history       TEXT
) STRICT;

CREATE INDEX ready_delayed ON ready (due_at) WHERE due_at > 0 AND isolated = 0;
CREATE INDEX ready_alone ON ready (due_at) WHERE isolated = 1;

INSERT INTO ready (seq, bytes, due_at, isolated, attempts, sends, first_sent_at, history)
SELECT seq, length(payload), due_at, isolated, attempts, sends, first_sent_at, nullif(history, '[]')
FROM outbox WHERE state = 0 AND seq NOT IN (SELECT seq FROM claims);

ALTER TABLE claims RENAME TO claims_before;

CREATE TABLE claims (
    seq           INTEGER PRIMARY KEY,
    claim         TEXT    NOT NULL,
    claimed_at    INTEGER NOT NULL,
    lease_until   INTEGER NOT NULL,
    bytes         INTEGER NOT NULL,
    isolated         INTEGER NOT NULL,
    attempts      INTEGER NOT NULL,
    sends         INTEGER NOT NULL,
    first_sent_at INTEGER,
    history       TEXT
) STRICT;

INSERT INTO claims (seq, claim, claimed_at, lease_until, bytes, isolated, attempts, sends,
                    first_sent_at, history)
SELECT seq, claim, claimed_at, lease_until, length(payload), isolated, attempts, sends, first_sent_at,
       nullif(history, '[]')
FROM claims_before JOIN outbox USING (seq);

DROP TABLE claims_before;

CREATE TABLE done (
    seq           INTEGER PRIMARY KEY,
    dead          INTEGER NOT NULL CHECK (dead IN (0, 1)),
    settled_at    INTEGER NOT NULL,
    isolated         INTEGER NOT NULL,
    attempts      INTEGER NOT NULL,
    sends         INTEGER NOT NULL,
    first_sent_at INTEGER,
    history       TEXT,
    reason        TEXT,
    detail        TEXT
) STRICT;

CREATE INDEX done_dead ON done (seq) WHERE dead = 1;

INSERT INTO done (seq, dead, settled_at, isolated, attempts, sends, first_sent_at, history, reason,
                  detail)
SELECT seq, state = 2, settled_at, isolated, attempts, sends, first_sent_at, nullif(history, '[]'),
       reason, detail
FROM outbox WHERE state IN (1, 2);

CREATE TABLE outbox_apart (
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

INSERT INTO outbox_apart
SELECT seq, id, name, user_id, accepted_at, trace, idempotency_key, digest, payload FROM outbox;

DROP TABLE outbox;
ALTER TABLE outbox_apart RENAME TO outbox;

CREATE UNIQUE INDEX outbox_key ON outbox (user_id, idempotency_key)
    WHERE idempotency_key IS NOT NULL;
