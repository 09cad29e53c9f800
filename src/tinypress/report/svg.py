"""Turns a matplotlib figure into inline SVG that takes its colours and its font from the page.

Figures are drawn in sentinel colours that nothing else uses; here each becomes a CSS variable, so that one
drawing serves the light and the dark scheme. Text stays text.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from html import escape

import matplotlib
from markupsafe import Markup
from matplotlib.figure import Figure


@dataclass(frozen=True)
class Palette:
    """The colours of a picture, as #rrggbb."""

    ink: str
    soft: str
    line: str
    panel: str
    candidate: str
    control: str


SENTINELS = Palette(
    ink="#fe0101", soft="#fe0102", line="#fe0103", panel="#fe0104", candidate="#fe0105", control="#fe0106"
)
PAPER = Palette(
    ink="#1d2430", soft="#56606f", line="#dcdfe4", panel="#ffffff", candidate="#1b5fae", control="#a44a0c"
)

_NOISE = re.compile(
    r"\A.*?(?=<svg)|\s*<metadata>.*?</metadata>|<!--.*?-->|<defs>\s*<style.*?</style>\s*</defs>", re.DOTALL
)
_TAG = re.compile(r"<[^>]+>")
_GROUP = re.compile(r'<g id="([^"]*)">')
_REFERENCE = re.compile(r'\bid="|href="#|url\(#')
_VARIABLES = {colour: name for name, colour in asdict(SENTINELS).items()}
_SENTINEL = re.compile("|".join(_VARIABLES))
_FONT = re.compile(r"(font: (?:\w+ )*?[\d.]+px|font-family:)[^;\"]*")  # older and newer matplotlib


@contextmanager
def any_glyph() -> Iterator[None]:
    """Without matplotlib's warning where its own font lacks a letter: the page's font has it, or a box shows."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def inline_svg(figure: Figure, prefix: str, label: str, titles: dict[str, str]) -> Markup:
    """``figure`` as one ``<svg>`` element for an HTML page.

    Args:
        prefix: put before every id, so that several pictures live in one page.
        label: what the picture shows, read aloud instead of it.
        titles: the hover text for each artist's gid.
    """
    buffer = io.StringIO()
    with any_glyph(), matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": prefix}):
        nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
        figure.savefig(buffer, format="svg", metadata=nothing)
    text = _NOISE.sub("", buffer.getvalue())
    head, body = text.split(">", 1)
    box = re.search(r'viewBox="[^"]*"', head)
    head = f'<svg class="plot" role="img" aria-label="{escape(label)}" {box.group() if box else ""}'
    body = _TAG.sub(lambda match: _rewritten(match.group(), prefix, titles), body)
    return Markup(f"{head}>{body.strip()}")


def _rewritten(tag: str, prefix: str, titles: dict[str, str]) -> str:
    """One tag, for this page: own ids, the page's font, CSS variables for the sentinel colours."""
    gid = _GROUP.fullmatch(tag)
    tag = _FONT.sub(r"\1 var(--font)", tag).replace("xlink:href", "href")
    tag = _REFERENCE.sub(lambda match: f"{match.group()}{prefix}-", tag)
    tag = _SENTINEL.sub(lambda match: f"var(--{_VARIABLES[match.group()]})", tag)
    title = titles.get(gid.group(1)) if gid else None
    return tag if title is None else f"{tag}<title>{escape(title)}</title>"
