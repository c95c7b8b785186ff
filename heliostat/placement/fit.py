"""Fits the constants of the cost model to measured runs: few of them, with standard errors. Pure.

Least squares of the logarithm of predicted over measured step time, robust against outliers (soft L1), each source
weighing as the square root of its rows. Weak priors keep a constant that the rows do not determine near what is known
of such devices. Rows are divided by model shape: those whose shape has an even digest are fitted on, the others test.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256

import numpy as np
import yaml
from numpy.typing import NDArray
from scipy.optimize import least_squares

from heliostat.placement.efficiency import DeviceSpeed, Efficiencies, Efficiency, SharedCosts, speed_of
from heliostat.placement.measured_run import CATALOGUE, Run
from heliostat.placement.predict import StageHardware, StepPrediction, predict_step
from heliostat.placement.stage_time import BlockKey, StageTimer

PRIORS = {
    "matmul": (0.82, 0.12), "matmul_depth": (220.0, 0.6), "attention": (0.28, 0.4), "memory": (0.8, 0.35),
    "forward_launch_s": (4e-5, 0.7), "backward_launch_s": (1.5e-5, 0.7), "collective_launch_s": (5e-5, 0.7),
    "skew_s": (3e-5, 0.7), "interference": (0.3, 0.7), "async_hidden": (0.5, 0.4), "optimizer_bytes": (40.0, 0.5),
}  # fmt: skip
"""Where each constant is expected, and the standard deviation of its logarithm."""
OF_TYPE = ("matmul", "matmul_depth", "attention", "memory")
SHARED = (
    "forward_launch_s",
    "backward_launch_s",
    "collective_launch_s",
    "skew_s",
    "interference",
    "async_hidden",
    "optimizer_bytes",
)
NOISE = 0.06
"""Relative error of one row that the priors are weighed against."""
FEWEST_ROWS = 8
"""A type with fewer rows borrows its relatives' constants."""


def is_fitted_on(shape: str) -> bool:
    """Whether rows of this model shape belong to the part that is fitted on."""
    return sha256(shape.encode()).digest()[0] % 2 == 0


def predict_runs(
    runs: Sequence[Run],
    constants: Efficiencies,
    *,
    exact: bool = True,
    corrections: Mapping[BlockKey, float] | None = None,
) -> list[StepPrediction]:
    """What the model says of each run.

    Args:
        runs: which.
        constants: of the cost model.
        exact: simulate pipelines; else their closed form.
        corrections: learned from earlier runs (`history`).
    """
    timer = StageTimer(constants.shared, corrections)
    speeds: dict[str, DeviceSpeed] = {}
    found = []
    for run in runs:
        if run.device not in speeds:
            speeds[run.device] = speed_of(run.device, catalogue=CATALOGUE, efficiencies=constants)
        hardware = [
            StageHardware((speeds[run.device],) * len(stage.replicas), links)
            for stage, links in zip(run.strategy.stages, run.links, strict=True)
        ]
        found.append(predict_step(run.workload, run.strategy, hardware, timer, exact=exact))
    return found


def fit(runs: Sequence[Run], *, source: str = "", most_steps: int = 15) -> Efficiencies:
    """The constants that fit `runs` best."""
    counts = Counter(run.device for run in runs)
    types = sorted(name for name, count in counts.items() if count >= FEWEST_ROWS)
    names = [(one, field) for one in types for field in OF_TYPE] + [("", field) for field in SHARED]
    centre = np.array([PRIORS[field][0] for _, field in names])
    width = np.array([PRIORS[field][1] for _, field in names])
    measured = np.log([run.measured_s for run in runs])
    per_source = Counter(run.source for run in runs)
    weight = np.array([per_source[run.source] ** -0.5 for run in runs])
    weight *= np.sqrt(len(runs) / np.sum(weight**2)) / NOISE

    def residuals(point: NDArray[np.float64]) -> NDArray[np.float64]:
        constants = _constants(names, np.exp(point * width) * centre)
        predicted = np.log([one.step_s for one in predict_runs(runs, constants, exact=False)])
        return np.concatenate([_soft((predicted - measured) * weight), point])

    found = least_squares(residuals, np.zeros(len(names)), diff_step=1e-3, max_nfev=most_steps, bounds=(-5, 5))
    values = np.exp(found.x * width) * centre
    spread = np.sqrt(np.diag(np.linalg.pinv(found.jac.T @ found.jac))) * width
    exact = _constants(names, values)
    ratios = np.log([one.step_s for one in predict_runs(runs, exact)]) - measured
    return _dressed(exact, runs, names, spread, ratios, source)


