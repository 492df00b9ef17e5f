"""Charts of the steps, drawn into pictures that a report shows as they are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from candling.vision.factors import FactorTest

__all__ = ["dose_curves"]

_COLUMNS = 4
_GONE_UP, _CHANGED, _QUIET = "#b2182b", "#4d4d4d", "#999999"


def dose_curves(tests: Sequence[FactorTest], names: Sequence[str]) -> Image.Image:
    """A panel a factor: shares of predictions over the dose.

    Parameters
    ----------
    tests
        With curves, each of one factor of the whole picture.
    names
        Of the classes.
    """
    columns = min(_COLUMNS, len(tests))
    rows = -(-len(tests) // columns)
    # A figure of its own canvas: pyplot keeps figures, and is not for threads.
    figure = Figure(figsize=(2.6 * columns, 2.2 * rows + 0.4), dpi=110, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for panel in panels.flat[len(tests) :]:
        panel.set_axis_off()
    for panel, test in zip(panels.flat, tests, strict=False):
        at = [point.level for point in test.curve]
        confirmed = test.status == "confirmed"
        panel.plot(at, [p.changed for p in test.curve], color=_CHANGED, marker="o", ms=3, label="changed")
        if test.raises is not None:
            panel.plot(
                at, [p.gained for p in test.curve], color=_GONE_UP if confirmed else _QUIET, ls="--",
                marker="s", ms=3, label=f"predicted {_short(names[test.raises])}",
            )  # fmt: skip
        panel.set_title(f"{test.factor}: {test.status}", fontsize=9, weight="bold" if confirmed else "normal")
        panel.set_ylim(-0.03, 1.03)
        panel.legend(fontsize=6, loc="upper center", frameon=False)
        panel.tick_params(labelsize=7)
        panel.spines[["top", "right"]].set_visible(False)
    figure.supxlabel("share of the pictures below the dose", fontsize=8)
    figure.supylabel("share of predictions", fontsize=8)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())


def _short(name: str) -> str:
    # A dollar would begin a formula.
    plain = name.replace("$", r"\$")
    return plain if len(plain) <= 18 else f"{plain[:17]}…"
