"""Two honest baselines for a binary label: they see the same features and the same rows as the model."""

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.linear_model import LogisticRegression

from heliostat.train.task import Arrays

MAX_ITERATIONS = 500
"""lbfgs converges in about a hundred on standardised features."""


def class_prior(train: Arrays, num_rows: int) -> NDArray[np.float64]:
    """Predict the train split's share of positives for each of `num_rows` rows."""
    return np.full(num_rows, train["label"].mean(), dtype=np.float64)


def logistic_regression(train: Arrays, test: Arrays, cardinalities: tuple[int, ...]) -> NDArray[np.float64]:
    """Fit scikit-learn's logistic regression on all train rows and predict the test rows, (n,).

    Standardised numbers and one-hot categories: exactly what the model gets.
    """
    model = LogisticRegression(max_iter=MAX_ITERATIONS)
    model.fit(_matrix(train, cardinalities), train["label"])
    probabilities: NDArray[np.float64] = model.predict_proba(_matrix(test, cardinalities))[:, 1]
    return probabilities


def _matrix(arrays: Arrays, cardinalities: tuple[int, ...]) -> sparse.csr_matrix:
    """Rows as (n, F + sum of cardinalities), one-hot behind the numbers."""
    categorical = arrays["categorical"]
    offsets = np.concatenate([[0], np.cumsum(cardinalities)[:-1]]).astype(np.int64)
    columns = (categorical + offsets).ravel()
    rows = np.repeat(np.arange(len(categorical)), categorical.shape[1])
    shape = (len(categorical), int(sum(cardinalities)))
    one_hot = sparse.csr_matrix((np.ones(len(columns), dtype=np.float32), (rows, columns)), shape=shape)
    return sparse.hstack([sparse.csr_matrix(arrays["numeric"]), one_hot], format="csr")
