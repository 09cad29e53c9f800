"""The page of ``tito run``: opens offline, and everything that a learner's code said is escaped."""

from __future__ import annotations

import io
import re
from pathlib import Path

import matplotlib
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from tinypress_course.files import write_text
from tinypress_course.pictures import ACCENT, INK
from tinypress_course.run.beside import GOOD, WORDS
from tinypress_course.run.compared import Compared, Side


def write_page(path: Path, done: Compared, *, stale: bool) -> None:
    """Write the page to ``path``; ``stale`` says that the module was changed after its export."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined
    )
    page = environment.get_template("page.html").render(
        done=done, stale=stale, words=WORDS, good=GOOD, accuracy=_accuracy, time=_time, picture=picture(done)
    )
    write_text(path, page)


def _accuracy(side: Side) -> str:
    return f"{side.accuracy:.1f} [{side.low:.1f}, {side.high:.1f}]"


def _time(side: Side | None) -> str:
    return "–" if side is None or side.time is None else f"{side.time:.2f}×"


def picture(done: Compared) -> Markup:
    """Accuracy against kB as an SVG: a ring for each of the toolkit's files, a dot for the learner's own."""
    with matplotlib.rc_context({"svg.hashsalt": "tito", "svg.fonttype": "none"}):
        figure = Figure(figsize=(8, 3.8), layout="constrained")
        axes = figure.subplots()
        axes.spines[["top", "right"]].set_visible(False)
        for row in done.rows:
            ours, mine = row.reference, row.mine
            axes.plot(ours.kilobytes, ours.accuracy, "o", ms=11, mfc="none", mec=INK)
            axes.annotate(
                row.name,
                (ours.kilobytes, ours.accuracy),
                fontsize=8,
                xytext=(7, 5),
                textcoords="offset points",
            )
            if mine is not None:
                axes.plot(mine.kilobytes, mine.accuracy, "o", ms=5, color=ACCENT)
                if not row.same:
                    ends = [(side.kilobytes, side.accuracy) for side in (ours, mine)]
                    axes.plot(*zip(*ends, strict=True), ":", color=ACCENT)
        axes.plot([], [], "o", ms=11, mfc="none", mec=INK, label="the toolkit's")
        axes.plot([], [], "o", ms=5, color=ACCENT, label="yours")
        axes.set_xscale("log")
        axes.set_xlabel("kB on disk")
        axes.set_ylabel("accuracy on test, %")
        axes.legend(frameon=False)
        drawn = io.StringIO()
        figure.savefig(drawn, format="svg", metadata={"Date": None, "Creator": None})
    svg = drawn.getvalue()
    return Markup(re.sub(r"^.*?(?=<svg)", "", svg, flags=re.DOTALL))
