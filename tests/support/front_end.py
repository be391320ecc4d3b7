"""The front end that the service knows: the secret of its cookies, and its origin."""

from __future__ import annotations

SECRET = "0123456789abcdef0123456789abcdef"  # the vectors'
FRONT = "https://front.example.com"
