"""The system's Chromium, for the tests that look at pages and forms as a person does."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def is_here() -> bool:
    """Whether there is one."""
    return any(map(shutil.which, NAMES))


@contextmanager
def opened() -> Iterator[Browser]:
    """A browser; the test that asks for one is skipped where there is none, and says so. As long as it is open nobody
    else in this process can run an event loop of his own."""
    executable = next(filter(None, map(shutil.which, NAMES)), None)
    if executable is None:
        pytest.skip("No Chromium is installed here, so that nothing was looked at in a browser.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox", "--disable-gpu"])
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Visit:
    """A page that was opened, and what the browser had to say of it."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    """Errors of the console and of scripts, requests that failed or went elsewhere."""


def visit(context: BrowserContext, address: str) -> Visit:
    """Open a page, and note whatever the browser complains of."""
    page = context.new_page()
    seen = Visit(page)
    host = address.split("/tiltyard")[0]
    page.on("console", lambda message: seen.complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: seen.complaints.append(str(error)))
    page.on(
        "request", lambda asked: None if asked.url.startswith((host, "data:")) else seen.complaints.append(asked.url)
    )
    answer = page.goto(address)
    if answer is None or answer.status != 200:
        seen.complaints.append(f"{address} answers {answer.status if answer else 'nothing'}")
    return seen


def serious(page: Page) -> list[str]:
    """What axe-core finds of weight, a line each."""
    found = Axe().run(page).response["violations"]
    return [f"{entry['id']}: {entry['nodes'][0]['html'][:200]}" for entry in found
            if entry["impact"] in ("serious", "critical")]  # fmt: skip
