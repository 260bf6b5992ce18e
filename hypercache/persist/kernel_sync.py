"""fdatasync without a thread: the kernel is told to, and an eventfd tells when it has (io_submit(2), IOCB_CMD_FDSYNC).

Python and libc know no names for it, so the numbers of the system calls and the layout of their structures are here, from
linux/aio_abi.h. Where the platform has none of it, or refuses it, `KernelSync` raises OSError.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys
from typing import Any, Final

_NUMBERS: Final = {"x86_64": (206, 207, 208, 209), "aarch64": (0, 1, 4, 2)}
"""Of io_setup, io_destroy, io_getevents and io_submit, by machine."""

# data, key, rw_flags, opcode, priority, descriptor, buffer, bytes, offset, reserved, flags, eventfd
_REQUEST: Final = struct.Struct("=QIIHhIQQqQII")
# data, request, result, second result
_EVENT: Final = struct.Struct("=QQqq")
_FDSYNC: Final = 3
_TELL_EVENTFD: Final = 1
_DESCRIPTOR_OFFSET: Final = 20


class KernelSync:
    """One fdatasync at a time.

    Attributes:
        eventfd: can be read when one has ended.

    Raises:
        OSError: the platform has no such thing.
    """

    def __init__(self) -> None:
        numbers = _NUMBERS.get(platform.machine())
        if not sys.platform.startswith("linux") or numbers is None or sys.maxsize < 1 << 32:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        setup, destroy, get_events, submit = map(ctypes.c_long, numbers)
        self._call: Any = ctypes.CDLL(None, use_errno=True).syscall
        self._call.restype = ctypes.c_long
        context = ctypes.c_ulong(0)
        self._check(self._call(setup, ctypes.c_long(1), ctypes.byref(context)))
        self.eventfd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._request = ctypes.create_string_buffer(_REQUEST.size)
        self._event = ctypes.create_string_buffer(_EVENT.size)
        one = ctypes.c_long(1)
        # Made once: a call then allocates next to nothing.
        self._submit = submit, context, one, (ctypes.c_void_p * 1)(ctypes.addressof(self._request))
        self._take = get_events, context, one, one, self._event, None
        self._destroy = destroy, context
        _REQUEST.pack_into(self._request, 0, 0, 0, 0, _FDSYNC, 0, 0, 0, 0, 0, 0, _TELL_EVENTFD, self.eventfd)

    def start(self, descriptor: int) -> None:
        """Begin to make a file's content durable; the one before has ended.

        Raises:
            OSError: it cannot begin.
        """
        struct.pack_into("=I", self._request, _DESCRIPTOR_OFFSET, descriptor)
        self._check(self._call(*self._submit))

    def end(self) -> None:
        """Take the result of the one that began last; waits where it has not ended.

        Raises:
            OSError: nothing is known of what the disk holds of the file.
        """
        while True:
            try:
                self._check(self._call(*self._take))
                break
            except InterruptedError:
                continue
        os.eventfd_read(self.eventfd)
        result = _EVENT.unpack(self._event.raw)[2]
        if result < 0:
            raise OSError(-result, os.strerror(-result))

    def close(self) -> None:
        """Let go; none is under way."""
        self._call(*self._destroy)
        os.close(self.eventfd)

    def _check(self, result: int) -> None:
        if result < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
