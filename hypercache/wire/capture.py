"""Captures (pcap files) into the bytes of their TCP streams."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

import msgspec

from hypercache.errors import MalformedMessageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

_MAGICS: Final = {
    b"\xa1\xb2\xc3\xd4": ">",
    b"\xd4\xc3\xb2\xa1": "<",
    b"\xa1\xb2\x3c\x4d": ">",
    b"\x4d\x3c\xb2\xa1": "<",
}
_LINK_HEADER_BYTES: Final = {0: 4, 1: 14, 12: 0, 101: 0, 108: 4, 113: 16, 228: 0, 229: 0, 276: 20}
"""Link type to the bytes before the IP header: loopback, Ethernet, raw IP, Linux cooked."""
_VLAN: Final = b"\x81\x00"
_ETHERNET: Final = 1
_TCP: Final = 6
_PACKET_MAX_BYTES: Final = 1 << 20
_OUT_OF_ORDER_MAX_BYTES: Final = 64 << 20


class Segment(msgspec.Struct, frozen=True):
    """One TCP segment."""

    flow: tuple[str, str]
    sequence: int
    syn: bool
    payload: bytes


class Stream:
    """One direction of a TCP connection, put in order."""

    def __init__(self) -> None:
        self._next: int | None = None
        self._early: dict[int, bytes] = {}
        self._early_bytes = 0
        self.data = bytearray()

    def add(self, segment: Segment) -> None:
        """Take a segment: repeated bytes are dropped, early ones wait.

        Raises:
            MalformedMessageError: too much waits for a segment that the capture lacks.
        """
        sequence = segment.sequence + 1 if segment.syn else segment.sequence
        if self._next is None or segment.syn:
            self._next = sequence
        if segment.payload:
            self._early[sequence & 0xFFFFFFFF] = segment.payload
            self._early_bytes += len(segment.payload)
        if self._early_bytes > _OUT_OF_ORDER_MAX_BYTES:
            raise MalformedMessageError("the capture lacks a segment, and over 64 MiB came behind it")
        progress = True
        while progress:
            progress = False
            for early in list(self._early):
                behind = (self._next - early) & 0xFFFFFFFF
                payload = self._early[early]
                if behind < 1 << 31:
                    del self._early[early]
                    self._early_bytes -= len(payload)
                    if behind < len(payload):
                        self.data += payload[behind:]
                        self._next = (self._next + len(payload) - behind) & 0xFFFFFFFF
                    progress = True


def streams_of(file: BinaryIO) -> dict[tuple[str, str], bytes]:
    """Return the bytes of each direction of each TCP connection in a capture, keyed by (from, to), in order of appearance.

    Raises:
        MalformedMessageError: the file is no pcap, or of a link type that is not understood.
    """
    streams: dict[tuple[str, str], Stream] = {}
    for segment in _segments(file):
        streams.setdefault(segment.flow, Stream()).add(segment)
    return {flow: bytes(stream.data) for flow, stream in streams.items() if stream.data}


def _segments(file: BinaryIO) -> Iterator[Segment]:
    head = file.read(24)
    order = _MAGICS.get(head[:4])
    if order is None or len(head) < 24:
        raise MalformedMessageError("this is no pcap file (pcapng can be converted with: editcap -F pcap)")
    link_type = struct.unpack_from(f"{order}I", head, 20)[0] & 0xFFFF
    if link_type not in _LINK_HEADER_BYTES:
        raise MalformedMessageError(f"the capture's link type {link_type} is not understood")
    while len(record := file.read(16)) == 16:
        size = struct.unpack_from(f"{order}I", record, 8)[0]
        if size > _PACKET_MAX_BYTES:
            raise MalformedMessageError(f"a packet of {size} bytes: the capture is damaged")
        packet = file.read(size)
        at = _LINK_HEADER_BYTES[link_type]
        if link_type == _ETHERNET and packet[12:14] == _VLAN:
            at += 4
        segment = _segment(packet[at:])
        if segment is not None:
            yield segment


def _segment(packet: bytes) -> Segment | None:
    """Return the TCP segment of an IP packet, None where it holds none."""
    version = packet[0] >> 4 if packet else 0
    if version == 4 and len(packet) >= 20 and packet[9] == _TCP:
        start = (packet[0] & 0x0F) * 4
        end = int.from_bytes(packet[2:4], "big") or len(packet)
        addresses = [".".join(map(str, packet[at : at + 4])) for at in (12, 16)]
    elif version == 6 and len(packet) >= 40 and packet[6] == _TCP:
        start = 40
        end = 40 + int.from_bytes(packet[4:6], "big")
        addresses = ["[" + packet[at : at + 16].hex(":", 2) + "]" for at in (8, 24)]
    else:
        return None
    tcp = packet[start:end]
    if len(tcp) < 20:
        return None
    source, target, sequence = struct.unpack_from(">HHI", tcp)
    flow = (f"{addresses[0]}:{source}", f"{addresses[1]}:{target}")
    return Segment(flow, sequence, bool(tcp[13] & 0x02), tcp[(tcp[12] >> 4) * 4 :])
