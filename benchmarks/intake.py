"""Instances a second that the listener takes in, beside its peers.

``python -m benchmarks.intake --json``: each receiver is started anew for each run, and the runs of all are
interleaved. The senders are DCMTK's ``storescu``, each with its own CT Instances over one association, with
``TCP_NODELAY=1`` in the environment of every process: without it ``storescp`` stalls.

================ ============================================================== =======
receiver         what it is                                                     synced
================ ============================================================== =======
hardened         the listener, as shipped                                       yes
plain            the listener with ``listener.transport: plain``                yes
bare             a bare loop: socket, SHA-256, file, fsync                      yes
orthanc          Orthanc as it comes                                            yes
stock            pynetdicom as it comes                                         no
unsynced         the listener, whose syncs the library libeatmydata swallows    no
bare_unsynced    the bare loop, likewise                                        no
storescp         DCMTK's ``storescp +B --fork``                                 no
================ ============================================================== =======

What is said of them is said in ratios (:data:`FLOORS`): a second of one machine is no second of another's.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil
import yaml
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from benchmarks.memory import Memory

RECEIVERS = (
    *("hardened", "plain", "bare", "orthanc", "stock"),
    *("unsynced", "bare_unsynced", "storescp"),
)
OURS = ("hardened", "plain", "unsynced")
FLOORS = {
    ("hardened", "bare"): 0.75,
    ("hardened", "stock"): 1.3,
    ("hardened", "orthanc"): 1.2,
    ("unsynced", "storescp"): 0.6,
    ("bare_unsynced", "storescp"): None,
}
"""Ratios of Instances a second, and the least that is asked for (of 0.5 MB); not all are reached."""
_UNSYNCED = {name: {"LD_PRELOAD": "libeatmydata.so"} for name in ("unsynced", "bare_unsynced")}
CT = "1.2.840.10008.5.1.4.1.1.2"
START_SECONDS = 60.0


class BenchmarkError(Exception):
    """A receiver did not start or did not take what was sent: there is nothing to report."""


@dataclass(frozen=True)
class Run:
    """What one run came to.

    Attributes
    ----------
    instances, megabytes : float
        A second.
    cpu : float
        CPU seconds of the receiver for each GB (10⁹ bytes).
    memory : float
        Most resident MB of the receiver.
    """

    instances: float
    megabytes: float
    cpu: float
    memory: float


def write_instances(folder: Path, count: int, *, size: int) -> None:
    """Write CT Instances of one Series, each of about so many bytes, with noise for pixels."""
    folder.mkdir(parents=True)
    study, series = generate_uid(), generate_uid()
    columns = 512
    rows = max(1, size // (2 * columns))
    noise = np.random.default_rng(1)
    for number in range(count):
        one = Dataset()
        one.file_meta = FileMetaDataset()
        one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        one.SOPClassUID, one.SOPInstanceUID = CT, generate_uid()
        one.Modality, one.PatientID, one.PatientName = "CT", "4711", "Doe^Jane"
        one.StudyInstanceUID, one.SeriesInstanceUID = study, series
        one.InstanceNumber = number + 1
        one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
        one.Rows, one.Columns = rows, columns
        one.BitsAllocated = one.BitsStored = 16
        one.HighBit, one.PixelRepresentation = 15, 0
        one.PixelData = noise.integers(0, 4096, (rows, columns), np.uint16).tobytes()
        one.save_as(folder / f"{number}.dcm", enforce_file_format=True)


def measure(receiver: str, senders: list[Path], folder: Path) -> Run:
    """Let senders send at once to a receiver that was just started, and that keeps all in an empty folder.

    What others have left to write is written first. Afterwards the files are emptied and stay: where many
    were just removed, new ones are slow to make (ext4 looks at every inode that was let go lately).
    """
    files = [path for folder in senders for path in folder.iterdir()]
    size = sum(path.stat().st_size for path in files)
    os.sync()
    port = _free_port()
    with _receiver(receiver, folder, port) as process:
        watched = psutil.Process(process.pid)
        before = _cpu(watched)
        with Memory({"receiver": process.pid}) as memory:
            seconds = _send(senders, port)
        used = _cpu(watched) - before
    for path in folder.rglob("*"):
        if path.is_file():
            os.truncate(path, 0)
    return Run(
        instances=len(files) / seconds,
        megabytes=size / seconds / 1e6,
        cpu=used / (size / 1e9),
        memory=memory.peaks["receiver"] / 1e6,
    )


def _cpu(process: psutil.Process) -> float:
    """Return CPU seconds of a process, of its children, and of those of them that have ended."""
    while True:
        family = (process, *process.children(recursive=True))
        try:
            return float(sum(sum(one.cpu_times()[:4]) for one in family))
        except psutil.NoSuchProcess:  # a child that has just ended counts with its parent now
            if not process.is_running():
                raise


def _send(senders: list[Path], port: int) -> float:
    command = ["storescu", "-aet", "SENDER", "-aec", "PACSAI", "--required", "--scan-directories"]
    began = time.monotonic()
    running = [
        subprocess.Popen(
            [*command, "127.0.0.1", str(port), str(folder)],
            env=_environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        for folder in senders
    ]
    for one in running:
        _, said = one.communicate()
        if one.returncode:
            raise BenchmarkError(f"storescu failed: {said.decode(errors='replace')[-500:]}")
    return time.monotonic() - began


@contextmanager
def _receiver(name: str, folder: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        _command(name, folder, port),
        env=_environment() | _UNSYNCED.get(name, {}),
        stdout=subprocess.PIPE if name in OURS else subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        if process.stdout is not None:
            process.stdout.readline()  # every process of the listener is ready
        _wait_until_open(port, process)
        yield process
    finally:
        process.terminate()
        process.wait(20)
        if process.stdout is not None:
            process.stdout.close()


def _command(name: str, folder: Path, port: int) -> list[str]:
    if name in ("bare", "bare_unsynced", "stock"):
        kind = name.partition("_")[0]
        return [sys.executable, "-m", "benchmarks.receivers", kind, str(port), str(folder)]
    if name == "storescp":
        return ["storescp", "+B", "--fork", "-od", str(folder), str(port)]
    if name == "orthanc":
        configuration = folder / "orthanc.json"
        configuration.write_text(json.dumps(_orthanc(folder, port)))
        return ["Orthanc", str(configuration)]
    settings = {
        "site": {"name": "bench", "time_zone": "UTC", "use": "research", "responsible": "nobody"},
        "data": str(folder / "gateway"),
        "listener": {
            "port": port,
            "transport": "plain" if name == "plain" else "hardened",
            "minimum_free": "1MB",
        },
        "peers": {"sender": {"ae_titles": ["SENDER"], "addresses": ["127.0.0.1"], "quiet": "1h"}},
    }
    for number in range(256):  # a gateway that has run before: only a new one makes these
        (folder / "gateway" / "spool" / "instances" / f"{number:02x}").mkdir(parents=True)
    file = folder / "settings.yaml"
    file.write_text(yaml.safe_dump(settings))
    return [sys.executable, "-m", "pacs_ai.cli", "listener", "--config", str(file)]


def _orthanc(folder: Path, port: int) -> dict[str, object]:
    return {
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "DicomPort": port,
        "HttpPort": _free_port(),
    }


def _environment() -> dict[str, str]:
    return {**os.environ, "TCP_NODELAY": "1"}


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _wait_until_open(port: int, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except ConnectionRefusedError:
            time.sleep(0.05)
        else:
            time.sleep(0.2)  # what the probe left behind is over
            return
    raise BenchmarkError("a receiver did not start")


def run(
    *,
    runs: int,
    count: int,
    size: int,
    associations: tuple[int, ...],
    receivers: tuple[str, ...] = RECEIVERS,
) -> dict[str, Any]:
    """Measure receivers; return medians, and what they come to beside each other."""
    found: dict[tuple[int, str], list[Run]] = {}
    with tempfile.TemporaryDirectory() as folder:
        senders = [Path(folder) / str(number) for number in range(max(associations))]
        for one in senders:
            write_instances(one, count, size=size)
        for number in range(runs):
            # Each comes first as often as the others: who does finds the disk as the round before left it.
            first = number % len(receivers)
            for at_once in associations:
                for receiver in (*receivers[first:], *receivers[:first]):
                    kept = Path(folder) / f"{receiver}-{at_once}-{number}"
                    kept.mkdir()
                    measured = measure(receiver, senders[:at_once], kept)
                    found.setdefault((at_once, receiver), []).append(measured)
    medians = [
        {
            "associations": at_once,
            "receiver": receiver,
            **{
                name: round(median(getattr(one, name) for one in measured), 2)
                for name in asdict(measured[0])
            },
        }
        for (at_once, receiver), measured in found.items()
    ]
    return {
        "machine": {"cpus": os.cpu_count(), "python": platform.python_version()},
        "bytes": size,
        "runs": runs,
        "ratios": ratios(medians),
        "medians": medians,
    }


def ratios(medians: list[dict[str, Any]]) -> list[dict[str, object]]:
    """Return what the listener's medians come to beside its peers', and the least that they should."""
    found = {(one["associations"], one["receiver"]): one["instances"] for one in medians}
    return [
        {
            "associations": at_once,
            "ratio": f"{own} / {peer}",
            "value": round(found[at_once, own] / found[at_once, peer], 2),
            "floor": floor,
        }
        for at_once in sorted({at_once for at_once, _ in found})
        for (own, peer), floor in FLOORS.items()
        if (at_once, own) in found and (at_once, peer) in found
    ]


def main() -> None:
    """Read the command line and print the medians."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--count", type=int, default=400, help="Instances of each sender")
    parser.add_argument("--bytes", type=int, default=500_000, help="size of an Instance")
    parser.add_argument("--associations", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--receivers", nargs="+", choices=RECEIVERS, default=list(RECEIVERS))
    parser.add_argument("--json", action="store_true", help="print JSON")
    asked = parser.parse_args()
    found = run(
        runs=asked.runs,
        count=asked.count,
        size=asked.bytes,
        associations=tuple(asked.associations),
        receivers=tuple(asked.receivers),
    )
    if asked.json:
        print(json.dumps(found, indent=2))
        return
    for table in (found["medians"], found["ratios"]):
        for row in table:
            print("  ".join(f"{name} {value}" for name, value in row.items()))


if __name__ == "__main__":
    main()
