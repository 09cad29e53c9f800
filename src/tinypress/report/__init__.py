"""Tells what a receipt holds: a page, tables and findings for the terminal, a picture. Reads receipts only."""

from tinypress.report.page import render_page, write_page
from tinypress.report.plots import draw_summary
from tinypress.report.seeds import advice, pairs_table, seeds_table, write_seeds_page
from tinypress.report.table import findings_text, layer_table, summary_table

__all__ = [
    "advice",
    "draw_summary",
    "findings_text",
    "layer_table",
    "pairs_table",
    "render_page",
    "seeds_table",
    "summary_table",
    "write_page",
    "write_seeds_page",
]
