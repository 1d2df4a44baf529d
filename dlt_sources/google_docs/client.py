"""The Drive API v3 and the Docs API v1, as far as they are asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import google.auth.exceptions
import google.auth.transport
import httpx2
from google.oauth2 import service_account

from dlt_sources.api import Api, ApiError, Patience, reasons, retry_after
from loreline.errors import LorelineError
from loreline.settings import Settings

Json = Any

# Shared drives are listed for this scope and for none that is smaller; documents are read with it.
SCOPE = "https://www.googleapis.com/auth/drive.readonly"
CREDENTIALS = "LORELINE_GOOGLE_CREDENTIALS"
DOCUMENT_TYPE = "application/vnd.google-apps.document"
FOLDER_TYPE = "application/vnd.google-apps.folder"
DOCUMENTS_AND_FOLDERS = f"(mimeType = '{DOCUMENT_TYPE}' or mimeType = '{FOLDER_TYPE}')"
# What lands of a file, which an export has too, and what tells whether it is still so.
LANDED_FIELDS = (
    "kind,id,name,mimeType,createdTime,modifiedTime,trashed,driveId,parents,webViewLink,owners,"
    "lastModifyingUser,permissions"
)
FILE_FIELDS = f"{LANDED_FIELDS},permissionIds,version"
PAGE = 1_000
DRIVES_PAGE = PERMISSIONS_PAGE = 100
AT_ONCE = 8
TOO_MANY = {"rateLimitExceeded", "userRateLimitExceeded", "RATE_LIMIT_EXCEEDED"}
# Refusals that are not about the one file that was asked for.
MISCONFIGURED = {
    "accessNotConfigured",
    "SERVICE_DISABLED",
    "insufficientPermissions",
    "ACCESS_TOKEN_SCOPE_INSUFFICIENT",
    "domainPolicy",
    "dailyLimitExceeded",
    "quotaExceeded",
}
ALL_DRIVES = {"supportsAllDrives": True, "includeItemsFromAllDrives": True}


class Google(Api):
    """A client of both APIs, in one pace. Threads may share it.

    Args:
        settings: the addresses, the rate and the credentials.
        patience: how long to wait.
        told: told in a line what is waited for.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        patience: Patience | None = None,
        told: Callable[[str], None] = lambda line: None,
    ) -> None:
        super().__init__(
            "Google",
            settings.google_url,
            {},
            rate=_rate(settings),
            at_once=AT_ONCE,
            credential=CREDENTIALS,
            patience=patience,
            told=told,
        )
        self._documents = f"{settings.google_docs_url.rstrip('/')}/v1/documents"
        self._client.auth = _authorization(settings, self.patience.timeout)

    def limited_for(self, status: int, headers: Mapping[str, str], body: Json) -> float | None:
        """Google says it with 403, too, and seldom for how long: each wait is longer then.

        Without JSON, a 403 is the page for those who ask for too much.
        """
        is_limit = body is None or TOO_MANY & set(reasons(body))
        if status in (429, 529) or (status == 403 and is_limit):
            return retry_after(headers, 0.0)
        return None

    def start_token(self, drive: str = "") -> str:
        """Where the log of changes of a shared drive, or else of the account, begins now."""
        answer = self.get(
            "/drive/v3/changes/startPageToken", driveId=drive or None, supportsAllDrives=True
        )
        return _text(answer, "startPageToken")

    def changes(self, token: str, drive: str = "") -> tuple[list[Json], str, bool]:
        """A page of a log of changes.

        Returns:
            The changes, where to go on, and whether there is more by now.
        """
        answer = self.get(
            "/drive/v3/changes",
            pageToken=token,
            driveId=drive or None,
            pageSize=PAGE,
            includeRemoved=True,
            includeCorpusRemovals=True,
            **ALL_DRIVES,
            fields="nextPageToken,newStartPageToken,"
            f"changes(changeType,removed,fileId,driveId,file({FILE_FIELDS}))",
        )
        changes = _elements(answer, "changes")
        if answer.get("nextPageToken"):
            return changes, _text(answer, "nextPageToken"), True
        return changes, _text(answer, "newStartPageToken"), False

    def files(
        self, condition: str, drive: str = "", fields: str = FILE_FIELDS
    ) -> Iterator[tuple[datetime, list[Json]]]:
        """Pages of the files that a condition holds for, each with when it was asked for.

        Args:
            condition: in Drive's language of queries.
            drive: a shared drive; otherwise those that the account owns or that are shared with it.
            fields: of each file.
        """
        token: str | None = None
        while True:
            asked_at = datetime.now(UTC)
            answer = self.get(
                "/drive/v3/files",
                q=condition,
                corpora="drive" if drive else "user",
                driveId=drive or None,
                pageSize=PAGE,
                pageToken=token,
                **ALL_DRIVES,
                fields=f"nextPageToken,incompleteSearch,files({fields})",
            )
            files = _elements(answer, "files")
            if answer.get("incompleteSearch"):
                raise LorelineError(
                    "Google could not list all files", "run this again later: nothing was deleted"
                )
            yield asked_at, files
            if not answer.get("nextPageToken"):
                return
            before, token = token, _text(answer, "nextPageToken")
            if token == before:
                raise _unexpected("the list of files does not end")

    def file(self, identity: str) -> Json:
        """One file.

        Raises:
            NotFoundError: it is deleted, or the account may not see it.
        """
        return self.get(
            f"/drive/v3/files/{quote(identity, safe='')}",
            supportsAllDrives=True,
            fields=FILE_FIELDS,
        )

    def permissions(self, identity: str) -> list[Json] | None:
        """Who may do what with a file; None where the account may not know.

        Raises:
            NotFoundError: the file is not there.
        """
        found: list[Json] = []
        token: str | None = None
        while True:
            try:
                answer = self.get(
                    f"/drive/v3/files/{quote(identity, safe='')}/permissions",
                    supportsAllDrives=True,
                    pageSize=PERMISSIONS_PAGE,
                    pageToken=token,
                    fields="nextPageToken,permissions",
                )
            except ApiError as error:
                if error.status == 403 and error.code not in MISCONFIGURED:
                    return None
                raise
            found += _elements(answer, "permissions")
            if not answer.get("nextPageToken"):
                return found
            before, token = token, _text(answer, "nextPageToken")
            if token == before:
                raise _unexpected("the list of permissions does not end")

    def drives(self) -> Iterator[str]:
        """Ids of the shared drives that the account is a member of."""
        token: str | None = None
        while True:
            answer = self.get(
                "/drive/v3/drives",
                pageSize=DRIVES_PAGE,
                pageToken=token,
                fields="nextPageToken,drives(id)",
            )
            for drive in _elements(answer, "drives"):
                yield _text(drive, "id")
            if not answer.get("nextPageToken"):
                return
            before, token = token, _text(answer, "nextPageToken")
            if token == before:
                raise _unexpected("the list of shared drives does not end")

    def document(self, identity: str) -> Json:
        """One document with all of its tabs.

        Raises:
            NotFoundError: it is not there.
            ApiError: Google does not give it, such as for its size.
        """
        return self.get(
            f"{self._documents}/{quote(identity, safe='')}",
            includeTabsContent=True,
            suggestionsViewMode="PREVIEW_WITHOUT_SUGGESTIONS",
        )

    def watch(self, token: str, drive: str, channel: Mapping[str, Json]) -> Json:
        """Have changes of a log told to an address."""
        return self.request(
            "POST",
            "/drive/v3/changes/watch",
            json=dict(channel),
            params={"pageToken": token, **ALL_DRIVES, **({"driveId": drive} if drive else {})},
        )


