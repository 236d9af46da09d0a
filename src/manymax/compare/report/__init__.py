"""The report of a run: a terminal table and one offline HTML file. It needs no torch, and matplotlib to draw only."""

from manymax.compare.report.overview import build_overview, print_overview
from manymax.compare.report.page import build
from manymax.compare.report.terminal import print_table

__all__ = ["build", "build_overview", "print_overview", "print_table"]
