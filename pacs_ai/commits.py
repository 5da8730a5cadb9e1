"""What becomes true at the end of each step, in one transaction: facts, and the next work.

Each function runs inside ``attempt.commit()`` of :mod:`pacs_ai.gateway` and does nothing but write rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from sqlalchemy import Connection

from pacs_ai import assembly
from pacs_ai.delivery import Answer, Receipt, wanted
from pacs_ai.errors import DeliveryUnavailableError
from pacs_ai.ledger import Commit, deliveries, studies, work, workitems
from pacs_ai.ledger.clock import now
from pacs_ai.ledger.deliveries import ObjectRow
from pacs_ai.ledger.studies import JobRow, Version
from pacs_ai.ledger.work import Kind
from pacs_ai.records import Gathered, WorkitemOrder
from pacs_ai.results import Done, Held, ModelIdentity, NothingFound, NotSuitable, Outcome
from pacs_ai.routing import Routing
from pacs_ai.settings import Endpoint, Settings
from pacs_ai.study import Job, Study
from pacs_ai.uids import digest
from pacs_ai.worklist import workitem

_OUTCOMES: dict[type[Outcome], str] = {
    Done: "done",
    NothingFound: "nothing_found",
    NotSuitable: "not_suitable",
    Held: "held",
}


# ---------------------------------------------------------------------- assemble


def assembled(commit: Commit, gathered: Gathered, settings: Settings) -> None:
    """Freeze a new Study version when its Instances are complete and not the same as before."""
    connection = commit.connection
    for instance_id, mark in gathered.marks.items():
        studies.mark_instance(connection, instance_id, mark)
    study = gathered.study
    uid = study.StudyInstanceUID
    if gathered.hold:
        return
    quiet = settings.quiet(study.instances[-1].Modality, study.peer)
    decided = assembly.complete(gathered.last_received, now(), quiet)
    if isinstance(decided, assembly.Waiting):
        work.add(
            connection,
            Kind.ASSEMBLE,
            queue=work.ASSEMBLE,
            subject=uid,
            study=uid,
            not_before=decided.until,
        )
        commit.said = "more Instances came meanwhile"
        return
    key = assembly.content_key((one.SOPInstanceUID, one.digest) for one in gathered.members)
    newest = studies.newest_version(connection, uid)
    if newest is not None and newest.content_key == key:
        commit.said = f"the Instances are those of version {newest.number}"
        return
    commit.said = f"{len(gathered.members)} Instances: {decided.evidence}"
    stale = _not_current(study, settings)
    version_id = studies.freeze(
        connection,
        uid,
        gathered.members,
        content_key=key,
        evidence=decided.evidence,
        not_current=stale,
        accession_number=str(study.header.get("AccessionNumber", "") or ""),
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
    studies.add_routing(
        connection,
        version.id,
        verdicts=[(one.rule, one.matched, one.deciding) for one in routing.verdicts],
        refusals=[(one.rule, one.endpoint, one.reason) for one in routing.refusals],
    )
    for position, job in enumerate(routing.jobs):
        _add_job(connection, version, position, job, rows, settings)
    work.supersede_waiting(connection, studies.absent_jobs(connection, version))
    deliveries.match_results(connection, version.study, studies.asked_keys(connection, version))
    matched = [one.rule for one in routing.verdicts if one.matched]
    commit.said = f"{len(routing.jobs)} Jobs by {', '.join(matched) or 'no rule'}"
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
    window = [endpoint.window.width, endpoint.window.level]
    return digest([job.rule, job.kind, dict(model), window, dict(job.parameters), chosen])


# ---------------------------------------------------------------------- infer


def inferred(commit: Commit, row: JobRow, outcome: Outcome, kept: str | None) -> None:
    """Record what a Job came to; its results are encoded, and the Study's page when all have ended."""
    connection = commit.connection
    reason = outcome.reason if isinstance(outcome, NotSuitable | Held) else None
    studies.end_job(
        connection,
        row.id,
        outcome=_OUTCOMES[type(outcome)],
        reason=reason,
        results_digest=kept,
    )
    spoken = _OUTCOMES[type(outcome)].replace("_", " ")
    commit.said = f"{row.endpoint}: {reason or spoken}"
    if kept is not None:
        work.add_once(connection, Kind.ENCODE, queue=work.ENCODE, subject=row.id, study=row.study)
    work.add_page_when_settled(connection, row.study)
    work.add_worklist(connection, row.study)


