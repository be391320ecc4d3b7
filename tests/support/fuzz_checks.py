"""What schemathesis judges of our answers beside its own checks; it loads this as its hooks."""

from __future__ import annotations

import schemathesis


@schemathesis.check
def no_fault_of_the_service(
    ctx: schemathesis.CheckContext, response: schemathesis.Response, case: schemathesis.Case
) -> None:
    """No answer is a 5xx, except where the disk of the machine hangs."""
    del ctx, case
    assert response.status_code < 500 or "disk does not answer" in response.text, response.text
