"""What callers of gRPC get from the proxy itself."""

from ..case import REFUSES, Case, Close, ReadEnd, ReadRequest, Response, Send, Serve, answer, cluster, http, request, to

UP = {"up": [[Serve()]]}


def call(content_type="application/grpc", *lines):
    data = request("POST", "/service/Method", f"Content-Type: {content_type}", "TE: trailers", *lines,
                   "Content-Length: 5", body=b"\0\0\0\0\0")
    return [Send(data), Response()]


def status(code):
    return Case(f"gRPC, status {code}", http({"match": {"prefix": "/"}, "direct_response": {
        "status": code, "body": {"inline_string": "a %, ü\n b"}}}), [call()])


CASES = [
    Case("gRPC without a route", http(virtual_host={"domains": ["only.example"]}), [call()], UP),
    *(Case(f"gRPC with the type {kind}", http(virtual_host={"domains": ["only.example"]}), [call(kind)], UP) for kind in
      ["application/grpc+proto", "application/grpc;a=b", "application/grpc-web", "application/grpcx",
       "APPLICATION/GRPC", "text/plain, application/grpc"]),
    Case("gRPC without an endpoint", http(to("empty"), clusters=[cluster("empty")]), [call()]),
    Case("gRPC when the connection is refused", http(), [call()], {"up": REFUSES}),
    Case("gRPC when the backend closes", http(), [call()], {"up": [[ReadRequest(), Close()]]}),
    Case("gRPC when the route's time is over", http(to(timeout="0.3s")), [call()], {"up": [[ReadRequest(), ReadEnd()]]}),
    Case("gRPC when the stream is idle", http(hcm={"stream_idle_timeout": "0.4s"}), [call()],
         {"up": [[ReadRequest(), ReadEnd()]]}),
    Case("gRPC and a redirect", http({"match": {"prefix": "/"}, "redirect": {"host_redirect": "h"}}), [call()]),
    Case("gRPC by a HEAD", http(virtual_host={"domains": ["only.example"]}),
         [[Send(request("HEAD", "/", "Content-Type: application/grpc")), Response(head_only=True)]], UP),
    *(status(code) for code in [200, 204, 400, 401, 403, 404, 408, 413, 429, 431, 499, 500, 501, 502, 503, 504]),
    Case("gRPC answers of the backend", http(), [call()], {"up": [[Serve(answer(
        "200 OK", "Content-Type: application/grpc", "grpc-status: 5", "grpc-message: none", body=b""))]]}),
    Case("gRPC and a plain 503 of the backend", http(), [call()],
         {"up": [[Serve(answer("503 Service Unavailable", "Content-Type: text/plain", body=b"no"))]]}),
    Case("gRPC with a timeout of its own", http(to(timeout="5s", max_stream_duration={"grpc_timeout_header_max": "0s"})),
         [call("application/grpc", "grpc-timeout: 300m")], {"up": [[ReadRequest(), ReadEnd()]]}),
    Case("gRPC with a timeout the route does not read", http(to(timeout="0.4s")),
         [call("application/grpc", "grpc-timeout: 100m")], {"up": [[ReadRequest(), ReadEnd()]]}),
    Case("gRPC with a bad request", http(),
         [[Send(b"POST / HTTP/1.1\r\nHost: x\r\nHost: y\r\nContent-Type: application/grpc\r\n\r\n"), ReadEnd()]], UP),
    Case("gRPC retries", http(to(retry_policy={"retry_on": "unavailable", "num_retries": 1})), [call()],
         {"up": [[ReadRequest(), Send(answer("200 OK", "Content-Type: application/grpc", "grpc-status: 14", body=b"")),
                  ReadEnd()], [Serve()]]}),
]
