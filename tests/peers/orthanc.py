"""Orthanc with DICOMweb: a real PACS of the test's own, on free ports, in a folder of its own.

Seen of Orthanc 1.10.1: the DICOM port listens on every address; a Study becomes stable again with every
late Instance and goes out whole; its C-STORE takes no LABELMAP segmentation; C-FIND is for the AE titles
among its DicomModalities only (the association is aborted otherwise).
"""

import json
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
from dicomweb_client import DICOMwebClient
from pydicom.dataset import Dataset

from tests.peers import free_port, require, require_file

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")

# SendToModality() takes the id of an Instance only, and reports success for a Study that it did not send.
FORWARD_STABLE_STUDIES = """
function OnStableStudy(studyId, tags, metadata)
  RestApiPost('/modalities/gateway/store',
              DumpJson({ Resources = { studyId }, Synchronous = false }))
end
"""


@dataclass(frozen=True)
class Orthanc:
    """A running Orthanc: where it is, and what a test asks it."""

    http_port: int
    dicom_port: int
    ae_title: str
    log: Path

    @property
    def url(self) -> str:
        """The REST API."""
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def dicomweb(self) -> DICOMwebClient:
        """A DICOMweb client of it."""
        return DICOMwebClient(url=f"{self.url}/dicom-web")

    def get(self, path: str) -> Any:
        """Return the JSON of a path of the REST API."""
        answer = requests.get(f"{self.url}{path}", timeout=10)
        answer.raise_for_status()
        return answer.json()

    def instances(self, study_instance_uid: str) -> set[str]:
        """Return the SOP Instance UIDs that it holds of a Study, by its REST API."""
        query = {
            "Level": "Instance",
            "Query": {"StudyInstanceUID": study_instance_uid},
            "Expand": True,
        }
        answer = requests.post(f"{self.url}/tools/find", json=query, timeout=10)
        answer.raise_for_status()
        return {one["MainDicomTags"]["SOPInstanceUID"] for one in answer.json()}

    def file(self, sop_instance_uid: str) -> bytes:
        """Return the DICOM file of an Instance as it is stored there."""
        lookup = requests.post(f"{self.url}/tools/lookup", data=sop_instance_uid, timeout=10)
        (found,) = [one["ID"] for one in lookup.json() if one["Type"] == "Instance"]
        return requests.get(f"{self.url}/instances/{found}/file", timeout=30).content

    def qido_instances(self, study_instance_uid: str) -> list[Dataset]:
        """Return what QIDO-RS finds in a Study."""
        found = self.dicomweb.search_for_instances(study_instance_uid=study_instance_uid)
        return [Dataset.from_json(one) for one in found]

    def qido_series(self, study_instance_uid: str) -> list[Dataset]:
        """Return the Series that QIDO-RS finds in a Study."""
        found = self.dicomweb.search_for_series(study_instance_uid=study_instance_uid)
        return [Dataset.from_json(one) for one in found]

    def jobs(self) -> list[dict[str, Any]]:
        """Return its jobs (the last ten), each with its State."""
        jobs: list[dict[str, Any]] = self.get("/jobs?expand")
        return jobs


@contextmanager
def orthanc(
    folder: Path,
    *,
    gateway_port: int | None = None,
    gateway_ae_title: str = "PACSAI",
    gateway_web: Mapping[str, Any] | None = None,
    stable_age: int = 1,
    further: Mapping[str, Any] | None = None,
) -> Iterator[Orthanc]:
    """Start an Orthanc, and stop it at the end.

    Parameters
    ----------
    folder : Path
        For its database, configuration and log; made when it does not exist.
    gateway_port : int, optional
        Where the gateway listens on loopback. With it, every Study goes there once it is stable.
    gateway_ae_title : str
    gateway_web : mapping, optional
        The gateway as a DICOMweb server named ``gateway``: Url and HttpHeaders.
    stable_age : int
        Seconds without a new Instance after which a Study is stable.
    further : mapping, optional
        Further entries of its configuration.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pacs = Orthanc(free_port(), free_port(), "ORTHANC", folder / "orthanc.log")
    configuration = _configuration(pacs, folder, stable_age)
    if gateway_port is not None:
        script = folder / "forward.lua"
        script.write_text(FORWARD_STABLE_STUDIES)
        configuration["LuaScripts"] = [str(script)]
    # It lets anybody store, and answers C-FIND to those only whom it knows.
    configuration["DicomModalities"] = {
        "gateway": {"AET": gateway_ae_title, "Host": "127.0.0.1", "Port": gateway_port or 104}
    }
    if gateway_web is not None:
        configuration["DicomWeb"]["Servers"] = {"gateway": dict(gateway_web)}
    configuration |= further or {}
    settings = folder / "orthanc.json"
    settings.write_text(json.dumps(configuration, indent=2))
    with pacs.log.open("wb") as log:
        process = subprocess.Popen(
            [require("Orthanc"), settings], stdout=log, stderr=subprocess.STDOUT, cwd=folder
        )
    try:
        _wait_until_ready(pacs, process)
        yield pacs
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _configuration(pacs: Orthanc, folder: Path, stable_age: int) -> dict[str, Any]:
    return {
        "Name": "PACS of a test",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "Plugins": [str(require_file(PLUGIN))],
        "HttpPort": pacs.http_port,
        "DicomPort": pacs.dicom_port,
        "DicomAet": pacs.ae_title,
        "DicomCheckCalledAet": True,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "StableAge": stable_age,
        "OverwriteInstances": False,
        "HttpThreadsCount": 4,
        "JobsHistorySize": 50,
        # Its default name, localhost, would stand in bulk data addresses without the port.
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }


def _wait_until_ready(pacs: Orthanc, process: subprocess.Popen[bytes]) -> None:
    def ready() -> bool:
        if process.poll() is not None:
            raise AssertionError(f"Orthanc ended: {pacs.log.read_text()[-2000:]}")
        try:
            return "dicom-web" in pacs.get("/plugins")
        except requests.ConnectionError:
            return False

    wait_for(ready, seconds=30, what="Orthanc to answer")


def wait_for(condition: Callable[[], bool], *, seconds: float, what: str) -> None:
    """Wait until a condition holds; a test that waits in vain fails and says for what."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError(f"waited {seconds} s in vain for {what}")
