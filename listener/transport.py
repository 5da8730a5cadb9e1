"""Hardened transport: pynetdicom's server, socket and upper layer, each by a subclass.

The library reads whatever length a peer claims, waits for it without an end, keeps every message that
comes, and counts silent connections against those who speak. Here every PDU has a length that is allowed
and a time in which it is whole, connections are counted from accept to close (:mod:`listener.door`), and
a DIMSE message is answered by the thread that read it: the data set of a C-STORE goes from the socket
into the spool's file through one buffer, and nothing is ever queued.

All that needs the library's internals is in this module and :mod:`listener.sockets`; :data:`MADE_FOR` is
the version that both were made for.
"""

from __future__ import annotations

import logging
import queue
import socket
import threading
import time
from collections.abc import Callable
from functools import cached_property
from socketserver import TCPServer
from time import monotonic
from typing import Any, Protocol, cast

import pynetdicom
from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.dul import DULServiceProvider
from pynetdicom.fsm import InvalidEventError
from pynetdicom.transport import RequestHandler

from listener import dimse
from listener.dimse import C_ECHO_RQ, COMMAND, LAST, P_DATA_TF, CommandError, Request
from listener.door import A_ASSOCIATE_RQ, HEADER, Connection, Door, Limits, Porch
from listener.pdus import ProtocolError, check_request, fragments, tidied
from listener.sharing import ALONE, Share, SharingServer, serve
from listener.sockets import CONNECTION_CLOSED, HEADS, Socket
from pacs_ai.certificates import Pair
from pacs_ai.errors import ConfigError, Fault

log = logging.getLogger(__name__)

MADE_FOR = "3.0."
"""pynetdicom's version, as far as its internals are concerned."""

COMMAND_LIMIT = 64 * 1024
"""Bytes of a command set: every element of C-STORE-RQ together is below 1 KiB (PS3.7 section 9.3.1)."""
DRAINED = 16 * 2**20
"""So much of a data set that is refused is still read, so that the peer gets its answer; then A-ABORT."""
LINGER = 1.0
"""Seconds in which a peer can read why its association ended, and close."""
STALE = 2.0
"""Seconds after which a porch that has not gone round hangs; it does four times a second."""

_READY_FOR_DATA, _WAITING_FOR_CLOSE = "Sta6", "Sta13"  # PS3.8 section 9.2.2
_BEFORE_REQUEST = ("Sta1", "Sta2")
_SUCCESS = 0x0000
_TICK = 0.25
_LOOK = 0.05
_INVALID_PDU = "Evt19"
_LOCAL_LIMIT = (0x02, 0x03, 0x02)


class Reception(Protocol):
    """A C-STORE on its way in: its data set in pieces, then the status for the peer."""

    def room(self, size: int) -> memoryview | None:
        """Return where the next piece goes, so many bytes; None when it has to be written."""

    def write(self, view: memoryview) -> None:
        """Take a piece of the data set."""

    def finish(self) -> Dataset | int:
        """Return the status, after everything is durable; ``discard`` comes after it."""

    def discard(self) -> None:
        """Forget what came."""


Receive = Callable[[Association], Callable[[Request, str], Reception]]
"""Of an association, returns what begins a reception: request, Transfer Syntax UID. Neither raises."""


def check_version() -> None:
    """Refuse a library whose internals nobody has looked at.

    Raises
    ------
    ConfigError
        When pynetdicom is not of the version that this module was made for.
    """
    if not pynetdicom.__version__.startswith(MADE_FOR):
        raise ConfigError(
            [
                Fault(
                    f"listener.transport: hardened is made for pynetdicom {MADE_FOR}x, and "
                    f"{pynetdicom.__version__} is installed: install {MADE_FOR}x, or set "
                    "listener.transport: plain"
                )
            ]
        )


