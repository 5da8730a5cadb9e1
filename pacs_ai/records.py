"""Rows of the ledger and bytes of the spool, put together as the records that steps work on.

Only reads. What comes out is frozen: a Study version, a Job, the work of an encoder.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from zoneinfo import ZoneInfo

import pydicom
from pydicom.dataset import Dataset

from pacs_ai import __version__, results
from pacs_ai.assembly import Difference, compare, content_key, contradicting
from pacs_ai.encoding import Encoding, Stamp
from pacs_ai.errors import SourceError
from pacs_ai.ledger import Ledger, deliveries, studies, views
from pacs_ai.ledger.studies import JobRow, StoredInstance, Version
from pacs_ai.ledger.work import Claimed
from pacs_ai.results import (
    Done,
    Embedding,
    Failed,
    Held,
    JobResults,
    Likeness,
    ModelIdentity,
    NothingFound,
    NotSuitable,
    Outcome,
)
from pacs_ai.routing import Asking, pixels
from pacs_ai.settings import DicomDestination, Identity, Settings
from pacs_ai.spool import RemovedError, Spool
from pacs_ai.study import (
    REJECTION_NOTES,
    VIEW_FROM_PIXELS,
    Instance,
    Job,
    Study,
    read_instance,
    rejected_by,
    unreadable,
    values,
)
from pacs_ai.uids import derived_uid, digest
from pacs_ai.worklist import Decision, Facts, workitem


@dataclass(frozen=True, slots=True)
class Gathered:
    """The source Instances of a Study as they stand now.

    Attributes
    ----------
    members : tuple of StoredInstance
        What the next Study version would hold, oldest first.
    study : Study
        The same, with headers.
    seen : frozenset of int
        Every row that was looked at; another set at the commit means that this one was overtaken.
    marks : mapping of int to str
        What comparing Instances of the same UID found, by row.
    hold : str
        Why a person must look first, or empty.
    replacing : frozenset of int
        Rows that replaced an earlier one of the same UID, whose duplicates count no more either.
    """

    members: tuple[StoredInstance, ...]
    study: Study
    seen: frozenset[int]
    marks: dict[int, str] = field(default_factory=dict)
    hold: str = ""
    replacing: frozenset[int] = frozenset()

    @property
    def last_received(self) -> datetime:
        """When the last of them arrived."""
        return max(member.received_at for member in self.members)


@dataclass(frozen=True, slots=True)
class WorkitemOrder:
    """A Workitem that rules ask for, ready to be listed unless the Study has it already."""

    decision: Decision
    uid: str
    data_set: Dataset


@dataclass(frozen=True, slots=True)
class Listing:
    """What the worklist is to say of a Study.

    Attributes
    ----------
    orders : tuple of WorkitemOrder
    header : Dataset
        Of the newest version, or of what came where there is none yet.
    inputs : tuple of workitem.Reference
    when : datetime
        With the site's time zone.
    settled : bool
        Whether the Study's results are all there, so that what they do not ask for is not asked for.
    """

    orders: tuple[WorkitemOrder, ...]
    header: Dataset
    inputs: tuple[workitem.Reference, ...]
    when: datetime
    settled: bool


class Records:
    """Reads what steps need.

    Parameters
    ----------
    settings : Settings
    ledger : Ledger
    spool : Spool
    """

    def __init__(self, settings: Settings, ledger: Ledger, spool: Spool) -> None:
        self._settings = settings
        self._ledger = ledger
        self._spool = spool
        self._installation = ledger.installation()

    def unchanged(self, study: str) -> Version | None:
        """Return a Study's newest version when its Instances are still exactly those, or None."""
        with self._ledger.database.read() as connection:
            rows = studies.source_instances(connection, study)
            newest = studies.newest_version(connection, study)
        if newest is None or any(row.state != "kept" for row in rows):
            return None
        key = content_key((row.SOPInstanceUID, row.digest) for row in rows)
        return newest if newest.content_key == key else None

    def gather(self, study: str) -> Gathered | None:
        """Bring together a Study's source Instances; those of the same UID are compared by content.

        None when nothing counts, because a person rejected every one.
        """
        with self._ledger.database.read() as connection:
            rows = studies.source_instances(connection, study)
            unsettled = any(row.state != "kept" for row in rows)
            others = (
                _by_uid(studies.contradicting_instances(connection, study)) if unsettled else {}
            )
        if not rows:
            return None
        kept: dict[str, StoredInstance] = {}
        marks: dict[int, str] = {}
        replacing: set[int] = set()
        hold = ""
        # What is in conflict already is compared with all that counts, some of which may be newer.
        for row in sorted(rows, key=lambda row: row.state == "conflict"):
            twin = kept.get(row.SOPInstanceUID)
            if twin is None:
                earlier = _of_another_study(row, others.get(row.SOPInstanceUID, []))
                if earlier is not None:
                    marks[row.id], hold = "conflict", _of_two_studies(earlier, row)
                    continue
                if row.state != "kept":
                    marks[row.id] = "kept"  # nothing is left that it could contradict
                kept[row.SOPInstanceUID] = row
                continue
            if twin.removed_at is not None:
                marks[row.id] = "conflict"
                hold = (
                    f"Instance {row.SOPInstanceUID} came again with other bytes, and retention has "
                    "removed the earlier ones: look at it, then release with --take newest or first"
                )
                continue
            difference, where = self._compare(twin, row)
            match difference:
                case Difference.SAME:
                    marks[row.id] = "duplicate"
                case Difference.ATTRIBUTES:
                    older, newer = sorted((twin, row), key=_age)
                    marks[older.id], marks[newer.id] = "replaced", "kept"
                    kept[row.SOPInstanceUID] = newer
                    replacing.add(newer.id)
                case Difference.CONFLICT:
                    marks[row.id] = "conflict"
                    hold = (
                        f"Instance {row.SOPInstanceUID} came twice with other pixels, patient or "
                        f"geometry ({where}): find out at the sender which one is right, then release "
                        "with --take newest or first"
                    )
        members = tuple(kept.values())
        present = tuple(row for row in rows if row.removed_at is None)
        frozen = self._study(study, present if hold else members)
        seen = frozenset(row.id for row in rows)
        fault = hold or identity_fault(frozen, self._settings.identity)
        return Gathered(members, frozen, seen, marks, fault, frozenset(replacing))

    def _compare(self, kept: StoredInstance, arrived: StoredInstance) -> tuple[Difference, str]:
        """Return how two Instances differ, and of a conflict in which elements."""
        from pacs_ai.pixels.decode import same_frames  # noqa: PLC0415 - not for the light faces
        from pacs_ai.pixels.decoder import one_job  # noqa: PLC0415

        def decoded() -> bool:
            with one_job():
                return same_frames(self._instance(kept), self._instance(arrived))

        try:
            with _readable(kept):
                one = pydicom.dcmread(self._path(kept))
            with _readable(arrived):
                other = pydicom.dcmread(self._path(arrived))
                difference = compare(one, other, same_frames=decoded)
                if difference is not Difference.CONFLICT:
                    return difference, ""
                return difference, ", ".join(contradicting(one, other))
        except SourceError:
            return Difference.CONFLICT, "one of them cannot be read"

    def version(self, version_id: str) -> tuple[Version, Study, dict[str, int]]:
        """Return a Study version, its Study, and the row of each SOP Instance UID."""
        with self._ledger.database.read() as connection:
            version = studies.version(connection, version_id)
            rows = studies.version_instances(connection, version_id)
            notes = studies.derived_instances(
                connection, version.study, sop_class_uid=REJECTION_NOTES
            )
        rejected = [rejected_by(self._instance(note).header) for note in notes]
        study = replace(self._study(version.study, rows), rejected=frozenset().union(*rejected))
        return version, study, {row.SOPInstanceUID: row.id for row in rows}

    def likenesses(
        self, study: str, rows: Mapping[str, int], asking: Asking | None
    ) -> dict[str, Likeness | None]:
        """Return what the pixels of images without a view are like, as far as they were asked.

        Parameters
        ----------
        study : str
        rows : mapping of str to int
            Row of each SOP Instance UID of the Study version.
        asking : Asking or None
            Who is asked now; what another one answered does not count.
        """
        if asking is None:
            return {}
        with self._ledger.database.read() as connection:
            jobs = studies.rule_jobs(connection, study, VIEW_FROM_PIXELS)
        uids = {row: uid for uid, row in rows.items()}
        found: dict[str, Likeness | None] = {}
        for one in jobs:
            asked = [uids[row] for row in one.inputs["image"] if row in uids]
            if one.outcome is None or one.parameters.get(pixels.PARAMETER) != asking.identity:
                continue
            # What retention has removed was asked, and nothing is known of it any more.
            outcome = None if one.results_removed_at is not None else self._outcome(one)
            made = outcome.results if isinstance(outcome, Done) else ()
            said = [
                like for each in made if isinstance(each, Embedding) for like in each.likenesses
            ]
            view = next((like for like in said if like.about == "view"), None)
            found |= dict.fromkeys(asked, view)
        return found

    def job(self, job_id: str) -> tuple[JobRow, Job]:
        """Return a Job with the headers of its inputs."""
        with self._ledger.database.read() as connection:
            row = studies.job(connection, job_id)
            ids = [one for members in row.inputs.values() for one in members]
            stored = studies.instances_by_id(connection, ids)
        _present([*stored.values()])
        inputs = {
            role: tuple(self._instance(stored[one]) for one in members)
            for role, members in row.inputs.items()
        }
        return row, Job(row.rule, row.endpoint, row.kind, inputs, row.parameters)

    def facts(self, study: str) -> Facts:
        """Return what worklist rules may look at."""
        with self._ledger.database.read() as connection:
            version = studies.newest_version(connection, study)
            state = views.study_state(connection, study).state
        entries = () if version is None else self.entries(version.id)
        return Facts(state=state, entries=entries)

    def entries(self, version_id: str) -> tuple[JobResults, ...]:
        """Return what each Job of a Study version came to, those that have not ended left out."""
        with self._ledger.database.read() as connection:
            rows = studies.version_jobs(connection, version_id)
            troubles = views.job_troubles(connection, [row.id for row in rows])
        return tuple(
            self._entry(row, troubles.get(row.id, ""))
            for row in rows
            if row.outcome is not None or row.id in troubles
        )

    def job_encoding(self, job_id: str, *, asked_at: datetime) -> tuple[str, Encoding]:
        """Return a Job's key and the work of the encoders that write for each Job."""
        row, job = self.job(job_id)
        study = Study(
            row.study, job.instances, received_at=row.created_at, peer=self._peer(row.study)
        )
        return row.key, self._work(study, (self._entry(row, ""),), row.key, asked_at)

    def page_encoding(self, version_id: str, *, asked_at: datetime) -> tuple[str, Encoding]:
        """Return a page's key and the work of the encoders that write once for a Study."""
        _, study, _ = self.version(version_id)
        entries = self.entries(version_id)
        key = digest(
            [[entry.key, type(entry.outcome).__name__, _reason(entry.outcome)] for entry in entries]
        )
        return key, self._work(study, entries, key, asked_at)

    def listing(self, claimed: Claimed, decisions: Iterable[Decision], state: str) -> Listing:
        """Return the Workitems that decisions ask for, with references to sources and results.

        Parameters
        ----------
        claimed : Claimed
        decisions : iterable of Decision
        state : str
            Of the Study, as the decisions saw it.

        Raises
        ------
        RemovedError
            When no header is left to name the patient by.
        """
        with self._ledger.database.read() as connection:
            version = studies.newest_version(connection, claimed.study)
            stored = deliveries.stored(connection, claimed.study)
        if version is None:  # held before it was complete
            gathered = self.gather(claimed.study)
            if gathered is None:
                raise RemovedError("a person rejected every Instance of the Study")
            study = gathered.study
        else:
            _, study, _ = self.version(version.id)
        inputs = tuple(self._references(study, stored))
        when = claimed.created_at.astimezone(ZoneInfo(self._settings.site.time_zone))
        orders = []
        for decision in decisions:
            uid = derived_uid("workitem", self._installation, claimed.study, decision.label)
            data_set = workitem.build(
                decision=decision,
                header=study.header,
                inputs=inputs,
                uid=uid,
                when=when,
                organization=self._settings.site.name,
            )
            orders.append(WorkitemOrder(decision, uid, data_set))
        return Listing(tuple(orders), study.header, inputs, when, state in _SETTLED)

    def _references(
        self, study: Study, stored: Sequence[tuple[deliveries.ObjectRow, str]]
    ) -> Iterator[workitem.Reference]:
        """Yield what a reader needs, and the AE that has it: the peer, or where a result was stored."""
        peer = self._settings.peers.get(study.peer)
        members: list[tuple[Instance | deliveries.ObjectRow, str]] = []
        if peer is not None:
            title = peer.called_ae_title or peer.ae_titles[0]
            members += [(one, title) for one in study.instances]
        for made, name in stored:
            target = self._settings.destination(name)
            if isinstance(target, DicomDestination):  # nobody retrieves from a folder
                members.append((made, target.ae_title))
        for one, title in members:
            yield workitem.Reference(
                one.SOPClassUID,
                one.SOPInstanceUID,
                one.SeriesInstanceUID,
                study.StudyInstanceUID,
                title,
            )

    def _work(
        self, study: Study, entries: tuple[JobResults, ...], key: str, asked_at: datetime
    ) -> Encoding:
        site = self._settings.site
        identity = digest(
            [self._installation, key, asked_at.isoformat(), __version__, results.PIXEL_PATH]
        )
        stamp = Stamp(
            when=asked_at.astimezone(ZoneInfo(site.time_zone)),
            identity=identity,
            installation=self._installation,
            site=site.name,
            production=site.production,
            prefix=self._settings.series_description_prefix,
            software_version=__version__,
        )
        return Encoding(study, entries, stamp)

    def _entry(self, row: JobRow, trouble: str) -> JobResults:
        with self._ledger.database.read() as connection:
            ids = [one for role in sorted(row.inputs) for one in row.inputs[role]]
            stored = studies.instances_by_id(connection, ids)
        return JobResults(
            key=row.key,
            rule=row.rule,
            kind=row.kind,
            model=ModelIdentity(**row.model),
            outcome=Failed(trouble) if trouble else self._outcome(row),
            sources=tuple(stored[one].SOPInstanceUID for one in ids),
            parameters=row.parameters,
        )

    def _outcome(self, row: JobRow) -> Outcome:
        held = row.results_digest
        if row.results_removed_at is not None:
            raise RemovedError(
                f"retention removed the results of Job {row.id}: look for them at the Study's "
                "destinations; only other Instances make new ones"
            )
        data = b"[]" if held is None else self._spool.read_results(held)
        found, notes = results.loads(data), results.notes_in(data)
        match row.outcome:
            case "done":
                return Done(found, notes)
            case "nothing_found":
                return NothingFound(found, notes)
            case "held":
                return Held(row.reason or "")
            case _:
                return NotSuitable(row.reason or "")

    def _study(self, uid: str, rows: Sequence[StoredInstance]) -> Study:
        _present(rows)
        return Study(
            StudyInstanceUID=uid,
            instances=tuple(self._instance(row) for row in rows),
            received_at=max(row.received_at for row in rows),
            peer=self._peer(uid),  # results go back to one place, wherever the rest came from
        )

    def _peer(self, study: str) -> str:
        with self._ledger.database.read() as connection:
            return studies.peer(connection, study)

    def _path(self, row: StoredInstance) -> str:
        return str(self._spool.instance_path(row.digest, row.transfer_syntax_uid))

    def _instance(self, row: StoredInstance) -> Instance:
        path = self._spool.instance_path(row.digest, row.transfer_syntax_uid)
        with _readable(row):
            instance = read_instance(path, digest=row.digest)
            # Damage can make the whole read otherwise than the head did when it was received.
            if values(instance.header, "SOPInstanceUID") != (row.SOPInstanceUID,):
                raise ValueError("another SOP Instance UID than in the ledger")
        unread = unreadable(instance.header, _COPIED)
        if unread:
            raise SourceError(
                f"{unread} of Instance {row.SOPInstanceUID} cannot be read: find out at the sender what is "
                "wrong with it"
            )
        return instance


