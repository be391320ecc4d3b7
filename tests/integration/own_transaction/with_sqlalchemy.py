"""An application that keeps its documents with SQLAlchemy. The second save of a name fails."""

import contextlib
import os
import signal
import sys

from page import save_document
from sqlalchemy import create_engine
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

host, database = sys.argv[1:]
engine = create_engine(f"postgresql+psycopg://outbox@/{database}?host={host}")
with Session(engine) as session:
    save_document(session, "first.pdf", "u-1")
    with contextlib.suppress(IntegrityError):
        save_document(session, "first.pdf", "u-1")
        sys.exit("a name was saved twice")
    save_document(session, "last.pdf", "u-1")
    os.kill(os.getpid(), signal.SIGKILL)
