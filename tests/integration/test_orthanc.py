"""The whole gateway behind a real PACS: a modality sends to Orthanc, results come back into Orthanc."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
import yaml
from pydicom import dcmread
from pydicom.filebase import DicomBytesIO

from tests.peers import free_port
from tests.peers.dcmtk import storescu
from tests.peers.orthanc import Orthanc, orthanc, wait_for

ROOT = Path(__file__).parents[2]
RADIOGRAPH = ROOT.parent / "shared/data/cxr/cr-pa-8bit-jpegbaseline-nih-siim.dcm"
ENDED = ("done", "nothing_found", "not_suitable", "held", "failed", "not_current", "no_rule")


@dataclass(frozen=True)
class Gateway:
    """A running gateway, asked over HTTP."""

    web_port: int
    log: Path

    def get(self, path: str) -> Any:
        return requests.get(f"http://127.0.0.1:{self.web_port}{path}", timeout=10).json()

    def state(self, study: str) -> str:
        states = [
            str(one["state"])
            for one in self.get("/status")["studies"]
            if one["StudyInstanceUID"] == study
        ]
        return states[0] if states else "unknown"


def _settings(folder: Path, listener_port: int, web_port: int, pacs_port: int) -> Path:
    """Write the demo's settings with a PACS as the only peer, and results going back to it."""
    values = yaml.safe_load((ROOT / "config/demo.yaml").read_text())
    values["data"] = str(folder / "data")
    values["listener"]["port"] = listener_port
    values["web"]["port"] = web_port
    values["peers"] = {
        "pacs": {
            "ae_titles": ["ORTHANC"],
            "addresses": ["127.0.0.1"],
            "host": "127.0.0.1",
            "port": pacs_port,
            "profile": "all",
            "narrative": True,
            "quiet": "1s",
        }
    }
    values["destinations"] = {}
    values["delivery"] = "origin"
    for endpoint in values["endpoints"].values():
        endpoint["url"] = f"http://127.0.0.1:{free_port()}/score"
        endpoint["key"] = f"file:{folder / 'data' / 'keys' / 'reference.key'}"
    path = folder / "settings.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return path


@contextmanager
def gateway(folder: Path, *, listener_port: int, pacs_port: int) -> Iterator[Gateway]:
    """Start ``pacs-ai serve`` and stop it at the end; it has to end with 0."""
    folder.mkdir()
    running = Gateway(free_port(), folder / "serve.log")
    settings = _settings(folder, listener_port, running.web_port, pacs_port)
    with running.log.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "pacs_ai.cli", "serve", "--config", settings],
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=folder,
        )
    try:
        wait_for(lambda: _started(running, process), seconds=90, what="the gateway to start")
        yield running
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
    assert process.returncode == 0, running.log.read_text()[-2000:]


def _started(running: Gateway, process: subprocess.Popen[bytes]) -> bool:
    told = running.log.read_text()
    assert process.poll() is None, f"the gateway ended: {told[-2000:]}"
    return "DICOM: " in told


def test_results_come_back_into_the_study_and_their_return_ends_quietly(tmp_path: Path) -> None:
    header = dcmread(RADIOGRAPH, stop_before_pixels=True)
    study, source = str(header.StudyInstanceUID), str(header.SOPInstanceUID)
    port = free_port()
    with (
        orthanc(tmp_path / "orthanc", gateway_port=port, stable_age=2) as pacs,
        gateway(tmp_path / "gateway", listener_port=port, pacs_port=pacs.dicom_port) as ours,
    ):
        storescu(
            [RADIOGRAPH],
            "--propose-jpeg8",
            port=pacs.dicom_port,
            called="ORTHANC",
            calling="MODALITY",
        )
        wait_for(lambda: ours.state(study) in ENDED, seconds=120, what="the Study to end")
        assert ours.state(study) in ("done", "nothing_found")
        wait_for(
            lambda: {"SEG", "SR", "OT"} <= _modalities(pacs, study),
            seconds=60,
            what="segmentation, report and capture to be in the PACS",
        )
        # Its new Instances make the Study stable once more: Orthanc sends the whole of it, results too.
        states = _settled(pacs, ours, study)
        assert len(states) >= 2
        assert set(states) == {"Success"}
        assert ours.state(study) in ("done", "nothing_found")
        held = pacs.instances(study)
        found = pacs.qido_instances(study)
        assert {str(one.SOPInstanceUID) for one in found} == held
        assert source in held
        for uid in held - {source}:
            _assert_belongs_to(pacs, uid, header)


def _modalities(pacs: Orthanc, study: str) -> set[str]:
    return {str(one.Modality) for one in pacs.qido_series(study)}


def _settled(pacs: Orthanc, ours: Gateway, study: str) -> list[str]:
    """Wait until nothing has moved for several quiet periods; return the states of forwarding jobs.

    Results that started results would go round for ever, and never settle.
    """
    history: list[tuple[float, Any]] = []

    def still() -> bool:
        jobs = [str(one["State"]) for one in pacs.jobs()]
        seen = (jobs, pacs.instances(study), ours.state(study))
        if not history or history[-1][1] != seen:
            history.append((time.monotonic(), seen))
        return time.monotonic() - history[-1][0] > 10

    wait_for(still, seconds=90, what="PACS and gateway to come to rest")
    states: list[str] = history[-1][1][0]
    return states


def _assert_belongs_to(pacs: Orthanc, uid: str, header: Any) -> None:
    result = dcmread(DicomBytesIO(pacs.file(uid)), stop_before_pixels=True)
    assert result.StudyInstanceUID == header.StudyInstanceUID
    assert result.SeriesInstanceUID != header.SeriesInstanceUID
    assert result.PatientID == header.PatientID
    assert str(result.SOPInstanceUID).startswith("2.25.")
