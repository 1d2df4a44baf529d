"""The pages on which people judge. Nothing in them needs more than forms; keys are in a script.

What is shown was written by strangers. It is put into the page as text by an escaping template,
and the page may load and run nothing but its own two files.
"""

# Annotations stay objects here: FastAPI finds no local names in texts.
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Annotated, Any
from urllib.parse import parse_qs, urlsplit

import jinja2
from fastapi import APIRouter, Depends, HTTPException, Request, Response
from fastapi.responses import HTMLResponse, PlainTextResponse, RedirectResponse

from loreline.postgres import connect
from loreline.review.categories import Category
from loreline.review.messages import RECENT_MESSAGES, complete_text, shown
from loreline.review.reviewers import LOGIN_LASTS, Reviewers
from loreline.review.store import ItemGoneError, OpenItem, Store, lock_seconds, wanted_labels
from loreline.review.verdicts import LONGEST_COMMENT, SCORES, STRENGTHS, Verdict, VerdictError
from loreline.settings import Settings

COOKIE = "loreline_review"
LARGEST_FORM = 256 * 1024
STATIC = {"review.css": "text/css", "review.js": "text/javascript"}
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';"
        " img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    # `no-referrer` would also hide from us where a form was sent from.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}

_PLACES = {"left": 0, "right": 1}
_FILES = files("loreline.review")
_TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("loreline.review"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)

Form = Mapping[str, list[str]]


@dataclass(frozen=True)
class Login:
    """Who asks, and what they may do."""

    reviewer: str
    session: str
    store: Store
    reviewers: Reviewers


@dataclass(frozen=True)
class Given:
    """What the form begins with: places, not sides."""

    preferred: str | None = None
    strength: int | None = None
    categories: Sequence[str] | None = None
    score: int | None = None
    comment: str | None = None


