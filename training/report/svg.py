"""Pictures in SVG for the pages of training and of the load test; colours and letters come from one style sheet."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

WIDTH = 400
"""Of a plot, in its own units; a phone shows about one unit as one pixel."""
WIDE = 720
"""Of a picture over time."""

STYLE = """
.plot text { font: 12px system-ui, "Segoe UI", Roboto, Helvetica, Arial, sans-serif; fill: #333; }
.plot .axis { stroke: #555; fill: none; } .plot .grid { stroke: #e4e4e4; fill: none; }
.plot .ours { stroke: #0072b2; fill: none; stroke-width: 2; }
.plot .other { stroke: #d55e00; fill: none; stroke-width: 2; }
.plot .thin { stroke: #0072b2; fill: none; stroke-width: 1; opacity: .45; }
.plot .guide { stroke: #777; fill: none; stroke-dasharray: 5 4; }
.plot .band { fill: #0072b2; fill-opacity: .18; } .plot .noise { fill: #888; fill-opacity: .32; }
.plot .ours-fill { fill: #0072b2; } .plot .other-fill { fill: #d55e00; }
.plot .hollow { fill: #fff; stroke: #d55e00; stroke-width: 2; }
.plot .bar { fill: #0072b2; fill-opacity: .75; } .plot .other-bar { fill: #d55e00; fill-opacity: .75; }
.plot .cell { fill: #0072b2; } .plot text.light { fill: #fff; }
.plot .title { font-weight: 600; }
.plot [class^=series] { fill: none; stroke-width: 1.8; }
.plot .series-0 { stroke: #0072b2; } .plot .series-1 { stroke: #d55e00; stroke-dasharray: 6 3; }
.plot .series-2 { stroke: #009e73; stroke-dasharray: 2 3; } .plot .series-4 { stroke: #555; }
.plot .series-3 { stroke: #cc79a7; stroke-dasharray: 8 3 2 3; }
.plot .share-0 { fill: #0072b2; } .plot .share-1 { fill: #d55e00; } .plot .share-2 { fill: #009e73; }
.plot .share-3 { fill: #cc79a7; } .plot .share-4 { fill: #555; }
"""
"""Colours of Okabe and Ito (2008), distinguished by colour-blind readers and in grey print."""

Anchor = Literal["start", "middle", "end"]


@dataclass(frozen=True)
class Frame:
    """A rectangle of the picture (left, top, width, height) that shows the data ranges x and y; y points up."""

    left: float
    top: float
    width: float
    height: float
    x: tuple[float, float]
    y: tuple[float, float]

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Data → picture."""
        (x0, x1), (y0, y1) = self.x, self.y
        return (self.left + self.width * (x - x0) / (x1 - x0), self.top + self.height * (1 - (y - y0) / (y1 - y0)))

    def line(self, xs: Sequence[float], ys: Sequence[float], style: str) -> str:
        return f'<polyline class="{style}" points="{self._points(xs, ys)}"/>'

    def band(self, xs: Sequence[float], lows: Sequence[float], highs: Sequence[float], style: str) -> str:
        there, back = self._points(xs, highs), self._points(xs[::-1], lows[::-1])
        return f'<polygon class="{style}" points="{there} {back}"/>'

    def bar(self, x0: float, x1: float, y0: float, y1: float, style: str) -> str:
        (left, one), (right, other) = self.at(x0, y0), self.at(x1, y1)
        return (
            f'<rect class="{style}" x="{left:.1f}" y="{min(one, other):.1f}" width="{right - left:.1f}" '
            f'height="{abs(one - other):.1f}"/>'
        )

    def dot(self, x: float, y: float, style: str, radius: float = 4.5) -> str:
        cx, cy = self.at(x, y)
        return f'<circle class="{style}" cx="{cx:.1f}" cy="{cy:.1f}" r="{radius}"/>'

    def diamond(self, x: float, y: float, style: str, radius: float = 6) -> str:
        cx, cy = self.at(x, y)
        corners = ((cx, cy - radius), (cx + radius, cy), (cx, cy + radius), (cx - radius, cy))
        return f'<polygon class="{style}" points="{" ".join(f"{a:.1f},{b:.1f}" for a, b in corners)}"/>'

    def text(self, x: float, y: float, words: str, *, anchor: Anchor = "start", dx: float = 0, dy: float = 4) -> str:
        left, top = self.at(x, y)
        return f'<text x="{left + dx:.1f}" y="{top + dy:.1f}" text-anchor="{anchor}">{escape(words)}</text>'

    def axes(
        self, x_ticks: Sequence[float], y_ticks: Sequence[float], *, x_name: str = "", y_name: str = "",
        x_text: Callable[[float], str] = "{:g}".format, y_text: Callable[[float], str] = "{:g}".format,
    ) -> str:  # fmt: skip
        """Grid lines, numbers and names; no ticks, no numbers. The vertical axis's name stands above it, level."""
        (x0, x1), (y0, y1) = self.x, self.y
        parts = [self.line((x0, x1), (tick, tick), "grid") for tick in y_ticks]
        parts += [self.line((tick, tick), (y0, y1), "grid") for tick in x_ticks]
        parts += [self.text(x0, tick, y_text(tick), anchor="end", dx=-6) for tick in y_ticks]
        parts += [self.text(tick, y0, x_text(tick), anchor="middle", dy=17) for tick in x_ticks]
        parts.append(self.line((x0, x1), (y0, y0), "axis"))
        if x_name:
            parts.append(self.text((x0 + x1) / 2, y0, x_name, anchor="middle", dy=34))
        if y_name:
            parts.append(self.text(x0, y1, y_name, dx=2 - self.left, dy=-9))
        return "".join(parts)

    def _points(self, xs: Sequence[float], ys: Sequence[float]) -> str:
        return " ".join(f"{a:.1f},{b:.1f}" for a, b in (self.at(x, y) for x, y in zip(xs, ys, strict=True)))


@dataclass(frozen=True)
class Plot:
    """A finished picture: ``name`` for its file, a title, what it shows in a sentence or two, its elements."""

    name: str
    title: str
    caption: str
    height: float
    body: str
    width: float = WIDTH

    def inline(self) -> str:
        """The picture for a page that holds `STYLE`; it fills the width that it is given."""
        return self._svg("", "")

    def file(self) -> str:
        """The picture as a file of its own."""
        return self._svg(' xmlns="http://www.w3.org/2000/svg"', f"<style>{STYLE}</style>")

    def _svg(self, namespace: str, style: str) -> str:
        return (
            f'<svg{namespace} class="plot" viewBox="0 0 {self.width} {self.height:g}" role="img">'
            f"<title>{escape(self.title)}</title><desc>{escape(self.caption)}</desc>{style}{self.body}</svg>\n"
        )


Points = Sequence[tuple[float, float]]


def line_chart(title: str, unit: str, lines: Mapping[str, Points], *, logarithmic: bool = False) -> str:
    """Lines over seconds with a legend; a point that is not finite interrupts its line."""

    def height(y: float) -> float:
        return (math.log10(y) if y > 0 else math.nan) if logarithmic else y

    segments = {name: _segments([(x, height(y)) for x, y in points]) for name, points in lines.items()}
    measured = [point for parts in segments.values() for part in parts for point in part]
    if not measured:
        return f"<p>{escape(title)}: nothing was measured.</p>"
    last, highest = max(1.0, *(x for x, _ in measured)), max(y for _, y in measured)
    if logarithmic:
        low, high, step = math.floor(min(y for _, y in measured)), math.ceil(highest + 1e-4), 1.0
    else:
        step = round_step(highest / 4)
        low, high = 0, max(1, math.ceil(highest / step))
    frame = Frame(56, 30, WIDE - 80, 170, (0, last), (low * step, high * step))
    seconds = round_step(last / 6)
    elements = [
        f'<text class="title" x="{frame.left}" y="14">{escape(title)}, {escape(unit)}</text>',
        frame.axes(
            [seconds * place for place in range(int(last / seconds) + 1)],
            [step * place for place in range(low, high + 1)],
            x_text="{:g} s".format,
            y_text=lambda y: f"{10**y if logarithmic else y:g}",
        ),
    ]
    for place, (name, parts) in enumerate(segments.items()):
        style, x = f"series-{place % 5}", frame.left + place * frame.width / max(len(lines), 4)
        elements += [frame.line([x for x, _ in part], [y for _, y in part], style) for part in parts]
        elements.append(f'<path class="{style}" d="M{x:.0f} 234h22"/>')
        elements.append(f'<text x="{x + 27:.0f}" y="238">{escape(name)}</text>')
    return Plot("", title, unit, 242, "".join(elements), WIDE).inline()


def _segments(points: Points) -> list[list[tuple[float, float]]]:
    """The points in order, parted where one is not finite."""
    segments: list[list[tuple[float, float]]] = [[]]
    for x, y in points:
        if math.isfinite(y):
            segments[-1].append((x, y))
        elif segments[-1]:
            segments.append([])
    return [segment for segment in segments if segment]


def share_bar(title: str, milliseconds: Mapping[str, float]) -> str:
    """Parts of a whole, side by side, each with its name and share."""
    total = sum(milliseconds.values())
    if not total > 0:
        return f"<p>{escape(title)}: nothing was measured.</p>"
    elements, x = [], 0.0
    for place, (name, value) in enumerate(milliseconds.items()):
        width, style, top = WIDE * value / total, f"share-{place % 5}", 42 + 20 * place
        elements.append(f'<rect class="{style}" x="{x:.1f}" y="4" width="{width:.1f}" height="26"/>')
        elements.append(f'<rect class="{style}" x="0" y="{top}" width="12" height="12"/>')
        elements.append(f'<text x="18" y="{top + 10}">{escape(name)}: {value:.2f} ms, {value / total:.0%}</text>')
        x += width
    return Plot("", title, "", 44 + 20 * len(milliseconds), "".join(elements), WIDE).inline()


def round_step(rough: float) -> float:
    """The least of 1, 2 or 5 times a power of ten that is not below ``rough``; 1 where that is not above 0."""
    power = 10.0 ** math.floor(math.log10(rough)) if rough > 0 else 1.0
    return next(size * power for size in (1, 2, 5, 10) if size * power >= rough * (1 - 1e-9))
