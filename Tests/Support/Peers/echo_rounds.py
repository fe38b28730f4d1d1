"""Has ROUNDS times DEPTH messages of BYTES bytes echoed, the messages of a round sent with one call; over TLS if asked. Prints `echoed`.

Usage: echo_rounds.py PORT ROUNDS DEPTH BYTES [tls]
"""

import socket
import ssl
import sys

REQUEST = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
KEY = b"\x37\xfa\x21\x3d"

port, rounds, depth, size = map(int, sys.argv[1:5])
payload = b"a" * size
masked = bytes(octet ^ KEY[index % 4] for index, octet in enumerate(payload))
batch = (bytes([0x81, 0x80 | size]) + KEY + masked) * depth
echoes = (bytes([0x81, size]) + payload) * depth

peer = socket.create_connection(("127.0.0.1", port), timeout=60)
if sys.argv[5:] == ["tls"]:
    # Who the server is, other tests look at.
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    peer = context.wrap_socket(peer)
head = b""
peer.sendall(REQUEST)
while not head.endswith(b"\r\n\r\n"):
    head += peer.recv(1)
assert head.startswith(b"HTTP/1.1 101 "), head
for _ in range(rounds):
    peer.sendall(batch)
    echoed = b""
    while len(echoed) < len(echoes):
        part = peer.recv(len(echoes) - len(echoed))
        assert part, "the server has left"
        echoed += part
    assert echoed == echoes, echoed
print("echoed")
