"""A plotting area in SVG: data coordinates in, elements out; colours and letters come from one style sheet."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

WIDTH = 400
"""Of every plot, in its own units; a phone shows about one unit as one pixel."""

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
"""
"""Okabe and Ito's blue and vermilion (2008), distinguished by colour-blind readers and in grey print."""

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
        return (
            self.left + self.width * (x - x0) / (x1 - x0),
            self.top + self.height * (1 - (y - y0) / (y1 - y0)),
        )

    def line(self, xs: Sequence[float], ys: Sequence[float], style: str) -> str:
        return f'<polyline class="{style}" points="{self._points(xs, ys)}"/>'

    def band(self, xs: Sequence[float], lows: Sequence[float], highs: Sequence[float], style: str) -> str:
        there, back = self._points(xs, highs), self._points(xs[::-1], lows[::-1])
        return f'<polygon class="{style}" points="{there} {back}"/>'

    def bar(self, x0: float, x1: float, y0: float, y1: float, style: str) -> str:
        (left, bottom), (right, top) = self.at(x0, min(y0, y1)), self.at(x1, max(y0, y1))
        return (
            f'<rect class="{style}" x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" '
            f'height="{max(bottom - top, 0):.1f}"/>'
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
        x_format: str = "g", y_format: str = "g",
    ) -> str:  # fmt: skip
        """Grid lines, numbers and names; no ticks, no numbers. The vertical axis's name stands above it, level."""
        (x0, x1), (y0, y1) = self.x, self.y
        parts = [self.line((x0, x1), (tick, tick), "grid") for tick in y_ticks]
        parts += [self.line((tick, tick), (y0, y1), "grid") for tick in x_ticks]
        parts += [self.text(x0, tick, f"{tick:{y_format}}", anchor="end", dx=-6) for tick in y_ticks]
        parts += [self.text(tick, y0, f"{tick:{x_format}}", anchor="middle", dy=17) for tick in x_ticks]
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

    def inline(self) -> str:
        """The picture for a page that holds `STYLE`; it fills the width that it is given."""
        return self._svg("", "")

    def file(self) -> str:
        """The picture as a file of its own."""
        return self._svg(' xmlns="http://www.w3.org/2000/svg"', f"<style>{STYLE}</style>")

    def _svg(self, namespace: str, style: str) -> str:
        return (
            f'<svg{namespace} class="plot" viewBox="0 0 {WIDTH} {self.height:g}" role="img">'
            f"<title>{escape(self.title)}</title><desc>{escape(self.caption)}</desc>{style}{self.body}</svg>\n"
        )
