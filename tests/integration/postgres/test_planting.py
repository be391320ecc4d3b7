"""A mutant of a function or a view takes its place on PostgreSQL, and gives it back."""

from __future__ import annotations

from tests.support.mutation.sql_functions import plant, sql_mutants
from tests.support.postgres_room import Room

VIEW = "migrations/postgresql/0001_outbox.sql/outbox_mark"
MADE = "SELECT pg_get_viewdef('public.outbox_mark')"
PATH = "migrations/postgresql/0002_partitions.sql/outbox_fold"
FOUND = "SELECT prosrc, proconfig, proacl FROM pg_proc WHERE proname = 'outbox_fold'"


def test_a_planted_function_keeps_its_settings_and_rights(room: Room) -> None:
    one = sql_mutants(PATH)[0]
    [(body, settings, rights)] = room.run(FOUND)
    assert body == one.body
    plant(room.connection, one.body, one.instead)
    assert room.run(FOUND) == [(one.instead, settings, rights)]
    plant(room.connection, one.instead, one.body)
    assert room.run(FOUND) == [(one.body, settings, rights)]


def test_a_planted_view_is_the_outbox_s_own(room: Room) -> None:
    one = next(one for one in sql_mutants(VIEW) if "LIMIT 1 → nothing" in one.name)
    [(before,)] = room.run(MADE)
    plant(room.connection, one.body, one.instead)
    [(planted,)] = room.run(MADE)
    assert "LIMIT" in before
    assert "LIMIT" not in planted
    plant(room.connection, one.instead, one.body)
    assert room.run(MADE) == [(before,)]
