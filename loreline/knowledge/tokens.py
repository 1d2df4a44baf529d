"""Token counts and token positions of an embedding model's tokenizer."""

from __future__ import annotations

import json
import operator
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
import tokenizers

from loreline.embedding import model_folder
from loreline.errors import LorelineError
from loreline.settings import Settings

# Long texts are tokenized in blocks, and many in batches, so that memory follows the
# block and not the text: an `Encoding` holds about 150 bytes a token.
BLOCK_CHARACTERS = 1 << 16
BATCH_TEXTS = 512

# A longer stretch without a space is hardly met again (a link, Chinese): its words are counted.
LONGEST_STRETCH = 64

# Stretches whose number of tokens is remembered; 100 bytes each.
KNOWN_STRETCHES = 1 << 18
# And those of them that bodies are cut in, whose tokens' places are: 600 bytes each.
KNOWN_PLACES = 1 << 15

# Starts, ends and numbers of tokens.
Stretches = tuple[np.ndarray, np.ndarray, np.ndarray]
NO_STRETCHES = (np.zeros(0, np.int64),) * 3


class TokenPlaces(Protocol):
    """Where the tokens of a text lie, in Unicode code points from 0, special tokens left out.

    Attributes:
        count: how many tokens there are.
        additive: a part of the text that is cut between words has exactly the tokens that start
            in it; where this is false, tokenize the part to know.
    """

    count: int
    additive: bool

    def before(self, place: int) -> int:
        """How many tokens start before a place."""

    def start(self, token: int) -> int:
        """Where a token starts."""

    def last_word_start(self, least: int, most: int) -> int | None:
        """The last place between two, both inclusive, where a word starts."""

    def is_between_words(self, place: int) -> bool:
        """Whether no word lies on both sides of a place."""


class TokenOffsets:
    """`TokenPlaces` that are all written down: for any tokenizer.

    Args:
        starts: first character of each token, ascending.
        ends: the character after the last one of each token.
        opens_word: 1 where a token is the first of its word, else 0.
    """

    def __init__(
        self, starts: array[int], ends: array[int], opens_word: bytearray, additive: bool
    ) -> None:
        self.starts, self.ends, self.opens_word = starts, ends, opens_word
        self.count = len(starts)
        self.additive = additive

    def before(self, place: int) -> int:
        """How many tokens start before a place."""
        return bisect_left(self.starts, place)

    def start(self, token: int) -> int:
        """Where a token starts."""
        return self.starts[token]

    def last_word_start(self, least: int, most: int) -> int | None:
        """The last place between two, both inclusive, where a word starts."""
        token = bisect_right(self.starts, most) - 1
        while token >= 0 and self.starts[token] >= least:
            if self.opens_word[token]:
                return self.starts[token]
            token -= 1
        return None

    def is_between_words(self, place: int) -> bool:
        """Whether no word lies on both sides of a place."""
        token = bisect_left(self.starts, place)
        return (token == self.count or bool(self.opens_word[token])) and (
            token == 0 or self.ends[token - 1] <= place
        )


class CountedWords:
    """`TokenPlaces` from numbers of tokens: for a tokenizer whose words are independent.

    A stretch is what lies between two spaces or line ends, or one word of a long such stretch. How
    many tokens each has is known; where in it they lie is asked only where a body may be cut.

    Args:
        text: the text.
        starts: first character of each stretch, ascending.
        ends: the character after the last one of each stretch.
        totals: tokens before each stretch, then of all.
        offsets_of: the exact places of a stretch's tokens, from its start.
    """

    def __init__(
        self,
        text: str,
        starts: np.ndarray,
        ends: np.ndarray,
        totals: np.ndarray,
        offsets_of: Callable[[str], TokenOffsets],
        additive: bool,
    ) -> None:
        self._text, self._offsets_of = text, offsets_of
        # Arrays of Python's own are three times as fast to bisect as those of numpy.
        self._starts, self._ends, self._totals = (
            array("q", numbers.tobytes()) for numbers in (starts, ends, totals)
        )
        self.count = self._totals[-1]
        self.additive = additive

    def before(self, place: int) -> int:
        """How many tokens start before a place."""
        stretch = bisect_left(self._starts, place) - 1
        if stretch < 0:
            return 0
        if place >= self._ends[stretch]:
            return self._totals[stretch + 1]
        return self._totals[stretch] + self._offsets(stretch).before(place - self._starts[stretch])

    def start(self, token: int) -> int:
        """Where a token starts."""
        stretch = bisect_right(self._totals, token) - 1
        start, number = self._starts[stretch], token - self._totals[stretch]
        first = self._text[start]
        if not number and first.isascii() and first.isalnum():
            return start
        return start + self._offsets(stretch).start(number)

    def last_word_start(self, least: int, most: int) -> int | None:
        """The last place between two, both inclusive, where a word starts."""
        stretch = bisect_right(self._starts, most) - 1
        while stretch >= 0 and self._ends[stretch] > least:
            start = self._starts[stretch]
            found = self._offsets(stretch).last_word_start(max(least - start, 0), most - start)
            if found is not None:
                return start + found
            stretch -= 1
        return None

    def is_between_words(self, place: int) -> bool:
        """Whether no word lies on both sides of a place."""
        stretch = bisect_left(self._starts, place) - 1
        if stretch < 0 or place >= self._ends[stretch]:
            return True
        return self._offsets(stretch).is_between_words(place - self._starts[stretch])

    def _offsets(self, stretch: int) -> TokenOffsets:
        start, end = self._starts[stretch], self._ends[stretch]
        if end - start > LONGEST_STRETCH and self._totals[stretch + 1] - self._totals[stretch] == 1:
            # One word that is one token, of however many letters.
            return TokenOffsets(array("q", [0]), array("q", [end - start]), bytearray(b"\1"), True)
        return self._offsets_of(self._text[start:end])


