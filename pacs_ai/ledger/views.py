"""What people and programs see of the ledger: states, timelines, Workitems. Only reads.

The state of a Study is a view of its work rows and facts, never a second copy.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, or_, select

from pacs_ai.ledger import studies, tables, tallies
from pacs_ai.ledger.engine import Database
from pacs_ai.ledger.rows import Kind, State
from pacs_ai.study import NEVER, VIEW_FROM_PIXELS

_TROUBLE = (State.FAILED, State.HELD)


@dataclass(frozen=True, slots=True)
class StudyState:
    """Where a Study stands, and why, in one sentence.

    ``state`` is one of ``receiving``, ``running``, ``done``, ``nothing_found``, ``not_suitable``,
    ``held``, ``failed``, ``not_current``, ``no_rule``, ``derived_only``.
    """

    state: str
    reason: str


def study_state(connection: Connection, study: str) -> StudyState:
    """Return the one visible state of a Study."""
    work = _work_rows(connection, study)
    for state in _TROUBLE:
        troubled = [row for row in work if row.state == state]
        if troubled:
            return StudyState(str(state), f"{troubled[-1].kind}: {troubled[-1].reason}")
    version = studies.newest_version(connection, study)
    pending = [row for row in work if row.state in (State.READY, State.RUNNING)]
    if version is None:
        return _state_before_versions(connection, study, pending=bool(pending))
    if version.not_current is not None:
        return StudyState("not_current", version.not_current)
    if any(row.kind != Kind.WORKLIST for row in pending):
        kinds = sorted({str(row.kind) for row in pending if row.kind != Kind.WORKLIST})
        return StudyState("running", f"under way: {', '.join(kinds)}")
    return _ended_state(connection, version.id)


def _state_before_versions(connection: Connection, study: str, *, pending: bool) -> StudyState:
    if not studies.counts(connection, study).get("source", 0):
        return StudyState("derived_only", "only results and other derived Instances came")
    if not pending and not studies.source_instances(connection, study):
        return StudyState("not_suitable", "a person rejected every Instance of it")
    return StudyState("receiving", "the Study is not complete yet")


def _ended_state(connection: Connection, version_id: str) -> StudyState:
    rows = studies.version_jobs(connection, version_id)
    refused = _refusals(connection, version_id)
    # What only asked for a view is no result: a Study that no rule could take is not done by it.
    outcomes = [row.outcome for row in rows if row.rule != VIEW_FROM_PIXELS]
    held = [row.reason or "" for row in rows if row.outcome == "held"]
    if held:
        return StudyState("held", held[0])
    if "nothing_found" in outcomes and not any(row.flagged for row in rows):
        names = [row.model["name"] for row in rows if row.outcome == "nothing_found"]
        said = f"No finding flagged by {', '.join(names)}; not a normal result"
        return StudyState("nothing_found", _with_reasons(said, rows, refused))
    if "done" in outcomes or "nothing_found" in outcomes:
        return StudyState("done", _with_reasons("results are there", rows, refused))
    if rows or refused:
        return StudyState("not_suitable", "; ".join(_reasons(rows, refused)))
    deciding = [
        f"{row['rule']}: {row['deciding']}"
        for row in _verdicts(connection, version_id)
        # A rule that leaves something out and did not decides nothing.
        if row["matched"] or not row["rule"].startswith(NEVER)
    ]
    return StudyState("no_rule", "; ".join(deciding) or "there is no rule")


def _with_reasons(
    said: str, rows: Iterable[studies.JobRow], refused: Iterable[tuple[str, str | None, str]]
) -> str:
    return "; ".join([said, *_reasons(rows, refused)])


def _reasons(
    rows: Iterable[studies.JobRow], refused: Iterable[tuple[str, str | None, str]]
) -> list[str]:
    unsuited = [
        f"{row.model['name']} not suitable: {row.reason}"
        for row in rows
        if row.outcome == "not_suitable"
    ]
    return [
        *unsuited,
        *(f"{endpoint or rule} not suitable: {why}" for rule, endpoint, why in refused),
    ]


def _refusals(connection: Connection, version_id: str) -> list[tuple[str, str | None, str]]:
    table = tables.refusals
    rows = connection.execute(
        select(table).where(table.c.version_id == version_id).order_by(table.c.position)
    )
    return [(row.rule, row.endpoint, row.reason) for row in rows]


def _work_rows(connection: Connection, study: str) -> list[Any]:
    """Return a Study's work, newest attempt at each subject last; older rows of a subject left out."""
    table = tables.work
    rows = connection.execute(
        select(table).where(table.c.study_instance_uid == study).order_by(table.c.created_at)
    )
    newest = {(row.kind, row.queue, row.subject): row for row in rows}
    return list(newest.values())


