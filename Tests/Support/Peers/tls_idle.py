"""Opens COUNT WebSockets over TLS, has one message echoed on each, prints `open` and holds them until it is ended.

Usage: tls_idle.py PORT COUNT
"""

import asyncio
import ssl
import sys

REQUEST = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
# "hello", masked with zeros, and its echo.
MESSAGE, ECHO = b"\x81\x85\0\0\0\0hello", b"\x81\x05hello"


async def open_one(port, context):
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    writer.write(REQUEST)
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 "), head
    writer.write(MESSAGE)
    assert await reader.readexactly(len(ECHO)) == ECHO
    return reader, writer


async def main():
    port, count = int(sys.argv[1]), int(sys.argv[2])
    # Who the server is, other tests look at.
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    held = []
    while len(held) < count:
        held += await asyncio.gather(*(open_one(port, context) for _ in range(min(50, count - len(held)))))
    print("open", flush=True)
    await asyncio.Event().wait()


asyncio.run(main())