class Tokenizer:
    """A `tokenizers.Tokenizer` that neither truncates nor pads.

    Attributes:
        special_tokens: how many tokens the model puts around every text ([CLS] and [SEP]: 2).
    """

    def __init__(self, tokenizer: tokenizers.Tokenizer) -> None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self._words_are_independent = _words_are_independent(tokenizer)
        self._known: dict[str, int] = {}
        self._known_places = lru_cache(KNOWN_PLACES)(self.token_offsets)
        self.special_tokens = tokenizer.num_special_tokens_to_add(is_pair=False)

    def count(self, text: str) -> int:
        """Tokens that the model sees for `text`, special tokens included."""
        return self.counts([text])[0]

    def counts(self, texts: list[str]) -> list[int]:
        """`count` of each text, on all cores unless TOKENIZERS_PARALLELISM is false."""
        encode = self._tokenizer.encode_batch_fast
        batches = (texts[at : at + BATCH_TEXTS] for at in range(0, len(texts), BATCH_TEXTS))
        return [len(encoding) for batch in batches for encoding in encode(batch)]

    def length(self, text: str) -> int:
        """Tokens of a short text, such as a heading, special tokens left out."""
        if self._words_are_independent and len(text) <= BLOCK_CHARACTERS:
            try:
                return sum(map(self._known.__getitem__, _stretches_of(text)))
            except KeyError:
                pass
        return self.offsets(text).count

    def offsets(self, text: str) -> TokenPlaces:
        """Where the tokens of `text` lie, as cheaply as the tokenizer allows."""
        if self._words_are_independent:
            return self.counted_words(text)
        return self.token_offsets(text)

    def token_offsets(self, text: str) -> TokenOffsets:
        """Where the tokens of `text` lie, by the tokenizer itself, in one pass over it."""
        starts, ends, opens_word = array("q"), array("q"), bytearray()
        additive = self._words_are_independent
        for block_start, block_end in _blocks(text):
            additive = additive and _ends_between_words(text, block_end)
            encoding = self._encode(text[block_start:block_end])
            starts.extend([block_start + start for start, _ in encoding.offsets])
            ends.extend([block_start + end for _, end in encoding.offsets])
            words = encoding.word_ids
            opens_word.extend(map(operator.ne, words, [None, *words]))
        return TokenOffsets(starts, ends, opens_word, additive)

    def counted_words(self, text: str) -> CountedWords:
        """The same for independent words, of which each distinct one is tokenized once."""
        blocks = list(_blocks(text))
        additive = all(_ends_between_words(text, end) for _, end in blocks)
        parts = [self._stretches(text[start:end], start) for start, end in blocks]
        columns = zip(NO_STRETCHES, *parts, strict=True)
        starts, ends, counts = (np.concatenate(column) for column in columns)
        totals = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
        return CountedWords(text, starts, ends, totals, self._places, additive)

    def _stretches(self, block: str, at: int) -> Stretches:
        """The stretches of a block that starts `at` a place of a text."""
        stretches = _stretches_of(block)
        lengths = np.fromiter(map(len, stretches), np.int64, len(stretches))
        ends = at - 1 + np.cumsum(lengths + 1)
        starts = ends - lengths
        long = np.flatnonzero(lengths > LONGEST_STRETCH)
        if not long.size:
            return starts, ends, self._token_counts(stretches)
        words = self._words([stretches[number] for number in long], starts[long])
        for number in long:
            stretches[number] = ""
        counts = self._token_counts(stretches)
        pairs = zip((np.delete(n, long) for n in (starts, ends, counts)), words, strict=True)
        starts, ends, counts = (np.concatenate(pair) for pair in pairs)
        order = np.argsort(starts, kind="stable")
        return starts[order], ends[order], counts[order]

    def _token_counts(self, stretches: list[str]) -> np.ndarray:
        """Tokens of each stretch, remembered."""
        while True:
            try:
                return np.fromiter(map(self._known.get, stretches), np.int64, len(stretches))
            except TypeError:  # the None of one that is not known
                self._learn([s for s in dict.fromkeys(stretches) if s not in self._known])

    def _learn(self, stretches: list[str]) -> None:
        if len(self._known) + len(stretches) > KNOWN_STRETCHES:
            self._known.clear()
        lengths = np.fromiter(map(len, stretches), np.int64, len(stretches))
        starts = np.cumsum(lengths + 1) - lengths - 1
        tokens = [start for start, _ in self._encode(" ".join(stretches)).offsets]
        places = np.searchsorted(tokens, np.append(starts, np.iinfo(np.int64).max))
        self._known.update(zip(stretches, np.diff(places).tolist(), strict=True))

    def _words(self, stretches: list[str], places: np.ndarray) -> Stretches:
        """The words of stretches that lie at some places, as stretches of their own."""
        lengths = np.fromiter(map(len, stretches), np.int64, len(stretches))
        joined_at = np.cumsum(lengths + 1) - lengths - 1
        encoding = self._encode(" ".join(stretches))
        tokens = np.array(encoding.offsets, np.int64).reshape(-1, 2)
        moved = places - joined_at
        tokens += moved[np.searchsorted(joined_at, tokens[:, 0], side="right") - 1][:, None]
        words = np.array(encoding.word_ids, np.int64)
        opens = np.flatnonzero(np.diff(words, prepend=-1))
        closes = np.flatnonzero(np.diff(words, append=-1))
        return tokens[opens, 0], tokens[closes, 1], closes - opens + 1

    def _places(self, stretch: str) -> TokenOffsets:
        if len(stretch) > LONGEST_STRETCH:
            return self.token_offsets(stretch)
        return self._known_places(stretch)

    def _encode(self, text: str) -> tokenizers.Encoding:
        return self._tokenizer.encode(text, add_special_tokens=False)


