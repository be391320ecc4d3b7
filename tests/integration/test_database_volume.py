"""Where a database lies, as the system's list of mounts says."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.outbox.sqlite.file import disk as volume
from service.outbox.sqlite.file.disk import loss_of_volume


@pytest.fixture
def mounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that lists the mounts."""
    listed = tmp_path / "mountinfo"
    monkeypatch.setattr(volume, "MOUNTS", listed)
    return listed


def test_a_link_is_looked_at_where_the_database_is(mounts: Path, tmp_path: Path) -> None:
    link = tmp_path / "outbox.db"
    link.symlink_to("/srv/far/outbox.db")
    mounts.write_text("530 511 0:70 / /srv/far rw - tmpfs tmpfs rw\n")
    assert "in memory" in str(loss_of_volume(link))


def test_a_mount_whose_name_is_no_utf8_is_found(mounts: Path) -> None:
    mounts.write_bytes(b"530 511 0:70 / /srv/caf\xe9 rw - tmpfs none rw\n")
    assert "in memory" in str(loss_of_volume(Path("/srv/caf\udce9/outbox.db")))
    assert loss_of_volume(Path("/srv/caf\xe9/outbox.db")) is None


def test_a_system_that_lists_no_mounts_says_nothing(mounts: Path) -> None:
    assert loss_of_volume(mounts.parent / "outbox.db") is None
