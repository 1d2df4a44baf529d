"""Those who go on reading while something else goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from loreline.postgres import connect
from loreline.serving.search import search
from tests.end_to_end.lakehouse import Lakehouse

# More than any collection of these tests holds: an asker sees all that there is to be seen.
EVERYTHING = 1000
PAUSE_SECONDS = 0.002

Asker = tuple[str, ...]
# (document, version, chunk) of every hit of one search.
Sight = frozenset[tuple[str, str, str]]


@dataclass
class Watch:
    """What one asker saw, one sight after the other where they differ, and how many there were."""

    sights: list[Sight] = field(default_factory=list)
    searches: int = 0

    def note(self, sight: Sight) -> None:
        """Add what was seen now."""
        self.searches += 1
        if not self.sights or sight != self.sights[-1]:
            self.sights.append(sight)

    @property
    def documents(self) -> set[str]:
        """Every document that was ever seen."""
        return {document for sight in self.sights for document, _, _ in sight}

    def check_documents_are_whole(self, lakehouse: Lakehouse) -> None:
        """Make sure that each search saw one version of a document, and all of its chunks.

        The collection that was searched must still be the default one.
        """
        chunks = lakehouse.query(
            "select document_version_id, chunk_id from {lake}knowledge.chunks where config_hash ="
            " (select chunking_config_hash from {lake}serving.served_collections where is_default)"
        )
        whole: dict[str, set[str]] = {}
        for version, chunk in chunks:
            whole.setdefault(version, set()).add(chunk)
        for sight in self.sights:
            seen: dict[str, dict[str, set[str]]] = {}
            for document, version, chunk in sight:
                seen.setdefault(document, {}).setdefault(version, set()).add(chunk)
            for document, versions in seen.items():
                assert len(versions) == 1, f"versions {versions.keys()} of {document} at once"
                for version, found in versions.items():
                    assert found == whole[version], f"a part of {document}, version {version}"

    def check_each_document_changed_once(self) -> None:
        """Make sure that a document was seen as it was before, and from some moment on as after."""
        for document in self.documents:
            seen = [{hit for hit in sight if hit[0] == document} for sight in self.sights]
            old, new = seen[0], seen[-1]
            switch = next((n for n, hits in enumerate(seen) if hits != old), len(seen))
            assert all(hits == new for hits in seen[switch:]), f"{document} came back, or half"


@contextmanager
def searching_all_the_while(
    lakehouse: Lakehouse, askers: list[Asker], text: str, embedding: np.ndarray
) -> Iterator[dict[Asker, Watch]]:
    """Search the default collection for each asker in turn, until the block ends.

    Whatever a search raises fails the test.
    """
    watches = {asker: Watch() for asker in askers}
    with connect(lakehouse.settings, autocommit=True) as connection:

        def look() -> None:
            for asker, watch in watches.items():
                hits = search(connection, lakehouse.settings, text, embedding, asker, EVERYTHING)
                watch.note(frozenset((h.doc_id, h.document_version_id, h.chunk_id) for h in hits))

        with _again_and_again(look):
            yield watches
    assert all(watch.searches > 5 for watch in watches.values())


@contextmanager
def counting_all_the_while(lakehouse: Lakehouse, keys: Mapping[str, str]) -> Iterator[None]:
    """Count the rows of tables of the lake until the block ends.

    No key may ever be there twice, and no row may go.

    Args:
        lakehouse: where they are.
        keys: by `schema.table`, the columns that identify a row.
    """
    highest = dict.fromkeys(keys, 0)
    with lakehouse.lake() as connection:

        def look() -> None:
            for table, key in keys.items():
                query = f"select count(*), count(distinct ({key})) from {{lake}}{table}"
                counts = connection.execute(lakehouse.with_names(query)).fetchone()
                assert counts is not None
                rows, distinct = counts
                assert rows == distinct, f"{rows - distinct} keys of {table} are there twice"
                assert rows >= highest[table], f"{highest[table] - rows} rows of {table} are gone"
                highest[table] = rows

        with _again_and_again(look):
            yield


@contextmanager
def _again_and_again(look: Callable[[], None]) -> Iterator[None]:
    """Look in a thread of its own: before the block, all the while, and once after it."""
    is_over = threading.Event()
    failures: list[BaseException] = []

    def go_on() -> None:
        try:
            while not is_over.wait(PAUSE_SECONDS):
                look()
        except BaseException as failure:
            failures.append(failure)

    look()
    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
    if failures:
        raise failures[0]
    look()
