"""The 2-D model on every frame of a multi-frame Instance: one mask a frame, and nothing between them.

The frames are a sequence, or tiles of a slide, and no volume: each is shown and asked as it would be alone,
but for its contrast, which all frames without a window in the header have in common. A frame that is drawn in
one value shows nothing and is left out, and of a slide the tiles of empty background are.
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
from pacs_ai.models.stacked import Asking, Numbered, masks
from pacs_ai.pixels import contrast
from pacs_ai.pixels.description import describe
from pacs_ai.pixels.display import View, aspect, display_image
from pacs_ai.pixels.placement import Placement
from pacs_ai.pixels.slides import GLASS_SHARE, Tile, slide_of, with_tissue
from pacs_ai.results import Axis, Done, NothingFound, Outcome, Segmentation
from pacs_ai.settings import Endpoint, Window
from pacs_ai.study import Instance, Job, is_slide

ALL = "all"
"""Value of a Job's ``frame`` that asks for every frame."""

_LISTED = 8
"""Most numbers of frames in one note."""


def segment(job: Job, endpoint: Endpoint, seats: Seats) -> Outcome:
    """Segment the Job's prompts on each frame of its image.

    Returns
    -------
    Done
        One Segmentation for each prompt that was found: shape (frames, Rows, Columns), in the order of the
        frames. On a frame on which it was not found, or that shows nothing, the mask is empty. Notes say on
        how many it was found, and which were not looked at.
    NothingFound
        When nothing was found on any frame.

    Raises
    ------
    PixelError
        When a frame cannot be shown, or none of them shows anything.
    RefusedPromptError, InferenceError
        As :func:`pacs_ai.models.parse2d.infer` says.
    """
    instance = single(job, "image")
    prompts, known = asked(job, endpoint, modality=instance.Modality)
    frames = _Frames(instance, _chosen(instance))
    numbers = frames.chosen.numbers
    uids = (instance.SOPInstanceUID,) * len(numbers)
    asking = Asking(endpoint, known, seats)
    found: dict[str, Segmentation] = {}
    for window, members in by_window(prompts, endpoint):
        grouped = calls(members, most=MASKS)
        shown = frames.shown(window)
        for one, mask in masks(asking, shown, len(numbers), frames.placement, grouped):
            _cut(mask, frames.chosen.tiles)
            if mask.any():
                found[one.words] = Segmentation(
                    one.label, mask, uids, one.words, numbers, Axis.FRAMES
                )
    results = tuple(found[one.words] for one in prompts if one.words in found)
    missing = remark([one for one in prompts if one.words not in found])
    notes = (*frames.notes, *(frames.found_on(one) for one in results), *missing)
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


class _Frames:
    """The chosen frames of an Instance, drawn one after another.

    Parameters
    ----------
    instance : Instance
    chosen : _Chosen
    """

    def __init__(self, instance: Instance, chosen: _Chosen) -> None:
        description = describe(instance.header, instance.transfer_syntax_uid)
        shape = aspect(instance, chosen.numbers[0] - 1)
        self.placement = Placement(description.rows, description.columns, SIZE, shape)
        self.chosen = chosen
        self._instance = instance
        self._seen: set[int] = set()
        self._faint: set[int] = set()
        self._why: dict[int, str] = {}

    def shown(self, window: Window | None) -> Iterator[Numbered]:
        """Yield what shows something, with its place among the chosen; each frame is decoded once.

        Without a window they are decoded once more before, for the contrast that they have in common.

        Raises
        ------
        PixelError
            When a frame cannot be shown, and at the end when none of them showed anything.
        """
        common = contrast.common(self._instance) if window is None else None
        clear = False
        for place, number in enumerate(self.chosen.numbers):
            image = display_image(
                self._instance, view=View.ANY, frame=number - 1, window=window, common=common
            )
            # A slide has a rule of its own for what is empty.
            if not image.why_not or self.chosen.tiles:
                clear = True
            else:
                self._why[number] = image.why_not
                if image.blank:
                    continue
                self._faint.add(number)
            self._seen.add(number)
            yield place, image.pixels
        if not clear:
            raise PixelError(self._nothing())

    def _nothing(self) -> str:
        """Say why no frame shows anything, or more than next to nothing."""
        other = [why for why in self._why.values() if why != self._one_value]
        if other:
            return other[0]
        return (
            f"each of the {len(self._why)} frames of Instance {self._instance.SOPInstanceUID} has "
            "one value in all its pixels, which shows nothing: send the original"
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """What is said of frames that were not looked at, or show little."""
        left = sorted(self._left)
        blank = [number for number in left if self._why[number] == self._one_value]
        hidden = [number for number in left if self._why[number] != self._one_value]
        reasons = [
            f"left out because {why}: {_listed(numbers)}"
            for why, numbers in (
                ("all pixels of each have one value", blank),
                ("all of each is black or white in its window or VOI LUT", hidden),
            )
            if numbers
        ]
        found = list(self.chosen.notes)
        if left:
            count = len(self.chosen.numbers)
            looked = f"{count - len(left)} of {count} frames were looked at"
            found.append("; ".join((looked, *reasons)))
        if self._faint:
            found.append(
                "Next to nothing is to be seen in the window or VOI LUT that the header has for "
                f"{_listed(sorted(self._faint))}"
            )
        return tuple(found)

    @property
    def _one_value(self) -> str:
        return contrast.one_value(self._instance)

    @property
    def _left(self) -> set[int]:
        """Numbers of frames that were not looked at in any window."""
        return set(self._why) - self._seen

    def found_on(self, mask: Segmentation) -> str:
        """Say on how many of what was looked at a mask is."""
        count = len(self.chosen.numbers)
        where = sum(bool(mask.plane(index).any()) for index in range(count))
        what = "tiles" if self.chosen.tiles else "frames"
        label = f"{mask.label[:1].upper()}{mask.label[1:]}"
        return f"{label} found on {where} of {count - len(self._left)} {what}"


def _listed(numbers: Sequence[int]) -> str:
    """Return numbers for people: all of them where they are few, else the first and how many more."""
    first = ", ".join(map(str, numbers[:_LISTED]))
    more = len(numbers) - _LISTED
    what = "frame" if len(numbers) == 1 else "frames"
    return f"{what} {first} and {more} more" if more > 0 else f"{what} {first}"
