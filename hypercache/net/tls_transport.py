"""TLS over one connection: one record layer's worth of work a read and a write, and an end to handshakes that never finish."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

from OpenSSL.SSL import Error, WantReadError, ZeroReturnError
from twisted.internet.interfaces import IHandshakeListener
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure

from hypercache.limits import TLS_WRITE_BYTES
from hypercache.net.tls_faults import TLSRefusedError, explain, plain_text

if TYPE_CHECKING:
    from collections.abc import Callable

_RECORD_BYTES: Final = 1 << 14
# What TLS adds to a record at most (RFC 8446, 5.2; RFC 5246, 6.2.3).
_RECORD_OVERHEAD_BYTES: Final = 512


class TLSTransport(TLSMemoryBIOProtocol):
    """One connection: between its socket and the protocol that speaks over it.

    What one read decrypts to reaches the protocol as one piece, however many records it was, and what the protocol writes at once
    leaves at once: Twisted's own makes a read and a write of each record of 16 KiB, or waits for the next turn.

    A protocol that is an `IHandshakeListener` bounds its handshake itself and says itself why it failed. For all others both is
    done here.
    """

    factory: TLSFactory
    transport: Any
    _untouched = True

    def __init__(self, factory: TLSFactory, wrapped: Any, connect_wrapped: bool = True) -> None:
        super().__init__(factory, wrapped, connect_wrapped)
        self._attended = IHandshakeListener.providedBy(wrapped)

    @property
    def bufferSize(self) -> int:
        """How much is read at once, in bytes."""
        size: int = self.transport.bufferSize
        return size

    @bufferSize.setter
    def bufferSize(self, size: int) -> None:
        self.transport.bufferSize = size

    def makeConnection(self, transport: Any) -> None:
        """Begin to shake hands, with an end in sight."""
        super().makeConnection(transport)
        if not self._attended:
            self.factory.handshakes.begin(self)

    def dataReceived(self, data: bytes) -> None:
        """Take what was read from the socket."""
        if self._handshakeDone:
            super().dataReceived(data)
            return
        if self._untouched:
            self._untouched = False
            plain = plain_text(data, dialled=self.factory.dialled)
            if plain is not None:
                self.refuse(plain)
                return
        super().dataReceived(data)
        if self._handshakeDone:
            self.factory.handshakes.end(self)
            if not self._lostTLSConnection:
                # A peer that has begun to send early waits for the end of the handshake.
                self._flushSendBIO()

    def refuse(self, text: str) -> None:
        """End the connection at once, for a reason."""
        self.failVerification(Failure(TLSRefusedError(text)))

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        """Say why, where TLS has to do with it."""
        factory = self.factory
        factory.handshakes.end(self)
        if factory.dialled and not self._handshakeDone and self._reason is None and not self._aborted:
            self._reason = Failure(TLSRefusedError("it closed the connection during the TLS handshake; is its port one for TLS?"))
        if not self._attended:
            text = explain(self._reason or reason)
            if text is not None:
                factory.report(self.getPeer(), text)
        super().connectionLost(reason)

    def _flushReceiveBIO(self) -> None:
        """Hand over everything that has come, as one piece."""
        connection = self._tlsConnection
        pieces = []
        ended = False
        end = None
        while not self._lostTLSConnection:
            try:
                pieces.append(connection.recv(_RECORD_BYTES))
            except WantReadError:
                break
            except ZeroReturnError:
                ended = True
                break
            except Error:
                ended = True
                end = Failure()
                break
        if end is not None:
            # Before the rest: answers to it cannot leave any more, and to try would hide the reason.
            self._tlsShutdownFinished(end)
        if pieces and not self._aborted:
            self.wrappedProtocol.dataReceived(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if ended and end is None:
            self._shutdownTLS()
            self._tlsShutdownFinished(None)
        elif not pieces:
            # TLS talks to itself: the end of the handshake, tickets, keys. Beside data its answer may go out with the next write,
            # and not to look for one saves a tenth of a small read.
            self._flushSendBIO()

    def _write(self, data: bytes) -> None:
        """Encrypt and send, in steps that bound the memory which that takes."""
        if self._lostTLSConnection:
            return
        connection = self._tlsConnection
        size = len(data)
        view: Any = data if size <= _RECORD_BYTES else memoryview(data)
        done = 0
        try:
            while done < size:
                start, end = done, min(size, done + TLS_WRITE_BYTES)
                while done < end:
                    # OpenSSL takes one record at a time.
                    done += connection.send(view[done:end])
                self._send_records(connection, end - start)
        except WantReadError:
            # The handshake is not over.
            self._bufferedWrite(bytes(view[done:]))
        except Error:
            self._tlsShutdownFinished(Failure())

    def _send_records(self, connection: Any, size: int) -> None:
        """Send the records of so many bytes."""
        most = size + (size // _RECORD_BYTES + 4) * _RECORD_OVERHEAD_BYTES
        records = connection.bio_read(most)
        self.transport.write(records)
        if len(records) == most:
            # Something of the handshake went ahead of them.
            self._flushSendBIO()


class Handshakes:
    """The TLS handshakes of a port that are not finished: so many, for so long.

    Args:
        clock: the reactor.
        most: of so many the oldest ends when another begins.
        seconds: how long one may take.

    Attributes:
        dropped: how many ended because there were too many.
    """

    def __init__(self, clock: Any, most: int, seconds: float) -> None:
        self._clock = clock
        self._most = most
        self._seconds = seconds
        self._open: OrderedDict[TLSTransport, Any] = OrderedDict()
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._open)

    def begin(self, transport: TLSTransport) -> None:
        """Watch over a connection that shakes hands."""
        self._open[transport] = self._clock.callLater(self._seconds, self._late, transport)
        if len(self._open) > self._most:
            oldest, timer = self._open.popitem(last=False)
            timer.cancel()
            self.dropped += 1
            oldest.refuse(f"more than {self._most} connections shake hands, and it is the oldest")

    def end(self, transport: TLSTransport) -> None:
        """Leave a connection alone."""
        timer = self._open.pop(transport, None)
        if timer is not None and timer.active():
            timer.cancel()

    def _late(self, transport: TLSTransport) -> None:
        del self._open[transport]
        transport.refuse(f"it did not finish its TLS handshake within {self._seconds:g} s")


class TLSFactory(TLSMemoryBIOFactory):
    """Makes the connections of a port TLS ones.

    Args:
        creator: makes OpenSSL's side of a connection.
        wrapped: the factory of the protocols that speak over it.
        dialled: whether this side opens the connections.
        clock: the reactor.
        handshakes: bounds those of protocols that do not do so themselves.
        report: is called with the peer's address and the reason where the TLS of one of those fails.
    """

    protocol: type[TLSTransport] = TLSTransport
    noisy = False

    def __init__(
        self,
        creator: Any,
        wrapped: Any,
        *,
        dialled: bool,
        clock: Any,
        handshakes: Handshakes,
        report: Callable[[Any, str], None],
    ) -> None:
        super().__init__(creator, dialled, wrapped, clock)
        self.dialled = dialled
        self.handshakes = handshakes
        self.report = report

    def buildProtocol(self, addr: Any) -> Any:
        """Return the TLS of a connection; None where the wrapped factory takes none."""
        wrapped = self.wrappedFactory.buildProtocol(addr)
        return self.protocol(self, wrapped) if wrapped is not None else None
