"""The report's figures, each one file: what is drawn, and what a caption must say about it."""

from manymax.compare.report.figures.curves import draw as curves
from manymax.compare.report.figures.length import draw as length
from manymax.compare.report.figures.looks import Figure
from manymax.compare.report.figures.stability import draw as stability
from manymax.compare.report.figures.tradeoff import draw as tradeoff

__all__ = ["Figure", "curves", "length", "stability", "tradeoff"]
