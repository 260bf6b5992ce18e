"""CRC-32 (IEEE), by isal where it is installed.

isal's is several times faster from about a kilobyte up; below that the calls cost the same.
"""

from __future__ import annotations

try:
    from isal.isal_zlib import crc32
except ImportError:
    from zlib import crc32

__all__ = ["crc32"]
