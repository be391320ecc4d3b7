"""Which tests judge which module: the quick ones that try its behaviour.

They run in one process with the module, so tests that start the service do not judge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Judges:
    """Test files; `without` are words of tests that are left out, as another module's."""

    files: tuple[str, ...]
    without: tuple[str, ...] = ()

    def arguments(self) -> list[str]:
        """What pytest is asked for."""
        return [
            *self.files,
            "-k",
            " and ".join(["test", *(f"not {word}" for word in self.without)]),
        ]


def _unit(*names: str) -> tuple[str, ...]:
    return tuple(f"tests/unit/test_{name}.py" for name in names)


def _integration(*names: str) -> tuple[str, ...]:
    return tuple(f"tests/integration/test_{name}.py" for name in names)


def _postgres(*names: str) -> tuple[str, ...]:
    return tuple(f"tests/integration/postgres/test_{name}.py" for name in names)


_BREAKER = Judges(
    _unit("breaker", "breaker_isolation", "breaker_answers", "breaker_trips", "breaker_passes")
    + _unit("breaker_states")
)
_WRITER = Judges(_unit("writer", "writer_delay", "writer_faults", "work_queue", "commit_delay"))
_MOVES = Judges(_integration("sqlite_moves", "sqlite_claiming", "sqlite_picking"))
_INTAKE = Judges(_integration("sqlite_intake", "sqlite_inserts"))
_RECOVERY = Judges(_integration("sqlite_recovery", "sqlite_claiming"))
_COMMIT = Judges(_integration("sqlite_commits", "sqlite_commit_faults"))
_CLAIMING = Judges(_postgres("claiming", "claim_sizes", "next_due", "row_locks"))
_APPENDS = Judges((*_postgres("appending"), *_unit("append_columns")))
_QUOTA = Judges((*_unit("quota_reads", "postgres_quota"), *_postgres("limits_stored")))
_SETTINGS = Judges((*_unit("settings_revision"), *_postgres("settings_stored")))
_AVAILABILITY = Judges((*_unit("postgres_availability"), *_postgres("probing")))
_MOVED_EVENTS = Judges(_postgres("moved_events", "sealing", "missing_rows"))
_STORE = Judges((*_unit("postgres_store"), *_postgres("store_opening")))
_NOTIFY = Judges((*_unit("postgres_wakeup"), *_postgres("sealing")))
_PARTITIONS = Judges((*_postgres("partition_figures"), *_unit("partition_purge")))
_IN_SQL = Judges(
    _postgres("append_bounds", "append_fields", "append_again")
    + _integration("postgres_append_keys")
)
_CLOSING = Judges(_postgres("closing", "partition_changers"))
_CHANGERS = Judges(_postgres("partition_changers"))
_REPAIRS = Judges(_postgres("repairing", "removing", "row_locks"))
_LEASES = Judges((*_postgres("claims_end", "row_locks"), *_unit("postgres_leases")))
_MOVED = Judges(_integration("sqlite_transfer", "sqlite_recover", "sqlite_missing"))
_VOLUME = Judges((*_unit("volume"), *_integration("database_volume")))
_LARGE_VALUES = Judges(_unit("large_value", "large_value_pieces", "incoming_bounds"))
_BATCHES = Judges(_unit("event_batch", "event_batch_repeats"))
_INCOMING = Judges(_unit("incoming", "incoming_bounds", "incoming_arrays"))
_SIGN_IN = Judges(
    _unit("cookies", "nextauth", "nextauth_bounds", "nextauth_claims", "nextauth_forgeries")
)


def _under(folder: str, names: str, judges: Judges) -> dict[str, Judges]:
    return {f"service/{folder}/{name}.py": judges for name in names.split()}


def _by_one(folder: str, names: str) -> dict[str, Judges]:
    """Modules that one unit test judges: the one behind `=`, or else the one of the same name."""
    pairs = [name.partition("=") for name in names.split()]
    return {f"service/{folder}/{name}.py": Judges(_unit(test or name)) for name, _, test in pairs}


