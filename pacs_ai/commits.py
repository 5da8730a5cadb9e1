"""What becomes true at the end of each step, in one transaction: facts, and the next work.

Each function runs inside ``attempt.commit()`` of :mod:`pacs_ai.gateway` and does nothing but write rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime

from pydicom.dataset import Dataset
from sqlalchemy import Connection

from pacs_ai import assembly
from pacs_ai.delivery import Answer, Receipt, wanted
from pacs_ai.errors import DeliveryUnavailableError
from pacs_ai.ledger import Commit, deliveries, studies, work, workitems
from pacs_ai.ledger.clock import now
from pacs_ai.ledger.deliveries import ObjectRow
from pacs_ai.ledger.rows import Kind
from pacs_ai.ledger.studies import JobRow, Version
from pacs_ai.ledger.workitems import WorkitemRow
from pacs_ai.prototypes import prototypes_of
from pacs_ai.records import Gathered, Listing
from pacs_ai.results import (
    Assertion,
    Done,
    Embedding,
    Finding,
    Held,
    ModelIdentity,
    NothingFound,
    NotSuitable,
    Outcome,
)
from pacs_ai.routing import Routing
from pacs_ai.settings import Endpoint, Settings
from pacs_ai.study import VIEW_FROM_PIXELS, Job, Study, values
from pacs_ai.uids import derived_uid, digest
from pacs_ai.worklist import workitem

_OUTCOMES: dict[type[Outcome], str] = {
    Done: "done",
    NothingFound: "nothing_found",
    NotSuitable: "not_suitable",
    Held: "held",
}


@dataclass(frozen=True, slots=True)
class Encoded:
    """What was encoded: the key of a Job or page, its Study, and the version it is the page of."""

    key: str
    study: Study
    page_of: str | None


def _overtaken(connection: Connection, study: str, version_id: str) -> bool:
    newest = studies.newest_version(connection, study)
    return newest is not None and newest.id != version_id


# ---------------------------------------------------------------------- assemble


def assembled(
    commit: Commit, gathered: Gathered, settings: Settings, *, asked_at: datetime
) -> None:
    """Freeze a new Study version when its Instances are complete and not the same as before."""
    connection = commit.connection
    study = gathered.study
    uid = study.StudyInstanceUID
    standing = {row.id for row in studies.source_instances(connection, uid)}
    overtaken = gathered.seen != standing
    # A person may have rejected one meanwhile.
    marks = {row: mark for row, mark in gathered.marks.items() if row in standing}
    for row, mark in marks.items():
        studies.mark_instance(connection, row, mark)
    for row in gathered.replacing & marks.keys():
        studies.replace_duplicates(connection, row)
    accession_number = "\\".join(values(study.header, "AccessionNumber"))
    studies.set_accession_number(connection, uid, accession_number)
    if gathered.hold:
        return
    quiet = settings.quiet(study.instances[-1].Modality, study.peer)
    decided = assembly.complete(gathered.last_received, now(), quiet, asked_at=asked_at)
    if overtaken:
        # An Instance came, or another worker froze a newer set, while this one read the files.
        decided = assembly.Waiting(now() + quiet)
    if isinstance(decided, assembly.Waiting):
        work.add_assembly(connection, uid, not_before=decided.until)
        commit.said = "more Instances came meanwhile"
        return
    key = assembly.content_key((one.SOPInstanceUID, one.digest) for one in gathered.members)
    newest = studies.newest_version(connection, uid)
    if newest is not None and newest.content_key == key:
        commit.said = f"the Instances are those of version {newest.number}"
        return
    commit.said = f"{len(gathered.members)} Instances: {decided.evidence}"
    # A correction of a Study that was current is not old, whenever it comes.
    was_current = newest is not None and newest.not_current is None
    stale = None if was_current else _not_current(study, settings)
    version_id = studies.freeze(
        connection,
        uid,
        gathered.members,
        content_key=key,
        evidence=decided.evidence,
        not_current=stale,
    )
    if stale is None:
        work.add(connection, Kind.ROUTE, queue=work.ROUTE, subject=version_id, study=uid)


def _not_current(study: Study, settings: Settings) -> str | None:
    decided = assembly.currency(
        study.header,
        study.received_at,
        max_age=settings.defaults.max_age,
        time_zone=settings.site.time_zone,
    )
    return decided.reason if isinstance(decided, assembly.NotCurrent) else None


# ---------------------------------------------------------------------- route


def routed(
    commit: Commit,
    version: Version,
    routing: Routing,
    rows: Mapping[str, int],
    settings: Settings,
) -> None:
    """Record every rule's answer; Jobs whose key is known are linked, the others are asked for.

    Results and waiting work that this version no longer asks for are superseded.
    """
    connection = commit.connection
    if _overtaken(connection, version.study, version.id):
        commit.said = "a later Study version was routed"
        return
    studies.add_routing(
        connection,
        version.id,
        verdicts=[(one.rule, one.matched, one.deciding) for one in routing.verdicts],
        refusals=[(one.rule, one.endpoint, one.reason) for one in routing.refusals],
    )
    for position, job in enumerate(routing.jobs):
        _add_job(connection, version, position, job, rows, settings)
    earlier = studies.other_versions(connection, version)
    pages = [work.page_subject(one) for one in earlier]
    absent = studies.absent_jobs(connection, version)
    work.supersede_waiting(connection, [*absent, *earlier, *pages])
    deliveries.match_results(connection, version.study, studies.asked_keys(connection, version))
    if absent or not routing.jobs:
        deliveries.supersede_other_pages(connection, version.study, "")
    waiting = deliveries.unfinished(connection, version.study)
    work.supersede_deliveries(connection, version.study, but=waiting)
    by = [one.rule for one in routing.verdicts if one.matched]
    by += [VIEW_FROM_PIXELS] if any(one.rule == VIEW_FROM_PIXELS for one in routing.jobs) else []
    commit.said = f"{len(routing.jobs)} Jobs by {', '.join(by) or 'no rule'}"
    if routing.jobs:
        work.add_page_when_settled(connection, version.study)
    work.add_worklist(connection, version.study)


def _add_job(
    connection: Connection,
    version: Version,
    position: int,
    job: Job,
    rows: Mapping[str, int],
    settings: Settings,
) -> None:
    endpoint = settings.endpoints[job.endpoint]
    model = asdict(_identity(endpoint))
    asked = studies.AskedJob(
        key=_job_key(job, endpoint, model),
        rule=job.rule,
        endpoint=job.endpoint,
        kind=job.kind,
        inputs={
            role: [rows[one.SOPInstanceUID] for one in members]
            for role, members in job.inputs.items()
        },
        parameters=job.parameters,
        model=model,
    )
    job_id, new = studies.add_job(connection, version, position, asked)
    if new or not work.is_asked(connection, Kind.INFER, job_id):
        work.add(
            connection,
            Kind.INFER,
            queue=work.infer_queue(job.endpoint),
            subject=job_id,
            study=version.study,
            deadline=now() + settings.defaults.deadline,
        )


def _identity(endpoint: Endpoint) -> ModelIdentity:
    return ModelIdentity(
        name=endpoint.name,
        version=endpoint.version,
        manufacturer=endpoint.manufacturer,
        reference=endpoint.reference,
    )


def _job_key(job: Job, endpoint: Endpoint, model: Mapping[str, str | bool]) -> str:
    chosen = {
        role: sorted([one.SOPInstanceUID, one.digest] for one in members)
        for role, members in job.inputs.items()
    }
    window = [endpoint.window.width, endpoint.window.level] if endpoint.window else None
    likened: list[list[str | float]] = []
    known = prototypes_of(endpoint)
    if known is not None and endpoint.prototypes is not None:
        likened = [[known.identity, endpoint.prototypes.certainty]]
    parameters = dict(job.parameters)
    return digest([job.rule, job.kind, dict(model), window, parameters, chosen, *likened])


# ---------------------------------------------------------------------- infer


def inferred(commit: Commit, row: JobRow, outcome: Outcome, kept: str | None) -> None:
    """Record what a Job came to; its results are encoded, and the Study's page when all have ended."""
    connection = commit.connection
    reason = outcome.reason if isinstance(outcome, NotSuitable | Held) else None
    studies.end_job(
        connection,
        row.id,
        outcome=_OUTCOMES[type(outcome)],
        flagged=_flagged(outcome),
        reason=reason,
        results_digest=kept,
    )
    spoken = _OUTCOMES[type(outcome)].replace("_", " ")
    commit.said = "; ".join([f"{row.endpoint}: {reason or spoken}", *_stated(outcome)])
    if kept is not None:
        work.add_once(connection, Kind.ENCODE, queue=work.ENCODE, subject=row.id, study=row.study)
    if row.rule == VIEW_FROM_PIXELS:
        _route_again(connection, row.study)
    else:
        work.add_page_when_settled(connection, row.study)
    work.add_worklist(connection, row.study)


