"""A gRPC server without generated code; prints its port. With a certificate and a key as arguments it speaks TLS.

/test.Echo/Unary answers with the request and a trailer, /test.Echo/Fail with ABORTED, /test.Echo/Count with as many
messages as the request says, /test.Echo/Chat with each message as it comes, /test.Echo/Metadata with what it received,
/test.Echo/Slow after two seconds, /test.Echo/Binary with the bytes of x-echo-bin in head and trailers, /test.Echo/Status
with the code and message asked for, /test.Echo/Deadline with the seconds left, /test.Echo/Sum with the lengths of all
messages, /test.Echo/Flood with as many messages of 64 KiB, of which /test.Echo/Flooded tells the number so far.

/test.Echo/Wait and /test.Echo/WaitStream say "waiting", and "cancelled" when their client gives up.
"""

import json
import sys
import threading
import time
from concurrent import futures

import grpc


def unary(request, context):
    context.send_initial_metadata((("x-initial", "yes"),))
    context.set_trailing_metadata((("x-trailer", "yes"),))
    return request


def fail(request, context):
    context.abort(grpc.StatusCode.ABORTED, "as asked: 100%")


def count(request, context):
    for number in range(int(request)):
        yield str(number).encode()


def chat(requests, context):
    for request in requests:
        yield b"re: " + request


def metadata(request, context):
    return json.dumps({key: str(value) for key, value in context.invocation_metadata()}).encode()


def slow(request, context):
    time.sleep(2)
    return request


def binary(request, context):
    value = dict(context.invocation_metadata())["x-echo-bin"]
    context.send_initial_metadata((("x-head-bin", value),))
    context.set_trailing_metadata((("x-tail-bin", value[::-1]),))
    return value


def status(request, context):
    asked = json.loads(request)
    code = next(code for code in grpc.StatusCode if code.value[0] == asked["code"])
    context.abort(code, asked["message"])


def deadline(request, context):
    return str(context.time_remaining()).encode()


def total(requests, context):
    return str([len(request) for request in requests]).encode()


flooded = 0


def flood(request, context):
    global flooded
    flooded = 0
    for _ in range(int(request)):
        flooded += 1
        yield b"x" * 65536


def count_flooded(request, context):
    return str(flooded).encode()


def wait(context):
    ended = threading.Event()
    context.add_callback(ended.set)
    print("waiting", flush=True)
    print("cancelled" if ended.wait(60) else "nobody gave up", flush=True)


def wait_once(request, context):
    context.send_initial_metadata((("x-initial", "yes"),))
    wait(context)
    return b""


def wait_stream(requests, context):
    yield b"first"
    wait(context)


HANDLERS = {
    "Binary": grpc.unary_unary_rpc_method_handler(binary),
    "Status": grpc.unary_unary_rpc_method_handler(status),
    "Deadline": grpc.unary_unary_rpc_method_handler(deadline),
    "Sum": grpc.stream_unary_rpc_method_handler(total),
    "Flood": grpc.unary_stream_rpc_method_handler(flood),
    "Flooded": grpc.unary_unary_rpc_method_handler(count_flooded),
    "Wait": grpc.unary_unary_rpc_method_handler(wait_once),
    "WaitStream": grpc.stream_stream_rpc_method_handler(wait_stream),
    "Unary": grpc.unary_unary_rpc_method_handler(unary),
    "Fail": grpc.unary_unary_rpc_method_handler(fail),
    "Count": grpc.unary_stream_rpc_method_handler(count),
    "Chat": grpc.stream_stream_rpc_method_handler(chat),
    "Metadata": grpc.unary_unary_rpc_method_handler(metadata),
    "Slow": grpc.unary_unary_rpc_method_handler(slow),
}

server = grpc.server(
    futures.ThreadPoolExecutor(16),
    options=[("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)],
)
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", HANDLERS),))
if len(sys.argv) > 2:
    certificate, key = (open(path, "rb").read() for path in sys.argv[1:3])
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, certificate)]))
else:
    port = server.add_insecure_port("127.0.0.1:0")
print(port, flush=True)
server.start()
server.wait_for_termination()
