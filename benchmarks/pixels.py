"""Pictures per second from stored file to request body, and the memory of a long CT.

``python -m benchmarks.pixels --json``: what the worker does until a body goes out, beside the plain way
(:mod:`benchmarks.bodies`), for CT in three transfer syntaxes and for radiographs; and the peak memory of a
process that segments a CT of 600 slices: request, label map that comes back, masks, SEG. Seconds are of the
processor, all threads' and the decoder child's with ours, so that what else the machine does weighs little.
It ends with 1 when the two ways do not send the same pictures.
"""

from __future__ import annotations

import argparse
import base64
import gzip
import json
import multiprocessing
import os
import platform
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from benchmarks import bodies
from pacs_ai import phantom
from pacs_ai.encoding import ENCODERS, Encoding, Stamp
from pacs_ai.models import parse3d
from pacs_ai.models.inputs import base64_text
from pacs_ai.pixels.decoder import DECODER
from pacs_ai.results import Done, JobResults, ModelIdentity
from pacs_ai.settings import Endpoint, Window
from pacs_ai.study import Instance, Job, Study, read_instance

SIZE = 1024
WINDOW = Window(width=1500, level=-160)
PROMPTS = ["left lung", "right lung", "body"]
WHEN = datetime(2026, 11, 26, tzinfo=UTC)

Way = Callable[[Sequence[Instance]], Iterator[bytes]]


def write_scan(folder: Path, slices: int, *, rows: int = 512) -> list[Instance]:
    """Write a thorax CT of so many slices; its pictures repeat, its positions do not."""
    pictures = phantom.thorax_ct(name="benchmark", when=WHEN, slices=min(slices, 8), rows=rows)
    first = pictures[0]
    axes = np.array(first.ImageOrientationPatient, float).reshape(2, 3)
    normal = np.cross(axes[0], axes[1])
    for number in range(slices):
        one = pictures[number % len(pictures)]
        one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = f"2.25.77.{number + 1}"
        one.InstanceNumber = number + 1
        one.SliceThickness = one.SpacingBetweenSlices = "0.5"
        one.ImagePositionPatient = [f"{value:.6f}" for value in normal * 0.5 * number - 150]
        one.save_as(folder / f"{number}.dcm", enforce_file_format=True)
    return [read_instance(path, digest=path.stem) for path in sorted(folder.glob("*.dcm"))]


class _Answering(BaseHTTPRequestHandler):
    """A MedImageParse 3D that calls all but the darkest of what it sees organs."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        packed, text = asked["input_data"]["data"][0]
        image: Any = nibabel.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(packed)))
        labels = np.minimum(np.asanyarray(image.dataobj) // 64, len(text.split("&")))
        answer: Any = nibabel.Nifti1Image(labels, image.affine)
        data = base64_text(gzip.compress(answer.to_bytes(), compresslevel=1))
        content = json.dumps([{"nifti_file": json.dumps({"data": data})}]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing: standard output is the report."""


@contextmanager
def answering() -> Iterator[str]:
    """Serve the model on loopback; the URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Answering)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/score"
    server.shutdown()
    server.server_close()


def segment(folder: Path, url: str) -> dict[str, float]:
    """Segment a CT as a worker does, and return this process's peak memory after each step, MiB."""
    instances = [read_instance(path, digest=path.stem) for path in folder.glob("*.dcm")]
    endpoint = Endpoint(kind="parse3d", url=url, name="benchmark", version="1", reference=True)
    job = Job("benchmark", "b", "parse3d", {"volume": tuple(instances)}, {"prompts": PROMPTS})
    found = {"start": _peak()}
    outcome = parse3d.infer(job, endpoint)
    if not isinstance(outcome, Done):
        raise SystemExit(f"the CT was not segmented: {outcome}")
    found["infer"] = _peak()
    uid = str(instances[0].header.StudyInstanceUID)
    study = Study(uid, tuple(instances), WHEN, "file")
    model = ModelIdentity("benchmark", "1", "benchmark", reference=True)
    sources = tuple(one.SOPInstanceUID for one in instances)
    entry = JobResults("k", "benchmark", "parse3d", model, outcome, sources)
    stamp = Stamp(WHEN, "k", "benchmark", "benchmark", False, "AI", "1")  # noqa: FBT003
    ENCODERS["segmentation"](Encoding(study, (entry,), stamp))
    found["encode"] = _peak()
    found["decoder child"] = _peak(DECODER.pid)
    return found


def _peak(pid: int | None = None) -> float:
    """Return a process's own peak; getrusage would count its parent's from before it started."""
    lines = Path(f"/proc/{pid or 'self'}/status").read_text().splitlines()
    return round(int(next(one for one in lines if one.startswith("VmHWM:")).split()[1]) / 1024, 1)


def memory(folder: Path) -> dict[str, float]:
    """Return :func:`segment` of a process of its own."""
    with answering() as url, multiprocessing.get_context("spawn").Pool(1) as pool:
        return dict(pool.apply(segment, (folder, url)))


def run(*, slices: int, runs: int, long: int) -> dict[str, object]:
    """Measure both and return the report."""
    with tempfile.TemporaryDirectory() as name:
        (short_folder := Path(name) / "short").mkdir()
        (long_folder := Path(name) / "long").mkdir()
        rates = bodies.speeds(short_folder, slices=slices, runs=runs)
        write_scan(long_folder, long)
        peak = memory(long_folder)
    return {
        "machine": {"cpus": os.cpu_count(), "python": platform.python_version()},
        "pictures per second of one core": rates,
        f"peak MiB of a CT of {long} slices": peak,
    }


def main() -> None:
    """Read the command line and print the report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--slices", type=int, default=16, help="slices of the CT for speed")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--long", type=int, default=600, help="slices of the CT for memory")
    parser.add_argument("--json", action="store_true", help="print JSON")
    asked = parser.parse_args()
    try:
        found = run(slices=asked.slices, runs=asked.runs, long=asked.long)
    except bodies.PicturesDifferError as error:
        raise SystemExit(str(error)) from error
    if asked.json:
        print(json.dumps(found, indent=2))
        return
    for what, values in found.items():
        print(f"{what}: {values}")


if __name__ == "__main__":
    main()
