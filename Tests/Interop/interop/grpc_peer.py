#!/usr/bin/python3
"""gRPC with bytes as messages, without generated code, as two programs with PyPI's grpcio.

    grpc_peer.py server PORT                                  h2c on loopback
    grpc_peer.py client CALL ADDRESS:PORT AUTHORITY DOMAIN    CALL: unary, stream, error, deadline, both

A client prints one JSON object of what it saw.
"""

import json
import sys
import threading
import time
from concurrent import futures

import grpc

MESSAGES = 10_000


def same(message):
    return message


def unary(request, context):
    """The client's metadata come back, as fields and as trailers."""
    sent = dict(context.invocation_metadata())
    context.send_initial_metadata((("x-initial", sent.get("x-sent", "")),))
    context.set_trailing_metadata((("x-final", sent.get("x-sent", "")), ("x-final-bin", b"\0\1\2")))
    return request[::-1]


def stream(request, context):
    for index in range(int(request)):
        yield b"%d" % index


def error(request, context):
    context.abort(grpc.StatusCode.NOT_FOUND, "no such thing: \u00e4")


def deadline(request, context):
    ended = threading.Event()
    context.add_callback(ended.set)
    ended.wait(30)
    DEADLINES.append(time.monotonic())
    return b""


def both(requests, context):
    for request in requests:
        yield request


DEADLINES = []


def cancelled(request, context):
    return b"%d" % len(DEADLINES)


class Service(grpc.GenericRpcHandler):
    def service(self, details):
        single, many, duplex = grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler, grpc.stream_stream_rpc_method_handler
        kinds = {
            "/test/unary": single(unary), "/test/stream": many(stream), "/test/error": single(error), "/test/deadline": single(deadline),
            "/test/both": duplex(both), "/test/cancelled": single(cancelled)}
        return kinds.get(details.method)


def serve(port):
    server = grpc.server(futures.ThreadPoolExecutor(16), handlers=(Service(),), options=[("grpc.so_reuseport", 0)])
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    server.wait_for_termination()


def call(kind, address, authority, domain):
    if authority == "-":
        channel = grpc.insecure_channel(address)
    else:
        with open(authority, "rb") as file:
            credentials = grpc.ssl_channel_credentials(file.read())
        channel = grpc.secure_channel(address, credentials, [("grpc.ssl_target_name_override", domain), ("grpc.default_authority", domain)])
    result = {}
    try:
        if kind == "unary":
            message = bytes(range(256)) * 4000
            answer, details = channel.unary_unary("/test/unary").with_call(message, timeout=20, metadata=(("x-sent", "value"),))
            result["right"] = answer == message[::-1]
            result["initial"] = dict(details.initial_metadata()).get("x-initial")
            final = dict(details.trailing_metadata())
            result["final"], result["binary"] = final.get("x-final"), list(final.get("x-final-bin", b""))
            result["code"] = details.code().name
        elif kind == "stream":
            result["messages"] = [int(message) for message in channel.unary_stream("/test/stream")(b"1000", timeout=20)] == list(range(1000))
        elif kind == "error":
            channel.unary_unary("/test/error")(b"", timeout=20)
        elif kind == "deadline":
            start = time.monotonic()
            try:
                channel.unary_unary("/test/deadline")(b"", timeout=1)
            finally:
                result["seconds"] = time.monotonic() - start
                count, until = b"0", time.monotonic() + 5
                while count == b"0" and time.monotonic() < until:
                    count = channel.unary_unary("/test/cancelled")(b"", timeout=5)
                result["cancelled"] = int(count)
        elif kind == "both":
            texts = [b"%d" % index * (1 + index % 50) for index in range(MESSAGES)]
            result["messages"] = list(channel.stream_stream("/test/both")(iter(texts), timeout=60)) == texts
            # One by one: each message has to arrive before the next is sent.
            turns, received = threading.Semaphore(1), 0

            def ask():
                for index in range(200):
                    turns.acquire()
                    yield b"%d" % index

            for message in channel.stream_stream("/test/both")(ask(), timeout=30):
                result["in turn"] = received = received + 1 if message == b"%d" % received else -1000
                turns.release()
    except grpc.RpcError as problem:
        result["code"], result["details"] = problem.code().name, problem.details()
    channel.close()
    print(json.dumps(result))


if __name__ == "__main__":
    if sys.argv[1] == "server":
        serve(int(sys.argv[2]))
    else:
        call(*sys.argv[2:])
