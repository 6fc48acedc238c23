"""The four criteria over K, drawn."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from jaxclust.clusters.suggest_k.criteria import Table
from jaxclust.clusters.suggest_k.recommendation import headline, preferences
from jaxclust.run.files import replacing


def plot(table: Table, k: int | None, path: Path) -> None:
    """Draws the four criteria over K as a PNG, with the recommended K marked in each.

    Args:
      table: from `score`.
      k: from `recommend`; None marks nothing.
      path: of the file, which is replaced whole.
    """
    ink, muted, blue, orange = "#222222", "#666666", "#0072B2", "#D55E00"  # Okabe and Ito: told apart by any eye
    wanted = preferences(table)
    nothing = np.full(len(table.k), np.nan)
    panels = {
        "silhouette": ("Silhouette", "mean silhouette, higher is better", table.silhouette, table.reference_silhouette),
        "davies_bouldin": ("Davies-Bouldin", "index, lower is better", table.davies_bouldin, nothing),
        "stability": ("Stability", "adjusted Rand index, higher is better", table.stability, table.reference_stability),
        "bic": ("BIC", "thousands above its lowest", (table.bic - table.bic.min()) / 1000, nothing),
    }
    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1)
    figure = Figure(figsize=(9.6, 7.2), dpi=150, layout=layout, facecolor="white")
    title = f"{k} clusters recommended" if k else headline(table, k).capitalize()
    figure.suptitle(title, x=0.015, ha="left", fontsize=15, fontweight="bold", color=ink)
    ring: dict[str, Any] = dict(
        marker="o", markersize=10, markeredgewidth=2, markerfacecolor="none", markeredgecolor=ink
    )
    cloud: dict[str, Any] = dict(color=muted, linewidth=1.4, linestyle=(0, (4, 2)))
    for axes, (name, (title, unit, values, reference)) in zip(figure.subplots(2, 2).flat, panels.items()):
        axes.plot(table.k, reference, **cloud)
        if name == "stability":
            low, high = table.stability - table.stability_sd, table.stability + table.stability_sd
            axes.fill_between(table.k, low, high, color=blue, alpha=0.18, linewidth=0)
        axes.plot(table.k, values, color=blue, linewidth=2, marker="o", markersize=3.5)
        if k:
            axes.axvline(k, color=orange, linewidth=1.5, zorder=1)
            axes.plot(wanted[name], values[table.k == wanted[name]], linestyle="none", **ring)
            axes.set_title(f"prefers {wanted[name]}", loc="right", fontsize=10, color=ink)
        axes.set_title(title, loc="left", fontsize=12, fontweight="bold", color=ink)
        axes.set_xlabel("K, number of clusters", color=ink)
        axes.set_ylabel(unit, color=ink, fontsize=9.5)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#E6E6E6", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.tick_params(colors=ink)
        axes.margins(x=0.03, y=0.1)
    legend = [
        Patch(color=blue, alpha=0.18, linewidth=0, label="± 1 sd"),
        Line2D([], [], label="one shapeless cloud (Gaussian)", **cloud),
    ]
    if k:
        legend.insert(0, Line2D([], [], color=orange, linewidth=1.5, label=f"recommended: K = {k}"))
        legend.insert(1, Line2D([], [], linestyle="none", label="what a criterion prefers", **ring))
    figure.legend(handles=legend, loc="outside lower left", ncols=4, frameon=False, fontsize=10, labelcolor=ink)
    with replacing(path) as partial:
        figure.savefig(partial, format="png")
