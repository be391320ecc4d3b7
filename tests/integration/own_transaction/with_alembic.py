"""What Alembic would change in the database of an application with an outbox: nothing."""

import sys

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from models import Base
from sqlalchemy import create_engine

host, database = sys.argv[1:]
options = "options=-csearch_path%3Dpublic"  # the role of the tests is named as the schema
engine = create_engine(f"postgresql+psycopg://outbox@/{database}?host={host}&{options}")
own = {"compare_type": False}  # the table has text where the model has a string
every_schema = {
    **own,
    "include_schemas": True,
    "include_name": lambda name, kind, _: kind != "schema" or name != "outbox",
}
with engine.connect() as connection:
    for wanted in (own, every_schema):
        context = MigrationContext.configure(connection, opts=wanted)
        if changes := compare_metadata(context, Base.metadata):
            sys.exit(f"{wanted}: {changes}")
