"""The baselines are what they say."""

import numpy as np
from sklearn.linear_model import LogisticRegression

from heliostat.train.baselines import class_prior, logistic_regression
from heliostat.train.task import Arrays


def arrays(num_rows: int, seed: int) -> Arrays:
    generator = np.random.default_rng(seed)
    numeric = generator.normal(size=(num_rows, 2)).astype(np.float32)
    categorical = generator.integers(0, 3, size=(num_rows, 2))
    logit = numeric[:, 0] + 2 * (categorical[:, 1] == 2) - 1
    label = (generator.random(num_rows) < 1 / (1 + np.exp(-logit))).astype(np.float32)
    return {"numeric": numeric, "categorical": categorical, "label": label}


def test_the_prior_is_the_share_of_positives() -> None:
    train = arrays(100, 0)
    assert class_prior(train, 3).tolist() == [float(train["label"].mean())] * 3


def test_logistic_regression_sees_numbers_and_one_hot_categories() -> None:
    train, test = arrays(500, 0), arrays(50, 1)

    def dense(rows: Arrays) -> np.ndarray:
        one_hot = [rows["categorical"][:, place] == value for place in (0, 1) for value in range(3)]
        return np.column_stack([rows["numeric"], *one_hot])

    expected = LogisticRegression(max_iter=500).fit(dense(train), train["label"]).predict_proba(dense(test))[:, 1]
    np.testing.assert_allclose(logistic_regression(train, test, (3, 3)), expected, atol=1e-4)
