"""The statements of an SQLite outbox."""

from __future__ import annotations

from pathlib import Path

from service.outbox.queries import Queries

SQL = Queries(Path(__file__).parent / "queries")