_SETTLED = ("done", "nothing_found", "not_suitable", "not_current", "no_rule")
"""States of a Study whose results are all there (:func:`pacs_ai.ledger.views.study_state`)."""

_COPIED = ("AccessionNumber",)
"""What results and Workitems copy as it stands; every other element is asked for by its text."""


@contextmanager
def _readable(row: StoredInstance) -> Iterator[None]:
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:  # pydicom raises many types on hostile bytes
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk, not the bytes
        raise SourceError(
            f"Instance {row.SOPInstanceUID} cannot be read beyond its head "
            f"({type(error).__name__}): find out at the sender what is wrong with it"
        ) from error


def _present(rows: Sequence[StoredInstance]) -> None:
    gone = [row for row in rows if row.removed_at is not None]
    if gone:
        raise RemovedError(
            f"retention removed {len(gone)} of {len(rows)} Instances that this needs (the first is "
            f"{gone[0].SOPInstanceUID}): have the sender send the whole Study again"
        )


def _reason(outcome: Outcome | Failed) -> str:
    return outcome.reason if isinstance(outcome, NotSuitable | Held | Failed) else ""


def _age(row: StoredInstance) -> tuple[datetime, int]:
    return row.received_at, row.id


def _by_uid(rows: Sequence[StoredInstance]) -> dict[str, list[StoredInstance]]:
    found: dict[str, list[StoredInstance]] = {}
    for row in rows:
        found.setdefault(row.SOPInstanceUID, []).append(row)
    return found


