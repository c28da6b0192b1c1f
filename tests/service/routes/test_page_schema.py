"""The page over a table that nobody told it of: many fields, and names that are markup, long, or JavaScript's own."""

import csv
import io
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Locator, Page, Route, expect

from models.bundle.manifest import DataRecord
from models.bundle.write import write_bundle
from models.rows import Rows
from models.schema import schema_of
from tests.service.browser import chromium, page_service, watched
from tests.tiny import ORIGIN, make_contents
from training.data.table import Table

LEAVES = 'leaves <b>"now"</b> & <script>alert(1)</script>'
PLANS = ["<img src=x onerror=alert(1)>", 'a "quoted" plan', "plus & more", "premium"]
SCHEMA = schema_of({
    "name": "contracts", "row": "contract",
    "label": {"column": "ended_early", "classes": [{"value": "n", "name": "stays"}, {"value": "y", "name": LEAVES}]},
    "fields": [
        {"name": "plan", "type": "category", "levels": PLANS, "required": True, "meaning": "What was <i>ordered</i>."},
        # Names that JavaScript's objects and HTML's forms have for themselves.
        {"name": "constructor", "type": "number", "required": True, "minimum": -5, "maximum": 40.5, "unit": "years",
         "title": "Age of the <u>contract</u>", "bins": [-5, 0, 2.5, 40.5]},
        {"name": "length", "type": "integer", "minimum": 0, "unit": "months", "bins": [0, 12, 24, 60], "default": 12},
        {"name": "item", "type": "boolean", "levels": ["No", "Yes"]},
        {"name": "active", "type": "boolean", "required": True, "words": {"false": "idle", "true": "in use"}},
        {"name": "answer", "type": "category", "levels": ["constructor", "x" * 60], "column": "Answer, last"},
        {"name": "stars", "type": "category", "levels": [1, 2, 3], "words": {"1": "one star"}},
        {"name": "complaint", "type": "text", "meaning": "In the customer's words. " * 10},
        {"name": "note", "type": "text", "max_length": 30},
        *({"name": f"usage_month_{month}", "type": "number", "unit": "GB", "minimum": 0, "bins": [0, 1, 10, 100]}
          for month in range(1, 25)),
    ],
    "text": ["{plan}", "{constructor} years", "{length} months", "{active}", "{complaint}"],
})  # fmt: skip
ROWS = Rows(SCHEMA)
Visit = Callable[..., AbstractContextManager[Page]]


def contracts() -> Table:
    """60 rows that are made up; the long contracts are left."""
    rng = np.random.default_rng(0)
    made = [
        {"plan": str(rng.choice(PLANS)), "constructor": float(rng.uniform(-5, 40)), "active": bool(rng.random() < 0.5),
         "length": int(rng.integers(0, 60))}
        for _ in range(60)
    ]  # fmt: skip
    rows = ROWS.check(made)
    return Table(SCHEMA, tuple(rows), np.array([row.length > 30 for row in rows], np.int64), "0" * 64)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    table, folder = contracts(), tmp_path_factory.mktemp("contracts")
    counts = {name: int((table.labels == number).sum()) for number, name in enumerate(SCHEMA.classes)}
    origin = msgspec.structs.replace(ORIGIN, data=DataRecord(table.sha256, len(table), counts))
    write_bundle(folder / "bundle", make_contents(table, folder), origin)
    with page_service(folder / "bundle", folder) as url:
        yield url


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def visit(service: str, browser: Browser) -> Visit:
    """Opens the page at a section, with the form's first answer shown where it is the form's."""

    @contextmanager
    def opened(tab: str = "predict", refused: tuple[str, ...] = (), **settings: Any) -> Iterator[Page]:
        with watched(browser, set(refused), **settings) as page:
            page.on("dialog", lambda dialog: pytest.fail(f"a script ran: {dialog.message}"))
            page.goto(f"{service}/#{tab}")
            if tab == "predict":
                expect(page.locator("#answer")).to_be_visible()
            yield page

    return opened


def sent(page: Page, act: Callable[[], Any], **values: Any) -> dict[str, Any]:
    """The row that the page asks about after ``act``: the first with these values."""

    def wanted(request: Any) -> bool:
        return "/v1/predict?" in request.url and values.items() <= request.post_data_json.items()

    with page.expect_request(wanted) as waited:
        act()
    row: dict[str, Any] = waited.value.post_data_json
    return row


def shown(page: Page) -> Locator:
    return page.locator("#row-fields > .field:visible")


