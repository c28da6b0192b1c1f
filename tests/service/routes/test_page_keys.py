"""The page of a service that needs keys, in a real Chromium: it asks for one, keeps it, and follows events with it."""

import random
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Request, Route, expect

from service.http.keys import new_key, write_keys
from tests.service.browser import chromium, page_service, watched

Visit = Callable[..., AbstractContextManager[Page]]
THIRD_CLASS_MEN = {"rows": [{"pclass": 3, "sex": "male", "age": 22}] * 100}


class Locked:
    """A running service, and the keys that open it."""

    url: str

    def __init__(self, file: Path):
        made = {
            "all": new_key("all", ["predict", "admin", "outcomes", "metrics"]),
            "metrics": new_key("metrics", ["metrics"]),
            "brief": new_key("brief", ["predict"]),
        }
        self.keys = {name: key for name, (key, _) in made.items()}
        write_keys(file, [entry for _, entry in made.values()])

    def bearer(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.keys['all']}"}


@pytest.fixture(scope="module")
def locked(bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Locked]:
    folder = tmp_path_factory.mktemp("locked")
    # The keys are read as the service starts.
    found = Locked(folder / "keys.json")
    with page_service(bundle_folder, folder, "--keys", folder / "keys.json") as found.url:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def visit(locked: Locked, browser: Browser) -> Visit:
    """Opens the page at a section, with a key typed where one is named."""

    @contextmanager
    def opened(tab: str = "predict", key: str | None = None, **settings: Any) -> Iterator[Page]:
        with watched(browser, {"/v1/"}, **settings) as page:
            page.goto(f"{locked.url}/#{tab}")
            expect(page.locator("#key-form")).to_be_visible()
            if key:
                enter(page, locked.keys[key])
                expect(page.locator("#key-form")).to_be_hidden()
            yield page

    return opened


def enter(page: Page, key: str) -> None:
    page.get_by_label("Key", exact=False).fill(key)
    page.keyboard.press("Enter")


def test_a_key_is_asked_for_and_opens_everything(visit: Visit, locked: Locked) -> None:
    sent: list[Request] = []
    with visit() as page:
        page.on("request", lambda request: sent.append(request))
        field = page.get_by_label("Key", exact=False)
        expect(field).to_be_focused()
        expect(page.locator("#answer")).to_be_hidden()
        for wrong, note in {"ek_0123abcd_none": "does not accept", "two words": "without spaces", "": "ek_"}.items():
            enter(page, wrong)
            expect(page.get_by_role("alert")).to_contain_text(note)
            expect(field).to_have_attribute("aria-invalid", "true")
        enter(page, locked.keys["all"])
        expect(page.locator("#answer")).to_be_visible()
        expect(page.locator("#key-form")).to_be_hidden()
        expect(page.locator("#served")).to_contain_text("titanic")
        expect(page.locator("#contributions")).to_be_visible()
        expect(page.get_by_role("tab", name="Predict")).to_be_focused()
        page.get_by_role("tab", name="Drift").click()
        expect(page.locator("#drift-link")).to_have_text("live")
        answers = httpx.post(
            f"{locked.url}/v1/predict/batch", json=THIRD_CLASS_MEN, headers=locked.bearer(), timeout=60
        )
        assert answers.status_code == 200
        card = page.locator("section.card[aria-label=Inputs]")
        expect(card.locator(".state")).to_have_text("Alarm")
        card.get_by_role("button", name="Corrected").click()
        expect(card.locator(".state")).to_have_text("No alarm")
        held = page.evaluate("({session: {...sessionStorage}, local: {...localStorage}, cookie: document.cookie})")
    assert held == {"session": {"evenkeel-key": locked.keys["all"]}, "local": {}, "cookie": ""}
    assert not [one.url for one in sent if "ek_" in one.url or locked.keys["all"].split("_", 2)[2] in one.url]
    to_api = [one for one in sent if "/v1/" in one.url]
    assert to_api[-1].headers["authorization"] == f"Bearer {locked.keys['all']}"


