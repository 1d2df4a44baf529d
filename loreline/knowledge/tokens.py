"""Token counts and token positions of an embedding model's tokenizer."""

from __future__ import annotations

import json
import operator
from array import array
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import tokenizers

from loreline.embedding import model_folder
from loreline.errors import LorelineError
from loreline.settings import Settings

# Long texts are tokenized in blocks, and many in batches, so that memory follows the
# block and not the text: an `Encoding` holds about 150 bytes a token.
BLOCK_CHARACTERS = 1 << 16
BATCH_TEXTS = 512


@dataclass(frozen=True)
class TokenOffsets:
    """Where the tokens of a text lie, in Unicode code points from 0, special tokens left out.

    Attributes:
        starts: first character of each token, ascending.
        ends: the character after the last one of each token.
        opens_word: 1 where a token is the first of its word, else 0.
        additive: a part of the text that is cut between words has exactly the tokens that start
            in it; where this is false, tokenize the part to know.
    """

    starts: array[int]
    ends: array[int]
    opens_word: bytearray
    additive: bool


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
        self.special_tokens = tokenizer.num_special_tokens_to_add(is_pair=False)

    def count(self, text: str) -> int:
        """Tokens that the model sees for `text`, special tokens included."""
        return self.counts([text])[0]

    def counts(self, texts: list[str]) -> list[int]:
        """`count` of each text, on all cores unless TOKENIZERS_PARALLELISM is false."""
        encode = self._tokenizer.encode_batch_fast
        batches = (texts[at : at + BATCH_TEXTS] for at in range(0, len(texts), BATCH_TEXTS))
        return [len(encoding) for batch in batches for encoding in encode(batch)]

    def offsets(self, text: str) -> TokenOffsets:
        """Positions of the tokens of `text`, in one pass over it."""
        starts, ends, opens_word = array("q"), array("q"), bytearray()
        additive = self._words_are_independent
        block_start = 0
        while block_start < len(text):
            block_end = _block_end(text, block_start)
            if block_end < len(text) and text[block_end] not in "\n ":
                additive = False
            encoding = self._tokenizer.encode(text[block_start:block_end], add_special_tokens=False)
            starts.extend([block_start + start for start, _ in encoding.offsets])
            ends.extend([block_start + end for _, end in encoding.offsets])
            words = encoding.word_ids
            opens_word.extend(map(operator.ne, words, [None, *words]))
            block_start = block_end
        return TokenOffsets(starts, ends, opens_word, additive)


def _words_are_independent(tokenizer: tokenizers.Tokenizer) -> bool:
    """Whether no word's tokens depend on its neighbours, as where BERT splits words.

    Pre-tokenizers that mark a word's leading space tokenize the first word of a text differently.
    """
    description = json.loads(tokenizer.to_str())
    types = {part: (description[part] or {}).get("type") for part in ("pre_tokenizer", "model")}
    return types == {"pre_tokenizer": "BertPreTokenizer", "model": "WordPiece"}


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
