"""Has ROUNDS times DEPTH messages of BYTES bytes echoed, the messages of a round sent with one call. Prints `echoed`.

Usage: echo_rounds.py PORT ROUNDS DEPTH BYTES [tls | churn | route]

`tls` does so over TLS. With `churn` each round has a connection of its own, from connect to the closing handshake. With `route` each round is
DEPTH pipelined requests instead, `GET /route`.
"""

import socket
import ssl
import sys

REQUEST = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
KEY = b"\x37\xfa\x21\x3d"
CLOSE = bytes([0x88, 0x82]) + KEY + bytes([0x03 ^ KEY[0], 0xE8 ^ KEY[1]])

port, rounds, depth, size = map(int, sys.argv[1:5])
mode = sys.argv[5] if len(sys.argv) > 5 else ""
payload = b"a" * size
masked = bytes(octet ^ KEY[index % 4] for index, octet in enumerate(payload))
batch = (bytes([0x81, 0x80 | size]) + KEY + masked) * depth
echoes = (bytes([0x81, size]) + payload) * depth


def connect():
    return socket.create_connection(("127.0.0.1", port), timeout=60)


def upgrade(peer):
    head = b""
    peer.sendall(REQUEST)
    while not head.endswith(b"\r\n\r\n"):
        head += peer.recv(1)
    assert head.startswith(b"HTTP/1.1 101 "), head


def read(peer, count):
    got = b""
    while len(got) < count:
        part = peer.recv(count - len(got))
        assert part, "the server has left"
        got += part
    return got


def echo(peer):
    peer.sendall(batch)
    assert read(peer, len(echoes)) == echoes


if mode == "churn":
    for _ in range(rounds):
        with connect() as peer:
            upgrade(peer)
            echo(peer)
            peer.sendall(CLOSE)
            assert read(peer, 4) == b"\x88\x02\x03\xe8"
            assert peer.recv(1) == b""
elif mode == "route":
    peer = connect()
    request = b"GET /route HTTP/1.1\r\nHost: localhost\r\nUser-Agent: rounds\r\nAccept: */*\r\n\r\n"
    peer.sendall(request)
    first = b""
    while not first.endswith(b"\r\n\r\nHello"):
        first += peer.recv(4096)
    assert first.startswith(b"HTTP/1.1 200 "), first
    for _ in range(rounds):
        peer.sendall(request * depth)
        read(peer, len(first) * depth)
else:
    peer = connect()
    if mode == "tls":
        # Who the server is, other tests look at.
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        peer = context.wrap_socket(peer)
    upgrade(peer)
    for _ in range(rounds):
        echo(peer)
print("echoed")
