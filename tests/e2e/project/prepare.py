"""Tumours from scikit-learn's breast cancer table, split by row number."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
import ray
from sklearn.datasets import load_breast_cancer

from heliostat.data.prepare import Prepared

EDGES = {"train": (0, 400), "validation": (400, 480), "test": (480, 569)}


def prepare(options: Mapping[str, Any]) -> Prepared:
    """Some measurements of each tumour, a size class, and whether it is benign."""
    table = load_breast_cancer(as_frame=True)
    rows = pd.DataFrame(
        {
            "radius": table.data["mean radius"],
            "texture": table.data["mean texture"].where(table.data["mean texture"] < 30),
            "size": pd.cut(table.data["mean area"], [0, 450, 700, 1e9], labels=["small", "medium", "large"]).astype(
                str
            ),
            "benign": table.target.astype(float),
        }
    )
    rows = rows.rename(columns=options.get("rename", {}))
    splits = {name: ray.data.from_pandas(rows.iloc[start:end]) for name, (start, end) in EDGES.items()}
    return Prepared(splits=splits, dropped={"none": 0})
