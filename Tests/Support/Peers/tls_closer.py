"""A TLS server that hangs up on each request. Usage: tls_closer.py CERTIFICATE KEY.

Prints its port, then a line for each connection: `new`, or `resumed` if the client came back with a session of before.
"""

import socket
import ssl
import sys

context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
context.load_cert_chain(sys.argv[1], sys.argv[2])
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
while True:
    connection, _ = listener.accept()
    with context.wrap_socket(connection, server_side=True) as secure:
        secure.recv(4096)
        print("resumed" if secure.session_reused else "new", flush=True)
        # Something to read: tickets come in front of it.
        secure.send(b"HTTP/1.1 503 Later\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n")
