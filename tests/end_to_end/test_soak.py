"""Random SIGKILLs of every process under load: nothing accepted is lost or altered, no Study is stuck.

``make soak`` runs it in full length. In the environment, ``SOAK_KILLS``, ``SOAK_INSTANCES`` and ``SOAK_SEED``
change its size and seed, and ``SOAK_FIGURES`` names a page between whose marks the figures are written.
"""

from __future__ import annotations

import gc
import hashlib
import math
import os
import random
import signal
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pydicom
import pytest
import requests
import yaml
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from pynetdicom import AE

from pacs_ai import phantom
from pacs_ai.cli.files import data_set_bytes
from pacs_ai.ledger.tokens import Scope, Tokens
from tests.integration.listening import CT, encoded
from tests.integration.test_stow import MULTIPART, body_of, file_of
from tests.peers import free_port
from tests.peers.dcmtk import storescp
from tests.running import ENDED, SHORT_TIMES, Running, running_gateway
from tests.unit.models.fake_endpoint import Answer, FakeEndpoint

KILLS = int(os.environ.get("SOAK_KILLS", "200"))
INSTANCES = int(os.environ.get("SOAK_INSTANCES", "10000"))
SEED = int(os.environ.get("SOAK_SEED") or time.time())
OF_A_STUDY = 40
PAUSE = (1.0, 5.0)
"""Seconds between two kills, at random between these."""
GIVE_UP = 900.0
"""Seconds within which a sender gets a Study through, and the work that is left ends."""
DX = "1.2.840.10008.5.1.4.1.1.1.1"
FINDING = [{"output": [["Small right pleural effusion.", None]]}]
BEGIN, END = "<!-- soak: begin -->\n", "<!-- soak: end -->"


@dataclass
class Sent:
    """What senders had acknowledged: SHA-256 of data set bytes by SOP Instance UID."""

    acknowledged: dict[str, str] = field(default_factory=dict)
    studies: list[str] = field(default_factory=list)
    broken: int = 0
    """Transfers that ended without an answer, and were made again."""

    @property
    def progress(self) -> float:
        return len(self.acknowledged) / INSTANCES


def study(number: int, frontal: Dataset, dice: random.Random) -> list[Dataset]:
    """Return a Study of one radiograph, which a model reads, and CT Instances.

    Most of those are small, every eighth is of the usual size (it goes past the page cache), and one is of
    several buffers of the spool.
    """
    first = deepcopy(frontal)
    first.StudyInstanceUID = generate_uid()
    first.SeriesInstanceUID = generate_uid()
    first.SOPInstanceUID = generate_uid()
    first.AccessionNumber = f"S{number}"
    made = [first]
    series = generate_uid()
    for place in range(OF_A_STUDY - 1):
        one = Dataset()
        for keyword in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex"):
            one[keyword] = first[keyword]
        one.SOPClassUID, one.SOPInstanceUID, one.Modality = CT, generate_uid(), "CT"
        one.StudyInstanceUID, one.SeriesInstanceUID = first.StudyInstanceUID, series
        one.AccessionNumber = first.AccessionNumber
        one.InstanceNumber = place + 1
        one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
        one.Rows = one.Columns = 1024 if place == 0 else 512 if place % 8 == 1 else 64
        one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 12, 11, 0
        one.PixelData = dice.randbytes(2 * one.Rows * one.Columns)
        made.append(one)
    for one in made:
        one.file_meta = FileMetaDataset()
        one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return made


def small_frontal() -> Dataset:
    """Return the phantom's radiograph with every fourth pixel only."""
    made = phantom.chest_radiographs(name="soak", when=datetime.now(UTC), opacity=False)[0]
    pixels = made.pixel_array[::4, ::4]
    made.PixelData = pixels.tobytes()
    made.Rows, made.Columns = pixels.shape
    made.ImagerPixelSpacing = [4 * spacing for spacing in made.ImagerPixelSpacing]
    return made


