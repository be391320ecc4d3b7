-- Rows of outbox and outbox_done are in partitions, so that what the retention removes is dropped
-- and not deleted. Partition n has the seqs from n * 2^36. One partition is open: it takes the new
-- rows. Closing it moves the sequence to the next one's range. A closed partition is dropped when
-- nearly all of its rows are delivered and old; the few others move to the kept partition, which is
-- below all others. The low 32 bits of seq go on over a closing, because ids in Inngest have them.
--
-- No unique index spans partitions, so each has its own for event ids and idempotency keys. A
-- partition is closed while nobody writes: who writes to the next one sees all rows of the others.

-- The kept partition has no row here. last_seq is null before the closing. counted_to is not null
-- when the partition is detached: its rows up to counted_to are out of the counts.
CREATE TABLE outbox_partitions (
    number integer PRIMARY KEY,
    first_seq bigint,
    last_seq bigint,
    opened_at timestamptz,
    closed_at timestamptz,
    counted_to bigint
);

INSERT INTO outbox_partitions (number, first_seq, opened_at) VALUES (0, 0, clock_timestamp());

-- What is there becomes partition 0.
DO $$
DECLARE
    rows_view text := pg_get_viewdef('outbox_rows');
    last bigint := (SELECT last_value - (NOT is_called)::integer FROM outbox_seq_seq);
    whole text;
    named text;
BEGIN
    DROP VIEW outbox_rows;
    DROP TRIGGER outbox_enter ON outbox;
    DROP INDEX outbox_owner;
    ALTER TABLE outbox ALTER COLUMN seq DROP IDENTITY;
    FOREACH whole IN ARRAY ARRAY['outbox', 'outbox_done'] LOOP
        FOR named IN SELECT relname FROM pg_index JOIN pg_class ON oid = indexrelid
                     WHERE indrelid = whole::regclass LOOP
            EXECUTE format('ALTER INDEX %I RENAME TO %I', named,
                           overlay(named PLACING whole || '_p0' FROM 1 FOR length(whole)));
        END LOOP;
        EXECUTE format('ALTER TABLE %I RENAME TO %I', whole, whole || '_p0');
        EXECUTE format('CREATE TABLE %I (LIKE %I) PARTITION BY RANGE (seq)', whole, whole || '_p0');
        EXECUTE format('ALTER TABLE %I ADD PRIMARY KEY (seq)', whole);
        EXECUTE format('CREATE TABLE %I (LIKE %I)', whole || '_kept', whole || '_p0');
        IF EXISTS (SELECT FROM pg_trigger
                   WHERE tgrelid = (whole || '_p0')::regclass AND tgname = 'outbox_sealed') THEN
            EXECUTE format('DROP TRIGGER outbox_sealed ON %I', whole || '_p0');
            EXECUTE format('CREATE TRIGGER outbox_sealed BEFORE INSERT OR UPDATE OR DELETE ON %I '
                           'FOR EACH STATEMENT EXECUTE FUNCTION outbox_refuse()', whole);
        END IF;
    END LOOP;

    CREATE SEQUENCE outbox_seq_seq OWNED BY outbox.seq;
    PERFORM setval('outbox_seq_seq', greatest(last, 1), last > 0);
    ALTER TABLE outbox ALTER COLUMN seq SET DEFAULT nextval('outbox_seq_seq');
    -- The condition is written where an owner's rows are listed. Without it the planner would look
    -- for a seq or a key in this whole index while it takes the table for empty.
    CREATE INDEX outbox_owner ON outbox (owner, seq) WHERE seq > -1;
    CREATE INDEX outbox_wire_id ON outbox (owner, wire_id) WHERE length(wire_id) <= 255;
    CREATE INDEX outbox_moved_id ON outbox (inngest_id) WHERE inngest_id IS NOT NULL;
    CREATE INDEX outbox_done_retention ON outbox_done (settled_at_ms) WHERE NOT dead;
    CREATE INDEX outbox_done_dead ON outbox_done (seq) WHERE dead;
    CREATE INDEX outbox_kept_event_id ON outbox_kept (event_id);
    CREATE INDEX outbox_kept_idempotency ON outbox_kept (owner, idempotency_key)
        WHERE idempotency_key IS NOT NULL;

    FOREACH whole IN ARRAY ARRAY['outbox', 'outbox_done'] LOOP
        EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (MINVALUE) TO (0)',
                       whole, whole || '_kept');
        EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (0) TO (%s)',
                       whole, whole || '_p0', 1::bigint << 36);
    END LOOP;
    EXECUTE 'CREATE VIEW outbox_rows AS ' || rows_view;
END
$$;

CREATE CONSTRAINT TRIGGER outbox_enter AFTER INSERT ON outbox DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW WHEN (current_setting('outbox.appending', true) = 'yes')
EXECUTE FUNCTION outbox_enter();

-- Leaves out an event of an application whose key another partition has.
CREATE FUNCTION outbox_skip_known_key() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM outbox_partitions
                   WHERE number = NEW.seq >> 36 AND opened_at IS NOT NULL) THEN
        RAISE EXCEPTION 'the transaction began before the newest rows of the outbox'
            USING ERRCODE = 'serialization_failure';
    ELSIF EXISTS (SELECT FROM outbox
                  WHERE owner = NEW.owner AND idempotency_key = NEW.idempotency_key) THEN
        RETURN NULL;
    END IF;
    RETURN NEW;