def as_yaml(constants: Efficiencies) -> str:
    """`constants` in the form of efficiency.yaml."""
    return yaml.safe_dump(constants.model_dump(mode="json"), sort_keys=False, width=118)


def _soft(residual: NDArray[np.float64], scale: float = 2.0) -> NDArray[np.float64]:
    """Square roots of soft-L1 losses, signed: quadratic within `scale` standard deviations, linear outside."""
    found: NDArray[np.float64] = np.sign(residual) * scale * np.sqrt(2 * (np.sqrt(1 + (residual / scale) ** 2) - 1))
    return found


def _constants(names: Sequence[tuple[str, str]], values: NDArray[np.float64]) -> Efficiencies:
    tables: dict[str, dict[str, float]] = {}
    for (one, field), value in zip(names, values, strict=True):
        tables.setdefault(one, {})[field] = float(value)
    shared = SharedCosts.model_validate(tables.pop(""))
    types = {one: Efficiency.model_validate(table) for one, table in tables.items()}
    return Efficiencies(types={**types, "default": _typical(list(types.values()))}, shared=shared)


def _typical(known: Sequence[Efficiency]) -> Efficiency:
    """The geometric mean of what other types reach; the priors where there is none."""
    if not known:
        return Efficiency.model_validate({field: PRIORS[field][0] for field in OF_TYPE})
    return Efficiency.model_validate(
        {field: float(np.exp(np.mean([np.log(getattr(one, field)) for one in known]))) for field in OF_TYPE}
    )


def _dressed(
    constants: Efficiencies,
    runs: Sequence[Run],
    names: Sequence[tuple[str, str]],
    spread: NDArray[np.float64],
    ratios: NDArray[np.float64],
    source: str,
) -> Efficiencies:
    """`constants` with errors, date, source and what they were fitted on."""
    errors: dict[str, dict[str, float]] = {}
    for (one, field), error in zip(names, spread, strict=True):
        errors.setdefault(one, {})[field] = _rounded(float(error), 2)
    date = datetime.now(UTC).date().isoformat()
    types = {}
    for name, known in constants.types.items():
        mine = np.array([ratio for run, ratio in zip(runs, ratios, strict=True) if run.device == name])
        fields = {field: _rounded(getattr(known, field), 4) for field in OF_TYPE}
        origin = ", ".join(sorted({run.source for run in runs if run.device == name}))
        types[name] = Efficiency(
            **fields,
            errors=errors.get(name, {}),
            uncertainty=_rounded(_robust(mine), 2) if len(mine) else 0.15,
            date=date,
            source=f"fitted on {len(mine)} runs: {origin}{source and f' ({source})'}"
            if len(mine)
            else "mean of the others",
        )
    shared = {field: _rounded(getattr(constants.shared, field), 4) for field in SHARED}
    return Efficiencies(
        types=types,
        shared=SharedCosts(**shared, errors=errors[""]),
        fitted_on=tuple(sorted({run.shape for run in runs})),
    )


def _robust(ratios: NDArray[np.float64]) -> float:
    """A standard deviation that a few outliers do not blow up: the 80 % quantile of the size over that of a normal."""
    return float(np.quantile(np.abs(ratios), 0.8) / 1.2816)


def _rounded(value: float, digits: int) -> float:
    return float(f"{value:.{digits}g}")
