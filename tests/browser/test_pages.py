"""What a person sees of a hundred models in a real browser: readable, usable without a script, and nothing acts."""

import re

import pytest
from playwright.sync_api import Browser, BrowserContext

from tests.browser.conftest import LONG, MODELS, NIGHT, Site
from tests.chromium import serious, visit
from tiltyard.edge import overview

MODEL = "/models/index"
PAGES = (
    "/", "/?state=alarm", MODEL, f"/models/{LONG}", *(f"{MODEL}?part={part}" for part in overview.PARTS),
    f"{MODEL}?part=versions&compare=1&compare=2", "/sources/subscription", "/incidents/", f"/nights/{NIGHT}", "/costs",
    "/reports/",
)  # fmt: skip
LOOKED_AT = (
    "/", MODEL, f"{MODEL}?part=versions&compare=1&compare=2", f"{MODEL}?part=data", "/sources/subscription",
    f"/nights/{NIGHT}", "/costs",
)  # fmt: skip
"""Those of which it is looked at how they read, narrow and dark as well."""
WIDTHS = {"wide": 1280, "narrow": 400}


@pytest.mark.parametrize("path", PAGES)
def test_nothing_acts_nothing_is_fetched_from_elsewhere_and_the_console_is_silent(
    site: Site, context: BrowserContext, path: str
) -> None:
    seen = visit(context, site.address + path)
    assert seen.complaints == []
    assert seen.page.title() != "acted"
    assert seen.page.locator("img[src=x]").count() == 0
    assert seen.page.locator("nav a").first.is_visible(), "there is a way back"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS.keys())
@pytest.mark.parametrize("path", LOOKED_AT)
def test_whoever_sees_little_can_read_it(site: Site, browser: Browser, path: str, width: int, scheme: str) -> None:
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
    try:
        page = visit(context, site.address + path).page
        assert serious(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width, "nothing is cut off at the side"
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        shade = sum(map(int, re.findall(r"\d+", background)[:3]))
        assert (shade < 250) == (scheme == "dark"), background
    finally:
        context.close()


def test_a_filter_is_an_address_that_can_be_handed_on(site: Site, browser: Browser) -> None:
    context = browser.new_context(java_script_enabled=False)
    try:
        page = visit(context, site.address + "/").page
        assert f"{MODELS} models" in page.inner_text("#models")
        page.select_option("select[name=state]", "alarm")
        page.click("form button")
        assert "state=alarm" in page.url
        states = page.locator("table.models strong").all_inner_texts()
        assert states and set(states) == {"alarm"}
        again = visit(context, page.url).page
        assert again.locator("table.models strong").all_inner_texts() == states
        again.fill("input[name=q]", "churn_009")
        again.click("form button")
        assert again.locator("table.models tr").count() <= 2
    finally:
        context.close()


def test_the_keyboard_reaches_the_filters_and_the_models(site: Site, context: BrowserContext) -> None:
    page = visit(context, site.address + "/").page
    reached = set()
    for _ in range(120):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.name || document.activeElement.getAttribute('href') || ''"))
    assert {"q", "state", "owner", "tier", "source", "order"} <= reached
    assert any("/tiltyard/models/" in name for name in reached)


def test_the_most_trouble_stands_first_and_leads_to_its_page(site: Site, context: BrowserContext) -> None:
    page = visit(context, site.address + "/").page
    first = page.locator("table.models td a").first
    name = first.inner_text()
    assert page.locator("table.models strong").first.inner_text() == "failed"
    first.click()
    assert page.url.endswith(f"/models/{name}")
    assert page.locator("h1, h2").first.is_visible()