class _ServiceAccount(httpx2.Auth):
    """Signs requests with a token that is fetched anew before it ends, or once it is refused."""

    def __init__(self, credentials: service_account.Credentials, timeout: float) -> None:
        self._credentials = credentials
        self._client = httpx2.Client(timeout=timeout)
        self._lock = threading.Lock()

    def auth_flow(
        self, request: httpx2.Request
    ) -> Generator[httpx2.Request, httpx2.Response, None]:
        token = self._token()
        request.headers["authorization"] = f"Bearer {token}"
        answer = yield request
        if answer.status_code == 401:
            request.headers["authorization"] = f"Bearer {self._token(refused=token)}"
            yield request

    def _token(self, refused: str | None = None) -> str:
        with self._lock:
            if not self._credentials.valid or self._credentials.token == refused:
                self._refresh()
            return self._credentials.token

    def _refresh(self) -> None:
        try:
            self._credentials.refresh(self._post)
        except google.auth.exceptions.TransportError as error:
            # The client tells these apart from refusals, and waits.
            raise httpx2.TransportError(f"no token: {error}") from error
        except (google.auth.exceptions.GoogleAuthError, TypeError, ValueError) as error:
            why = error.args[0] if error.args else type(error).__name__
            raise ApiError(
                f"Google gives no token for the service account ({why})", f"check {CREDENTIALS}"
            ) from error

    def _post(
        self,
        url: str,
        method: str = "GET",
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        **_: Any,
    ) -> _Answer:
        """How google-auth asks for a token: what may pass is not tried again in here."""
        try:
            answer = self._client.request(method, url, content=body, headers=headers)
        except httpx2.HTTPError as error:
            raise google.auth.exceptions.TransportError(str(error)) from error
        if answer.status_code in (408, 429, 529) or answer.status_code >= 500:
            raise google.auth.exceptions.TransportError(f"status {answer.status_code}")
        try:
            answer.json()
        except ValueError as error:
            raise google.auth.exceptions.TransportError("the answer is not JSON") from error
        return _Answer(answer)