def _words_are_independent(tokenizer: tokenizers.Tokenizer) -> bool:
    """Whether no word's tokens depend on its neighbours, as where BERT splits words.

    Pre-tokenizers that mark a word's leading space tokenize the first word of a text differently.
    An added token that takes the space beside it would do so, too.
    """
    description = json.loads(tokenizer.to_str())
    if any(
        token["lstrip"] or token["rstrip"] or token["single_word"] or " " in token["content"]
        for token in description["added_tokens"]
    ):
        return False
    types = {part: (description[part] or {}).get("type") for part in ("pre_tokenizer", "model")}
    return types == {"pre_tokenizer": "BertPreTokenizer", "model": "WordPiece"}


def _stretches_of(text: str) -> list[str]:
    """What lies between spaces and line ends.

    Each separator is one character, so that lengths tell places; between two there is an empty one.
    """
    return text.replace("\n", " ").split(" ")


def _blocks(text: str) -> Iterator[tuple[int, int]]:
    """Start and end of the blocks in which a text is tokenized."""
    end = 0
    while end < len(text):
        start, end = end, _block_end(text, end)
        yield start, end


def _ends_between_words(text: str, block_end: int) -> bool:
    return block_end == len(text) or text[block_end] in "\n "


def _block_end(text: str, start: int) -> int:
    """End of the block from `start`: at the last line end, else space, else anywhere."""
    limit = start + BLOCK_CHARACTERS
    if limit >= len(text):
        return len(text)
    for separator in "\n ":
        end = text.rfind(separator, start + 1, limit)
        if end > 0:
            return end
    return limit


@lru_cache(maxsize=8)
def load_tokenizer(model_name_or_path: str) -> Tokenizer:
    """The tokenizer of an embedding model, loaded once per process.

    Args:
        model_name_or_path: as in `loreline.embedding.model_folder`, or a `tokenizer.json`.

    Raises:
        LorelineError: no tokenizer is there.
    """
    path = Path(model_name_or_path)
    if not path.is_file():
        path = Path(model_folder(model_name_or_path, Settings.load())) / "tokenizer.json"
    try:
        if path.is_file():
            return Tokenizer(tokenizers.Tokenizer.from_file(str(path)))
        return Tokenizer(tokenizers.Tokenizer.from_pretrained(model_name_or_path))
    except Exception as error:
        raise LorelineError(
            f"no tokenizer for {model_name_or_path!r} ({error})",
            "name a model that has a tokenizer.json, or put it under LORELINE_MODEL_PATH",
        ) from error