# ---------------------------------------------------------------------- encode


def encoded(
    commit: Commit, study: Study, key: str, made: Sequence[ObjectRow], settings: Settings
) -> None:
    """Record the SOP Instances that were stored, and ask for their delivery where they are wanted.

    What a later Study version no longer asks for is kept, marked as superseded, and not sent.
    """
    connection = commit.connection
    commit.said = ", ".join(one.kind for one in made) or "nothing new to write"
    for one in made:
        deliveries.add_object(connection, one)
        if one.kind == "capture":
            deliveries.supersede_pages(connection, one.StudyInstanceUID, key)
    newest = studies.newest_version(connection, study.StudyInstanceUID)
    if newest is not None:
        asked = studies.asked_keys(connection, newest)
        deliveries.match_results(connection, study.StudyInstanceUID, asked)
    current = {one.SOPInstanceUID for one in deliveries.objects_of(connection, [key])}
    made = [one for one in made if one.SOPInstanceUID in current]
    for name in settings.destinations_for(study.peer):
        target = settings.destination(name)
        held = settings.delivery == "hold" or target is None
        new = [
            deliveries.add_delivery(
                connection, one.SOPInstanceUID, name, "withheld" if held else "pending"
            )
            for one in made
            if target is None
            or wanted(
                one.kind,
                volumetric=one.volumetric,
                profile=target.profile,
                narrative=target.narrative,
            )
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


def answered(connection: Connection, destination: str, receipts: Sequence[Receipt]) -> None:
    """Record every Receipt of an attempt; they are facts whatever becomes of the attempt."""
    for receipt in receipts:
        deliveries.add_receipt(
            connection,
            receipt.SOPInstanceUID,
            destination,
            answer=str(receipt.answer),
            status=receipt.status,
            detail=receipt.detail,
        )


def undelivered(destination: str, receipts: Sequence[Receipt]) -> str | None:
    """Return why a batch is not delivered for good, or None when everything is stored.

    Raises
    ------
    DeliveryUnavailableError
        When something must go again: refused for now, or nobody knows whether it arrived.
    """
    again = [one for one in receipts if one.answer in (Answer.LATER, Answer.UNKNOWN)]
    if again:
        raise DeliveryUnavailableError(
            f"{len(again)} of {len(receipts)} Instances did not reach {destination}: {again[0].detail}"
        )
    refused = [one for one in receipts if one.answer is Answer.REFUSED]
    if not refused:
        return None
    return (
        f"{destination} refused {len(refused)} of {len(receipts)} Instances for good: "
        f"{refused[0].detail}"
    )


def delivered(commit: Commit, study: str, destination: str, receipts: Sequence[Receipt]) -> None:
    """End a delivery; the Study may be done by now, and worklist rules may speak of that."""
    commit.said = commit.said or f"{len(receipts)} Instances stored at {destination}"
    work.add_worklist(commit.connection, study)


# ---------------------------------------------------------------------- worklist


def listed(commit: Commit, study: str, orders: Sequence[WorkitemOrder]) -> None:
    """Add the Workitems that rules ask for; one that is there keeps everything but a lower priority."""
    connection = commit.connection
    commit.said = ", ".join(order.decision.label for order in orders) or None
    for order in orders:
        label = order.decision.label
        found = workitems.find(connection, study, label)
        if found is None:
            uid, data_set = order.uid, workitem.to_json(order.data_set)
        else:
            uid, kept = found
            data_set = kept
            if order.decision.priority is not None:
                raised = workitem.raise_priority(
                    workitem.from_json(kept), order.decision.priority, when=order.when
                )
                data_set = workitem.to_json(raised)
        workitems.put(
            connection,
            uid,
            study=study,
            label=label,
            audience=str(order.decision.audience),
            data_set=data_set,
        )
