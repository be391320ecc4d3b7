"""The `.env` file of the working folder, which the service and the `outbox` script read alike."""

from __future__ import annotations

from dotenv import load_dotenv

from inngest_outbox.errors import ConfigurationError


def read_env_file() -> None:
    """Add the variables of `.env` to the environment, whose own win. Raises ConfigurationError."""
    try:
        load_dotenv(".env")
    except OSError as error:
        raise ConfigurationError([f".env: it can't be read: {error.strerror}"]) from error
    except ValueError as error:
        raise ConfigurationError([".env: it is no text in UTF-8, or has a zero byte"]) from error
