"""gRPC checks: `grpc_client.py TARGET CHECK [ROOT_CERTIFICATE NAME]`, TLS if a root certificate is given."""

import itertools
import json
import os
import sys
import threading
import time

import grpc

LIMITS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


def channel():
    target = sys.argv[1]
    if len(sys.argv) > 3:
        with open(sys.argv[3], "rb") as file:
            credentials = grpc.ssl_channel_credentials(file.read())
        return grpc.secure_channel(target, credentials, LIMITS + [("grpc.ssl_target_name_override", sys.argv[4])])
    return grpc.insecure_channel(target, LIMITS)


def status_of(call):
    try:
        call()
    except grpc.RpcError as error:
        return error
    raise AssertionError("no error")


def unary(channel):
    call = channel.unary_unary("/test.Echo/Unary")
    for size in (0, 1, 1000, 100_000, 3_000_000):
        answer, info = call.with_call(b"x" * size, timeout=20)
        assert answer == b"x" * size, size
        assert dict(info.trailing_metadata()).get("x-trailer") == "yes", info.trailing_metadata()
        assert dict(info.initial_metadata()).get("x-initial") == "yes", info.initial_metadata()
    errors = []

    def work():
        try:
            for _ in range(20):
                assert call(b"p", timeout=20) == b"p"
        except Exception as error:  # reported below
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, errors


def streams(channel):
    numbers = list(channel.unary_stream("/test.Echo/Count")(b"500", timeout=20))
    assert numbers == [str(number).encode() for number in range(500)], len(numbers)
    # Each message is answered before the next is sent: nothing may wait for the end.
    answered = threading.Semaphore(1)

    def messages():
        for number in range(20):
            assert answered.acquire(timeout=10), "the answer is held back"
            yield str(number).encode()

    for number, answer in enumerate(channel.stream_stream("/test.Echo/Chat")(messages(), timeout=20)):
        assert answer == b"re: " + str(number).encode(), answer
        answered.release()


def errors(channel):
    error = status_of(lambda: channel.unary_unary("/test.Echo/Fail")(b"x", timeout=20))
    assert error.code() == grpc.StatusCode.ABORTED, error
    assert error.details() == "as asked: 100%", error
    error = status_of(lambda: channel.unary_unary("/test.Echo/Missing")(b"x", timeout=20))
    assert error.code() == grpc.StatusCode.UNIMPLEMENTED, error
    error = status_of(lambda: channel.unary_unary("/test.Echo/Slow")(b"x", timeout=0.3))
    assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error


def no_route(channel):
    error = status_of(lambda: channel.unary_unary("/other.Service/Method")(b"x", timeout=20))
    assert error.code() in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNIMPLEMENTED), error
    print(error.code().name, error.details())


def one_error(channel):
    error = status_of(lambda: channel.unary_unary("/test.Echo/Unary")(b"x", timeout=20))
    print(error.code().name, error.details())


def metadata(channel):
    call = channel.unary_unary("/test.Echo/Metadata")
    print(call(b"", timeout=20, metadata=(("x-mine", "1"),)).decode())


def binary(channel):
    call = channel.unary_unary("/test.Echo/Binary")
    for value in (b"", b"\x00", bytes(range(256)), b"\xff" * 3000):
        answer, info = call.with_call(b"", timeout=20, metadata=(("x-echo-bin", value),))
        assert answer == value, (answer, value)
        assert dict(info.initial_metadata())["x-head-bin"] == value, info.initial_metadata()
        assert dict(info.trailing_metadata())["x-tail-bin"] == value[::-1], info.trailing_metadata()


def interop(channel):
    unary = channel.unary_unary("/test.Echo/Unary")
    assert unary(b"", timeout=20) == b""
    large = os.urandom(314_159)
    assert unary(large, timeout=20) == large
    sizes = [27182, 8, 1828, 45904, 0]
    total = channel.stream_unary("/test.Echo/Sum")
    assert total((b"x" * size for size in sizes), timeout=20) == str(sizes).encode()
    assert total(iter(()), timeout=20) == b"[]"
    chat = channel.stream_stream("/test.Echo/Chat")
    assert list(chat(iter(()), timeout=20)) == []
    assert list(channel.unary_stream("/test.Echo/Count")(b"0", timeout=20)) == []
    status = channel.unary_unary("/test.Echo/Status")
    special = "\t\ntest with whitespace\r\nand Unicode BMP \u263a and non-BMP \U0001f608\t\n"
    for code in grpc.StatusCode:
        if code is grpc.StatusCode.OK:
            continue
        asked = json.dumps({"code": code.value[0], "message": special}).encode()
        error = status_of(lambda: status(asked, timeout=20))
        assert (error.code(), error.details()) == (code, special), error
    for path in ("/test.Echo/Missing", "/test.Echo/"):
        error = status_of(lambda: channel.unary_unary(path)(b"", timeout=20))
        assert error.code() == grpc.StatusCode.UNIMPLEMENTED, error


def deadlines(channel):
    left = float(channel.unary_unary("/test.Echo/Deadline")(b"", timeout=30))
    assert 0 < left <= 30, left
    error = status_of(lambda: channel.unary_unary("/test.Echo/Wait")(b"", timeout=0.5))
    assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error


def cancel_unary(channel):
    call = channel.unary_unary("/test.Echo/Wait").future(b"", timeout=60)
    sys.stdin.readline()
    call.cancel()
    assert call.code() == grpc.StatusCode.CANCELLED, call


def cancel_stream(channel):
    def endless():
        yield b"x"
        threading.Event().wait(60)

    call = channel.stream_stream("/test.Echo/WaitStream")(endless(), timeout=60)
    assert next(call) == b"first"
    sys.stdin.readline()
    call.cancel()
    error = status_of(lambda: next(call))
    assert error.code() == grpc.StatusCode.CANCELLED, error


def slow_reader(channel):
    messages = 4096
    call = channel.unary_stream("/test.Echo/Flood")(str(messages).encode(), timeout=120)
    assert len(next(call)) == 65536
    flooded = channel.unary_unary("/test.Echo/Flooded")
    # Nothing is taken: what is on its way fills up, then the server has to wait.
    number, same = 0, 0
    for _ in itertools.count():
        now = int(flooded(b"", timeout=20))
        same = same + 1 if now == number else 0
        number = now
        if same == 50 or number == messages:
            break
        time.sleep(0.01)
    print(number, flush=True)
    sys.stdin.readline()
    rest = sum(1 for _ in call)
    assert rest == messages - 1, rest


with channel() as connected:
    globals()[sys.argv[2]](connected)
print("good")