class _Asked:
    """What every request needs."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def reviewers(self) -> Iterator[Reviewers]:
        with connect(self._settings, autocommit=True) as connection:
            yield Reviewers(connection, self._settings)

    def login(self, request: Request) -> Iterator[Login]:
        """Who asks.

        Raises:
            HTTPException: nobody that we know; a page leads to the login.
        """
        session = request.cookies.get(COOKIE, "")
        with connect(self._settings, autocommit=True) as connection:
            reviewers = Reviewers(connection, self._settings)
            reviewer = reviewers.who(session) if session else None
            if reviewer is None:
                if request.method == "GET":
                    raise HTTPException(302, headers={"Location": "/review/login"})
                raise HTTPException(401, "log in first")
            yield Login(reviewer, session, Store(connection, self._settings), reviewers)


async def read_form(request: Request) -> Form:
    """The form of a request, which must come from our own pages.

    Raises:
        HTTPException: it comes from elsewhere, or is too large.
    """
    if not _is_ours(request):
        raise HTTPException(403, "this form was not sent from a page of this server")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST_FORM:
            raise HTTPException(413, "the form is too large")
    return parse_qs(body.decode(errors="replace"), keep_blank_values=True)


def review_router(settings: Settings, categories: Sequence[Category]) -> APIRouter:
    """The pages under `/review`.

    Args:
        settings: the stores.
        categories: what may be said of a trajectory.

    Raises:
        LorelineError: a setting of the review is none.
    """
    wanted_labels(settings)
    page = _Pages(categories, lock_seconds(settings))
    asked = _Asked(settings)
    router = APIRouter(prefix="/review", default_response_class=HTMLResponse)
    logged_in = Annotated[Login, Depends(asked.login)]
    form_of = Annotated[dict, Depends(read_form)]

    @router.get("/static/{name}")
    def static(name: str) -> Response:
        if name not in STATIC:
            raise HTTPException(404)
        content = _FILES.joinpath("static", name).read_bytes()
        return Response(content, media_type=STATIC[name])

    @router.get("/login")
    def login_page() -> Response:
        return page.login()

    @router.post("/login")
    def log_in(
        request: Request,
        form: form_of,
        reviewers: Annotated[Reviewers, Depends(asked.reviewers)],
    ) -> Response:
        session = reviewers.log_in(_one(form, "token").strip())
        if session is None:
            return page.login("That token is not known, or not any more.", 401)
        answer = _to_next()
        answer.set_cookie(
            COOKIE,
            session,
            max_age=int(LOGIN_LASTS.total_seconds()),
            path="/review",
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )
        return answer

    @router.post("/logout")
    def log_out(form: form_of, login: logged_in) -> Response:
        login.store.close(login.reviewer)
        login.reviewers.log_out(login.session)
        answer = RedirectResponse("/review/login", 303)
        answer.delete_cookie(COOKIE, path="/review")
        return answer

    @router.get("")
    def next_item(login: logged_in) -> Response:
        return page.item(login)

    @router.post("/label")
    def label(form: form_of, login: logged_in) -> Response:
        opened = login.store.opened(login.reviewer)
        queue_item_id = _one(form, "item")
        try:
            item = login.store.seen(queue_item_id, login.reviewer)
            verdict = _verdict(form, item)
            verdict.check(item.kind, page.category_names)
            login.store.label(queue_item_id, login.reviewer, _one(form, "content"), verdict)
        except VerdictError as error:
            is_open = opened is not None and opened.queue_item_id == queue_item_id
            return page.item(login, f"{error}.", 422, _given(form) if is_open else None)
        except ItemGoneError as error:
            return page.item(login, f"Not saved: {error}.", 409)
        return _to_next()

    @router.post("/skip")
    def skip(form: form_of, login: logged_in) -> Response:
        login.store.skip(_one(form, "item"), login.reviewer)
        return _to_next()

    @router.post("/skipped")
    def show_skipped(form: form_of, login: logged_in) -> Response:
        login.store.show_skipped(login.reviewer)
        return _to_next()

    @router.post("/undo")
    def undo(form: form_of, login: logged_in) -> Response:
        try:
            if login.store.undo(login.reviewer):
                return _to_next()
        except ItemGoneError as error:
            return page.item(login, f"Not undone: {error}.", 409)
        return page.item(login, "There is nothing to undo.", 409)

    @router.post("/renew")
    def renew(form: form_of, login: logged_in) -> Response:
        is_open = login.store.renew(_one(form, "item"), login.reviewer)
        return Response(status_code=204 if is_open else 409)

    @router.get("/text/{part}/{message}/{block}")
    def text(part: str, message: int, block: int, item: str, login: logged_in) -> Response:
        opened = login.store.opened(login.reviewer)
        if opened is None or opened.queue_item_id != item:
            raise HTTPException(410, "that item is not open any more")
        if part not in ("context", "0", "1") or min(message, block) < 0:
            raise HTTPException(404)
        try:
            return PlainTextResponse(complete_text(opened.messages(part)[message], block))
        except IndexError:
            raise HTTPException(404) from None

    return router


class _Pages:
    """Pages as responses."""

    def __init__(self, categories: Sequence[Category], lock_seconds: int) -> None:
        self.category_names = {each.category for each in categories}
        self._constants = {
            "categories": categories,
            "lock_seconds": lock_seconds,
            "scores": SCORES,
            "strengths": STRENGTHS,
            "longest_comment": LONGEST_COMMENT,
            "recent": RECENT_MESSAGES,
        }

    def login(self, notice: str | None = None, status: int = 200) -> Response:
        return self._page("login.html", status, notice=notice)

    def item(
        self,
        login: Login,
        notice: str | None = None,
        status: int = 200,
        given: Given | None = None,
    ) -> Response:
        """The item that the reviewer has open, or the next one; or that there is none."""
        item = login.store.take(login.reviewer)
        known = {
            "progress": login.store.progress(login.reviewer),
            "reviewer": login.reviewer,
            "notice": notice,
        }
        if item is None:
            return self._page("done.html", status, **known)
        return self._page(
            "item.html",
            status,
            **known,
            item=item,
            context=shown(item.context),
            sides=[shown(side) for side in item.sides],
            given=given or _as_shown(item),
        )

    def _page(self, template: str, status: int, **values: Any) -> Response:
        text = _TEMPLATES.get_template(template).render(self._constants | values)
        return HTMLResponse(text.encode(errors="replace"), status)


def _to_next() -> RedirectResponse:
    return RedirectResponse("/review", 303)


def _is_ours(request: Request) -> bool:
    """Whether a page of this server sent a form; browsers say it in one of two headers."""
    fetched_from = request.headers.get("sec-fetch-site")
    if fetched_from is not None:
        return fetched_from == "same-origin"
    origin = request.headers.get("origin", "")
    return bool(origin) and urlsplit(origin).netloc == request.headers.get("host")


def _one(form: Form, name: str) -> str:
    return form.get(name, [""])[-1].replace("\0", "")


def _number(form: Form, name: str) -> int | None:
    text = _one(form, name)
    if not text:
        return None
    if len(text) > 1 or not text.isascii() or not text.isdecimal():
        raise VerdictError(f"{name} is no number that can be chosen")
    return int(text)


def _verdict(form: Form, item: OpenItem) -> Verdict:
    """What a form says, of sides instead of places."""
    comment = _one(form, "comment").replace("\r\n", "\n").strip() or None
    if item.kind == "trajectory":
        return Verdict(
            categories=sorted(set(form.get("category", []))),
            score=_number(form, "score"),
            comment=comment,
        )
    place = _one(form, "preferred")
    preferred = place or None
    if place in _PLACES:
        preferred = "ab"[_PLACES[place] ^ item.is_swapped]
    strength = None if place == "tie" else _number(form, "strength")
    return Verdict(preferred=preferred, strength=strength, comment=comment)


def _given(form: Form) -> Given:
    """What a form said, to be shown in it again."""
    numbers = {
        name: int(value) if (value := _one(form, name)).isdecimal() else None
        for name in ("strength", "score")
    }
    return Given(
        preferred=_one(form, "preferred"),
        categories=form.get("category"),
        comment=_one(form, "comment"),
        **numbers,
    )


def _as_shown(item: OpenItem) -> Given:
    """What the reviewer said of the item before, of places instead of sides."""
    if item.before is None:
        return Given()
    preferred = item.before.preferred
    if preferred in ("a", "b"):
        preferred = ("left", "right")["ab".index(preferred) ^ item.is_swapped]
    return Given(**{**vars(item.before), "preferred": preferred})
