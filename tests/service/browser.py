"""A real Chromium for tests of the page."""

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

from tests.deploy.programs import free_port
from tests.service.test_real import start, wait_ready

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


@contextmanager
def chromium() -> Iterator[Browser]:
    """The machine's Chromium; where there is none, the tests that need it are skipped, in CI they fail."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        reason = "Chromium is not installed (on Debian: apt-get install chromium)"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield browser
        browser.close()


class Watched:
    """A page whose errors are collected; ``refused`` are parts of addresses whose refusal a test means to see."""

    def __init__(self, page: Page, refused: set[str]):
        self.page, self.refused, self._errors = page, refused, list[str]()
        page.on("console", self._said)
        page.on("pageerror", lambda error: self._errors.append(str(error)))

    def _said(self, message: ConsoleMessage) -> None:
        if message.type not in ("error", "warning"):
            return
        url = str(message.location.get("url", ""))
        if "Failed to load resource" in message.text and any(part in url for part in self.refused):
            return
        self._errors.append(f"{message.text} ({url})")

    def check(self) -> None:
        assert self._errors == []


@contextmanager
def watched(browser: Browser, refused: set[str], **settings: Any) -> Iterator[Page]:
    """A page of its own, which must end without an error in its console."""
    context = browser.new_context(viewport={"width": 1180, "height": 820}, **settings)
    context.set_default_timeout(15_000)
    page = context.new_page()
    errors = Watched(page, refused)
    try:
        yield page
        errors.check()
    finally:
        context.close()


@contextmanager
def page_service(bundle: Path, folder: Path, *flags: object) -> Iterator[str]:
    """The address of a real service with short drift tests, whose state and log are in ``folder``."""
    port = free_port()
    process = start(
        "--bundle", bundle, "--port", port, "--grace-seconds", 0, "--state", folder / "state",
        "--store", folder / "log.sqlite", "--drift-run-length", 100, "--log-level", "warning", *flags,
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    wait_ready(url, process)
    yield url
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 0, stderr
