-- Makes the partition after the open one; false when it is there. Attaches it while no statement
-- reads the outbox: the plan of one under way has the partitions of when it was planned, and its
-- snapshot may be later. A claim would take an event of the new partition and not find its payload.
CREATE OR REPLACE FUNCTION outbox_make_partition() RETURNS boolean
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
    END LOOP;
    -- Settlements take the two tables in this order.
    LOCK TABLE ONLY outbox_done, ONLY outbox IN ACCESS EXCLUSIVE MODE;
    FOREACH whole IN ARRAY ARRAY['outbox', 'outbox_done'] LOOP
        EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%s) TO (%s)',
                       whole, whole || '_p' || next,
                       next::bigint << 36, (next + 1)::bigint << 36);
    END LOOP;
    INSERT INTO outbox_partitions (number) VALUES (next);
    RETURN true;
EXCEPTION WHEN lock_not_available THEN
    RETURN false;
END
$$;

DO $$
BEGIN
    EXECUTE format('ALTER FUNCTION outbox_make_partition() SET search_path = %I, pg_temp',
                   current_schema());
END
$$;