def store_by_dimse(gateway: Running, waiting: list[Dataset], sent: Sent) -> list[Dataset]:
    """Send over one association; return what was not acknowledged."""
    entity = AE("DEMO")
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 30
    for sop_class in (CT, DX):
        entity.add_requested_context(sop_class, ExplicitVRLittleEndian)
    face = gateway.settings.listener
    association = entity.associate(face.host, face.port, ae_title=face.ae_title)
    left = [*waiting]
    try:
        while left and association.is_established:
            answer = association.send_c_store(left[0])
            if answer.get("Status") != 0x0000:
                break
            one = left.pop(0)
            sent.acknowledged[str(one.SOPInstanceUID)] = digest(encoded(one))
    except (RuntimeError, ValueError):  # the association ended between two messages
        pass
    finally:
        if association.is_established:
            association.release()
        entity.shutdown()
    return left


def store_by_stow(
    gateway: Running, waiting: list[Dataset], sent: Sent, token: str
) -> list[Dataset]:
    """Send in one request; return what was not acknowledged."""
    web = gateway.settings.web
    headers = {"Authorization": f"Bearer {token}", "Content-Type": MULTIPART}
    url = f"http://{web.host}:{web.port}/dicom-web/studies"
    try:
        body = body_of(*map(file_of, waiting))
        answer = requests.post(url, data=body, headers=headers, timeout=60)
        stored = answer.json()["00081199"]["Value"] if answer.status_code in (200, 202) else []
    except requests.RequestException:
        return waiting
    taken = {one["00081155"]["Value"][0] for one in stored}
    for one in waiting:
        if str(one.SOPInstanceUID) in taken:
            sent.acknowledged[str(one.SOPInstanceUID)] = digest(encoded(one))
    return [one for one in waiting if str(one.SOPInstanceUID) not in taken]


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


Store = Callable[[list[Dataset]], list[Dataset]]


@dataclass
class Load:
    """Senders that send Study after Study, and never faster than kills go on."""

    sent: Sent
    frontal: Dataset
    kills: Callable[[], float]
    failed: list[BaseException] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    begun: int = 0

    def run(self, store: Store, seed: int) -> None:
        """Send until all are sent; what was not acknowledged goes again, as a PACS does it."""
        dice = random.Random(seed)
        try:
            while (number := self._next()) is not None:
                waiting = study(number, self.frontal, dice)
                self.sent.studies.append(str(waiting[0].StudyInstanceUID))
                deadline = time.monotonic() + GIVE_UP
                while left := store(waiting):
                    assert time.monotonic() < deadline, "a Study cannot be sent"
                    self.sent.broken += 1
                    waiting = left
                    time.sleep(dice.uniform(0.1, 1.0))
        except BaseException as error:
            self.failed.append(error)
            raise

    def _next(self) -> int | None:
        total = math.ceil(INSTANCES / OF_A_STUDY)
        with self.lock:
            number = self.begun
            self.begun += 1
        while number < total and number / total > self.kills() + 0.05:
            time.sleep(0.2)
        return number if number < total else None