END
$$;

CREATE TRIGGER outbox_skip_known_key BEFORE INSERT ON outbox
FOR EACH ROW WHEN (current_setting('outbox.appending', true) = 'yes'
                   AND NEW.idempotency_key IS NOT NULL)
EXECUTE FUNCTION outbox_skip_known_key();

-- The functions below change partitions with the rights of their owner, for whoever may delete rows.
-- One session at a time: the others get false. So does who waits too long for a table, which
-- all posts would wait behind.
CREATE FUNCTION outbox_may_change_partitions() RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    IF NOT has_table_privilege(session_user, 'outbox', 'DELETE') THEN
        RAISE EXCEPTION 'permission denied for the partitions of the outbox'
            USING ERRCODE = 'insufficient_privilege';
    ELSIF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'partitions are changed in a transaction of isolation level read committed'
            USING ERRCODE = 'invalid_transaction_state';
    END IF;
    DELETE FROM outbox WHERE false;  -- an error where the outbox is sealed
    RETURN pg_try_advisory_xact_lock(
        ('outbox_partitions'::regclass::oid::bigint << 16) + 20);
END
$$;

-- Makes the partition after the open one; false when it is there.
CREATE FUNCTION outbox_make_partition() RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET lock_timeout = '200ms' AS $$
DECLARE
    next integer := (SELECT max(number) + 1 FROM outbox_partitions);
    whole text;
    part text;
BEGIN
    IF NOT outbox_may_change_partitions()
       OR EXISTS (SELECT FROM outbox_partitions WHERE opened_at IS NULL) THEN
        RETURN false;
    END IF;
    FOREACH whole IN ARRAY ARRAY['outbox', 'outbox_done'] LOOP
        part := whole || '_p' || next;
        EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING DEFAULTS) WITH '
                       '(autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 1)',
                       part, whole);
        IF whole = 'outbox' THEN
            EXECUTE format('CREATE UNIQUE INDEX ON %I (event_id)', part);
            EXECUTE format('CREATE UNIQUE INDEX ON %I (owner, idempotency_key) '
                           'WHERE idempotency_key IS NOT NULL', part);
        END IF;
        EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%s) TO (%s)',
                       whole, part, next::bigint << 36, (next + 1)::bigint << 36);
    END LOOP;
    INSERT INTO outbox_partitions (number) VALUES (next);
    RETURN true;
EXCEPTION WHEN lock_not_available THEN
    RETURN false;
END
$$;

-- Closes the open partition when the next one is made. Waits until nobody writes the outbox.
CREATE FUNCTION outbox_close_partition() RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET lock_timeout = '200ms' AS $$
DECLARE
    next integer;
    last bigint;
BEGIN
    IF NOT outbox_may_change_partitions() THEN
        RETURN false;
    END IF;
    SELECT number INTO next FROM outbox_partitions WHERE opened_at IS NULL;
    IF next IS NULL THEN
        RETURN false;
    END IF;
    LOCK TABLE ONLY outbox IN SHARE ROW EXCLUSIVE MODE;
    -- A sequence keeps its value when the transaction is rolled back: it may be moved already.
    SELECT last_value INTO last FROM outbox_seq_seq;
    IF last >> 36 < next THEN
        last := (next::bigint << 36) + (last & ((1::bigint << 32) - 1));
        PERFORM setval('outbox_seq_seq', last);
    END IF;
    UPDATE outbox_partitions
    SET closed_at = clock_timestamp(),
        last_seq = coalesce((SELECT max(seq) FROM outbox WHERE seq < next::bigint << 36), 0)
    WHERE closed_at IS NULL AND number < next;
    UPDATE outbox_partitions
    SET opened_at = clock_timestamp(), first_seq = coalesce(
        (SELECT min(seq) FROM outbox WHERE seq >= next::bigint << 36), last + 1)
    WHERE number = next;
    RETURN true;
EXCEPTION WHEN lock_not_available THEN
    RETURN false;
END
$$;

-- The rows that stay when a closed partition is dropped: all but those delivered longer ago. At most
-- most + 1 of them; null when a new event waits, which keeps its place in the order of seq.
CREATE FUNCTION outbox_staying(wanted integer, older_than_ms bigint, most integer)
RETURNS bigint[] LANGUAGE plpgsql AS $$
DECLARE
    low bigint := wanted::bigint << 36;
    high bigint := (wanted + 1)::bigint << 36;
    since_ms bigint := floor(extract(epoch FROM clock_timestamp()) * 1000) - older_than_ms;
    done bigint[];
