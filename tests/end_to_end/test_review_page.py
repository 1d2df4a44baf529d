"""People at the review page, in a real browser."""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import cycle

import pytest
from playwright.sync_api import Browser, Page

from loreline.settings import Settings
from tests.end_to_end import chromium
from tests.reviewing import add_reviewers, assistant, pair, put, rows, served, trajectory, user

HOSTILE = [
    "<script>window.hacked = 1</script>",
    '<img src="http://127.0.0.1:9/x" onerror="window.hacked = 1">',
    "<svg/onload=alert(1)>",
    "</div></li></ol></section><h1>owned</h1><form action=http://127.0.0.1:9/>",
    '"><iframe src=javascript:alert(1)></iframe> <style>*{display:none}</style>',
    "[click](javascript:alert(1)) ![x](http://127.0.0.1:9/y.png) <http://127.0.0.1:9>",
    "{{ 7 * 7 }} {% include 'base.html' %} ${7*7} &lt;b&gt; &#60;",
]
ACTING = (
    "left\u202eright\u202c \u2066isolate\u2069 zero\u200bwidth\ufeff \x1b[31mred\x1b[0m null\x00"
)
ACTING_SHOWN = (
    "left\\u202eright\\u202c \\u2066isolate\\u2069 zero\\u200bwidth\\ufeff"
    " \\x1b[31mred\\x1b[0m null\\x00"
)
RIGHT_TO_LEFT = "مرحبا بالعالم، هذا نص طويل من اليمين إلى اليسار"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium.running() as browser:
        yield browser


