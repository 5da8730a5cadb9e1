"""The phantom's radiographs say in every element the same view."""

from __future__ import annotations

import pytest
from pydicom.sr.codedict import codes

from pacs_ai.phantom.radiograph import View

# PS3.16 CID 4010: the code of each ViewPosition, as pydicom's dictionary has it.
CODES = {"PA": codes.cid4010.PosteroAnterior, "LL": codes.cid4010.LeftLateral}


@pytest.mark.parametrize("view", View)
def test_the_view_code_says_what_the_view_position_says(view: View) -> None:
    text = view.value
    code = CODES[text.position]
    assert text.code == (code.value, code.scheme_designator, code.meaning)
