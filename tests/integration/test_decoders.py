"""Every decoded frame against GDCM, DCMTK and OpenJPH: the shared images, and phantoms for what they lack.

Values are equal unless this page says by how much they are not, and why. GDCM and we decode JPEG 2000 with
the same library (OpenJPEG), and 12-bit and lossless JPEG both with GDCM: there DCMTK, OpenJPH and what was
encoded are the judges.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.uid import UID, HTJ2KLossless, HTJ2KLosslessRPCL, JPEG2000TransferSyntaxes, RLELossless

from pacs_ai.pixels.decode import stored_frames
from pacs_ai.pixels.description import CODECS, ENCAPSULATED_UNCOMPRESSED
from pacs_ai.study import read_instance
from tests.integration.encoded import PHANTOMS, Phantom
from tests.peers.decoders import CannotReadError, by_dcmtk, by_gdcm, by_openjph
from tests.running import ROOT

Frames = NDArray[Any]

EXPECTED = yaml.safe_load((ROOT / "tests/data/expected.yaml").read_text())
SHARED = sorted(
    name
    for name, one in EXPECTED.items()
    if "frames of" in one.get("pixels", "") and ".tar.xz" not in name
)
"""Every shared image that is decoded, but for those in archives, which are uncompressed."""
IMAGES = [*SHARED, *PHANTOMS]

HTJ2K = frozenset(one for one in JPEG2000TransferSyntaxes if ".4.20" in one)
BY_DCMTK_NOT = frozenset({*JPEG2000TransferSyntaxes, ENCAPSULATED_UNCOMPRESSED})
"""Debian builds DCMTK without JPEG 2000."""
BY_GDCM_NOT = frozenset({ENCAPSULATED_UNCOMPRESSED})
WRONG_IN_GDCM = {
    # Its codec takes samples that lie by plane (ILV 0) for pixels; DCMTK and the original agree with us.
    "JPEG-LS RGB by plane",
}
"""Images that GDCM reads as another picture than DCMTK and we."""


def tolerance_to_gdcm(syntax: UID, photometric: str) -> int:
    """Return by how many grey levels we may differ from GDCM.

    Its Y, Cb and Cr of JPEG are ours (the same slow integer IDCT, the same triangle upsampling of chroma);
    libjpeg then rounds its fixed-point products to red, green and blue, the equations only their sum.
    """
    return 1 if photometric.startswith("YBR_FULL") and syntax.is_compressed else 0


def tolerance_to_dcmtk(syntax: UID, photometric: str) -> int:
    """Return by how many grey levels we may differ from DCMTK.

    Its own conversion of YBR_FULL without JPEG cuts three tables to whole numbers where the standard's
    equations, and we, round once. JPEG's is libjpeg's, as ours.
    """
    own = not syntax.is_encapsulated or syntax == RLELossless
    return 2 if photometric.startswith("YBR_FULL") and own else 0


@pytest.fixture(params=IMAGES)
def image(request: pytest.FixtureRequest, shared_data: Path, tmp_path: Path) -> tuple[str, Path]:
    """The name of an image and its file."""
    name = request.param
    return name, PHANTOMS[name].written(tmp_path) if name in PHANTOMS else shared_data / name


def ours(path: Path) -> Frames:
    return np.stack(list(stored_frames(read_instance(path, digest=""))))


def check(
    peer: Callable[[Path], Frames],
    path: Path,
    *,
    unread: frozenset[Any],
    tolerance: Callable[[UID, str], int],
) -> None:
    """Compare all frames with a peer's, or see that it still does not read this transfer syntax."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # pydicom's, of headers that are wrong
        header = dcmread(path, stop_before_pixels=True)
    syntax, photometric = header.file_meta.TransferSyntaxUID, header.PhotometricInterpretation
    if syntax in unread:
        with pytest.raises(CannotReadError):
            peer(path)
        return
    theirs, values = peer(path), ours(path)
    assert theirs.shape == values.shape
    apart = np.abs(theirs.astype(np.int64) - values).max()
    assert apart <= tolerance(syntax, photometric)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_frames_are_those_of_gdcm(image: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    name, path = image
    if name in WRONG_IN_GDCM:
        assert np.abs(by_gdcm(path).astype(int) - PHANTOMS[name].shows).max() > 100
        return
    peer = extended if name.endswith("J2K_pixelrep_mismatch.dcm") else by_gdcm
    check(peer, path, unread=BY_GDCM_NOT, tolerance=tolerance_to_gdcm)


def extended(path: Path) -> Frames:
    """GDCM's frames where the codestream says unsigned, the header signed: 13 bits, their sign added."""
    found = by_gdcm(path).astype(np.int16)
    assert found.min() >= 0  # otherwise GDCM knows better now, and this can go
    return (found << 3) >> 3


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_frames_are_those_of_dcmtk(image: tuple[str, Path]) -> None:
    check(by_dcmtk, image[1], unread=BY_DCMTK_NOT, tolerance=tolerance_to_dcmtk)


@pytest.mark.parametrize(
    "name", ["syntaxes/HTJ2K_08_RGB.dcm", *(one for one in PHANTOMS if one.startswith("HTJ2K"))]
)
def test_high_throughput_frames_are_those_of_openjph(
    name: str, shared_data: Path, tmp_path: Path
) -> None:
    path = PHANTOMS[name].written(tmp_path) if name in PHANTOMS else shared_data / name
    # The lossy wavelet is in floating point: two libraries may round a pixel to either side.
    check(
        by_openjph,
        path,
        unread=frozenset(),
        tolerance=lambda syntax, _: 0 if syntax in (HTJ2KLossless, HTJ2KLosslessRPCL) else 1,
    )


@pytest.mark.parametrize(
    ("name", "phantom"),
    [(name, one) for name, one in PHANTOMS.items() if one.within is not None],
    ids=[name for name, one in PHANTOMS.items() if one.within is not None],
)
def test_frames_are_what_was_encoded(name: str, phantom: Phantom, tmp_path: Path) -> None:
    values = ours(phantom.written(tmp_path))
    assert values.shape == phantom.shows.shape
    assert np.abs(values.astype(np.int64) - phantom.shows).max() <= (phantom.within or 0)


def test_every_transfer_syntax_that_is_decoded_is_compared(
    shared_data: Path, tmp_path: Path
) -> None:
    compared = set()
    for number, phantom in enumerate(PHANTOMS.values()):
        (folder := tmp_path / str(number)).mkdir()
        compared.add(dcmread(phantom.written(folder)).file_meta.TransferSyntaxUID)
    compared |= {
        dcmread(shared_data / one, stop_before_pixels=True, force=True).file_meta.TransferSyntaxUID
        for one in SHARED
    }
    assert compared >= set(CODECS)
