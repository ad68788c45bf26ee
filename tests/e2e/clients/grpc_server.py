"""A gRPC server without generated code; prints its port. With a certificate and a key as arguments it speaks TLS.

/test.Echo/Unary answers with the request and a trailer, /test.Echo/Fail with ABORTED, /test.Echo/Count with as many
messages as the request says, /test.Echo/Chat with each message as it comes, /test.Echo/Metadata with what it received,
/test.Echo/Slow after two seconds.
"""

import json
import sys
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


HANDLERS = {
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
