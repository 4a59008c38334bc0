"""Plots as SVG text that stands in the page: colours are CSS variables, so that they follow its light or dark theme."""

import io
import re
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator

from solo_dist.reporting.curves import Calibration, Curve, Operating, spread

# Colours that stand for CSS variables; the SVG's text is searched for them.
_INK, _GRID, _PAPER = "#010203", "#010204", "#010205"
_SERIES = tuple(f"#0102{16 + i:02x}" for i in range(8))
_VARIABLES = {_INK: "--ink", _GRID: "--line", _PAPER: "--card", **{c: f"--c{i + 1}" for i, c in enumerate(_SERIES)}}
_POINTS = 300
"""Most points of a line; a page stays small however long the run was."""
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "solo_dist",
    "font.size": 10,
    "axes.edgecolor": _GRID,
    "axes.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "axes.titlecolor": _INK,
    "grid.color": _GRID,
    "grid.linewidth": 0.6,
    "xtick.color": _GRID,
    "ytick.color": _GRID,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "text.color": _INK,
    "legend.frameon": False,
    "legend.fontsize": 9,
}


def lines(
    title: str,
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    x_label: str,
    markers: bool = False,
    bottom: float | None = None,
) -> str:
    """Lines by name, each x and y; a legend if there are several."""
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes()
        for i, (name, (x, y)) in enumerate(series.items()):
            axes.plot(
                *_thinned(np.asarray(x, float), np.asarray(y, float)),
                color=_SERIES[i % 8],
                label=name,
                marker="o" if markers else None,
                markersize=4,
            )
        axes.set(title=title, xlabel=x_label)
        if bottom is not None:
            axes.set_ylim(bottom=bottom)
        if len(series) > 1:
            axes.legend()
        return _svg(figure, title)


def histogram(title: str, bounds: Sequence[float], shares: Mapping[str, np.ndarray], x_label: str) -> str:
    """Shares between bounds, which grow by a constant factor, by name; the first name is filled."""
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes()
        for i, (name, values) in enumerate(shares.items()):
            axes.stairs(100 * values, bounds, color=_SERIES[i % 8], label=name, linewidth=2)
            if i == 0:
                axes.stairs(100 * values, bounds, color=_SERIES[0], fill=True, alpha=0.2)
        axes.set(title=title, xlabel=x_label, ylabel="% of the instances", xscale="log")
        axes.xaxis.set_major_locator(LogLocator(2, numticks=20))
        axes.xaxis.set_major_formatter(
            FuncFormatter(lambda value, _: f"{value:g}" if value >= 1 else f"1/{1 / value:g}")
        )
        axes.minorticks_off()
        used = np.flatnonzero(sum(shares.values()))
        if len(used):
            axes.set_xlim(bounds[max(0, used[0] - 1)], bounds[min(len(bounds) - 1, used[-1] + 2)])
        if len(shares) > 1:
            axes.legend()
        return _svg(figure, title)


def heat(title: str, counts: np.ndarray, x_label: str) -> str:
    """A map of counts [rows, columns], the first row at the top; the darker a cell, the larger its count."""
    with matplotlib.rc_context({**_STYLE, "axes.grid": False}):
        figure, axes = _axes()
        rows, columns = counts.shape
        for row, column in np.argwhere(counts):
            opacity = 0.08 + 0.92 * counts[row, column] / counts.max()
            axes.add_patch(Rectangle((column, row), 1, 1, color=_SERIES[0], alpha=opacity, linewidth=0))
        axes.set(title=title, xlabel=x_label, xlim=(0, columns), ylim=(rows, 0), xticks=[], yticks=[], aspect="equal")
        axes.spines[["top", "right"]].set_visible(True)
        return _svg(figure, title)


def precision_recall(curve: Curve, by_category: Mapping[str, Curve]) -> str:
    """Precision over recall, of everything and of some categories."""
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes()
        for i, (name, other) in enumerate(by_category.items()):
            axes.plot(*_thinned(other.recall, other.precision), color=_SERIES[(i + 1) % 8], linewidth=1.2, label=name)
        axes.plot(*_thinned(curve.recall, curve.precision), color=_SERIES[0], linewidth=2.2, label="together")
        axes.set(
            title="Precision over recall", xlabel="recall: share of the instances found", xlim=(0, 1), ylim=(0, 1.02)
        )
        axes.legend(loc="lower left" if len(by_category) < 5 else "upper right")
        return _svg(figure, "Precision over recall")


def over_threshold(curve: Curve, best: Operating | None) -> str:
    """Precision, recall and F1 over the score threshold, with the best F1 marked."""
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes()
        for i, (name, values) in enumerate(
            (("F1", curve.f1), ("precision", curve.precision), ("recall", curve.recall))
        ):
            axes.plot(*_thinned(curve.score, values), color=_SERIES[i], linewidth=2.2 if i == 0 else 1.2, label=name)
        if best:
            axes.axvline(best.threshold, color=_INK, linewidth=1, linestyle=":")
            axes.annotate(f" {best.threshold:.2f}", (best.threshold, 0.02), color=_INK)
        axes.set(title="What a threshold gives", xlabel="score threshold", xlim=(0, 1), ylim=(0, 1.02))
        axes.legend(loc="center right")
        return _svg(figure, "Precision, recall and F1 over the score threshold")


def reliability(calibration: Calibration) -> str:
    """Share of right detections over the score, beside the diagonal of perfect scores."""
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes()
        left = np.arange(10) / 10
        axes.bar(left, np.nan_to_num(calibration.correct), 0.094, align="edge", color=_SERIES[0], label="this model")
        axes.plot(
            [0, 1], [0, 1], color=_INK, linewidth=1, linestyle=":", label="scores that can be taken at their word"
        )
        axes.set(title="Share of right detections", xlabel="score", xlim=(0, 1), ylim=(0, 1.15))
        axes.legend(loc="upper left")
        return _svg(figure, "Share of right detections over the score")


def _axes() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(5.2, 3.0), layout="constrained")
    return figure, figure.subplots()


def _thinned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most _POINTS points of a line, the first and the last among them."""
    chosen = spread(len(x), _POINTS)
    return x[chosen], y[chosen]


def _svg(figure: Figure, label: str) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font: \1px system-ui, sans-serif", text)
    # The page gives the size; the view box keeps the proportions.
    head = text[: text.index(">")]
    sized = re.sub(r' (width|height)="[\d.]+pt"', "", head) + f' role="img" aria-label="{label}"'
    return sized + text[len(head) :]