def test_each_field_has_the_control_of_its_type(visit: Visit) -> None:
    with visit() as page:
        expect(page.locator("#question")).to_have_text(f"Ended early: stays or {LEAVES}?")
        page.get_by_role("button", name="Show all 33 fields").click()
        for field in SCHEMA.fields:
            control = page.locator(f"#field-{field.name}")
            kind = control.evaluate("element => element.localName")
            label = field.title or field.name.replace("_", " ").capitalize()
            if field.name == "active":
                assert kind == "fieldset"
                expect(page.get_by_role("radiogroup", name=label)).to_be_visible()
                assert control.locator("label").all_inner_texts() == ["idle", "in use"]
                continue
            expect(page.locator("#row-fields").get_by_label(label).first).to_be_visible()
            if field.type in ("category", "boolean"):
                assert kind == "select"
            elif field.name == "complaint":
                assert kind == "textarea"
            else:
                assert kind == "input"
                assert control.get_attribute("inputmode") == {"number": "decimal", "integer": "numeric"}.get(field.type)
        options = {name: page.locator(f"#field-{name} option").all_inner_texts() for name in ("plan", "item", "stars")}
        labels = {name: page.locator(f"label[for=field-{name}]").inner_text() for name in ("constructor", "length")}
        assert page.locator("#field-note").get_attribute("maxlength") == "30"
        assert page.locator("#field-constructor").get_attribute("aria-required") == "true"
    assert options == {"plan": PLANS, "item": ["unknown", "No", "Yes"], "stars": ["unknown", "one star", "2", "3"]}
    assert labels["constructor"].split() == ["Age", "of", "the", "<u>contract</u>", "*", "−5", "to", "40.5", "years"]
    assert labels["length"].split() == ["Length", "≥", "0", "months"]


def test_what_is_chosen_is_sent_with_its_type(visit: Visit, service: str) -> None:
    with visit() as page:
        page.get_by_role("button", name="Clear the form").click()
        page.locator("#field-plan").select_option(PLANS[1])
        page.get_by_label("in use").check(force=True)
        page.locator("#field-item").select_option("Yes")
        page.locator("#field-stars").select_option("3")
        page.locator("#field-answer").select_option("constructor")
        page.locator("#field-complaint").fill("It <b>never</b> works.\nNever.")
        page.locator("#field-length").fill("24")
        row = sent(page, lambda: page.locator("#field-constructor").fill("-2,5"), constructor=-2.5)
        expected = {
            "plan": PLANS[1], "constructor": -2.5, "length": 24, "item": True, "active": True, "answer": "constructor",
            "stars": 3, "complaint": "It <b>never</b> works.\nNever.", "note": None,
        }  # fmt: skip
        assert row == {field.name: expected.get(field.name) for field in SCHEMA.fields}
        answer = httpx.post(f"{service}/v1/predict?trial=true", json=row, timeout=30).json()
        expect(page.locator("#percent")).to_have_text(str(round(100 * answer["probability"])))
        expect(page.locator("#percent-of")).to_have_text(LEAVES)
        percent = page.locator("#percent").inner_text()
        expect(page.locator("#verdict")).to_have_text(f"Of 100 such contracts: about {percent} {LEAVES}.")
        expect(page.locator("#verdict b")).to_have_text(LEAVES)
        expect(page.locator("#says")).to_contain_text("90 contracts in 100")
        label = re.compile(re.escape(f"Probability of “{LEAVES}”: {answer['probability']:.2f} on a scale"))
        expect(page.locator("#scale svg")).to_have_attribute("aria-label", label)
        expect(page.locator("#presets button")).to_have_attribute("aria-pressed", "false")


def test_without_examples_it_begins_with_a_row_from_the_middle(visit: Visit) -> None:
    with visit() as page:
        button = page.get_by_role("button", name="A made-up contract")
        expect(button).to_have_attribute("aria-pressed", "true")
        page.locator("#field-length").fill("1")
        expect(button).to_have_attribute("aria-pressed", "false")
        row = sent(page, button.click, length=12)
    typical = msgspec.to_builtins(ROWS.typical())
    # The page takes a field's default where it has one.
    assert row == typical | {"length": 12}


def test_of_many_fields_the_first_are_shown_and_all_are_found(visit: Visit) -> None:
    with visit(refused=("/v1/predict",)) as page:
        expect(shown(page)).to_have_count(20)
        expect(page.locator("#row-shown")).to_have_text("20 of 33 fields")
        expect(page.locator("#field-usage_month_24")).to_be_hidden()
        search = page.get_by_label("Find a field")
        search.fill("month 24")
        expect(shown(page)).to_have_count(1)
        page.locator("#field-usage_month_24").fill("much")
        expect(page.locator("#field-usage_month_24-note")).to_contain_text("Must be a number")
        search.fill("ordered")
        # One that has a fault stays until it is mended.
        expect(shown(page)).to_have_count(2)
        page.locator("#field-usage_month_24").fill("3")
        expect(page.locator("#answer-problem")).to_be_hidden()
        expect(shown(page)).to_have_count(1)
        search.fill("")
        expect(shown(page)).to_have_count(20)
        more = page.get_by_role("button", name="Show all 33 fields")
        more.click()
        expect(shown(page)).to_have_count(33)
        expect(page.get_by_role("button", name="Show fewer fields")).to_have_attribute("aria-expanded", "true")


