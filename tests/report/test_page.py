"""The page: complete, offline, escaped, deterministic, readable in both schemes."""

import re
from functools import cache
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest

from report.sample import sample_receipt
from tinypress.errors import RunError
from tinypress.receipt import Candidate, Finding, Receipt
from tinypress.report import render_page, write_page


class Reader(HTMLParser):
    """Collects visible text by row of a table, all attributes, and checks that tags close."""

    VOID = frozenset(("meta", "link", "br", "hr", "img", "wbr", "input"))

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.rows: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.text.append(data)
            if "tr" in self.open:
                self.rows[-1] += f" {data}"


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    return reader


@cache
def sample_page() -> str:
    return render_page(sample_receipt())


def squeezed(text: str) -> str:
    return " ".join(text.split())


def row_of(candidate: Candidate) -> str:
    """The text of the artifact's row in the large table."""
    rows = [squeezed(row).replace("+ ", "+") for row in read(sample_page()).rows]
    return next(row for row in rows if row.startswith(f"{candidate.name} {candidate.role}"))


def test_nothing_is_fetched() -> None:
    page = sample_page()
    assert not re.search(r"https?:|//[a-z]|@import|@font-face|url\((?!#)", page)
    reader = read(page)
    assert not {tag for tag, _, _ in reader.attributes} & {"link", "img", "iframe", "object", "embed", "base"}
    for tag, name, value in reader.attributes:
        assert name != "src", (tag, value)
        if name in ("href", "xlink:href"):
            assert value.startswith("#")
    assert "default-src 'none'" in page


def test_every_link_has_its_target() -> None:
    attributes = read(sample_page()).attributes
    ids = [value for _, name, value in attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert {value[1:] for _, name, value in attributes if name == "href"} <= set(ids)


def test_every_artifact_layer_finding_and_hash_is_told() -> None:
    receipt, text = sample_receipt(), "".join(read(sample_page()).text)
    findings = [*receipt.findings, *(f for c in receipt.candidates for f in c.all_findings)]
    for finding in findings:
        assert finding.text in text
        assert finding.code in text
    for candidate in receipt.candidates:
        assert candidate.name in text
        assert candidate.artifact.sha256 in text
        assert candidate.about in text
        for layer in candidate.layers:
            assert layer.name in text
    assert receipt.checksum in text
    assert receipt.about in text


def test_the_row_of_an_artifact_holds_its_numbers() -> None:
    assert row_of(sample_receipt().candidate("int8")) == (
        "int8 candidate · on the front 123 kB 3.89× smaller 118,951 117,418 nonzero 1.37 M "
        "111 µs 0.52× [0.50, 0.54] 88.2 % [86.5, 89.8] 0.1 points [−0.5, 0.7] ✓ within "
        "89.4 % 686 kB 6.45 µJ 3.5 s"
    )


def test_what_was_not_measured_is_said_with_its_reason() -> None:
    row = row_of(sample_receipt().candidate("prune (archive)"))
    assert row.count("not measured") == 2
    text = squeezed("".join(read(sample_page()).text))
    assert "Latency of prune (archive): latency was not measured: the archive is opened by PyTorch" in text
    assert "Peak memory of prune+int8 (archive): peak memory was not measured" in text


def test_exact_values_stand_beside_the_rounded_ones() -> None:
    page = sample_page()
    for candidate in sample_receipt().candidates:
        assert f'data-value="{candidate.artifact.bytes}"' in page
        assert f'data-value="{candidate.quality.value}"' in page
        assert f"{candidate.artifact.bytes:,} bytes" in page


def test_verdicts_are_words_and_marks() -> None:
    receipt = sample_receipt()
    for name, mark in (
        ("int8", "✓ within"),
        ("shrink+distill+int8", "? cannot tell"),
        ("control: student alone", "✕ beyond"),
    ):
        assert mark in row_of(receipt.candidate(name))


def test_the_layers_tell_what_they_became() -> None:
    rows = [squeezed(row) for row in read(sample_page()).rows]
    assert (
        "features.3 Conv1d 64×32×5 → 16×8×5 656 647 nonzero 1.4 % 8 was 32 704 was 41,216 16.0 k −0.39 0.39"
        in rows
    )
    assert any(row.startswith("features.6 Conv1d 128×64×5 41,088 8,320 nonzero 79.8 % 32") for row in rows)


def hostile() -> Receipt:
    evil = '"><script>alert(1)</script>'
    receipt = sample_receipt()
    finding = Finding(code=evil, severity="note", layer=evil, text=evil)
    candidates = tuple(
        c.model_copy(
            update={
                "name": f"{c.name}{evil}",
                "about": evil,
                "recipe": ({"technique": evil, evil: evil},),
                "findings": (finding,),
                "artifact": c.artifact.model_copy(update={"path": evil, "sha256": evil}),
                "layers": tuple(
                    layer.model_copy(update={"name": evil, "kind": evil}) for layer in c.layers[:1]
                ),
            }
        )
        for c in receipt.candidates
    )
    return receipt.model_copy(
        update={
            "task": evil,
            "about": evil,
            "metric": evil,
            "candidates": candidates,
            "chosen": candidates[0].name,
            "pareto": (candidates[3].name,),
            "findings": (finding,),
            "machine": receipt.machine.model_copy(
                update={"cpu": evil, "isa": (evil,), "runtimes": {evil: evil}}
            ),
            "checksum": evil,
        }
    )


def test_hostile_text_stays_text() -> None:
    page = render_page(hostile())
    assert page.count("<script") == 1
    reader = read(page)
    assert "alert(1)" in "".join(reader.text)
    assert not [value for _, name, value in reader.attributes if name.startswith("on")]


def test_the_same_receipt_gives_the_same_bytes(tmp_path: Path) -> None:
    write_page(sample_receipt(), tmp_path / "page.html")
    assert (tmp_path / "page.html").read_bytes() == sample_page().encode()


def test_a_page_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"page\.html"):
        write_page(sample_receipt(), tmp_path / "file" / "page.html")


def test_a_run_that_kept_the_baseline_says_that_nothing_is_saved() -> None:
    receipt = sample_receipt().model_copy(update={"chosen": "baseline"})
    assert "This is the baseline itself: nothing is saved and nothing is lost." in unescape(
        render_page(receipt)
    )


def test_a_removed_layer_is_told() -> None:
    receipt = sample_receipt()
    shrunk = receipt.candidates[5]
    without = shrunk.model_copy(update={"layers": shrunk.layers[1:]})
    candidates = (*receipt.candidates[:5], without, *receipt.candidates[6:])
    rows = [
        squeezed(row) for row in read(render_page(receipt.model_copy(update={"candidates": candidates}))).rows
    ]
    assert any(row.startswith("features.0 Conv1d 32×6×5 → gone removed") for row in rows)


def scheme(name: str) -> dict[str, str]:
    block = re.search(rf"color-scheme: {name};(.*?)(?=\}}|color-scheme|--font)", sample_page(), re.DOTALL)
    assert block is not None
    return dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", block.group(1)))


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("name", ["light", "dark"])
def test_text_has_the_contrast_of_wcag_aa(name: str) -> None:
    colours = scheme(name)
    for ink in ("ink", "soft", "candidate", "control", "within", "beyond", "unsure"):
        for paper in ("page", "panel", "sunk"):
            dim, bright = sorted((luminance(colours[ink]), luminance(colours[paper])))
            assert (bright + 0.05) / (dim + 0.05) >= 4.5, (ink, paper)
