"""A simulator of Google Drive v3, Google Docs v1 and the token endpoint, for one service account.

What it takes from Google's documentation: the account has a log of changes, and so has each shared
drive; a log shows the newest change of each file; what changed in a folder or a drive is not told
of what lies in it; a file that has left a corpus is `removed` from its log, whoever may still read
it; files of shared drives come without `permissions`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any
from urllib.parse import unquote

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth import jwt

from tests.simulators.api import Answer, Asked

Json = Any

DOCUMENT = "application/vnd.google-apps.document"
FOLDER = "application/vnd.google-apps.folder"
ACCOUNT = "loreline@project.iam.gserviceaccount.com"
OWNER = "ana@example.com"
START = datetime(2026, 11, 1, tzinfo=UTC)
TOKEN = "a-given-token"


@cache
def key() -> tuple[str, bytes]:
    """A private key as PEM, and its public key."""
    made = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private = made.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    public = made.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return private.decode(), public


def credentials(url: str) -> str:
    """The key file of the account, whose tokens are fetched at `url`/token."""
    return json.dumps(
        {
            "type": "service_account",
            "client_email": ACCOUNT,
            "private_key": key()[0],
            "private_key_id": "1",
            "token_uri": f"{url}/token",
        }
    )


@dataclass
class Item:
    """A file or a folder.

    Attributes:
        parent: a folder, or a shared drive; None for the top of somebody's My Drive.
        shared: roles that are given on it, by address.
        texts: of its tabs; a document has at least one.
    """

    id: str
    name: str
    kind: str = DOCUMENT
    parent: str | None = None
    shared: dict[str, str] = field(default_factory=dict)
    texts: list[str] = field(default_factory=lambda: ["Plums"])
    trashed: bool = False
    version: int = 1
    modified: int = 0


@dataclass
class Workspace:
    """What there is, and what is told of it.

    Attributes:
        items: by id.
        drives: shared drives by id, with the roles of their members.
        page: entries of a list at most, whatever is asked for.
        limited: numbers of requests that are too many, said with status 403.
        hidden: whether shared drives do not even tell the ids of permissions.
        hostile: answers of documents.get by id, instead of documents.
        refused: statuses and reasons of documents.get by id.
        notice: called before each answer, with the request: edits during a walk.
    """

    items: dict[str, Item] = field(default_factory=dict)
    drives: dict[str, dict[str, str]] = field(default_factory=dict)
    page: int = 1000
    limited: set[int] = field(default_factory=set)
    hidden: bool = False
    is_token_needed: bool = False
    hostile: dict[str, Json] = field(default_factory=dict)
    refused: dict[str, tuple[int, str]] = field(default_factory=dict)
    channels: list[Json] = field(default_factory=list)
    tokens: set[str] = field(default_factory=lambda: {TOKEN})
    logs: dict[str, dict[str, int]] = field(default_factory=lambda: {"": {}})
    forgotten: set[str] = field(default_factory=set)
    notice: Any = None
    ticks: int = 0
    requests: int = 0
    _made: int = 0

    # What people do

    def create(
        self,
        name: str = "Notes",
        parent: str | None = None,
        *,
        kind: str = DOCUMENT,
        shared: Mapping[str, str] | None = None,
    ) -> str:
        self._made += 1
        item = Item(f"{'f' if kind == FOLDER else 'd'}{self._made}", name, kind, parent)
        if parent is None:
            item.shared = {OWNER: "owner", ACCOUNT: "writer"}
        item.shared |= shared or {}
        item.modified = self._tick()
        self.items[item.id] = item
        self._tell(item.id)
        return item.id

    def edit(self, identity: str, *texts: str) -> None:
        item = self.items[identity]
        item.texts = list(texts) or [f"Text {self.ticks}"]
        item.modified = self._tick()
        self._tell(identity)

    def rename(self, identity: str, name: str) -> None:
        """This changes no time of modification."""
        self.items[identity].name = name
        self._tell(identity)

    def move(self, identity: str, parent: str | None) -> None:
        with self._changing(identity):
            self.items[identity].parent = parent
            if parent is None:
                self.items[identity].shared.setdefault(OWNER, "owner")

    def trash(self, identity: str, *, trashed: bool = True) -> None:
        with self._changing(identity):
            self.items[identity].trashed = trashed

    def share(self, identity: str, address: str, role: str | None = "reader") -> None:
        """Give a role, or take it with None."""
        with self._changing(identity):
            shared = self.items[identity].shared
            shared.pop(address, None)
            if role:
                shared[address] = role

    def delete(self, identity: str) -> None:
        """For good, with what is in it."""
        logs = self._logs_of(identity)
        below = [i for i in self.items if identity in self._chain(i)]
        self._tick()
        for each in below:
            del self.items[each]
        self._note(logs, identity)

    def add_drive(self, *, is_member: bool = True) -> str:
        self._made += 1
        drive = f"drive{self._made}"
        self.drives[drive] = {OWNER: "organizer"}
        self.logs[drive] = {}
        if is_member:
            self.join(drive)
        return drive

    def join(self, drive: str, address: str = ACCOUNT, role: str | None = "reader") -> None:
        """Make somebody a member, or no longer one with None."""
        was = ACCOUNT in self.drives[drive]
        self.drives[drive].pop(address, None)
        if role:
            self.drives[drive][address] = role
        self._tick()
        self._note({drive}, f"drive:{drive}")
        if was != (ACCOUNT in self.drives[drive]):
            self._note({""}, f"drive:{drive}")

    # What is there for the account

    def expected(self) -> dict[str, tuple[Json, ...]]:
        """Name, place, readers and text of each file that the account can see, by id."""
        return {
            i: (
                self.items[i].name,
                self._shown_parents(i),
                self.drive_of(i),
                self._readers(i),
                None if self.items[i].kind == FOLDER else tuple(self.items[i].texts),
            )
            for i in self.items
            if self.is_seen(i) and not self.is_trashed(i)
        }

    def is_seen(self, identity: str) -> bool:
        return identity in self.items and ACCOUNT in self._granted(identity)

    def is_trashed(self, identity: str) -> bool:
        return any(self.items[i].trashed for i in self._chain(identity) if i in self.items)

    def drive_of(self, identity: str) -> str | None:
        top = self._chain(identity)[-1]
        return top if top in self.drives else None

    # The server

    def answer(self, asked: Asked) -> Answer:
        self.requests += 1
        if self.notice:
            self.notice(asked)
        if asked.path == "/token":
            return self._token(asked)
        if self.requests - 1 in self.limited:
            return _error(403, "userRateLimitExceeded")
        given = asked.headers.get("authorization", "").removeprefix("Bearer ")
        if given not in self.tokens:
            return _error(401, "authError")
        path = [unquote(part) for part in asked.path.strip("/").split("/")]
        match path:
            case ["v1", "documents", identity]:
                return self._document(identity, asked.query)
            case ["drive", "v3", "changes", "startPageToken"]:
                return self._start_token(asked.query)
            case ["drive", "v3", "changes", "watch"] if asked.method == "POST":
                return self._watch(asked)
            case ["drive", "v3", "channels", "stop"] if asked.method == "POST":
                return Answer({})
            case ["drive", "v3", "changes"]:
                return self._changes(asked.query)
            case ["drive", "v3", "drives"]:
                return self._drives(asked.query)
            case ["drive", "v3", "files"]:
                return self._files(asked.query)
            case ["drive", "v3", "files", identity]:
                if not self.is_seen(identity):
                    return _error(404, "notFound")
                return Answer(_masked(self._file(identity), asked.query.get("fields", "")))
            case ["drive", "v3", "files", identity, "permissions"]:
                return self._permissions(identity, asked.query)
        return _error(404, "notFound")

    def expire_tokens(self) -> None:
        self.tokens = {TOKEN}

    def _token(self, asked: Asked) -> Answer:
        try:
            claims = jwt.decode(asked.body["assertion"], certs=key()[1], verify=True)
        except (ValueError, KeyError):
            return Answer({"error": "invalid_grant", "error_description": "Invalid JWT"}, 400)
        if claims["iss"] != ACCOUNT or "drive.readonly" not in claims["scope"]:
            return Answer({"error": "invalid_scope"}, 400)
        token = f"token-{self.requests}"
        self.tokens.add(token)
        return Answer({"access_token": token, "expires_in": 3600, "token_type": "Bearer"})

    def _start_token(self, query: Mapping[str, str]) -> Answer:
        drive = query.get("driveId", "")
        if drive and not self._is_member(drive):
            return _error(404, "notFound")
        return Answer({"startPageToken": f"{drive}:{self.ticks}"})

    def _changes(self, query: Mapping[str, str]) -> Answer:
        drive = query.get("driveId", "")
        if drive and not self._is_member(drive):
            return _error(404, "notFound")
        corpus, _, number = query.get("pageToken", "").rpartition(":")
        if corpus != drive or not number.isdecimal() or query["pageToken"] in self.forgotten:
            return _error(400, "invalid")
        entries = sorted((n, i) for i, n in self.logs[drive].items() if n > int(number))
        count = min(self.page, int(query.get("pageSize", 100)))
        page, more = entries[:count], entries[count:]
        body: dict[str, Json] = {"changes": [self._change(i, drive, query) for _, i in page]}
        if more:
            body["nextPageToken"] = f"{drive}:{page[-1][0]}"
        else:
            body["newStartPageToken"] = f"{drive}:{self.ticks}"
        return Answer(_masked(body, query.get("fields", "")))

    def _change(self, identity: str, drive: str, query: Mapping[str, str]) -> Json:
        if identity.startswith("drive:"):
            changed = identity.removeprefix("drive:")
            return {
                "changeType": "drive",
                "driveId": changed,
                "removed": not self._is_member(changed),
            }
        removed = not self.is_seen(identity) or self._corpus(identity) != drive
        change = {"changeType": "file", "fileId": identity, "removed": removed}
        if not removed or (query.get("includeCorpusRemovals") == "true" and self.is_seen(identity)):
            change["file"] = self._file(identity)
        return change

    def _drives(self, query: Mapping[str, str]) -> Answer:
        drives = sorted(d for d in self.drives if self._is_member(d))
        return self._paged("drives", [{"id": d, "name": d} for d in drives], query, 100)

    def _files(self, query: Mapping[str, str]) -> Answer:
        drive = query.get("driveId", "")
        if (query.get("corpora") == "drive") != bool(drive):
            return _error(400, "invalid")
        if drive and not self._is_member(drive):
            return _error(404, "notFound")
        q = query.get("q", "")
        kinds = re.findall(r"mimeType = '([^']*)'", q)
        parent = re.match(r"'((?:[^'\\]|\\.)*)' in parents", q)
        begin = query.get("pageToken", "")
        count = min(self.page, int(query.get("pageSize", 100)))
        found = []
        for i in sorted(self.items):
            item = self.items[i]
            if (
                i > begin
                and item.kind in kinds
                and (not parent or item.parent == parent[1])
                and self.is_seen(i)
                and self._corpus(i) == drive
            ):
                found.append(i)
                if len(found) > count:
                    break
        body: dict[str, Json] = {"files": [self._file(i) for i in found[:count]]}
        if len(found) > count:
            body["nextPageToken"] = found[count - 1]
        return Answer(_masked(body, query.get("fields", "")))

    def _permissions(self, identity: str, query: Mapping[str, str]) -> Answer:
        if not self.is_seen(identity):
            return _error(404, "notFound")
        if not self.drive_of(identity) and not self._may_share(identity):
            return _error(403, "insufficientFilePermissions")
        return self._paged("permissions", self._permission_list(identity), query, 100)

    def _document(self, identity: str, query: Mapping[str, str]) -> Answer:
        if identity in self.refused:
            return _error(*self.refused[identity])
        if identity in self.hostile:
            return Answer(self.hostile[identity])
        if not self.is_seen(identity) or self.items[identity].kind != DOCUMENT:
            return _error(404, "NOT_FOUND")
        assert query["includeTabsContent"] == "true"
        item = self.items[identity]
        return Answer(
            {
                "documentId": identity,
                "title": item.name,
                "revisionId": f"r{self.requests}",
                "suggestionsViewMode": query["suggestionsViewMode"],
                "tabs": [_tab(n, text) for n, text in enumerate(item.texts)],
            }
        )

    def _watch(self, asked: Asked) -> Answer:
        channel = dict(asked.body)
        drive = asked.query.get("driveId", "")
        if not asked.query.get("pageToken") or channel.get("type") != "web_hook":
            return _error(400, "required")
        self.channels.append(channel | {"driveId": drive})
        expires = int(channel.get("expiration") or 0)
        return Answer(
            {
                "kind": "api#channel",
                "id": channel["id"],
                "resourceId": f"resource of {drive}",
                "expiration": str(expires),
            }
        )

    def _paged(
        self, name: str, elements: list[Json], query: Mapping[str, str], most: int
    ) -> Answer:
        begin = int(query.get("pageToken", 0))
        end = begin + min(self.page, most, int(query.get("pageSize", 10)))
        body: dict[str, Json] = {name: elements[begin:end]}
        if end < len(elements):
            body["nextPageToken"] = str(end)
        return Answer(_masked(body, query.get("fields", "")))

    # How things are shown

    def _file(self, identity: str) -> Json:
        item, drive = self.items[identity], self.drive_of(identity)
        file = {
            "kind": "drive#file",
            "id": identity,
            "name": item.name,
            "mimeType": item.kind,
            "createdTime": _time(0),
            "modifiedTime": _time(item.modified),
            "trashed": self.is_trashed(identity),
            "webViewLink": f"https://docs.google.com/document/d/{identity}/edit",
            "lastModifyingUser": {"emailAddress": OWNER, "displayName": "Ana"},
            "version": str(item.version),
            "size": "1",
        }
        if parents := self._shown_parents(identity):
            file["parents"] = parents
        permissions = self._permission_list(identity)
        if not (drive and self.hidden):
            file["permissionIds"] = [p["id"] for p in permissions]
        if drive:
            file["driveId"] = drive
        else:
            file["owners"] = [{"emailAddress": OWNER, "displayName": "Ana"}]
            if self._may_share(identity):
                file["permissions"] = permissions
        return file

    def _readers(self, identity: str) -> tuple[str, ...] | None:
        """Who may read a file; None where the account is not told."""
        if self.items[identity].kind == FOLDER:
            return None
        if not self.drive_of(identity) and not self._may_share(identity):
            return None
        return tuple(sorted(p["emailAddress"] for p in self._permission_list(identity)))

    def _permission_list(self, identity: str) -> list[Json]:
        return [
            {
                "kind": "drive#permission",
                "id": f"p-{address}",
                "type": "user",
                "emailAddress": address,
                "role": role,
            }
            for address, role in sorted(self._granted(identity).items())
        ]

    def _granted(self, identity: str) -> dict[str, str]:
        """Roles on an item, those of the folders and the drive above it included."""
        granted: dict[str, str] = {}
        for above in reversed(self._chain(identity)):
            granted |= self.drives.get(above, {}) or (
                self.items[above].shared if above in self.items else {}
            )
        return granted

    def _may_share(self, identity: str) -> bool:
        return self._granted(identity).get(ACCOUNT) in ("writer", "owner", "organizer")

    def _shown_parents(self, identity: str) -> list[str] | None:
        parent = self.items[identity].parent
        if parent in self.drives:
            return [parent] if self._is_member(parent) else None
        return [parent] if parent and self.is_seen(parent) else None

    def _chain(self, identity: str) -> list[str]:
        """An item and what it lies in, up to the top."""
        chain = [identity]
        while chain[-1] in self.items and (parent := self.items[chain[-1]].parent):
            chain.append(parent)
        return chain

    def _is_member(self, drive: str) -> bool:
        return ACCOUNT in self.drives.get(drive, {})

    def _corpus(self, identity: str) -> str:
        """Whose log and whose lists an item is in."""
        drive = self.drive_of(identity)
        return drive if drive and self._is_member(drive) else ""

    # The logs

    def _tick(self) -> int:
        self.ticks += 1
        return self.ticks

    def _logs_of(self, identity: str) -> set[str]:
        logs = {self.drive_of(identity) or ""}
        if self.is_seen(identity):
            logs.add(self._corpus(identity))
        return logs

    def _tell(self, identity: str, also: set[str] | None = None) -> None:
        self._tick()
        self.items[identity].version += 1
        logs = self._logs_of(identity) | (also or set())
        self._note(logs, identity)

    def _note(self, logs: set[str], identity: str) -> None:
        for log in logs:
            self.logs[log][identity] = self.ticks

    def _changing(self, identity: str) -> _Changing:
        return _Changing(self, identity)

    def alone_below(self, identity: str) -> Iterator[str]:
        """Files in a folder that the account sees although it does not see the folder."""
        for i in self.items:
            chain = self._chain(i)
            if i != identity and identity in chain and self.is_seen(i):
                above = chain[1 : chain.index(identity) + 1]
                if not any(self.is_seen(a) for a in above):
                    yield i


class _Changing:
    """A change of one item, told of it alone where the account sees it, before or after."""

    def __init__(self, workspace: Workspace, identity: str) -> None:
        self.workspace, self.identity = workspace, identity

    def __enter__(self) -> None:
        self.logs = self.workspace._logs_of(self.identity)
        self.alone = set(self.workspace.alone_below(self.identity))
        self.seen = self.workspace.is_seen(self.identity)

    def __exit__(self, *_: object) -> None:
        workspace = self.workspace
        workspace._tell(self.identity, self.logs)
        if not (self.seen or workspace.is_seen(self.identity)):
            # Nothing above tells of them: they are as if shared by themselves.
            for each in self.alone | set(workspace.alone_below(self.identity)):
                workspace._note({workspace._corpus(each), ""}, each)


def _tab(number: int, text: str) -> Json:
    run = {"textRun": {"content": f"{text}\n", "textStyle": {}}}
    content = [{"startIndex": 1, "endIndex": 2, "paragraph": {"elements": [run]}}]
    return {
        "tabProperties": {"tabId": f"t.{number}", "title": f"Tab {number}", "index": number},
        "documentTab": {"body": {"content": content}},
    }


def texts(document: Json) -> tuple[str, ...]:
    """The texts of a document's tabs."""
    return tuple(
        tab["documentTab"]["body"]["content"][0]["paragraph"]["elements"][0]["textRun"][
            "content"
        ].removesuffix("\n")
        for tab in document["tabs"]
    )


def _time(tick: int) -> str:
    moment = START + timedelta(milliseconds=tick)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _error(status: int, reason: str) -> Answer:
    told = {"code": status, "message": f"no: {reason}", "errors": [{"reason": reason}]}
    return Answer({"error": told}, status)


def mask(fields: str) -> dict[str, Json]:
    """`a,b(c)` as {"a": {}, "b": {"c": {}}}."""
    tree: dict[str, Json] = {}
    stack, name = [tree], ""
    for sign in f"{fields},":
        if sign in ",()":
            branch = stack[-1].setdefault(name, {}) if name else {}
            name = ""
            if sign == "(":
                stack.append(branch)
            elif sign == ")":
                stack.pop()
        else:
            name += sign
    return tree


def _masked(value: Json, fields: str) -> Json:
    """As much of an answer as was asked for."""
    return _cut(value, mask(fields)) if fields else value


def _cut(value: Json, tree: Mapping[str, Json]) -> Json:
    if not tree:
        return value
    if isinstance(value, list):
        return [_cut(each, tree) for each in value]
    return {name: _cut(value[name], branch) for name, branch in tree.items() if name in value}