def test_a_wrong_or_missing_value_is_told_at_its_field(visit: Visit) -> None:
    with visit(refused=("/v1/predict",)) as page:
        page.locator("#field-constructor").fill("")
        page.locator("#field-length").fill("-1")
        expect(page.locator("#field-constructor-note")).to_contain_text("Must be a number from -5 to 40.5")
        expect(page.locator("#field-length-note")).to_contain_text("Must be a whole number of at least 0")
        expect(page.get_by_role("alert")).to_contain_text("correct: Age of the <u>contract</u>, Length.")
        page.locator("#field-constructor").fill("40")
        page.locator("#field-length").fill("2")
        expect(page.locator("#answer-problem")).to_be_hidden()


def test_contributions_name_the_fields_and_their_class(visit: Visit) -> None:
    fields = [
        {"field": field.name, "value": 1, "contribution": 2 - 0.1 * number, "standard_error": 0.05}
        for number, field in enumerate(SCHEMA.fields)
    ]
    answered = {"method": "shapley", "positive": LEAVES, "fields": fields}
    with visit(refused=("/v1/explain",)) as page:
        page.route("**/v1/explain*", lambda route: route.fulfill(json=answered))
        page.locator("#field-length").fill("3")
        rows = page.locator("#contributions-rows [role=listitem]")
        expect(rows.nth(1)).to_have_text("Age of the <u>contract</u>+1.90 ± 0.05")
        expect(page.locator("#contributions-about")).to_contain_text(f"to the right for “{LEAVES}”")
        assert rows.count() == 33
        expect(rows.nth(32)).to_be_hidden()
        page.get_by_text("21 more fields").click()
        expect(rows.nth(32)).to_be_visible()


def test_with_more_than_two_classes_each_has_a_bar(visit: Visit) -> None:
    names = ["stays", LEAVES, "__proto__"]

    def described(route: Route) -> None:
        model = route.fetch().json()
        model["schema"]["label"]["classes"] = [{"value": name, "name": name} for name in names]
        model["schema"]["question"] = ""
        model["manifest"]["origin"]["data"]["classes"] = dict.fromkeys(names, 20)
        route.fulfill(json=model)

    def predicted(route: Route) -> None:
        answer = route.fetch().json()
        shares = dict(zip(names, (0.2, 0.7, 0.1), strict=True))
        confidence = answer["confidence"] | {
            "prediction_set": names, "intervals": {name: [p - 0.1, p + 0.1] for name, p in shares.items()},
            "calibration": [{"step": "model", "probabilities": shares}],
        }  # fmt: skip
        del answer["probability"], confidence["interval"]
        route.fulfill(json=answer | {"outcome": LEAVES, "probabilities": shares, "confidence": confidence})

    with visit("file") as page:
        page.route("**/v1/model", described)
        page.route("**/v1/predict?*", predicted)
        page.reload()
        page.get_by_role("tab", name="Predict").click()
        expect(page.locator("#classes li")).to_have_text(
            [f"{name}, in the prediction set{p} %, interval 0.{low}0–0.{low + 2}0"
             for name, p, low in ((LEAVES, 70, 6), ("stays", 20, 1), ("__proto__", 10, 0))]
        )  # fmt: skip
        expect(page.locator("#percent")).to_have_text("70")
        expect(page.locator("#scale")).to_be_hidden()
        expect(page.locator("#says")).to_contain_text("none of these can be ruled out")


