"""What the mounts say about the place of the database."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest

from service.outbox.sqlite.file.disk import fault_of_mount

ROOT = "22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda rw"
LAYER = "511 430 0:62 / / ro,relatime master:1 - overlay overlay rw,lowerdir=/l,upperdir=/u"
NAMED = "530 511 254:1 /var/lib/docker/volumes/outbox/_data /var/lib/outbox rw - ext4 /dev/vda rw"
ANONYMOUS = NAMED.replace("volumes/outbox/", f"volumes/{'0af9' * 16}/")
BOUND = "530 511 254:1 /srv/my\\040outbox /var/lib/outbox rw master:1 - xfs /dev/vdb rw"
MEMORY = "531 511 0:70 / /var/lib/outbox rw,nosuid - tmpfs none rw,size=1024k"
DATABASE = PurePosixPath("/var/lib/outbox/outbox.db")


@pytest.mark.parametrize("mounts", [[ROOT], [LAYER, NAMED], [LAYER, BOUND], []])
def test_a_disk_a_named_volume_and_a_folder_of_the_host_are_well(mounts: list[str]) -> None:
    assert fault_of_mount(DATABASE, "\n".join(mounts)) is None


@pytest.mark.parametrize(
    ("mounts", "words"),
    [
        ([LAYER, ANONYMOUS], "anonymous volume"),
        ([LAYER], "in the container: its events"),
        ([LAYER, MEMORY], "in memory"),
        ([LAYER, NAMED, MEMORY.replace("/outbox rw", "/outbox/deeper rw")], None),
    ],
)
def test_a_place_that_goes_with_the_container_is_told(mounts: list[str], words: str | None) -> None:
    found = fault_of_mount(DATABASE, "\n".join(mounts))
    assert found is None if words is None else words in str(found)


def test_a_folder_whose_name_only_begins_alike_is_another_place() -> None:
    mounts = "\n".join([ROOT, MEMORY.replace("/var/lib/outbox", "/var/lib/out")])
    assert fault_of_mount(DATABASE, mounts) is None


def test_of_two_mounts_at_one_point_the_later_one_counts() -> None:
    for later, earlier in ((NAMED, MEMORY), (MEMORY, NAMED)):
        found = fault_of_mount(DATABASE, f"{LAYER}\n{earlier}\n{later}")
        assert (found is None) is (later is NAMED)


@pytest.mark.parametrize(
    ("point", "folder"),
    [("my\\040box", "my box"), ("a\\134b", "a\\b"), ("a\u00a0b", "a\u00a0b"), ("\u2028", "\u2028")],
)
def test_a_point_with_unusual_characters_is_found(point: str, folder: str) -> None:
    mounts = "\n".join([ROOT, MEMORY.replace("/var/lib/outbox", f"/srv/{point}")])
    assert "in memory" in str(fault_of_mount(PurePosixPath("/srv", folder, "outbox.db"), mounts))


def test_a_line_that_can_not_be_read_is_passed_over() -> None:
    assert fault_of_mount(DATABASE, "nonsense\n1 2 3 - ext4\n" + ROOT) is None
