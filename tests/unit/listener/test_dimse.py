"""Command sets are read and written as the library does it; what is none is refused without its values."""

from __future__ import annotations

from contextlib import suppress
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pynetdicom.dimse_messages import C_ECHO_RQ, C_STORE_RQ, DIMSEMessage
from pynetdicom.dimse_primitives import C_ECHO, C_STORE
from pynetdicom.dsutils import decode, encode
from pynetdicom.pdu import P_DATA_TF

from listener import dimse
from tests.integration import wire

CT = "1.2.840.10008.5.1.4.1.1.2"


def store_bytes(**changes: object) -> bytes:
    asked = C_STORE()
    asked.MessageID = 7
    asked.AffectedSOPClassUID = CT
    asked.AffectedSOPInstanceUID = "1.2.3"
    asked.Priority = 2
    asked.DataSet = BytesIO(b"\x00")
    message = C_STORE_RQ()
    message.primitive_to_message(asked)
    for keyword, value in changes.items():
        setattr(message.command_set, keyword, value)
    return encoded(message.command_set)


def encoded(command: Dataset) -> bytes:
    return encode(command, True, True) or b""  # noqa: FBT003 - always Implicit VR Little Endian


def test_a_store_request_of_the_library_is_read() -> None:
    found = dimse.read(store_bytes())
    assert found == dimse.Request(0x0001, 7, CT, "1.2.3", has_data_set=True)


def test_an_echo_request_of_the_library_is_read() -> None:
    asked = C_ECHO()
    asked.MessageID = 9
    asked.AffectedSOPClassUID = "1.2.840.10008.1.1"
    message = C_ECHO_RQ()
    message.primitive_to_message(asked)
    found = dimse.read(encoded(message.command_set))
    assert found == dimse.Request(0x0030, 9, "1.2.840.10008.1.1", "", has_data_set=False)


@pytest.mark.parametrize(
    "changes",
    [
        {"CommandField": 0x0020},  # C-FIND
        {"CommandField": 0x8001},  # an answer
        {"AffectedSOPInstanceUID": ""},
        {"AffectedSOPClassUID": ""},
        {"MessageID": None},
    ],
)
@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
def test_what_is_no_request_of_ours_is_refused(
    changes: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pydicom.config.settings.writing_validation_mode", 0)
    monkeypatch.setattr("pydicom.config.settings.reading_validation_mode", 0)
    with pytest.raises(dimse.CommandError):
        dimse.read(store_bytes(**changes))


@pytest.mark.parametrize("uid", ["../../1.2", "1." + "2" * 64, "01.2", "1.2.840.01.5", "1.2\n3"])
@pytest.mark.parametrize("keyword", ["AffectedSOPInstanceUID", "AffectedSOPClassUID"])
@pytest.mark.filterwarnings("ignore:Invalid value for VR UI", "ignore:The value length")
def test_what_is_no_uid_is_left_out_of_a_request_and_of_its_answer(
    uid: str, keyword: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pydicom.config.settings.writing_validation_mode", 0)
    found = dimse.read(store_bytes(**{keyword: uid}))
    uids = {"AffectedSOPInstanceUID": "1.2.3", "AffectedSOPClassUID": CT, keyword: ""}
    assert {key: getattr(found, key) for key in uids} == uids
    answer = dimse.answer(found, 1, 0xA900, maximum_length=0)
    command = decode(BytesIO(answer[12:]), True, True)  # noqa: FBT003
    assert keyword not in command
    assert command.Status == 0xA900


def test_an_echo_without_a_uid_is_refused() -> None:
    with pytest.raises(dimse.CommandError):
        dimse.read(wire.command(0x0030, data_set=False, sop_class="1.02"))


@given(st.binary(max_size=200))
def test_any_bytes_are_a_request_or_refused(data: bytes) -> None:
    with suppress(dimse.CommandError):
        dimse.read(data)


@given(st.integers(0, 150), st.integers(0, 255))
def test_a_damaged_request_is_a_request_or_refused(place: int, value: int) -> None:
    data = bytearray(store_bytes())
    data[place % len(data)] = value
    with suppress(dimse.CommandError):
        dimse.read(data)


def _outcome(data: bytes) -> dimse.Request | str:
    try:
        return dimse.read(data)
    except dimse.CommandError as error:
        return str(error)


_BYTES = st.one_of(st.sampled_from([0, 1, 2, 0x2E, 0x30, 0x31]), st.integers(0, 255))


@given(st.sampled_from(["1.2", "1.2.3", "1.23"]), st.dictionaries(st.integers(0, 119), _BYTES))
def test_a_usual_request_says_what_it_says_among_unusual_elements(
    uid: str, damage: dict[int, int]
) -> None:
    """Whatever a byte of it is: the short way takes no request that is read in another way."""
    data = bytearray(store_bytes(AffectedSOPInstanceUID=uid))
    for place, value in damage.items():
        data[place % len(data)] = value
    unusual = b"\0\0\1\0\2\0\0\0\0\0"  # (0000,0001), before all others
    assert _outcome(bytes(data)) == _outcome(unusual + data)


@pytest.mark.parametrize("maximum_length", [0, 7, 16, 100, 131_072])
@pytest.mark.parametrize("comment", ["", "the disk is nearly full"])
def test_an_answer_is_read_by_the_library(maximum_length: int, comment: str) -> None:
    request = dimse.read(store_bytes())
    data = dimse.answer(request, 5, 0xA700, comment, maximum_length=maximum_length)
    message = DIMSEMessage()
    over = False
    while data:
        assert not over
        length = 6 + int.from_bytes(data[2:6], "big")
        assert maximum_length == 0 or length - 6 <= maximum_length
        pdu = P_DATA_TF()
        pdu.decode(data[:length])
        over = message.decode_msg(pdu.to_primitive())
        data = data[length:]
    assert over
    assert message.context_id == 5
    assert _named(message.command_set) == {
        "AffectedSOPClassUID": CT,
        "CommandField": 0x8001,
        "MessageIDBeingRespondedTo": 7,
        "CommandDataSetType": 0x0101,
        "Status": 0xA700,
        "AffectedSOPInstanceUID": "1.2.3",
        **({"ErrorComment": comment} if comment else {}),
    }


def _named(command: Dataset) -> dict[str, object]:
    again = decode(BytesIO(encoded(command)), True, True)  # noqa: FBT003
    return {one.keyword: one.value for one in again if one.keyword != "CommandGroupLength"}
