"""Tables and findings in a terminal of 100 columns."""

import io

from rich.console import Console, RenderableType

from report.sample import sample_receipt
from tinypress.report import findings_text, layer_table, summary_table


def shown(what: RenderableType, width: int = 100) -> list[str]:
    file = io.StringIO()
    Console(width=width, file=file).print(what)
    return [line.rstrip() for line in file.getvalue().splitlines()]


def test_the_summary_fits_and_holds_the_numbers() -> None:
    lines = shown(summary_table(sample_receipt()))
    assert max(len(line) for line in lines) <= 100
    (row,) = [line for line in lines if " int8 " in line]
    assert row.split() == [
        "•",
        "int8",
        "122.9",
        "3.89×",
        "0.52×",
        "88.2",
        "[86.5,",
        "89.8]",
        "0.1",
        "[−0.5,",
        "0.7]",
        "within",
    ]
    assert any("tolerance 3 points" in line for line in lines)


def test_the_chosen_is_marked_and_what_is_missing_is_a_dash() -> None:
    lines = shown(summary_table(sample_receipt()))
    (chosen,) = [line for line in lines if line.strip().startswith("▶") and "chosen" not in line]
    assert "shrink+distill+int8" in chosen
    assert "cannot tell" in chosen
    (untimed,) = [line for line in lines if "prune (archive)" in line]
    assert untimed.split()[4] == "–"


def test_controls_stand_last_and_apart() -> None:
    receipt = sample_receipt()
    mixed = receipt.model_copy(update={"candidates": (receipt.candidates[-1], *receipt.candidates[:-1])})
    lines = shown(summary_table(mixed))
    first = next(index for index, line in enumerate(lines) if "control" in line)
    assert lines[first - 1].strip() == ""
    assert not [line for line in lines[first:] if "int8" in line]


def test_a_name_with_brackets_is_a_name() -> None:
    receipt = sample_receipt()
    first = receipt.candidates[0].model_copy(update={"name": "[bold]x[/bold][/]"})
    lines = shown(summary_table(receipt.model_copy(update={"candidates": (first, *receipt.candidates[1:])})))
    assert any("[bold]x[/bold][/]" in line for line in lines)


def test_layers_before_and_after() -> None:
    receipt = sample_receipt()
    lines = shown(layer_table(receipt.candidate("shrink+distill+int8"), receipt.baseline))
    assert max(len(line) for line in lines) <= 100
    (row,) = [line for line in lines if "features.3" in line]
    assert " ".join(row.split()) == "features.3 Conv1d 64×32×5 → 16×8×5 656 1.4 % 8 0.7 58.5×"


def test_layers_that_are_new_or_gone() -> None:
    receipt = sample_receipt()
    candidate = receipt.candidate("shrink")
    odd = candidate.layers[0].model_copy(update={"name": "odd"})
    table = layer_table(
        candidate.model_copy(update={"layers": (odd, *candidate.layers[1:])}), receipt.baseline
    )
    lines = shown(table)
    assert next(line for line in lines if line.strip().startswith("odd")).endswith("new")
    assert any("32×6×5 → gone" in line for line in lines)


def test_findings_name_their_layers_and_artifacts() -> None:
    text = findings_text(sample_receipt()).plain
    assert text.startswith("shrink+distill+int8: 43.3× smaller than the baseline")
    assert "warning TP120  random scores did as well as magnitudes" in text
    assert "layers: features.6\n    in: control: random scores" in text
    assert "in: prune, prune+int8, control: random scores" in text
