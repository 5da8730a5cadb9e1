"""From stored files to the request bodies of MedImageParse: the worker's own way, and the plain one.

Ours is :func:`pacs_ai.models.parse2d.infer` itself, stopped where a body would go over the network. The plain
way is what sample code does: pydicom decodes, numpy windows, Pillow makes RGB, resizes (bicubic) and writes
PNG with its defaults, then base64 and JSON.
"""

from __future__ import annotations

import base64
import io
import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

import gdcm
import numpy as np
import PIL.Image
import psutil
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import JPEG2000Lossless, JPEGLosslessSV1

from pacs_ai import phantom
from pacs_ai.models import endpoint as scoring
from pacs_ai.models import parse2d, square
from pacs_ai.pixels.decoder import DECODER
from pacs_ai.results import NothingFound
from pacs_ai.settings import Endpoint, Window
from pacs_ai.study import Job, read_instance

AIM = 6.0
"""How many times as many pictures a second of one core as the plain way: issue 4, "Speed"."""

APART = 1
"""Most grey levels by which a picture of ours may differ from the plain one."""

WINDOW = Window(width=1500, level=-160)
PROMPTS = {"volume": "aorta", "frontal": "heart"}
WHEN = datetime(2026, 11, 26, tzinfo=UTC)
RADIOGRAPH = (2140, 1760)
"""Rows and columns of a usual chest radiograph: 0.2 mm on 43 x 35 cm."""

Bodies = list[bytes]


class PicturesDifferError(Exception):
    """The two ways do not send the same picture, so that their speed says nothing."""


@dataclass(frozen=True)
class Kind:
    """Files of one kind, in the order in which their pictures are asked about.

    Attributes
    ----------
    role : str
        What they are of a Job: ``volume`` or ``frontal``.
    paths : tuple of Path
    """

    role: str
    paths: tuple[Path, ...]


# ---------------------------------------------------------------------- files


def kinds(folder: Path, *, slices: int, rows: int = 512) -> dict[str, Kind]:
    """Write the files of every kind."""
    made = phantom.thorax_ct(name="benchmark", when=WHEN, slices=slices, rows=rows)
    along = sorted(made, key=_place)
    ways: dict[str, Callable[[Path, Path], None]] = {
        "CT, uncompressed": _as_it_is,
        "CT, JPEG Lossless": _in_jpeg_lossless,
        "CT, JPEG 2000 Lossless": _in_jpeg_2000,
    }
    found = {}
    for name, pack in ways.items():
        (own := folder / name).mkdir()
        paths = []
        for number, one in enumerate(along):
            one.save_as(source := folder / "plain.dcm", enforce_file_format=True)
            pack(source, target := own / f"{number}.dcm")
            paths.append(target)
        found[name] = Kind("volume", tuple(paths))
    films = tuple(
        _radiograph(folder / f"film{number}.dcm", number, rows / 512) for number in range(4)
    )
    found["DX, uncompressed"] = Kind("frontal", films)
    return found


def _place(one: Dataset) -> float:
    axes = np.array(one.ImageOrientationPatient, float).reshape(2, 3)
    return float(np.cross(axes[0], axes[1]) @ np.array(one.ImagePositionPatient, float))


def _as_it_is(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)


def _in_jpeg_lossless(source: Path, target: Path) -> None:
    reader = gdcm.ImageReader()
    reader.SetFileName(str(source))
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(target))
    if reader.Read():
        change.SetInput(reader.GetImage())
        if change.Change():
            writer.SetFile(reader.GetFile())
            writer.SetImage(change.GetOutput())
            if writer.Write() and _syntax(target) == JPEGLosslessSV1:
                return
    raise RuntimeError("GDCM does not write JPEG Lossless")


def _syntax(path: Path) -> str:
    return str(pydicom.dcmread(path, stop_before_pixels=True).file_meta.TransferSyntaxUID)


def _in_jpeg_2000(source: Path, target: Path) -> None:
    dataset = pydicom.dcmread(source)
    dataset.compress(JPEG2000Lossless, encoding_plugin="pylibjpeg", generate_instance_uid=False)
    dataset.save_as(target)


def _radiograph(path: Path, number: int, scale: float) -> Path:
    """Write the frontal phantom as large as a usual radiograph, its grain in every pixel."""
    made = phantom.chest_radiographs(name="benchmark", when=WHEN, opacity=True)[0]
    rows, columns = (round(side * scale) for side in RADIOGRAPH)
    small = PIL.Image.fromarray(made.pixel_array.astype(np.float32))
    large = np.asarray(small.resize((columns, rows), PIL.Image.Resampling.BICUBIC))
    grain = np.random.default_rng(number).normal(0, 8, large.shape)
    values = np.clip(np.rint(large + grain), 0, (1 << made.BitsStored) - 1).astype(np.uint16)
    made.Rows, made.Columns, made.PixelData = rows, columns, values.tobytes()
    made.save_as(path, enforce_file_format=True)
    return path


# ---------------------------------------------------------------------- the two ways


def ours(kind: Kind) -> Bodies:
    """Return the bodies of the worker, from files on; the model finds nothing and takes no time."""
    if kind.role == "volume":
        return _of_job(kind.role, kind.paths)
    return [body for path in kind.paths for body in _of_job(kind.role, [path])]


