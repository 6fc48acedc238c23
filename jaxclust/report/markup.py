"""One HTML file that needs nothing else and lets nothing else in: text as text, styles and scripts by their hashes."""

import base64
import hashlib
import html
import json
import re
from collections.abc import Sequence
from importlib import resources
from string import Template
from typing import Any

from jaxclust.files import finite

JOINER = "\u200d"  # invisible, and part of many emoji


def shown(value: Any) -> str:
    """A name as it can be read: what cannot be seen, as a newline or half a surrogate pair, is backslashed."""
    return "".join(
        c if c.isprintable() or c == JOINER else c.encode("unicode_escape").decode("ascii") for c in str(value)
    )


def text(value: Any) -> str:
    """`shown`, for an element or a quoted attribute."""
    return html.escape(shown(value))


def embedded(name: str, value: Any) -> str:
    """A script element that is no script but JSON, to be read by its id. Strings in it go through `shown` before."""
    said = json.dumps(finite(value), ensure_ascii=True, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    return f'<script type="application/json" id="{name}">{said}</script>'


def shipped(name: str) -> str:
    """A file of this package."""
    return resources.files("jaxclust.report").joinpath(name).read_text(encoding="utf-8")


def document(title: str, body: str, styles: Sequence[str], scripts: Sequence[str], data: Sequence[str] = ()) -> str:
    """The whole page.

    Args:
      title: plain text.
      body: HTML.
      styles, scripts: CSS and JavaScript; nothing else is applied or run, not even a style attribute.
      data: from `embedded`.
    """
    policy = [
        "default-src 'none'",
        f"style-src {' '.join(map(_hash, styles))}",
        f"script-src {' '.join(map(_hash, scripts))}",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
    ]
    return Template(shipped("page.html")).substitute(
        policy="; ".join(policy),
        title=text(title),
        styles="\n".join(f"<style>{style}</style>" for style in styles),
        body=body,
        scripts="\n".join([*data, *(f"<script>{script}</script>" for script in scripts)]),
    )


def unstyled(svg: str, classes: dict[str, str]) -> str:
    """An SVG without style attributes, which the page's policy ignores; `classes` gains a name for each style."""

    def named(match: re.Match) -> str:
        style = html.unescape(match[1])
        return f' class="{classes.setdefault(style, f"v{len(classes)}")}"'

    return re.sub(r' style="([^"]*)"', named, svg)


def rules(classes: dict[str, str]) -> str:
    """The style sheet of `unstyled`'s classes."""
    return "\n".join(f".{name}{{{style}}}" for style, name in classes.items())


def _hash(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
