"""The listener's AE: presentation contexts, limits, start and stop.

Settings of pynetdicom that matter are set when the listener starts, and each says why
(``reliability.md`` §3). Loopback unless the settings open it knowingly.
"""

from __future__ import annotations

import gc
import logging
import re
import tempfile
from collections.abc import Callable

from pydicom.uid import UID
from pynetdicom import AE, _config, evt, sop_class
from pynetdicom.presentation import AllStoragePresentationContexts
from pynetdicom.transport import AssociationServer

from listener import tls, transport
from listener.door import BURST, Limits
from listener.handlers import Handlers
from listener.sharing import ALONE, Share, serve
from pacs_ai.gateway import Gateway
from pacs_ai.naming import temporary_prefix
from pacs_ai.processes import Ending

TRANSFER_SYNTAXES = (
    "1.2.840.10008.1.2.1",  # Explicit VR Little Endian
    "1.2.840.10008.1.2",  # Implicit VR Little Endian
    "1.2.840.10008.1.2.1.99",  # Deflated Explicit VR Little Endian
    "1.2.840.10008.1.2.2",  # Explicit VR Big Endian
    "1.2.840.10008.1.2.1.98",  # Encapsulated Uncompressed Explicit VR Little Endian
    "1.2.840.10008.1.2.5",  # RLE Lossless
    "1.2.840.10008.1.2.4.50",  # JPEG Baseline
    "1.2.840.10008.1.2.4.51",  # JPEG Extended
    "1.2.840.10008.1.2.4.57",  # JPEG Lossless
    "1.2.840.10008.1.2.4.70",  # JPEG Lossless, first-order prediction
    "1.2.840.10008.1.2.4.80",  # JPEG-LS lossless
    "1.2.840.10008.1.2.4.81",  # JPEG-LS near-lossless
    "1.2.840.10008.1.2.4.90",  # JPEG 2000 lossless
    "1.2.840.10008.1.2.4.91",  # JPEG 2000
    "1.2.840.10008.1.2.4.92",  # JPEG 2000 multi-component lossless
    "1.2.840.10008.1.2.4.93",  # JPEG 2000 multi-component
    "1.2.840.10008.1.2.4.94",  # JPIP Referenced
    "1.2.840.10008.1.2.4.95",  # JPIP Referenced Deflate
    "1.2.840.10008.1.2.4.100",  # MPEG2 Main Profile / Main Level
    "1.2.840.10008.1.2.4.100.1",  # the same, fragmentable
    "1.2.840.10008.1.2.4.101",  # MPEG2 Main Profile / High Level
    "1.2.840.10008.1.2.4.101.1",
    "1.2.840.10008.1.2.4.102",  # MPEG-4 AVC/H.264
    "1.2.840.10008.1.2.4.102.1",
    "1.2.840.10008.1.2.4.103",
    "1.2.840.10008.1.2.4.103.1",
    "1.2.840.10008.1.2.4.104",
    "1.2.840.10008.1.2.4.104.1",
    "1.2.840.10008.1.2.4.105",
    "1.2.840.10008.1.2.4.105.1",
    "1.2.840.10008.1.2.4.106",
    "1.2.840.10008.1.2.4.106.1",
    "1.2.840.10008.1.2.4.107",  # HEVC/H.265
    "1.2.840.10008.1.2.4.108",
    "1.2.840.10008.1.2.4.110",  # JPEG XL lossless
    "1.2.840.10008.1.2.4.111",  # JPEG XL recompression
    "1.2.840.10008.1.2.4.112",  # JPEG XL
    "1.2.840.10008.1.2.4.201",  # High-Throughput JPEG 2000 lossless
    "1.2.840.10008.1.2.4.202",
    "1.2.840.10008.1.2.4.203",
    "1.2.840.10008.1.2.4.204",  # JPIP HTJ2K Referenced
    "1.2.840.10008.1.2.4.205",  # JPIP HTJ2K Referenced Deflate
    "1.2.840.10008.1.2.8.1",  # Deflated Image Frame
)
"""Every standard transfer syntax of stored Instances, in the order they are preferred: nothing is
decoded here, so nothing is refused here (PS3.5 section 10, PS3.6 Table A-1)."""

VERIFICATION = "1.2.840.10008.1.1"
MAXIMUM_PDU = 131_072
SWEEP_SECONDS = 600.0
DRAIN_SECONDS = 20.0
"""So long messages that are under way may take when the listener is asked to end."""

_WORD_ENDS = re.compile(r"(?<=[a-z])(?=[A-Z])")