def test_the_tab_keeps_the_key_until_it_forgets_it(visit: Visit, locked: Locked) -> None:
    with visit(key="all") as page:
        page.reload()
        expect(page.locator("#answer")).to_be_visible()
        expect(page.locator("#key-form")).to_be_hidden()
        other = page.context.new_page()
        other.goto(locked.url)
        expect(other.locator("#key-form")).to_be_visible()
        other.close()
        page.get_by_role("button", name="Forget the key").click()
        expect(page.locator("#key-form")).to_be_visible()
        expect(page.get_by_role("button", name="Forget the key")).to_be_hidden()
        assert page.evaluate("sessionStorage.length") == 0
        page.reload()
        expect(page.locator("#key-form")).to_be_visible()


def test_a_key_that_may_not_predict_is_refused_and_another_may(visit: Visit, locked: Locked) -> None:
    with visit(key="metrics") as page:
        expect(page.get_by_role("alert").filter(has_text="scope")).to_contain_text("does not have the scope predict")
        page.get_by_role("tab", name="Drift").click()
        expect(page.locator("#drift-link")).to_have_text("live")
        page.get_by_role("button", name="Forget the key").click()
        enter(page, locked.keys["all"])
        expect(page.locator("#drift-link")).to_have_text("live")
        page.get_by_role("tab", name="Predict").click()
        expect(page.locator("#answer")).to_be_visible()


def test_a_revoked_key_is_noticed_and_work_goes_on_with_another(visit: Visit, locked: Locked) -> None:
    lines = [f"{one % 3 + 1},male,{one % 80}" for one in range(600)]
    content = "\n".join(["Pclass,Sex,Age", *lines]).encode()
    batches: list[str] = []
    with visit("file", key="brief") as page:

        def revoked_after_one(route: Route) -> None:
            batches.append(route.request.headers["authorization"])
            if len(batches) == 2:
                route.fulfill(status=401, headers={"WWW-Authenticate": "Bearer"}, json={"detail": "a key is needed"})
            else:
                route.continue_()

        page.route("**/v1/predict/batch", revoked_after_one)
        page.set_input_files("#file", {"name": "in.csv", "mimeType": "text/csv", "buffer": content})
        refusal = page.get_by_role("alert").filter(has_text="key")
        expect(refusal).to_contain_text("does not accept this key")
        # An answer that was asked for before the refusal comes after it.
        page.evaluate("""async () => (await import("/page/api.js")).ask("v1/model")""")
        expect(refusal).to_contain_text("does not accept this key")
        enter(page, locked.keys["all"])
        expect(page.locator("#file-state")).to_have_text("600 rows scored.")
    brief, whole = (f"Bearer {locked.keys[name]}" for name in ("brief", "all"))
    assert batches == [brief, brief, whole, whole]


# Events


def stream_of(page: Page, pieces: list[str]) -> Any:
    """What the page's reader makes of a stream that comes in pieces."""
    return page.evaluate(
        """async (pieces) => {
            const { EventReader } = await import("/page/drift/events.js"), reader = new EventReader();
            const events = pieces.flatMap((piece) => reader.read(piece));
            return { events, lastId: reader.lastId, retry: reader.retrySeconds };
        }""",
        pieces,
    )


