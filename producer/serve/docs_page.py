"""The OpenAPI document as a page for people. No script, nothing from elsewhere: it reads the same behind any firewall."""

import json
from html import escape
from typing import Any

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
h2 { border-top: 1px solid #ccc; padding-top: 1rem } code, pre { font-size: .9em }
pre { background: #f5f5f5; padding: .8rem; overflow: auto } td, th { text-align: left; padding: .2rem 1rem .2rem 0 }
"""


def render(document: dict[str, Any]) -> str:
    """HTML of the whole document."""
    info = document["info"]
    operations = [
        _operation(method, path, operation)
        for path, item in document["paths"].items()
        for method, operation in item.items()
    ]
    schemas = [
        f"<h3 id='{escape(name)}'>{escape(name)}</h3><p>{escape(schema.get('description', ''))}</p>"
        f"<pre>{escape(json.dumps(schema, indent=2))}</pre>"
        for name, schema in document["components"]["schemas"].items()
    ]
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(info['title'])}</title>"
        f"<style>{_STYLE}</style><h1>{escape(info['title'])} {escape(info['version'])}</h1>"
        f"<p>{escape(info.get('description', ''))}</p>"
        f"<p>For programs: <a href=/openapi.json>openapi.json</a></p>{''.join(operations)}"
        f"<h2>Schemas</h2>{''.join(schemas)}</html>"
    )


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    parameters = "".join(
        f"<tr><td><code>{escape(p['name'])}</code><td>{escape(p['in'])}<td>{escape(p.get('description', ''))}"
        for p in operation.get("parameters", ())
    )
    answers = "".join(
        f"<tr><td>{escape(status)}<td>{escape(answer['description'])}<td>{_schema(answer)}"
        for status, answer in sorted(operation["responses"].items())
    )
    body = f"<p>Body: {_schema(operation['requestBody'])}</p>" if "requestBody" in operation else ""
    return (
        f"<h2><code>{method.upper()} {escape(path)}</code></h2><p>{escape(operation.get('description', ''))}</p>"
        f"{body}<table>{parameters}</table><table>{answers}</table>"
    )


def _schema(holder: dict[str, Any]) -> str:
    for media_type, content in holder.get("content", {}).items():
        name = content.get("schema", {}).get("$ref", "").rpartition("/")[2]
        return (
            f"<a href='#{escape(name)}'>{escape(name)}</a> ({escape(media_type)})"
            if name
            else escape(media_type)
        )
    return ""