BEGIN
    IF EXISTS (SELECT FROM outbox_ready WHERE due_at IS NULL AND seq < high
               AND seq >= greatest(low, (SELECT ready_from FROM outbox_mark))) THEN
        RETURN NULL;
    END IF;
    -- By the partition's name: by its range of seq the planner would read all of it.
    EXECUTE format($done$
        SELECT (SELECT array_agg(seq) FROM (SELECT seq FROM %1$I WHERE dead LIMIT $2) AS d)
        || (SELECT array_agg(seq) FROM (
            SELECT seq FROM %1$I WHERE NOT dead AND settled_at_ms > $1
            ORDER BY settled_at_ms DESC LIMIT $2) AS d)
        $done$, 'outbox_done_p' || wanted)
    INTO done USING since_ms, most + 1;
    RETURN ARRAY(
        SELECT seq FROM outbox_ready WHERE seq >= low AND seq < high
        UNION ALL SELECT seq FROM outbox_claims, unnest(seqs) AS seq WHERE seq >= low AND seq < high
        UNION ALL SELECT seq FROM outbox_sent WHERE seq >= low AND seq < high
        UNION ALL SELECT unnest(done)
        LIMIT most + 1);
END
$$;

-- Detaches the oldest closed partition when at most `most` of its rows, of at most most_bytes, stay;
-- those move to the kept partition. Everything waits meanwhile, for some milliseconds.
CREATE FUNCTION outbox_detach_partition(older_than_ms bigint, most integer, most_bytes bigint)
RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER SET lock_timeout = '200ms' AS $$
DECLARE
    oldest integer;
    staying bigint[];
    whole text;
    part text;
BEGIN
    IF NOT outbox_may_change_partitions() THEN
        RETURN false;
    END IF;
    SELECT min(number) INTO oldest FROM outbox_partitions
    WHERE closed_at IS NOT NULL AND counted_to IS NULL;
    IF oldest IS NULL THEN
        RETURN false;
    END IF;
    staying := outbox_staying(oldest, older_than_ms, most);
    IF staying IS NULL OR cardinality(staying) > most OR most_bytes < (
        SELECT sum(octet_length(payload)) FROM outbox WHERE seq = ANY(staying)) THEN
        RETURN false;
    ELSIF clock_timestamp() > statement_timestamp() + interval '200 ms' THEN
        RETURN false;  -- what took so long would hold up all posts when it is done again
    END IF;
    -- Settlements take the two tables in this order.
    LOCK TABLE ONLY outbox_done, ONLY outbox IN ACCESS EXCLUSIVE MODE;
    staying := outbox_staying(oldest, older_than_ms, most);
    IF staying IS NULL OR cardinality(staying) > most THEN
        RETURN false;
    END IF;
    FOREACH whole IN ARRAY ARRAY['outbox', 'outbox_done'] LOOP
        part := whole || '_p' || oldest;
        EXECUTE format('ALTER TABLE %I DETACH PARTITION %I', whole, part);
        EXECUTE format('ALTER TABLE %I DETACH PARTITION %I', whole, whole || '_kept');
        EXECUTE format('WITH moved AS (DELETE FROM %I WHERE seq = ANY($1) RETURNING *) '
                       'INSERT INTO %I SELECT * FROM moved', part, whole || '_kept')
        USING staying;
        EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (MINVALUE) TO (%s)',
                       whole, whole || '_kept', (oldest + 1)::bigint << 36);
    END LOOP;
    EXECUTE format('UPDATE outbox_partitions SET counted_to = coalesce('
                   '(SELECT min(seq) - 1 FROM %I), last_seq) WHERE number = $1',
                   'outbox_p' || oldest)
    USING oldest;
    RETURN true;
EXCEPTION WHEN lock_not_available THEN
    RETURN false;
END
$$;

-- Takes the rows of one page of a detached partition out of the counts, and drops it after the last
-- page. Returns how many rows these were, null when no partition is detached or it is in use.
CREATE FUNCTION outbox_drop_detached(page integer) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET lock_timeout = '200ms' AS $$
DECLARE
    one outbox_partitions;
    dropped bigint;
BEGIN
    IF NOT outbox_may_change_partitions() THEN
        RETURN NULL;
    END IF;
    SELECT * INTO one FROM outbox_partitions
    WHERE counted_to IS NOT NULL ORDER BY number LIMIT 1 FOR UPDATE;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    EXECUTE format($count$
        WITH by_owner AS (
            SELECT owner, count(*) AS rows, sum(octet_length(payload)) AS bytes FROM %I
            WHERE seq > $1 AND seq <= $1 + $2 GROUP BY owner
        ), changed AS (
            INSERT INTO outbox_changes (owners, stored, stored_bytes, delivered)
            SELECT array_agg(owner), array_agg(-rows), array_agg(-bytes), -sum(rows)
            FROM by_owner HAVING count(*) > 0
        )
        SELECT coalesce(sum(rows), 0) FROM by_owner
        $count$, 'outbox_p' || one.number)
    INTO dropped USING one.counted_to, page;
    DELETE FROM outbox_notes AS n
    WHERE seq > one.counted_to AND seq <= one.counted_to + page
      AND NOT EXISTS (SELECT FROM outbox WHERE outbox.seq = n.seq);
    UPDATE outbox_partitions SET counted_to = counted_to + page WHERE number = one.number;
    IF one.counted_to + page >= one.last_seq THEN
        BEGIN
            EXECUTE format('DROP TABLE %I', 'outbox_p' || one.number);
            EXECUTE format('DROP TABLE %I', 'outbox_done_p' || one.number);
            DELETE FROM outbox_partitions WHERE number = one.number;
        EXCEPTION WHEN lock_not_available THEN
            IF dropped = 0 THEN
                RETURN NULL;
            END IF;
        END;
    END IF;
    RETURN dropped;
