"""WebSocket checks with frames as they stand on the wire: `websocket_frames.py HOST PORT PATH CHECK`.

Each check prints the close code with which the gateway ended the tunnel, or `good`."""

import asyncio
import base64
import os
import socket
import struct
import sys
import zlib

import websockets

HOST, PORT, PATH, CHECK = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]


def frame(first, payload, masked=True, length=None):
    """A frame with its first byte given; `length` overrides the one announced."""
    size = len(payload) if length is None else length
    bit = 0x80 if masked else 0
    if size < 126:
        head = struct.pack("!BB", first, bit | size)
    elif size < 65536:
        head = struct.pack("!BBH", first, bit | 126, size)
    else:
        head = struct.pack("!BBQ", first, bit | 127, size)
    if not masked:
        return head + payload
    mask = os.urandom(4)
    return head + mask + bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))


class Raw:
    """A client that says what it likes."""

    def __init__(self, extensions="", behind=b""):
        self.socket = socket.create_connection((HOST, PORT), 20)
        key = base64.b64encode(os.urandom(16)).decode()
        offer = f"Sec-WebSocket-Extensions: {extensions}\r\n" if extensions else ""
        self.socket.sendall(
            f"GET {PATH} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            f"Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
            f"{offer}\r\n".encode()
            + behind
        )
        self.unread = b""
        while b"\r\n\r\n" not in self.unread:
            self.more()
        head, self.unread = self.unread.split(b"\r\n\r\n", 1)
        self.head = head.decode().lower()
        assert self.head.startswith("http/1.1 101"), self.head

    def more(self):
        data = self.socket.recv(65536)
        if not data:
            raise EOFError
        self.unread += data

    def take(self, count):
        while len(self.unread) < count:
            self.more()
        taken, self.unread = self.unread[:count], self.unread[count:]
        return taken

    def read(self):
        first, second = self.take(2)
        assert second < 128, "frames of servers are not masked"
        size = second
        if size == 126:
            (size,) = struct.unpack("!H", self.take(2))
        elif size == 127:
            (size,) = struct.unpack("!Q", self.take(8))
        return first, self.take(size)

    def send(self, data):
        self.socket.sendall(data)

    def close_code(self):
        """The code of the close frame that must come, and then the end of the connection."""
        while True:
            first, payload = self.read()
            if first == 0x88:
                break
        try:
            self.more()
            raise AssertionError("something behind the close")
        except EOFError:
            return struct.unpack("!H", payload[:2])[0] if payload else 1005


def compress(plain, level=9):
    squeeze = zlib.compressobj(level, zlib.DEFLATED, -15)
    return (squeeze.compress(plain) + squeeze.flush(zlib.Z_SYNC_FLUSH))[:-4]


BROKEN = {
    "opcode": frame(0x83, b"x"),
    "reserved": frame(0xB1, b"x"),
    "compressed": frame(0xC1, b"x"),
    "unmasked": frame(0x81, b"x", masked=False),
    "long_control": frame(0x89, b"x" * 126),
    "fragmented_control": frame(0x09, b"x"),
    "continuation": frame(0x80, b"x"),
    "interleaved": frame(0x01, b"x") + frame(0x81, b"y"),
    "utf8": frame(0x81, b"\xc3\x28"),
    "close_code": frame(0x88, struct.pack("!H", 1005)),
    "huge": frame(0x82, b"", length=1 << 40),
    "over_limit": frame(0x82, b"x" * ((1 << 20) + 1)),
    "over_limit_in_pieces": frame(0x02, b"x" * (1 << 20)) + frame(0x80, b"x"),
}


def broken():
    raw = Raw()
    raw.send(frame(0x81, b"first"))
    assert raw.read() == (0x81, b"first")
    raw.send(BROKEN[sys.argv[5]])
    print(raw.close_code())


def behind():
    """Frames in one write with the handshake."""
    raw = Raw(behind=frame(0x81, b"early") + frame(0x82, b"bird"))
    assert raw.read() == (0x81, b"early")
    assert raw.read() == (0x82, b"bird")
    print("good")


def fragments():
    raw = Raw()
    raw.send(frame(0x01, "grö".encode()[:3]))
    raw.send(frame(0x89, b"in between"))
    assert raw.read() == (0x8A, b"in between")
    raw.send(frame(0x00, "grö".encode()[3:]))
    raw.send(frame(0x80, "ßer".encode()))
    assert raw.read() == (0x81, "größer".encode())
    raw.send(frame(0x88, struct.pack("!H", 3456) + b"bye"))
    print(raw.close_code())


def deflate_opened():
    """Each message stands for itself, and is judged by what is in it."""
    raw = Raw(extensions="x-unknown, permessage-deflate; client_max_window_bits")
    extensions = [line for line in raw.head.splitlines() if line.startswith("sec-websocket-extensions:")]
    assert len(extensions) == 1, raw.head
    for word in ("permessage-deflate", "server_no_context_takeover", "client_no_context_takeover"):
        assert word in extensions[0], extensions
    for _ in range(2):
        raw.send(frame(0xC1, compress(b'{"id": 1}')))
        first, payload = raw.read()
        assert first == 0xC1, first
        assert zlib.decompressobj(-15).decompress(payload + b"\0\0\xff\xff") == b'{"id": 1}', payload
    raw.send(frame(0xC1, compress(sys.argv[5].encode() if len(sys.argv) > 5 else b'{"no": 1}')))
    print(raw.close_code())


def bomb():
    raw = Raw(extensions="permessage-deflate")
    raw.send(frame(0xC2, compress(bytes(200 << 20))))
    print(raw.close_code())


def silent():
    """Waits for the gateway to end the tunnel."""
    raw = Raw()
    print("open", flush=True)
    print(raw.close_code())


async def echo_all():
    uri = f"ws://{HOST}:{PORT}{PATH}"
    options = {"max_size": None, "ping_interval": None, "subprotocols": ["chat"]}
    for compression in (None, "deflate"):
        async with websockets.connect(uri, compression=compression, **options) as peer:
            for message in ["", "ümlaut", b"\x00\xff", "word " * 40_000, os.urandom(900_000)]:
                await peer.send(message)
                assert await peer.recv() == message, len(message)
            await peer.send(["frag", "men", "ted"])
            assert await peer.recv() == "fragmented"
            for number in range(300):
                await peer.send(str(number))
            for number in range(300):
                assert await peer.recv() == str(number)
            await asyncio.wait_for(await peer.ping(), 10)
            await peer.close(4001, "enough")
    print("good")


if CHECK == "echo":
    asyncio.run(asyncio.wait_for(echo_all(), 60))
else:
    globals()[CHECK]()
