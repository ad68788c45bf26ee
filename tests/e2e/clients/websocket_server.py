"""A WebSocket server that echoes; prints its port. `/close` closes with code 4321 after one message."""

import asyncio

import websockets


async def serve(connection, path=None):
    path = path or getattr(connection, "path", None) or connection.request.path
    try:
        async for message in connection:
            if path.endswith("/close"):
                await connection.close(4321, "as asked")
                return
            await connection.send(message)
    except websockets.ConnectionClosed:
        pass  # however it ended: the client's check tells


async def main():
    server = await websockets.serve(
        serve, "127.0.0.1", 0, max_size=None, ping_interval=None, subprotocols=["chat"]
    )
    print(list(server.sockets)[0].getsockname()[1], flush=True)
    await asyncio.Future()


asyncio.run(main())
