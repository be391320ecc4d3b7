"""An application that keeps its documents with Django. The second save of a name fails."""

import contextlib
import os
import signal
import sys

import django
from django.conf import settings
from django.db import IntegrityError

host, database = sys.argv[1:]
settings.configure(
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "HOST": host,
            "NAME": database,
            "USER": "outbox",
        }
    }
)
django.setup()

from page import save_document  # noqa: E402  (models need the settings)

save_document("first.pdf", "u-1")
with contextlib.suppress(IntegrityError):
    save_document("first.pdf", "u-1")
    sys.exit("a name was saved twice")
save_document("last.pdf", "u-1")
os.kill(os.getpid(), signal.SIGKILL)
