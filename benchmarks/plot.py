"""Recall against queries a second, a panel a data set, as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from math import log10
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")
import matplotlib.pyplot as plt

LEAST = 0.8
TICKS = (0.8, 0.9, 0.95, 0.99, 0.999)
COLOURS = {"Earshot": "#c1121f"}
OTHERS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#9467bd", "#8c564b", "#17becf", "#7f7f7f", "#bcbd22")


def plot(points: Sequence[Any], path: Path) -> None:
    """Draw each engine's Pareto front; recall on a scale that gives each nine the same width."""
    names = list(dict.fromkeys(point.data for point in points))
    columns = min(2, len(names))
    lines = -(-len(names) // columns)
    figure, axes = plt.subplots(lines, columns, figsize=(6.2 * columns, 4.4 * lines), squeeze=False)
    styles = iter(OTHERS)
    engines = dict.fromkeys(point.engine for point in points)
    colours = {engine: COLOURS.get(engine) or next(styles) for engine in engines}
    for panel, name in zip(axes.flat, names, strict=False):
        for engine in engines:
            mine = [point for point in points if (point.data, point.engine) == (name, engine)]
            front = [p for p in mine if not any(o.recall >= p.recall and o.us < p.us for o in mine)]
            front = sorted((p for p in front if p.recall >= LEAST), key=lambda point: point.recall)
            panel.plot(
                [_stretched(point.recall) for point in front],
                [point.per_second for point in front],
                marker="o",
                markersize=4,
                linewidth=2.4 if engine in COLOURS else 1.2,
                color=colours[engine],
                label=engine,
                zorder=3 if engine in COLOURS else 2,
            )
        panel.set(title=name, xlabel="recall at 10", ylabel="queries a second, one core", yscale="log")
        panel.set_xticks([_stretched(tick) for tick in TICKS], [str(tick) for tick in TICKS])
        panel.set_xlim(_stretched(LEAST), _stretched(0.9996))
        panel.grid(alpha=0.3, which="both")
    for panel in axes.flat[len(names) :]:
        panel.axis("off")
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=4, frameon=False)
    figure.tight_layout(rect=(0, 0.55 / (4.4 * lines), 1, 1))
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _stretched(recall: float) -> float:
    """−log₁₀ of what is missing."""
    return -log10(max(1 - recall, 4e-4))