def _route_again(connection: Connection, study: str) -> None:
    """Ask for the routing of the newest version: a rule waited for what the pixels are like."""
    newest = studies.newest_version(connection, study)
    if newest is not None and newest.not_current is None:
        work.add(connection, Kind.ROUTE, queue=work.ROUTE, subject=newest.id, study=study)


def _stated(outcome: Outcome) -> list[str]:
    """Return of which frame or slices embeddings are: no SOP Instance that is sent says it."""
    found = outcome.results if isinstance(outcome, Done | NothingFound) else ()
    return [f"embedding of {one.stated}" for one in found if isinstance(one, Embedding)]


def _flagged(outcome: Outcome) -> bool:
    found = outcome.results if isinstance(outcome, Done | NothingFound) else ()
    return any(isinstance(one, Finding) and one.assertion is Assertion.PRESENT for one in found)


# ---------------------------------------------------------------------- encode


def encoded(commit: Commit, order: Encoded, made: Sequence[ObjectRow], settings: Settings) -> None:
    """Record the SOP Instances that were stored, and ask for their delivery where they are wanted.

    What a later Study version no longer asks for is kept, marked as superseded, and not sent.
    """
    connection = commit.connection
    study = order.study
    uid = study.StudyInstanceUID
    commit.said = ", ".join(one.kind for one in made) or "nothing new to write"
    for one in made:
        deliveries.add_object(connection, one)
    newest = studies.newest_version(connection, uid)
    if newest is not None:
        deliveries.match_results(connection, uid, studies.asked_keys(connection, newest))
    if order.page_of is not None:
        if _overtaken(connection, uid, order.page_of):
            deliveries.supersede_page(connection, uid, order.key)
        else:
            deliveries.supersede_other_pages(connection, uid, order.key)
    current = {one.SOPInstanceUID for one in deliveries.objects_of(connection, [order.key])}
    made = [one for one in made if one.SOPInstanceUID in current]
    for name in settings.destinations_for(study.peer):
        target = settings.destination(name)
        held = settings.delivery == "hold" or target is None
        new = [
            deliveries.add_delivery(
                connection, one.SOPInstanceUID, name, "withheld" if held else "pending"
            )
            for one in made
            if target is None or _wanted(one, name, settings)
        ]
        if any(new) and not held:
            work.add(
                connection,
                Kind.DELIVER,
                queue=work.deliver_queue(name),
                subject=study.StudyInstanceUID,
                study=study.StudyInstanceUID,
                deadline=now() + settings.defaults.delivery_deadline,
            )
    work.add_worklist(connection, study.StudyInstanceUID)