class Site:
    """The page, served, and people who visit it."""

    def __init__(self, settings: Settings, browser: Browser, address: str) -> None:
        self.settings = settings
        self.address = address
        self.dialogs: list[str] = []
        self.requests: list[str] = []
        self.errors: list[str] = []
        self._browser = browser
        self._contexts = []

    def visit(self, reviewer: str, *, clock: bool = False, **options) -> Page:
        """Log somebody in, in a browser of their own; with a clock that the test moves."""
        (token,) = add_reviewers(self.settings, reviewer)
        context = self._browser.new_context(**options)
        self._contexts.append(context)
        page = context.new_page()
        if clock:
            page.clock.install()
        page.on("dialog", lambda dialog: (self.dialogs.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on(
            "console",
            lambda said: self.errors.append(said.text) if "Content Security" in said.text else None,
        )
        page.goto(f"{self.address}/review")
        assert page.url == f"{self.address}/review/login"
        page.get_by_label("Your token").fill(token)
        page.keyboard.press("Enter")
        page.wait_for_url(f"{self.address}/review")
        return page

    def rows(self, statement: str, *parameters):
        return rows(self.settings, statement, *parameters)

    def close(self) -> None:
        for context in self._contexts:
            context.close()


@contextmanager
def opened(settings: Settings, browser: Browser) -> Iterator[Site]:
    with served(settings) as address:
        site = Site(settings, browser, address)
        try:
            yield site
            foreign = [url for url in site.requests if not url.startswith((address, "data:"))]
            assert (site.dialogs, site.errors, foreign) == ([], [], [])
        finally:
            site.close()


@pytest.fixture
def site(settings: Settings, browser: Browser) -> Iterator[Site]:
    with opened(settings, browser) as site:
        yield site


def item_of(page: Page) -> str:
    return page.locator("#verdict [name=item]").input_value()


def press(page: Page, *keys: str) -> None:
    """Press keys, the last of which leads to another page."""
    for key in keys[:-1]:
        page.keyboard.press(key)
    with page.expect_navigation():
        page.keyboard.press(keys[-1])


def test_without_a_login_nothing_is_seen(site):
    put(site.settings, trajectory("one", user("the secret of the house")))
    own = {"Origin": site.address}
    for path in ("", "/text/0/0/0?item=one"):
        status, headers, body = ask(site, f"/review{path}")
        assert (status, headers["location"]) == (302, "/review/login")
        assert "secret" not in body
    for path in ("label", "skip", "skipped", "undo", "renew", "logout"):
        status, _, body = ask(site, f"/review/{path}", own, form={"item": "one"})
        assert (status, "secret" in body) == (401, False)
    for cookie in ("x", "", "' or 1=1 --"):
        status, *_ = ask(site, "/review", {"Cookie": f"loreline_review={cookie}"})
        assert status == 302
    for path in ("/docs", "/redoc", "/openapi.json", "/review/static/../pages.py", "/"):
        assert ask(site, path)[0] == 404
    status, _, body = ask(site, "/review/login", own, form={"token": "guess"})
    assert (status, "is not known" in body) == (401, True)
    assert ask(site, "/healthz")[0] == ask(site, "/readyz")[0] == 200
    assert site.rows("select count(*) from {}.labels") == [(0,)]


def test_a_form_from_elsewhere_is_refused(site):
    put(site.settings, trajectory("one"))
    page = site.visit("ann")
    (cookie,) = page.context.cookies(site.address + "/review")
    assert cookie["httpOnly"]
    assert cookie["sameSite"] == "Strict"
    mine = {"Cookie": f"{cookie['name']}={cookie['value']}"}
    form = {"item": "one"}
    for sent in (
        {},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": site.address, "Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ):
        assert ask(site, "/review/skip", {**mine, **sent}, form=form)[0] == 403
    assert site.rows("select skipped_at from {}.views") == [(None,)]
    assert ask(site, "/review/skip", {**mine, "Origin": site.address}, form=form)[0] == 303
    too_much = {"item": "x" * 300_000}
    assert ask(site, "/review/skip", {**mine, "Origin": site.address}, form=too_much)[0] == 413


def test_every_answer_forbids_what_it_does_not_need(site):
    for path in ("/review/login", "/review", "/review/static/review.js", "/healthz", "/none"):
        _, headers, _ = ask(site, path)
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"


def test_a_trajectory_is_judged_with_keys_alone(site):
    put(site.settings, trajectory("one", priority=3), trajectory("two", priority=2))
    page = site.visit("ann")
    assert item_of(page) == "one"
    assert page.get_by_text("0 of 2 done").is_visible()
    page.keyboard.press("Enter")
    assert page.get_by_role("alert").inner_text() == "Give a score: 1 to 5."
    page.keyboard.press("2")
    page.keyboard.press("o")
    page.keyboard.press("h")
    page.keyboard.press("h")  # chosen by mistake
    page.keyboard.press("c")
    page.keyboard.type("says it twice, s and u")
    page.keyboard.press("Escape")
    press(page, "4", "Enter")
    assert site.rows("select queue_item_id, score, categories, comment from {}.labels") == [
        ("one", 4, ["overlong"], "says it twice, s and u")
    ]
    assert item_of(page) == "two"
    assert page.get_by_text("1 of 2 done").is_visible()

    press(page, "s")
    assert page.get_by_role("heading", name="Nothing to judge").is_visible()
    press(page, "u")
    assert item_of(page) == "two"
    press(page, "u")
    assert item_of(page) == "one"
    assert page.locator("[name=score]:checked").input_value() == "4"
    assert page.locator("[name=category]:checked").input_value() == "overlong"
    assert page.locator("#comment").input_value() == "says it twice, s and u"
    page.keyboard.press("c")
    page.keyboard.press("Control+a")
    page.keyboard.type("shorter")
    press(page, "Control+Enter")
    assert site.rows(
        "select queue_item_id, comment, withdrawn_at is null from {}.label_states order by 2 desc"
    ) == [("one", "shorter", True), ("one", "says it twice, s and u", False)]
    press(page, "1", "Enter")
    assert page.get_by_text("2 of 2 done").is_visible()
    press(page, "u")
    page.get_by_role("button", name="Skip").click()
    page.get_by_role("button", name="Show me the 1 that I skipped").click()
    assert item_of(page) == "two"


def test_of_a_pair_that_side_is_preferred_which_stood_there(site, monkeypatch):
    drawn = cycle([0, 1, 1, 0])
    monkeypatch.setattr("loreline.review.store.secrets.randbits", lambda _: next(drawn))
    put(site.settings, *(pair(f"item-{n:02}") for n in range(12)))
    page = site.visit("ann")
    expected = {}
    for n in range(12):
        place, key = ((0, "a"), (1, "b"))[n % 2]
        text = page.locator(".side").nth(place).locator(".text").inner_text()
        expected[item_of(page)] = (text[-1], n % 3 + 1)
        press(page, key, str(n % 3 + 1), "Enter")
    found = site.rows("select queue_item_id, preferred, strength, is_swapped from {}.labels")
    assert {row[0]: row[1:3] for row in found} == expected
    assert {row[3] for row in found} == {True, False}


def test_a_tie_needs_no_strength_and_a_preference_does(site):
    put(site.settings, pair("one"), pair("two"))
    page = site.visit("ann")
    page.keyboard.press("Enter")
    assert "which one is better" in page.get_by_role("alert").inner_text()
    page.keyboard.press("b")
    page.keyboard.press("Enter")
    assert "by how much" in page.get_by_role("alert").inner_text()
    press(page, "2", "t", "Enter")
    assert site.rows("select preferred, strength from {}.labels") == [("tie", None)]


def test_what_the_script_lets_through_the_server_does_not(site):
    put(site.settings, trajectory("one"))
    page = site.visit("ann")
    seen = {name: page.locator(f"[name={name}]").input_value() for name in ("item", "content")}
    (cookie,) = page.context.cookies(site.address + "/review")
    headers = {"Cookie": f"{cookie['name']}={cookie['value']}", "Origin": site.address}
    for wrong, said in (
        ({}, "give a score"),
        ({"score": "6"}, "give a score"),
        ({"score": "x"}, "is no number"),
        ({"score": "-1"}, "is no number"),
        ({"score": "3", "category": "<b>x"}, "there is no category &lt;b&gt;x"),
        ({"score": "3", "comment": "x" * 10_001}, "at most 10,000 characters"),
        ({"item": "other", "score": "3"}, "never shown to you"),
        ({"content": "0" * 64, "score": "3"}, "has changed"),
    ):
        status, _, body = ask(site, "/review/label", headers, form={**seen, **wrong})
        assert (status in (409, 422), said in body) == (True, True), wrong
    assert site.rows("select count(*) from {}.labels") == [(0,)]


def test_two_reviewers_at_once_never_have_the_same_item(site):
    put(site.settings, *(trajectory(f"item-{n:02}") for n in range(11)))
    pages = [site.visit("ann"), site.visit("bob")]
    judged = []
    for turn in range(11):
        items = [item_of(page) for page in pages if page.locator("#verdict").count()]
        assert len(set(items)) == len(items)
        page = pages[turn % 2]
        if not page.locator("#verdict").count():
            page = pages[(turn + 1) % 2]
        page.reload()
        judged.append(item_of(page))
        press(page, "5", "Enter")
    assert sorted(judged) == [f"item-{n:02}" for n in range(11)]
    assert site.rows("select count(distinct queue_item_id), count(*) from {}.labels") == [(11, 11)]


def test_an_item_goes_to_others_when_its_reviewer_is_away(site):
    put(site.settings, trajectory("one"))
    ann, bob = site.visit("ann"), site.visit("bob")
    assert bob.get_by_role("heading", name="Nothing to judge").is_visible()
    site.rows("update {}.locks set expires_at = now() - interval '1 second'")
    bob.reload()
    assert item_of(bob) == "one"
    press(ann, "3", "Enter")
    assert "somebody else has that item open" in ann.get_by_role("alert").inner_text()
    press(bob, "4", "Enter")
    assert site.rows("select reviewer, score from {}.labels") == [("bob", 4)]


def test_who_reads_keeps_the_item_and_who_does_nothing_does_not(site):
    put(site.settings, trajectory("one"))
    page = site.visit("ann", clock=True)
    expires = "select expires_at from {}.locks"
    before = site.rows(expires)
    page.clock.run_for(250_000)
    page.clock.run_for(250_000)
    assert site.rows(expires) == before
    page.keyboard.press("j")
    with page.expect_response(lambda answer: answer.url.endswith("/review/renew")) as renewed:
        page.clock.run_for(250_000)
    assert renewed.value.status == 204
    assert site.rows(expires) > before
    site.rows("delete from {}.locks")
    page.keyboard.press("j")
    page.clock.run_for(250_000)
    page.get_by_text("You were away for long.").wait_for()


def test_hostile_text_is_shown_and_does_nothing(site):
    call = {"id": "c1", "function": {"name": HOSTILE[0], "arguments": json.dumps(HOSTILE)}}
    messages = [
        {"role": "system", "content": HOSTILE[3]},
        *(user(text) for text in HOSTILE),
        assistant(ACTING, tool_calls=[call]),
        {"role": "tool", "tool_call_id": "c1", "name": HOSTILE[1], "content": HOSTILE[2]},
        assistant([{"type": "text", "text": HOSTILE[4]}, {"type": HOSTILE[5]}]),
        {"role": HOSTILE[0], "content": RIGHT_TO_LEFT},
    ]
    put(site.settings, trajectory('one"><b>&', *messages))
    page = site.visit("ann")
    assert page.evaluate("window.hacked") is None
    shown = page.locator(".text").all_inner_texts()
    assert shown[: len(HOSTILE) + 1] == [HOSTILE[3], *HOSTILE]
    assert ACTING_SHOWN in shown
    assert RIGHT_TO_LEFT in shown
    assert page.locator(".text > .escape").count() >= 9
    inside = page.evaluate(
        "[...document.querySelectorAll('.message *')].map(e => e.tagName).filter("
        "t => !['H3', 'P', 'DIV', 'SPAN', 'A'].includes(t))"
    )
    assert inside == []
    assert page.locator("h1").count() == 1
    assert page.locator("iframe, img, svg, style, script:not([src])").count() == 0
    direction = page.locator(".text", has_text=RIGHT_TO_LEFT).evaluate(
        "e => [getComputedStyle(e).direction, getComputedStyle(e.parentElement).direction]"
    )
    assert direction == ["rtl", "ltr"]
    press(page, "3", "Enter")
    assert site.rows("select queue_item_id, score from {}.labels") == [('one"><b>&', 3)]


def test_a_message_of_a_megabyte_is_folded_and_complete_on_demand(site):
    long = "".join(f"{n:06} <b>\u202e\n" for n in range(90_000))
    assert len(long) > 1_000_000
    put(site.settings, trajectory("one", user("short"), assistant(long), user("end")))
    page = site.visit("ann")
    text = page.locator(".text").nth(1)
    assert len(text.inner_text()) < 4_000
    assert len(page.content()) < 40_000
    more = page.get_by_role("link", name="Show the other")
    more.click()
    more.wait_for(state="detached")
    assert text.evaluate("e => e.textContent") == long.replace("\u202e", "\\u202e")
    assert text.evaluate("e => e.childElementCount") == 0


def test_the_judgement_is_blind(settings, browser):
    put(
        settings,
        pair("one", reason="the judge doubts", context=[user("hello")]),
        trajectory("two", assistant("hi", name="qwen2.5-7b", model="qwen2.5-7b"), reason="odd"),
    )
    with opened(replace(settings, review_labels="2"), browser) as site:
        bob = site.visit("bob")
        press(bob, "a", "1", "Enter")
        bob.get_by_role("button", name="Log out bob").click()
        page = site.visit("ann")
        for _ in range(2):
            shown = page.content()
            for told in ("leaf-", "one-a", "pair-one", "qwen", "doubts", "odd", "support", "bob"):
                assert told not in shown
            keys = ("t", "Enter") if page.locator("[name=preferred]").count() else ("3", "Enter")
            press(page, *keys)


def test_long_contexts_begin_with_what_was_said_last(site):
    context = [user(f"message {n}") for n in range(10)]
    put(site.settings, pair("one", context=context))
    page = site.visit("ann")
    assert page.get_by_text("message 9").is_visible()
    assert not page.get_by_text("message 0").is_visible()
    page.get_by_text("6 earlier messages").click()
    assert page.get_by_text("message 0").is_visible()
    for _ in range(20):
        page.keyboard.press("j")
    page.keyboard.press("k")
    assert page.locator(".message.current").inner_text().startswith("Assistant")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 1280])
