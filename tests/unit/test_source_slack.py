"""A workspace export: what its records mean, and what kind of ZIP is refused."""

import json
import zipfile
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from dlt_sources import archives
from dlt_sources.quarantine import Reject
from dlt_sources.slack.archive import Export
from dlt_sources.slack.messages import Conversations
from dlt_sources.slack.settings import CHANNELS, MESSAGES
from loreline.errors import LorelineError

NOW = datetime(2026, 10, 1, tzinfo=UTC)
DAY = "2026-09-30"
# 2026-09-30 12:00:00 UTC
NOON = 1790769600


def ts(seconds=0, micro=100):
    return f"{NOON + seconds}.{micro:06d}"


def message(seconds=0, **fields):
    return {"type": "message", "user": "U1", "text": "hello", "ts": ts(seconds), **fields}


def files(**days):
    """An export with one public channel, C1 `general`, and its day files."""
    return {
        "channels.json": [{"id": "C1", "name": "general", "members": ["U1", "U2"]}],
        "users.json": [{"id": "U1", "name": "ada"}],
        **{f"general/{day}.json": messages for day, messages in days.items()},
    }


def unpacked(folder: Path, content) -> Path:
    for name, value in content.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(value if isinstance(value, bytes) else json.dumps(value).encode())
    return folder


def packed(path: Path, content) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive_file:
        for name, value in content.items():
            info = zipfile.ZipInfo(name, (2026, 10, 2, 3, 4, 6))
            info.compress_type = zipfile.ZIP_DEFLATED
            raw = value if isinstance(value, bytes) else json.dumps(value).encode()
            archive_file.writestr(info, raw)
    return path


@pytest.fixture(params=["zip", "folder", "zip with a folder inside"])
def conversations(request, tmp_path):
    def open_export(content):
        if request.param == "folder":
            return Conversations(Export(unpacked(tmp_path / "export", content)), NOW)
        if request.param == "zip with a folder inside":
            content = {f"Acme export/{name}": value for name, value in content.items()}
            content["__MACOSX/Acme export/._channels.json"] = b"\0"
        return Conversations(Export(packed(tmp_path / "export.zip", content)), NOW)

    return open_export


def good(items):
    return [item for item in items if not isinstance(item, Reject)]


def bad(items):
    return [item for item in items if isinstance(item, Reject)]


def test_messages_have_their_channel_and_their_ts_as_text(conversations):
    found = conversations(files(**{DAY: [message(), message(1, edited={"ts": ts(60)})]}))
    first, second = found.messages()
    assert first.external_id == f"C1:{ts()}"
    assert first.payload == message() | {"channel": "C1"}
    assert first.source_updated_at == datetime(2026, 9, 30, 12, 0, 0, 100, tzinfo=UTC)
    assert second.source_updated_at == datetime(2026, 9, 30, 12, 1, 0, 100, tzinfo=UTC)
    assert first.observed_at == NOW
    assert found.days == {date(2026, 9, 30)}
    assert found.channels_read == {"C1"}
    assert found.days_are_utc


def test_each_list_of_conversations_is_a_kind(conversations):
    found = conversations(
        {
            "channels.json": [{"id": "C1", "name": "a"}, {"id": "C2", "is_private": True}],
            "groups.json": [{"id": "G1", "name": "b", "members": ["U1"]}],
            "dms.json": [{"id": "D1", "members": ["U1", "U2"]}],
            "mpims.json": [{"id": "G2", "name": "mpdm-a--b-1"}],
            "D1/2026-09-30.json": [message()],
            "mpdm-a--b-1/2026-09-30.json": [message()],
            "integration_logs.json": [{"service_id": "1"}],
        }
    )
    kinds = {c.external_id: c.payload["kind"] for c in found.channels()}
    assert kinds == {"C1": "public", "C2": "private", "G1": "private", "D1": "dm", "G2": "dm"}
    assert {m.external_id for m in found.messages()} == {f"D1:{ts()}", f"G2:{ts()}"}


