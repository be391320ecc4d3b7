"""The description as a page, without JavaScript and without anything from other sites."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
from markupsafe import Markup

from service.web.openapi.endpoint import JSON
from service.web.openapi.fields import FieldRow, field_rows, limits, type_name
from service.web.pages.templates import Templates
from service.web.server.errors import SERVER_CODES

_LAYOUT = "page.html"
_FIELD_HEADS = ("Field", "Type", "Limits", "Meaning")


def render_page(document: Mapping[str, Any], style: str) -> str:
    """The page, with `style` as its style sheet."""
    info, components = document["info"], document["components"]["schemas"]
    operations = list(_operations(document))
    content = "".join(
        (
            f"<p>{_prose(info['description'])}</p>",
            '<p><a href="/openapi.json">OpenAPI description</a></p>',
            _contents(operations),
            *(_section(*one, components) for one in operations),
            f'<h2 id="codes">Error codes</h2>{_code_table(operations)}',
            f'<h2 id="types">Types</h2>{_types(components)}',
        )
    )
    layout = Templates().get(_LAYOUT)
    return layout.render(title=info["title"], style=Markup(style), content=Markup(content))  # noqa: S704


def _operations(document: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, described in methods.items():
            yield method.upper(), path, described


def _contents(operations: Iterable[tuple[str, str, Mapping[str, Any]]]) -> str:
    rows = (
        (f'<a href="#{one["operationId"]}"><code>{method} {_text(path)}</code></a>', one["summary"])
        for method, path, one in operations
    )
    return f"<nav>{_table(('Endpoint', 'What it does'), rows)}</nav>"


def _section(method: str, path: str, one: Mapping[str, Any], components: Mapping[str, Any]) -> str:
    parts = [
        f'<section id="{one["operationId"]}"><h2><code>{method} {_text(path)}</code></h2>',
        f"<p>{_prose(one['summary'])}. {_prose(one.get('description', ''))}</p>",
        f"<p>Signed in by: {_access(one['security'])}</p>",
    ]
    if "parameters" in one:
        parts.append("<h3>Parameters</h3>" + _fields(map(_parameter, one["parameters"])))
    if "requestBody" in one:
        content = one["requestBody"]["content"][JSON]
        parts.append("<h3>Body</h3>" + _fields(field_rows(content["schema"], components)))
        parts.append(_example(content))
    parts.append(f"<h3>Answers</h3>{_answers(one['responses'])}</section>")
    return "".join(parts)


def _access(security: Iterable[Mapping[str, Any]]) -> str:
    names = [name for one in security for name in one]
    return ", ".join(f"<code>{_text(name)}</code>" for name in names) or "nothing"


def _parameter(one: Mapping[str, Any]) -> FieldRow:
    schema = one["schema"]
    name = f"{one['name']} ({one['in']})"
    return FieldRow(name, type_name(schema), limits(schema), one["description"], one["required"])


def _fields(rows: Iterable[FieldRow]) -> str:
    return _table(
        _FIELD_HEADS,
        (
            (
                f"<code>{_text(row.name)}</code>{' required' if row.required else ''}",
                _text(row.type),
                _text(row.limits),
                _prose(row.text),
            )
            for row in rows
        ),
    )


def _answers(responses: Mapping[str, Any]) -> str:
    rows = []
    for status, answer in responses.items():
        content: Mapping[str, Any] = next(iter(answer.get("content", {}).values()), {})
        rows.append((f"<code>{status}</code>", _prose(answer["description"]) + _example(content)))
    return _table(("Status", "Meaning"), rows)


def _example(content: Mapping[str, Any]) -> str:
    if "example" not in content:
        return ""
    shown = content["example"]
    written = shown if isinstance(shown, str) else _json(shown)
    return f"<pre>{_text(written)}</pre>"


def _code_table(operations: Iterable[tuple[str, str, Mapping[str, Any]]]) -> str:
    codes = {
        code: (status, example["value"]["error"])
        for _, _, one in operations
        for status, answer in one["responses"].items()
        for content in answer.get("content", {}).values()
        for code, example in content.get("examples", {}).items()
    }
    rows = (
        (f"<code>{code}</code>", _status(code, status), _text(sentence))
        for code, (status, sentence) in sorted(codes.items())
    )
    return _table(("Code", "Status", "Meaning"), rows)


def _status(code: str, status: str) -> str:
    return str(SERVER_CODES[code][0]) if code in SERVER_CODES else status


def _types(components: Mapping[str, Any]) -> str:
    return "".join(
        f"<h3 id='type-{name}'><code>{name}</code></h3><p>{_prose(schema.get('description', ''))}"
        f"</p>{_fields(field_rows(schema, components))}"
        for name, schema in components.items()
        if "properties" in schema
    )


def _table(heads: Sequence[str], rows: Iterable[Iterable[str]]) -> str:
    head = "".join(f'<th scope="col">{one}</th>' for one in heads)
    body = "".join(f"<tr>{_cells(heads, row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cells(heads: Sequence[str], row: Iterable[str]) -> str:
    """The cells of a row. Each names its column, for narrow screens."""
    return "".join(
        f'<td data-head="{head}" class="{"full" if cell else "empty"}">{cell}</td>'
        for head, cell in zip(heads, row, strict=True)
    )


def _json(value: object) -> str:
    return msgspec.json.format(msgspec.json.encode(value)).decode()


def _text(text: object) -> str:
    return html.escape(str(text))


def _prose(text: str) -> str:
    """The text, escaped, with backticks turned into code."""
    parts = _text(text).split("`")
    return "".join(f"<code>{part}</code>" if n % 2 else part for n, part in enumerate(parts))
