"""docs/benchmarks.md from the raw results that the benchmarks keep; nothing in it is written by hand.

./run bench report
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

from benchmarks import offline, outcomes, precision, request_cost, resilience, serving, startup, training_step
from benchmarks.harness.command import Result, kept, parse
from benchmarks.harness.machine import ROOT, SLOWING
from benchmarks.harness.spread import number
from benchmarks.harness.tables import bullets, table

SECTIONS = {
    "offline": ("The forward pass", offline),
    "precision": ("The weights in fewer bits", precision),
    "serving": ("Served over HTTP", serving),
    "request_cost": ("A request beside the forward pass", request_cost),
    "outcomes": ("Outcomes and the prediction log", outcomes),
    "training_step": ("A step of training", training_step),
    "startup": ("Start, memory, files", startup),
    "resilience": ("Overload, idle and slow connections, endurance", resilience),
}
HEAD = """\
# Benchmarks

"""
HOW = """\
`./run bench` measured all of it and wrote this page. `./run bench NAME` measures one section again, `./run bench
report` writes the page again.

The contenders of a table ran side by side on one machine, with the same weights and the same texts. Each has its own
process, which is stopped while another is measured. Every round measures all of them in random order. `a [b–c]` is the
median of the rounds and their quartiles. Ratios are taken within each round, so that a slow moment of the machine slows
both. On a shared machine absolute figures vary; ratios hardly do.
"""
ANSWERS = [
    ("offline", "the forward pass, one row at a time", lambda result, name: offline.ratio_to(result, name, 1)),
    ("offline", "the forward pass, batches of 32", lambda result, name: offline.ratio_to(result, name, 32)),
    ("serving", "over HTTP, one client", lambda result, name: serving.ratio_to(result, name, 1)),
    ("serving", "over HTTP, 32 clients", lambda result, name: serving.ratio_to(result, name, 32)),
]
SLOWED = (
    f"{' and '.join(SLOWING)} are taken from the environment of every process: where they are set they make OpenBLAS "
    "use another processor's kernels"
)
MAY_DIFFER = ("measured", "load_average")


def write(quick: bool) -> Path:
    """Write the report from the kept results; those of --quick go beside their raw results, not into docs/."""
    found = {name: json.loads(path.read_text()) for name in SECTIONS if (path := kept(name, quick)).exists()}
    path = kept("report", quick).with_suffix(".md") if quick else ROOT / "docs" / "benchmarks.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page(found))
    return path


def page(found: dict[str, Result]) -> str:
    """The whole report."""
    parts = [
        HEAD,
        _answer(found),
        HOW,
        "## The machine\n",
        _machines({name: result["machine"] for name, result in found.items()}),
    ]
    for name, (title, module) in SECTIONS.items():
        parts.append(f"## {title}\n")
        if name not in found:
            parts.append(f"Not measured yet: `./run bench {name}`.\n")
            continue
        bundle, machine = found[name]["bundle"], found[name]["machine"]
        parts.append(
            f"Bundle {bundle['name']} {bundle['version']}, {machine['measured']}, load average before it "
            f"{machine['load_average']}.\n"
        )
        parts.append(module.report(found[name]))
    text = "\n".join(part.strip("\n") + "\n" for part in parts)
    return re.sub(r"\n{3,}", "\n\n", text)


def _answer(found: dict[str, Result]) -> str:
    """How many times as fast Evenkeel is as each of the others: the medians of the sections below."""
    lines = []
    for section, what, ratio_to in ANSWERS:
        if section in found:
            result, module = found[section], SECTIONS[section][1]
            ratios = {module.NAMES[name]: ratio_to(result, name) for name in module.others(result)}
            each = ", ".join(f"{name} {number(ratio.median)}" for name, ratio in ratios.items() if ratio)
            lines.append(f"{what[0].upper()}{what[1:]}: {each}.")
    return "Evenkeel's speed ÷ the other's; above 1, Evenkeel is faster.\n\n" + bullets(lines) if lines else ""


def _machines(machines: dict[str, dict[str, Any]]) -> str:
    """The machine of the first section, and which sections were measured on another or with other versions."""
    if not machines:
        return "Nothing is measured yet.\n"
    first, *others = machines
    lines = [_machine(machines[first]), table(["environment", "versions"], _versions(machines[first]))]
    for name in others:
        changed = [key for key in machines[first] if machines[name].get(key) != machines[first][key]]
        if changed := [key for key in changed if key not in MAY_DIFFER]:
            lines.append(f"{SECTIONS[name][0]}: measured with another {', '.join(changed)}.\n")
    return "\n".join(lines)


def _machine(machine: dict[str, Any]) -> str:
    return bullets(
        [
            f"{machine['processor']} ({machine['family']}), {machine['cores']} cores, {machine['memory_gib']} GiB",
            f"AVX-512: {', '.join(machine['avx512']) or 'none'}",
            f"{machine['distribution']}, {machine['system']}, Python {machine['python']}",
            SLOWED,
        ]
    )


def _versions(machine: dict[str, Any]) -> list[list[str]]:
    return [
        [name, _listed(versions) if versions else "not installed"] for name, versions in machine["versions"].items()
    ]


def _listed(versions: dict[str, str | None]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items() if version)


if __name__ == "__main__":
    options = parse(__doc__)
    print(f"bench: {write(options.quick).relative_to(ROOT)} is written", file=sys.stderr)