def test_a_file_is_read_by_the_fields_columns_and_types(visit: Visit, service: str) -> None:
    lines = [
        'id;ANSWER, LAST;constructor;plan;active;item;stars;complaint;usage_month_3',
        f'1;constructor;2,5;{PLANS[3]};true;yes;3.0;"{LEAVES.replace(chr(34), 2 * chr(34))}";1e1',
        '2;NA;-1;PLUS & MORE;0;n/a;;NA;', '3;;;premium;1;;;;', '4;;99;nothing;maybe;;9;;',
    ]  # fmt: skip
    with visit("file", refused=("/v1/predict/batch",)) as page:
        expect(page.locator("#file-needs")).to_contain_text("Needed: plan, constructor and active.")
        expect(page.locator("#file-needs")).to_contain_text("Answer, last")
        with page.expect_request("**/v1/predict/batch") as waited:
            content = {"name": "in.csv", "mimeType": "text/csv", "buffer": "\n".join(lines).encode()}
            page.set_input_files("#file", content)  # type: ignore[arg-type]
        expect(page.locator("#file-state")).to_contain_text("2 rows scored. 2 could not")
        expect(page.locator("#file-summary")).to_contain_text(f"of 100 contracts are expected to be “{LEAVES}”")
        with page.expect_download() as download:
            page.get_by_role("link", name="Download").click()
        text = Path(download.value.path()).read_bytes().decode("utf-8-sig")
    rows = waited.value.post_data_json["rows"]
    assert rows[0] == {
        "plan": "premium", "constructor": 2.5, "active": True, "item": True, "stars": 3, "answer": "constructor",
        "complaint": LEAVES, "usage_month_3": 10,
    }  # fmt: skip
    assert rows[1] == {"plan": "plus & more", "constructor": -1, "active": False, "complaint": "NA"}
    scored = list(csv.DictReader(io.StringIO(text, newline="")))
    answers = httpx.post(f"{service}/v1/predict/batch", json={"rows": rows[:2]}, timeout=30).json()["predictions"]
    for row, answer in zip(scored, answers, strict=False):
        assert row["outcome"] == answer["outcome"]
        assert float(row["probability"]) == pytest.approx(answer["probability"])
    assert "constructor: is required" in scored[2]["error"]
    assert all(name in scored[3]["error"] for name in ("plan", "constructor", "active", "stars"))


def test_a_file_whose_columns_do_not_fit_is_refused(visit: Visit) -> None:
    with visit("file") as page:
        for heading, message in (
            ("plan,constructor", "The column active is missing. The first line has: plan, constructor."),
            ("note", "The columns plan, constructor and active are missing"),
            ("plan,constructor,active,PLAN", "The column plan is there 2 times."),
            ("plan|constructor|active|outcome", "has a column outcome already"),
        ):
            content = {"name": "in.csv", "mimeType": "text/csv", "buffer": f"{heading}\n".encode()}
            page.set_input_files("#file", content)  # type: ignore[arg-type]
            expect(page.locator("#file-problem")).to_contain_text(message)


def test_drift_and_the_card_say_the_tables_words(visit: Visit, service: str) -> None:
    rows = [msgspec.to_builtins(row) for row in contracts().rows] * 2
    httpx.post(f"{service}/v1/predict/batch", json={"rows": rows}, timeout=60).raise_for_status()
    with visit("drift") as page:
        inputs = page.locator("#inputs section")
        expect(page.locator("#served")).not_to_be_empty()
        expect(inputs).to_have_count(len(SCHEMA.fields))
        expect(inputs.nth(0)).to_contain_text(PLANS[0])
        expect(inputs.nth(1).locator("h4")).to_have_text("Age of the <u>contract</u>")
        expect(inputs.nth(1)).to_contain_text("−5 to 0")
        expect(inputs.nth(4)).to_contain_text("in use")
        expect(page.locator("#causes")).to_contain_text("The mix of contracts")
        expect(page.locator("#estimates")).to_contain_text(f"Expected share of “{LEAVES}”")
        expect(page.locator("#distribution")).to_contain_text("probability of “leaves")
        page.get_by_role("tab", name="Model").click()
        counts = np.bincount(contracts().labels)
        expect(page.locator("#model-body")).to_contain_text(f"60 contracts: {counts[0]} stays")
        expect(page.locator("#about")).to_contain_text("60 contracts")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nobody_is_kept_out(visit: Visit, scheme: str) -> None:
    with visit(refused=("/v1/predict",), color_scheme=scheme) as page:
        page.locator("#row-all").click()
        page.locator("#field-length").fill("-1")
        expect(page.locator("#field-length-note")).not_to_be_empty()
        for tab in ("predict", "drift", "model", "file"):
            page.get_by_role("tab", name=tab.capitalize()).click()
            page.locator(f"#panel-{tab} h2").wait_for()
            # An answer to what was there before is dimmed.
            found = Axe().run(page, context={"exclude": ["#answer.stale"]}).response["violations"]
            serious = [one for one in found if one["impact"] in ("serious", "critical")]
            assert [(tab, one["id"], one["nodes"][0]["html"][:200]) for one in serious] == []


def test_a_phone_never_scrolls_sideways(visit: Visit) -> None:
    with visit() as page:
        page.locator("#row-all").click()
        for width in (360, 700, 900):
            page.set_viewport_size({"width": width, "height": 740})
            for tab in ("predict", "drift", "model", "file"):
                page.get_by_role("tab", name=tab.capitalize()).click()
                page.wait_for_timeout(150)
                assert page.evaluate("document.documentElement.scrollWidth") <= width, tab