class _Checkpoint(threading.Event):
    """Where the association's own thread passes; it waits here for something to do.

    The library's lets it pass a thousand times a second, and every time it stops those that read.
    """

    def __init__(self) -> None:
        super().__init__()
        self._something = threading.Event()

    def ring(self) -> None:
        """Let the thread look what there is to do."""
        self._something.set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the bell, or a moment; then as the library does."""
        self._something.wait(_TICK)
        self._something.clear()
        return super().wait(timeout)


class _ToUser(queue.Queue[Any]):
    """The library's queue to the association; whatever is put into it wakes the one that reads."""

    def __init__(self, checkpoint: _Checkpoint) -> None:
        super().__init__()
        self._checkpoint = checkpoint

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:  # noqa: FBT001, FBT002
        super().put(item, block, timeout)
        self._checkpoint.ring()


class Server(SharingServer):
    """Accepts connections; each becomes an association once its A-ASSOCIATE-RQ is whole."""

    request_queue_size = 128

    def __init__(
        self,
        *arguments: Any,
        limits: Limits,
        maximum_object: int,
        receive: Receive,
        tls: Pair | None = None,
        **named: Any,
    ) -> None:
        self.limits = limits
        self.maximum_object = maximum_object
        self.receive = receive
        self.door = Door(limits)
        named["request_handler"] = Handler
        super().__init__(*arguments, **named)
        self._porch = Porch(self.door, limits, self._begin, tls)
        self._porch.start()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Let an accepted connection wait; it costs no thread yet."""
        request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._porch.admit(request, client_address)

    def goes_round(self) -> bool:
        """Tell whether those who wait are looked at."""
        return monotonic() - self._porch.looked < STALE

    def drain(self, seconds: float) -> None:
        """Take nothing new, and end each association once no message of it is under way."""
        TCPServer.shutdown(self)
        self.server_close()
        self._porch.stop()
        deadline = monotonic() + seconds
        told: set[Association] = set()
        while (here := self.active_associations) and monotonic() < deadline:
            for association in here:
                connection = cast("UpperLayer", association.dul).connection
                if association not in told and connection.begun is None and connection.give_way:
                    told.add(association)
                    connection.give_way()
            time.sleep(_LOOK)

    def shutdown(self) -> None:
        """Stop listening, close what waits, end every association."""
        super().shutdown()
        self._porch.stop()
        for association in self.active_associations:
            cast("UpperLayer", association.dul).connection.cut()

    def _begin(self, connection: Connection) -> None:
        try:
            self.finish_request(connection, connection.client_address)  # type: ignore[arg-type]
        except Exception:  # the accept loop's own rim: one connection, not the listener
            log.exception("an association could not be begun")
            connection.socket.close()
            self.door.leave(connection)


class Handler(RequestHandler):
    """Makes the association of a connection whose A-ASSOCIATE-RQ is whole."""

    server: Server
    request: Connection  # the library hands through what the server gave

    def _create_association(self) -> Association:
        connection, server = self.request, self.server
        association = Acceptor(self.ae, "acceptor")
        association._server = server
        association.name = "AcceptorThread"  # the library finds its associations by this name
        association.dul = UpperLayer(association, connection, server)
        # The timers of the provider that was replaced are set again.
        association.acse_timeout = self.ae.acse_timeout
        association.network_timeout = self.ae.network_timeout
        association.set_socket(Socket(association, connection, server.limits))
        acceptor = association.acceptor
        acceptor.maximum_length = self.ae.maximum_pdu_size
        acceptor.ae_title = server.ae_title
        acceptor.address_info = self.local
        acceptor.implementation_class_uid = self.ae.implementation_class_uid
        acceptor.implementation_version_name = self.ae.implementation_version_name
        # The library copies them for each connection (30 ms); negotiation only reads them.
        acceptor.supported_contexts = server.contexts
        association.requestor.address_info = self.remote
        self._bind(association)
        return association

    def _bind(self, association: Association) -> None:
        for event, bound in self.server._handlers.items():
            if event.is_intervention:
                association.bind(event, *cast("tuple[Any, ...]", bound))
            else:
                for handler, arguments in cast("list[tuple[Any, Any]]", bound):
                    association.bind(event, handler, arguments)
        association.bind(evt.EVT_REQUESTED, _seat)


def _seat(event: evt.Event) -> None:
    association = event.assoc
    if association.is_rejected or association.is_aborted:
        return
    upper = cast("UpperLayer", association.dul)
    seated, gone = upper.door.seat(upper.connection)
    if gone is not None and gone.give_way is not None:
        log.warning("an idle association was aborted: its peer asked for one more")
        gone.give_way()
    if not seated:
        log.warning("association rejected: as many as allowed are open")
        association.acse.send_reject(*_LOCAL_LIMIT)
        association.kill()


class Acceptor(Association):
    """An association that ends with its connection, even where the library stumbles over a request."""

    def run_reactor(self) -> None:
        """Negotiate and live; nothing is left of it when this returns."""
        try:
            super().run_reactor()
        except Exception:  # a rim: without it the connection would be neither answered nor closed
            log.exception("association ended: it could not be negotiated")
            upper = cast("UpperLayer", self.dul)
            upper.connection.cut()
            if not upper.is_alive():  # it ended, or no thread could be started
                upper.end()
            self.kill()


class UpperLayer(DULServiceProvider):
    """Reads PDUs of allowed length in time, and answers DIMSE messages itself.

    C-STORE and C-ECHO are answered here, in the reading thread: whatever else a peer sends meanwhile waits
    in its own socket. Everything but P-DATA is the library's.
    """

    socket: Socket

    def __init__(self, association: Association, connection: Connection, server: Server) -> None:
        super().__init__(association)
        self.daemon = True
        self._checkpoint = _Checkpoint()
        self._checkpoint.set()
        association._reactor_checkpoint = self._checkpoint
        self.to_user_queue = _ToUser(self._checkpoint)
        self._run_loop_delay = 0.0  # it waits for the socket or the bell instead
        self.connection = connection
        self.door = server.door
        self._server = server
        self._room = memoryview(bytearray(HEADER))  # of one PDU, used again for the next
        self._command = bytearray()
        self._request: Request  # the reception's
        self._context_id = 0
        self._reception: Reception | None = None
        self._draining_until = 0.0
        # Looked at without their locks: what is put there next is seen one PDU later.
        self._events, self._from_user = self.event_queue.queue, self.to_provider_queue.queue
        self._longest = association.ae.maximum_pdu_size + HEADER
        connection.give_way = self._give_way

    def run_reactor(self) -> None:
        """Read until the association is over; then nothing of it is left."""
        try:
            super().run_reactor()
        except InvalidEventError:  # a release is answered while its association is aborted
            log.warning("association ended: events of both sides crossed")
        except Exception:  # a rim: the connection is closed and no longer counts, whatever happened
            log.exception("association ended: its state machine met what it does not know")
        finally:
            self.end()

    def end(self) -> None:
        """Let go of all that the association has; safe to call twice, and from a thread that never began."""
        self.connection.cut()
        self.connection.socket.close()
        self.socket.close_bell()
        # Who still waits for an A-ASSOCIATE-RQ takes it for the end of the time to wait.
        self.to_user_queue.put(None)  # type: ignore[arg-type]
        try:
            self._forget()
        except Exception:  # the disk refused: a seat is not kept for that
            log.exception("what came of an Instance could not be removed; the next start does")
        self.door.leave(self.connection)

    def send_pdu(self, primitive: Any) -> None:
        """Hand on what the association sends, and wake the thread that sends it."""
        super().send_pdu(primitive)
        if threading.current_thread() is not self:
            self.socket.ring()

    def kill_dul(self) -> None:
        """End the thread that reads."""
        super().kill_dul()
        self.socket.ring()
        self._checkpoint.ring()

    def _give_way(self) -> None:
        if self.assoc.is_established:
            self.assoc.abort(block=False)
        else:
            self.connection.cut()

    def idle_timer_expired(self) -> bool:
        """Tell whether nothing came for too long; the library's own timer misses what is read here."""
        allowed = self.assoc.network_timeout
        silent = monotonic() - self.connection.heard
        return super().idle_timer_expired() and allowed is not None and silent > allowed

    # ------------------------------------------------------------------ PDUs

    def _is_transport_event(self) -> bool:
        closing = self.state_machine.current_state == _WAITING_FOR_CLOSE
        if not closing and self.event_queue.empty():
            self.socket.wait(_TICK)  # the library looks a thousand times a second instead
        return super()._is_transport_event()

    def _read_pdu_data(self) -> None:
        try:
            if self.state_machine.current_state == _WAITING_FOR_CLOSE:
                self._drain()
            else:
                self._read_pdu()
                if self.state_machine.current_state == _READY_FOR_DATA:
                    self._go_on()
        except (OSError, ProtocolError) as error:
            log.warning("association ended: %s", error, extra={"address": self.connection.address})
            broken = isinstance(error, OSError)
            self.event_queue.put(CONNECTION_CLOSED if broken else _INVALID_PDU)

    def _go_on(self) -> None:
        # As long as nothing but P-DATA comes, the library's loop has nothing to do, and the state stays.
        link = self.socket
        while not (self._events or self._from_user or self._kill_thread) and link.wait(_TICK):
            if not self._read_values(link.heads()):
                self._read_pdu()

    def _read_pdu(self) -> None:
        self.socket.begin_pdu()
        state = self.state_machine.current_state
        if not self._fill(self._room[:HEADER]):
            return
        kind, length = self._room[0], int.from_bytes(self._room[2:HEADER], "big")
        longest = self._server.limits.request if state in _BEFORE_REQUEST else self._longest
        if length > longest:
            raise ProtocolError("a PDU is longer than was negotiated")
        if len(self._room) < HEADER + length:
            head = self._room[:HEADER]
            self._room = memoryview(bytearray(HEADER + max(longest, self._longest)))
            self._room[:HEADER] = head
        data = kind == P_DATA_TF and state == _READY_FOR_DATA
        body = self._room[HEADER : HEADER + length]
        read = 0  # of the body
        if data and length > HEADER:
            if not self._fill(body[:HEADER]):
                return
            if self._read_values(self._room[:HEADS]):
                return
            read = HEADER
        if not self._fill(body[read:]):
            return
        self.connection.heard = monotonic()
        if data:
            self._p_data(body)
        else:
            self._to_library(HEADER + length)

    def _read_values(self, heads: bytes | memoryview) -> bool:
        """Read what follows the heads of a P-DATA PDU that is one value; False, and nothing read, of another.

        The piece of a data set goes straight to where it stays, if there is room, and so do those after it.
        """
        link, connection, came = self.socket, self.connection, False
        while len(heads) == HEADS:
            kind, length, size, context_id, control = dimse.HEADS.unpack(heads)
            if kind != P_DATA_TF or size != length - 4 or not HEADER < length <= self._longest:
                break
            size, reception, last = size - 2, self._reception, control & LAST
            if (
                reception is None
                or control & COMMAND
                or context_id != self._context_id
                or (place := reception.room(size)) is None
            ):
                self._read_to_room(size, context_id, control)
                return True
            if not link.fill_rest(place, more=not last):
                self.event_queue.put(CONNECTION_CLOSED)
                return True
            connection.heard = monotonic()
            connection.size += size
            if last:
                self._finish(reception)
                return True
            if self._events or self._from_user or self._kill_thread:
                return True
            heads, came = link.heads(), True
        return came

    def _read_to_room(self, size: int, context_id: int, control: int) -> None:
        fragment = self._room[:size]
        if self.socket.fill_rest(fragment, more=False):
            self.connection.heard = monotonic()
            self._value(context_id, control, fragment)
        else:
            self.event_queue.put(CONNECTION_CLOSED)

    def _fill(self, view: memoryview) -> bool:
        """Read the PDU's next bytes; False when the peer has closed before."""
        if self.socket.fill(view):
            return True
        self.event_queue.put(CONNECTION_CLOSED)
        return False

    def _to_library(self, size: int) -> None:
        read = bytearray(self._room[:size])
        if read[0] == A_ASSOCIATE_RQ:
            body = tidied(bytes(read[HEADER:]))
            read = read[:2] + len(body).to_bytes(4, "big") + body
        try:
            pdu, event = self._decode_pdu(read)
            check_request(pdu)
        except ProtocolError:
            raise
        except Exception as error:  # what the library's decoder stumbles over is the peer's fault
            raise ProtocolError("a PDU cannot be read") from error
        self.event_queue.put(event)
        self._recv_pdu.put(pdu)

    def _drain(self) -> None:
        """Throw away what still comes: closing over unread bytes would take our last PDU back."""
        if not self._draining_until:
            self._draining_until = monotonic() + LINGER
        if not self.socket.throw_away() or monotonic() > self._draining_until:
            self.socket.close()

    # ------------------------------------------------------------------ DIMSE messages

    def _p_data(self, body: memoryview) -> None:
        for context_id, control, fragment in fragments(body):
            self._value(context_id, control, fragment)

    def _value(self, context_id: int, control: int, fragment: memoryview) -> None:
        if not (fragment or control & LAST):  # it would keep a message under way for ever
            raise ProtocolError("an empty fragment came that is not the last")
        take = self._command_fragment if control & COMMAND else self._data_fragment
        take(context_id, fragment, last=bool(control & LAST))

    def _command_fragment(self, context_id: int, fragment: memoryview, *, last: bool) -> None:
        if self.connection.begun is None:
            self.connection.begun, self.connection.size = self.connection.heard, 0
        if self._reception is not None:
            raise ProtocolError("a command came inside a data set")
        self._command += fragment
        if len(self._command) > COMMAND_LIMIT:
            raise ProtocolError("a command set is too long")
        if not last:
            return
        try:
            request = dimse.read(self._command)
        except CommandError as error:
            raise ProtocolError(str(error)) from error
        self._command.clear()
        context = self.assoc._accepted_cx.get(context_id)
        if context is None:
            raise ProtocolError("a command came in a context that was not accepted")
        if request.CommandField == C_ECHO_RQ:
            self._answer(request, context_id, _SUCCESS)
            return
        self._request, self._context_id = request, context_id
        syntax = str(context.transfer_syntax[0])
        self._reception = self._begin_reception(request, syntax)
        if not request.has_data_set:
            self._finish(self._reception)

    def _data_fragment(self, context_id: int, fragment: memoryview, *, last: bool) -> None:
        reception = self._reception
        if reception is None or context_id != self._context_id:
            raise ProtocolError("a data set came without its command")
        self.connection.size += len(fragment)
        if self.connection.size > self._server.maximum_object + DRAINED:
            raise ProtocolError("a data set is longer than the configured object limit")
        self.connection.ours = True
        reception.write(fragment)
        self.connection.ours, self.connection.heard = False, monotonic()
        if last:
            self._finish(reception)

    def _finish(self, reception: Reception) -> None:
        self.connection.ours = True
        self._answer(self._request, self._context_id, reception.finish())
        reception.discard()  # who waits for the answer need not wait for this
        self._reception = None

    def _answer(self, request: Request, context_id: int, status: Dataset | int) -> None:
        code, comment = (
            (status.Status, str(status.ErrorComment))
            if isinstance(status, Dataset)
            else (status, "")
        )
        # Past the library's queue: it is sent when this returns, and P-DATA moves no state (PS3.8 9.2.3).
        self.socket.send(
            dimse.answer(request, context_id, code, comment, maximum_length=self._maximum_length)
        )
        self.connection.begun = None
        self.connection.ours = False

    @cached_property
    def _maximum_length(self) -> int:
        """What the peer takes in one PDU, 0 for any; it is settled once there is something to answer."""
        return self.assoc.requestor.maximum_length or 0

    @cached_property
    def _begin_reception(self) -> Callable[[Request, str], Reception]:
        return self._server.receive(self.assoc)

    def _forget(self) -> None:
        if self._reception is not None:
            self._reception.discard()
            self._reception = None


def make_server(
    entity: AE,
    address: tuple[str, int],
    *,
    limits: Limits,
    maximum_object: int,
    receive: Receive,
    tls: Pair | None = None,
    evt_handlers: list[Any],
    share: Share = ALONE,
) -> Server:
    """Return a server that listens in a thread of its own; ``shutdown()`` ends it."""
    check_version()
    server = entity.make_server(
        address,
        evt_handlers=evt_handlers,
        server_class=Server,
        limits=limits,
        maximum_object=maximum_object,
        receive=receive,
        tls=tls,
        share=share,
    )
    serve(server)
    return cast("Server", server)