END
$$;

DO $$
DECLARE
    home text := current_schema();
    said text;
BEGIN
    FOREACH said IN ARRAY ARRAY[
        'outbox_skip_known_key()', 'outbox_may_change_partitions()', 'outbox_make_partition()',
        'outbox_close_partition()', 'outbox_staying(integer, bigint, integer)',
        'outbox_detach_partition(bigint, integer, bigint)', 'outbox_drop_detached(integer)'
    ] LOOP
        EXECUTE format('ALTER FUNCTION %I.%s SET search_path = %I, pg_temp', home, said, home);
    END LOOP;
END
$$;

-- Besides the partitions: one process asks Inngest for all, and an application's event may have all
-- that an event may have.

-- Without seq: the planner would look for a seq in this whole index while it takes the table for empty.
DROP INDEX outbox_sent_at;
CREATE INDEX outbox_sent_at ON outbox_sent (sent_at_ms);

-- The process that asks Inngest about the sent rows, for all processes, until it is another's turn.
CREATE TABLE outbox_asker (
    single boolean PRIMARY KEY DEFAULT true CHECK (single),
    asker text NOT NULL DEFAULT '',
    asks_until timestamptz NOT NULL DEFAULT '-infinity'
) WITH (fillfactor = 50);

INSERT INTO outbox_asker DEFAULT VALUES;

-- What the counts of owners changed by and outbox_counts does not show yet: one row, which each fold
-- replaces. The arrays run in step with owners. since: when outbox_counts last showed all.
CREATE TABLE outbox_carried (
    no bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    since timestamptz NOT NULL,
    owners text[] NOT NULL,
    pending bigint[] NOT NULL,
    stored bigint[] NOT NULL,
    stored_bytes bigint[] NOT NULL
) WITH (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 200, vacuum_truncate = false
);

-- The counts of each owner by all changes up to changes_folded, in one row or two.
CREATE VIEW outbox_by_owner AS
SELECT owner, pending, stored, stored_bytes FROM outbox_counts
UNION ALL
SELECT u.owner COLLATE "C", u.pending, u.stored, u.stored_bytes
FROM (SELECT * FROM outbox_carried ORDER BY no DESC LIMIT 1) AS c,
     unnest(c.owners, c.pending, c.stored, c.stored_bytes)
         AS u (owner, pending, stored, stored_bytes);

-- The counts of one owner by all changes up to changes_folded.
CREATE FUNCTION outbox_counts_of(wanted text) RETURNS TABLE (pending bigint, stored_bytes bigint)
LANGUAGE sql STABLE AS $$
    SELECT coalesce(sum(part.pending), 0)::bigint, coalesce(sum(part.stored_bytes), 0)::bigint
    FROM (
        SELECT c.pending, c.stored_bytes FROM outbox_counts AS c WHERE c.owner = wanted
        UNION ALL
        SELECT c.pending[place], c.stored_bytes[place]
        FROM (SELECT * FROM outbox_carried ORDER BY no DESC LIMIT 1) AS c,
             array_position(c.owners, wanted) AS place
        WHERE place IS NOT NULL
    ) AS part
$$;

-- Folds the changes up to `safe`, which no open transaction can precede, into the counts: at most
-- `most` numbers. Removes as many folded ones that are older than the service's last reads. Returns
-- whether it folded; not while another transaction does.
--
-- What an owner's count changed by is carried in the one row of outbox_carried, and added to
-- outbox_counts when it is due: after an hour, when it is half of what makes an owner one who fills
-- the queue, or when with it the owner becomes one or ceases to be. Beside an open transaction a fold
-- steps over each version of the rows of outbox_counts that it writes; the newest row of
-- outbox_carried is found by its number. Where more than 10,000 owners are carried, all are written.
CREATE FUNCTION outbox_fold(safe bigint, most bigint DEFAULT NULL) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    meta outbox_meta;
    fold_to bigint;
    trim_to bigint;
