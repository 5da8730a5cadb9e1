"""The seven steps; reading them is reading the product.

A Study goes one way: **receive → assemble → route → infer → encode → deliver → worklist**. Each step is
*claim → step → commit*: the claim counts the attempt and holds a lease, the step works on frozen values
without an open transaction, the commit makes facts, event and next work true together. The gateway alone
writes the ledger and the spool.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from struct import unpack

from pydicom import dcmwrite
from pydicom.dataset import Dataset

from pacs_ai import commits, encoding, models, prototypes, results, routing
from pacs_ai.delivery import Outgoing, doubt, sender
from pacs_ai.encoding import Encoding
from pacs_ai.errors import DeliveryUnavailableError, EncodingError, PacsAiError, TransientError
from pacs_ai.failpoint import failpoint
from pacs_ai.grouping import GroupCommit
from pacs_ai.intake import Context, Incoming
from pacs_ai.ledger import Commit, arrivals, deliveries, retention, work, workitems
from pacs_ai.ledger.clock import now
from pacs_ai.ledger.deliveries import ObjectRow
from pacs_ai.ledger.presence import open_ledger, refuse_lost_spool
from pacs_ai.ledger.rows import State
from pacs_ai.ledger.work import Claimed
from pacs_ai.records import Records
from pacs_ai.results import Done, Held, NothingFound, NotSuitable, Outcome
from pacs_ai.settings import Settings
from pacs_ai.spool import RemovedError, RemovedMeanwhileError, Spool
from pacs_ai.tally import Tally
from pacs_ai.worklist import rules as worklist_rules


class Gateway:
    """The gateway: one object in each process that carries out steps.

    Parameters
    ----------
    settings : Settings

    Raises
    ------
    ConfigError
        When a rule is wrong, with every fault and its line; or a file of prototypes is.
    LedgerUnusableError
        When the ledger is none that can be worked with, or is lost.
    SpoolError
        When the spool is lost.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.rules = routing.parse(settings)
        self.worklist_rules = worklist_rules.parse(settings)
        prototypes.check(settings)
        self.ledger = open_ledger(settings)
        refuse_lost_spool(settings, self.ledger.database)
        self.spool = Spool(settings.spool_path)
        self._group = GroupCommit(self.ledger)
        self._tally = Tally(self.ledger.database)
        self.records = Records(settings, self.ledger, self.spool)

    # ------------------------------------------------------------------ receive

    def incoming(self, peer: str, context: Context) -> Incoming:
        """Open the one way in for an Instance: ``write`` its data set, ``commit``, ``discard``."""
        return Incoming(
            self.settings,
            self.ledger,
            self.spool,
            self._group,
            self._tally,
            peer=peer,
            context=context,
        )

    # ------------------------------------------------------------------ assemble

    def assemble(self) -> bool:
        """Freeze the Instances of a Study that is complete, and say by which evidence."""
        with self.ledger.claim(work.ASSEMBLE) as attempt:
            if attempt is None:
                return False
            same = self.records.unchanged(attempt.claimed.study)
            if same is not None:
                with attempt.commit(reason=f"the Instances are those of version {same.number}"):
                    return True
            gathered = self.records.gather(attempt.claimed.study)
            if gathered is None:
                with attempt.commit(reason="a person rejected every Instance of it"):
                    return True
            state, reason = (State.HELD, gathered.hold) if gathered.hold else (State.DONE, None)
            with attempt.commit(state, reason) as commit:
                commits.assembled(
                    commit, gathered, self.settings, asked_at=attempt.claimed.created_at
                )
            failpoint("assemble.committed")
        return True

    # ------------------------------------------------------------------ route

    def route(self) -> bool:
        """Ask every rule about a Study version; its Jobs are ready when this ends."""
        with self.ledger.claim(work.ROUTE) as attempt:
            if attempt is None:
                return False
            version, study, rows = self.records.version(attempt.claimed.subject)
            pixels = self.records.likenesses(version.study, rows, self.rules.asking)
            routed = routing.route(study, self.rules, now=now(), pixels=pixels)
            with attempt.commit() as commit:
                commits.routed(commit, version, routed, rows, self.settings)
            failpoint("route.committed")
        return True

    # ------------------------------------------------------------------ infer

    def infer(self, endpoint: str) -> bool:
        """Run one Job on its endpoint; its results come back on the native grid of the source."""
        target = self.settings.endpoints[endpoint]
        with self.ledger.claim(work.infer_queue(endpoint), limit=target.concurrency) as attempt:
            if attempt is None:
                return False
            row, job = self.records.job(attempt.claimed.subject)
            outcome = models.model(job.kind)(job, target, attempt.seats)
            failpoint("infer.answered")
            kept = self._keep_results(outcome)
            failpoint("infer.stored")
            state = State.HELD if isinstance(outcome, Held) else State.DONE
            with attempt.commit(state, _reason(outcome)) as commit:
                self._hold(
                    commit, row.study, [] if kept is None else [self.spool.results_path(kept)]
                )
                commits.inferred(commit, row, outcome, kept)
            failpoint("infer.committed")
        return True

    # ------------------------------------------------------------------ encode

    def encode(self) -> bool:
        """Write the SOP Instances of a Job, or the page of a Study: stored once, never rebuilt."""
        with self.ledger.claim(work.ENCODE) as attempt:
            if attempt is None:
                return False
            subject, order, encoders = self._encoders(attempt.claimed)
            made = [
                self._store(data_set, kind=kind, key=subject.key)
                for kind, encoder in encoders.items()
                for data_set in encoder(order)
            ]
            failpoint("encode.stored")
            with attempt.commit() as commit:
                self._hold(
                    commit, subject.study.StudyInstanceUID, [self._path(one) for one in made]
                )
                commits.encoded(commit, subject, made, self.settings)
            failpoint("encode.committed")
        return True

    # ------------------------------------------------------------------ deliver

    def deliver(self, destination: str) -> bool:
        """Send a Study's SOP Instances to a destination; every answer becomes a Receipt."""
        with self.ledger.claim(work.deliver_queue(destination), limit=1) as attempt:
            if attempt is None:
                return False
            study = attempt.claimed.study
            target = self.settings.reachable(destination)
            outgoing = self._released(study, destination)
            doubted = doubt(outgoing, target) if outgoing else None
            if doubted:
                with attempt.commit(State.HELD, doubted):
                    return True
            # Asking takes its time: what was superseded or put in question meanwhile stays here.
            still = {*self._released(study, destination)}
            with self.ledger.database.read() as connection:
                if work.is_in_question(connection, attempt.claimed):
                    raise DeliveryUnavailableError("newer Instances of the Study have come")
            outgoing = tuple(one for one in outgoing if one in still)
            receipts = sender(target.kind)(outgoing, target) if outgoing else ()
            failpoint("deliver.sent")
            with self.ledger.database.write() as connection:
                refused = commits.answered(connection, study, destination, receipts)
            failpoint("deliver.answered")
            commits.undelivered(destination, receipts)
            with attempt.commit(State.FAILED if refused else State.DONE, refused) as commit:
                commits.delivered(commit, study, destination, receipts)
            failpoint("deliver.committed")
        return True

    # ------------------------------------------------------------------ worklist

    def worklist(self) -> bool:
        """Put a Study on the worklist of whoever should look at it; priority only rises."""
        with self.ledger.claim(work.WORKLIST) as attempt:
            if attempt is None:
                return False
            study = attempt.claimed.study
            with self.ledger.database.read() as connection:
                looks = work.looks(connection, study)
                listed = workitems.of_study(connection, study)
            facts = self.records.facts(study)
            decisions = worklist_rules.decide(self.worklist_rules, facts)
            if not decisions and not listed:
                with attempt.commit():
                    return True
            try:
                listing = self.records.listing(attempt.claimed, decisions, facts.state)
            except RemovedError as error:  # no header is left to name the patient by
                with attempt.commit(reason=f"not listed: {error}"):
                    return True
            with attempt.commit() as commit:
                commits.listed(commit, study, listing, looks)
            failpoint("worklist.committed")
        return True

    # ------------------------------------------------------------------ signs of life

    def committing_seconds(self) -> float:
        """Return for how long the Instances that are being made durable have been at it."""
        return self._group.busy_seconds()

    # ------------------------------------------------------------------ by queue

    @staticmethod
    def queue_names(settings: Settings) -> tuple[str, ...]:
        """Return the name of every queue that the settings ask for."""
        return (
            work.ASSEMBLE,
            work.ROUTE,
            *(work.infer_queue(name) for name in settings.endpoints),
            work.ENCODE,
            *(work.deliver_queue(name) for name in settings.destination_names),
            work.WORKLIST,
        )

    def carry_out(self, queue: str) -> bool:
        """Carry out the best ready work of a queue; False when there is none."""
        steps: dict[str, Callable[[], bool]] = {
            work.ASSEMBLE: self.assemble,
            work.ROUTE: self.route,
            work.ENCODE: self.encode,
            work.WORKLIST: self.worklist,
        }
        kind, _, name = queue.partition(".")
        if kind == "infer":
            return self.infer(name)
        if kind == "deliver":
            return self.deliver(name)
        return steps[queue]()

    def prepare(self) -> None:
        """Do what the first association and its first Instance would have to wait for."""
        arrivals.compile_statements(self.ledger.database.engine.dialect)
        with suppress(PacsAiError):  # each association is told then
            self.too_much_waits()

    def has_room(self) -> bool:
        """Tell whether the spool's disk is above the watermark; below it faces refuse for now."""
        disk = self.spool.disk()
        return disk.free >= self.settings.listener.watermark(disk.total)

    def too_much_waits(self) -> bool:
        """Tell whether more work waits than ``listener.maximum_backlog``; faces refuse for now then."""
        try:
            waiting = self.ledger.backlog()
        except TransientError:
            return False  # each Instance is told that the ledger is busy, if it still is
        return waiting > self.settings.listener.maximum_backlog

    def refused(self, status: int) -> None:
        """Count an Instance that a face refused, with the status it answered (PS3.4 B.2.3)."""
        self._tally.refused(status)

    def close(self) -> None:
        """Close the ledger."""
        self._tally.close()
        self._group.close()
        self.ledger.close()

    # ------------------------------------------------------------------ what steps ask of the spool

    def _keep_results(self, outcome: Outcome) -> str | None:
        if isinstance(outcome, Done | NothingFound):
            with self._tally.watching_spool():
                return self.spool.put_results(results.dumps(outcome.results, outcome.notes))
        return None

    def _encoders(
        self, claimed: Claimed
    ) -> tuple[commits.Encoded, Encoding, dict[str, encoding.Encoder]]:
        page, _, version_id = claimed.subject.rpartition(":")
        if not page:
            key, order = self.records.job_encoding(claimed.subject, asked_at=claimed.created_at)
            return commits.Encoded(key, order.study, None), order, encoding.each_job()
        key, order = self.records.page_encoding(version_id, asked_at=claimed.created_at)
        with self.ledger.database.read() as connection:
            made = {one.kind for one in deliveries.objects_of(connection, [key])}
        # The page of the same Jobs is not made again for a Study version that changed nothing.
        encoders = {kind: one for kind, one in encoding.once_a_study().items() if kind not in made}
        return commits.Encoded(key, order.study, version_id), order, encoders

    def _store(self, data_set: Dataset, *, kind: str, key: str) -> ObjectRow:
        data = _file_bytes(data_set)
        limit = self.settings.defaults.max_result
        if len(data) > limit:
            raise EncodingError(
                f"the {kind} is {len(data)} bytes, more than defaults.max_result ({limit}): "
                "raise it, or ask for fewer labels"
            )
        syntax = str(data_set.file_meta.TransferSyntaxUID)
        content = _data_set_digest(data)
        with self._tally.watching_spool():
            self.spool.put_instance(data, digest=content, transfer_syntax_uid=syntax)
        return ObjectRow(
            SOPInstanceUID=str(data_set.SOPInstanceUID),
            SOPClassUID=str(data_set.SOPClassUID),
            StudyInstanceUID=str(data_set.StudyInstanceUID),
            SeriesInstanceUID=str(data_set.SeriesInstanceUID),
            transfer_syntax_uid=syntax,
            kind=kind,
            volumetric=encoding.on_volume(data_set),
            subject=key,
            digest=content,
            size=len(data),
        )

    def _released(self, study: str, destination: str) -> tuple[Outgoing, ...]:
        with self.ledger.database.write() as connection:
            rows = commits.released(connection, study, destination, self.settings)
        return tuple(
            Outgoing(
                SOPInstanceUID=row.SOPInstanceUID,
                SOPClassUID=row.SOPClassUID,
                StudyInstanceUID=row.StudyInstanceUID,
                transfer_syntax_uid=row.transfer_syntax_uid,
                kind=row.kind,
                path=self._path(row),
            )
            for row in rows
        )

    def _path(self, row: ObjectRow) -> Path:
        return self.spool.instance_path(row.digest, row.transfer_syntax_uid)

    @staticmethod
    def _hold(commit: Commit, study: str, stored: Sequence[Path]) -> None:
        """Make sure that what was stored is still there when its rows are written."""
        retention.hold_files(commit.connection, [study])
        if not all(path.exists() for path in stored):
            raise RemovedMeanwhileError("an earlier copy of these bytes was just being removed")


def _file_bytes(data_set: Dataset) -> bytes:
    buffer = BytesIO()
    if isinstance(data_set.get("PixelData"), bytes):
        # As a file it is copied once, in pieces; as bytes, twice and whole.
        data_set["PixelData"].value = BytesIO(data_set.PixelData)
    dcmwrite(buffer, data_set, enforce_file_format=True)
    return buffer.getvalue()


def _data_set_digest(data: bytes) -> str:
    # Preamble, prefix and the group length element (12 bytes) come before the rest of the File Meta
    # (PS3.10 section 7.1); the digest is of the data set alone, as for what is received.
    (meta_length,) = unpack("<I", data[140:144])
    return sha256(memoryview(data)[144 + meta_length :]).hexdigest()


def _reason(outcome: Outcome) -> str | None:
    return outcome.reason if isinstance(outcome, NotSuitable | Held) else None
