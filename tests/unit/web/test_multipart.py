"""Parts come out as they went in, however the body is cut into pieces."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pacs_ai.web.multipart import MediaTypeError, Multipart, MultipartError, boundary

LIMIT = b"a-b"


class Gathered:
    """Gathers whole parts."""

    def __init__(self) -> None:
        self.media_types: list[str] = []
        self.begun: list[bytearray] = []
        self.whole: list[bytes] = []

    def begin(self, media_type: str) -> None:
        self.media_types.append(media_type)
        self.begun.append(bytearray())

    def write(self, piece: memoryview) -> None:
        self.begun[-1] += piece

    def end(self) -> None:
        self.whole.append(bytes(self.begun[-1]))


def body_of(parts: list[bytes]) -> bytes:
    head = b"Content-Type: application/dicom\r\n\r\n"
    made = b"".join(b"--" + LIMIT + b"\r\n" + head + one + b"\r\n" for one in parts)
    return made + b"--" + LIMIT + b"--\r\n"


ALMOST = st.lists(
    st.sampled_from([b"\r", b"\n", b"-", b"--", b"a", b"b", b"\r\n--a-", b"x", b"\x00", b"--a-b"]),
    max_size=12,
).map(b"".join)


@given(
    st.lists(ALMOST, min_size=1, max_size=4), st.lists(st.integers(1, 9), min_size=1, max_size=40)
)
def test_parts_come_out_as_they_went_in(parts: list[bytes], sizes: list[int]) -> None:
    # RFC 2046 section 5.1.1: the delimiter must not stand in a part.
    assume(not any(b"\r\n--" + LIMIT in b"\r\n" + one + b"\r\n" for one in parts))
    gathered = Gathered()
    multipart = Multipart(LIMIT, gathered)
    body, at = body_of(parts), 0
    while at < len(body):
        size = sizes[at % len(sizes)]
        multipart.feed(body[at : at + size])
        at += size
    multipart.close()
    assert gathered.whole == parts
    assert gathered.media_types == ["application/dicom"] * len(parts)


@pytest.mark.parametrize("size", [1, 5, 1000])
@pytest.mark.parametrize(
    "before",
    [b"", b"\r\n", b"\n", b"One.\n", b"One.\r\n", b"--a-c\r\n--a-\r\n\r\n", b"x" * 8000 + b"\r\n"],
)
@pytest.mark.parametrize("padding", [b"", b" \t"])
def test_what_stands_before_the_first_boundary_is_passed_over(
    size: int, before: bytes, padding: bytes
) -> None:
    gathered = Gathered()
    multipart = Multipart(LIMIT, gathered)
    body = before + body_of([b"one", b"two"]).replace(b"--a-b\r\n", b"--a-b" + padding + b"\r\n")
    for at in range(0, len(body), size):
        multipart.feed(body[at : at + size])
    multipart.close()
    assert gathered.whole == [b"one", b"two"]


@pytest.mark.parametrize("ends", [b"--a-b--\r\n", b"nothing\r\n--a-b--"])
def test_a_body_without_parts_is_whole_once_it_ends(ends: bytes) -> None:
    gathered = Gathered()
    multipart = Multipart(LIMIT, gathered)
    multipart.feed(ends)
    multipart.close()
    assert gathered.whole == []


def test_a_body_without_a_boundary_is_given_up_early() -> None:
    multipart = Multipart(LIMIT, Gathered())
    with pytest.raises(MultipartError, match="of its boundary"):
        multipart.feed(b"x" * 9_000 + b"\r\n" + body_of([b"one"]))


@pytest.mark.parametrize("size", [1, 5, 1000])
def test_a_body_that_is_cut_off_anywhere_is_never_whole(size: int) -> None:
    body = body_of([b"one", b"two"])
    for end in range(len(body) - 2):
        gathered = Gathered()
        multipart = Multipart(LIMIT, gathered)
        for at in range(0, end, size):
            multipart.feed(body[at : min(at + size, end)])
        with pytest.raises(MultipartError):
            multipart.close()


@pytest.mark.parametrize(
    "content_type",
    [
        "multipart/related; boundary=a-b",
        'multipart/related; type="application/dicom"; boundary="a-b"',
        "MULTIPART/RELATED;TYPE=Application/Dicom;BOUNDARY=a-b",
    ],
)
def test_the_boundary_is_read_as_clients_write_it(content_type: str) -> None:
    assert boundary(content_type) == b"a-b"


@pytest.mark.parametrize(
    "content_type",
    ["", "application/dicom", "multipart/mixed; boundary=a", "multipart/related; type=text/xml"],
)
def test_another_media_type_is_not_taken(content_type: str) -> None:
    with pytest.raises(MediaTypeError):
        boundary(content_type)


@pytest.mark.parametrize("value", ["", '""', "x" * 201, "ä"])
def test_a_boundary_that_is_none_is_refused(value: str) -> None:
    with pytest.raises(MultipartError):
        boundary(f"multipart/related; boundary={value}")


def test_a_content_type_whose_parameters_cannot_be_read_is_refused() -> None:
    with pytest.raises(MultipartError, match="cannot be read"):
        boundary(f"multipart/related; boundary*{'9' * 5000}=a-b")