def test_envelopes_change_the_messages_that_they_name(conversations):
    changed = message(1) | {"text": "better", "edited": {"ts": ts(50), "user": "U1"}}
    found = conversations(
        files(
            **{
                DAY: [
                    message(1),
                    {
                        "subtype": "message_changed",
                        "ts": ts(50),
                        "message": changed,
                    },
                    {
                        "type": "message",
                        "subtype": "message_deleted",
                        "ts": ts(70),
                        "deleted_ts": ts(2),
                        "previous_message": message(2),
                    },
                    {
                        "type": "message",
                        "subtype": "message_deleted",
                        "ts": ts(80),
                        "deleted_ts": ts(3),
                    },
                    message(4, subtype="tombstone", text="This message was deleted."),
                ]
            }
        )
    )
    original, edit, deletion, silent, tombstone = found.messages()
    assert edit.external_id == original.external_id
    assert edit.payload == changed | {"channel": "C1"}
    assert edit.source_updated_at > original.source_updated_at
    assert (deletion.external_id, deletion.is_deleted) == (f"C1:{ts(2)}", True)
    assert deletion.payload == message(2) | {"channel": "C1"}
    assert deletion.source_updated_at == datetime(2026, 9, 30, 12, 1, 10, 100, tzinfo=UTC)
    assert (silent.external_id, silent.is_deleted, silent.payload) == (f"C1:{ts(3)}", True, None)
    assert tombstone.is_deleted


WRONG = [
    ([], "wrong_type"),
    ("text", "wrong_type"),
    ({"type": "message", "text": "no ts"}, "missing_id"),
    (message() | {"ts": 1790683200.1}, "wrong_type"),
    (message() | {"ts": "noon"}, "wrong_type"),
    (message() | {"text": 5}, "wrong_type"),
    (message() | {"edited": "yes"}, "wrong_type"),
    (message() | {"thread_ts": 5}, "wrong_type"),
    (message() | {"thread_ts": "soon"}, "wrong_type"),
    (message() | {"subtype": "message_changed"}, "wrong_type"),
    (message() | {"subtype": "message_deleted"}, "missing_id"),
]


@pytest.mark.parametrize(("value", "reason"), WRONG)
def test_what_is_no_message_is_set_aside_and_keeps_its_day_from_the_sweep(tmp_path, value, reason):
    content = files(**{DAY: [message(1), value, message(2)]})
    found = Conversations(Export(unpacked(tmp_path, content)), NOW)
    items = list(found.messages())
    assert [m.payload["ts"] for m in good(items)] == [ts(1), ts(2)]
    assert [(r.reason, json.loads(r.raw)) for r in bad(items)] == [(reason, value)]
    assert found.unreadable == {("C1", date(2026, 9, 30))}


def test_a_broken_day_file_gives_what_can_be_read(tmp_path):
    content = files(
        **{DAY: b'[{"ts": "1.1", "text": "a"}, {"ts": "1.2", "text": "\xff"}, {"ts": "1.3"}]'}
    )
    found = Conversations(Export(unpacked(tmp_path, content)), NOW)
    items = list(found.messages())
    assert [m.external_id for m in good(items)] == ["C1:1.1", "C1:1.3"]
    assert [r.reason for r in bad(items)] == ["invalid_utf8"]
    assert found.unreadable


def test_a_folder_of_no_channel_is_set_aside_whole(tmp_path):
    content = files() | {"stray/2026-09-30.json": [message()]}
    (reject,) = Conversations(Export(unpacked(tmp_path, content)), NOW).messages()
    assert reject.reason == "unknown_channel"
    assert json.loads(reject.raw) == [message()]


def test_days_that_are_not_utc_are_noticed(tmp_path):
    late = message() | {"ts": f"{NOON + 13 * 3600}.000001"}
    found = Conversations(Export(unpacked(tmp_path, files(**{DAY: [late]}))), NOW)
    list(found.messages())
    assert not found.days_are_utc


def test_channels_and_users_without_an_id_are_set_aside(tmp_path):
    content = {
        "channels.json": [{"name": "a"}, {"id": 5}, {"id": "C1", "name": "general"}],
        "users.json": [{"name": "x"}, {"id": "U1", "updated": 1790769600}],
    }
    found = Conversations(Export(unpacked(tmp_path, content)), NOW)
    assert [r.reason for r in bad(found.channels())] == ["missing_id", "wrong_type"]
    assert [r.reason for r in bad(found.users())] == ["missing_id"]
    (user,) = good(found.users())
    assert user.source_updated_at == datetime(2026, 9, 30, 12, tzinfo=UTC)


