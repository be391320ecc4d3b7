-- The outbox. A row of `outbox` is written once; later it can lose its idempotency key and its payload,
-- and get the ULID of a server that gives another one. Exactly one of four narrow tables names its
-- `seq`, which is its state: outbox_ready (pending), outbox_claims (delivering), outbox_sent (answered,
-- not confirmed), outbox_done (delivered or dead).
-- Times are milliseconds since 1970. Instants of the store's own clock end in `_at_ms` too; they
-- mean something only while one process runs.

-- owner decides quotas, idempotency keys and visibility; user_id is for people. meta is a JSON object
-- of an event's rare attributes, null without any.
CREATE TABLE outbox (
    seq                INTEGER PRIMARY KEY,
    event_id           TEXT    NOT NULL UNIQUE,
    name               TEXT    NOT NULL,
    owner              TEXT    NOT NULL,
    user_id            TEXT    NOT NULL,
    accepted_at_ms     INTEGER NOT NULL,
    meta               TEXT,
    idempotency_key    TEXT,
    idempotency_digest TEXT,
    payload            BLOB    NOT NULL
) STRICT;

CREATE UNIQUE INDEX outbox_idempotency ON outbox (owner, idempotency_key)
    WHERE idempotency_key IS NOT NULL;
CREATE INDEX outbox_owner ON outbox (owner, seq);
-- What else a row is asked for by: an id of its sender's, and the ULID of another outbox.
CREATE INDEX outbox_wire_id ON outbox (substr(meta ->> 'wire_id', 1, 255), owner)
    WHERE meta ->> 'wire_id' <> '';
CREATE INDEX outbox_moved_id ON outbox (meta ->> 'moved_id')
    WHERE meta ->> 'moved_id' IS NOT NULL;

-- due_at_ms 0 means due at once, by any clock. delayed: the caller asked for due_at_ms, so it is wall
-- time and outlives a restart. fair_share: the row's owner had few rows waiting while a noisy owner's
-- rows filled the queue. The defaults are an event's that was never sent. history is a JSON array of
-- notes, null without one.
CREATE TABLE outbox_ready (
    seq              INTEGER PRIMARY KEY,
    payload_bytes    INTEGER NOT NULL,
    due_at_ms        INTEGER NOT NULL DEFAULT 0,
    delayed          INTEGER NOT NULL DEFAULT 0,
    fair_share       INTEGER NOT NULL DEFAULT 0,
    isolated         INTEGER NOT NULL DEFAULT 0,
    attempts         INTEGER NOT NULL DEFAULT 0,
    sends            INTEGER NOT NULL DEFAULT 0,
    first_sent_at_ms INTEGER,
    history          TEXT
) STRICT;

CREATE INDEX outbox_ready_delayed ON outbox_ready (due_at_ms) WHERE delayed = 1 AND isolated = 0;
CREATE INDEX outbox_ready_again ON outbox_ready (due_at_ms)
    WHERE due_at_ms > 0 AND delayed = 0 AND isolated = 0;
CREATE INDEX outbox_ready_isolated ON outbox_ready (due_at_ms) WHERE isolated = 1;
CREATE INDEX outbox_ready_fair_share ON outbox_ready (seq)
    WHERE fair_share = 1 AND due_at_ms = 0 AND isolated = 0;

CREATE TABLE outbox_claims (
    seq              INTEGER PRIMARY KEY,
    claim            TEXT    NOT NULL,
    claimed_at_ms    INTEGER NOT NULL,
    lease_until_ms   INTEGER NOT NULL,
    payload_bytes    INTEGER NOT NULL,
    fair_share       INTEGER NOT NULL,
    isolated         INTEGER NOT NULL,
    attempts         INTEGER NOT NULL,
    sends            INTEGER NOT NULL,
    first_sent_at_ms INTEGER,
    history          TEXT
) STRICT;

CREATE TABLE outbox_sent (
    seq              INTEGER PRIMARY KEY,
    sent_at_ms       INTEGER NOT NULL,
    isolated         INTEGER NOT NULL,
    attempts         INTEGER NOT NULL,
    sends            INTEGER NOT NULL,
    first_sent_at_ms INTEGER NOT NULL,
    history          TEXT
) STRICT;

-- ran_ms is how long the service had run in all when the row was settled (see outbox_meta).
CREATE TABLE outbox_done (
    seq              INTEGER PRIMARY KEY,
    dead             INTEGER NOT NULL CHECK (dead IN (0, 1)),
    settled_at_ms    INTEGER NOT NULL,
    ran_ms           INTEGER NOT NULL DEFAULT 0,
    isolated         INTEGER NOT NULL,
    attempts         INTEGER NOT NULL,
    sends            INTEGER NOT NULL,
    first_sent_at_ms INTEGER,
    history          TEXT,
    reason           TEXT,
    detail           TEXT
) STRICT;

CREATE INDEX outbox_done_dead ON outbox_done (seq) WHERE dead = 1;

