"""Every check of the doctor: what a look at a cluster found goes in, findings come out. Pure."""

from collections.abc import Iterable, Iterator

from heliostat.cluster.doctor.expected import compare
from heliostat.cluster.doctor.finding import SEVERITIES, Finding
from heliostat.cluster.doctor.gpus import check_gpus
from heliostat.cluster.doctor.joints import check_joints
from heliostat.cluster.doctor.labels import check_labels
from heliostat.cluster.doctor.versions import check_versions
from heliostat.cluster.spec import ClusterSpec
from heliostat.cluster.survey import Survey
from heliostat.cluster.view.pools import node_names, short_id


def examine(survey: Survey, expected: ClusterSpec | None) -> tuple[Finding, ...]:
    """Everything found wrong with what `survey` saw, the worst first.

    Args:
        survey: one look at a cluster.
        expected: what should be there; None where nobody told.
    """
    cluster = survey.cluster
    names = {node_id: report.hostname or short_id(node_id) for node_id, report in survey.reports.items()}
    names |= node_names(cluster)
    findings = [
        *_lost(survey),
        *(compare(survey, expected) if expected is not None else ()),
        *check_versions(survey.reports, names),
        *check_gpus(survey.reports, names),
        *check_labels(cluster, cluster.fabric or (expected.fabric if expected else None), names),
        *check_joints(cluster, names),
        *_remarks(survey),
    ]
    return tuple(sorted(findings, key=lambda one: SEVERITIES.index(one.severity)))


def is_healthy(findings: Iterable[Finding]) -> bool:
    """Whether none of the findings is an error."""
    return all(one.severity != "error" for one in findings)


def _lost(survey: Survey) -> Iterator[Finding]:
    for node in survey.lost:
        yield Finding(
            severity="error",
            node=node.name,
            what=f"is lost: {node.why}",
            next_step="start Ray on it again, or look at its logs; what ran there is placed anew without it",
        )
    if not survey.cluster.nodes:
        yield Finding(
            severity="error",
            node="",
            what="no node with a device answers",
            next_step="ray status",
        )


def _remarks(survey: Survey) -> Iterator[Finding]:
    for remark in survey.remarks:
        yield Finding(
            severity="warning",
            node="",
            what=remark,
            next_step="what is not understood is left out of every plan: put it right, or describe the node in a file",
        )
