"""Each container has the user and the tools that the table of images says."""

from __future__ import annotations

from tests.stack.pinned_images import COMPARED_TOOLS, pinned_images
from tests.stack.stack import Stack
from tests.stack.table import Table

LOOK = f"id -u; for tool in {' '.join(COMPARED_TOOLS)}; do command -v $tool >&2 && echo $tool; done"


def compare_with_table(stack: Stack, table: Table) -> None:
    """The parts that are not ours, one by one."""
    rows = pinned_images()
    compared, differing = 0, []
    for part, one in stack.parts.items():
        if "build" in one:
            continue
        row = rows[stack.image(part)]
        user, *tools = stack.inside(part, "sh", "-c", f"{LOOK} 2>/dev/null; true").split()
        compared += 1
        if (user, set(tools)) != (row.user, set(row.tools)):
            differing.append(f"{row.image} has user {user} and {' '.join(tools)}")
    table.add(
        "images: users and tools as in the table",
        f"{compared} compared, {', '.join(differing) or 'none differs'}",
        good=not differing,
    )