def job_troubles(connection: Connection, job_ids: Iterable[str]) -> dict[str, str]:
    """Return why Jobs failed or are held, by Job, for those whose work did not end well."""
    table = tables.work
    rows = connection.execute(
        select(table.c.subject, table.c.state, table.c.reason).where(
            table.c.kind == Kind.INFER,
            table.c.subject.in_([*job_ids]),
            table.c.state.in_(_TROUBLE),
        )
    )
    return {row.subject: f"{row.state}: {row.reason}" for row in rows}


class Views:
    """Read-only answers for the web face and the command line.

    Parameters
    ----------
    database : Database
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def studies(self) -> list[dict[str, Any]]:
        """Return every Study with its state, oldest first."""
        with self._database.read() as connection:
            rows = connection.execute(select(tables.studies).order_by(tables.studies.c.first_at))
            return [self._study_line(connection, row) for row in rows]

    def _study_line(self, connection: Connection, row: Any) -> dict[str, Any]:
        uid = row.study_instance_uid
        state = study_state(connection, uid)
        return {
            "StudyInstanceUID": uid,
            "peer": row.peer,
            "first_received": _text(row.first_at),
            "last_received": _text(row.last_at),
            "state": state.state,
            "reason": state.reason,
            "instances": studies.counts(connection, uid),
            "removed": studies.removed(connection, uid),
        }

    def find(self, *, study: str | None, accession_number: str | None) -> list[str]:
        """Return the Study Instance UIDs that match either key."""
        table = tables.studies
        with self._database.read() as connection:
            rows = connection.scalars(
                select(table.c.study_instance_uid).where(
                    or_(
                        table.c.study_instance_uid == study,
                        table.c.accession_number == (accession_number or None),
                    )
                )
            )
            return [str(uid) for uid in rows]

    def timeline(self, study: str) -> dict[str, Any]:
        """Return everything that is known of a Study, from association to receipt.

        Raises
        ------
        KeyError
            When the gateway never held an Instance of it.
        """
        with self._database.read() as connection:
            table = tables.studies
            row = connection.execute(
                select(table).where(table.c.study_instance_uid == study)
            ).first()
            if row is None:
                raise KeyError(study)
            version = studies.newest_version(connection, study)
            return {
                **self._study_line(connection, row),
                "versions": _versions(connection, study),
                "verdicts": [] if version is None else _verdicts(connection, version.id),
                "refusals": [] if version is None else _refusal_lines(connection, version.id),
                "jobs": [] if version is None else _jobs(connection, version.id),
                "objects": _objects(connection, study),
                "deliveries": _deliveries(connection, study),
                "workitems": _workitems(connection, study),
                "work": _work(connection, study),
                "events": _events(connection, study),
            }

    def instances(self, study: str | None) -> list[dict[str, Any]]:
        """Return what was taken in: SOP Instance UID, digest of its data set's bytes, state.

        The state of what retention let go is ``removed``; the digest is still that of its bytes.
        """
        table = tables.instances
        query = select(table).order_by(table.c.id)
        if study is not None:
            query = query.where(table.c.study_instance_uid == study)
        with self._database.read() as connection:
            return [
                {
                    "SOPInstanceUID": row.sop_instance_uid,
                    "digest": row.digest,
                    "transfer_syntax_uid": row.transfer_syntax_uid,
                    "role": row.role,
                    "state": "removed" if row.removed_at else row.state,
                    "size": row.size,
                }
                for row in connection.execute(query)
            ]

    def workitems(self) -> list[dict[str, Any]]:
        """Return the data set of every Workitem as DICOM JSON (PS3.18 Annex F), newest first."""
        table = tables.workitems
        with self._database.read() as connection:
            rows = connection.execute(
                select(table.c.uid, table.c.data_set).order_by(table.c.created_at.desc())
            )
            return [_with_uid(row.uid, row.data_set) for row in rows]

    def workitem(self, uid: str) -> dict[str, Any] | None:
        """Return one Workitem's data set as DICOM JSON, or None."""
        table = tables.workitems
        with self._database.read() as connection:
            found = connection.scalar(select(table.c.data_set).where(table.c.uid == uid))
        return None if found is None else _with_uid(uid, found)

    def health(self) -> dict[str, Any]:
        """Return whether the ledger answers and the spool took what came last, and what waits.

        ``refused`` counts Instances by the status that was answered (PS3.4 B.2.3), since the ledger was made.
        """
        table = tables.work
        with self._database.read() as connection:
            states = connection.execute(
                select(table.c.state, func.count().label("number")).group_by(table.c.state)
            ).all()
            paused = connection.scalars(
                select(tables.switches.c.name).where(tables.switches.c.paused_at.is_not(None))
            )
            problems = [*_spool_problems(connection)]
            return {
                "healthy": not problems,
                "problems": problems,
                "ledger": "answers",
                "paused": sorted(paused),
                "work": {row.state: row.number for row in states},
                "refused": {
                    status: {"number": number, "last": _text(last)}
                    for status, (number, last) in tallies.refused(connection).items()
                },
            }


