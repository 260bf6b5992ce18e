"""Faulty and unusual requests are answered as the real redis-server answers them, byte for byte."""

from __future__ import annotations

import random
import socket

import pytest

from tests.resp.exchange import EngineClient, request

PIECES = (
    b"*1\r\n$4\r\nPING\r\n",
    b"*2\r\n$4\r\nECHO\r\n$3\r\na$*\r\n",
    b"*2\r\n$4\r\nECHO\r\n",
    b"*2\r\n",
    b"$4\r\nPING\r\n",
    b"$3\r\nab",
    b"PING\r\n",
    b"PING\n",
    b'ECHO "a\\x41\\n\\t"\r\n',
    b"ECHO 'it\\'s'\r\n",
    b'ECHO "unbalanced\r\n',
    b"ECHO 'x'y\r\n",
    b"ECHO a\\nb\r\n",
    b"\r\n",
    b"   \r\n",
    b"*0\r\n",
    b"*-1\r\n",
    b"*-10\r\n",
    b"*01\r\n",
    b"*+1\r\n",
    b"*\r\n",
    b"*1 \r\n",
    b"*-0\r\n",
    b"*9223372036854775808\r\n",
    b"*-9223372036854775809\r\n",
    b"*1\r\n$-1\r\n",
    b"*1\r\n$01\r\n",
    b"*1\r\n$\r\n",
    b"*1\r\n$536870913\r\n",
    b"*1\r\n$0\r\n\r\n",
    b"*1\r\n$4\r\nPINGxx",
    b"*1\r\n\r\n",
    b"*1\r\n\xff\r\n",
    b"*1\rx$4\rxPINGxx",
    b"*3\r\n$3\r\nSET\r\n$1\r\n$\r\n:5\r\n",
    b"*2\r\n$3\r\nGET\r\n+a$\r\n",
    b"+PONG\r\n",
    b"$1\r\n",
    b"*1\r\n*1\r\n$4\r\nPING\r\n",
    b">1\r\n$4\r\nPING\r\n",
    b"*2\r\n$3\r\nGET\r\n=7\r\n$xx:abc\r\n",
    b"nosuch a b\r\n",
    b"GET\r\n",
)


def of_redis(port: int, data: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    return answer


def ours(parts: list[bytes]) -> bytes:
    client = EngineClient()
    answer = b""
    for part in parts:
        answer += client.raw(part)
        if client.session.closing:
            break
    assert not client.failures
    return answer


@pytest.mark.parametrize("piece", PIECES)
def test_a_faulty_request_between_sound_ones_is_answered_as_by_redis(redis_port: int, piece: bytes) -> None:
    data = request("PING") + piece + request("PING")
    expected = of_redis(redis_port, data)
    assert ours([data]) == expected
    assert ours([data[at : at + 1] for at in range(len(data))]) == expected


def test_random_rows_of_requests_are_answered_as_by_redis(redis_port: int) -> None:
    rng = random.Random(20260102)
    for _ in range(800):
        data = b"".join(rng.choice(PIECES) for _ in range(rng.randrange(1, 7)))
        if rng.random() < 0.3:
            at = rng.randrange(len(data))
            data = data[:at] + rng.choice((b"", b"*", b"$", b"1", b"\r", b"\n")) + data[at + 1 :]
        expected = of_redis(redis_port, data)
        size = rng.choice((1, 2, 5, 1000))
        assert ours([data[at : at + size] for at in range(0, len(data), size)]) == expected, data
