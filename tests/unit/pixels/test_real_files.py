"""Every shared file goes as far as tests/data/expected.yaml says, and is refused with its reason."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom.filereader
import pytest
import yaml
from pydicom.errors import InvalidDicomError

from pacs_ai.errors import PixelError, ReceiveError
from pacs_ai.pixels.decode import stored_frames
from pacs_ai.pixels.display import View, display_image
from pacs_ai.pixels.placement import Cut
from pacs_ai.study import read_head, read_instance
from tests.unit.pixels.made import SHARED

EXPECTED: dict[str, Any] = yaml.safe_load(
    (Path(__file__).parents[2] / "data" / "expected.yaml").read_text()
)
STAGES = [name for name, one in EXPECTED.items() if "pixels" in one]


def test_every_shared_file_has_its_line() -> None:
    there = {
        path.relative_to(SHARED).as_posix()
        for path in SHARED.rglob("*")
        if path.is_file() and path.suffix != ".md"
    }
    assert there == set(STAGES)


@pytest.mark.parametrize("name", STAGES)
@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's, of headers that are wrong
def test_a_shared_file_goes_as_far_as_it_must(name: str, tmp_path: Path) -> None:
    for path in _members(SHARED / name, tmp_path):
        if "store" in EXPECTED[name]:
            assert _stored(path) == EXPECTED[name]["store"]
        expected, found = EXPECTED[name]["pixels"], _decoded(path)
        if expected.startswith("refused: "):
            assert found.startswith("refused: ")
            assert expected.removeprefix("refused: ") in found
        else:
            assert found == expected


@pytest.mark.parametrize("name", [one for one in STAGES if "frames" in EXPECTED[one]["pixels"]])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_shared_image_loses_the_border_that_its_line_states_and_nothing_else(
    name: str, tmp_path: Path
) -> None:
    for path in _members(SHARED / name, tmp_path):
        try:
            shown = display_image(read_instance(path, digest=""), view=View.ANY, frame=0)
        except PixelError as error:
            assert "border" not in EXPECTED[name]
            assert "one value" in str(error)
            continue
        assert shown.border == Cut(*EXPECTED[name].get("border", ()))


def _members(path: Path, scratch: Path) -> Iterator[Path]:
    if path.suffix != ".xz":
        yield path
        return
    with tarfile.open(path) as packed:
        packed.extractall(scratch, filter="data")
    yield from sorted(one for one in scratch.rglob("*") if one.is_file())


def _stored(path: Path) -> str | int:
    """Return what the listener would answer to the data set of a file."""
    with path.open("rb") as file:
        pydicom.filereader.read_preamble(file, force=False)
        meta = pydicom.filereader._read_file_meta_info(file)
        try:
            read_head(file.read(), str(meta.TransferSyntaxUID))
        except ReceiveError as error:
            return error.status
    return "accepted"


def _decoded(path: Path) -> str:
    try:
        instance = read_instance(path, digest="")
    except (InvalidDicomError, OSError, AttributeError):
        return "unreadable"
    try:
        frames = list(stored_frames(instance))
    except PixelError as error:
        return f"refused: {error}"
    shape = " x ".join(map(str, frames[0].shape))
    return f"{len(frames)} frames of {shape} {frames[0].dtype}"
