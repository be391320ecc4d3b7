"""The file of system defaults."""

from __future__ import annotations

import pytest

from inngest_outbox.app_settings.app_settings import load_defaults
from inngest_outbox.errors import ConfigurationError


def test_a_file_of_defaults_takes_the_place_of_the_packaged_ones(tmp_path):
    (tmp_path / "defaults.json").write_text('{"a": 1}')
    assert load_defaults(str(tmp_path / "defaults.json")) == {"a": 1}


NO_OBJECT = (
    "it has no JSON object in UTF-8, nested at most 64 levels deep, whose numbers fit into a double"
)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("absent", "No such file"),
        (b"", NO_OBJECT),
        (b"[]", NO_OBJECT),
        (b"\xff", NO_OBJECT),
        (b'{"a":%b}' % (b"9" * 400), NO_OBJECT),
        (".", "Is a directory"),
    ],
)
def test_a_faulty_file_of_defaults_is_a_fault_of_the_configuration(tmp_path, content, fault):
    path = tmp_path / (content if isinstance(content, str) else "defaults.json")
    if isinstance(content, bytes):
        path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=f"^APP_SETTINGS_FILE: {fault}"):
        load_defaults(str(path))
