"""Chunks a second and soundness of chunkers, ours beside libraries', on the same texts in one run.

    python -m benchmarks.chunking

One core. Libraries that are not installed are left out: `pip install semchunk chonkie` to see them.
A chunker is sound when each chunk is the body at its offsets, none has more tokens than the limit,
and no visible character is lost.
"""

from __future__ import annotations

import base64
import importlib.util
import os
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from benchmarks.corpus import XQuad
from loreline.embedding import DEFAULT_MODEL, model_folder
from loreline.knowledge.chunking import ALGORITHMS, ChunkingConfiguration, chunk
from loreline.knowledge.tokens import load_tokenizer
from loreline.settings import Settings

# With the two special tokens of the model 256.
MAX_WORD_PIECES = 254
PARAGRAPHS_PER_PAGE = 5
ROUNDS = 5

Piece = tuple[int, int, str]


@dataclass(frozen=True)
class Chunker:
    """A name and a function from a body to (start from 0, end, text) of its chunks."""

    name: str
    cut: Callable[[str], list[Piece]]


def chunkers() -> Iterator[Chunker]:
    """Ours, and those of the libraries that are installed."""
    tokenizer = load_tokenizer(DEFAULT_MODEL)
    for algorithm in ALGORITHMS:
        configuration = ChunkingConfiguration(algorithm, algorithm, MAX_WORD_PIECES + 2)

        def ours(body: str, configuration: ChunkingConfiguration = configuration) -> list[Piece]:
            chunks = chunk(body, configuration, tokenizer)
            return [(c.start_char - 1, c.end_char, c.text) for c in chunks]

        yield Chunker(algorithm, ours)
    if importlib.util.find_spec("semchunk"):
        import semchunk

        def count(text: str) -> int:
            return tokenizer.count(text) - 2

        def semantic(body: str) -> list[Piece]:
            texts, places = semchunk.chunk(
                body, MAX_WORD_PIECES, count, memoize=False, offsets=True
            )
            return [(start, end, text) for text, (start, end) in zip(texts, places, strict=True)]

        yield Chunker("semchunk", semantic)
    if importlib.util.find_spec("chonkie"):
        import tokenizers
        from chonkie import RecursiveChunker

        file = f"{model_folder(DEFAULT_MODEL, Settings.load())}/tokenizer.json"
        untruncated = tokenizers.Tokenizer.from_file(file)
        untruncated.no_truncation()
        untruncated.no_padding()
        chonkie = RecursiveChunker(untruncated, MAX_WORD_PIECES, min_characters_per_chunk=1)
        yield Chunker(
            "chonkie", lambda body: [(c.start_index, c.end_index, c.text) for c in chonkie(body)]
        )


def pages() -> list[str]:
    """XQuAD's paragraphs as pages of five."""
    paragraphs = XQuad.load().paragraphs
    starts = range(0, len(paragraphs), PARAGRAPHS_PER_PAGE)
    return ["\n\n".join(paragraphs[start : start + PARAGRAPHS_PER_PAGE]) for start in starts]


def hard_bodies() -> dict[str, str]:
    """Bodies that chunkers stumble over."""
    random_bytes = random.Random(1).randbytes(6_000)
    return {
        "no spaces": "数据仓库保存着每一个版本的历史记录" * 200,
        "base64": base64.b64encode(random_bytes).decode(),
        "one long word": "x" * 200_000,
        "accents, capitals": "ÀÉÎ" * 2_000,
        "zero-width": "a" + "\u200b" * 10_000,
        "runs of empty lines": "".join("some words " * 20 + "\n" * n for n in range(200)),
        "Windows lines": "First line\r\nSecond line\r\n\r\n" * 300,
    }


def faults(body: str, pieces: list[Piece]) -> str:
    """What is wrong with the chunks of a body."""
    tokenizer = load_tokenizer(DEFAULT_MODEL)
    lost = bytearray(b"\1" * len(body))
    for start, end, _ in pieces:
        lost[start:end] = bytes(max(0, min(end, len(body)) - start))
    counts = {
        "wrong offsets": sum(body[start:end] != text for start, end, text in pieces),
        "too large": sum(tokenizer.count(text) > MAX_WORD_PIECES + 2 for *_, text in pieces),
        "lost characters": sum(
            gone and character.isprintable() and not character.isspace()
            for character, gone in zip(body, lost, strict=True)
        ),
    }
    return ", ".join(f"{count} {fault}" for fault, count in counts.items() if count) or "sound"


def main() -> None:
    """Print rates on ordinary pages, and faults on hard ones."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    bodies = pages()
    rates: dict[str, float] = {}
    for _ in range(ROUNDS):
        # Made anew each time: some remember the texts whose tokens they have counted.
        for chunker in chunkers():
            start = time.process_time()
            count = sum(len(chunker.cut(body)) for body in bodies)
            rate = count / (time.process_time() - start)
            rates[chunker.name] = max(rate, rates.get(chunker.name, 0))
    for chunker in chunkers():
        print(f"{chunker.name}: {rates[chunker.name]:.0f} chunks/s of processor time")
        for name, body in hard_bodies().items():
            start = time.process_time()
            pieces = chunker.cut(body)
            taken = time.process_time() - start
            longest = max(len(text) for *_, text in pieces)
            print(
                f"  {name}: {len(pieces)} chunks, longest {longest} characters, {taken:.2f} s:"
                f" {faults(body, pieces)}"
            )


if __name__ == "__main__":
    main()