@dataclass
class Killer:
    """Kills one process after the other, at random."""

    gateway: Running
    dice: random.Random
    count: Counter[str] = field(default_factory=Counter)

    def kill(self) -> None:
        """Kill one process that is alive now, but nobody before all roles live again.

        Where all are killed as soon as they start, nothing is under load and nothing is shown.
        """
        targets = {name: pids for name, pids in self._targets().items() if pids}
        if not {"listener", "worker", "web"} <= targets.keys():
            return
        name = self.dice.choice(sorted(targets))
        with suppress(ProcessLookupError):
            os.kill(self.dice.choice(targets[name]), signal.SIGKILL)
            self.count[name] += 1

    def _targets(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for role in ("listener", "worker", "web"):
            with suppress(psutil.NoSuchProcess):
                process = psutil.Process(self.gateway.supervisor.pid(role))
                if process.status() == psutil.STATUS_ZOMBIE:
                    continue
                found[role] = [process.pid]
                for child in process.children():
                    found.setdefault(self._name(role, child), []).append(child.pid)
        return found

    @staticmethod
    def _name(role: str, child: psutil.Process) -> str:
        with suppress(psutil.NoSuchProcess):
            if role == "worker" and "server" in child.name():
                return "broker"
        return {"listener": "one of two listener processes", "worker": "worker's child"}[role]


def write_settings(folder: Path, endpoint: str, port: int) -> Path:
    demo = yaml.safe_load((Path(__file__).parents[2] / "config/demo.yaml").read_text())
    everything = {"profile": "all", "narrative": True}
    values = {
        **demo,
        "data": str(folder / "gateway"),
        "listener": {"port": free_port(), "minimum_free": 1, "processes": 2},
        "web": {"port": free_port()},
        "peers": {"demo": {"ae_titles": ["DEMO"], "addresses": ["127.0.0.1"], "quiet": "5s"}},
        "endpoints": {
            "report": {"kind": "cxrreport", "url": endpoint, "name": "Test", "version": "1"}
        },
        "destinations": {
            "folder": {"kind": "folder", "path": str(folder / "results"), **everything},
            "pacs": {
                "kind": "dicom",
                "host": "127.0.0.1",
                "port": port,
                "ae_title": "STORESCP",
                **everything,
            },
        },
        "delivery": ["folder", "pacs"],
        "rules": [
            {
                "name": "cxr",
                "when": {"Modality": "DX"},
                "view": {
                    "from": ["ViewPosition"],
                    "frontal": ["PA", "AP"],
                    "unknown": "not_suitable",
                },
                "run": ["report"],
            }
        ],
        "worklist": [{"when": {"state": ["done"]}, "label": "AI-STATUS", "audience": "imaging-it"}],
        "work": SHORT_TIMES,
        "worker_processes": 2,
    }
    path = folder / "settings.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return path


@contextmanager
def scoring() -> Iterator[str]:
    endpoint = FakeEndpoint([Answer(FINDING)])
    endpoint.start()
    try:
        yield endpoint.url
    finally:
        endpoint.stop()


@pytest.mark.soak
@pytest.mark.timeout(5400)
# The sender's library leaves the socket of a connection that was refused to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_random_kills_under_load_lose_nothing(tmp_path: Path) -> None:
    sys.stdout.write(f"SOAK_SEED={SEED}\n")
    frontal = small_frontal()
    sent = Sent()
    begun = time.monotonic()
    with (
        scoring() as endpoint,
        storescp(tmp_path / "received") as port,
        running_gateway(
            write_settings(tmp_path, endpoint, port), roles=("worker", "listener", "web")
        ) as gateway,
    ):
        killer = Killer(gateway, random.Random(SEED))
        under_fire(gateway, killer, sent, frontal)
        states = wait_until_quiet(gateway)
        held = [uid for uid, state in states.items() if state == "held"]
        reasons = Counter(gateway.views.timeline(uid)["reason"] for uid in held)
        assert all("3 attempts without an outcome" in one for one in reasons), reasons
        for uid in held:
            gateway.ledger.release(uid, actor="soak")
        after = wait_until_quiet(gateway)
        assert Counter(after.values()) == {"done": len(sent.studies)}, Counter(after.values())
        assert_nothing_lost(gateway, sent)
        delivered = assert_one_digest_each(gateway, [tmp_path / "results", tmp_path / "received"])
    figures = {
        "on": f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, seed {SEED}",
        "minutes": f"{(time.monotonic() - begun) / 60:.0f}",
        "SIGKILLs": f"{killer.count.total()}: "
        + ", ".join(f"{count} × {name}" for name, count in sorted(killer.count.items())),
        "acknowledged Instances": f"{len(sent.acknowledged):,} in {len(sent.studies)} Studies",
        "transfers that broke off and were made again": str(sent.broken),
        "lost": "0",
        "altered": "0",
        "Studies stuck": "0",
        "Studies held after three strikes; done after their release": str(len(held)),
        "results delivered, to two destinations": f"{delivered}; none with two digests",
    }
    gc.collect()  # here, where what the library left open is no failure
    write_figures(figures)
    assert killer.count.total() >= KILLS
    assert len(sent.acknowledged) >= INSTANCES


def under_fire(gateway: Running, killer: Killer, sent: Sent, frontal: Dataset) -> None:
    """Kill until all kills are done and everything is sent."""
    tokens = Tokens(gateway.ledger.database)
    token, _ = tokens.create("demo", scope=Scope.STOW, lifetime=None, actor="soak")
    load = Load(sent, frontal, kills=lambda: killer.count.total() / KILLS)

    def by_dimse(waiting: list[Dataset]) -> list[Dataset]:
        return store_by_dimse(gateway, waiting, sent)

    def by_stow(waiting: list[Dataset]) -> list[Dataset]:
        return store_by_stow(gateway, waiting, sent, token)

    ways = [by_dimse, by_dimse, by_dimse, by_stow]
    senders = [
        threading.Thread(target=load.run, args=(way, SEED + number), daemon=True)
        for number, way in enumerate(ways)
    ]
    for one in senders:
        one.start()
    strike = time.monotonic() + PAUSE[1]
    while any(one.is_alive() for one in senders) or killer.count.total() < KILLS:
        gateway.supervisor.look()  # also what starts again whoever was killed
        if time.monotonic() >= strike:
            killer.kill()
            strike = time.monotonic() + killer.dice.uniform(*PAUSE)
        assert not load.failed, load.failed
        time.sleep(0.05)


def wait_until_quiet(gateway: Running) -> dict[str, str]:
    """Wait until no work is under way; return the state of every Study."""
    deadline = time.monotonic() + GIVE_UP
    while True:
        gateway.supervisor.look()
        work = gateway.views.health()["work"]
        if not {"ready", "running"} & work.keys():
            states = {one["StudyInstanceUID"]: one["state"] for one in gateway.views.studies()}
            if all(state in ENDED for state in states.values()):
                return states
        assert time.monotonic() < deadline, f"stuck: {work}"
        time.sleep(0.5)


def assert_nothing_lost(gateway: Running, sent: Sent) -> None:
    """Compare what was acknowledged with the ledger, and the ledger with the files."""
    held = gateway.views.instances(None)
    source = {one["SOPInstanceUID"]: one["digest"] for one in held if one["role"] != "own"}
    lost = sent.acknowledged.keys() - source.keys()
    altered = [uid for uid, one in sent.acknowledged.items() if source.get(uid, one) != one]
    assert (len(lost), len(altered)) == (0, 0)
    for one in held:
        folder = gateway.settings.spool_path / "instances" / one["digest"][:2]
        path = folder / f"{one['digest']}.{one['transfer_syntax_uid']}.dcm"
        assert digest(data_set_bytes(path.read_bytes())) == one["digest"]


def assert_one_digest_each(gateway: Running, destinations: list[Path]) -> int:
    """Compare what arrived with what was made: one digest for each SOP Instance UID, everywhere."""
    made: dict[str, str] = {}
    for uid in (one["StudyInstanceUID"] for one in gateway.views.studies()):
        timeline: dict[str, Any] = gateway.views.timeline(uid)
        made |= {one["SOPInstanceUID"]: one["digest"] for one in timeline["objects"]}
        assert {one["state"] for one in timeline["deliveries"]} == {"stored"}
    for folder in destinations:
        arrived: dict[str, set[str]] = defaultdict(set)
        for path in folder.rglob("*"):
            if path.is_file() and path.suffix != ".png":  # the folder's pictures for people
                uid = str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID)
                arrived[uid].add(digest(data_set_bytes(path.read_bytes())))
        assert {uid: {one} for uid, one in made.items()} == arrived, folder.name
    return len(made)


def write_figures(figures: dict[str, str]) -> None:
    """Print the figures, and put them on the page that asks for them."""
    rows = "\n".join(f"| {what} | {value} |" for what, value in figures.items())
    text = f"| random kills | figures of the last full run |\n|---|---|\n{rows}\n"
    sys.stdout.write(text)
    page = os.environ.get("SOAK_FIGURES")
    if page:
        old = Path(page).read_text()
        head, rest = old.split(BEGIN)
        Path(page).write_text(head + BEGIN + "\n" + text + "\n" + END + rest.split(END)[1])