def test_it_fits_narrow_screens_and_both_colour_schemes(site, width, scheme):
    put(site.settings, pair("one", a="x" * 1_500, b="word " * 300))
    page = site.visit("ann", viewport={"width": width, "height": 800}, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    left, right = (page.locator(".side").nth(n).bounding_box() for n in (0, 1))
    assert (left["y"] == right["y"]) == (width == 1280)
    red, *_ = page.evaluate(
        "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)"
    )
    assert (red > 128) == (scheme == "light")
    contrasts = page.evaluate(CONTRASTS)
    assert len(contrasts) > 20
    assert min(contrasts) >= 4.5


def test_every_control_has_a_name_and_can_be_reached(site):
    put(site.settings, trajectory("one"))
    page = site.visit("ann")
    unnamed = page.evaluate(
        "[...document.querySelectorAll('input:not([type=hidden]), textarea, button, progress')]"
        ".filter(e => !(e.labels && e.labels.length) && !e.textContent.trim()).length"
    )
    assert unnamed == 0
    reached = set()
    for _ in range(20):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("(document.activeElement.id || document.activeElement.name)"))
    assert {"comment", "save", "skip", "score", "category"} <= reached
    press(page, "u")
    assert "nothing to undo" in page.get_by_role("alert").inner_text()


def test_who_logs_out_or_is_removed_sees_nothing_any_more(site):
    put(site.settings, trajectory("one"))
    page = site.visit("ann")
    page.get_by_role("button", name="Log out ann").click()
    page.goto(f"{site.address}/review")
    assert page.url.endswith("/review/login")
    page = site.visit("bob")
    assert item_of(page) == "one"
    site.rows("update {}.reviewers set is_active = false where reviewer = 'bob'")
    page.reload()
    assert page.url.endswith("/review/login")


# WCAG 2.1, "contrast ratio" and "relative luminance", of every text that is shown.
CONTRASTS = """
(() => {
  const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, n) => sum + v * [0.2126, 0.7152, 0.0722][n], 0);
  const behind = (e) => {
    for (let at = e; at; at = at.parentElement) {
      const color = rgb(getComputedStyle(at).backgroundColor);
      if (color.length < 4 || color[3] > 0) return color;
    }
    return [255, 255, 255];
  };
  return [...document.querySelectorAll('body *')]
    .filter((e) => e.offsetParent)
    .filter((e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()))
    .map((e) => {
      const [a, b] = [light(rgb(getComputedStyle(e).color)), light(behind(e))];
      return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    });
})()
"""


def ask(site: Site, path: str, headers=None, form=None):
    """Ask without a browser; gives status, headers and text."""
    data = None if form is None else urllib.parse.urlencode(form).encode()
    request = urllib.request.Request(site.address + path, data, headers or {})
    opener = urllib.request.build_opener(_NoRedirects)
    try:
        with opener.open(request) as answer:
            return answer.status, answer.headers, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read().decode()


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_):
        return None