class _Answer(google.auth.transport.Response):
    """An answer as google-auth reads it."""

    def __init__(self, answer: httpx2.Response) -> None:
        self._answer = answer

    @property
    def status(self) -> int:
        return self._answer.status_code

    @property
    def headers(self) -> Mapping[str, str]:
        return self._answer.headers

    @property
    def data(self) -> bytes:
        return self._answer.content


class _AccessToken(httpx2.Auth):
    """Signs requests with the token that was given."""

    def __init__(self, token: str) -> None:
        self._token = token

    def auth_flow(
        self, request: httpx2.Request
    ) -> Generator[httpx2.Request, httpx2.Response, None]:
        request.headers["authorization"] = f"Bearer {self._token}"
        yield request


def quoted(text: str) -> str:
    """A text as a value in Drive's language of queries."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _authorization(settings: Settings, timeout: float) -> httpx2.Auth:
    given = settings.google_credentials.strip()
    if not given.endswith(".json") and "/" not in given:
        return _AccessToken(given)
    try:
        key = json.loads(Path(given).expanduser().read_text())
        if not isinstance(key, dict) or key.get("type") != "service_account":
            raise ValueError("it is not the key of a service account")
        made = service_account.Credentials.from_service_account_info(key, scopes=[SCOPE])
    except (OSError, ValueError) as error:
        # The text of the error may hold what the file does.
        why = error.strerror if isinstance(error, OSError) else "it is no key of a service account"
        raise LorelineError(
            f"no credentials of Google in {given} ({why})",
            f"{CREDENTIALS} is the JSON key of a service account, or an OAuth access token",
        ) from None
    return _ServiceAccount(made, timeout)


def _rate(settings: Settings) -> float:
    try:
        return max(0.0, float(settings.google_rate))
    except ValueError:
        raise LorelineError(
            f"LORELINE_GOOGLE_RATE is {settings.google_rate!r}, not a number",
            "write one, or unset it",
        ) from None


def _elements(answer: Json, name: str) -> Sequence[Json]:
    """A list of an answer, which may leave it out where it is empty."""
    listed = answer.get(name, []) if isinstance(answer, dict) else None
    if not isinstance(listed, list):
        raise _unexpected(f"an answer holds no list of {name}")
    return listed


def _text(answer: Json, name: str) -> str:
    found = answer.get(name) if isinstance(answer, dict) else None
    if not isinstance(found, str) or not found:
        raise _unexpected(f"an answer holds no {name}")
    return found


def _unexpected(what: str) -> LorelineError:
    return LorelineError(f"Google answers in a way that is not known: {what}", "run this again")
