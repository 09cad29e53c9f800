"""The receipt as one HTML file that opens without a network: pictures, tables, layers, findings.

The templates beside this file hold the page's structure, its style and its small script, without which the page
is complete too. Everything from the receipt is escaped; the same receipt gives the same bytes.
"""

from __future__ import annotations

from pathlib import Path

from markupsafe import Markup

from tinypress.files import write_bytes
from tinypress.receipt import Receipt
from tinypress.report import sentences, words
from tinypress.report.chart import fallen
from tinypress.report.pairs import HEIGHT, WIDTH, overlay, pair_layers
from tinypress.report.plots import bytes_chart, latency_chart, page_svg
from tinypress.report.table import shape_change
from tinypress.report.templates import templates


def write_page(receipt: Receipt, path: Path) -> None:
    """Write the page of ``receipt`` to ``path``.

    Raises:
        RunError: the file cannot be written.
    """
    write_bytes(path, render_page(receipt).encode())


def render_page(receipt: Receipt) -> str:
    """The page of ``receipt`` as HTML text."""
    environment = templates()
    environment.globals.update(
        words=words, sentences=sentences, overlay=overlay, shape_change=shape_change, box=(WIDTH, HEIGHT)
    )
    environment.filters.update(upfirst=_upfirst, breakable=_breakable)
    baseline = receipt.baseline
    return environment.get_template("page.html").render(
        receipt=receipt,
        baseline=baseline,
        chosen=receipt.candidate(receipt.chosen),
        numbers={candidate.name: index for index, candidate in enumerate(receipt.candidates)},
        pairs={c.name: pair_layers(c, baseline) for c in receipt.candidates},
        groups=sentences.grouped_findings(receipt),
        missing=sentences.missing_numbers(receipt),
        cut=bool(fallen(bytes_chart(receipt))),
        bytes_picture=_picture(receipt, "b"),
        latency_picture=_picture(receipt, "l"),
    )


def _picture(receipt: Receipt, prefix: str) -> Markup | None:
    chart = bytes_chart(receipt) if prefix == "b" else latency_chart(receipt)
    if chart is None:
        return None
    cost = "file size" if prefix == "b" else "time"
    return page_svg(chart, prefix, f"{receipt.metric} against {cost}; the numbers stand in the table below")


def _upfirst(text: str) -> str:
    return text[:1].upper() + text[1:]


def _breakable(name: str) -> Markup:
    """The name, escaped, where a narrow column may break it: after a plus sign and not inside a word."""
    return Markup("+<wbr>").join(name.split("+"))
