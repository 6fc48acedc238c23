"""HTML from templates: one file that needs nothing else and lets nothing else in, styles and scripts by their hashes.

All text in a page may be anybody's, so templates show it as text, and readably (`shown`); `Markup` alone is HTML.
"""

import base64
import hashlib
import html
import json
import re
from collections.abc import Callable, Sequence
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from jaxclust.run.files import finite
from jaxclust.run.names import shown


def _readable(value: Any) -> Any:
    return value if isinstance(value, Markup) else shown(value)


def templates(written: Callable[[Any], Any], **how: Any) -> Environment:
    """The templates of this room, in which `written` makes what a file says of a value."""
    loader = PackageLoader("jaxclust", "pages")
    how |= {"finalize": written, "undefined": StrictUndefined, "trim_blocks": True, "lstrip_blocks": True}
    return Environment(loader=loader, **how)


HTML = templates(_readable, autoescape=True)


def render(template: str, **values: Any) -> Markup:
    """A template of this room as HTML, filled with `values`."""
    return Markup(HTML.get_template(template).render(values))


def embedded(value: Any) -> Markup:
    """JSON for a script element that is no script. Strings in it go through `shown` before."""
    said = json.dumps(finite(value), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return Markup(said.replace("<", "\\u003c"))


def shipped(name: str) -> str:
    """A file of this room."""
    return resources.files("jaxclust.pages").joinpath(name).read_text(encoding="utf-8")


def document(title: str, body: Markup, styles: Sequence[str], scripts: Sequence[str], **data: Any) -> str:
    """The whole page.

    Args:
      title: plain text.
      body: HTML.
      styles, scripts: CSS and JavaScript; nothing else is applied or run, not even a style attribute.
      data: what scripts read as JSON, by the id of the element.
    """
    return render(
        "page.html",
        title=title,
        body=body,
        styles=[Markup(style) for style in styles],
        scripts=[Markup(script) for script in scripts],
        style_hashes=Markup(" ".join(map(_hash, styles))),
        script_hashes=Markup(" ".join(map(_hash, scripts))),
        data={name.replace("_", "-"): embedded(value) for name, value in data.items()},
    )


def unstyled(svg: str, classes: dict[str, str]) -> Markup:
    """An SVG without style attributes, which the page's policy ignores; `classes` gains a name for each style."""

    def named(match: re.Match) -> str:
        style = html.unescape(match[1])
        return f' class="{classes.setdefault(style, f"v{len(classes)}")}"'

    return Markup(re.sub(r' style="([^"]*)"', named, svg))


def rules(classes: dict[str, str]) -> str:
    """The style sheet of `unstyled`'s classes."""
    return "\n".join(f".{name}{{{style}}}" for style, name in classes.items())


def _hash(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
