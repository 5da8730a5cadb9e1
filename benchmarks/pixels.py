"""Slices per second from stored Instance to request body, and the memory of a long CT.

``python -m benchmarks.pixels --json``: decode, window, place on the square of MedImageParse, PNG, base64
and JSON, beside the plain way (pydicom and Pillow: RGB, bicubic, default PNG), on one thread; and the peak
memory of a process that segments a CT of 600 slices: request, label map that comes back, masks, SEG.
Seconds are of the processor, the decoder child's with ours, so that what else the machine does weighs little.
"""

from __future__ import annotations

import argparse
import base64
import gzip
import io
import json
import multiprocessing
import os
import platform
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import median
from typing import Any

import nibabel
import numpy as np
import PIL.Image
import psutil
import pydicom
from numpy.typing import NDArray

from pacs_ai import phantom
from pacs_ai.encoding import ENCODERS, Encoding, Stamp
from pacs_ai.models import parse3d
from pacs_ai.models.inputs import base64_text
from pacs_ai.pixels.decoder import DECODER
from pacs_ai.pixels.display import png
from pacs_ai.pixels.placement import Placement
from pacs_ai.pixels.volume import assemble, grey
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


def ours(instances: Sequence[Instance]) -> Iterator[bytes]:
    """Yield the bodies as the gateway makes them, along the normal."""
    volume = assemble(instances)
    _, rows, columns = volume.shape
    placement = Placement(rows, columns, SIZE)
    for plane in grey(volume, WINDOW).planes():
        yield body(png(placement.apply(plane)))


def plain(instances: Sequence[Instance]) -> Iterator[bytes]:
    """Yield the bodies as sample code makes them, along the normal."""
    low, high = WINDOW.level - WINDOW.width / 2, WINDOW.level + WINDOW.width / 2
    for uid in assemble(instances).order:
        (path,) = (one.path for one in instances if one.SOPInstanceUID == uid)
        dataset = pydicom.dcmread(path)
        values = dataset.pixel_array * dataset.RescaleSlope + dataset.RescaleIntercept
        shown = np.clip((values.astype(np.float32) - low) / (high - low), 0, 1) * 255
        image = PIL.Image.fromarray(np.rint(shown).astype(np.uint8)).convert("RGB")
        out = io.BytesIO()
        image.resize((SIZE, SIZE), PIL.Image.Resampling.BICUBIC).save(out, format="PNG")
        yield body(out.getvalue())


def body(picture: bytes) -> bytes:
    """Return the request body of MedImageParse for one picture."""
    row = [base64_text(picture), "left lung in chest CT"]
    columns = {"columns": ["image", "text"], "index": [0], "data": [row]}
    return json.dumps({"input_data": columns, "params": {}}).encode()


def picture_of(request: bytes) -> NDArray[np.uint8]:
    """Return the picture of a body, grey."""
    packed = json.loads(request)["input_data"]["data"][0][0]
    with PIL.Image.open(io.BytesIO(base64.b64decode(packed))) as image:
        return np.asarray(image.convert("L"), np.uint8)


def processor_time() -> float:
    """Return the processor time of this process and of its decoder child, seconds."""
    child = psutil.Process(DECODER.pid).cpu_times() if DECODER.pid else None
    return time.process_time() + (child.user + child.system if child else 0.0)


def speed(instances: Sequence[Instance], *, runs: int) -> dict[str, float]:
    """Return slices per second of both ways, and by how many grey levels they differ at most."""
    differ = max(
        int(np.abs(picture_of(one).astype(int) - picture_of(other)).max())
        for one, other in zip(ours(instances), plain(instances), strict=True)
    )
    took: dict[Way, list[float]] = {ours: [], plain: []}
    for _ in range(runs):
        for way, seconds in took.items():
            started = processor_time()
            for _request in way(instances):
                pass
            seconds.append(processor_time() - started)
    ours_rate, plain_rate = (len(instances) / median(took[way]) for way in (ours, plain))
    return {
        "ours": round(ours_rate, 1),
        "plain": round(plain_rate, 1),
        "times": round(ours_rate / plain_rate, 2),
        "grey levels": differ,
    }


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
        rates = speed(write_scan(short_folder, slices), runs=runs)
        write_scan(long_folder, long)
        peak = memory(long_folder)
    return {
        "machine": {"cpus": os.cpu_count(), "python": platform.python_version()},
        "slices per second of one core": rates,
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
    found = run(slices=asked.slices, runs=asked.runs, long=asked.long)
    if asked.json:
        print(json.dumps(found, indent=2))
        return
    for what, values in found.items():
        print(f"{what}: {values}")


if __name__ == "__main__":
    main()