@pytest.mark.parametrize(
    ("text", "events", "last_id", "retry"),
    [
        # The four examples of the HTML Standard, section 9.2.6, and its rules one by one.
        ("data: YHOO\ndata: +2\ndata: 10\n\n", [("message", "YHOO\n+2\n10")], "", 3),
        (
            ": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n",
            [("message", "first event"), ("message", "second event"), ("message", " third event")], "", 3,
        ),
        ("data\n\ndata\ndata\n\ndata:", [("message", ""), ("message", "\n")], "", 3),
        ("data:test\n\ndata: test\n\n", [("message", "test"), ("message", "test")], "", 3),
        ("event: drift\nid: 7\ndata: {}\n\nevent: other\n\n", [("drift", "{}")], "7", 3),
        ("retry: 2000\r\n\r\nretry: 2s\r\nretry: -1\r\n\r\n", [], "", 2),
        ("id: 3\rdata: a:b\r\rid: 4\0\rdata: c\r\r:\r", [("message", "a:b"), ("message", "c")], "3", 3),
        ("unknown: x\nid: 5\n\ndata: begun\nid: 6\n", [], "5", 3),
    ],
)  # fmt: skip
def test_events_are_read_as_the_standard_says(
    visit: Visit, text: str, events: list[tuple[str, str]], last_id: str, retry: float
) -> None:
    expected = {"events": [{"name": name, "data": data} for name, data in events], "lastId": last_id, "retry": retry}
    rng = random.Random(text)
    with visit() as page:
        assert stream_of(page, [text]) == expected
        assert stream_of(page, list(text)) == expected
        for _ in range(20):
            cuts = sorted(rng.choices(range(len(text) + 1), k=rng.randrange(1, 6)))
            pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
            assert stream_of(page, pieces) == expected


def test_a_stream_that_ends_is_asked_for_again_after_its_own_time_and_from_its_last_event(visit: Visit) -> None:
    asked: list[dict[str, str]] = []
    with visit(key="all") as page:

        def events(route: Route) -> None:
            asked.append(route.request.headers)
            if len(asked) == 3:
                route.fulfill(status=503, json={"detail": "full"})
                return
            body = f"retry: 20\n\nid: {len(asked)}\nevent: drift\ndata: {len(asked)}\n\nid: 99\nevent: drift\ndata: cut"
            route.fulfill(content_type="text/event-stream", body=body)

        page.route("**/v1/drift/events", events)
        found = page.evaluate(
            """async () => {
                const { followEvents } = await import("/page/drift/events.js"), end = new AbortController(), seen = [];
                await followEvents("v1/drift/events", end.signal, {
                    onEvent(name, data) { seen.push([name, data]); if (data === "4") end.abort(); },
                    onLost() { seen.push("lost"); if (seen.length > 20) end.abort(); },
                });
                return seen;
            }"""
        )
    assert found == [["drift", "1"], "lost", ["drift", "2"], "lost", "lost", ["drift", "4"]]
    assert [one.get("last-event-id") for one in asked] == [None, "1", "2", "2"]
    assert all(one["accept"] == "text/event-stream" for one in asked)


def test_events_that_are_none_are_no_events(visit: Visit) -> None:
    with visit("model", key="all") as page:
        page.route("**/v1/drift/events", lambda route: route.fulfill(json={"streams": []}))
        page.get_by_role("tab", name="Drift").click()
        expect(page.locator("#drift-link")).to_have_text("reconnecting …")
        page.unroute("**/v1/drift/events")
        expect(page.locator("#drift-link")).to_have_text("live")


# All of it


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nobody_is_kept_out_by_the_form(visit: Visit, locked: Locked, scheme: str) -> None:
    with visit(color_scheme=scheme) as page:
        for key in (None, "ek_0123abcd_none"):
            if key:
                enter(page, key)
                expect(page.get_by_role("alert").filter(has_text="key")).to_contain_text("does not accept")
            found = Axe().run(page).response["violations"]
            serious = [one for one in found if one["impact"] in ("serious", "critical")]
            assert [(one["id"], one["nodes"][0]["html"][:200]) for one in serious] == []
        page.set_viewport_size({"width": 360, "height": 740})
        page.wait_for_timeout(150)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        enter(page, locked.keys["all"])
        expect(page.locator("#answer")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_the_policy_is_as_strict_as_without_keys(locked: Locked) -> None:
    page = httpx.get(locked.url)
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "connect-src 'self';" in policy
    assert "form-action 'none'" in policy
    assert re.search(r"unsafe|http|\*", policy) is None