BEGIN
    SELECT * INTO meta FROM outbox_meta WHERE changes_folded < safe FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    fold_to := least(safe, meta.changes_folded + most);
    trim_to := least(meta.changes_folded, meta.changes_trimmed + most, (
        SELECT no - 1 FROM outbox_changes
        WHERE no > meta.changes_trimmed AND changed_at > clock_timestamp() - interval '20 seconds'
        ORDER BY no LIMIT 1));
    WITH folded AS MATERIALIZED (
        SELECT owners, pending, stored, stored_bytes, delivered, dead, sent FROM outbox_changes
        WHERE no > meta.changes_folded AND no <= fold_to
    ), changed AS MATERIALIZED (
        SELECT u.owner, coalesce(sum(u.pending), 0)::bigint AS pending,
               coalesce(sum(u.stored), 0)::bigint AS stored,
               coalesce(sum(u.bytes), 0)::bigint AS bytes
        FROM folded AS f, unnest(owners, f.pending, f.stored, f.stored_bytes)
            AS u(owner, pending, stored, bytes)
        GROUP BY u.owner
    ), moved AS (
        UPDATE outbox_meta AS m SET changes_folded = fold_to, changes_trimmed = trim_to,
            pending = m.pending + (SELECT coalesce(sum(c.pending), 0) FROM changed c),
            stored_bytes = m.stored_bytes + (SELECT coalesce(sum(c.bytes), 0) FROM changed c),
            delivered = m.delivered + (SELECT coalesce(sum(f.delivered), 0) FROM folded f),
            dead = m.dead + (SELECT coalesce(sum(f.dead), 0) FROM folded f),
            sent = m.sent + (SELECT coalesce(sum(f.sent), 0) FROM folded f)
    ), carried AS MATERIALIZED (
        SELECT * FROM outbox_carried ORDER BY no DESC LIMIT 1
    ), owed AS MATERIALIZED (
        SELECT owner, sum(pending)::bigint AS pending, sum(stored)::bigint AS stored,
               sum(bytes)::bigint AS bytes
        FROM (
            TABLE changed
            UNION ALL
            SELECT u.* FROM carried AS c, unnest(c.owners, c.pending, c.stored, c.stored_bytes)
                AS u(owner, pending, stored, bytes)
        ) AS each_part
        GROUP BY owner HAVING (sum(pending), sum(stored), sum(bytes)) <> (0, 0, 0)
    ), turn AS MATERIALIZED (
        SELECT (SELECT count(*) FROM owed) > 10000
               OR coalesce((SELECT since < statement_timestamp() - interval '1 hour' FROM carried),
                           false) AS of_all
    ), crossing AS MATERIALIZED (
        SELECT c.owner FROM outbox_counts AS c JOIN owed USING (owner)
        WHERE c.pending >= meta.heavy_rows / 2 AND c.pending <= 2 * meta.heavy_rows
          AND (c.pending >= meta.heavy_rows) <> (c.pending + owed.pending >= meta.heavy_rows)
    ), now AS MATERIALIZED (
        SELECT owed.owner, coalesce(c.pending, 0) + owed.pending AS pending,
               coalesce(c.stored, 0) + owed.stored AS stored,
               coalesce(c.stored_bytes, 0) + owed.bytes AS bytes
        FROM turn, owed LEFT JOIN LATERAL (
            SELECT * FROM outbox_counts WHERE outbox_counts.owner = owed.owner OFFSET 0
        ) AS c ON true
        WHERE of_all OR 2 * abs(owed.pending) >= meta.heavy_rows
           OR owed.owner IN (SELECT owner FROM crossing)
    ), put AS (
        INSERT INTO outbox_counts (owner, pending, stored, stored_bytes)
        SELECT owner, pending, stored, bytes FROM now WHERE (pending, stored, bytes) <> (0, 0, 0)
        ON CONFLICT (owner) DO UPDATE SET pending = excluded.pending, stored = excluded.stored,
            stored_bytes = excluded.stored_bytes
    ), gone AS (
        DELETE FROM outbox_counts WHERE owner = ANY(ARRAY(
            SELECT owner FROM now WHERE (pending, stored, bytes) = (0, 0, 0)))
    ), carry AS (
        INSERT INTO outbox_carried (since, owners, pending, stored, stored_bytes)
        SELECT coalesce((SELECT since FROM carried WHERE NOT of_all), statement_timestamp()),
               kept.owners, kept.pending, kept.stored, kept.bytes
        FROM turn, (
            SELECT coalesce(array_agg(owner), '{}') AS owners,
                   coalesce(array_agg(pending), '{}') AS pending,
                   coalesce(array_agg(stored), '{}') AS stored,
                   coalesce(array_agg(bytes), '{}') AS bytes
            FROM owed WHERE NOT EXISTS (SELECT FROM now WHERE now.owner = owed.owner)
        ) AS kept
        WHERE of_all OR EXISTS (SELECT FROM changed)
        RETURNING no
    ), replaced AS (
        DELETE FROM outbox_carried USING carry WHERE outbox_carried.no = (SELECT no FROM carried)
    )
    DELETE FROM outbox_changes WHERE no > meta.changes_trimmed AND no <= trim_to;
    RETURN true;
END
$$;

-- Who may still write changes before the number of the row; null where nobody looked.
ALTER TABLE outbox_changes ADD COLUMN writers text[];

-- Folds for a transaction that has written a change. Who holds the lock on outbox_changes may have
-- drawn a number and not be seen yet. So this notes the holders with a new number, and folds up to
-- a noted number whose holders have all ended. A snapshot that was taken earlier would not show what
-- these did.
CREATE FUNCTION outbox_fold_unread() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    position bigint := nextval('outbox_changes_no_seq');
    writing text[] := ARRAY(
        SELECT DISTINCT virtualtransaction FROM pg_locks
        WHERE locktype = 'relation' AND mode = 'RowExclusiveLock'
          AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
          AND relation = 'outbox_changes'::regclass AND pid IS DISTINCT FROM pg_backend_pid());
BEGIN
    INSERT INTO outbox_changes (no, writers) OVERRIDING SYSTEM VALUE VALUES (position, writing);
    IF current_setting('transaction_isolation') IN ('read committed', 'read uncommitted') THEN
        PERFORM outbox_fold((
            SELECT max(no) FROM outbox_changes
            WHERE no > (SELECT changes_folded FROM outbox_meta) AND NOT writers && writing), 10000);
    END IF;
END
$$;

