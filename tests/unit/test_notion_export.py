"""Notion's export as Markdown and CSV: what its files mean, and what kind of ZIP is refused."""

import io
import json
import zipfile
from datetime import UTC, datetime

import pytest

from dlt_sources import archives
from dlt_sources.notion.export import find_export
from dlt_sources.quarantine import Reject
from loreline.errors import LorelineError
from loreline.knowledge.notion_export import export_markdown, same_text
from loreline.knowledge.notion_markdown import notion_markdown, notion_title

NOW = datetime(2026, 10, 1, tzinfo=UTC)


def hexadecimal(n):
    return f"{n:032x}"


def identity(n):
    text = hexadecimal(n)
    return "-".join([text[:8], text[8:12], text[12:16], text[16:20], text[20:]])


def name(title, n, suffix=".md"):
    return f"{title} {hexadecimal(n)}{suffix}"


def zipped(files):
    """The bytes of a ZIP of texts, bytes or further ZIPs by their paths."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, content in files.items():
            archive.writestr(path, zipped(content) if isinstance(content, dict) else content)
    return stream.getvalue()


def read(folder, files, *, as_folder=False):
    """Pages by number, rejects, and the export."""
    location = folder / "export.zip"
    if as_folder:
        location = folder / "export"
        for path, content in files.items():
            place = location / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content.encode() if isinstance(content, str) else content)
    else:
        location.write_bytes(zipped(files))
    export = find_export(location, folder, NOW)
    found = list(export.observations())
    pages = {
        int(item.external_id.replace("-", ""), 16): item
        for item in found
        if not isinstance(item, Reject)
    }
    return pages, [item for item in found if isinstance(item, Reject)], export


def title(page):
    return notion_title(json.dumps(page.payload))


def markdown(page):
    return notion_markdown(json.dumps(page.payload))


def parent(page):
    return (
        page.payload["page"]
        .get("parent", {})
        .get(page.payload["page"].get("parent", {}).get("type"))
    )


FILES = {
    name("Über uns 🚀", 1): "# Über uns 🚀\n\nWe sell plums, see [Team](U%CC%88ber/"
    + name("Team", 2).replace(" ", "%20")
    + ").\n",
    "Über uns 🚀/" + name("Team", 2): "# Team\n",
    # Folders have the id in older exports.
    "Über uns 🚀/" + name("Team", 2)[:-3] + "/" + name("Ana", 3): "# Ana\n\nHello.",
    "Über uns 🚀/" + name("A title that is longer than what fits into a na", 4): "# A title that is"
    " longer than what fits into a name of a file\n\ntext",
    "Über uns 🚀/" + name("Empty", 5): "",
    "Über uns 🚀/picture.png": b"\x89PNG",
    "Über uns 🚀/Backup-Part-1.zip": b"somebody's own, perhaps no ZIP at all",
    "Über uns 🚀/" + name("Tasks", 6, ".csv"): "\ufeffName,Status\r\nSame,Open\r\n",
    "Über uns 🚀/" + name("Tasks", 6, "_all.csv"): "\ufeffName,Status,Due,Blocks,Notes,Empty\r\n"
    'Same,Open,"October 1, 2026 2:30 PM",,"one, two",\r\nSame,Done,,,,\r\n'
    "Other,Done,,Same (Tasks/Same%20" + hexadecimal(7) + ".md),,\r\n",
    "Über uns 🚀/Tasks/" + name("Same", 7): "# Same\n\nStatus: Open\nDue: October 1, 2026 2:30 PM\n"
    "Notes: one, two\nand three\n\nColour: blue is text.",
    "Über uns 🚀/Tasks/" + name("Same", 8): "# Same\n\nStatus: Done\n",
    "Über uns 🚀/Tasks/" + name("Other", 9): "# Other\n\nNo property: a sentence.\n",
}


@pytest.mark.parametrize("shape", ["zip", "folder", "parts", "unpacked parts"])
def test_pages_their_parents_and_their_properties(tmp_path, shape):
    halves = [dict(list(FILES.items())[::2]), dict(list(FILES.items())[1::2])]
    parts = {f"Export-0a-1b-Part-{n}": half for n, half in enumerate(halves)}
    if shape == "parts":
        files = {f"{part}.zip": half for part, half in parts.items()}
    elif shape == "unpacked parts":
        files = {
            f"{part}/{path}": text for part, half in parts.items() for path, text in half.items()
        }
    else:
        files = FILES
    pages, rejects, export = read(tmp_path, files, as_folder=shape in ("folder", "unpacked parts"))
    assert rejects == []
    assert export.others == 2
    assert {n: (title(page), parent(page)) for n, page in pages.items()} == {
        1: ("Über uns 🚀", None),
        2: ("Team", identity(1)),
        3: ("Ana", identity(2)),
        4: ("A title that is longer than what fits into a name of a file", identity(1)),
        5: ("Empty", identity(1)),
        7: ("Same", identity(6)),
        8: ("Same", identity(6)),
        9: ("Other", identity(6)),
    }
    assert {page.observed_at for page in pages.values()} == {NOW}
    assert pages[9].payload["page"]["parent"]["type"] == "database_id"
    assert (
        markdown(pages[1]) == f"We sell plums, see [Team](https://www.notion.so/{hexadecimal(2)})."
    )
    assert markdown(pages[5]) == ""
    assert markdown(pages[7]) == (
        "- **Due:** 2026-10-01T14:30\n- **Notes:** one, two and three\n- **Status:** Open"
        "\n\nColour: blue is text."
    )
    assert markdown(pages[8]) == "- **Status:** Done"
    # Properties that only the CSV has; two rows of one title cannot be told apart there.
    assert markdown(pages[9]) == (
        f"- **Blocks:** <https://www.notion.so/{hexadecimal(7)}>\n- **Status:** Done"
        "\n\nNo property: a sentence."
    )


def test_what_cannot_be_read_is_set_aside_and_the_rest_is_there(tmp_path):
    damaged = bytearray(
        zipped({name("Damaged", 3): "# Damaged\n" + "x" * 50, name("Fine", 4): "# Fine"})
    )
    damaged[damaged.index(b"# ") if b"# " in damaged else 80] ^= 0xFF
    pages, rejects, _ = read(
        tmp_path,
        {
            name("Latin", 1): "# Straße".encode("latin-1"),
            name("Nul", 2): b"# Nul\0",
            "Readme.md": "# No page",
            name("Tasks", 5, ".csv"): "Name,Status\nGone,Open\nThere,Done\n",
            "Tasks/" + name("There", 6): "# There",
            "Export-0b-Part-1.zip": bytes(damaged),
            "Export-0b-Part-2.zip": {name("Last", 7): "# Last"},
        },
    )
    assert sorted(pages) == [4, 6, 7]
    found = {(item.reason, item.external_id) for item in rejects}
    assert found == {
        ("invalid_utf8", identity(1)),
        ("nul_byte", identity(2)),
        ("broken_archive", identity(3)),
        ("missing_id", None),
        ("missing_page", None),
    }
    (row,) = [item for item in rejects if item.reason == "missing_page"]
    assert json.loads(row.raw) == ["Gone"]


def test_two_parents_of_one_name_are_none(tmp_path):
    files = {
        name("Team", 1): "# Team",
        name("Team", 2): "# Team",
        "Team/" + name("Ana", 3): "# Ana",
    }
    pages, _, _ = read(tmp_path, files)
    assert parent(pages[3]) is None


def test_a_folder_without_pages_and_a_file_of_objects_are_no_export(tmp_path):
    (tmp_path / "a.json").write_text("{}")
    (tmp_path / "Readme.md").write_text("# Notes")
    assert find_export(tmp_path, tmp_path, None) is None
    assert find_export(tmp_path / "a.json", tmp_path, None) is None
    assert find_export(tmp_path / "absent", tmp_path, None) is None


def test_the_time_is_told_by_the_newest_member(tmp_path):
    path = tmp_path / "export.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for n, day in enumerate((3, 9, 6)):
            info = zipfile.ZipInfo(name("A", n), (2026, 10, day, 8, 0, 0))
            archive.writestr(info, "# A")
    assert find_export(path, tmp_path, None).observed_at == datetime(2026, 10, 9, 8, tzinfo=UTC)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"../" + name("A", 1): "# A"}, "leads out of it"),
        ({"/etc/" + name("A", 1): "# A"}, "leads out of it"),
        ({"Export-0b-Part-1.zip": {"../" + name("A", 1): "# A"}}, "leads out of it"),
        ({"Export-0b-Part-1.zip": b"no ZIP"}, "not a readable ZIP"),
        ({name("A", 1): "x" * 3_000}, "more than"),
        ({name(f"A{n}", n): "x" * 900 for n in range(9)}, "times its size"),
        (
            {"Export-0b-Part-1.zip": {name(f"A{n}", n): "x" * 900 for n in range(9)}},
            "times its size",
        ),
        ({"picture.png": b"x"}, "holds no page of Notion"),
    ],
)
def test_dangerous_and_empty_archives_are_refused(tmp_path, monkeypatch, files, said):
    monkeypatch.setattr(archives, "MAX_MEMBER_BYTES", 2_000)
    monkeypatch.setattr(archives, "SMALL_ARCHIVE_BYTES", 2_000)
    monkeypatch.setattr(archives, "MAX_RATIO", 3)
    with pytest.raises(LorelineError, match=said):
        read(tmp_path, files)


def test_an_encrypted_archive_is_refused(tmp_path):
    raw = bytearray(zipped({name("A", 1): "# A"}))
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        raw[raw.index(mark) + offset] |= 1
    (tmp_path / "export.zip").write_bytes(raw)
    with pytest.raises(LorelineError, match="is encrypted"):
        find_export(tmp_path / "export.zip", tmp_path, NOW)


# ---- the text


ID = hexadecimal(0xABC)


@pytest.mark.parametrize(
    ("exported", "canonical"),
    [
        (f"[Sub (old)](Home/Sub%20(old)%20{ID}.md)", f"[Sub (old)](https://www.notion.so/{ID})"),
        (f"[T](T%20{ID}_all.csv)", f"[T](https://www.notion.so/{ID})"),
        (f"[x](https://www.notion.so/Sub-{ID}?pvs=21)", f"[x](https://www.notion.so/{ID})"),
        ("[x](https://e.org/a)", "[x](https://e.org/a)"),
        ("![plum.png](Home/plum.png)", "![plum.png]()"),
        ("see [a.pdf](Home/a.pdf).", "see a.pdf."),
        ("<aside>\n💡 Mind\n\nthis\n</aside>\nafter", "> 💡 Mind\n>\n> this\nafter"),
        ("```\n[a](b.pdf)\n<aside>\n```", "```\n[a](b.pdf)\n<aside>\n```"),
        ("a  \r\nb\t", "a\nb"),
        ("e\u0301", "\u00e9"),
    ],
)
def test_the_markdown_of_an_export_in_canonical_form(exported, canonical):
    text = "\n".join(line.rstrip() for line in export_markdown(exported).split("\n"))
    assert text == canonical
    assert notion_markdown(json.dumps({"page": {}, "markdown": exported})) == canonical


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("- a\n  - b", "- a\n    - b"),
        ("1. a\n2. b", "1. a\n1. b"),
        ("> 💡 Mind", "> Mind"),
        ("**a** *b* `c`", "a b c"),
        ("<https://e.org/a>", "[https://e.org/a](https://e.org/a)"),
        ("```bash\nls\n```", "```\nls\n```"),
        ("![x](https://e.org/x.png)\nafter", "after"),
        ("[a.pdf](https://prod-files-secure.s3.us-west-2.amazonaws.com/a.pdf)", "a.pdf"),
        ("- **Done:** yes\n\ntext", "- **Done:** Yes\n\ntext"),
        ("- **Due:** 2026-10-01T12:30:00.000+02:00", "- **Due:** 2026-10-01T10:30"),
        ("text", "- **Last edited time:** 2026-10-01T10:30\n\ntext"),
        ("| a | b |\n| --- | --- |\n| c | d |", "| a | b |\n| - | - |\n| c | d |"),
        ("|  |  |\n| --- | --- |\n| c\\|d | e |", "| c\\|d | e |"),
        ("\\- Hops are **dried**, _all_", "- Hops are **dried**, *all*"),
        ("1\\. a\n\n\\# b", "1. a\n\n# b"),
        ("see **a `b` *c*** *d*", "see **a** **`b`** ***c** d*"),
        ("**a** b", "**a **b"),
        ("$$\nx = -1\n$$", "$$x = -1$$"),
        ("```sh\n  rm *.txt\n```", "    ```\n    rm *.txt\n    ```"),
        ("@Ana: 2*3 and char *p", "Ana: 2\\*3 and char \\*p"),
        ("- **Who:** @Ana, @Bo\n- **Price:** 1200.5", "- **Who:** Ana, Bo\n- **Price:** 1,200.5"),
    ],
)
def test_two_routes_that_say_the_same(one, other):
    assert same_text(one, other)
    assert same_text(other, one)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a", "b"),
        ("a b", "b a"),
        ("a b", "ab"),
        ("takes 1.5 s", "takes 15 s"),
        ("x = -1", "x = 1"),
        ("-1 degrees", "1 degrees"),
        ("10%", "10€"),
        ("a == b", "a != b"),
        ("2*3 = 6", "23 = 6"),
        ("2 * 3", "2  3"),
        ("char *p", "char p"),
        ("`rm *a*`", "`rm a`"),
        ("```\nrm *a*\n```", "```\nrm a\n```"),
        ("~5 s", "5 s"),
        ("for us", "for US"),
        ("Good 👍", "Good 👎"),
        ("- [ ] a", "- [x] a"),
        ("is it?", "is it."),
        ("- **Limit:** 1.5", "- **Limit:** 15"),
        ("- **Limit:** 15", "- **Limit:** 15 m"),
        ("- **Limit:** -1", "- **Limit:** 1"),
        ("- **Status:** Open", "- **Status:** Done"),
        ("- **Status:** Open", ""),
        ("- **Due:** 2026-10-01", "- **Due:** 2026-10-02"),
        ("- **Note:** by Ana 2026-10-01", "- **Note:** by Bo 2026-10-01"),
        ("[a](https://e.org/1)", "[a](https://e.org/2)"),
        (
            f"- **Of:** <https://www.notion.so/{ID}>",
            f"- **Of:** <https://www.notion.so/{ID[::-1]}>",
        ),
    ],
)
def test_two_routes_that_do_not(one, other):
    assert not same_text(one, other)


@pytest.mark.parametrize(
    "piece",
    [
        *("[", "![", "](", "[a](", "<a ", "- [", "\n", "](https://", "(", "<aside>\n", "> ", "*"),
        *("* ", "_a", "~", "`", "` ", "|", " ", "<a:", "<br ", "\\", "#", "```\n", "@", "9"),
    ],
)
def test_a_hostile_text_takes_no_longer_than_another(piece):
    text = piece * (200_000 // len(piece))
    assert same_text(export_markdown(text), export_markdown(text))
