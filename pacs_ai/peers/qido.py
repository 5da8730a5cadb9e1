"""What does a PACS say of a Study? QIDO-RS (PS3.18 section 10.6), by dicomweb-client."""

from __future__ import annotations

from datetime import timedelta
from urllib.parse import urlsplit

from dicomweb_client import DICOMwebClient
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException

from pacs_ai.errors import TransientError
from pacs_ai.http import bounded_session
from pacs_ai.peers.identity import IDENTITY, MOST_ANSWERS, NotOfferedError
from pacs_ai.settings import DicomDestination

DEADLINE = timedelta(seconds=30)
BODY_LIMIT = 4 * 2**20


def find_study(
    study_instance_uid: str, destination: DicomDestination, *, deadline: timedelta = DEADLINE
) -> tuple[Dataset, ...]:
    """Ask a PACS for the identity of a Study.

    Parameters
    ----------
    study_instance_uid : str
    destination : DicomDestination
        With ``qido_url``.
    deadline : timedelta, optional
        For the whole answer.

    Returns
    -------
    tuple of Dataset
        One for each match, with :data:`~pacs_ai.peers.identity.IDENTITY`; empty when the PACS does
        not know the Study.

    Raises
    ------
    TransientError
        When there was no whole answer.
    NotOfferedError
        When the destination has no address to ask.
    """
    if destination.qido_url is None:
        raise NotOfferedError("the destination has no qido_url: set it, or set confirm")
    with bounded_session(deadline=deadline, body_limit=BODY_LIMIT) as session:
        client = DICOMwebClient(destination.qido_url, session=session)
        client.set_http_retry_params(retry=False)  # the ledger tries again, no library does
        if destination.qido_key is not None:
            session.headers["Authorization"] = f"Bearer {destination.qido_key.read()}"
        try:
            found = client.search_for_studies(
                search_filters={"StudyInstanceUID": study_instance_uid},
                fields=list(IDENTITY),
                limit=MOST_ANSWERS + 1,
            )
            matches = [Dataset.from_json(one) for one in found]
        except _NO_ANSWER as error:
            # By its type only: the words of a parser may quote what it read.
            raise TransientError(
                f"{_host(destination.qido_url)} answered a search for Studies (QIDO-RS) with what "
                f"cannot be read ({type(error).__name__})"
            ) from None
    if len(matches) > MOST_ANSWERS:
        raise TransientError(
            f"{_host(destination.qido_url)} answers a search for one Study with many"
        )
    return tuple(one for one in matches if one.get("StudyInstanceUID") == study_instance_uid)


# What dicomweb-client, json and pydicom raise for an answer that is no list of DICOM JSON objects.
_NO_ANSWER = (
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    LookupError,
    ArithmeticError,  # a number without end, where a whole one is expected
    RecursionError,  # lists within lists
    BytesLengthException,
)


def _host(url: str) -> str:
    return str(urlsplit(url).hostname)
