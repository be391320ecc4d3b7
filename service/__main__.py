"""`python -m service` in a clone: the program of inngest_outbox, which lies in this folder."""

import runpy
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
runpy.run_module("inngest_outbox", run_name="__main__", alter_sys=True)
