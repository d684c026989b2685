"""GLUE. A picture of tables: a panel a model and program, shares of the judgements by margin.

Wrong here = a picture misinforms. The same tables give the same bytes under the same matplotlib.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from verify.compare import AGREES, FAKE_FEASIBLE, FAKE_INFEASIBLE, NO_ANSWER, RIGHT_AS_POSED, UNDECIDED
from verify.errors import ModelUnavailableError
from verify.extras import install
from verify.propose.field import GRIVAS, PROGRAMS
from verify.replay.summary import short, summarise

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from verify.replay.summary import Counts
    from verify.replay.table import Question, Row

_COLOURS = {
    AGREES: "#b8d8b8",
    FAKE_FEASIBLE: "#d95f02",
    FAKE_INFEASIBLE: "#7570b3",
    RIGHT_AS_POSED: "#cbc9e2",
    UNDECIDED: "#ffffb3",
    NO_ANSWER: "#bbbbbb",
}
_SETTINGS: dict[Any, Any] = {"svg.hashsalt": "verify", "svg.fonttype": "none", "font.size": 8}


def svg(tables: Sequence[tuple[Question, Sequence[Row]]]) -> bytes:
    """The picture. Raises ModelUnavailableError if matplotlib is not there.

    Models and solvers are the rows of panels, programs the columns; at each margin a bar a tolerance. A black
    line: the share that the post's whole method, its second step included, gets right.
    """
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
        from matplotlib.lines import Line2D
        from matplotlib.patches import Patch
    except ImportError:
        raise ModelUnavailableError(f"a picture needs matplotlib: {install('plot')}") from None
    models = list(dict.fromkeys((q.model, q.solver) for q, _ in tables))
    kinds = [program for program in PROGRAMS if program in {q.program for q, _ in tables}]
    with mpl.rc_context(_SETTINGS):
        figure = Figure(figsize=(3.6 * len(kinds) + 0.6, 2.1 * len(models) + 0.7), layout="constrained")
        panels = figure.subplots(len(models), len(kinds), squeeze=False, sharey=True)
        for panel in panels.flat:
            panel.set_axis_off()
        for question, rows in tables:
            down = models.index((question.model, question.solver))
            panel = panels[down][kinds.index(question.program)]
            panel.set_axis_on()
            panel.set_title(f"{question.model}: {question.program}, {question.solver}")
            _bars(panel, summarise(rows), second=question.program != GRIVAS)
        marks: list[Any] = [Patch(color=colour, label=word) for word, colour in _COLOURS.items()]
        marks.append(Line2D([], [], color="black", linewidth=1.5, label="right after the second step"))
        figure.legend(handles=marks, loc="outside lower center", ncols=min(5, 2 * len(kinds)), frameon=False)
        out = io.BytesIO()
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    return out.getvalue().replace(b" \n", b"\n")


def _bars(panel: Any, counts: list[Counts], second: bool) -> None:
    margins = sorted({c.margin for c in counts})
    tolerances = list(dict.fromkeys(c.tolerance for c in counts))
    width = 0.84 / len(tolerances)
    for c in counts:
        slot = tolerances.index(c.tolerance)
        at, bottom = margins.index(c.margin) - 0.42 + (slot + 0.5) * width, 0.0
        for word, colour in _COLOURS.items():
            number = c.judgements[word]
            if number:
                panel.bar(at, number / c.total, 0.92 * width, bottom, color=colour)
            bottom += number / c.total
        if second:
            right = c.steps["right"] / c.total
            panel.hlines(right, at - 0.46 * width, at + 0.46 * width, color="black", linewidth=1.5)
    panel.set_xticks(range(len(margins)), [short(m) for m in margins], rotation=45)
    bars = ", ".join(map(short, tolerances))
    panel.set_xlabel(f"{'margin' if second else 'radius'}; at each, tolerance {bars}")
    panel.set_xlim(-0.6, max(len(margins), 4) - 0.4)
    panel.set_ylim(0, 1.02)
