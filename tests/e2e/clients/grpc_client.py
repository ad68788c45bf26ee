"""gRPC checks: `grpc_client.py TARGET CHECK [ROOT_CERTIFICATE NAME]`, TLS if a root certificate is given."""

import sys
import threading

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


with channel() as connected:
    globals()[sys.argv[2]](connected)
print("good")