def _spool_problems(connection: Connection) -> Iterator[str]:
    failed = tallies.spool_failure(connection)
    if failed is not None:
        yield (
            f"the spool did not take bytes at {failed:%Y-%m-%d %H:%M:%S} UTC, and nothing was stored since: "
            "look at its disk (space, mount, the kernel's log); this ends with the next Instance stored"
        )


def _with_uid(uid: str, data_set: Mapping[str, Any]) -> dict[str, Any]:
    # UPS-RS gives SOP Class and SOP Instance UID in the data set of its answers (PS3.18 11).
    return {
        "00080016": {"vr": "UI", "Value": ["1.2.840.10008.5.1.4.34.6.1"]},
        "00080018": {"vr": "UI", "Value": [uid]},
        **data_set,
    }


def _text(at: Any) -> str | None:
    return None if at is None else at.isoformat(timespec="milliseconds")


def _versions(connection: Connection, study: str) -> list[dict[str, Any]]:
    table = tables.versions
    rows = connection.execute(
        select(table).where(table.c.study_instance_uid == study).order_by(table.c.number)
    )
    return [
        {
            "number": row.number,
            "frozen": _text(row.frozen_at),
            "evidence": row.evidence,
            "not_current": row.not_current,
            "superseded": _text(row.superseded_at),
        }
        for row in rows
    ]


def _verdicts(connection: Connection, version_id: str) -> list[dict[str, Any]]:
    table = tables.verdicts
    rows = connection.execute(
        select(table).where(table.c.version_id == version_id).order_by(table.c.position)
    )
    return [{"rule": row.rule, "matched": row.matched, "deciding": row.deciding} for row in rows]


def _refusal_lines(connection: Connection, version_id: str) -> list[dict[str, Any]]:
    return [
        {"rule": rule, "endpoint": endpoint, "reason": reason}
        for rule, endpoint, reason in _refusals(connection, version_id)
    ]


