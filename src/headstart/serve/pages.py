"""`/docs`: the API as one plain page made from its OpenAPI description; nothing is loaded."""

from __future__ import annotations

from html import escape
from typing import Any

from headstart.serve.failures import FAILURES

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
       color: #1c2330; background: #fff }
h2 { margin-top: 2.5rem; border-bottom: 1px solid #d5dae3; padding-bottom: .3rem }
code, pre { font: 14px/1.5 ui-monospace, monospace; background: #f2f4f8; border-radius: 4px }
code { padding: .1rem .3rem } pre { padding: .8rem 1rem; overflow-x: auto }
table { border-collapse: collapse; width: 100%; margin-bottom: 1.5rem }
td, th { text-align: left; vertical-align: top;
       padding: .35rem .8rem .35rem 0; border-bottom: 1px solid #e6e9ef }
.method { font-weight: 600; color: #0b6e4f }
@media (prefers-color-scheme: dark) { body { color: #e6e9ef; background: #14181f }
  code, pre { background: #222834 } h2, td, th { border-color: #343c4b }
  .method { color: #6fd3ae } }
"""
_EXAMPLES = """curl -F files=@rose.jpg -F files=@tulip.png http://127.0.0.1:8000/predict
curl --data-binary @rose.jpg -H 'Content-Type: image/jpeg' http://127.0.0.1:8000/predict
curl -H 'Authorization: Bearer TOKEN' -F files=@rose.jpg http://127.0.0.1:8000/predict"""


def docs_page(schema: dict[str, Any]) -> str:
    """The page, from an OpenAPI description."""
    about = schema["info"]
    routes = "".join(
        route_section(path, method, operation, schema)
        for path, operations in schema["paths"].items()
        for method, operation in operations.items()
    )
    codes = "".join(
        f"<tr><td><code>{code}</code></td><td>{failure.status}</td>"
        f"<td>{escape(failure.about)}</td></tr>"
        for code, failure in FAILURES.items()
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{escape(about["title"])}: the API</title>
<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>
<h1>{escape(about["title"])} {escape(about["version"])}</h1>
<p>{escape(about["description"])} For programs: <a href="openapi.json">openapi.json</a>.</p>
<pre>{escape(_EXAMPLES)}</pre>
{routes}
<h2>Errors</h2>
<p>Every error is JSON: <code>{{"error": {{"code": "...", "message": "..."}}}}</code>. Act on the
code; messages may change. <code>503</code> carries <code>Retry-After</code>.</p>
<table><tr><th>code</th><th>status</th><th>meaning</th></tr>{codes}</table>
</body></html>"""


def route_section(path: str, method: str, operation: dict[str, Any], schema: dict[str, Any]) -> str:
    """One route: what it takes and what it gives."""
    takes = operation.get("requestBody", {}).get("content", {})
    takes_text = " or ".join(f"<code>{escape(kind)}</code>" for kind in takes)
    rows = "".join(
        f"<tr><td>{escape(status)}</td><td>{escape(answer.get('description', ''))}</td></tr>"
        for status, answer in sorted(operation.get("responses", {}).items())
    )
    return (
        f'<h2><span class="method">{method.upper()}</span> {escape(path)}</h2>'
        f"<p>{escape(operation.get('summary', ''))}. {escape(operation.get('description', ''))}</p>"
        + (f"<p>Takes {takes_text}.</p>" if takes else "")
        + f"<table><tr><th>status</th><th>when</th></tr>{rows}</table>"
        + fields_table(operation, schema)
    )


def fields_table(operation: dict[str, Any], schema: dict[str, Any]) -> str:
    """The fields of a route's good answer, nested ones below it."""
    content = operation.get("responses", {}).get("200", {}).get("content", {})
    reference = content.get("application/json", {}).get("schema", {}).get("$ref", "")
    models = schema.get("components", {}).get("schemas", {})
    rows, open_names, seen = "", [reference.rpartition("/")[2]], set()
    while open_names:
        name = open_names.pop(0)
        if name not in models or name in seen:
            continue
        seen.add(name)
        for field, facts in models[name].get("properties", {}).items():
            kind, inner = kind_of(facts)
            open_names += inner
            rows += (
                f"<tr><td><code>{escape(name)}.{escape(field)}</code></td><td>{escape(kind)}</td>"
                f"<td>{escape(facts.get('description', ''))}</td></tr>"
            )
    return f"<table><tr><th>field</th><th>type</th><th></th></tr>{rows}</table>" if rows else ""


def kind_of(facts: dict[str, Any]) -> tuple[str, list[str]]:
    """A field's type in words, and the models it names."""
    if "$ref" in facts:
        name = facts["$ref"].rpartition("/")[2]
        return name, [name]
    if "anyOf" in facts:
        parts = [kind_of(part) for part in facts["anyOf"]]
        return " or ".join(kind for kind, _ in parts), [n for _, names in parts for n in names]
    if facts.get("type") == "array":
        kind, names = kind_of(facts.get("items", {}))
        return f"list of {kind}", names
    extra = facts.get("additionalProperties")
    if facts.get("type") == "object" and isinstance(extra, dict):
        kind, names = kind_of(extra)
        return f"object of {kind}", names
    return str(facts.get("type", "any")), []
