"""A real Chromium for the tests that need one; where it is not installed they are skipped, in CI they fail."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Page, sync_playwright

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


@contextmanager
def chromium_page(origin: str) -> Iterator[tuple[Page, list[str]]]:
    """A page in Chromium that reaches ``origin`` only, and the list of what went wrong in it so far.

    That is: messages of the console that are warnings or errors (refusals by a Content-Security-Policy among them),
    exceptions, and requests to elsewhere, which are not let through.
    """
    executable = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if executable is None:
        reason = "Chromium is not installed (on Debian: apt-get install chromium)"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    wrong: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        page = browser.new_page(viewport={"width": 1200, "height": 900})
        page.on("console", lambda one: wrong.append(one.text) if one.type in ("warning", "error") else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))

        def guard(route: object, request: object) -> None:
            if request.url.startswith((origin, "data:", "blob:")):  # type: ignore[attr-defined]
                route.continue_()  # type: ignore[attr-defined]
            else:
                wrong.append(f"asked for {request.url}")  # type: ignore[attr-defined]
                route.abort()  # type: ignore[attr-defined]

        page.route("**/*", guard)
        yield page, wrong
        browser.close()
