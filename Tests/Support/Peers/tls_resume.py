"""Resumes a session ROUNDS times with a request each, half of the times with Nagle's algorithm. Prints how often it was resumed, how many
sessions it was given, and how long it took with the algorithm at best, as a multiple of the time without.

Usage: tls_resume.py PORT TLSv1_2|TLSv1_3 ROUNDS
"""

import socket
import ssl
import sys
import time

port, version, rounds = int(sys.argv[1]), ssl.TLSVersion[sys.argv[2]], int(sys.argv[3])
# Who the server is, other tests look at.
context = ssl.create_default_context()
context.check_hostname = False
context.verify_mode = ssl.CERT_NONE
context.minimum_version = context.maximum_version = version
session = None


def ask(without_delay):
    global session
    began = time.monotonic()
    plain = socket.create_connection(("127.0.0.1", port), timeout=30)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, without_delay)
    with context.wrap_socket(plain, session=session) as peer:
        # The last flight of the handshake has just been sent: this is what the algorithm holds back.
        peer.sendall(b"GET /worker HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        assert peer.recv(4096).startswith(b"HTTP/1.1 200 OK")
        session = peer.session
        return time.monotonic() - began, peer.session_reused, session.id


ask(True)
asked = [(index % 2 == 0, *ask(index % 2 == 0)) for index in range(rounds)]
best = {way: min(time for without_delay, time, _, _ in asked if without_delay == way) for way in (True, False)}
print(sum(reused for _, _, reused, _ in asked), len({identity for _, _, _, identity in asked}), best[False] / best[True])
