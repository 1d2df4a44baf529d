"""Speed and soundness of chunkers, ours beside libraries', on the same texts in one run.

    python -m benchmarks.chunking [--megabytes 20]

Libraries that are not installed are left out; to see them, `pip install langchain-text-splitters
semchunk chonkie`. Rates are megabytes of text a second of processor time, the better of two rounds,
and of wall time in two processes. A chunker is sound when each chunk is the body at its offsets,
none has more tokens than the limit, and no visible character is lost.
"""

from __future__ import annotations

import argparse
import base64
import importlib.util
import multiprocessing
import os
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from benchmarks.corpus import XQuad, strategies
from loreline.embedding import DEFAULT_MODEL, model_folder
from loreline.knowledge.chunking import ChunkingConfiguration, chunk
from loreline.knowledge.tokens import load_tokenizer
from loreline.settings import Settings

# With the two special tokens of the model 256.
MAX_WORD_PIECES = 254
PARAGRAPHS_PER_PAGE = 5
ROUNDS = 2
PROCESSES = 2
# What takes longer for one megabyte is measured on one.
SLOW_SECONDS = 0.5
TITLE = "A page of the encyclopedia"

Piece = tuple[int, int, str]


@dataclass(frozen=True)
class Chunker:
    """A name and a function from a body to (start from 0, end, text) of its chunks."""

    name: str
    cut: Callable[[str], list[Piece]]


def chunkers() -> Iterator[Chunker]:
    """Ours at 256 tokens, but for `semantic`, and those of the libraries that are installed."""
    tokenizer = load_tokenizer(DEFAULT_MODEL)
    for strategy in strategies():
        # The time of `semantic` is that of embedding sentences: see `benchmarks.embedding`.
        if strategy.algorithm == "semantic":
            continue
        configuration = replace(strategy, max_tokens=MAX_WORD_PIECES + 2)

        def ours(body: str, configuration: ChunkingConfiguration = configuration) -> list[Piece]:
            chunks = chunk(body, configuration, tokenizer, TITLE)
            return [(c.start_char - 1, c.end_char, c.text) for c in chunks]

        yield Chunker(strategy.chunking_strategy, ours)
    if importlib.util.find_spec("langchain_text_splitters"):
        yield langchain("langchain, recursive by characters", len, characters_per_chunk())
        yield langchain(
            "langchain, recursive by tokens",
            lambda text: tokenizer.count(text) - 2,
            MAX_WORD_PIECES,
        )
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


def langchain(name: str, length: Callable[[str], int], size: int) -> Chunker:
    """LangChain's recursive splitter by some measure of length, with the offsets that it finds."""
    from langchain_text_splitters import RecursiveCharacterTextSplitter

    splitter = RecursiveCharacterTextSplitter(
        chunk_size=size, chunk_overlap=0, length_function=length, add_start_index=True
    )

    def cut(body: str) -> list[Piece]:
        found = [
            (d.metadata["start_index"], d.page_content) for d in splitter.create_documents([body])
        ]
        return [(start, start + len(text), text) for start, text in found]

    return Chunker(name, cut)


def characters_per_chunk() -> int:
    """Characters that hold as many tokens as a chunk, on average."""
    tokenizer = load_tokenizer(DEFAULT_MODEL)
    sample = "\n\n".join(pages())
    return len(sample) * MAX_WORD_PIECES // tokenizer.length(sample)


def pages() -> list[str]:
    """XQuAD's paragraphs as pages of five."""
    paragraphs = XQuad.load().paragraphs
    starts = range(0, len(paragraphs), PARAGRAPHS_PER_PAGE)
    return ["\n\n".join(paragraphs[start : start + PARAGRAPHS_PER_PAGE]) for start in starts]


def long_pages(megabytes: int) -> list[str]:
    """Pages of XQuAD's sentences at random, under headings, with a new word in each paragraph."""
    sentences, drawn = XQuad.load().sentences, random.Random(1)
    made, size = [], 0
    while size < megabytes * 1_000_000:
        parts = []
        for number in range(drawn.randrange(3, 12)):
            text = " ".join(drawn.choices(sentences, k=drawn.randrange(2, 9)))
            parts.append(f"## Part {number}\n\n{text} Ticket TX-{drawn.randrange(10**6):x}.")
        made.append("\n\n".join(parts))
        size += len(made[-1].encode())
    return made


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


def seconds(chunker: Chunker, bodies: list[str]) -> float:
    """Processor time that it takes to cut bodies."""
    begun = time.process_time()
    for body in bodies:
        chunker.cut(body)
    return time.process_time() - begun


def megabytes_of(bodies: list[str]) -> float:
    """Their size as UTF-8."""
    return sum(len(body.encode()) for body in bodies) / 1_000_000


def show_rate(chunker: Chunker, bodies: list[str], first_megabyte: list[str]) -> None:
    """Print how fast it is, by itself and in two processes at once."""
    if seconds(chunker, first_megabyte) > SLOW_SECONDS:
        bodies = first_megabyte
    size = megabytes_of(bodies)
    best = min(seconds(chunker, bodies) for _ in range(ROUNDS))
    parts = [bodies[number::PROCESSES] for number in range(PROCESSES)]
    forked = multiprocessing.get_context("fork")
    workers = [forked.Process(target=seconds, args=(chunker, part)) for part in parts]
    begun = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    together = time.perf_counter() - begun
    print(
        f"{chunker.name}: {size / best:.1f} MB/s of processor time,"
        f" {size / together:.1f} MB/s in {PROCESSES} processes ({size:.0f} MB)"
    )


def main() -> None:
    """Print rates on ordinary pages, and faults on hard ones."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=20)
    megabytes = parser.parse_args().megabytes
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    bodies, first_megabyte = long_pages(megabytes), long_pages(1)
    for chunker in chunkers():
        show_rate(chunker, bodies, first_megabyte)
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
