"""The page: its files, and all four of its sections in a real Chromium against a real service."""

import csv
import io
import json
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from msgspec.structs import asdict
from playwright.sync_api import Browser, Page, Response, Route, expect

from service.routes.page import FOLDER
from tests.service.browser import chromium, page_service, watched
from tests.service.test_app import problem
from tests.titanic import ROWS, SCHEMA
from training.data.table import Table

TABS = ("predict", "drift", "model", "file")
MAX_TRANSFER_BYTES = 300_000
THIRD_CLASS_MEN = {"rows": [{"pclass": 3, "sex": "male", "age": 22}] * 100}
Open = Callable[..., AbstractContextManager[Page]]


@pytest.fixture(scope="module")
def service(bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with page_service(bundle_folder, tmp_path_factory.mktemp("service")) as url:
        yield url


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def visit(service: str, browser: Browser) -> Callable[..., AbstractContextManager[Page]]:
    """Opens the page at a section; ``refused`` are parts of addresses that the test has answered with a refusal."""

    @contextmanager
    def opened(tab: str = "predict", refused: tuple[str, ...] = (), **settings: Any) -> Iterator[Page]:
        with watched(browser, set(refused), **settings) as page:
            page.goto(f"{service}/#{tab}")
            yield page

    return opened


def answer_of(page: Page, act: Callable[[], Any], **sent: Any) -> dict[str, Any]:
    """What the service answered to the form after ``act``: to the first request with the values ``sent``, as one with
    those before may still be under way."""

    def wanted(response: Response) -> bool:
        if "/v1/predict?" not in response.url:
            return False
        row = response.request.post_data_json
        return all(row[field] == value for field, value in sent.items())

    with page.expect_response(wanted) as waited:
        act()
    found: dict[str, Any] = waited.value.json()
    return found


# The files


def test_the_files_have_their_types_and_let_nothing_else_in(service: str) -> None:
    types = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
    page = httpx.get(service)
    files = [path for path in FOLDER.rglob("*") if path.is_file()]
    for path in files:
        name = path.relative_to(FOLDER)
        found = page if path.name == "index.html" else httpx.get(f"{service}/page/{name}")
        assert found.status_code == 200
        assert found.content == path.read_bytes()
        assert found.headers["Content-Type"].split(";")[0] == types[path.suffix]
        assert found.headers["X-Content-Type-Options"] == "nosniff"
        assert found.headers["Referrer-Policy"] == "no-referrer"
        policy = found.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self';" in policy
        assert "unsafe" not in policy
        assert "http" not in policy
        again = httpx.get(found.url, headers={"If-None-Match": found.headers["ETag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["ETag"].removeprefix("W/") == found.headers["ETag"].removeprefix("W/")
    # Nothing inline, and nothing from elsewhere.
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", page.text)
    for text in (path.read_text() for path in files):
        assert set(re.findall(r"https?://[^\s\"')]+", text)) <= {"http://www.w3.org/2000/svg"}


@pytest.mark.parametrize(
    "name",
    ["none.js", "..%2fpage.py", "%2e%2e/settings.py", "../page.py", ".", "%00", "a%2fb", "file", "file/none.js",
     "drift/..%2fapi.js"],
)  # fmt: skip
def test_only_the_files_of_the_page_are_served(service: str, name: str) -> None:
    host, port = service.removeprefix("http://").split(":")
    # Not by httpx, which would mend the path.
    with closing(HTTPConnection(host, int(port), timeout=10)) as connection:
        connection.request("GET", f"/page/{name}")
        response = connection.getresponse()
        response.read()
    assert (response.status, response.headers["Content-Type"]) == (404, "application/problem+json")


def test_it_is_no_part_of_the_api_but_its_events_are(service: str) -> None:
    paths = httpx.get(f"{service}/schema/openapi.json").json()["paths"]
    assert not [one for one in paths if one == "/" or one.startswith("/page")]
    assert "text/event-stream" in paths["/v1/drift/events"]["get"]["responses"]["200"]["content"]
    problem(httpx.post(service), 405)


# Predict


def test_the_form_is_that_of_the_schema(visit: Open) -> None:
    with visit() as page:
        expect(page.locator("#question")).to_have_text(SCHEMA.question)
        expect(page.locator("#row-fields > .field")).to_have_count(len(SCHEMA.fields))
        for field in SCHEMA.fields:
            control = page.locator(f"#field-{field.name}")
            label = field.title or field.name.capitalize()
            expect(page.get_by_label(label).or_(page.get_by_role("radiogroup", name=label)).first).to_be_visible()
            expect(page.locator(f"#field-{field.name}-about")).to_have_text(field.meaning)
            assert control.get_attribute("maxlength") == (str(field.max_length) if field.max_length else None)
            if field.minimum is not None:
                text = page.locator(f"label[for=field-{field.name}]").inner_text()
                assert f"{field.minimum:g}–{field.maximum:g}" in text
                assert field.unit in text
        words = page.locator("#field-embarked option").all_inner_texts()
        assert words == ["unknown", "Southampton", "Cherbourg", "Queenstown"]
        assert page.locator("#field-pclass label").all_inner_texts() == ["first class", "second class", "third class"]


def test_each_example_fills_the_form_and_is_true(visit: Open, service: str, table: Table) -> None:
    known = {row.name: (asdict(row), table.schema.classes[y]) for row, y in zip(table.rows, table.labels, strict=True)}
    examples = httpx.get(f"{service}/v1/model").json()["schema"]["examples"]
    assert len(examples) == len(SCHEMA.examples)
    with visit() as page:
        assert page.locator("#presets button").all_inner_texts() == [one["label"] for one in examples]
        for one in examples:
            (row,) = ROWS.check([one["row"]])
            assert one.get("seen", False) == (row.name in known)
            if row.name in known:
                assert known[row.name] == (asdict(row), one["outcome"])
            button = page.get_by_role("button", name=one["label"])
            answer_of(page, button.click, **{name: getattr(row, name) for name in ("name", "pclass", "cabin", "age")})
            expect(button).to_have_attribute("aria-pressed", "true")
            expect(page.locator("#truth")).to_contain_text(f"In truth: {one['outcome']}. {one['story']}")
            expect(page.locator("#truth")).to_contain_text("One of" if one.get("seen") else "Not among")


def test_what_is_typed_is_answered_as_the_api_answers(visit: Open, service: str) -> None:
    passenger = {
        "pclass": 3, "sex": "male", "name": "Braund, Mr. Owen Harris", "age": 22, "sibsp": 1, "parch": 0,
        "fare": 7.25, "ticket": "A/5 21171", "cabin": None, "embarked": "S",
    }  # fmt: skip
    expected = httpx.post(f"{service}/v1/predict", json=passenger, timeout=30).json()
    with visit() as page:
        expect(page.locator("#truth")).to_contain_text("In truth: survived")
        page.get_by_role("radio", name="third class").check(force=True)
        page.get_by_role("radio", name="male", exact=True).check(force=True)
        for field in ("name", "age", "sibsp", "parch", "ticket", "cabin"):
            page.locator(f"#field-{field}").fill("" if passenger[field] is None else str(passenger[field]))
        page.locator("#field-embarked").select_option("Southampton")
        found = answer_of(page, lambda: page.locator("#field-fare").fill("7,25"), fare=7.25)
        assert {**found, "id": ""} == {**expected, "id": ""}
        p = expected["probability"]
        expect(page.locator("#percent")).to_have_text(str(round(100 * p)))
        expect(page.locator("#verdict")).to_contain_text(f"about {round(100 * p)} survived")
        expect(page.locator("#scale svg .strong")).to_have_text(f"{p:.2f}")
        scale = page.locator("#scale svg")
        expect(scale).to_have_attribute("aria-label", re.compile(f"{p:.2f} on a scale from 0 to 1"))
        width = float(scale.get_attribute("width") or 0)
        assert float(scale.locator(".needle").get_attribute("x1") or 0) == pytest.approx(p * width)
        low, high = expected["confidence"]["interval"]
        band = scale.locator(".band")
        assert float(band.get_attribute("x") or 0) == pytest.approx(low * width)
        assert float(band.get_attribute("width") or 0) == pytest.approx(max(2, (high - low) * width))
        steps = [f"{one['probability']:.2f}" for one in expected["confidence"]["calibration"]]
        assert [text.split()[-1] for text in scale.locator(".halo").all_text_contents()] == steps
        expect(page.locator("#truth")).to_be_hidden()
        assert page.get_by_role("button", pressed=True).count() == 0
        expect(page.locator("#spoken")).to_contain_text(f"{round(100 * p)} percent")


def test_a_famous_passenger_by_keyboard_alone(visit: Open) -> None:
    with visit() as page:
        expect(page.locator("#answer")).to_be_visible()
        page.keyboard.press("Tab")
        expect(page.get_by_role("tab", name="Predict")).to_be_focused()
        for name in ("Drift", "Model", "File", "Predict", "File"):
            page.keyboard.press("ArrowLeft" if name == "File" and page.url.endswith("#predict") else "ArrowRight")
            tab = page.get_by_role("tab", name=name)
            expect(tab).to_be_focused()
            expect(tab).to_have_attribute("aria-selected", "true")
            expect(page.get_by_role("tabpanel")).to_have_attribute("aria-labelledby", f"tab-{name.lower()}")
            assert page.url.endswith(f"#{name.lower()}")
        page.keyboard.press("Home")
        page.keyboard.press("Tab")
        page.keyboard.press("Tab")
        page.keyboard.press("Tab")
        expect(page.get_by_role("button", name="John Jacob Astor")).to_be_focused()
        found = answer_of(page, lambda: page.keyboard.press("Enter"))
        expect(page.locator("#percent")).to_have_text(str(round(100 * found["probability"])))
        expect(page.locator("#truth")).to_contain_text("In truth: died")
        expect(page.locator("#field-name")).to_have_value("Astor, Col. John Jacob")
        page.locator("#field-pclass input").first.focus()
        other = answer_of(page, lambda: page.keyboard.press("ArrowRight"))
        assert other["probability"] != found["probability"]


def test_a_wrong_value_shows_its_fault_where_it_stands(visit: Open) -> None:
    with visit(refused=("/v1/predict",)) as page:
        expect(page.locator("#answer")).to_be_visible()
        for field, wrong in {"age": "old", "fare": "2000", "sibsp": "1.5"}.items():
            page.locator(f"#field-{field}").fill(wrong)
        for field in ("age", "fare", "sibsp"):
            expect(page.locator(f"#field-{field}-note")).not_to_be_empty()
            expect(page.locator(f"#field-{field}")).to_have_attribute("aria-invalid", "true")
        expect(page.locator("#field-fare-note")).to_contain_text("1000")
        expect(page.locator("#field-age-note")).not_to_contain_text("{")
        expect(page.get_by_role("alert")).to_contain_text("Age, Siblings and spouses, Fare")
        for field, right in {"age": "100", "fare": "20", "sibsp": "1"}.items():
            page.locator(f"#field-{field}").fill(right)
        # Not in the training rows: noted at the field too, and answered all the same.
        expect(page.locator("#field-age-note")).to_contain_text("outside the training range")
        expect(page.locator("#field-age")).not_to_have_attribute("aria-invalid", "true")
        expect(page.locator("#field-fare-note")).to_be_empty()
        expect(page.locator("#answer-problem")).to_be_hidden()


def test_an_answer_that_comes_too_late_is_dropped_and_a_busy_service_asked_again(visit: Open) -> None:
    held: list[Route] = []
    with visit(refused=("/v1/predict",)) as page:
        stale = answer_of(page, lambda: page.locator("#field-age").fill("40"))

        def late(route: Route) -> None:
            if json.loads(route.request.post_data or "{}")["age"] == 1:
                held.append(route)
            elif len(held) == 1:
                held.append(route)
                route.fulfill(status=429, headers={"Retry-After": "0"}, json={"detail": "full"})
            else:
                route.continue_()

        page.route("**/v1/predict?trial=true", late)
        page.locator("#field-age").fill("1")
        expect(page.locator("#answer")).to_have_class("stale")
        found = answer_of(page, lambda: page.locator("#field-age").fill("70"))
        assert found == {"detail": "full"}
        expect(page.locator("#answer")).not_to_have_class("stale")
        shown = page.locator("#percent").inner_text()
        held[0].fulfill(json={**stale, "probability": 0.123})
        page.wait_for_timeout(300)
        assert page.locator("#percent").inner_text() == shown
        expect(page.locator("#answer-problem")).to_be_hidden()


def test_what_the_fields_add_is_what_the_service_explains(visit: Open, service: str) -> None:
    passenger = {"pclass": 2, "sex": "female"}
    with visit() as page:
        page.get_by_role("button", name="Clear the form").click()
        page.get_by_role("radio", name="second class").check(force=True)
        page.get_by_role("radio", name="female", exact=True).check(force=True)
        for field in ("sibsp", "parch"):
            page.locator(f"#field-{field}").fill("0")
        explanation = httpx.post(f"{service}/v1/explain", json=passenger, timeout=30).json()
        expect(page.locator("#contributions-text")).to_contain_text(explanation["text"])
        shown = page.get_by_role("listitem").filter(has=page.locator("svg"))
        sex = next(one["contribution"] for one in explanation["fields"] if one["field"] == "sex")
        row = shown.filter(has_text="Sex").first
        expect(row).to_contain_text(f"{abs(sex):.2f}")


def test_a_service_that_explains_nothing_leaves_the_panel_out(visit: Open) -> None:
    fields = [{"field": "age", "value": 1, "contribution": -0.25}, {"field": "sex", "value": "x", "contribution": 2.5}]
    asked: list[str] = []
    with visit("model", refused=("/v1/explain",)) as page:

        def explained(route: Route) -> None:
            method = "shapley" if "shapley" in route.request.url else "unknown"
            asked.append(method)
            route.fulfill(json={"method": method, "fields": fields, "prediction": {}})

        page.route("**/v1/explain*", explained)
        page.reload()
        page.get_by_role("tab", name="Predict").click()
        rows = page.get_by_role("listitem").filter(has=page.locator("svg"))
        expect(rows).to_have_text(["Sex+2.50", "Age−0.25"])
        page.get_by_role("radio", name="Shapley").check(force=True)
        expect(page.locator("#contributions-about")).to_contain_text("Shapley")
        # The page that was there before the reload may have asked as well.
        assert asked[-2:] == ["unknown", "shapley"]
        page.unroute("**/v1/explain*")
        page.route("**/v1/explain*", lambda route: route.fulfill(status=404, json={"detail": "no such route"}))
        page.reload()
        expect(page.locator("#answer")).to_be_visible()
        page.wait_for_timeout(500)
        expect(page.locator("#contributions")).to_be_hidden()


# Drift


def test_an_alarm_comes_by_events_and_is_acknowledged(visit: Open, service: str) -> None:
    with visit("drift") as page:
        expect(page.locator("#drift-summary")).to_contain_text(re.compile("Nothing has been predicted|No drift test"))
        expect(page.locator("#outcomes")).to_be_hidden()
        answers = httpx.post(f"{service}/v1/predict/batch", json=THIRD_CLASS_MEN, timeout=60).json()["predictions"]
        card = page.locator("section.card[aria-label=Inputs]")
        expect(card.locator(".state")).to_have_text("Alarm")
        expect(page.locator("#drift-summary")).to_contain_text("mix of passengers moved")
        expect(page.locator("#tab-drift")).to_have_class("alarmed")
        expect(page.locator("#drift-link")).to_have_text("live")
        assert page.locator("#distribution svg .live").count() == 10
        line = card.locator(".line").get_attribute("points") or ""
        assert len(line.split()) > 10
        expect(page.locator("#inputs")).to_contain_text("100%")
        expect(page.locator("#estimates")).to_contain_text("Expected share of right answers")
        card.get_by_role("button", name="Corrected").click()
        expect(card.locator(".state")).to_have_text("No alarm")
        expect(card).to_be_focused()
        assert httpx.get(f"{service}/v1/drift").json()["streams"][1]["alarm"] is False
        outcomes = [
            {"id": one["id"], "outcome": "died" if place % 5 else "survived"} for place, one in enumerate(answers)
        ]
        for _ in range(50):
            if httpx.post(f"{service}/v1/outcomes", json={"outcomes": outcomes}).json()["unknown"] == []:
                break
        expect(page.locator("#outcome-plot svg")).to_have_attribute("aria-label", re.compile("gave 0.20 .* of 100"))
        page.locator("#outcomes summary").first.click()
        expect(page.locator("#outcome-table")).to_contain_text("0.20")


def test_a_refused_or_broken_stream_is_tried_again_and_left_with_the_section(visit: Open) -> None:
    tries: list[str] = []
    with visit("model", refused=("/v1/drift/events",)) as page:

        def events(route: Route) -> None:
            tries.append(route.request.url)
            if len(tries) == 1:
                route.fulfill(status=503, headers={"Retry-After": "1"}, json={"detail": "full"})
            else:
                route.continue_()

        page.route("**/v1/drift/events", events)
        page.get_by_role("tab", name="Drift").click()
        expect(page.locator("#drift-link")).to_have_text("live")
        assert len(tries) == 2
        page.get_by_role("tab", name="Model").click()
        expect(page.locator("#drift-link")).to_have_text("")


# Model


def test_the_card_tells_what_the_service_tells(visit: Open, service: str) -> None:
    model = httpx.get(f"{service}/v1/model").json()
    evaluation = model["evaluation"]
    with visit("model") as page:
        expect(page.locator("#served")).to_have_text(f"{model['name']} {model['version']}")
        body = page.locator("#model-body")
        loss = evaluation["calibrated"]["log_loss"]
        expect(body).to_contain_text(f"{loss['value']:.3f} ± {loss['standard_error']:.3f}")
        expect(body).to_contain_text(f"mlx {model['manifest']['origin']['packages']['mlx']}")
        assert body.locator("svg .dot").count() == len(evaluation["reliability"]["calibrated"]) + len(
            evaluation["subgroups"]
        )


def test_another_model_in_its_place_is_shown(visit: Open) -> None:
    with visit() as page:
        expect(page.locator("#model-body")).not_to_be_empty()
        expect(page.locator("#answer")).to_be_visible()

        def newer(route: Route) -> None:
            found = route.fetch().json()
            route.fulfill(json={**found, "model": {"name": "titanic", "version": "0123456789ab"}})

        page.route("**/v1/predict?trial=true", newer)
        with page.expect_response("**/v1/model"):
            page.locator("#field-age").fill("30")


# File


def test_a_file_comes_back_scored(visit: Open, service: str) -> None:
    lines = [
        'Note,EMBARKED,sex,Age,Pclass,Name,"Fare"',
        'kept,S,MALE,22,3,"Braund, Mr. Owen Harris",7.25',
        '"two\r\nlines, ""quoted""",C,female,38,1,"Cumings, Mrs. John",71.2833',
        "bad class,S,male,22,9,Nobody,1", "bad age,S,male,200,2,Nobody,1", "too,few", "", ",,female,,2,,",
    ]  # fmt: skip
    lines += [f"more {one},S,male,{one % 80},3,,8" for one in range(300)]
    asked: list[int] = []
    with visit("file", refused=("/v1/predict/batch",)) as page:

        def busy(route: Route) -> None:
            asked.append(len(json.loads(route.request.post_data or "{}")["rows"]))
            if len(asked) == 1:
                route.fulfill(status=429, headers={"Retry-After": "0"}, json={"detail": "full"})
            else:
                route.continue_()

        page.route("**/v1/predict/batch", busy)
        content = "\ufeff" + "\r\n".join(lines)
        page.set_input_files("#file", {"name": "in.csv", "mimeType": "text/csv", "buffer": content.encode()})
        expect(page.locator("#file-state")).to_have_text(
            "303 rows scored. 3 could not be scored; the column error says why."
        )
        expect(page.locator("#file-summary")).to_contain_text("Braund, Mr. Owen Harris")
        with page.expect_download() as waited:
            page.get_by_role("link", name="Download").click()
        assert waited.value.suggested_filename == "in.scored.csv"
        text = Path(waited.value.path()).read_bytes().decode("utf-8-sig")
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert len(rows) == 306
    assert asked == [255, 255, 253, 50]
    assert rows[1]["Note"] == 'two\r\nlines, "quoted"'
    passenger = {
        "pclass": 3,
        "sex": "male",
        "name": "Braund, Mr. Owen Harris",
        "age": 22,
        "fare": 7.25,
        "embarked": "S",
    }
    expected = httpx.post(f"{service}/v1/predict", json=passenger, timeout=30).json()
    assert float(rows[0]["probability"]) == pytest.approx(expected["probability"], abs=1e-5)
    assert rows[0]["outcome"] == expected["outcome"]
    assert rows[0]["prediction_set"] == "|".join(expected["confidence"]["prediction_set"])
    assert rows[0]["error"] == ""
    assert "pclass" in rows[2]["error"]
    assert "age" in rows[3]["error"]
    assert rows[4]["error"] == "2 cells instead of 7"
    assert rows[2]["probability"] == rows[4]["probability"] == ""
    assert [row["Note"] for row in rows[-300:]] == [f"more {one}" for one in range(300)]
    assert all(0 < float(row["probability"]) < 1 for row in rows[5:])


def test_a_file_that_is_no_table_is_refused(visit: Open) -> None:
    with visit("file") as page:
        for content, message in (
            (b"", "empty"), (b"Name,Age\nx,3\n", "Pclass and Sex are missing"), (b"Pclass;Sex\n", "no rows"),
            (b"Pclass,Sex\n3,\"male\n" + b"x" * 200_000, "quotation mark"),
        ):  # fmt: skip
            page.set_input_files("#file", {"name": "in.csv", "mimeType": "text/csv", "buffer": content})
            expect(page.locator("#file-problem")).to_contain_text(message)
        good = b"sex;Pclass;Age\nmale;3;22,5\nfemale;1;\n"
        page.set_input_files("#file", {"name": "in.csv", "mimeType": "text/csv", "buffer": good})
        expect(page.locator("#file-state")).to_have_text("2 rows scored.")
        expect(page.locator("#file-problem")).to_be_hidden()


# All of it


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nobody_is_kept_out(visit: Open, service: str, scheme: str) -> None:
    httpx.post(f"{service}/v1/predict/batch", json=THIRD_CLASS_MEN, timeout=60)
    with visit(refused=("/v1/predict/batch",), color_scheme=scheme) as page:
        expect(page.locator("#answer")).to_be_visible()
        for tab in TABS:
            page.get_by_role("tab", name=tab.capitalize()).click()
            page.locator(f"#panel-{tab} h2").wait_for()
            if tab == "drift":
                page.locator("#drift-body").wait_for()
            if tab == "file":
                good = b"Sex,Pclass,Age\nmale,3,22\nfemale,9,\n"
                page.set_input_files("#file", {"name": "in.csv", "mimeType": "text/csv", "buffer": good})
                page.locator("#file-download").wait_for()
            found = Axe().run(page).response["violations"]
            serious = [one for one in found if one["impact"] in ("serious", "critical")]
            assert [(tab, one["id"], one["nodes"][0]["html"][:200]) for one in serious] == []


def test_a_phone_never_scrolls_sideways(visit: Open) -> None:
    with visit(refused=("/v1/predict",)) as page:
        page.set_viewport_size({"width": 360, "height": 740})
        page.locator("#field-age").fill("a very long word that is no number" + "x" * 60)
        expect(page.locator("#field-age-note")).not_to_be_empty()
        for tab in TABS:
            page.get_by_role("tab", name=tab.capitalize()).click()
            page.wait_for_timeout(150)
            assert page.evaluate("document.documentElement.scrollWidth") <= 360, tab


def test_it_weighs_little(service: str, browser: Browser) -> None:
    with watched(browser, set()) as page:
        session = page.context.new_cdp_session(page)
        session.send("Network.enable")
        loaded: list[float] = []
        session.on("Network.loadingFinished", lambda event: loaded.append(event["encodedDataLength"]))
        page.goto(service)
        page.locator("#answer").wait_for()
        page.locator("#model-body").wait_for(state="attached")
        page.wait_for_timeout(500)
    assert 20_000 < sum(loaded) <= MAX_TRANSFER_BYTES