def _of_job(role: str, paths: Sequence[Path]) -> Bodies:
    instances = tuple(read_instance(path, digest="") for path in paths)
    job = Job("benchmark", "b", "parse2d", {role: instances}, {"prompts": [PROMPTS[role]]})
    endpoint = Endpoint(
        kind="parse2d", url="http://127.0.0.1/", name="b", version="1", window=WINDOW
    )
    bodies: Bodies = []
    empty = np.zeros((1, square.SIZE, square.SIZE), np.uint8)

    def send(_: Endpoint, body: bytes, *, count: int) -> list[dict[str, Any]]:
        bodies.append(body)
        return [{}] * count

    with (
        mock.patch.object(scoring, "send", send),
        mock.patch.object(square, "_masks", lambda *_: empty),
    ):
        outcome = parse2d.infer(job, endpoint)
    if not isinstance(outcome, NothingFound):
        raise RuntimeError(f"the pictures were not sent: {outcome}")
    return bodies


def plain(kind: Kind) -> Bodies:
    """Return the bodies of sample code, from files on."""
    return [_plain_body(path) for path in kind.paths]


def _plain_body(path: Path) -> bytes:
    dataset = pydicom.dcmread(path)
    values = dataset.pixel_array.astype(np.float32)
    if dataset.Modality == "CT":
        values = values * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)
        low, high = WINDOW.level - WINDOW.width / 2, WINDOW.level + WINDOW.width / 2
    else:
        # LINEAR of PS3.3 C.11.2.1.2.1.
        low = float(dataset.WindowCenter) - 0.5 - (float(dataset.WindowWidth) - 1) / 2
        high = low + float(dataset.WindowWidth) - 1
    shown = np.rint(np.clip((values - low) / (high - low), 0, 1) * 255).astype(np.uint8)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        shown = 255 - shown
    side = max(shown.shape)
    left, top = (side - shown.shape[1]) // 2, (side - shown.shape[0]) // 2
    image = PIL.Image.new("RGB", (side, side))
    image.paste(PIL.Image.fromarray(shown).convert("RGB"), (left, top))
    out = io.BytesIO()
    image.resize((square.SIZE, square.SIZE), PIL.Image.Resampling.BICUBIC).save(out, format="PNG")
    row = [base64.b64encode(out.getvalue()).decode("ascii"), "left lung in chest CT"]
    columns = {"columns": ["image", "text"], "index": [0], "data": [row]}
    return json.dumps({"input_data": columns, "params": {}}).encode()


# ---------------------------------------------------------------------- compared


def pictures_of(bodies: Sequence[bytes]) -> Iterator[NDArray[np.uint8]]:
    """Yield the pictures of bodies, in the order of their rows; one of three equal channels comes grey."""
    for body in bodies:
        for image, _ in json.loads(body)["input_data"]["data"]:
            with PIL.Image.open(io.BytesIO(base64.b64decode(image))) as opened:
                yield np.asarray(opened.convert("L"), np.uint8)


def apart(one: Sequence[bytes], other: Sequence[bytes]) -> int:
    """Return by how many grey levels the pictures of two ways differ at most.

    Raises
    ------
    PicturesDifferError
        When it is more than :data:`APART`, or they are not equally many.
    """
    mine, theirs = list(pictures_of(one)), list(pictures_of(other))
    if len(mine) != len(theirs) or not mine:
        raise PicturesDifferError(f"{len(mine)} pictures against {len(theirs)}")
    found = max(int(np.abs(a.astype(int) - b).max()) for a, b in zip(mine, theirs, strict=True))
    if found > APART:
        raise PicturesDifferError(f"pictures differ by {found} grey levels, more than {APART}")
    return found


def processor_time() -> float:
    """Return the processor time of this process and of its decoder child, seconds."""
    child = psutil.Process(DECODER.pid).cpu_times() if DECODER.pid else None
    return time.process_time() + (child.user + child.system if child else 0.0)


def speed(kind: Kind, *, runs: int) -> dict[str, float | bool]:
    """Return pictures per second of one core of both ways, and how they compare.

    Raises
    ------
    PicturesDifferError
        As :func:`apart`.
    """
    mine, theirs = ours(kind), plain(kind)
    differ = apart(mine, theirs)
    took: dict[Callable[[Kind], Bodies], list[float]] = {ours: [], plain: []}
    for _ in range(runs):
        for way, seconds in took.items():
            started = processor_time()
            way(kind)
            seconds.append(processor_time() - started)
    rate, plain_rate = (len(kind.paths) / median(took[way]) for way in (ours, plain))
    return {
        "ours": round(rate, 1),
        "plain": round(plain_rate, 1),
        "times": round(rate / plain_rate, 2),
        "aim reached": rate / plain_rate >= AIM,
        "grey levels apart": differ,
        "KB of a picture": round(sum(map(len, mine)) / len(kind.paths) / 1000),
        "KB of a plain one": round(sum(map(len, theirs)) / len(kind.paths) / 1000),
    }


def speeds(folder: Path, *, slices: int, runs: int) -> dict[str, dict[str, float | bool]]:
    """Return :func:`speed` of every kind."""
    return {name: speed(kind, runs=runs) for name, kind in kinds(folder, slices=slices).items()}
