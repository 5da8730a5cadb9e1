"""The benchmark of speed measures what the worker sends, and compares like with like or ends."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import bodies, pixels
from benchmarks.bodies import Kind, PicturesDifferError
from pacs_ai.models import parse2d
from pacs_ai.pixels import display
from pacs_ai.pixels.placement import Placement
from pacs_ai.study import Job, read_instance
from tests.unit.models.fake_endpoint import Asked, endpoint

SYNTAXES = {
    "CT, uncompressed": "Explicit VR Little Endian",
    "CT, JPEG Lossless": "JPEG Lossless, Non-Hierarchical, First-Order Prediction",
    "CT, JPEG 2000 Lossless": "JPEG 2000 Image Compression (Lossless Only)",
    "DX, uncompressed": "Explicit VR Little Endian",
}


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Kind]:
    return bodies.kinds(tmp_path_factory.mktemp("files"), slices=3, rows=96)


def nothing(asked: Asked) -> Any:
    """Answer as MedImageParse that has found nothing."""
    packed = base64.b64encode(bytes(parse2d.SIZE**2)).decode()
    features = {"data": packed, "shape": [1, parse2d.SIZE, parse2d.SIZE], "dtype": "uint8"}
    record = {"image_features": json.dumps(features), "text_features": ["x"]}
    return [record] * len(asked.body["input_data"]["data"])


def sent(role: str, paths: tuple[Path, ...]) -> list[dict[str, Any]]:
    """Return the bodies that arrive at an endpoint when a worker's Job runs."""
    instances = tuple(read_instance(path, digest="") for path in paths)
    job = Job("r", "e", "parse2d", {role: instances}, {"prompts": [bodies.PROMPTS[role]]})
    with endpoint(nothing) as fake:
        parse2d.infer(job, fake.settings("parse2d", window=bodies.WINDOW))
        return [asked.body for asked in fake.asked]


def test_every_kind_is_encoded_as_its_name_says(kinds: dict[str, Kind]) -> None:
    assert set(kinds) == set(SYNTAXES)
    for name, kind in kinds.items():
        for path in kind.paths:
            instance = read_instance(path, digest="")
            assert SYNTAXES[name] in instance.header.file_meta.TransferSyntaxUID.name
            assert name.startswith(instance.Modality)


@pytest.mark.parametrize("name", SYNTAXES)
def test_ours_are_the_bodies_that_a_worker_sends(name: str, kinds: dict[str, Kind]) -> None:
    kind = kinds[name]
    jobs = [kind.paths] if kind.role == "volume" else [(path,) for path in kind.paths]
    arrived = [body for paths in jobs for body in sent(kind.role, paths)]
    assert [json.loads(body) for body in bodies.ours(kind)] == arrived


@pytest.mark.parametrize("name", SYNTAXES)
def test_both_ways_send_the_same_pictures(name: str, kinds: dict[str, Kind]) -> None:
    kind = kinds[name]
    mine, theirs = bodies.ours(kind), bodies.plain(kind)
    assert bodies.apart(mine, theirs) <= 1
    pictures = list(bodies.pictures_of(mine))
    assert len(pictures) == len(kind.paths)
    for one in pictures:
        assert one.shape == (parse2d.SIZE, parse2d.SIZE)
        assert one.std() > 10  # neither way is alike because it shows nothing


@pytest.mark.parametrize(
    ("owner", "name", "spoil"),
    [
        (Placement, "apply", lambda image: np.roll(image, 1, 0)),
        (Placement, "apply", lambda image: np.ascontiguousarray(image[:, ::-1])),
        (Placement, "apply", lambda image: np.where(image > 250, image, image + np.uint8(2))),
        (display, "inverted", lambda inverted: not inverted),
    ],
    ids=["shifted", "mirrored", "two levels brighter", "inverted"],
)
def test_a_run_ends_when_the_pictures_differ(
    owner: Any,
    name: str,
    spoil: Callable[[Any], Any],
    kinds: dict[str, Kind],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    right = getattr(owner, name)
    monkeypatch.setattr(owner, name, lambda *given: spoil(right(*given)))
    with pytest.raises(PicturesDifferError):
        bodies.speed(kinds["DX, uncompressed"], runs=1)


def test_a_run_ends_when_a_picture_is_missing(
    kinds: dict[str, Kind], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = bodies.plain
    monkeypatch.setattr(bodies, "plain", lambda kind: plain(kind)[1:])
    with pytest.raises(PicturesDifferError, match="3 pictures against 2"):
        bodies.speed(kinds["CT, uncompressed"], runs=1)


def test_the_command_ends_with_1_when_the_pictures_differ(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def differ(*_: object, **__: object) -> None:
        raise PicturesDifferError("pictures differ by 9 grey levels, more than 1")

    monkeypatch.setattr(bodies, "speeds", differ)
    monkeypatch.setattr("sys.argv", ["pixels", "--json", "--slices", "2", "--long", "2"])
    with pytest.raises(SystemExit, match="differ by 9 grey levels"):
        pixels.main()


def test_the_report_says_whether_the_aim_is_reached(
    kinds: dict[str, Kind], monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, clock = kinds["CT, uncompressed"], iter([0.0, 1.0, 0.0, 6.0, 0.0, 1.0, 0.0, 5.9])
    monkeypatch.setattr(bodies, "processor_time", lambda: next(clock))
    found = bodies.speed(kind, runs=1)
    assert (found["ours"], found["plain"], found["times"]) == (3.0, 0.5, 6.0)
    assert found["aim reached"] is True
    assert bodies.speed(kind, runs=1)["aim reached"] is False
