"""Plays to windows of tokens: split by play, a tokenizer from the training plays, windows that overlap in one token.

A window of `context` + 1 tokens is `context` predictions. The last token of a window is the first of the next, which
only looks back from it, so that each token of a play is predicted once. A play ends in the middle of a window; that one
is left out.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import ray
from numpy.typing import NDArray

from heliostat.data.prepare import SPLITS, Prepared
from heliostat.errors import DataError

from .plays import plays, split_of
from .tokenizer import END_ID, FILE, BytePairs

NUM_BLOCKS = 8
"""Pieces in which the plays of a split are tokenised side by side."""


def prepare(options: Mapping[str, Any]) -> Prepared:
    """Rows with `tokens`, a window, and `num_bytes`, the length of the text that is predicted in it.

    Options: `vocabulary`, tokens to know; `context`, predictions in a window; `plays`, how many of the training plays
    to take, all by default.
    """
    unknown = set(options) - {"vocabulary", "context", "plays"}
    if unknown:
        raise DataError(f"prepare() has no option {', '.join(sorted(unknown))}", where="data.options")
    texts: dict[str, list[str]] = {split: [] for split in SPLITS}
    for name, text in plays().items():
        texts[split_of(name)].append(text)
    texts["train"] = texts["train"][: options.get("plays")]
    tokenizer = BytePairs.train(texts["train"], size=int(options.get("vocabulary", 512)))
    context = int(options.get("context", 128))
    splits = {
        split: ray.data.from_pandas(pd.DataFrame({"text": parts}))
        .repartition(min(len(parts), NUM_BLOCKS))
        .map_batches(_windows_of, fn_args=(tokenizer.content, context))
        for split, parts in texts.items()
    }
    return Prepared(
        splits=splits,
        dropped={"end of a play": sum(map(len, texts.values()))},
        files={FILE: tokenizer.content},
    )


def windows(tokens: list[int], context: int) -> NDArray[np.int32]:
    """The whole windows of a play's tokens: int32 (n, context + 1), each from where the one before ends."""
    num_windows = (len(tokens) - 1) // context
    edges = np.arange(num_windows)[:, None] * context + np.arange(context + 1)
    cut: NDArray[np.int32] = np.array(tokens, dtype=np.int32)[edges]
    return cut


def _windows_of(texts: Mapping[str, Any], tokenizer: bytes, context: int) -> dict[str, NDArray[Any]]:
    pairs = BytePairs(tokenizer)
    found = np.concatenate([windows([END_ID, *pairs.encode(text), END_ID], context) for text in texts["text"]])
    return {"tokens": found, "num_bytes": pairs.num_bytes[found[:, 1:]].sum(axis=1)}
