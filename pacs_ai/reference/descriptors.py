"""The reference model behind the contract of MedImageInsight: descriptors as embeddings.

An image becomes grey-level histograms, local means and spreads, oriented gradients, local binary
patterns and low frequencies; a text becomes hashed words, word pairs and letter triples. Each goes
through a fixed orthogonal projection to 1024 numbers of unit length. Similar pictures lie close
together and so do similar texts; a picture and a text have nothing to do with each other, because
nothing was learned.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from skimage import feature, transform

from pacs_ai.reference import frame
from pacs_ai.reference.frame import BadInputError

Floats = NDArray[np.float64]

LENGTH = 1024
"""Numbers of an embedding."""

SCALING_FACTOR = 4.513362407684326
"""Logarithm of the temperature, as the real model states it."""

_SIDE = 128
_TEXT_BUCKETS = 2048

_PARAMETERS: Mapping[str, type] = {
    "image_standardization_jpeg_compression_ratio": int,
    "image_standardization_image_size": int,
    "get_scaling_factor": bool,
}

_feature: Any = feature  # scikit-image is annotated in part only
_transform: Any = transform


def answer(input_data: object, params: object) -> list[dict[str, Any]]:
    """Answer a scoring request: features of each row's image, text, or both.

    Raises
    ------
    BadInputError
        When rows mix images and texts, a row is empty, or a parameter has the wrong type.
    """
    rows = frame.rows(input_data, required=(), optional=("image", "text"))
    with_factor = _scaling_wanted(params)
    pictures = [frame.picture(row, "image") for row in rows]
    texts = [frame.text(row, "text").strip() for row in rows]
    kinds = {
        (picture is not None, bool(text)) for picture, text in zip(pictures, texts, strict=True)
    }
    if len(kinds) != 1 or (False, False) in kinds:
        raise BadInputError("all rows must have an image, all a text, or all both")
    records = []
    for picture, text in zip(pictures, texts, strict=True):
        record: dict[str, Any] = {}
        if picture is not None:
            record["image_features"] = [embed_image(picture).tolist()]
        if text:
            record["text_features"] = embed_text(text).tolist()
        if with_factor:
            record["scaling_factor"] = SCALING_FACTOR
        records.append(record)
    return records


def _scaling_wanted(params: object) -> bool:
    if params is None:
        return True
    if not isinstance(params, Mapping):
        raise BadInputError("params must be an object")
    for name, kind in _PARAMETERS.items():
        # bool is an int to Python and none to the signature.
        if name in params and type(params[name]) is not kind:
            raise BadInputError(f"the parameter {name} must be of type {kind.__name__}")
    return bool(params.get("get_scaling_factor", True))


def embed_image(picture: NDArray[np.uint8]) -> Floats:
    """Describe a picture.

    Parameters
    ----------
    picture : ndarray of uint8, shape (rows, columns)

    Returns
    -------
    ndarray of float, shape (1024,)
        Of unit length.
    """
    small = np.asarray(
        _transform.resize(picture.astype(float) / 255, (_SIDE, _SIDE), anti_aliasing=True)
    )
    groups = (
        *_grey_levels(small),
        _gradients(small),
        *_patterns(small),
        _low_frequencies(small),
    )
    described = np.concatenate([_unit(group - group.mean()) for group in groups])
    return _projected(described, seed=1)


def _grey_levels(small: Floats) -> tuple[Floats, Floats, Floats]:
    histogram, _ = np.histogram(small, bins=32, range=(0, 1))
    blocks = small.reshape(16, _SIDE // 16, 16, _SIDE // 16)
    return np.sqrt(histogram), blocks.mean(axis=(1, 3)).ravel(), blocks.std(axis=(1, 3)).ravel()


def _gradients(small: Floats) -> Floats:
    return np.asarray(
        _feature.hog(small, orientations=9, pixels_per_cell=(16, 16), cells_per_block=(2, 2))
    )


def _patterns(small: Floats) -> list[Floats]:
    grey = np.rint(small * 255).astype(np.uint8)
    found = []
    for points, radius in ((8, 1), (16, 3)):
        codes = _feature.local_binary_pattern(grey, points, radius, method="uniform")
        histogram, _ = np.histogram(codes, bins=points + 2, range=(0, points + 2))
        found.append(np.sqrt(histogram))
    return found


def _low_frequencies(small: Floats) -> Floats:
    spectrum = np.asarray(fft.dctn(small, norm="ortho"))[:14, :14].ravel()[1:]
    return np.asarray(np.sign(spectrum) * np.sqrt(np.abs(spectrum)))


def embed_text(text: str) -> Floats:
    """Describe a text by its words, word pairs and letter triples.

    Returns
    -------
    ndarray of float, shape (1024,)
        Of unit length.
    """
    words = re.findall(r"\w+", text.casefold())
    grams = [*words, *(" ".join(pair) for pair in itertools.pairwise(words))]
    for word in words:
        padded = f"<{word}>"
        grams += [padded[at : at + 3] for at in range(len(padded) - 2)]
    counts = np.zeros(_TEXT_BUCKETS)
    for gram in grams or [text]:
        digest = hashlib.sha256(gram.encode()).digest()
        bucket = int.from_bytes(digest[:4], "little") % _TEXT_BUCKETS
        counts[bucket] += 1 if digest[4] & 1 else -1
    return _projected(_unit(np.sign(counts) * np.sqrt(np.abs(counts))), seed=2)


def _projected(described: Floats, *, seed: int) -> Floats:
    return _unit(described @ _projection(described.size, seed))


@functools.lru_cache(maxsize=4)
def _projection(size: int, seed: int) -> Floats:
    """Return a fixed orthogonal projection, shape (size, 1024)."""
    drawn = np.random.default_rng(seed).standard_normal((max(size, LENGTH), LENGTH))
    columns, _ = np.linalg.qr(drawn)
    return np.asarray(columns[:size])


def _unit(values: Floats) -> Floats:
    norm = float(np.linalg.norm(values))
    return values / norm if norm > 0 else values
