"""The sender's reading of headers: whatever a server says, there is a SendResult."""

from __future__ import annotations

import math
import time

from hypothesis import example, given
from hypothesis import strategies as st

from service.inngest.sender import _seconds, _skew


@given(st.text() | st.floats().map(str) | st.datetimes().map(str))
@example("Wed, 21 Oct 2099 07:28:00 GMT")
@example("Wed, 21 Oct 0000 07:28:00 GMT")
@example("Wed, 21 Oct 2015 07:28:00 +9999")
@example("nan")
@example("-1")
@example("")
def test_any_header_is_a_time_or_none(header: str) -> None:
    for seconds in (_seconds(header), _skew(header)):
        assert seconds is None or not math.isnan(seconds)
    assert (_seconds(header) or 0) >= 0


def test_both_forms_of_retry_after_are_read() -> None:
    assert _seconds("7") == 7
    assert _seconds(None) is None
    then = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 60))
    assert 50 < (_seconds(then) or 0) <= 60
    assert -61 <= (_skew(then) or 0) < -50
