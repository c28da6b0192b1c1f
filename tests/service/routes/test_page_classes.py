"""The page of a table of three classes in a real browser: what the service answers, class by class."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from models.bundle.read import Bundle
from tests import penguins
from tests.service.browser import chromium, page_service, watched
from tests.service.scoring.test_classes import ADDED

ROW = penguins.SCHEMA.examples[0].row


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def service(penguins_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with page_service(penguins_bundle.folder, tmp_path_factory.mktemp("page")) as url:
        yield url


@pytest.fixture
def page(browser: Browser, service: str) -> Iterator[Page]:
    with watched(browser, set()) as page:
        page.goto(service)
        expect(page.locator("#answer")).to_be_visible()
        yield page


def answer(service: str) -> Any:
    return httpx.post(f"{service}/v1/predict?trial=true", json=ROW).json()


def test_each_class_has_a_bar_and_a_row_of_steps(page: Page, service: str) -> None:
    found = answer(service)
    order = sorted(penguins.SPECIES, key=lambda name: -found["probabilities"][name])
    bars = page.locator("#classes > li")
    expect(bars).to_have_count(3)
    assert [bars.nth(at).locator("span").first.inner_text().split(",")[0].strip() for at in range(3)] == order
    outside = set(penguins.SPECIES) - set(found["confidence"]["prediction_set"])
    expect(page.locator("#classes > li.outside")).to_have_count(len(outside))
    expect(page.locator("#classes .range")).to_have_count(3)
    expect(page.locator("#percent-of")).to_have_text(found["outcome"])
    expect(page.locator("#scale")).to_be_hidden()
    page.click("#steps summary")
    rows = page.locator("#steps tbody tr")
    expect(rows).to_have_count(3)
    steps = [step["probabilities"][order[0]] for step in found["confidence"]["calibration"]]
    cells = [rows.first.locator("td").nth(at).inner_text() for at in range(len(steps))]
    assert cells == [f"{p:.2f}" for p in steps]


def test_any_class_can_be_explained(page: Page, service: str) -> None:
    about = page.locator("#contributions-about")
    expect(about).to_contain_text(f"to the right for “{answer(service)['outcome']}”")
    for name in penguins.SPECIES:
        page.select_option("#explained", name)
        expect(about).to_contain_text(f"to the right for “{name}”")


def test_a_file_has_columns_for_each_class(page: Page) -> None:
    page.click("#tab-file")
    text = "island,bill_length_mm,flipper_length_mm,sex\nDream,49.5,197,male\nBiscoe,,,\n"
    page.set_input_files("#file", {"name": "in.csv", "mimeType": "text/csv", "buffer": text.encode()})
    with page.expect_download() as waited:
        page.click("#file-download")
    rows = list(csv.DictReader(io.StringIO(Path(waited.value.path()).read_text("utf-8-sig"))))
    assert tuple(rows[0])[4:-1] == ADDED
    for row in rows:
        p = {name: float(row[f"probability_{name}"]) for name in penguins.SPECIES}
        assert sum(p.values()) == pytest.approx(1)
        assert row["outcome"] == max(p, key=p.__getitem__)


def test_the_drift_tab_is_by_class(page: Page, service: str) -> None:
    made = penguins.table(150, seed=8)
    rows = [{name: getattr(row, name) for name in penguins.SCHEMA.by_name} for row in made.rows]
    answers = httpx.post(f"{service}/v1/predict/batch", json={"rows": rows}, timeout=60).json()["predictions"]
    sent = [
        {"id": one["id"], "outcome": penguins.SPECIES[label]} for one, label in zip(answers, made.labels, strict=True)
    ]
    httpx.post(f"{service}/v1/outcomes", json={"outcomes": sent}, timeout=60).raise_for_status()
    page.click("#tab-drift")
    expect(page.locator("#distribution-classes li")).to_have_count(3)
    expect(page.locator("#distribution")).to_be_hidden()
    for name in penguins.SPECIES:
        page.select_option("#outcome-class", name)
        expect(page.locator("#outcome-about")).to_contain_text(f"The share of “{name}”")
    page.click("#confusion summary")
    right = [
        sum(one["outcome"] == sent[at]["outcome"] == name for at, one in enumerate(answers))
        for name in penguins.SPECIES
    ]
    cells = page.locator("#confusion-table tbody tr")
    expect(cells).to_have_count(3)
    assert [int(cells.nth(at).locator("td").nth(at).inner_text()) for at in range(3)] == right
    # Shares, twice of each class, and the share of right answers.
    expect(page.locator("#estimates > div")).to_have_count(7)
