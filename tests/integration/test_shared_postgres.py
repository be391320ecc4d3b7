"""The PostgreSQL server that the forks of a trial share."""

from __future__ import annotations

import subprocess
import sys

import psycopg
import pytest

from tests.support.shared_postgres import shared_postgres, sharing_postgres

OTHER = """
from tests.support.shared_postgres import shared_postgres
with shared_postgres().outbox() as url:
    print(url)
"""
TABLES = "SELECT to_regclass('outbox.ready') IS NOT NULL"


def test_each_process_has_an_outbox_of_its_own_which_goes_with_it() -> None:
    with sharing_postgres():
        server = shared_postgres()
        if server is None:
            pytest.skip("no PostgreSQL on this machine")
        with server.outbox() as mine:
            said = subprocess.run(
                [sys.executable, "-c", OTHER], check=True, capture_output=True, text=True
            )
            urls = [mine, said.stdout.strip()]
            for url in urls:
                with psycopg.connect(url) as connection:
                    assert connection.execute(TABLES).fetchall() == [(True,)]
            server.sweep()
            with psycopg.connect(mine) as connection:
                assert connection.execute(TABLES).fetchall() == [(True,)]
            with pytest.raises(psycopg.OperationalError, match="does not exist"):
                psycopg.connect(urls[1])
    assert shared_postgres() is None