# ---------------------------------------------------------------------- deliver


def released(
    connection: Connection, study: str, destination: str, settings: Settings
) -> list[ObjectRow]:
    """Return what may be sent to a destination by the settings of now; the rest is withheld."""
    named = destination in settings.destinations_for(studies.peer(connection, study))
    goes = named and settings.delivery != "hold"
    batch = []
    for one in deliveries.pending(connection, study, destination):
        if goes and _wanted(one, destination, settings):
            batch.append(one)
        else:
            deliveries.withhold(connection, one.SOPInstanceUID, destination)
    return batch


def _wanted(one: ObjectRow, destination: str, settings: Settings) -> bool:
    target = settings.destination(destination)
    return target is not None and wanted(
        one.kind,
        volumetric=one.volumetric,
        profile=target.profile,
        narrative=target.narrative,
    )


def answered(
    connection: Connection, study: str, destination: str, receipts: Sequence[Receipt]
) -> str | None:
    """Record every Receipt of an attempt; they are facts whatever becomes of the attempt.

    Returns
    -------
    str or None
        Why something is refused for good, by this attempt or an earlier one; None when nothing is.
    """
    for receipt in receipts:
        deliveries.add_receipt(
            connection,
            receipt.SOPInstanceUID,
            destination,
            answer=str(receipt.answer),
            status=receipt.status,
            detail=receipt.detail,
        )
    count = deliveries.refused(connection, study, destination)
    details = [one.detail for one in receipts if one.answer is Answer.REFUSED]
    if not count:
        return None
    return f"{destination} refused {count} Instances for good" + "".join(
        f": {d}" for d in details[:1]
    )


