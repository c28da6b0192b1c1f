"""What the commands of training may write over, and what they refuse before they begin."""

from pathlib import Path

import pytest

from models.bundle.manifest import BundleError
from models.bundle.read import Bundle
from models.bundle.write import write_bundle
from tests.tiny import ORIGIN, Contents
from tests.training.commands import few_rows, run_here


@pytest.mark.parametrize(
    "command",
    [
        ("fit", "--out", "FOLDER"),
        ("evaluate", "--bundle", "BUNDLE", "--json", "DATA"),
        ("evaluate", "--bundle", "BUNDLE", "--report", "DATA"),
        ("evaluate", "--bundle", "BUNDLE", "--plots", "BUNDLE"),
        ("promote", "BUNDLE", "--over", "BUNDLE", "--out", "DATA"),
        ("compare-losses", "--json", "DATA"),
        ("compare-losses", "--work", "FOLDER"),
    ],
)
def test_no_command_writes_over_what_it_reads(tiny_bundle: Bundle, tmp_path: Path, command: tuple[str, ...]) -> None:
    data = few_rows(tmp_path / "rows.csv")
    before = data.read_bytes()
    places = {"DATA": data, "FOLDER": tmp_path, "BUNDLE": tiny_bundle.folder}
    done = run_here(*(places.get(word, word) for word in command), "--data", data)
    assert done.returncode == 1
    assert "would overwrite" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert data.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["rows.csv"]


def test_a_folder_of_something_else_is_not_replaced_by_a_bundle(tiny_contents: Contents, tmp_path: Path) -> None:
    data, other = few_rows(tmp_path / "rows.csv"), tmp_path / "thesis"
    other.mkdir()
    (other / "chapter1.tex").write_text("years of work")
    done = run_here("fit", "--data", data, "--out", other)
    assert done.returncode == 1
    assert "is a folder of something else than a bundle" in done.stderr
    with pytest.raises(BundleError, match="something else"):
        write_bundle(other, tiny_contents, ORIGIN)
    with pytest.raises(BundleError, match="is no folder"):
        write_bundle(data, tiny_contents, ORIGIN)
    assert (other / "chapter1.tex").read_text() == "years of work"
    assert {one.name for one in tmp_path.iterdir()} == {"rows.csv", "thesis"}


def test_a_bundle_goes_where_a_link_points_and_the_link_stays(tiny_contents: Contents, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "current").symlink_to("empty")
    for _ in range(2):
        bundle = write_bundle(tmp_path / "current", tiny_contents, ORIGIN)
        assert (tmp_path / "current").is_symlink()
        assert (tmp_path / "empty" / "manifest.json").is_file()
    assert bundle.folder.samefile(tmp_path / "empty")
    assert {one.name for one in tmp_path.iterdir()} == {"empty", "current"}
