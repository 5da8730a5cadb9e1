"""Pictures per second from stored file to request body, and the memory of a long CT.

``python -m benchmarks.pixels --json``: what the worker does until a body goes out, beside the plain way
(:mod:`benchmarks.bodies`), for CT in three transfer syntaxes and for radiographs; and the most memory in
which a CT of 600 slices goes through every step with eight prompts. Seconds are of the processor, all
threads' and the decoder child's with ours, so that what else the machine does weighs little.
It ends with 1 when the two ways do not send the same pictures.
"""

from __future__ import annotations

import argparse
import base64
import gzip
import json
import os
import platform
import subprocess
import sys
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
import yaml

from benchmarks import bodies
from benchmarks.memory import Memory
from pacs_ai import phantom
from pacs_ai.models.inputs import base64_text
from pacs_ai.settings import Window
from pacs_ai.study import Instance, read_instance

SIZE = 1024
WINDOW = Window(width=1500, level=-160)
PROMPTS = [
    *("left lung", "right lung", "lung", "trachea", "airways", "upper lobe of left lung"),
    *("heart", "aorta"),
]
"""Eight masks, most of which overlap: those that may do are asked for in calls of their own."""
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


def memory(folder: Path, out: Path) -> float:
    """Take a CT through every step as a user does (``pacs-ai process``); return the most MiB held at once.

    Of the process and its decoder's child together, looked at every 50 ms; pages that both share count twice.
    """
    config = out / "site.yaml"
    with answering() as url:
        config.write_text(yaml.safe_dump(_settings(url)))
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "pacs_ai.cli", "process", str(folder)),
                *("--config", str(config), "--out", str(out / "results")),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        with Memory({"process": process.pid}) as watched:
            _, said = process.communicate()
    if process.returncode:
        raise SystemExit(f"the CT was not segmented: {said.decode()[-500:]}")
    return round(watched.peaks["process"] / 2**20, 1)


def _settings(url: str) -> dict[str, object]:
    return {
        "site": {"name": "b", "time_zone": "UTC", "use": "research", "responsible": "nobody"},
        "endpoints": {"parse3d": {"kind": "parse3d", "url": url, "name": "b", "version": "1"}},
        "defaults": {"max_age": "off", "max_result": "1GB"},
        "rules": [
            {
                "name": "ct",
                "when": {"Modality": "CT"},
                "select": {"slices": ">=3"},
                "run": [{"parse3d": PROMPTS}],
            }
        ],
    }


def run(*, slices: int, runs: int, long: int) -> dict[str, object]:
    """Measure both and return the report."""
    with tempfile.TemporaryDirectory() as name:
        (short_folder := Path(name) / "short").mkdir()
        (long_folder := Path(name) / "long").mkdir()
        rates = bodies.speeds(short_folder, slices=slices, runs=runs)
        write_scan(long_folder, long)
        peak = memory(long_folder, Path(name))
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
