"""The one tree of errors that HyperCache raises.

::

    HyperCacheError
    ├── ConfigurationError      a setting, an option or a file that the operator must change
    ├── WireError               carries the error code that a peer is told (wire.md, section 1)
    │   ├── MalformedMessageError   0x0100: a payload that does not fit its layout
    │   ├── MessageTooLargeError    0x0004: a value that no frame can carry
    │   └── SignatureError          a signed frame that does not verify
    ├── SchemaError             a message declared wrongly, or twice
    ├── PluginError             a plug-in that cannot be loaded, or that contradicts another
    ├── AuthenticationError     a peer that is not who it says; the text is for the log alone
    │   └── TLSRefusedError         its certificate will not do (``hypercache.net.tls_faults``)
    ├── RequestError            a request to a peer that was not answered
    │   ├── LinkLostError           the connection ended before an answer came
    │   ├── DeadlineError           no answer came in time
    │   ├── BusyError               a bound was reached: too many requests or messages wait already
    │   └── RefusedError            the peer answered with an error
    ├── RaftError               what a Raft group cannot do now, or must not
    │   ├── NotLeaderError          there is no leader here, or none known; names the one that is
    │   ├── ConfigurationChangeError   a change of members that is not allowed, or not now
    │   └── ConsistencyError        a promise of Raft is broken: the node must stop, not guess
    ├── UndecidedError          a check that gave up before it knew (`hypercache.testing`)
    └── CommandError            carries the RESP error line that a client is told
"""

from __future__ import annotations

from typing import ClassVar


class HyperCacheError(Exception):
    """The root of every error that this package raises on purpose."""


class ConfigurationError(HyperCacheError):
    """A setting is unknown, ill-typed, out of range or contradicts another; the text says what to do."""


class WireError(HyperCacheError):
    """A fault in bytes or messages of the cluster protocol.

    Attributes:
        code: the two-byte error code for a GenericError (wire.md, section 1).
    """

    code: ClassVar[int] = 0x0007


class MalformedMessageError(WireError):
    """A payload does not fit the layout of its type: fixed part too short, inner length too long, text not UTF-8."""

    code = 0x0100


class MessageTooLargeError(WireError):
    """A message, or a field of one, exceeds what its length field or the frame limit can carry."""

    code = 0x0004


class SignatureError(WireError):
    """The signature of a frame does not match its content, key or place in the sequence."""

    code = 0x0005


class SchemaError(HyperCacheError):
    """A message declaration is inconsistent, or its type or name is already taken."""


class PluginError(HyperCacheError):
    """A plug-in cannot be loaded, or two of them claim the same name or type."""


class AuthenticationError(HyperCacheError):
    """A peer is not who it says, or cannot prove it; the text is for the log, the peer hears 0x0005 alone."""


class RequestError(HyperCacheError):
    """A request to a peer was not answered, or not as wished."""


class LinkLostError(RequestError):
    """The link to a peer was lost before what was sent on it was answered."""


class DeadlineError(RequestError):
    """No answer came in time; whether the peer did what was asked is unknown."""


class BusyError(RequestError):
    """A bound was reached: too much waits already, and nothing was sent."""


class RefusedError(RequestError):
    """The peer answered with a GenericError.

    Args:
        code: the error code (wire.md, section 1).
        text: what the peer says.
        retry_after: the seconds after which it may be asked again; None where it does not say.
    """

    def __init__(self, code: int, text: str, retry_after: float | None = None) -> None:
        super().__init__(f"the peer refused with 0x{code:04x}: {text}")
        self.code = code
        self.retry_after = retry_after


class RaftError(HyperCacheError):
    """A Raft group cannot do what was asked."""


class NotLeaderError(RaftError):
    """This node is not the leader.

    Args:
        leader: the id of the leader as far as it is known; 0 for none.
    """

    def __init__(self, leader: int) -> None:
        super().__init__(f"the leader is node {leader}" if leader else "there is no leader now")
        self.leader = leader


class ConfigurationChangeError(RaftError):
    """A change of a group's members is malformed, or another one is under way."""


class ConsistencyError(RaftError):
    """What Raft promises does not hold any more; a node that sees it stops before it does harm."""


class OutcomeUnknownError(RaftError):
    """A proposal found no answer in time: it may have happened, may happen yet, or not; it is never half done."""


class StorageError(HyperCacheError):
    """The disk failed in a way after which nothing is known of what it holds; the process must end, and recovers by a restart."""


class DiskFullError(StorageError):
    """Nothing more fits on the disk; what was written of the last batch does not count, and what was there before stays sound."""


class LogDamagedError(StorageError):
    """A log or snapshot on disk holds what was never written so.

    Args:
        path: the file.
        offset: where in it, in bytes.
        reason: what is wrong there, and what the operator can do.
    """

    def __init__(self, path: str, offset: int, reason: str) -> None:
        super().__init__(f"{path} is damaged at byte {offset}: {reason}")
        self.path = path
        self.offset = offset


class UndecidedError(HyperCacheError):
    """A check took as many steps as it may and knows neither that a promise was kept nor that it was broken."""


class CommandError(HyperCacheError):
    """A RESP command that cannot be carried out.

    Args:
        line: the error line without the leading ``-`` and the final CRLF, e.g. ``ERR syntax error``.
    """

    def __init__(self, line: str) -> None:
        super().__init__(line)
        self.line = line