def test_the_time_of_an_export_is_told_or_that_of_its_newest_file(tmp_path):
    zipped = Export(packed(tmp_path / "a.zip", files()))
    assert zipped.observed_at() == datetime(2026, 10, 2, 3, 4, 6, tzinfo=UTC)
    told = files() | {"export.json": {"exported_at": "2026-10-05T00:00:00Z", "complete": False}}
    zipped = Export(packed(tmp_path / "b.zip", told))
    assert zipped.observed_at() == datetime(2026, 10, 5, tzinfo=UTC)
    assert not zipped.is_complete()
    folder = Export(unpacked(tmp_path / "c", files()))
    newest = max(path.stat().st_mtime for path in (tmp_path / "c").rglob("*.json"))
    assert folder.observed_at().timestamp() == pytest.approx(newest)
    assert folder.is_complete()


@pytest.mark.parametrize(
    "name", ["../channels.json", "/etc/channels.json", "a/../../b.json", "..\\b.json", "C:\\b.json"]
)
def test_a_zip_with_a_path_that_leads_out_is_refused(tmp_path, name):
    path = packed(tmp_path / "evil.zip", files() | {name: []})
    with pytest.raises(LorelineError, match="leads out of it"):
        Export(path)


def test_a_zip_bomb_is_refused_unread(tmp_path, monkeypatch):
    bomb = packed(tmp_path / "bomb.zip", files() | {"general/2026-09-30.json": b" " * 80_000_000})
    with pytest.raises(LorelineError, match="times its size"):
        Export(bomb)
    monkeypatch.setattr(archives, "MAX_MEMBER_BYTES", 1_000)
    with pytest.raises(LorelineError, match="holds 80000000 bytes"):
        Export(bomb)


def test_a_damaged_zip_and_a_missing_one_are_errors(tmp_path):
    path = packed(tmp_path / "a.zip", files(**{DAY: [message(n) for n in range(500)]}))
    raw = bytearray(path.read_bytes())
    (tmp_path / "cut.zip").write_bytes(raw[:-40])
    with pytest.raises(LorelineError, match="not a readable ZIP"):
        Export(tmp_path / "cut.zip")
    at = raw.index(b"general/") + 60
    raw[at : at + 200] = bytes(200)
    (tmp_path / "hurt.zip").write_bytes(raw)
    with pytest.raises(LorelineError, match="damaged"):
        list(Conversations(Export(tmp_path / "hurt.zip"), NOW).messages())
    with pytest.raises(LorelineError, match="nothing is at"):
        Export(tmp_path / "absent.zip")
    (tmp_path / "empty").mkdir()
    with pytest.raises(LorelineError, match="holds no Slack export"):
        Export(tmp_path / "empty")


def test_an_encrypted_zip_is_refused(tmp_path):
    path = packed(tmp_path / "a.zip", files())
    raw = bytearray(path.read_bytes())
    # Bit 0 of the general purpose flags, in the first entry of the central directory.
    raw[raw.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(raw)
    with pytest.raises(LorelineError, match="encrypted"):
        Export(path)


@pytest.mark.parametrize(
    ("members", "landed"),
    [(["U2", "U1", "U2"], ["U1", "U2"]), ("all", "all"), (["U2", 1], ["U2", 1]), ([], [])],
)
def test_members_are_sorted_and_what_is_none_is_left_to_the_contract(members, landed, tmp_path):
    content = files() | {"groups.json": [{"id": "G1", "name": "b", "members": members}]}
    found = Conversations(Export(unpacked(tmp_path, content)), NOW)
    [group] = [each for each in found.channels() if each.external_id == "G1"]
    assert group.payload["members"] == landed


def test_counters_and_tokens_are_no_version_and_members_are_metadata():
    before = message(reply_count=1, replies=[{"ts": "1"}], latest_reply="1", user_profile={"a": 1})
    before["files"] = [{"id": "F1", "url_private": "https://files.slack.com/f.png?t=xoxe-1-a"}]
    after = message(reply_count=2, reply_users=["U2"], subscribed=True)
    after["files"] = [{"id": "F1", "url_private": "https://files.slack.com/f.png?t=xoxe-2-b"}]
    assert MESSAGES.hashes(after) == MESSAGES.hashes(before)
    assert MESSAGES.hashes(after | {"text": "other"})[0] != MESSAGES.hashes(after)[0]
    channel = {"id": "C1", "name": "a", "members": ["U1"]}
    content, metadata = CHANNELS.hashes(channel)
    revoked = CHANNELS.hashes(channel | {"members": []})
    assert revoked[0] == content
    assert revoked[1] != metadata