def undelivered(destination: str, receipts: Sequence[Receipt]) -> None:
    """Raise when something must go again: refused for now, or nobody knows whether it arrived.

    Raises
    ------
    DeliveryUnavailableError
        With how many, and what was said of the first.
    """
    again = [one for one in receipts if one.answer in (Answer.LATER, Answer.UNKNOWN)]
    if again:
        raise DeliveryUnavailableError(
            f"{len(again)} of {len(receipts)} Instances did not reach {destination}: "
            f"{again[0].detail}"
        )


def delivered(commit: Commit, study: str, destination: str, receipts: Sequence[Receipt]) -> None:
    """End a delivery; the Study may be done by now, and worklist rules may speak of that."""
    commit.said = commit.said or f"{len(receipts)} Instances stored at {destination}"
    work.add_worklist(commit.connection, study)


# ---------------------------------------------------------------------- worklist


def listed(commit: Commit, study: str, listing: Listing, looks: int) -> None:
    """Add the Workitems that rules ask for; one that waits is renewed, its priority never lowered.

    One that they ask for no more keeps up with the patient, and says so or ends. Where another look at the
    Study has ended since there were so many, it may have known more: nothing is written, and a new one asked
    for.
    """
    connection = commit.connection
    if work.looks(connection, study) != looks:
        commit.said = "another look at the Study ended meanwhile"
        work.add_worklist(connection, study)
        return
    ended: Counter[str] = Counter()
    waiting: dict[str, tuple[WorkitemRow, Dataset]] = {}
    for row in workitems.of_study(connection, study):
        kept = workitem.from_json(row.data_set)
        if workitem.is_final(kept):
            ended[row.label] += 1
        else:
            waiting[row.label] = row, kept
    asked = {order.decision.label: order for order in listing.orders}
    for label, order in asked.items():
        uid, data_set = order.uid, order.data_set
        if label in waiting:
            row, kept = waiting[label]
            uid = row.uid
            data_set = workitem.renew(
                kept, data_set, asked=order.decision.priority, when=listing.when
            )
        elif ended[label]:
            uid = derived_uid("workitem again", uid, str(ended[label]))
        data_set.SOPInstanceUID = uid
        audience = str(order.decision.audience)
        workitems.put(
            connection, study, WorkitemRow(uid, label, audience, workitem.to_json(data_set))
        )
    for label, (row, kept) in waiting.items():
        if label in asked:
            continue
        data_set = workitem.keep_up(
            kept, header=listing.header, inputs=listing.inputs, when=listing.when
        )
        if listing.settled:
            data_set = workitem.outlive(data_set, when=listing.when)
        workitems.put(connection, study, replace(row, data_set=workitem.to_json(data_set)))
    commit.said = ", ".join(asked) or None
