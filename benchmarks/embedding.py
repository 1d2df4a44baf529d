"""Encoding in slices against bare `SentenceTransformer.encode`, on the same texts in one run.

    python -m benchmarks.embedding [--rounds 2]

The two take turns (A B A B); the best round of each counts, because other work on the machine only
ever slows one down. On a shared machine the ratio of processor time is the one to trust. Also
printed: how many chunks an edit of one paragraph makes new.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import mean

import numpy as np

from benchmarks.corpus import XQuad, strategies
from loreline.embedding import EmbeddingConfiguration, encode_slices, load_encoder
from loreline.knowledge.chunking import ChunkingConfiguration, chunk
from loreline.knowledge.tokens import load_tokenizer
from loreline.settings import Settings

PARAGRAPHS_PER_PAGE = 5
EDIT = " As of this week, the figure is being checked again."


def pages() -> list[list[str]]:
    """XQuAD's articles as lists of paragraphs."""
    paragraphs = XQuad.load().paragraphs
    starts = range(0, len(paragraphs), PARAGRAPHS_PER_PAGE)
    return [paragraphs[start : start + PARAGRAPHS_PER_PAGE] for start in starts]


def chunk_texts(paragraphs: list[str], configuration: ChunkingConfiguration) -> list[str]:
    """Texts of the chunks of a page."""
    tokenizer = load_tokenizer(configuration.tokenizer)
    return [piece.text for piece in chunk("\n\n".join(paragraphs), configuration, tokenizer)]


def timed(action: Callable[[], np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Seconds of wall and of processor time, all threads together; and the result."""
    start = np.array([time.perf_counter(), time.process_time()])
    result = action()
    return np.array([time.perf_counter(), time.process_time()]) - start, result


def changed_by_an_edit(configuration: ChunkingConfiguration) -> float:
    """Mean number of chunks that a sentence added to one paragraph of a page makes new."""
    counts = []
    for page in pages():
        before = set(chunk_texts(page, configuration))
        for place in range(len(page)):
            edited = [*page[:place], page[place] + EDIT, *page[place + 1 :]]
            counts.append(len(set(chunk_texts(edited, configuration)) - before))
    return mean(counts)


def main() -> None:
    """Print the rates and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=2)
    rounds = parser.parse_args().rounds

    encoder = load_encoder(EmbeddingConfiguration(), Settings.load())
    strategy = ChunkingConfiguration("recursive", "recursive", max_tokens=256)
    texts = list(dict.fromkeys(text for page in pages() for text in chunk_texts(page, strategy)))
    pairs = [(str(place), text) for place, text in enumerate(texts)]
    tokens = sum(encoder.token_counts(texts))

    def ours() -> np.ndarray:
        batches = encode_slices(encoder, pairs, progress=lambda _: None)
        return np.vstack([np.stack(b.column("embedding").to_numpy(False)) for b in batches])

    def bare() -> np.ndarray:
        return encoder.model.encode(texts, batch_size=32, normalize_embeddings=True)

    encoder.encode(texts[:64])
    seconds: dict[str, list[np.ndarray]] = {"ours": [], "bare": []}
    for _ in range(rounds):
        for name, action in (("ours", ours), ("bare", bare)):
            taken, vectors = timed(action)
            seconds[name].append(taken)
            if name == "ours":
                encoded = vectors
        assert np.allclose(encoded, vectors, atol=1e-5), "the same texts gave other vectors"
    best = {name: np.min(taken, axis=0) for name, taken in seconds.items()}
    for name, (wall, processor) in best.items():
        print(
            f"{name}: {len(texts) / wall:.1f} chunks/s, {tokens / wall:.0f} tokens/s,"
            f" {processor:.1f} s of processor time"
        )
    for clock, ratio in zip(("wall", "processor"), best["bare"] / best["ours"], strict=True):
        print(f"ratio of {clock} time: {ratio:.3f} (wanted: 0.95 and more)")

    for configuration in strategies():
        # What `semantic` cuts depends on vectors, and those are what is measured above.
        if configuration.algorithm == "semantic":
            continue
        per_page = mean(len(chunk_texts(page, configuration)) for page in pages())
        print(
            f"{configuration.chunking_strategy}: an edited paragraph makes"
            f" {changed_by_an_edit(configuration):.2f} of {per_page:.1f} chunks of its page new"
        )


if __name__ == "__main__":
    main()
