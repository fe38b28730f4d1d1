"""Echo servers of python websockets, one for each combination of permessage-deflate parameters. Prints their ports in one line and
serves until it is killed."""

import itertools
import threading

from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.sync.server import serve


def echo(peer):
    assert [extension.name for extension in peer.protocol.extensions] == ["permessage-deflate"]
    for message in peer:
        peer.send(message)


def main():
    servers = [
        serve(
            echo, "127.0.0.1", 0, compression=None, max_size=None, extensions=[ServerPerMessageDeflateFactory(
                server_no_context_takeover=server_alone, client_no_context_takeover=client_alone,
                server_max_window_bits=server_bits, client_max_window_bits=client_bits)])
        for server_alone, client_alone, server_bits, client_bits
        in itertools.product([False, True], [False, True], [None, 9], [None, 12])]
    print(*(server.socket.getsockname()[1] for server in servers), flush=True)
    threads = [threading.Thread(target=server.serve_forever) for server in servers]
    for thread in threads:
        thread.start()


main()
