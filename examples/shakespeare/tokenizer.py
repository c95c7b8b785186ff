"""Byte-pair encoding on bytes: any text has tokens, and the tokens of a text give back every byte of it."""

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

FILE = "tokenizer.json"
"""The file of a dataset version that its tokens are numbered by."""
END = "<|end|>"
"""Stands before and behind every play; number 0."""
END_ID = 0


class BytePairs:
    """A trained tokenizer. It is the JSON that `tokenizers` writes; a dataset version keeps that as a file."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self._tokenizer = Tokenizer.from_str(content.decode())
        self._tokenizer.encode_special_tokens = True  # a text that says <|end|> does not end there

    @classmethod
    def train(cls, texts: Iterable[str], *, size: int) -> "BytePairs":
        """The `size` tokens that say `texts` in the fewest, found pair by pair; the 256 bytes are among them."""
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=size,
            special_tokens=[END],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts, trainer)
        return cls(tokenizer.to_str().encode())

    @property
    def size(self) -> int:
        """Tokens there are."""
        return self._tokenizer.get_vocab_size()

    @cached_property
    def num_bytes(self) -> NDArray[np.int64]:
        """Bytes that each token stands for, (size,); the end of a play is none."""
        tokens = [self._tokenizer.id_to_token(number) or "" for number in range(self.size)]
        # each byte is one character of the alphabet in which byte-level tokens are written
        return np.array([0 if token == END else len(token) for token in tokens], dtype=np.int64)

    def encode(self, text: str) -> list[int]:
        """The tokens of `text`."""
        return list(self._tokenizer.encode(text).ids)

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of `tokens`; bytes that are no whole character become U+FFFD."""
        return self._tokenizer.decode(list(tokens))

    def pieces(self, tokens: Iterable[int]) -> Iterator[str]:
        """The text of `tokens` in pieces as they come; a character is not told before its last byte is there."""
        waiting: list[int] = []
        for token in tokens:
            waiting.append(token)
            text = self.decode(waiting)
            if not text.endswith("\N{REPLACEMENT CHARACTER}"):
                waiting.clear()
                yield text
        if waiting:
            yield self.decode(waiting)
