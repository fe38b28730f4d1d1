"""A TLS client that leaves its connection in a state and stays. Usage: tls_states.py PORT STATE

Prints `made` when the state is there.
"""

import signal
import socket
import ssl
import sys

REQUEST = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"


class Client:
    """TLS by hand: what is sent, and what is not read, is the caller's choice."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self.tls = context.wrap_bio(self.incoming, self.outgoing)

    def hello(self):
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            return self.outgoing.read()

    def shake_hands(self):
        while True:
            try:
                self.tls.do_handshake()
                return self.flush()
            except ssl.SSLWantReadError:
                self.flush()
                self.incoming.write(self.socket.recv(65536))

    def flush(self):
        self.socket.sendall(self.outgoing.read())

    def send(self, data):
        self.tls.write(data)
        self.flush()

    def say_goodbye(self):
        try:
            self.tls.unwrap()
        except (ssl.SSLWantReadError, ssl.SSLError):
            pass
        self.flush()

    def half_close(self):
        self.socket.shutdown(socket.SHUT_WR)


def half_a_hello(client):
    client.socket.sendall(client.hello()[:50])
    client.half_close()


def goodbye(client):
    client.shake_hands()
    client.say_goodbye()


def goodbye_half_closed(client):
    goodbye(client)
    client.half_close()


def half_closed(client):
    client.shake_hands()
    client.half_close()


def half_a_record(client):
    client.shake_hands()
    client.tls.write(REQUEST)
    client.socket.sendall(client.outgoing.read()[:20])
    client.half_close()


def answers_unread(client):
    client.shake_hands()
    client.socket.settimeout(0.3)
    try:
        while True:
            client.send(REQUEST * 100)
    except TimeoutError:
        pass


def answers_unread_half_closed(client):
    answers_unread(client)
    client.half_close()


def answers_unread_goodbye(client):
    client.shake_hands()
    client.send(REQUEST * 200)
    client.say_goodbye()
    client.half_close()


STATES = {
    "half a hello, half-closed": half_a_hello,
    "close_notify": goodbye,
    "close_notify, half-closed": goodbye_half_closed,
    "no close_notify, half-closed": half_closed,
    "half a record, half-closed": half_a_record,
    "answers unread": answers_unread,
    "answers unread, half-closed": answers_unread_half_closed,
    "answers unread, close_notify behind them, half-closed": answers_unread_goodbye,
}

client = Client(int(sys.argv[1]))
STATES[sys.argv[2]](client)
print("made", flush=True)
signal.pause()