def _functions(names: str, judges: Judges, of: str = "0002_partitions") -> dict[str, Judges]:
    return {f"migrations/postgresql/{of}.sql/{name}": judges for name in names.split()}


JUDGES: dict[str, Judges] = {
    **_by_one(
        "relay",
        "breaker_policy batch_limit failure_streak lone_failure settler sends_in_flight "
        "claim_loop report dedupe_horizon unconfirmed seed_check seeded "
        "empty_request confirmation unconfirmed_rows confirmation_report outcome=outcome "
        "retry_policy=outcome inngest_events=inngest_questions confirmer=confirmer_sweeps",
    ),
    **_by_one(
        "outbox",
        "session_layers held inngest_id keys=key_uses receipt=key_uses "
        "storable=key_uses clock=time_limits audit=acts limits=outbox_limits "
        "fair_share=crowded_queue row_lookup=rows_by_id retention=purge_steps "
        "event=calls_of_events sent_entry=queue_values model=queue_values transfer=queue_values",
    ),
    **_by_one("outbox/sqlite", "watchdog"),
    **_by_one(
        "identity",
        "remembered_users shared_value operators sign_in_attempt=sign_in_attempts "
        "return_path=sign_in_attempts bearer_tokens=bearer_claims "
        "oidc_provider=provider_answers provider_requests=provider_answers jwks=issuer_keys "
        "key_set=issuer_keys remote_answer=remote_answers sessions=session_order "
        "session_revision=session_revisions cookie_session=own_cookie "
        "front_end_sessions=front_end_answers user=user_claims",
    ),
    **_by_one(
        "web",
        "body rate_limit idempotency=idempotency_header middleware=error_middleware "
        "resources/event_route=event_route resources/inngest_intake=inngest_posts "
        "auth=request_senders event_key_auth=request_senders query=whole_numbers "
        "deadline=time_limits",
    ),
    **_under("relay", "send_result", Judges(_unit("outcome", "inngest_words"))),
    **_under("relay", "breaker breaker_result", _BREAKER),
    "service/relay/sends.py": Judges(_unit("permit", "breaker_states")),
    "service/relay/evidence.py": Judges(_unit("isolation_ledger", "breaker_isolation")),
    "service/relay/batch_delivery.py": Judges(
        _unit("batch_delivery", "batch_answers", "old_rows", "damaged_payloads")
    ),
    "service/inngest/delivery_request.py": Judges(_unit("batch_delivery", "damaged_payloads")),
    "service/relay/relay.py": Judges(_unit("relay_parts", "delivery", "relay_life")),
    "service/inngest/sender.py": Judges(_unit("inngest_sends", "inngest_words")),
    "service/relay/breaker_sync.py": Judges(_unit("breaker_sync", "breaker_exchange")),
    **_under("outbox", "incoming incoming_json", _INCOMING),
    **_under("outbox", "large_value nesting", _LARGE_VALUES),
    **_under("outbox/sqlite", "writer work work_queue commit_delay", _WRITER),
    **_under("outbox/sqlite", "commit", _COMMIT),
    **_under("outbox/sqlite", "statements settlements claims picking fresh", _MOVES),
    **_under("outbox/sqlite", "appends new_rows", Judges(_integration("sqlite_inserts"))),
    **_under("outbox/sqlite", "faults queue", Judges(_unit("sqlite_faults", "sqlite_queue"))),
    **_under("outbox/sqlite", "throttle", Judges(_unit("claim_throttle"))),
    **_under("outbox/sqlite", "row_set", Judges(_integration("sqlite_row_sets"))),
    **_under("outbox/sqlite", "recovery salvage", _RECOVERY),
    **_under("outbox/sqlite", "quota", Judges(_integration("sqlite_quota"))),
    **_under("outbox/sqlite", "jobs", Judges(_integration("sqlite_jobs"))),
    **_under("outbox/sqlite", "intake key_uses", _INTAKE),
    **_under("outbox/sqlite", "confirmations delivery", Judges(_integration("sqlite_records"))),
    **_under("outbox/sqlite", "connection", Judges(_integration("sqlite_connection"))),
    **_under("outbox/sqlite", "wal", Judges(_integration("sqlite_wal"))),
    **_under("outbox/sqlite", "reader", Judges(_unit("sqlite_reader"))),
    **_under("outbox/sqlite", "health", Judges(_unit("sqlite_health"))),
    **_under("outbox/sqlite", "inspector trail", Judges(_integration("sqlite_looks"))),
    **_under("outbox/sqlite", "positions settings", Judges(_integration("sqlite_positions"))),
    **_under("outbox/sqlite", "purge", Judges(_integration("sqlite_purging"))),
    **_under("outbox/sqlite", "removal repairs", Judges(_integration("sqlite_repairs"))),
    **_under("outbox/sqlite", "transfer transfer_metadata", _MOVED),
    **_under("outbox/sqlite", "recover", Judges(_integration("sqlite_recover"))),
    **_under("outbox/sqlite", "backup", Judges(_integration("sqlite_backup"))),
    **_under("outbox/sqlite", "lock", Judges(_integration("sqlite_writer_lock"))),
    **_under("outbox/sqlite", "maintenance", Judges(_unit("sqlite_maintenance"))),
    **_under("outbox/sqlite", "samples", Judges(_integration("sqlite_samples"))),
    **_under("outbox/sqlite", "memory", Judges(_unit("sqlite_memory"))),
    **_under("outbox/sqlite", "notes", Judges(_integration("sqlite_records", "sqlite_repairs"))),
    **_under("outbox/sqlite", "disk", Judges(_unit("sqlite_disk"))),
    **_under("outbox/sqlite", "damage", Judges(_unit("file_damage"))),
    **_under("outbox/sqlite", "holder", Judges(_integration("writer_holder"))),
    **_under("outbox/sqlite", "missing", Judges(_integration("sqlite_missing"))),
    **_under("outbox/sqlite", "volume", _VOLUME),
    **_under("outbox/sqlite", "store", Judges(_integration("sqlite_store", "sqlite_start"))),
    **_under("outbox/sqlite", "rows", Judges(_integration("sqlite_rows", "sqlite_row_facts"))),
    "service/outbox/postgres/waiting.py": Judges(_unit("postgres_waiting")),
    "service/outbox/postgres/flush.py": Judges(_unit("postgres_flush")),
    "service/outbox/postgres/intake.py": Judges(
        _unit("postgres_intake", "postgres_intake_closing")
    ),
    "service/outbox/schema.py": Judges(
        _integration("schema_versions", "migrations"), without=("processes", "synced", "cut_off")
    ),
    "service/outbox/schema_postgresql.py": Judges(_postgres("schema_steps")),
    "service/outbox/schema_sqlite.py": Judges(
        _integration("sqlite_schema", "migrations"), without=("processes", "synced")
    ),
    **_under("outbox/postgres", "settlements", Judges(_postgres("settling", "row_locks"))),
    **_under("outbox/postgres", "claims", _CLAIMING),
    **_under("outbox/postgres", "leases", _LEASES),
    **_under("outbox/postgres", "counts recount", Judges(_postgres("counting"))),
    **_under("outbox/postgres", "partitions", _PARTITIONS),
    **_under("outbox/postgres", "repairs", _REPAIRS),
    **_under("outbox/postgres", "queue", Judges(_unit("postgres_queue", "postgres_queue_ends"))),
    **_under("outbox/postgres", "express", Judges(_unit("express_rows"))),
    **_under("outbox/postgres", "appends", _APPENDS),
    **_under("outbox/postgres", "marks", Judges((*_postgres("marking"), *_unit("mark_looks")))),
    **_under("outbox/postgres", "confirmations", Judges(_postgres("confirming"))),
    **_under("outbox/postgres", "pool", Judges(_unit("pool_repeats"))),
    **_under("outbox/postgres", "quota tally", _QUOTA),
    **_under("outbox/postgres", "delivery inspector trail", Judges(_postgres("inspecting"))),
    **_under("outbox/postgres", "samples", Judges(_postgres("minutes"))),
    **_under("outbox/postgres", "missing", Judges(_postgres("missing_rows"))),
    **_under("outbox/postgres", "notify", _NOTIFY),
    **_under("outbox/postgres", "rows row_reader", Judges(_postgres("rows_found", "rows_read"))),
    **_under("outbox/postgres", "transfer", _MOVED_EVENTS),
    **_under("outbox/postgres", "transfer_metadata", Judges(_postgres("moved_metadata"))),
    **_under("outbox/postgres", "seal", Judges(_postgres("sealing"))),
    **_under("outbox/postgres", "stored", Judges(_unit("stored_receipts"))),
    **_under("outbox/postgres", "maintenance", Judges(_unit("postgres_maintenance"))),
    **_under("outbox/postgres", "settings", _SETTINGS),
    **_under("outbox/postgres", "executor", Judges(_unit("postgres_executor"))),
    **_under("outbox/postgres", "connection", Judges(_postgres("database_sessions"))),
    **_under("outbox/postgres", "store", _STORE),
    **_under("outbox/postgres", "availability", _AVAILABILITY),
    **_under("outbox/postgres", "faults", Judges(_unit("postgres_errors", "fault_words"))),
    **_under("outbox/postgres", "positions", Judges(_postgres("positions_of_rows"))),
    **_functions("outbox_fold", Judges(_postgres("folding", "row_locks"))),
    **_functions(
        "outbox_staying outbox_detach_partition outbox_drop_detached",
        Judges(_postgres("dropping", "partition_changers")),
    ),
    **_functions("outbox_close_partition outbox_skip_known_key", _CLOSING),
    **_functions("outbox_make_partition", _CLOSING, "0003_attached_alone"),
    **_functions("outbox_enter outbox_check_room outbox_counts_of", Judges(_postgres("entering"))),
    **_functions("outbox_append outbox_new_id outbox_refuse_if", _IN_SQL),
    **_functions("outbox_check_object outbox_check_sessions", _IN_SQL),
    **_functions("outbox_depth", _IN_SQL, "0001_outbox"),
    **_functions("outbox_fold_unread", Judges(_postgres("unread_changes"))),
    **_functions("outbox_may_change_partitions", _CHANGERS),
    **_functions("outbox_refuse outbox_check_whole", _CHANGERS, "0001_outbox"),
    **_functions("outbox_mark", Judges(_postgres("marking", "claiming")), "0001_outbox"),
    **_functions("outbox_rows", Judges(_postgres("rows_found", "rows_read")), "0001_outbox"),
    **_functions("outbox_by_owner", Judges(_postgres("counting", "inspecting"))),
    **_under("identity", "cookies nextauth nextauth_token", _SIGN_IN),
    **_under("identity", "event_keys", Judges(_unit("event_keys", "request_senders"))),
    **_under("identity", "oidc", Judges(_unit("oidc_sign_ins", "oidc_id_tokens"))),
    **_under("web", "resources/event_batch", _BATCHES),
    **_under("web", "cross_site", Judges(_unit("cross_site", "shared_origins"))),
    **_under("web", "peer", Judges(_unit("peer", "metrics_access"))),
    **_under("web", "slots", Judges(_unit("slots", "slot_waits"))),
    **_under("web", "turns", Judges(_unit("turns", "turn_sizes"))),
}


def modules_of(names: Sequence[str]) -> list[str]:
    """The paths that these names begin, each a module or a folder; all without a name.

    Raises KeyError for a name that has no judges.
    """
    chosen = [path for path in JUDGES if not names or path.startswith(tuple(names))]
    for name in names:
        if not any(path.startswith(name) for path in JUDGES):
            raise KeyError(name)
    return chosen
