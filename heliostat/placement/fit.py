"""Fits the constants of the cost model to measured runs: few of them, with standard errors. Pure.

Least squares of the logarithm of predicted over measured step time, robust against outliers (soft L1), each source
weighing as the square root of its rows. Weak priors keep a constant that the rows do not determine near what is known
of such devices. Rows are divided by model shape: those whose shape has an even digest are fitted on, the others test.
The uncertainty of a type is the spread of errors on rows left out of a fit (cross-validation): by shape, so that equal
layers were seen in models of other depth, and by hidden size, so that none were.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from typing import NamedTuple

import numpy as np
import yaml
from numpy.typing import NDArray
from scipy.optimize import least_squares

from heliostat.placement.efficiency import DeviceSpeed, Efficiencies, Efficiency, SharedCosts, speed_of
from heliostat.placement.ground import StageHardware
from heliostat.placement.measured_run import CATALOGUE, Run
from heliostat.placement.stage_time import BlockKey, StageTimer
from heliostat.placement.step_time import StepPrediction, predict_step

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
FOLDS, FOLD_STEPS = 4, 4
"""Of the cross-validation that the uncertainty comes from: parts, and steps of the solver from what fits all rows."""
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
    """The constants that fit `runs` best, and how far they are off on shapes that they were not fitted on."""
    solved = _solve(runs, most_steps)
    shapes = [run.shape for run in runs]
    widths = [run.shape.split()[0] for run in runs]
    return _dressed(solved, runs, np.stack([_left_out(runs, solved, keys) for keys in (shapes, widths)]), source)


class _Solved(NamedTuple):
    """Constants and the standard deviation of the logarithm of each."""

    constants: Efficiencies
    names: list[tuple[str, str]]
    spread: NDArray[np.float64]


def _solve(runs: Sequence[Run], most_steps: int, start: Efficiencies | None = None) -> _Solved:
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

    begin = np.zeros(len(names)) if start is None else np.log(_values(names, start) / centre) / width
    found = least_squares(residuals, begin, diff_step=1e-3, max_nfev=most_steps, bounds=(-5, 5))
    spread = np.sqrt(np.diag(np.linalg.pinv(found.jac.T @ found.jac))) * width
    return _Solved(_constants(names, np.exp(found.x * width) * centre), names, spread)


def _left_out(runs: Sequence[Run], whole: _Solved, keys: Sequence[str]) -> NDArray[np.float64]:
    """For each run the logarithm of predicted over measured, by constants that were fitted without rows of its key.

    A device type with too few other rows is predicted by its relatives' constants.
    """
    found = np.zeros(len(runs))
    # the keys with most rows in folds of their own, as far as there are folds
    fold_of = {key: place % FOLDS for place, (key, _) in enumerate(Counter(keys).most_common())}
    folds = [fold_of[key] for key in keys]
    for fold in sorted(set(folds)):
        here = [at for at, own in enumerate(folds) if own == fold]
        members, rest = [runs[at] for at in here], [run for run, own in zip(runs, folds, strict=True) if own != fold]
        steps = predict_runs(members, _solve(rest or runs, FOLD_STEPS, whole.constants).constants)
        found[here] = np.log([one.step_s / run.measured_s for one, run in zip(steps, members, strict=True)])
    return found


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


def _values(names: Sequence[tuple[str, str]], constants: Efficiencies) -> NDArray[np.float64]:
    """The inverse of `_constants`."""
    return np.array([getattr(constants.types[one] if one else constants.shared, field) for one, field in names])


def _typical(known: Sequence[Efficiency]) -> Efficiency:
    """The geometric mean of what other types reach; the priors where there is none."""
    if not known:
        return Efficiency.model_validate({field: PRIORS[field][0] for field in OF_TYPE})
    return Efficiency.model_validate(
        {field: float(np.exp(np.mean([np.log(getattr(one, field)) for one in known]))) for field in OF_TYPE}
    )


def _dressed(solved: _Solved, runs: Sequence[Run], ratios: NDArray[np.float64], source: str) -> Efficiencies:
    """The constants with errors, uncertainty, date, source and what they were fitted on."""
    constants = solved.constants
    errors: dict[str, dict[str, float]] = {}
    for (one, field), error in zip(solved.names, solved.spread, strict=True):
        errors.setdefault(one, {})[field] = _rounded(float(error), 2)
    date = datetime.now(UTC).date().isoformat()
    types = {}
    for name, known in constants.types.items():
        mine = ratios[:, [run.device == name for run in runs]]
        fields = {field: _rounded(getattr(known, field), 4) for field in OF_TYPE}
        origin = ", ".join(sorted({run.source for run in runs if run.device == name}))
        types[name] = Efficiency(
            **fields,
            errors=errors.get(name, {}),
            uncertainty=_rounded(_robust(mine), 2) if mine.size else 0.15,
            date=date,
            source=f"fitted on {mine.shape[1]} runs: {origin}{source and f' ({source})'}"
            if mine.size
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
