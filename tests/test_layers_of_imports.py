"""The tree is the architecture: a file imports only from lower levels, those inside functions counted too."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "tinypress"

LEVELS = (
    {
        "arguments",
        "errors",
        "facts",
        "protocols",
        "task",
        "receipt",
        "summary",
        "diagnosis",
        "files",
        "bits",
        "buffers",
    },
    {
        "graph",
        "layers",
        "archive",
        "runtimes",
        "float_onnx",
        "global_pooling",
        "onnx_shapes",
        "parameter_names",
    },
    {"measure", "train"},
    {"prune", "shrink", "quantize", "distill", "tasks", "huggingface"},
    {"ship", "search"},
    {"press"},
    {"plan", "report"},
    {"cli"},
    {"__init__", "__main__"},
)
TECHNIQUES = {"prune", "shrink", "quantize", "distill"}


def part_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def level_of(part: str) -> int:
    return next(level for level, parts in enumerate(LEVELS) if part in parts)


def module_of(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(("tinypress", *parts)).removesuffix(".__init__")


FILES = sorted(SOURCE.rglob("*.py"))
MODULES = {module_of(path): path for path in FILES}


def imports(path: Path) -> list[str]:
    found: list[str] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            found += [name if name in MODULES else node.module for name in inner]
        elif isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
    return [name for name in found if name.startswith("tinypress.")]


@pytest.mark.parametrize("path", FILES, ids=[str(p.relative_to(SOURCE)) for p in FILES])
def test_a_file_imports_from_lower_levels_only(path: Path) -> None:
    own = part_of(path)
    for name in imports(path):
        other = name.split(".")[1]
        if other == own:
            continue
        assert level_of(other) <= level_of(own), f"{path.name} imports upward: {name}"
        if level_of(own) > 0:  # the lowest level is one set of small files
            assert level_of(other) < level_of(own) or {own, other} <= LEVELS[1], f"{path.name} imports {name}"
        assert not {own, other} <= TECHNIQUES, f"techniques never import one another: {path.name}, {name}"


def test_no_import_cycle() -> None:
    graph = {module: set(imports(path)) for module, path in MODULES.items()}
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, f"import cycle: {' -> '.join((*trail, module))}"
        if module in done or module not in graph:
            return
        for other in sorted(graph[module]):
            visit(other, (*trail, module))
        done.add(module)

    for module in sorted(graph):
        visit(module, ())
