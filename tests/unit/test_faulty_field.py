from __future__ import annotations

import msgspec
import pytest

from service.web.server.body import faulty_field


class Body(msgspec.Struct, rename="camel"):
    document_name: str
    size: int = 0
    more: dict[str, int] = {}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"{}", "documentName"),
        (b'{"documentName":1}', "documentName"),
        (b'{"documentName":"a","size":"b"}', "size"),
        (b'{"documentName":"a","more":{"secret":"x"}}', "more"),
    ],
)
def test_the_field_is_named_and_no_input_with_it(body: bytes, field: str) -> None:
    with pytest.raises(msgspec.ValidationError) as raised:
        msgspec.json.decode(body, type=Body)
    told = faulty_field(raised.value)
    assert told == f"The field {field} is missing or has a wrong value."


def test_a_body_that_is_no_object_names_no_field() -> None:
    with pytest.raises(msgspec.ValidationError) as raised:
        msgspec.json.decode(b"[]", type=Body)
    assert faulty_field(raised.value) is None