def _of_another_study(
    row: StoredInstance, others: Sequence[StoredInstance]
) -> StoredInstance | None:
    """Return what another Study holds under a row's SOP Instance UID and counts rather than the row.

    StudyInstanceUID is compared like every element that places an Instance: another one is a conflict,
    whatever else the bytes say, so that nobody has to read them.
    """
    if row.state == "kept":
        return None
    return next((one for one in others if one.state == "kept" or _age(one) < _age(row)), None)


def _of_two_studies(earlier: StoredInstance, row: StoredInstance) -> str:
    removed = "" if earlier.removed_at is None else " (retention has removed its bytes)"
    return (
        f"Instance {row.SOPInstanceUID} came under Study {row.StudyInstanceUID}, and is held under Study "
        f"{earlier.StudyInstanceUID} already{removed}: find out at the sender which one is right, then "
        "release this Study with --take newest (it counts here) or first (it counts there)"
    )


def identity_fault(study: Study, identity: Identity) -> str:
    """Return why a Study's patient is not certain, or an empty sentence; no values are told."""
    from pacs_ai.encoding.identity import valid  # noqa: PLC0415 - not for the light faces

    for keyword in _said_twice(study):
        return (
            f"Instances of this Study name more than one patient ({keyword} differs): correct it at "
            "the sender, have the Study sent again, and release it with --take newest"
        )
    if identity is Identity.LENIENT:
        return ""
    for instance in study.instances:
        for keyword in ("PatientID", "PatientName"):
            said = values(instance.header, keyword)
            if not "".join(said).strip("^= "):
                return (
                    f"Instance {instance.SOPInstanceUID} has no {keyword}: "
                    "correct it at the sender, or set identity: lenient"
                )
            if (
                len(said) > 1
                or not said[0].isprintable()
                or valid(instance.header, keyword) is None
            ):
                return (
                    f"Instance {instance.SOPInstanceUID} has a {keyword} that breaks the rules for one "
                    "(PS3.5 section 6.2: its length or characters), so that no result could carry it: "
                    "correct it at the sender, or set identity: lenient"
                )
    return ""


def _said_twice(study: Study) -> Iterator[str]:
    """Yield the elements by which the Instances of a Study name more than one patient."""
    for keyword in (
        "PatientID",
        "IssuerOfPatientID",
        "PatientBirthDate",
        "PatientSex",
        "PatientName",
    ):
        said = {
            values(instance.header, keyword)
            for instance in study.instances
            # A name alone that differs under one PatientID is a correction on its way.
            if keyword != "PatientName" or not values(instance.header, "PatientID")
        }
        if keyword != "PatientID":
            said -= {()}
        if len(said) > 1:
            yield keyword
