"""Decoders of others: GDCM, DCMTK and OpenJPH. Each returns frames as ours are, or says it cannot."""

from __future__ import annotations

import importlib
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.uid import UID, ExplicitVRLittleEndian, JPEGLSTransferSyntaxes, RLELossless

from tests.peers import require

Frames = NDArray[Any]


class CannotReadError(Exception):
    """A peer does not decode this image."""


def by_gdcm(path: Path) -> Frames:
    """Return what GDCM decodes: grey as stored; colour as red, green and blue, rounded from the standard's
    own equations where GDCM leaves Y, Cb and Cr."""
    if sys.modules.get("gdcm") is None:
        sys.modules.pop("gdcm", None)  # the command line keeps it out of our own processes
    gdcm: Any = importlib.import_module("gdcm")
    gdcm.Trace.WarningOff()
    gdcm.Trace.ErrorOff()
    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    if not reader.Read():
        raise CannotReadError("GDCM does not read it")
    image = reader.GetImage()
    if str(image.GetPhotometricInterpretation()).startswith("PALETTE"):
        table = gdcm.ImageApplyLookupTable()
        table.SetInput(image)
        if not table.Apply():
            raise CannotReadError("GDCM does not apply its palette")
        image = table.GetOutput()
    try:
        data = image.GetBuffer().encode("utf-8", "surrogateescape")
    except ValueError as error:
        raise CannotReadError("GDCM gives no buffer") from error
    # Only when the buffer has been asked for does GDCM know what it decoded to.
    return _arranged(data, image)


def _arranged(data: bytes, image: Any) -> Frames:
    kind = image.GetPixelFormat()
    columns, rows = image.GetDimension(0), image.GetDimension(1)
    bits, samples = kind.GetBitsAllocated(), kind.GetSamplesPerPixel()
    if bits == 1:
        ones = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")
        return ones[: ones.size // (rows * columns) * rows * columns].reshape(-1, rows, columns)
    values = np.frombuffer(data, f"<{'ui'[kind.GetPixelRepresentation()]}{bits // 8}")
    count = values.size // (rows * columns * samples)
    values = values[: count * rows * columns * samples]
    if samples == 1:
        return values.reshape(count, rows, columns)
    if image.GetPlanarConfiguration():
        values = values.reshape(count, 3, rows, columns).transpose(0, 2, 3, 1)
    colour = values.reshape(count, rows, columns, 3)
    if colour.dtype == np.uint16:
        colour = (colour >> (kind.GetBitsStored() - 8)).astype(np.uint8)
    photometric = str(image.GetPhotometricInterpretation())
    return from_ybr_full(colour) if photometric.startswith("YBR_FULL") else colour


def from_ybr_full(colour: Frames) -> Frames:
    """Return red, green and blue of Y, Cb and Cr by ITU-R BT.601 (PS3.3 C.7.6.3.1.2), rounded once."""
    back = np.array([[1, 0, 1.402], [1, -0.344136, -0.714136], [1, 1.772, 0]])
    shifted = colour.astype(np.float64) - np.array([0, 128, 128])
    mixed: Frames = np.clip(np.rint(shifted @ back.T), 0, 255).astype(np.uint8)
    return mixed


def by_dcmtk(path: Path) -> Frames:
    """Return what DCMTK decodes: grey as stored; colour as it draws it, in red, green and blue."""
    header = dcmread(path, stop_before_pixels=True)
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        if header.SamplesPerPixel == 1 and header.PhotometricInterpretation != "PALETTE COLOR":
            return _unpacked_by_dcmtk(path, header, scratch)
        return _drawn_by_dcmtk(path, header, scratch)


def _unpacked_by_dcmtk(path: Path, header: Dataset, scratch: Path) -> Frames:
    syntax: UID = header.file_meta.TransferSyntaxUID
    tool = "dcmdjpeg"
    if syntax in JPEGLSTransferSyntaxes:
        tool = "dcmdjpls"
    elif syntax == RLELossless:
        tool = "dcmdrle"
    elif not syntax.is_encapsulated:
        tool = "dcmconv"
    plain = scratch / "plain.dcm"
    _run(tool, "+te", str(path), str(plain))
    made = dcmread(plain)
    if made.file_meta.TransferSyntaxUID != ExplicitVRLittleEndian:
        raise CannotReadError(f"{tool} leaves it as it is")
    rows, columns, bits = made.Rows, made.Columns, made.BitsAllocated
    frames = int(made.get("NumberOfFrames") or 1)
    if bits == 1:
        ones = np.unpackbits(np.frombuffer(made.PixelData, np.uint8), bitorder="little")
        return ones[: frames * rows * columns].reshape(frames, rows, columns)
    values = np.frombuffer(made.PixelData, f"<{'ui'[made.PixelRepresentation]}{bits // 8}")
    values = values[: frames * rows * columns].reshape(frames, rows, columns)
    spare = bits - made.BitsStored
    return np.right_shift(np.left_shift(values, spare), spare)


def _drawn_by_dcmtk(path: Path, header: Dataset, scratch: Path) -> Frames:
    syntax = header.file_meta.TransferSyntaxUID
    tool = "dcml2pnm" if syntax in JPEGLSTransferSyntaxes else "dcmj2pnm"
    _run(tool, "+op", "+Fa", str(path), str(scratch / "frame"))
    count = len(list(scratch.glob("frame.*.ppm")))
    pictures = []
    for number in range(count):
        with PIL.Image.open(scratch / f"frame.{number}.ppm") as opened:
            pictures.append(np.asarray(opened.convert("RGB")))
    return np.stack(pictures)


def by_openjph(path: Path) -> Frames:
    """Return what OpenJPH decodes of High-Throughput JPEG 2000; nothing of it is OpenJPEG."""
    dataset = dcmread(path)
    suffix = "pgm" if dataset.SamplesPerPixel == 1 else "ppm"
    pictures = []
    with tempfile.TemporaryDirectory() as name:
        frames = generate_frames(
            dataset.PixelData, number_of_frames=int(dataset.get("NumberOfFrames") or 1)
        )
        for number, codestream in enumerate(frames):
            packed, plain = Path(name) / f"{number}.j2c", Path(name) / f"{number}.{suffix}"
            # A JPH file's boxes are not for this program: the codestream starts with SOC and SIZ.
            packed.write_bytes(codestream[codestream.index(b"\xff\x4f\xff\x51") :])
            _run("ojph_expand", "-i", str(packed), "-o", str(plain))
            pictures.append(_netpbm(plain.read_bytes(), 1 if suffix == "pgm" else 3))
    return np.stack(pictures)


def _netpbm(data: bytes, samples: int) -> Frames:
    """Read a binary PGM or PPM as it stands; Pillow would stretch one of 12 bits to 16."""
    _, columns, rows, most = data.split(maxsplit=4)[:4]
    kind = np.dtype("u1" if int(most) < 256 else ">u2")
    shape = (int(rows), int(columns), samples)[: 2 if samples == 1 else 3]
    wanted = int(np.prod(shape)) * kind.itemsize
    return np.frombuffer(data[-wanted:], kind).reshape(shape).astype(kind.newbyteorder("="))


def _run(tool: str, *arguments: str) -> None:
    command: Sequence[str] = (str(require(tool)), *arguments)
    done = subprocess.run(command, capture_output=True, timeout=120, check=False)
    if done.returncode:
        raise CannotReadError(f"{tool}: {done.stderr.decode(errors='replace').strip()[-200:]}")
