"""From a red task to the rows that made it red: the page of a source's night, drawn by the night itself."""

import re
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest

from tests import bazaar, homes
from tiltyard import clock
from tiltyard import rails as rails_module
from tiltyard.edge import reports, way_back
from tiltyard.errors import CheckFailed
from tiltyard.judge.evidence_page import _STYLE
from tiltyard.pages import kit
from tiltyard.prepare import checks_page, features
from tiltyard.rails import Rails
from tiltyard.settings import Settings

FIRST = clock.parse_as_of("2025-03-04")
NIGHT = timedelta(days=1)
SUITE = """expectations:
  - type: expect_column_values_to_be_between
    kwargs: {column: amount, min_value: 0, max_value: 100}
    severity: critical
    meta: {why: "<b>Nobody</b> sells for more."}
  - type: expect_column_values_to_be_in_set
    kwargs: {column: shop_id, value_set: [a, b]}
    severity: warning
    meta: {why: "Shops there are."}
meta: {may_be_empty: true}
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, postgres_url: str) -> Settings:
    """A home in which the first night of both sources is published."""
    settings = bazaar.settings_of(tmp_path_factory.mktemp("made"), postgres_url)
    (settings.expectations / "features" / "ftr_shop__sales.yaml").write_text(SUITE)
    with rails_module.opened(settings) as opened:
        for source in ("shop", "web"):
            bazaar.deliver(settings, source, (FIRST - NIGHT).date())
        assert features.build_night(opened, FIRST).unpublished == ()
    return settings


@pytest.fixture
def rails(tmp_path: Path, made: Settings) -> Iterator[Rails]:
    with rails_module.opened(homes.copied(made, tmp_path)) as opened:
        yield opened


def sales(rails: Rails, **of_last: object) -> str:
    """Three sales of the second night, of which the last is odd; and the page of that night."""
    day = FIRST.date()
    rows = [
        {"sale_id": f"sale-{number}", "shop_id": "a", "size": number, "at": f"{day}T12:00:00+00:00"}
        for number in (1, 2, 3)
    ]
    rows[-1] |= of_last
    bazaar.deliver(rails.settings, "shop", day, rows)
    with suppress(CheckFailed):  # where no table is good
        features.build_night(rails, FIRST + NIGHT, ["shop"])
    return page(rails, FIRST + NIGHT)


def page(rails: Rails, as_of: object) -> str:
    night = f"{as_of:%Y-%m-%d}"
    path = checks_page.path("shop", clock.parse_as_of(night).date())
    return (rails.settings.reports / path).read_text()


def text(html: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", html.split("</style>")[-1]).split())


def test_a_good_night_says_so_and_lists_its_checks(rails: Rails) -> None:
    html = page(rails, FIRST)
    assert "<header class=good>" in html
    assert "Every check is as it should be." in html
    assert "raw.sale" in html
    assert "What to do" not in html


def test_rows_that_cannot_be_dated_are_shown_with_their_keys(rails: Rails) -> None:
    html = sales(rails, at="")
    said = text(html)
    assert "<header class=bad>" in html
    assert "raw.sale held" in said
    assert "Seen: 1 (at most 0)" in said
    assert "1 of 1 rows" not in said
    [first, *_] = [row for row in re.findall(r"<tr>.*?</tr>", html) if "sale-3" in row]
    cells = re.findall(r"<td[^>]*>(.*?)</td>", first)
    assert cells[:2] == ["2025-03-04.csv", "3"]
    assert {"sale-3", "a"} <= {*cells}
    assert "sale-1" not in html
    assert "It stays in service as of its last good night, 2025-03-04." in said
    assert "blend (tier 3), flow (tier 3), till (tier 3): the rows to score come from it" in said
    assert "tiltyard replace shop FILE" in said
    assert "from ingest , which does the whole of it, the features and then the models" in said
    assert "tiltyard features --source shop --as-of 2025-03-05 does the features alone; the models follow when" in said


def test_values_beyond_a_limit_are_shown_with_the_row_and_who_reads_it(rails: Rails) -> None:
    html = sales(rails, size=4711, shop_id="<i>z</i>")
    said = text(html)
    assert "ftr_shop__sales held" in said
    assert "Seen: 1 of 3 rows (33.3 %) (allowed are 0 to 100)" in said
    assert "4711" in html
    assert "&lt;i&gt;z&lt;/i&gt;" in html
    assert "<i>z" not in html
    assert "&lt;b&gt;Nobody" in html
    assert said.index("critical amount: values to be between") < said.index("warning shop_id: values to be in set")
    assert "flow (tier 3), till (tier 3): scored on its last good rows, and not retrained." in said
    assert "The check stands in expectations/features/ftr_shop__sales.yaml:2." in said
    assert "blend" not in said.split("All checks")[0]


def test_a_warning_on_a_held_table_does_not_say_that_the_table_is_in_service_and_shows_no_row_twice(
    rails: Rails,
) -> None:
    html = sales(rails, at="")
    said = text(html)
    assert "raw.sale held" in said
    assert "in service as it came" not in said.split("raw.sale held")[1].split("What to do")[0]
    assert "warning undated_rows: values to be between Seen: 1 (at most 0). By itself it would hold nothing." in said
    assert "Its rows are those that are shown above: raw.sale undated_share: values to be between." in said
    first = html.split("What to do")[0]
    assert len([row for row in re.findall(r"<tr>.*?</tr>", first) if "sale-3" in row]) == 1


def test_a_night_that_is_mended_keeps_what_had_failed(rails: Rails) -> None:
    sales(rails, size=4711)
    again = page(rails, FIRST + NIGHT)
    features.build_night(rails, FIRST + NIGHT, ["shop"])
    assert page(rails, FIRST + NIGHT) == again, "the same once more is no attempt of its own"
    path = rails.settings.expectations / "features" / "ftr_shop__sales.yaml"
    path.write_text(path.read_text().replace("max_value: 100", "max_value: 9999"))
    features.build_night(rails, FIRST + NIGHT, ["shop"])
    html = page(rails, FIRST + NIGHT)
    said = text(html)
    assert "<header class=good>" in html
    assert "Every check is as it should be." in said
    assert said.index("Earlier attempts What had failed until 20") < said.index("ftr_shop__sales held")
    assert "4711" in html
    assert [entry.mark for entry in reports.entries(rails.settings.reports / "checks" / "shop")] == ["good", "good"]


def test_what_identifies_a_person_is_not_shown(rails: Rails) -> None:
    path = rails.settings.dbt / "models" / "staging" / "shop" / "_shop__sources.yml"
    said = "{name: sale_id, data_type: varchar, config: {meta: {tiltyard: {identifies: true}}}}"
    path.write_text(path.read_text().replace("{name: sale_id, data_type: varchar}", said))
    html = sales(rails, at="")
    assert "sale-3" not in html
    assert "2025-03-04.csv" in html


def test_a_night_whose_page_cannot_be_drawn_is_settled_all_the_same(rails: Rails) -> None:
    rails.settings.reports.joinpath("checks", "shop").rename(rails.settings.reports / "before")
    rails.settings.reports.joinpath("checks", "shop").write_text("no folder")
    bazaar.deliver(rails.settings, "shop", FIRST.date())
    assert features.build_night(rails, FIRST + NIGHT, ["shop"]).unpublished == ()
    [event] = rails.ledger.events(kind=rails_module.NOT_DRAWN)
    assert event.detail["page"] == "checks/shop/2025-03-05.html"


def test_a_folder_says_which_night_is_red_and_a_page_leads_back_and_to_the_night_before(rails: Rails) -> None:
    sales(rails, at="")
    root = rails.settings.reports
    marks = [(entry.name, entry.mark) for entry in reports.entries(root / "checks" / "shop")]
    assert marks == [("2025-03-05.html", "bad"), ("2025-03-04.html", "good")]
    assert ("shop/", "bad") in [(entry.name, entry.mark) for entry in reports.entries(root / "checks")]
    line = way_back.nav(root / "checks" / "shop" / "2025-03-05.html", root, "/tiltyard")
    assert 'href="/tiltyard/"' in line
    assert 'href="/tiltyard/reports/checks/shop/2025-03-04.html"' in line
    first = way_back.added(root / "checks" / "shop" / "2025-03-04.html", root, "/tiltyard").decode()
    assert first.index("<body>") < first.index("/tiltyard/reports/checks/shop/2025-03-05.html") < first.index("<main>")


def test_an_evidence_page_is_shown_dark_and_narrow_and_its_bytes_stay(tmp_path: Path) -> None:
    """What was approved is named by its digest."""
    page = tmp_path / "promotion" / "churn" / "0a0b.html"
    content = kit.framed("Promote?", [kit.paragraph("evidence")], _STYLE)
    kit.save(content, page)
    shown = way_back.added(page, tmp_path, "/tiltyard").decode()
    assert page.read_text() == content
    assert shown.replace(shown[shown.index("<body>") + 6 : shown.index("<main>")], "") == content
    assert "prefers-color-scheme: dark" in shown
    assert ".wide table { min-width" in shown
    kit.save(kit.page("Checks", [kit.paragraph("as they are")]), page)
    assert "prefers-color-scheme" not in way_back.added(page, tmp_path, "/tiltyard").decode(), "it has both itself"
