"""The documentation says what the code does: tables, codes, names, links between the two."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from docs import reference
from inngest_outbox.bootstrap.web import _OWN_SEARCH
from inngest_outbox.config.settings import Settings
from inngest_outbox.config.variables import VARIABLES
from inngest_outbox.console.commands import main as outbox_script
from inngest_outbox.errors import RefusedError
from inngest_outbox.observe.metrics import VOCABULARY
from inngest_outbox.outbox.link.store_link import LinkPolicy
from inngest_outbox.processes import acceptor, child_supervisor, development_inngest, front_process
from inngest_outbox.processes import main as service_script
from inngest_outbox.runs.turn import WatchPace
from inngest_outbox.web.events.followed_event import FollowPolicy
from inngest_outbox.web.server import body_budget, errors, server

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [
    *sorted(ROOT.glob("*.md")),
    ROOT / "clients" / "typescript" / "README.md",
    ROOT / "examples" / "nextjs" / "README.md",
    *sorted(DOCS.rglob("*.md")),
]
MAX_README_LINES = 150
SPANS = {"append", "send"}  # `outbox append` is a span of a trace
READ_BY_OTHERS = {
    "AWS_ACCESS_KEY_ID",
    "AWS_ENDPOINT_URL_S3",
    "AWS_PROFILE",
    "AWS_SECRET_ACCESS_KEY",
    "INNGEST_SIGNING_KEY",
    "INNGEST_BIN",
    "INNGEST_TEST_URL",
    "OTEL_",
    "OUTBOX_EVENT_KEY",
    "OUTBOX_SERVICE_URL",
    "INNGEST_",
}
FOLDERS = "service|tests|docs|deploy|migrations|bench|clients|examples"
CODE_PATH = re.compile(rf"(?<![\w/.:-])((?:{FOLDERS})/[\w./-]*\w)(?![\w*]*\*)")
# What the server answers before a request has a handler.
UNROUTED = {("400", "bad_request"), ("431", "headers_too_large"), ("500", errors.INTERNAL_ERROR)}


def text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def everything() -> str:
    return "\n".join(text(page) for page in PAGES)


_LINK, _FOLLOW, _PACE = LinkPolicy(), FollowPolicy(), WatchPace()
_HALF = {0.5: "a request searches for half a second at most"}


@pytest.mark.parametrize(
    ("page", "sentence"),
    [
        ("operate/processes", f"up to {_LINK.closing_patience_seconds:g} s, then get 503"),
        ("operate/processes", f"new posts wait up to {_LINK.patience_seconds:g} s for it"),
        ("operate/processes", f"silent for {_LINK.silence_seconds:g} s counts as hanging"),
        ("operate/processes", f"their next request within {front_process._LINGER_SECONDS:g} s"),
        ("operate/processes", f"have {child_supervisor.LOAD_SECONDS:g} s to load"),
        ("operate/processes", f"ended after {child_supervisor.LOAD_SECONDS:g} s is killed"),
        ("operate/processes", f"the fronts, within {child_supervisor.OPEN_SECONDS:g} s"),
        ("operate/processes", f"again after {child_supervisor._FIRST_RESTART_SECONDS:g} s"),
        ("operate/processes", f"up to {child_supervisor._LAST_RESTART_SECONDS:g} s.\nA second"),
        ("operate/metrics", f"They are sampled every {_PACE.sample:g} s;"),
        ("operate/alarms", f"299 within {_PACE.answer:g} s takes it."),
        ("develop/fake-inngest", f"it on port {development_inngest.FAKE_INNGEST_PORT}."),
        ("explain/security", f"less {acceptor._OWN_HANDLES} (or a quarter"),
        ("explain/security", f"to the system {server._RETURN_SECONDS:g} s after it"),
        ("explain/security", f"large bodies {body_budget._IDLE_SECONDS:g} s after the last"),
        ("guide/api", f"the {_FOLLOW.grace_seconds:g} s have passed in which another"),
        ("guide/api", f"after {_FOLLOW.stream_seconds / 60:g} minutes: a browser"),
        ("guide/api", _HALF[_OWN_SEARCH.budget_seconds]),
    ],
)
def test_a_page_says_the_figure_of_the_code(page: str, sentence: str) -> None:
    assert sentence in text(DOCS / f"{page}.md")


@pytest.mark.parametrize("table", reference.TABLES, ids=lambda table: table.name)
def test_a_table_from_the_code_is_current(table: reference.Table) -> None:
    stale = reference.written(table) != reference.current(table)
    assert not stale, "run python -m docs.reference"


def test_the_table_of_error_codes_has_each_code_with_its_status() -> None:
    page = text(DOCS / "guide" / "api.md").split("<!-- check: error codes -->")[1]
    told = set(re.findall(r"^\| (\d+) \| `(\w+)` \|", page, re.MULTILINE))
    known = {(str(status), kind.code) for kind, status in errors.STATUS.items()}
    assert told == known | UNROUTED, "docs/guide/api.md has a row for each error code"
    assert all(issubclass(kind, RefusedError) or kind.code for kind in errors.STATUS)


def test_each_alert_has_a_section_of_the_runbook_and_each_section_an_alert() -> None:
    rules = yaml.safe_load(text(ROOT / "deploy" / "monitoring" / "alerts.yml"))
    alerts = [rule for group in rules["groups"] for rule in group["rules"]]
    told = re.findall(
        r"^## (Outbox\w+)\n\n\*Severity: (\w+)\.\*",
        text(DOCS / "operate" / "runbook.md"),
        re.MULTILINE,
    )
    assert sorted(told) == sorted((one["alert"], one["labels"]["severity"]) for one in alerts)
    for rule in alerts:
        anchor = rule["alert"].lower()
        assert rule["annotations"]["runbook"] == f"docs/operate/runbook.md#{anchor}"


def test_each_variable_has_its_meaning() -> None:
    told = [name for meanings in VARIABLES.values() for name in meanings]
    assert sorted(told) == sorted(Settings.variables()), (
        "service/inngest_outbox/config/variables.py"
    )


def test_metrics_that_pages_name_exist() -> None:
    exposed = {f"outbox_{name}" for name in VOCABULARY} | {
        f"outbox_{name}_total" for name in VOCABULARY
    }
    schema = "".join(text(path) for path in (ROOT / "migrations").rglob("*.sql"))
    tables = set(re.findall(r"CREATE (?:TABLE|VIEW|FUNCTION) (\w+)", schema)) | {
        "outbox_session",
        "outbox_migrations",
    }
    named = set(re.findall(r"`(outbox_\w+)", everything()))
    roles = set(re.findall(r"outbox_\w+", text(ROOT / "deploy/postgresql/roles.sql")))
    others = {"outbox_full", "outbox_unavailable", "outbox_may_be_lost"}  # codes, a log event
    assert named - exposed - tables - roles <= others


def test_each_table_of_the_stores_is_in_the_architecture() -> None:
    page = text(DOCS / "develop" / "architecture.md").split("## The stores")[1]
    schema = "".join(text(path) for path in (ROOT / "migrations").rglob("*.sql"))
    tables = set(re.findall(r"^CREATE TABLE (\w+)", schema, re.MULTILINE))
    assert tables
    assert sorted(table for table in tables if f"`{table}`" not in page) == []


def test_variables_that_pages_name_exist() -> None:
    prefixes = {name.split("_")[0] for name in Settings.variables() if "_" in name}
    pattern = rf"\b(?:{'|'.join(sorted(prefixes))})_[A-Z0-9_]+\b"
    named = set(re.findall(pattern, everything()))
    stack = set(re.findall(r"\$\{(\w+)", text(ROOT / "docker-compose.yml")))
    assert named <= set(Settings.variables()) | READ_BY_OTHERS | stack


def test_log_events_that_pages_name_exist() -> None:
    page = text(DOCS / "operate" / "logs.md")
    named = re.findall(r"`([a-z]+(?:_[a-z]+)+|request|send|dead|purged)`", page)
    fields = {"request_id", "event_id"}
    code = "\n".join(text(path) for path in (ROOT / "service").rglob("*.py"))
    assert named
    assert [name for name in named if name not in fields and f'"{name}"' not in code] == []


def test_each_log_event_that_needs_a_look_is_on_its_page() -> None:
    page = text(DOCS / "operate" / "logs.md")
    code = "\n".join(text(path) for path in (ROOT / "service").rglob("*.py"))
    urgent = set(re.findall(r'\b_?log\.(?:warning|error|exception)\(\s*"(\w+)"', code))
    assert urgent
    assert sorted(event for event in urgent if f"`{event}`" not in page) == []


def test_paths_that_pages_name_exist() -> None:
    named = set(CODE_PATH.findall(everything()))
    modules = re.findall(r"python -m ((?:bench|tests|service|docs)(?:\.\w+)*)", everything())
    named |= {module.replace(".", "/") for module in modules}
    missing = [path for path in named if not (ROOT / path).exists()]
    assert sorted(path for path in missing if not (ROOT / f"{path}.py").exists()) == []


def test_tests_that_pages_name_exist() -> None:
    files = [*(ROOT / "tests").rglob("test_*.py")]
    known = {path.stem for path in files}
    known |= {name for path in files for name in re.findall(r"def (test_\w+)", text(path))}
    unknown = set(re.findall(r"\btest_\w+", everything())) - known
    beginnings = {one for one in unknown if one.endswith("_")}  # of names that are cut
    assert sorted(unknown - beginnings) == []
    assert all(any(name.startswith(one) for name in known) for one in beginnings)


def test_commands_that_pages_name_exist() -> None:
    programs = {
        "outbox": set(get_command(outbox_script.app).commands),
        "python -m inngest_outbox": set(get_command(service_script.app).commands),
        "make": set(re.findall(r"^([a-z-]+):", text(ROOT / "Makefile"), re.MULTILINE)),
    }
    for program, known in programs.items():
        named = set(re.findall(rf"(?:`|^){program} ([a-z][a-z-]*)", everything(), re.MULTILINE))
        assert named
        assert named - SPANS <= known, program


def test_pages_and_the_makefile_agree_how_long_a_target_takes() -> None:
    told = re.findall(r"^([a-z]+):.*## .*?(\d+) minutes", text(ROOT / "Makefile"), re.MULTILINE)
    assert told
    for target, minutes in told:
        named = re.findall(rf"make {target}\b[^.|\n]*?(\d+) minutes", everything())
        assert set(named) <= {minutes}, target


def test_options_that_pages_name_exist() -> None:
    wrong = []
    for program, app in (
        ("outbox", outbox_script.app),
        ("python -m inngest_outbox", service_script.app),
    ):
        known = {
            name: {
                one for option in command.params for one in (*option.opts, *option.secondary_opts)
            }
            for name, command in get_command(app).commands.items()
        }
        called = rf"(?:`|^|/bin/){program} ({'|'.join(known)})\b([^`\n#|;]*)"
        for name, rest in re.findall(called, everything(), re.MULTILINE):
            named = set(re.findall(r"(?<=\s)--[a-z][a-z-]*", rest))
            wrong += [f"{program} {name} {one}" for one in named - known[name]]
    assert wrong == []


def test_links_of_pages_outside_of_the_site_lead_somewhere() -> None:
    """mkdocs checks the others."""
    for page in (page for page in PAGES if DOCS not in page.parents):
        for link, anchor in re.findall(r"\]\(([^)#]+)(?:#([^)]+))?\)", text(page)):
            target = page.parent / link
            assert target.exists(), f"{page}: {link}"
            assert not anchor or anchor in anchors(target), f"{page}: {link}#{anchor}"


def anchors(page: Path) -> set[str]:
    heads = re.findall(r"^#+ (.+)$", text(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", head).strip().lower().replace(" ", "-") for head in heads}


def test_the_front_page_is_short() -> None:
    assert len(text(ROOT / "README.md").splitlines()) <= MAX_README_LINES


def test_the_first_pages_show_one_picture() -> None:
    pages = (text(ROOT / page) for page in ("README.md", "docs/index.md"))
    assert len({page.split("```\n")[1] for page in pages}) == 1
