from __future__ import annotations

from pathlib import Path

import pytest

from pacs_ai.delivery import Outgoing
from pacs_ai.delivery.confirmation import doubt
from pacs_ai.errors import TransientError
from pacs_ai.peers.qido import find_study
from pacs_ai.settings import DicomDestination


def test_a_key_that_is_being_rotated_is_waited_for(tmp_path: Path) -> None:
    destination = DicomDestination.model_validate(
        {
            **{"host": "127.0.0.1", "port": 1, "ae_title": "PACS", "confirm": "qido"},
            "qido_url": "http://127.0.0.1:1/dicom-web",
            "qido_key": f"file:{tmp_path / 'key'}",
        }
    )
    one = Outgoing("1.2.1", "1.2.2", "1.2", "1.2.840.10008.1.2.1", "capture", tmp_path / "x.dcm")
    with pytest.raises(TransientError, match=r"PACS cannot be asked: .* does not exist"):
        doubt((one,), destination, find_study)
