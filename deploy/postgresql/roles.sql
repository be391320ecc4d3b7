-- Two roles for an outbox in a schema of its own. Run this once as a superuser, in the database of
-- the outbox, before the first migration; it may be run again. Then give both a password.
--   outbox_owner   owns the tables: python -m inngest_outbox migrate, outbox move
--   outbox_runner  reads and writes rows, and nothing else: the service and its commands
-- An application that appends in SQL needs:
--   GRANT USAGE ON SCHEMA outbox TO it; GRANT EXECUTE ON FUNCTION outbox.append TO it;

DO $$
DECLARE
    wanted text;
BEGIN
    FOREACH wanted IN ARRAY ARRAY['outbox_owner', 'outbox_runner'] LOOP
        IF to_regrole(wanted) IS NULL THEN
            EXECUTE format('CREATE ROLE %I LOGIN', wanted);
        END IF;
    END LOOP;
END
$$;

CREATE SCHEMA IF NOT EXISTS outbox AUTHORIZATION outbox_owner;
GRANT USAGE ON SCHEMA outbox TO outbox_runner;

ALTER DEFAULT PRIVILEGES FOR ROLE outbox_owner IN SCHEMA outbox
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO outbox_runner;
ALTER DEFAULT PRIVILEGES FOR ROLE outbox_owner IN SCHEMA outbox
    GRANT USAGE, SELECT ON SEQUENCES TO outbox_runner;

ALTER ROLE outbox_owner SET search_path = pg_catalog, pg_temp;
ALTER ROLE outbox_runner SET search_path = pg_catalog, pg_temp;

-- What the service sets itself on a direct connection; a pooler lets no session setting through.
ALTER ROLE outbox_runner SET jit = off;
ALTER ROLE outbox_runner SET plan_cache_mode = 'force_generic_plan';
ALTER ROLE outbox_runner SET enable_seqscan = off;
ALTER ROLE outbox_runner SET enable_bitmapscan = off;
ALTER ROLE outbox_runner SET default_transaction_isolation = 'read committed';
ALTER ROLE outbox_runner SET lock_timeout = '1500ms';
ALTER ROLE outbox_runner SET statement_timeout = '12s';
ALTER ROLE outbox_runner SET idle_in_transaction_session_timeout = '15s';

-- Behind a pooler that knows prepared statements, such as pgbouncer 1.21 with max_prepared_statements
-- above 0, they save most of the planning:
--   ALTER ROLE outbox_runner SET outbox.prepare = 'on';
