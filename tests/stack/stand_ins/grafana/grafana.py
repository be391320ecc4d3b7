"""Grafana's health and its home dashboard, from the files that the stack mounts.

Whether Grafana understands the dashboard is judged by a test with Grafana's published types.
"""

from __future__ import annotations

import json
import os
import signal
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

HOME = Path(os.environ["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
[SOURCE] = Path("/etc/grafana/provisioning/datasources").iterdir()


class Answer(BaseHTTPRequestHandler):
    """200 for the health check, and the home dashboard."""

    def do_GET(self) -> None:
        shown = {"dashboard": json.loads(HOME.read_bytes())} if "dashboards" in self.path else {}
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(shown).encode())


SOURCE.read_bytes()
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
HTTPServer(("0.0.0.0", 3000), Answer).serve_forever()
