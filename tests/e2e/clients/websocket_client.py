"""WebSocket checks against the URL given: text, binary, large and many messages, ping, close codes."""

import asyncio
import os
import ssl
import sys

import websockets


async def main(base):
    options = {"max_size": None, "ping_interval": None}
    if base.startswith("wss"):
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        options["ssl"] = context
    async with websockets.connect(base + "/echo", subprotocols=["chat"], **options) as socket:
        assert socket.subprotocol == "chat", socket.subprotocol
        for message in ["", "text", "ümlaut", b"", b"\x00\xff", "x" * 200_000, os.urandom(1_000_000)]:
            await socket.send(message)
            assert await socket.recv() == message, len(message)
        for number in range(200):
            await socket.send(str(number))
        for number in range(200):
            assert await socket.recv() == str(number)
        await asyncio.wait_for(await socket.ping(), 10)
    async with websockets.connect(base + "/close", subprotocols=["chat"], **options) as socket:
        await socket.send("now")
        try:
            await socket.recv()
            raise AssertionError("still open")
        except websockets.ConnectionClosed as closed:
            code = closed.rcvd.code if closed.rcvd else None
            assert code == 4321, code
    print("good")


asyncio.run(asyncio.wait_for(main(sys.argv[1]), 60))
