"""What a step takes in memory does not depend on how many Studies wait for theirs."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Sequence
from copy import deepcopy
from itertools import count, islice

import pydicom

from pacs_ai.gateway import Gateway
from pacs_ai.ledger import work
from tests.unit.test_gateway import Driver, driver, radiographs

__all__ = ["driver", "radiographs"]

FEW, MANY = 8, 120
MOST_GROWTH = 48 * 1024
"""Half a kilobyte for each Study that waits would be more."""


def small(frontal: pydicom.Dataset, number: int) -> pydicom.Dataset:
    """Return the radiograph of one Study of many, cut down to a corner."""
    made = deepcopy(frontal)
    made.PixelData = made.pixel_array[:32, :32].tobytes()
    made.Rows = made.Columns = 32
    made.StudyInstanceUID, made.SeriesInstanceUID = f"2.25.8.{number}", f"2.25.8.{number}.1"
    made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = f"2.25.8.{number}.1.1"
    return made


def peaks(gateway: Gateway) -> dict[str, int]:
    """Carry out each step once; return the most bytes that it held."""
    found = {}
    for queue in (work.ASSEMBLE, work.ROUTE, work.infer_queue("parse2d"), work.ENCODE):
        tracemalloc.start()
        assert gateway.carry_out(queue), queue
        found[queue] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return found


def least(gateway: Gateway) -> dict[str, int]:
    """Return the least of two peaks: whatever else the process does meanwhile is measured with them."""
    first, second = peaks(gateway), peaks(gateway)
    return {queue: min(first[queue], second[queue]) for queue in first}


def test_a_step_takes_no_more_memory_when_many_studies_wait(
    driver: Callable[..., Driver], radiographs: Sequence[pydicom.Dataset]
) -> None:
    one = driver()
    made = (small(radiographs[0], number) for number in count(1))
    one.receive(*islice(made, FEW + 1))
    peaks(one.gateway)  # what is made once and kept
    few = least(one.gateway)
    one.receive(*islice(made, MANY))
    for queue in (work.ASSEMBLE, work.ROUTE):
        for _ in range(MANY // 2):
            assert one.gateway.carry_out(queue)
    many = least(one.gateway)
    assert {queue: many[queue] - few[queue] > MOST_GROWTH for queue in few} == dict.fromkeys(
        few, False
    )
