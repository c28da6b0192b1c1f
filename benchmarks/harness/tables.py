"""Markdown of a report."""

from collections.abc import Sequence


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines) + "\n"


def bullets(items: Sequence[str]) -> str:
    return "".join(f"- {item}\n" for item in items)


def settings(names: dict[str, str], settings: dict[str, str]) -> str:
    """What each contender is and how it was set: one bullet each, in the order of ``names``."""
    return bullets([f"**{names[key]}**: {settings[key]}" for key in names if key in settings])


def skipped(names: dict[str, str], reasons: dict[str, str]) -> str:
    """Who could not be measured, and why."""
    if not reasons:
        return ""
    return "Not measured: " + "; ".join(f"{names.get(key, key)} ({why})" for key, why in reasons.items()) + ".\n"
