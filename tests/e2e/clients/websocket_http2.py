"""A WebSocket over HTTP/2 (RFC 8441): `websocket_http2.py HOST PORT PATH`, over TLS."""

import os
import socket
import ssl
import struct
import sys

import h2.config
import h2.connection
import h2.events
import h2.settings

HOST, PORT, PATH = sys.argv[1], int(sys.argv[2]), sys.argv[3]
context = ssl.create_default_context()
context.check_hostname = False
context.verify_mode = ssl.CERT_NONE
context.set_alpn_protocols(["h2"])
tls = context.wrap_socket(socket.create_connection((HOST, PORT), 20), server_hostname="a.test")
assert tls.selected_alpn_protocol() == "h2"
connection = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
connection.initiate_connection()
tls.sendall(connection.data_to_send())
received, answers, ended = {}, {}, set()


def pump(until):
    while not until():
        data = tls.recv(65536)
        assert data, "connection closed"
        for event in connection.receive_data(data):
            if isinstance(event, h2.events.ResponseReceived):
                answers[event.stream_id] = dict(event.headers)
            elif isinstance(event, h2.events.DataReceived):
                received[event.stream_id] = received.get(event.stream_id, b"") + event.data
                connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, (h2.events.StreamEnded, h2.events.StreamReset)):
                ended.add(event.stream_id)
        tls.sendall(connection.data_to_send())


def send(stream, data):
    while data:
        room = min(connection.local_flow_control_window(stream), connection.max_outbound_frame_size)
        if room == 0:
            pump(lambda: connection.local_flow_control_window(stream) > 0)
            continue
        connection.send_data(stream, data[:room])
        tls.sendall(connection.data_to_send())
        data = data[room:]


def frame(first, payload):
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", first, 0x80 | size)
    elif size < 65536:
        head = struct.pack("!BBH", first, 0xFE, size)
    else:
        head = struct.pack("!BBQ", first, 0xFF, size)
    mask = os.urandom(4)
    pad = mask * (size // 4 + 1)
    return head + mask + bytes(a ^ b for a, b in zip(payload, pad))


def take(stream):
    """The next frame from the server."""

    def whole():
        data = received.get(stream, b"")
        if len(data) < 2:
            return None
        size, start = data[1], 2
        if size == 126:
            if len(data) < 4:
                return None
            (size,), start = struct.unpack("!H", data[2:4]), 4
        elif size == 127:
            if len(data) < 10:
                return None
            (size,), start = struct.unpack("!Q", data[2:10]), 10
        return (start, start + size) if len(data) >= start + size else None

    pump(lambda: whole() is not None)
    start, end = whole()
    data = received[stream]
    received[stream] = data[end:]
    return data[0], data[start:end]


def open_socket(path, protocol="websocket"):
    stream = connection.get_next_available_stream_id()
    connection.send_headers(
        stream,
        [
            (":method", "CONNECT"),
            (":protocol", protocol),
            (":scheme", "https"),
            (":path", path),
            (":authority", "a.test"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-protocol", "chat"),
        ],
    )
    tls.sendall(connection.data_to_send())
    pump(lambda: stream in answers or stream in ended)
    return stream


enabled = h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL
pump(lambda: connection.remote_settings.get(enabled) == 1)
first, second = open_socket(PATH), open_socket(PATH)
for stream in (first, second):
    answer = answers[stream]
    assert answer[":status"] == "200", answer
    assert answer["sec-websocket-protocol"] == "chat", answer
    assert "upgrade" not in answer and "sec-websocket-accept" not in answer, answer
for size in (0, 5, 70_000, 500_000):
    for stream in (first, second):
        payload = os.urandom(size)
        send(stream, frame(0x82, payload))
        assert take(stream) == (0x82, payload), size
send(first, frame(0x88, struct.pack("!H", 4100)))
assert take(first) == (0x88, struct.pack("!H", 4100))
send(second, frame(0x81, b"still here"))
assert take(second) == (0x81, b"still here")
refused = open_socket(PATH, protocol="x-other")
assert answers[refused][":status"] == "405", answers[refused]
missing = open_socket("/nowhere")
assert answers[missing][":status"] == "404", answers[missing]
print("good")