-- Where a row is, and what it has been through. A claimed row's bytes may have left.
CREATE VIEW outbox_rows AS
SELECT outbox.seq AS seq, event_id, name, owner, user_id, accepted_at_ms, meta, idempotency_key,
       idempotency_digest, length(payload) AS payload_bytes,
       CASE WHEN outbox_done.seq IS NOT NULL THEN iif(dead, 'dead', 'delivered')
            WHEN outbox_sent.seq IS NOT NULL THEN 'sent'
            WHEN outbox_claims.seq IS NOT NULL THEN 'delivering' ELSE 'pending' END AS state,
       coalesce(r.attempts, outbox_claims.attempts, outbox_sent.attempts, outbox_done.attempts)
           AS attempts,
       coalesce(r.sends, outbox_claims.sends, outbox_sent.sends, outbox_done.sends) AS sends,
       coalesce(r.isolated, outbox_claims.isolated, outbox_sent.isolated, outbox_done.isolated)
           AS isolated,
       coalesce(r.first_sent_at_ms, outbox_claims.first_sent_at_ms, outbox_sent.first_sent_at_ms,
                outbox_done.first_sent_at_ms, claimed_at_ms) AS first_sent_at_ms,
       due_at_ms, delayed, lease_until_ms, sent_at_ms, settled_at_ms, reason, detail,
       coalesce(r.history, outbox_claims.history, outbox_sent.history, outbox_done.history)
           AS history
FROM outbox LEFT JOIN outbox_ready AS r ON r.seq = outbox.seq
    LEFT JOIN outbox_claims ON outbox_claims.seq = outbox.seq
    LEFT JOIN outbox_sent ON outbox_sent.seq = outbox.seq
    LEFT JOIN outbox_done ON outbox_done.seq = outbox.seq;

CREATE TABLE outbox_delivery (
    single        INTEGER PRIMARY KEY CHECK (single = 1),
    state         TEXT    NOT NULL DEFAULT 'healthy',
    reason        TEXT    NOT NULL DEFAULT '',
    batch_window  INTEGER NOT NULL DEFAULT 1,
    failures      INTEGER NOT NULL DEFAULT 0,
    reopens_at_ms INTEGER NOT NULL DEFAULT 0,
    since_ms      INTEGER NOT NULL DEFAULT 0,
    rate          REAL    NOT NULL DEFAULT 0,
    paused_by     TEXT,
    pause_reason  TEXT    NOT NULL DEFAULT '',
    revision      INTEGER NOT NULL DEFAULT 0,
    destination   TEXT    NOT NULL DEFAULT '',
    confirmation  TEXT    NOT NULL DEFAULT ''
) STRICT;

INSERT INTO outbox_delivery (single) VALUES (1);

CREATE TABLE outbox_settings (
    scope    TEXT NOT NULL CHECK (scope IN ('organization', 'user', 'session', 'watch')),
    scope_id TEXT NOT NULL,
    settings TEXT NOT NULL,
    PRIMARY KEY (scope, scope_id)
) STRICT;

-- A command that changes many rows has several audit rows with the same act. ids is a JSON array.
CREATE TABLE outbox_audit (
    id     INTEGER PRIMARY KEY,
    act    TEXT    NOT NULL DEFAULT (lower(hex(randomblob(16)))),
    at_ms  INTEGER NOT NULL,
    actor  TEXT    NOT NULL,
    action TEXT    NOT NULL,
    detail TEXT    NOT NULL,
    ids    TEXT    NOT NULL DEFAULT '[]'
) STRICT;

-- One row for each minute of the last days.
CREATE TABLE outbox_samples (
    at_ms          INTEGER PRIMARY KEY,
    waiting        INTEGER NOT NULL,
    dead           INTEGER NOT NULL,
    accepted_rate  REAL    NOT NULL,
    delivered_rate REAL    NOT NULL,
    state          TEXT    NOT NULL,
    reason         TEXT    NOT NULL
) STRICT;

CREATE INDEX outbox_audit_act ON outbox_audit (act);

-- What an outbox knows of itself. file_id names this file: a copy gets another. expects_log says that
-- a write-ahead log belongs to it; log_marks changes with each log, so that each holds this row.
-- settings_revision is not used: one process has the file. last_seq is the highest seq of a row
-- that was removed: no other row may get it, since Inngest's id follows from it. ran_ms is how long
-- services have run on the outbox, whatever the clock said.
CREATE TABLE outbox_meta (
    single            INTEGER PRIMARY KEY CHECK (single = 1),
    file_id           BLOB    NOT NULL DEFAULT (randomblob(8)),
    expects_log       INTEGER NOT NULL DEFAULT 0,
    log_marks         INTEGER NOT NULL DEFAULT 0,
    settings_revision INTEGER NOT NULL DEFAULT 0,
    last_seq          INTEGER NOT NULL DEFAULT 0,
    ran_ms            INTEGER NOT NULL DEFAULT 0
) STRICT;

INSERT INTO outbox_meta (single) VALUES (1);

-- The six random bytes of the ids that rows get in Inngest, from this seq on. Each start takes new
-- ones: a file that was restored gives its numbers again.
CREATE TABLE outbox_prefixes (
    from_seq INTEGER PRIMARY KEY,
    prefix   BLOB    NOT NULL CHECK (length(prefix) = 6)
) STRICT;

INSERT INTO outbox_prefixes VALUES (0, randomblob(6));

-- The highest seq when services had run for ran_ms: the rows up to it are at least as old. One row
-- for each hour that they ran, of the last day.
CREATE TABLE outbox_ages (
    ran_ms INTEGER PRIMARY KEY,
    seq    INTEGER NOT NULL
) STRICT;

-- The ids under which events are in the journal. A start of the service writes under an id of its own:
-- the numbers up to `ours` there are seqs of this file, null while it runs, 0 for another file's. All
-- events up to the number `had` have been here.
CREATE TABLE outbox_journal (
    id   TEXT    PRIMARY KEY,
    ours INTEGER DEFAULT 0,
    had  INTEGER NOT NULL DEFAULT 0
) STRICT;
