"""Lines over time as inline SVG, in the colours of Okabe and Ito (2008), which colour-blind readers tell apart."""

import math
from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 720, 240
LEFT, RIGHT, TOP, BOTTOM = 56, 24, 30, 40
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#555555")
DASHES = ("", "6 3", "2 3", "8 3 2 3", "")

Points = Sequence[tuple[float, float]]


def chart(title: str, unit: str, lines: Mapping[str, Points], *, logarithmic: bool = False) -> str:
    """One picture with a legend; points that are not finite interrupt a line. ``unit`` names the vertical axis."""
    found = [(x, y) for points in lines.values() for x, y in points if math.isfinite(y) and (y > 0 or not logarithmic)]
    if not found:
        return f"<p>{escape(title)}: nothing was measured.</p>"
    x1 = max(max(x for x, _ in found), 1.0)
    highest, lowest = max(y for _, y in found), min(y for _, y in found)
    if logarithmic:
        low, high = 10 ** math.floor(math.log10(lowest)), 10 ** math.ceil(math.log10(highest * 1.0001))
        ticks = [10.0**power for power in range(round(math.log10(low)), round(math.log10(high)) + 1)]
    else:
        step = _step(highest / 4)
        low, high = 0.0, step * math.ceil(highest / step) or 1.0
        ticks = [step * place for place in range(round(high / step) + 1)]

    def at(x: float, y: float) -> tuple[float, float]:
        share = math.log(y / low) / math.log(high / low) if logarithmic else (y - low) / (high - low)
        return LEFT + (WIDTH - LEFT - RIGHT) * x / x1, TOP + (HEIGHT - TOP - BOTTOM) * (1 - share)

    parts = [f"<text x='{LEFT}' y='14' class='title'>{escape(title)}, {escape(unit)}</text>"]
    for tick in ticks:
        _, y = at(0, tick)
        parts.append(f"<path class='grid' d='M{LEFT} {y:.1f}H{WIDTH - RIGHT}'/>")
        parts.append(f"<text x='{LEFT - 6}' y='{y + 4:.1f}' text-anchor='end'>{tick:g}</text>")
    for tick in _seconds(x1):
        x, _ = at(tick, high)
        parts.append(f"<text x='{x:.1f}' y='{HEIGHT - BOTTOM + 16}' text-anchor='middle'>{tick:g} s</text>")
    for place, (name, points) in enumerate(lines.items()):
        style = f"stroke='{COLOURS[place % 5]}' stroke-dasharray='{DASHES[place % 5]}'"
        parts.append(f"<path class='line' {style} d='{_path(points, at, logarithmic)}'/>")
        x = LEFT + place * (WIDTH - LEFT - RIGHT) / max(len(lines), 4)
        parts.append(f"<path class='line' {style} d='M{x:.0f} {HEIGHT - 8}h22'/>")
        parts.append(f"<text x='{x + 27:.0f}' y='{HEIGHT - 4}'>{escape(name)}</text>")
    return (
        f"<svg viewBox='0 0 {WIDTH} {HEIGHT}' role='img' aria-label='{escape(title, quote=True)}'>"
        f"<title>{escape(title)}</title>{''.join(parts)}</svg>"
    )


def bar(title: str, shares: Mapping[str, float]) -> str:
    """Parts of a whole, side by side, each with its name and share."""
    total = sum(shares.values())
    if not total > 0:
        return f"<p>{escape(title)}: nothing was measured.</p>"
    parts, x = [], 0.0
    for place, (name, share) in enumerate(shares.items()):
        width = WIDTH * share / total
        parts.append(f"<rect x='{x:.1f}' y='4' width='{width:.1f}' height='26' fill='{COLOURS[place % 5]}'/>")
        parts.append(f"<rect x='0' y='{42 + 20 * place}' width='12' height='12' fill='{COLOURS[place % 5]}'/>")
        parts.append(f"<text x='18' y='{52 + 20 * place}'>{escape(name)}: {share:.2f} ms, {share / total:.0%}</text>")
        x += width
    height = 44 + 20 * len(shares)
    label = escape(title, quote=True)
    return f"<svg viewBox='0 0 {WIDTH} {height}' role='img' aria-label='{label}'>{''.join(parts)}</svg>"


def _path(points: Points, at: object, logarithmic: bool) -> str:
    assert callable(at)
    parts, pen = [], "M"
    for x, y in points:
        if not math.isfinite(y) or (logarithmic and y <= 0):
            pen = "M"
            continue
        left, top = at(x, y)
        parts.append(f"{pen}{left:.1f} {top:.1f}")
        pen = "L"
    return "".join(parts)


def _step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough)) if rough > 0 else 1.0
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)


def _seconds(last: float) -> list[float]:
    step = _step(last / 6)
    return [step * place for place in range(int(last / step) + 1)]
