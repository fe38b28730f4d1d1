"""Talks to `apus serve` with the websockets package. Usage: websockets_client.py PORT|URL; ends with 1 at the first surprise.

By the package's asyncio client: its threaded one reads and writes a TLS connection from two threads at once, which OpenSSL does not allow
(python/cpython#143756); now and then its first request is lost, whatever the server.
"""

import asyncio
import random
import sys

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, ConnectionClosedOK, InvalidStatus

url = sys.argv[1] if "://" in sys.argv[1] else f"ws://127.0.0.1:{sys.argv[1]}"
options = {"open_timeout": 5, "close_timeout": 5, "max_size": None}


async def receive(peer, timeout=5):
    return await asyncio.wait_for(peer.recv(), timeout)


async def text():
    async with connect(url, **options) as peer:
        for message in ["", "Grüße, 世界 🐦", "a" * 125, "b" * 126, "c" * 65535, "d" * 65536, "é" * 1_000_000]:
            await peer.send(message)
            assert await receive(peer) == message, len(message)


async def binary():
    async with connect(url, **options) as peer:
        for size in [0, 1, 125, 126, 65535, 65536, 20_000_000]:
            message = random.randbytes(size)
            await peer.send(message)
            assert await receive(peer, 20) == message, size


async def fragments():
    async with connect(url, **options) as peer:
        await peer.send(["Gr", "ü", "ße"])
        assert await receive(peer) == "Grüße"
        await peer.send([b"\x00" * 1000, b"", b"\x01"])
        assert await receive(peer) == b"\x00" * 1000 + b"\x01"


async def ping():
    async with connect(url, **options) as peer:
        for payload in [b"", b"x", b"y" * 125]:
            await asyncio.wait_for(await peer.ping(payload), 5)


async def close_codes():
    for code in [1000, 1001, 1003, 1007, 1011, 1012, 3000, 4999]:
        async with connect(url, **options) as peer:
            await peer.close(code, "bye")
            assert peer.close_code == code, (code, peer.close_code)
    async with connect(url, **options) as peer:
        await peer.close(1000)
        try:
            await receive(peer)
            raise AssertionError("a message after the close")
        except ConnectionClosedOK:
            pass


async def subprotocols():
    async with connect(url, subprotocols=["unknown", "dumb-increment-protocol"], **options) as peer:
        assert peer.subprotocol == "dumb-increment-protocol"
        numbers = [int(await receive(peer)) for _ in range(4)]
        assert numbers == list(range(numbers[0], numbers[0] + 4)), numbers
        await peer.send("reset\n")
        seen = [int(await receive(peer)) for _ in range(4)]
        assert 0 in seen, seen
    async with connect(url, **options) as peer:
        assert peer.subprotocol is None
    try:
        await connect(url, subprotocols=["unknown"], **options)
        raise AssertionError("a subprotocol nobody offers was accepted")
    except InvalidStatus as error:
        assert error.response.status_code == 400, error


async def mirror():
    async with connect(url, subprotocols=["lws-mirror-protocol"], **options) as peer:
        await peer.send("c #000000 1 2 3;")
        assert await receive(peer) == "c #000000 1 2 3;"


async def broadcast():
    """Every subscriber gets every publication, whole and in order, small and large."""
    peers = [await connect(f"{url}/broadcast", **options) for _ in range(20)]
    messages = [f"{number} " + "x" * (number**4 // 2) for number in range(25)]
    for message in messages:
        await peers[0].send(message)
    for peer in peers:
        for message in messages:
            assert await receive(peer, 10) == message, len(message)
        await peer.close()


async def fraggle():
    """A message of random bytes, then one of their sum in four bytes, for ever."""
    async with connect(url, subprotocols=["fraggle-protocol"], **options) as peer:
        for _ in range(20):
            data, total = b"".join([part async for part in peer.recv_streaming()]), await receive(peer)
            assert int.from_bytes(total, "big") == sum(data) & 0xFFFFFFFF, (len(data), total)


async def at_once():
    """Fifty clients that each echo a hundred messages."""

    async def one(number):
        async with connect(url, **options) as peer:
            for index in range(100):
                message = f"{number} {index} " + "x" * (number * 37)
                await peer.send(message)
                assert await receive(peer, 10) == message

    await asyncio.gather(*[one(number) for number in range(50)])


async def too_large():
    """The demo's limit is 64 MiB: a message over it is refused with 1009."""
    async with connect(url, **options) as peer:
        try:
            await peer.send(bytes((64 << 20) + 1))
            await receive(peer, 20)
            raise AssertionError("64 MiB + 1 were echoed")
        except ConnectionClosed as error:
            assert error.rcvd is not None and error.rcvd.code == 1009, error


for check in [text, binary, fragments, ping, close_codes, subprotocols, mirror, broadcast, fraggle, at_once, too_large]:
    asyncio.run(check())
    print(check.__name__, "ok", flush=True)