def _jobs(connection: Connection, version_id: str) -> list[dict[str, Any]]:
    rows = studies.version_jobs(connection, version_id)
    troubles = job_troubles(connection, [row.id for row in rows])
    return [
        {
            "key": row.key,
            "rule": row.rule,
            "endpoint": row.endpoint,
            "model": f"{row.model['name']} {row.model['version']}",
            "outcome": row.outcome or troubles.get(row.id, "waiting"),
            "reason": row.reason,
        }
        for row in rows
    ]


def _objects(connection: Connection, study: str) -> list[dict[str, Any]]:
    table = tables.objects
    rows = connection.execute(
        select(table)
        .where(table.c.study_instance_uid == study)
        .order_by(table.c.made_at, table.c.sop_instance_uid)
    )
    return [
        {
            "SOPInstanceUID": row.sop_instance_uid,
            "kind": row.kind,
            "size": row.size,
            "digest": row.digest,
            "made": _text(row.made_at),
            "superseded": _text(row.superseded_at),
            "removed": _text(row.removed_at),
        }
        for row in rows
    ]


def _deliveries(connection: Connection, study: str) -> list[dict[str, Any]]:
    table, made, receipts = tables.deliveries, tables.objects, tables.receipts
    rows = connection.execute(
        select(table, made.c.kind)
        .join(made, made.c.sop_instance_uid == table.c.sop_instance_uid)
        .where(made.c.study_instance_uid == study)
        .order_by(made.c.made_at, made.c.sop_instance_uid)
    ).all()
    answers = connection.execute(
        select(receipts)
        .join(made, made.c.sop_instance_uid == receipts.c.sop_instance_uid)
        .where(made.c.study_instance_uid == study)
        .order_by(receipts.c.id)
    ).all()
    return [
        {
            "SOPInstanceUID": row.sop_instance_uid,
            "kind": row.kind,
            "destination": row.destination,
            "state": row.state,
            "receipts": [
                {
                    "answer": one.answer,
                    "status": None if one.status is None else f"0x{one.status:04X}",
                    "detail": one.detail,
                    "at": _text(one.at),
                }
                for one in answers
                if one.sop_instance_uid == row.sop_instance_uid
                and one.destination == row.destination
            ],
        }
        for row in rows
    ]


def _workitems(connection: Connection, study: str) -> list[dict[str, Any]]:
    table = tables.workitems
    rows = connection.execute(
        select(table).where(table.c.study_instance_uid == study).order_by(table.c.created_at)
    )
    return [
        {
            "uid": row.uid,
            "label": row.label,
            "audience": row.audience,
            "priority": row.data_set.get("00741200", {}).get("Value", [None])[0],
            "state": row.data_set.get("00741000", {}).get("Value", [None])[0],
            "comments": row.data_set.get("00400400", {}).get("Value", [None])[0],
        }
        for row in rows
    ]


def _work(connection: Connection, study: str) -> list[dict[str, Any]]:
    table = tables.work
    rows = connection.execute(
        select(table).where(table.c.study_instance_uid == study).order_by(table.c.created_at)
    )
    return [
        {
            "id": row.id,
            "kind": row.kind,
            "queue": row.queue,
            "state": row.state,
            "attempts": row.attempts,
            "strikes": row.strikes,
            "reason": row.reason,
            "asked": _text(row.created_at),
            "started": _text(row.started_at),
            "ended": _text(row.ended_at),
        }
        for row in rows
    ]


def _events(connection: Connection, study: str) -> list[dict[str, Any]]:
    table = tables.events
    rows = connection.execute(
        select(table).where(table.c.study_instance_uid == study).order_by(table.c.id)
    )
    return [
        {"at": _text(row.at), "kind": row.kind, "actor": row.actor, "reason": row.reason}
        for row in rows
    ]
