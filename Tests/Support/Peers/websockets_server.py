"""A server by the websockets package for `apus connect`: echoes, closes as told, refuses. 
Usage: websockets_server.py [tornado | CERTIFICATE KEY].

Prints its port. A message `close CODE` closes with that code; a path of /deny is answered 403; /slow never answers; on
/mute nothing is echoed.
"""

import asyncio
import http
import ssl
import sys

from websockets.asyncio.server import serve
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory


class Forgetful(ServerPerMessageDeflateFactory):
    """Loses the parameters without a value, as Tornado does."""

    def process_request_params(self, params, accepted_extensions):
        return super().process_request_params([pair for pair in params if pair[1] is not None], accepted_extensions)


async def handle(connection):
    async for message in connection:
        if connection.request.path == "/mute":
            continue
        if isinstance(message, str) and message.startswith("close "):
            await connection.close(int(message.split()[1]), "as told")
            return
        await connection.send(message)


async def process(connection, request):
    if request.path == "/deny":
        return connection.respond(http.HTTPStatus.FORBIDDEN, "no")
    if request.path == "/slow":
        await asyncio.Event().wait()
    return None


def choose(connection, offered):
    """The first that is known; none if none is asked for."""
    return next((name for name in offered if name in ("first", "second")), None)


async def main():
    context = None
    if len(sys.argv) > 2:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(sys.argv[1], sys.argv[2])
    extensions = [Forgetful()] if "tornado" in sys.argv else None
    options = {"extensions": extensions, "select_subprotocol": choose, "process_request": process, "ssl": context, "max_size": None}
    async with serve(handle, "127.0.0.1", 0, **options) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.get_running_loop().create_future()


asyncio.run(main())