def configure() -> None:
    """Set what pynetdicom keeps as module globals, once, when the process starts."""
    _config.STORE_RECV_CHUNKED_DATASET = True  # 500 MB Instances do not pass through memory
    _config.ENFORCE_UID_CONFORMANCE = True  # otherwise any 64 characters pass as a UID
    _config.LOG_HANDLER_LEVEL = "none"  # the default handlers log identifiers
    _config.LOG_REQUEST_IDENTIFIERS = False
    _config.LOG_RESPONSE_IDENTIFIERS = False
    _config.UNRESTRICTED_STORAGE_SERVICE = False
    # It tells every odd byte of a peer with a stack trace before it raises; what is raised is told once.
    logging.getLogger("pynetdicom.utils").setLevel(logging.CRITICAL + 1)


def storage_classes() -> dict[str, str]:
    """Return every Storage SOP Class that is accepted, UID to name (PS3.4 Annex B.5)."""
    # pynetdicom knows a few classes that pydicom's dictionary does not name yet.
    spelled = {str(uid): keyword for keyword, uid in vars(sop_class).items()}
    accepted = [UID(str(context.abstract_syntax)) for context in AllStoragePresentationContexts]
    return {
        str(uid): uid.name if uid.name != uid else re.sub(_WORD_ENDS, " ", spelled[uid])
        for uid in accepted
    }


def build(gateway: Gateway) -> AE:
    """Return the AE as the settings describe it, not yet listening."""
    settings = gateway.settings.listener
    entity = AE(ae_title=settings.ae_title)
    entity.add_supported_context(VERIFICATION)
    for uid in storage_classes():
        entity.add_supported_context(uid, list(TRANSFER_SYNTAXES))
    entity.maximum_pdu_size = MAXIMUM_PDU
    entity.maximum_associations = settings.maximum_associations
    entity.require_called_aet = False  # the handler judges: the gateway may have several titles
    entity.acse_timeout = 10
    entity.dimse_timeout = 60
    entity.network_timeout = 60
    return entity


def start(gateway: Gateway, share: Share = ALONE) -> AssociationServer:
    """Listen in threads of this process; ``shutdown()`` of what is returned ends it.

    Raises
    ------
    ConfigError
        When the hardened transport does not know the installed library, or TLS files cannot be used.
    """
    configure()
    gateway.spool.sweep()
    gateway.prepare()
    handlers = Handlers(gateway)
    match gateway.settings.listener.transport:
        case "hardened":
            return _hardened(gateway, handlers, share)
        case "plain":
            return _plain(gateway, handlers, share)


def _hardened(gateway: Gateway, handlers: Handlers, share: Share) -> AssociationServer:
    settings = gateway.settings.listener
    associations = share.of(settings.maximum_associations)
    entity = build(gateway)
    # The library counts connections that are on their way out, too: the real limit is the door's.
    entity.maximum_associations = settings.maximum_connections * BURST
    return transport.make_server(
        entity,
        (settings.host, settings.port),
        limits=Limits(
            connections=share.of(settings.maximum_connections),
            associations=associations,
            # Whole in each process: the kernel may give it all that one address opens.
            per_address=min(settings.maximum_per_address, associations),
        ),
        maximum_object=settings.maximum_object,
        receive=handlers.receive,
        tls=tls.pair_of(settings),
        evt_handlers=[(evt.EVT_REQUESTED, handlers.requested)],
        share=share,
    )


def _plain(gateway: Gateway, handlers: Handlers, share: Share) -> AssociationServer:
    # The library receives into temporary files: they belong on the spool's disk, in our own folder.
    tempfile.tempdir = str(gateway.spool.temporary)
    tempfile.template = temporary_prefix()
    settings = gateway.settings.listener
    entity = build(gateway)
    entity.maximum_associations = share.of(settings.maximum_associations)
    server = entity.make_server(
        (settings.host, settings.port),
        evt_handlers=[
            (evt.EVT_REQUESTED, handlers.requested),
            (evt.EVT_C_ECHO, handlers.echo),
            (evt.EVT_C_STORE, handlers.store),
        ],
        server_class=tls.PlainServer,
        share=share,
        tls=tls.pair_of(settings),
    )
    serve(server)
    return server


def run(gateway: Gateway, share: Share, *, ready: Callable[[], None]) -> None:
    """Listen until SIGTERM or SIGINT; ``ready`` is called when the port is open."""
    ending = Ending()
    ending.heed_signals()
    server = start(gateway, share)
    # What was imported is never garbage: looking through it again and again would cost every sender time.
    gc.collect()
    gc.freeze()
    ready()
    while not ending.wait(SWEEP_SECONDS):
        gateway.spool.sweep()  # a peer that went away in mid-transfer leaves half an Instance
    if isinstance(server, transport.Server):  # the library's own cuts off what is under way
        server.drain(DRAIN_SECONDS)
    server.shutdown()
