"""A cine from a modality to masks in a folder: over C-STORE, through every process."""

from __future__ import annotations

from pathlib import Path

import pydicom

from tests.integration.test_single_images import bright_rows, grey_cine, overlap
from tests.running import Models, running_gateway, write_settings
from tests.unit.models.fake_endpoint import endpoint

KINDS = ("insight", "parse2d", "parse3d", "cxrreport")


def test_a_cine_with_blank_frames_and_no_window_comes_back_as_masks_on_its_own_frames(
    tmp_path: Path,
) -> None:
    path = grey_cine(tmp_path, 1, 5)
    source = pydicom.dcmread(path)
    with endpoint(bright_rows) as fake:
        config = write_settings(
            tmp_path,
            Models(dict.fromkeys(KINDS, fake.url), "file:unused"),
            endpoints={
                "parse2d": {
                    "kind": "parse2d",
                    "url": fake.url,
                    "name": "Parse",
                    "version": "1",
                    "concurrency": 4,
                }
            },
            rules=[
                {
                    "name": "cine",
                    "when": {"Modality": "US"},
                    "select": {"take": "image", "frame": "all"},
                    "run": [{"parse2d": ["left heart ventricle"]}],
                }
            ],
            worklist=[],
        )
        with running_gateway(config) as gateway:
            gateway.send([source])
            timeline = gateway.wait_ended(str(source.StudyInstanceUID))
        assert timeline["state"] == "done"
        assert len(fake.asked) == 1
        assert len(fake.asked[0].body["input_data"]["data"]) == 7
    read = [pydicom.dcmread(one) for one in (tmp_path / "results").rglob("*.dcm")]
    (segmentation,) = (one for one in read if one.Modality == "SEG")
    numbers = []
    masks = segmentation.pixel_array.astype(bool)
    for mask, group in zip(masks, segmentation.PerFrameFunctionalGroupsSequence, strict=True):
        (image,) = group.DerivationImageSequence[0].SourceImageSequence
        assert image.ReferencedSOPInstanceUID == source.SOPInstanceUID
        numbers.append(int(image.ReferencedFrameNumber))
        assert overlap(mask, source.pixel_array[numbers[-1] - 1] == 200) > 0.95
    assert numbers == [2, 3, 4, 6, 7, 8, 9]