-- When an event is due that its application appended with a delay. A row lives only inside of the
-- appending transaction.
CREATE TABLE outbox_held (
    seq bigint PRIMARY KEY,
    due_at timestamptz NOT NULL
);

-- Puts an event that an application appended into its lane, at the commit of the application's own
-- transaction: only then is its place in the lane known.
CREATE OR REPLACE FUNCTION outbox_enter() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    held_until timestamptz;
    change bigint;
BEGIN
    DELETE FROM outbox_held WHERE seq = NEW.seq RETURNING due_at INTO held_until;
    INSERT INTO outbox_ready (seq, payload_bytes, due_at, held, express_seq)
    SELECT NEW.seq, octet_length(NEW.payload), greatest(soonest, held_until),
           coalesce(held_until > soonest, false),
           CASE WHEN mine.pending < m.heavy_rows AND m.pending < 2 * (
                    SELECT sum(pending) FROM outbox_counts WHERE pending >= m.heavy_rows)
                THEN NEW.seq END
    FROM (SELECT greatest(clock_timestamp(), due_from) AS soonest FROM outbox_mark) AS mark,
         outbox_meta AS m, outbox_counts_of(NEW.owner) AS mine;
    INSERT INTO outbox_changes (owners, pending, stored, stored_bytes)
    VALUES (ARRAY[NEW.owner], '{1}', '{1}', ARRAY[octet_length(NEW.payload)])
    RETURNING no INTO change;
    IF change % 64 = 0 AND change - 256 > (SELECT changes_folded FROM outbox_meta) THEN
        PERFORM outbox_fold_unread();
    END IF;
    PERFORM pg_notify('outbox', 'application rows');
    RETURN NULL;
END
$$;

-- Refuses an event when the outbox is full, or its owner has too much in it. The limits are those of
-- the service that was started last.
CREATE OR REPLACE FUNCTION outbox_check_room(wanted_owner text, wanted_bytes bigint) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    refusal text;
BEGIN
    SELECT CASE
        WHEN mine.pending + changed.my_pending >= m.max_pending_per_user
            THEN 'too_many_pending: this owner has too many events that wait'
        WHEN m.pending + changed.pending >= m.max_pending
            THEN 'outbox_full: too many events wait'
        WHEN mine.stored_bytes + changed.my_bytes + wanted_bytes > m.max_bytes_per_user
            THEN 'too_many_pending: the stored events of this owner have reached their limit'
        WHEN m.stored_bytes + changed.bytes + wanted_bytes > m.max_bytes
            THEN 'outbox_full: the stored events have reached their limit'
        END
    INTO refusal
    FROM outbox_meta AS m, outbox_counts_of(wanted_owner) AS mine, LATERAL (
        SELECT coalesce(sum(u.pending), 0) AS pending, coalesce(sum(u.bytes), 0) AS bytes,
               coalesce(sum(u.pending) FILTER (WHERE u.owner = wanted_owner), 0) AS my_pending,
               coalesce(sum(u.bytes) FILTER (WHERE u.owner = wanted_owner), 0) AS my_bytes
        FROM outbox_changes AS c,
             unnest(c.owners, c.pending, c.stored_bytes) AS u (owner, pending, bytes)
        WHERE c.no > m.changes_folded
    ) AS changed;
    IF refusal IS NOT NULL THEN
        RAISE EXCEPTION '%', refusal USING ERRCODE = 'configuration_limit_exceeded';
    END IF;
END
$$;

