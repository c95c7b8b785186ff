"""What counting alone can do: the frequency of a token, and of a token after another.

Both are smoothed so that nothing is impossible: single tokens by counting each once more, pairs as Witten and Bell
(1991) do, who trust a token's followers the less the more different ones were seen.
"""

import numpy as np
from numpy.typing import NDArray

Windows = NDArray[np.int32]
"""Tokens (n, t + 1), the last t of which are predicted."""


def unigram(train: Windows, size: int) -> NDArray[np.float64]:
    """Probability of each of `size` tokens."""
    counts = np.bincount(train[:, 1:].ravel(), minlength=size) + 1.0
    share: NDArray[np.float64] = counts / counts.sum()
    return share


def bigram(train: Windows, size: int) -> NDArray[np.float64]:
    """Probability (size, size) of the second token after the first."""
    pairs = train[:, :-1].astype(np.int64) * size + train[:, 1:]
    counts = np.bincount(pairs.ravel(), minlength=size * size).reshape(size, size).astype(np.float64)
    num_followers = np.count_nonzero(counts, axis=1)[:, None]
    seen = counts.sum(axis=1, keepdims=True)
    alone = unigram(train, size)
    # a token that nothing ever followed is followed by anything
    followers = np.where(seen > 0, num_followers, 1)
    smoothed: NDArray[np.float64] = (counts + followers * alone) / (seen + followers)
    return smoothed


def losses(expected: NDArray[np.float64], windows: Windows) -> NDArray[np.float64]:
    """Of each window the sum of its log losses in nats, and how many there are: (n, 2).

    `expected` is what `unigram` or `bigram` return.
    """
    before, after = windows[:, :-1], windows[:, 1:]
    probability = expected[after] if expected.ndim == 1 else expected[before, after]
    return np.stack([-np.log(probability).sum(axis=1), np.full(len(windows), after.shape[1], dtype=np.float64)], axis=1)
