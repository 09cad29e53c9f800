"""The page in a real browser at the width of a phone and of a desk: nothing sticks out, nothing fails."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from report.sample import sample_receipt
from tinypress.report import write_page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

FRAME = """<!DOCTYPE html><iframe src="page.html" style="width:%dpx;height:900px;border:0"></iframe><pre></pre><script>
onload = function () {
  var inner = document.querySelector("iframe").contentWindow, page = inner.document;
  var table = page.getElementById("artifacts");
  table.tHead.rows[0].cells[1].querySelector("button").click();
  var sizes = [].map.call(table.tBodies[0].rows, function (row) { return +row.cells[1].dataset.value; });
  page.getElementById("theme").click();
  var dark = inner.getComputedStyle(page.body).backgroundColor;
  page.getElementById("theme").click();
  document.querySelector("pre").textContent = JSON.stringify({
    width: inner.innerWidth, needed: page.documentElement.scrollWidth, sizes: sizes, dark: dark,
    light: inner.getComputedStyle(page.body).backgroundColor,
    plots: [].filter.call(page.querySelectorAll(".plot"), function (plot) { return plot.clientWidth > 0; }).length,
    fetched: inner.performance.getEntriesByType("resource").length
  });
};
</script>"""


@pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium on this machine: the page is not looked at in a browser"
)
@pytest.mark.parametrize("width", [320, 390, 1280])
def test_the_page_fits_its_window_and_its_script_works(width: int, tmp_path: Path) -> None:
    write_page(sample_receipt(), tmp_path / "page.html")
    (tmp_path / "frame.html").write_text(FRAME % width, encoding="utf-8")
    answer = subprocess.run(
        [
            str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--allow-file-access-from-files", "--virtual-time-budget=4000", "--dump-dom",
            f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1400,1000", (tmp_path / "frame.html").as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    found = re.search(r"<pre>(\{.*\})</pre>", answer.stdout)
    assert found is not None, answer.stderr[-500:]
    seen = json.loads(html.unescape(found.group(1)))
    assert seen["width"] == width
    assert seen["needed"] <= width
    assert seen["plots"] == 2
    assert seen["sizes"] == sorted(seen["sizes"])
    assert {seen["light"], seen["dark"]} == {"rgb(245, 244, 240)", "rgb(17, 21, 27)"}
    assert seen["fetched"] == 0
