"""The 2-D model on every frame of a multi-frame Instance: one mask a frame, and nothing between them.

The frames are a sequence, or tiles of a slide, and no volume: each is shown and asked as it would be alone.
Of a slide, tiles of empty background are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pacs_ai.errors import PixelError
from pacs_ai.models.inputs import single
from pacs_ai.models.prompts import asked, by_window, calls, remark
from pacs_ai.models.seats import Seats
from pacs_ai.models.square import MASKS, SIZE
from pacs_ai.models.stacked import Asking, masks
from pacs_ai.pixels.description import describe
from pacs_ai.pixels.display import View, display_image
from pacs_ai.pixels.placement import Placement
from pacs_ai.pixels.slides import GLASS_SHARE, Tile, slide_of, with_tissue
from pacs_ai.results import Axis, Done, NothingFound, Outcome, Segmentation
from pacs_ai.settings import Endpoint, Window
from pacs_ai.study import Instance, Job, is_slide

ALL = "all"
"""Value of a Job's ``frame`` that asks for every frame."""


def segment(job: Job, endpoint: Endpoint, seats: Seats) -> Outcome:
    """Segment the Job's prompts on each frame of its image.

    Returns
    -------
    Done
        One Segmentation for each prompt that was found: shape (frames, Rows, Columns), in the order of the
        frames. On a frame on which it was not found, the mask is empty. Notes say on how many it was found.
    NothingFound
        When nothing was found on any frame.

    Raises
    ------
    PixelError
        When a frame cannot be shown.
    RefusedPromptError, InferenceError
        As :func:`pacs_ai.models.parse2d.infer` says.
    """
    instance = single(job, "image")
    prompts, known = asked(job, endpoint, modality=instance.Modality)
    chosen = _chosen(instance)
    count = len(chosen.numbers)
    first = display_image(instance, view=View.ANY, frame=chosen.numbers[0] - 1)
    rows, columns = first.pixels.shape[:2]
    placement = Placement(rows, columns, SIZE, first.aspect)
    found: dict[str, Segmentation] = {}
    for window, members in by_window(prompts, endpoint):
        for call in calls(members, most=MASKS):
            pictures = _shown(instance, chosen.numbers, window)
            asking = Asking(endpoint, known, seats)
            for one, mask in masks(asking, pictures, count, placement, call):
                _cut(mask, chosen.tiles)
                if mask.any():
                    uids = (instance.SOPInstanceUID,) * count
                    found[one.words] = Segmentation(
                        one.label, mask, uids, one.words, chosen.numbers, Axis.FRAMES
                    )
    results = tuple(found[one.words] for one in prompts if one.words in found)
    missing = remark([one for one in prompts if one.words not in found])
    notes = (*chosen.notes, *(_found_on(one, chosen) for one in results), *missing)
    return Done(results, notes) if results else NothingFound(notes=notes)


@dataclass(frozen=True, slots=True)
class _Chosen:
    """Frames to look at by their numbers, the tiles that they are, and what is said of the others."""

    numbers: tuple[int, ...]
    tiles: tuple[Tile, ...] = ()
    notes: tuple[str, ...] = ()


def _chosen(instance: Instance) -> _Chosen:
    """Choose every frame, but of a slide only what may hold tissue."""
    if not is_slide(instance.header):
        count = describe(instance.header, instance.transfer_syntax_uid).frames
        return _Chosen(tuple(range(1, count + 1)))
    tiles = slide_of(instance).tiles
    kept = with_tissue(instance, tiles)
    if not kept:
        raise PixelError(
            f"none of the {len(tiles)} tiles of Instance {instance.SOPInstanceUID} holds anything but "
            "glass: look at the slide, and name a frame in the rule if it holds tissue"
        )
    note = (
        f"{len(kept)} of {len(tiles)} tiles were looked at; left out because at least {GLASS_SHARE:.1%} "
        f"of their pixels are glass: {len(tiles) - len(kept)}"
    )
    return _Chosen(tuple(one.number for one in kept), kept, (note,))


def _cut(mask: NDArray[np.bool_], tiles: Sequence[Tile]) -> None:
    """Clear what lies beyond the edge of the slide."""
    for plane, tile in zip(mask, tiles, strict=False):
        plane[tile.rows :] = False
        plane[:, tile.columns :] = False


def _shown(
    instance: Instance, numbers: Sequence[int], window: Window | None
) -> Iterator[NDArray[np.uint8]]:
    for number in numbers:
        yield display_image(instance, view=View.ANY, frame=number - 1, window=window).pixels


def _found_on(mask: Segmentation, chosen: _Chosen) -> str:
    count = len(chosen.numbers)
    where = sum(bool(mask.plane(index).any()) for index in range(count))
    what = "tiles" if chosen.tiles else "frames"
    return f"{mask.label[:1].upper()}{mask.label[1:]} found on {where} of {count} {what}"
