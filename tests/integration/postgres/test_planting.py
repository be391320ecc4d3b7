"""A mutant of a function takes its place on PostgreSQL, and gives it back."""

from __future__ import annotations

from tests.support.mutation.sql_functions import plant, sql_mutants
from tests.support.postgres_room import Room

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
