"""Every notebook of examples/ runs; what it holds is what it shows, and nothing of a machine or a time."""

import ast
import base64
import os
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from nbformat import NotebookNode

from tests.conftest import ROOT
from tests.notebooks import NOTEBOOKS, read, run

MAX_IMAGE_BYTES = 60_000
"""Of a notebook: a clone has all of them."""

OF_A_MACHINE = re.compile(
    r"(?<![\w.])/(home|root|tmp|work|Users|usr|var|private|opt|mnt|srv)/|[A-Z]:\\|site-packages|\bat 0x[0-9a-f]+"
    r"|\d{4}-\d\d-\d\d[T ]\d\d:|\d\d:\d\d:\d\d|Warning|Traceback"
)
"""Paths, addresses, times, warnings and errors."""

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def shown(notebook: NotebookNode) -> list[list[str]]:
    """What kinds of output each code cell has; what goes to stderr depends on the machine."""
    return [[kind for output in cell.outputs if (kind := kind_of(output)) != "stderr"] for cell in code_cells(notebook)]


def kind_of(output: NotebookNode) -> str:
    return str(output.name) if output.output_type == "stream" else " ".join(sorted(output.get("data", ["error"])))


def texts(notebook: NotebookNode) -> Iterator[str]:
    """All that its outputs say."""
    for cell in code_cells(notebook):
        for output in cell.outputs:
            yield from (
                [output.text]
                if output.output_type == "stream"
                else (content for kind, content in output.get("data", {}).items() if kind.startswith("text/"))
            )


@pytest.mark.slow
@each_notebook
def test_it_runs_in_a_new_kernel_and_shows_what_it_holds(path: Path, bundle_folder: Path, tmp_path: Path) -> None:
    notebook = read(path)
    held = shown(notebook)
    variables = {"EVENKEEL_BUNDLE": str(bundle_folder), "OWN_TABLE_FOLDER": str(tmp_path), "OWN_TABLE_STEPS": "20"}
    run(notebook, path.parent, {**os.environ, **variables})
    assert shown(notebook) == held
    assert "image/png text/plain" in {kind for kinds in held for kind in kinds}


@each_notebook
def test_it_was_run_from_top_to_bottom(path: Path) -> None:
    cells = code_cells(read(path))
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert all(output.output_type != "error" for cell in cells for output in cell.outputs)
    prints = [cell for cell in cells if re.search(r"^(print\(|run\(|plt\.show)", cell.source, re.MULTILINE)]
    assert prints
    assert all(cell.outputs for cell in prints)


@each_notebook
def test_what_it_holds_is_of_no_machine_and_no_time(path: Path) -> None:
    notebook = read(path)
    assert "stderr" not in {output.get("name") for cell in code_cells(notebook) for output in cell.outputs}
    assert not [text for text in texts(notebook) if OF_A_MACHINE.search(text) or str(ROOT) in text]
    assert notebook.metadata.language_info == {"name": "python"}
    assert not [cell.metadata for cell in notebook.cells if cell.metadata]


@each_notebook
def test_its_images_are_small(path: Path) -> None:
    images = [
        base64.b64decode(output.data["image/png"])
        for cell in code_cells(read(path))
        for output in cell.outputs
        if "image/png" in output.get("data", {})
    ]
    assert 0 < sum(map(len, images)) <= MAX_IMAGE_BYTES


@each_notebook
def test_a_text_stands_before_each_cell_and_its_links_resolve(path: Path) -> None:
    notebook = read(path)
    kinds = [cell.cell_type for cell in notebook.cells]
    assert all(before == "markdown" for before, kind in pairwise(kinds) if kind == "code")
    prose = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    links = re.findall(r"\]\(([^)\s#]+)", prose)
    assert links
    assert not [link for link in links if not (path.parent / link).is_file()]


def test_calibration_was_run_with_torch() -> None:
    (path,) = (path for path in NOTEBOOKS if path.stem == "calibration")
    assert any("uncalibrated_probability" in text for text in texts(read(path)))


def test_the_delays_beside_those_of_the_notebook_are_the_page_s() -> None:
    (path,) = (path for path in NOTEBOOKS if path.stem == "drift")
    page = (ROOT / "docs" / "drift.md").read_text()
    whole = "\n".join(cell.source for cell in read(path).cells)
    (copied,) = re.findall(r"^PAGE = (.*)$", whole, re.MULTILINE)
    for change, delay in ast.literal_eval(copied).items():
        assert re.search(rf"^\| {re.escape(change)} \|.*\| {delay} \(\d+\) \|$", page, re.MULTILINE)
    for band in ("0.02", "0.05"):
        (outcomes,) = re.findall(rf"^\| ±{band} \|.*\| (\d+) \(\d+\) \|$", page, re.MULTILINE)
        assert f"{int(outcomes):,} at" in whole or f"{int(outcomes):,} outcomes" in whole
