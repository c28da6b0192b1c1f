"""docs/architecture.md names files that exist, and the way that it draws is that of a request."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "architecture.md").read_text()
FILES = sorted(set(re.findall(r"\b(?:models|training|service|loadtest|benchmarks|deploy)(?:/\w+)*/\w+\.py\b", PAGE)))


@pytest.mark.parametrize("name", FILES)
def test_every_file_that_the_page_names_exists(name: str) -> None:
    assert (ROOT / name).is_file()


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`((?:models|training|service|loadtest)/(?:\w+/)*)`", PAGE))))
def test_every_folder_that_the_page_names_exists(name: str) -> None:
    assert (ROOT / name).is_dir()


def test_the_way_of_a_request_has_its_stations() -> None:
    way = PAGE.partition("## The way of a request")[2].partition("##")[0]
    assert len(re.findall(r"^ \w+ +\S+\.py ", way, re.MULTILINE)) >= 14
