"""The service of library.proto, with code made from it; prints its port. Its argument is the folder with google/api.

Shelves are made up: names ending in "missing" are not found.
"""

import pathlib
import sys
import tempfile
from concurrent import futures

import grpc
from grpc_tools import protoc
import grpc_tools

here = pathlib.Path(__file__).parent
made = tempfile.TemporaryDirectory()
own = pathlib.Path(grpc_tools.__file__).parent / "_proto"
arguments = ["protoc", f"-I{here}", f"-I{sys.argv[1]}", f"-I{own}", f"--python_out={made.name}"]
arguments += [f"--grpc_python_out={made.name}", "library.proto"]
options = ["google/api/http.proto", "google/api/annotations.proto"]
assert protoc.main(arguments + options) == 0
sys.path.insert(0, made.name)
# The generated modules under "google" stand beside those of the protobuf package.
import google  # noqa: E402

google.__path__.append(f"{made.name}/google")

import library_pb2 as messages  # noqa: E402
import library_pb2_grpc as services  # noqa: E402
from google.protobuf import empty_pb2  # noqa: E402


class Library(services.LibraryServicer):
    def GetShelf(self, request, context):
        if request.name.endswith("missing"):
            context.abort(grpc.StatusCode.NOT_FOUND, "no shelf like that: 100% sure, ä")
        shelf = messages.Shelf(name=request.name, theme="full" if request.view.full else "", places=2**60)
        shelf.tags.extend(request.view.fields)
        shelf.made.seconds = 1_700_000_000
        context.send_initial_metadata((("x-initial", "yes"),))
        return shelf

    GetTags = GetShelf

    def CreateShelf(self, request, context):
        request.shelf.theme += f" ({request.request_id})"
        return request.shelf

    def UpdateShelf(self, request, context):
        return request

    def DeleteShelf(self, request, context):
        return empty_pb2.Empty()

    def ListBooks(self, request, context):
        for number in range(request.count):
            if request.fail_after and number == request.fail_after:
                context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "no more")
            yield messages.Book(title=f"{request.parent} {number}", number=number)

    def AddBooks(self, requests, context):
        reply = messages.AddBooksReply()
        for request in requests:
            reply.count += request.book.number
            reply.last_shelf = request.shelf
        return reply

    def Fail(self, request, context):
        if request.late:
            context.send_initial_metadata((("x-initial", "yes"),))
        code = next(code for code in grpc.StatusCode if code.value[0] == request.code)
        context.abort(code, request.message)

    def Metadata(self, request, context):
        return messages.Seen(metadata={key: str(value) for key, value in context.invocation_metadata()})


server = grpc.server(futures.ThreadPoolExecutor(16))
services.add_LibraryServicer_to_server(Library(), server)
port = server.add_insecure_port("127.0.0.1:0")
print(port, flush=True)
server.start()
server.wait_for_termination()
