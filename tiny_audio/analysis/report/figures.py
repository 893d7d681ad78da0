"""The page's figures, drawn by Bokeh: clips by WER, one run against another, WER by slice."""

from collections.abc import Sequence
from math import ceil
from typing import Any

from bokeh.models import ColumnDataSource, FactorRange, HoverTool, PrintfTickFormatter, Slope, TapTool
from bokeh.plotting import figure
from bokeh.transform import dodge

from tiny_audio.analysis.report.contents import LETTERS, Takes
from tiny_audio.analysis.slices import MEASURES, Slice

# Read well on white and on black; texts and lines get their colour from page.css.
PALETTE = ("#4a86e8", "#e8710a", "#1e9e6a", "#c653b8", "#b8860b", "#d4526e", "#5f9ea0", "#8a8a8a")
TENTHS = 11  # bins of clips with errors: up to 10 %, 20 % … 100 %, and over
BINS = (*(str(10 * tenth) for tenth in range(TENTHS)), ">100")
FILLED = 0.85  # of a category's room
FLOOR = 0.7  # clips: where the logarithmic axis begins, so that a bar of one clip is seen
WER = "WER of a clip, %"
LEGEND_STYLE = ".bk-label { color: var(--ink) !important; }"  # a legend is HTML: it does not take Bokeh's own CSS names
PICKED = "pick"  # the page's script finds by it the marks whose clips a click shows


def histogram(clips: Sequence[Takes], count: int) -> Any:
    """Clips by their WER, a bar a run. `clips` holds what each of `count` runs made of each clip."""
    drawn = _figure(
        260, x_range=FactorRange(*BINS), y_axis_type="log", x_axis_label=f"{WER} (up to)", y_axis_label="clips"
    )
    drawn.yaxis.formatter = PrintfTickFormatter(format="%d")
    for run in range(count):
        members = _bins(clips, run)
        source = {"bin": BINS, "clips": members, "count": [len(numbers) for numbers in members]}
        width, middle = _share(run, count)
        place = dodge("bin", middle, drawn.x_range)
        bars = drawn.vbar(place, width, "count", FLOOR, source=source, name=PICKED, **_look(run, count))
        bars.nonselection_glyph = bars.glyph
    drawn.y_range.start = FLOOR
    drawn.add_tools(HoverTool(tooltips=[(f"{WER} (up to)", "@bin"), ("clips", "@count")]), TapTool())
    return _finished(drawn)


def _bins(clips: Sequence[Takes], run: int) -> list[list[int]]:
    """The numbers of the clips in each bin; failed clips are in none."""
    members: list[list[int]] = [[] for _ in BINS]
    for number, takes in enumerate(clips):
        take = takes[run]
        if take is not None and take.wer is not None:
            members[min(ceil(round(10 * take.wer, 6)), TENTHS)].append(number)
    return members


def scatter() -> Any:
    """One run's WER against another's; the page fills it for the two runs that are compared."""
    drawn = _figure(340, tools="box_zoom,wheel_zoom,pan,reset", toolbar_location="above")
    drawn.toolbar.logo = None
    drawn.toolbar.active_drag = None  # a finger that scrolls the page does not move the figure
    drawn.add_layout(Slope(gradient=1, y_intercept=0, line_dash="dashed", line_color=PALETTE[-1]))
    empty: dict[str, list] = {name: [] for name in ("x", "y", "size", "count", "clips")}
    points = drawn.scatter("x", "y", size="size", source=empty, name=PICKED, fill_alpha=0.55, color=PALETTE[0])
    points.nonselection_glyph = points.glyph
    drawn.add_tools(HoverTool(tooltips=[(WER, "@x{0.0} | @y{0.0}"), ("clips", "@count")]), TapTool())
    return _finished(drawn)


def slice_figures(runs: Sequence[Sequence[Slice]]) -> list[Any]:
    """WER by slice, a figure for each kind of slice. `runs` holds the slices of each run."""
    kinds = dict.fromkeys(piece.kind for slices in runs for piece in slices)
    return [_slice_figure(kind, [[s for s in slices if s.kind == kind] for slices in runs]) for kind in kinds]


def _slice_figure(kind: str, runs: Sequence[Sequence[Slice]]) -> Any:
    labels = list(dict.fromkeys(piece.label for slices in runs for piece in slices))
    name, height = MEASURES[kind][0], 80 + 10 * len(labels) * (1 + len(runs))
    drawn = _figure(height, y_range=FactorRange(*reversed(labels)), x_axis_label="WER, %", y_axis_label=name)
    for run, slices in enumerate(runs):
        width, middle = _share(run, len(runs))
        bars, place = ColumnDataSource(_columns(slices)), dodge("label", -middle, drawn.y_range)
        drawn.hbar(place, width, "wer", source=bars, **_look(run, len(runs)))
        drawn.segment("low", place, "high", place, source=bars, line_color=PALETTE[-1], line_width=2)
    drawn.x_range.start = 0
    tips = [(name, "@label"), ("WER, %", "@wer{0.00} (@low{0.00}–@high{0.00})"), ("clips", "@clips")]
    drawn.add_tools(HoverTool(tooltips=tips, renderers=drawn.renderers[::2]))
    return _finished(drawn)


def _columns(slices: Sequence[Slice]) -> dict[str, list]:
    """Rates in per cent; a slice without an interval has one of no width."""
    bounds = [piece.wer_interval or (piece.wer, piece.wer) for piece in slices]
    return {
        "label": [piece.label for piece in slices],
        "wer": [100 * piece.wer for piece in slices],
        "low": [100 * low for low, _ in bounds],
        "high": [100 * high for _, high in bounds],
        "clips": [piece.clips for piece in slices],
    }


def _figure(height: int, tools: str = "", toolbar_location: str | None = None, **settings: Any) -> Any:
    wide = {"height": height, "sizing_mode": "stretch_width"}
    return figure(tools=tools, toolbar_location=toolbar_location, **wide, **settings)


def _share(run: int, count: int) -> tuple[float, float]:
    """The width of a run's bar in a category, and how far its middle is from that of the category."""
    width = FILLED / count
    return width, (run - (count - 1) / 2) * width


def _look(run: int, count: int) -> dict[str, Any]:
    look: dict[str, Any] = {"fill_color": PALETTE[run % len(PALETTE)], "line_color": None}
    return {**look, "legend_label": LETTERS[run]} if count > 1 else look


def _finished(drawn: Any) -> Any:
    drawn.outline_line_color = None
    for legend in drawn.legend:
        legend.orientation, legend.stylesheets = "horizontal", [LEGEND_STYLE]
        legend.background_fill_alpha = legend.border_line_alpha = 0
        drawn.add_layout(legend, "above")
    return drawn