-- Raises an error about a parameter where `wrong` is true.
CREATE FUNCTION outbox_refuse_if(wrong boolean, reason text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF wrong THEN
        RAISE EXCEPTION '%', reason USING ERRCODE = 'invalid_parameter_value';
    END IF;
END
$$;

-- Refuses what is no JSON object, or one that Inngest can't read: nested too deeply, or with a
-- number beyond a float's range. Such a number has more than 308 digits as a text.
CREATE FUNCTION outbox_check_object(word text, value jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM outbox_refuse_if(jsonb_typeof(value) IS DISTINCT FROM 'object',
                             format('the %s of an event is a JSON object', word));
    PERFORM outbox_refuse_if(outbox_depth(value::text) > 500,
                             format('the %s of an event is nested deeper than 500 levels', word));
    PERFORM outbox_refuse_if(
        value::text ~ '([0-9]{103}){3}' AND jsonb_path_exists(value, 'strict $.** ? (
            @.type() == "number" && (@ > 1.7976931348623158e308 || @ < -1.7976931348623158e308))'),
        format('a number in the %s of an event is out of range', word));
END
$$;

-- Refuses sessions that Inngest refuses; returns those that it reads. `sessions` are the event's
-- own, where a null takes an inherited one away; `propagated_sessions` are inherited.
CREATE FUNCTION outbox_check_sessions(meta jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    layer record;
    bad boolean;
    many boolean;
BEGIN
    PERFORM outbox_refuse_if(jsonb_typeof(meta) NOT IN ('object', 'null'),
                             'the meta of an event is a JSON object');
    meta := (SELECT coalesce(jsonb_object_agg(key, value), '{}')
             FROM jsonb_each(nullif(meta, 'null'))
             WHERE key IN ('sessions', 'propagated_sessions'));
    FOR layer IN SELECT key, nullif(value, 'null') AS held FROM jsonb_each(meta) LOOP
        PERFORM outbox_refuse_if(jsonb_typeof(layer.held) <> 'object',
                                 'the sessions in the meta of an event are a JSON object');
        SELECT bool_or(jsonb_typeof(value) NOT IN ('string', 'number')
                       OR octet_length(key) NOT BETWEEN 1 AND 128
                       OR octet_length(value #>> '{}') NOT BETWEEN 1 AND 512),
               layer.key = 'sessions' AND count(*) > 5
        INTO bad, many
        FROM jsonb_each(layer.held) WHERE layer.key <> 'sessions' OR value <> 'null';
        PERFORM outbox_refuse_if(bad, 'a session in the meta of an event is a string or a number '
            'of 1 to 512 bytes, under a key of 1 to 128 bytes');
        PERFORM outbox_refuse_if(many, 'the meta of an event has more than 5 sessions');
    END LOOP;
    RETURN meta;
END
$$;

-- A UUID of version 7: 48 bits of time, then random ones.
CREATE FUNCTION outbox_new_id(at_ms bigint) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    bits bytea := overlay(uuid_send(gen_random_uuid())
                          PLACING substring(int8send(at_ms) FROM 3) FROM 1 FOR 6);
BEGIN
    RETURN encode(set_bit(set_bit(bits, 52, 1), 53, 1), 'hex')::uuid::text;
END
$$;

-- Makes an event part of the caller's transaction; returns its id. It is sent after the commit, and
-- never when the transaction is rolled back. `issuer` with `user_id` is who the event belongs to, as
-- the service's sign-in names it. The same idempotency_key of the same owner gives the same event
-- again, and an error for other data. So does the same id for 24 hours, whatever the data, as at the
-- service's door.
CREATE FUNCTION outbox_append(
    name text,
    data jsonb,
    user_id text DEFAULT NULL,
    issuer text DEFAULT 'database',
    user_email text DEFAULT NULL,
    user_name text DEFAULT NULL,
    idempotency_key text DEFAULT NULL,
    trace text DEFAULT NULL,
    id text DEFAULT NULL,
    ts bigint DEFAULT NULL,
    v text DEFAULT '1',
    environment text DEFAULT NULL,
    send_at bigint DEFAULT NULL,
    user_fields jsonb DEFAULT NULL,
    meta jsonb DEFAULT NULL
) RETURNS text LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    event_name ALIAS FOR $1;
    event_data ALIAS FOR $2;
    event_user ALIAS FOR $3;
    event_issuer ALIAS FOR $4;
    event_key ALIAS FOR $7;
    event_trace ALIAS FOR $8;
    event_ts ALIAS FOR $10;
    event_environment ALIAS FOR $12;
    event_due ALIAS FOR $13;
    event_meta ALIAS FOR $15;
    event_owner text := concat_ws(' ', $4, $3);
    wire text := nullif($9, '');
    now_ms bigint := floor(extract(epoch FROM clock_timestamp()) * 1000);
    own_id text := outbox_new_id(now_ms);
    key text := $7;
    digest bytea;
    bytes bytea;
    inserted integer;
    stored record;
BEGIN
    PERFORM outbox_refuse_if(event_name IS NULL OR event_name = '',
                             'the name of an event must be present');
    -- Inngest lowers a dotted capital I (304) to a plain i.
    PERFORM outbox_refuse_if(lower(replace(left(event_name, 8), chr(304), 'i') COLLATE "C") = 'inngest/',
                             'event names that start with inngest/ are reserved');
    PERFORM outbox_refuse_if(event_issuer IS NULL OR event_issuer !~ '^[^[:space:]]{1,255}$'
                             OR length(event_user) NOT BETWEEN 1 AND 255,
                             'an issuer has 1 to 255 characters and no space, a user 1 to 255');
    PERFORM outbox_refuse_if(event_key !~ '^[\x21-\x7e]{1,255}$',
                             'an idempotency key has 1 to 255 visible ASCII characters');
    PERFORM outbox_refuse_if(event_key IS NOT NULL AND wire IS NOT NULL,
                             'an event has an id or an idempotency key, not both');
    PERFORM outbox_refuse_if(event_environment !~ '^[\x21-\x7e]{1,255}$',
                             'an environment has 1 to 255 visible ASCII characters');
    PERFORM outbox_refuse_if(event_ts <> 0 AND event_ts NOT BETWEEN 315532800000 AND 4102444800000,
                             'ts is in milliseconds, between 1980 and 2100');
    PERFORM outbox_refuse_if(event_due NOT BETWEEN 0 AND 4102444800000,
                             'send_at is in milliseconds, between 1970 and 2100');
    PERFORM outbox_check_object('data', event_data);
    PERFORM outbox_check_object('user', coalesce(user_fields, '{}'));
    bytes := convert_to((jsonb_build_object(
            'id', coalesce(wire, own_id), 'name', event_name,
            'ts', coalesce(nullif(event_ts, 0), now_ms), 'data', event_data,
            'user', coalesce(user_fields, '{}') || jsonb_build_object(
                'id', event_user, 'email', user_email, 'name', user_name))
        || CASE WHEN v IS NULL THEN '{}' ELSE jsonb_build_object('v', v) END
        || CASE WHEN event_meta IS NULL THEN '{}'
                ELSE jsonb_build_object('meta', outbox_check_sessions(event_meta)) END
        )::text, 'UTF8');
    PERFORM outbox_refuse_if(octet_length(bytes) > 3145728, 'the event is larger than 3 MiB');
    PERFORM outbox_check_room(event_owner, octet_length(bytes));
    IF wire IS NOT NULL THEN
        -- The same key as for an event of this owner and id that comes over HTTP.
        key := encode(sha256(convert_to('id', 'UTF8') || '\x00'
            || convert_to(coalesce(event_environment, ''), 'UTF8') || '\x00'
            || convert_to(event_name, 'UTF8') || '\x00' || convert_to(wire, 'UTF8')), 'hex');
        digest := decode(repeat('00', 32), 'hex');
        UPDATE outbox AS o SET idempotency_key = NULL, idempotency_digest = NULL
        WHERE o.owner = event_owner AND o.idempotency_key = key
          AND o.accepted_at_ms < now_ms - 86400000;
    ELSIF key IS NOT NULL THEN
        digest := sha256(convert_to(
            concat_ws(' ', event_environment, event_name, event_data::text), 'UTF8'));
    END IF;
    PERFORM set_config('outbox.appending', 'yes', true);
    WITH put AS (
        INSERT INTO outbox (event_id, name, owner, user_id, accepted_at_ms, trace, idempotency_key,
                            idempotency_digest, wire_id, environment, payload)
        VALUES (own_id, event_name, event_owner, coalesce(event_user, ''), now_ms, event_trace, key,
                digest, wire, event_environment, bytes)
        ON CONFLICT DO NOTHING
        RETURNING seq
    ), held AS (
        INSERT INTO outbox_held (seq, due_at)
        SELECT seq, to_timestamp(event_due / 1000.0) FROM put WHERE event_due > now_ms
    )
    SELECT count(*) INTO inserted FROM put;
    PERFORM set_config('outbox.appending', '', true);
    IF inserted = 1 THEN
        RETURN own_id;
    END IF;
    SELECT o.event_id, o.idempotency_digest INTO stored
    FROM outbox AS o WHERE o.owner = event_owner AND o.idempotency_key = key;
    IF stored.event_id IS NULL THEN
        RAISE EXCEPTION 'the first event of this key was removed meanwhile'
            USING ERRCODE = 'serialization_failure';
    ELSIF stored.idempotency_digest <> digest THEN
        RAISE EXCEPTION 'idempotency_key_reused: the key was used for other data'
            USING ERRCODE = 'unique_violation';
    END IF;
    RETURN stored.event_id;
END
$$;

-- The functions find the outbox whatever the caller's search_path is, and read it by indexes whatever
-- the caller's session prefers. Applications call outbox.append; in a schema of its own the outbox
-- has it there, in place of the function of the first migration and with the rights on that.
DO $$
DECLARE
    home text := current_schema();
    parameters text := 'text, jsonb, text, text, text, text, text, text, '
                       'text, bigint, text, text, bigint, jsonb, jsonb';
    of_the_first text := 'append(text, jsonb, text, text, text, text, text, text)';
    replaced regprocedure := coalesce(
        to_regprocedure(format('%I.outbox_%s', home, of_the_first)),
        to_regprocedure(format('%I.%s', CASE home WHEN 'public' THEN 'outbox' ELSE home END,
                               of_the_first)));
    said text;
    setting text;
BEGIN
    FOREACH said IN ARRAY ARRAY['outbox_fold(bigint, bigint)', 'outbox_fold_unread()',
                                'outbox_enter()', 'outbox_append(' || parameters || ')'] LOOP
        EXECUTE format('ALTER FUNCTION %I.%s SET search_path = %I, pg_temp', home, said, home);
        FOREACH setting IN ARRAY ARRAY['jit', 'enable_seqscan', 'enable_bitmapscan'] LOOP
            EXECUTE format('ALTER FUNCTION %I.%s SET %I = off', home, said, setting);
        END LOOP;
    END LOOP;
    EXECUTE format('REVOKE ALL ON FUNCTION %I.outbox_append(%s) FROM PUBLIC', home, parameters);
    FOR said IN
        SELECT CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END
        FROM pg_proc, aclexplode(proacl) WHERE oid = replaced AND grantee <> proowner
    LOOP
        EXECUTE format('GRANT EXECUTE ON FUNCTION %I.outbox_append(%s) TO %s', home, parameters, said);
    END LOOP;
    IF replaced IS NOT NULL THEN
        EXECUTE 'DROP FUNCTION ' || replaced;
    END IF;
    BEGIN
        IF home = 'public' THEN
            CREATE SCHEMA IF NOT EXISTS outbox;
            EXECUTE 'ALTER FUNCTION public.outbox_append(' || parameters || ') SET SCHEMA outbox';
            ALTER FUNCTION outbox.outbox_append RENAME TO append;
        ELSE
            EXECUTE format('ALTER FUNCTION %I.outbox_append RENAME TO append', home);
        END IF;
    EXCEPTION WHEN insufficient_privilege THEN
        RAISE NOTICE 'No schema "outbox" can be made here; applications call outbox_append instead.';
    END;
END
$$;
