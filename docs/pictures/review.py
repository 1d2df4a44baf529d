"""Draw the review page: python docs/pictures/review.py, in the environment of a running stack.

What is shown is made up, in schemas of its own that are removed afterwards.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

from psycopg.sql import SQL, Identifier

sys.path.insert(0, str(Path(__file__).parents[2]))

from loreline.postgres import connect, upgrade
from loreline.settings import PROJECT_ROOT, Settings
from tests import reviewing
from tests.end_to_end import chromium
from tests.reviewing import assistant, pair, put, served, trajectory, user

ASKED = "The till in Basel shows 18 payments for Monday, the bank says 17. Which one is missing?"
CALL = {
    "id": "c1",
    "function": {
        "name": "query_payments",
        "arguments": json.dumps({"shop": "Basel", "day": "2026-10-12", "group_by": "reference"}),
    },
}
RESULT = {
    "role": "tool",
    "tool_call_id": "c1",
    "name": "query_payments",
    "content": "till 18 rows, bank 17 rows\nonly in till: TX-20417, 42.50 CHF, 18:02, pending",
}
FOUND = (
    "The payment that the bank does not have is TX-20417 over 42.50 CHF. The till took it at 18:02,"
    " and its status is still pending: card payments after 18:00 are settled on the next working"
    " day, so it should arrive on Tuesday."
)
GUESSED = (
    "Differences between till and bank are usually caused by fees, refunds or payments that were"
    " entered twice. One of the 18 payments was most likely entered twice. Please compare the two"
    " lists line by line. If you find no duplicate, ask the bank."
)
ITEMS = [
    pair(
        "pair",
        a=FOUND,
        b=GUESSED,
        context=[user(ASKED), assistant(None, tool_calls=[CALL]), RESULT],
        priority=2,
    ),
    trajectory(
        "trajectory",
        user(ASKED),
        assistant(None, tool_calls=[CALL]),
        RESULT,
        assistant(FOUND),
        user("Send <b>Anna</b> a note\u202e <script>alert(1)</script>"),
        assistant("I cannot send notes from here. This is what I would write:\n\nHello Anna, …"),
        context=[{"role": "system", "content": "You help the shops of a small bakery chain."}],
    ),
]


def main() -> None:
    """Write `review-pair.png` and `review-trajectory.png` beside this file."""
    settings = dataclasses.replace(
        Settings.load(), target="ci", namespace_suffix="pictures", review_labels="1"
    )
    upgrade(settings)
    try:
        reviewing.CATEGORIES[:] = _categories()
        put(settings, *ITEMS)
        (token,) = reviewing.add_reviewers(settings, "ann")
        with served(settings) as address, chromium.running() as browser:
            _draw(browser, address, token)
    finally:
        _remove(settings)


def _draw(browser, address: str, token: str) -> None:
    size = {"width": 1120, "height": 800}
    page = browser.new_page(viewport=size, color_scheme="light")
    page.goto(f"{address}/review")
    page.get_by_label("Your token").fill(token)
    page.keyboard.press("Enter")
    page.wait_for_url(f"{address}/review")
    # Which side stands where is drawn.
    page.keyboard.press("a" if "TX-20417" in page.locator(".side").first.inner_text() else "b")
    page.keyboard.press("2")
    _picture(page, "review-pair")
    with page.expect_navigation():
        page.keyboard.press("Enter")
    page.emulate_media(color_scheme="dark")
    for key in "4hr":
        page.keyboard.press(key)
    page.mouse.wheel(0, 2_000)
    page.wait_for_timeout(300)
    _picture(page, "review-trajectory")


def _picture(page, name: str) -> None:
    page.screenshot(path=Path(__file__).with_name(f"{name}.png"))


def _categories() -> list[reviewing.Category]:
    import csv

    with (PROJECT_ROOT / "seeds" / "label_categories.csv").open() as rows:
        return [
            reviewing.Category(r["category"], r["title"], r["description"], r["key"])
            for r in csv.DictReader(rows)
        ]


def _remove(settings: Settings) -> None:
    with connect(settings, autocommit=True) as connection:
        for name in ("review", "lineage", "serving", "operations"):
            schema = Identifier(settings.prefix + name)
            connection.execute(SQL("drop schema {} cascade").format(schema))


if __name__ == "__main__":
    main()
