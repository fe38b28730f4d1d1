"""Talks to `apus serve` with the websockets package. Usage: websockets_client.py PORT|URL; ends with 1 at the first surprise."""

import concurrent.futures
import random
import sys

from websockets.exceptions import ConnectionClosed, ConnectionClosedOK, InvalidStatus
from websockets.sync.client import connect

url = sys.argv[1] if "://" in sys.argv[1] else f"ws://127.0.0.1:{sys.argv[1]}"
# Compression is not offered by this version: the client must be told so and go on without.
options = {"open_timeout": 5, "close_timeout": 5, "max_size": None}


def text():
    with connect(url, **options) as peer:
        for message in ["", "Grüße, 世界 🐦", "a" * 125, "b" * 126, "c" * 65535, "d" * 65536, "é" * 1_000_000]:
            peer.send(message)
            assert peer.recv(timeout=5) == message, len(message)


def binary():
    with connect(url, **options) as peer:
        for size in [0, 1, 125, 126, 65535, 65536, 20_000_000]:
            message = random.randbytes(size)
            peer.send(message)
            assert peer.recv(timeout=20) == message, size


def fragments():
    with connect(url, **options) as peer:
        peer.send(["Gr", "ü", "ße"])
        assert peer.recv(timeout=5) == "Grüße"
        peer.send([b"\x00" * 1000, b"", b"\x01"])
        assert peer.recv(timeout=5) == b"\x00" * 1000 + b"\x01"


def ping():
    with connect(url, **options) as peer:
        for payload in [b"", b"x", b"y" * 125]:
            assert peer.ping(payload).wait(5), payload


def close_codes():
    for code in [1000, 1001, 1003, 1007, 1011, 1012, 3000, 4999]:
        with connect(url, **options) as peer:
            peer.close(code, "bye")
            assert peer.close_code == code, (code, peer.close_code)
    with connect(url, **options) as peer:
        peer.close(1000)
        try:
            peer.recv(timeout=5)
            raise AssertionError("a message after the close")
        except ConnectionClosedOK:
            pass


def subprotocols():
    with connect(url, subprotocols=["unknown", "dumb-increment-protocol"], **options) as peer:
        assert peer.subprotocol == "dumb-increment-protocol"
        numbers = [int(peer.recv(timeout=5)) for _ in range(4)]
        assert numbers == list(range(numbers[0], numbers[0] + 4)), numbers
        peer.send("reset\n")
        seen = [int(peer.recv(timeout=5)) for _ in range(4)]
        assert 0 in seen, seen
    with connect(url, **options) as peer:
        assert peer.subprotocol is None
    try:
        connect(url, subprotocols=["unknown"], **options)
        raise AssertionError("a subprotocol nobody offers was accepted")
    except InvalidStatus as error:
        assert error.response.status_code == 400, error


def mirror():
    with connect(url, subprotocols=["lws-mirror-protocol"], **options) as peer:
        peer.send("c #000000 1 2 3;")
        assert peer.recv(timeout=5) == "c #000000 1 2 3;"


def fraggle():
    """A message of random bytes, then one of their sum in four bytes, for ever."""
    with connect(url, subprotocols=["fraggle-protocol"], **options) as peer:
        for _ in range(20):
            data, total = b"".join(peer.recv_streaming()), peer.recv(timeout=5)
            assert int.from_bytes(total, "big") == sum(data) & 0xFFFFFFFF, (len(data), total)


def at_once():
    """Fifty clients that each echo a hundred messages."""

    def one(number):
        with connect(url, **options) as peer:
            for index in range(100):
                message = f"{number} {index} " + "x" * (number * 37)
                peer.send(message)
                assert peer.recv(timeout=10) == message

    with concurrent.futures.ThreadPoolExecutor(50) as pool:
        list(pool.map(one, range(50)))


def too_large():
    """The demo's limit is 64 MiB: a message over it is refused with 1009."""
    with connect(url, **options) as peer:
        try:
            peer.send(bytes((64 << 20) + 1))
            peer.recv(timeout=20)
            raise AssertionError("64 MiB + 1 were echoed")
        except ConnectionClosed as error:
            assert error.rcvd is not None and error.rcvd.code == 1009, error


for check in [text, binary, fragments, ping, close_codes, subprotocols, mirror, fraggle, at_once, too_large]:
    check()
    print(check.__name__, "ok", flush=True)
