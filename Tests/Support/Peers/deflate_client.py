"""Echoes with every combination of python websockets' permessage-deflate parameters. Usage: deflate_client.py PORT ...

Prints how many connections went well; ends with 1 at the first that does not.
"""

import itertools
import random
import sys

from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.sync.client import connect

random.seed(7692)
MESSAGES = [
    "", "x", "Grüße, 世界 🐦", "a" * 126, "The same again and again. " * 40, "The same again and again. " * 40,
    b"", random.randbytes(1000), random.randbytes(70_000), bytes(300_000), ["in ", "pieces ", "", "of text " * 100]]


def main():
    count = 0
    combinations = list(itertools.product([False, True], [False, True], [None, 9, 12, 15], [None, True, 9, 15]))
    for port in sys.argv[1:]:
        for server_alone, client_alone, server_bits, client_bits in combinations:
            factory = ClientPerMessageDeflateFactory(
                server_no_context_takeover=server_alone, client_no_context_takeover=client_alone,
                server_max_window_bits=server_bits, client_max_window_bits=client_bits)
            case = (port, server_alone, client_alone, server_bits, client_bits)
            with connect(f"ws://127.0.0.1:{port}", compression=None, extensions=[factory], max_size=None) as peer:
                names = [extension.name for extension in peer.protocol.extensions]
                assert names == ["permessage-deflate"], (case, names)
                for message in MESSAGES:
                    peer.send(message)
                    expected = "".join(message) if isinstance(message, list) else message
                    assert peer.recv(timeout=10) == expected, (case, len(message))
            assert peer.close_code == 1000, (case, peer.close_code)
            count += 1
    print(f"{count} connections went well")


main()
