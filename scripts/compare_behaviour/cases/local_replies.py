"""What the proxy answers by itself."""

from ..case import (REFUSES, SILENT, Case, Close, ReadEnd, ReadHead, ReadRequest, Reset, Response, Send, Serve, Wait,
                    answer, ask, cluster, get, http, request, to)

UP = {"up": [[Serve()]]}
DOMAIN = {"virtual_host": {"domains": ["only.example"]}}


def no_backend(name, config, *clients):
    return Case(name, config, list(clients))


def refused(name, data, **options):
    """A request that is refused before any backend sees it; a second one shows whether the connection goes on."""
    return Case(name, http(**options), [[Send(data), ReadEnd()]], UP)


EMPTY = cluster("empty")
SLOW = {"up": [[ReadRequest(), ReadEnd()]]}

CASES = [
    Case("404 without a virtual host", http(**DOMAIN), [ask(get())], UP),
    Case("404 without a virtual host, HEAD", http(**DOMAIN), [ask(request("HEAD", "/"), head_only=True)], UP),
    Case("404 without a virtual host, POST with a body", http(**DOMAIN),
         [[Send(request("POST", "/", "Content-Length: 5", body=b"hello")), Response(), Send(get()), Response()]], UP),
    Case("404 before the body has come", http(**DOMAIN),
         [ask(request("POST", "/", "Content-Length: 500", body=b"hello"))], UP),
    Case("404 without a route", http(to(match={"path": "/a"})), [ask(get("/b"))], UP),
    no_backend("503 without an endpoint", http(to("empty"), clusters=[EMPTY]), ask(get())),
    no_backend("503 without an endpoint, with a body", http(to("empty"), clusters=[EMPTY]),
               ask(request("POST", "/", "Content-Length: 5", body=b"hello"))),
    no_backend("503 of a cluster header that names nothing", http({"match": {"prefix": "/"}, "route": {
        "cluster_header": "x-cluster"}}, clusters=[EMPTY]), ask(get()), ask(get("/", "x-cluster: nosuch"))),
    Case("503 when the connection is refused", http(), [ask(get())], {"up": REFUSES}),
    Case("503 when the connection is refused, with retries",
         http(to(retry_policy={"retry_on": "connect-failure", "num_retries": 2})), [ask(get())], {"up": REFUSES}),
    Case("503 when connecting takes too long", http(clusters=[cluster("up", "up", connect_timeout="0.3s")]),
         [ask(get())], {"up": SILENT}),
    Case("503 when the backend closes without an answer", http(), [ask(get())], {"up": [[ReadRequest(), Close()]]}),
    Case("503 when the backend resets", http(), [ask(get())], {"up": [[ReadRequest(), Reset()]]}),
    Case("503 when the backend speaks nonsense", http(), [ask(get())],
         {"up": [[ReadRequest(), Send(b"nonsense\r\n\r\n"), ReadEnd()]]}),
    Case("504 when the route's time is over", http(to(timeout="0.3s")), [ask(get())], SLOW),
    Case("504 of the route, POST with a body", http(to(timeout="0.3s")),
         [ask(request("POST", "/", "Content-Length: 5", body=b"hello"))], SLOW),
    Case("504 for each try", http(to(retry_policy={"retry_on": "5xx", "num_retries": 1, "per_try_timeout": "0.2s"})),
         [ask(get())], SLOW),
    Case("504 when the stream is idle and the request is whole", http(hcm={"stream_idle_timeout": "0.4s"}),
         [ask(get())], SLOW),
    Case("504 when the stream is idle and a POST is whole", http(hcm={"stream_idle_timeout": "0.4s"}),
         [ask(request("POST", "/", "Content-Length: 5", body=b"hello"))], SLOW),
    Case("408 when the stream is idle and the body does not come", http(hcm={"stream_idle_timeout": "0.4s"}),
         [ask(request("POST", "/", "Content-Length: 500", body=b"hello"))], {"up": [[ReadRequest(), ReadEnd()]]}),
    Case("408 when the request takes too long", http(hcm={"request_timeout": "0.4s"}),
         [ask(request("POST", "/", "Content-Length: 500", body=b"hello"))], {"up": [[ReadRequest(), ReadEnd()]]}),
    Case("408 when the head takes too long", http(hcm={"request_headers_timeout": "0.4s"}),
         [[Send(b"GET / HTTP/1.1\r\nHost: x\r\n"), Response()]], UP),
    Case("408 when the request takes too long in its head", http(hcm={"request_timeout": "0.4s"}),
         [[Send(b"GET / HTTP/1.1\r\nHost: x\r\n"), Response()]], UP),
    Case("an idle connection is closed", http(hcm={"common_http_protocol_options": {"idle_timeout": "0.3s"}}),
         [[ReadEnd()], [Send(get()), Response(), ReadEnd()]], UP),
    Case("a route without time limit and a slow backend", http(to(timeout="0s")), [ask(get())],
         {"up": [[ReadRequest(), Wait(0.5), Send(answer()), ReadEnd()]]}),
    Case("redirects", http(
        {"match": {"path": "/host"}, "redirect": {"host_redirect": "other.example"}},
        {"match": {"path": "/path"}, "redirect": {"path_redirect": "/new?a=b", "response_code": "FOUND"}},
        {"match": {"prefix": "/prefix"}, "redirect": {"prefix_rewrite": "/other", "strip_query": True}},
        {"match": {"prefix": "/https"}, "redirect": {"https_redirect": True, "response_code": "PERMANENT_REDIRECT"}},
        {"match": {"prefix": "/port"}, "redirect": {"port_redirect": 8443, "response_code": "SEE_OTHER"}},
    ), [ask(get("/host?q=1")), ask(get("/path?x=y")), ask(get("/prefix/a?b=c")), ask(get("/https", host="h:80")),
        ask(get("/port?q", host="h:80")), ask(request("HEAD", "/host"), head_only=True),
        ask(request("POST", "/host", "Content-Length: 3", body=b"abc"))], UP),
    Case("direct responses", http(
        {"match": {"path": "/text"}, "direct_response": {"status": 200, "body": {"inline_string": "hello"}}},
        {"match": {"path": "/empty"}, "direct_response": {"status": 204}},
        {"match": {"path": "/error"}, "direct_response": {"status": 503, "body": {"inline_string": "down"}}},
        {"match": {"prefix": "/"}, "direct_response": {"status": 403}},
    ), [ask(get("/text")), ask(get("/empty")), ask(get("/error")), ask(get("/x")),
        ask(request("HEAD", "/text"), head_only=True),
        ask(request("POST", "/text", "Content-Length: 3", body=b"abc")),
        ask(request("POST", "/text", "Content-Length: 300", body=b"abc"))], UP),
    Case("a direct response with headers of its own", http(
        {"match": {"path": "/text"}, "direct_response": {"status": 200, "body": {"inline_string": "{}"}},
         "response_headers_to_add": [{"header": {"key": "content-type", "value": "application/json"},
                                      "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"},
                                     {"header": {"key": "x-a", "value": "1"}}]}), [ask(get("/text"))]),
    Case("426 for HTTP/1.0", http(), [[Send(b"GET / HTTP/1.0\r\nHost: x\r\n\r\n"), ReadEnd()]], UP),
    Case("HTTP/1.0 where it is allowed", http(hcm={"http_protocol_options": {
        "accept_http_10": True, "default_host_for_http_10": "old.example"}}),
         [[Send(b"GET / HTTP/1.0\r\n\r\n"), ReadEnd()],
          [Send(b"GET / HTTP/1.0\r\nHost: x\r\nConnection: keep-alive\r\n\r\n"), Response(), Send(get()), Response()]], UP),
    refused("400 for a request without Host", b"GET / HTTP/1.1\r\n\r\n"),
    refused("400 for nonsense", b"nonsense\r\n\r\n"),
    refused("400 for a bad method", b"G\x01T / HTTP/1.1\r\nHost: x\r\n\r\n"),
    refused("400 for a TLS greeting", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"),
    refused("400 for a header name with a blank", b"GET / HTTP/1.1\r\nHost: x\r\nA B: c\r\n\r\n"),
    refused("400 for NUL in a value", b"GET / HTTP/1.1\r\nHost: x\r\nA: b\0c\r\n\r\n"),
    refused("400 for two lengths", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
    refused("400 for a length that is no number", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: a\r\n\r\nab"),
    refused("400 for length and chunks", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n"
                                         b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    refused("an unknown transfer coding", b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: br\r\n\r\n"),
    refused("an unknown transfer coding before chunked",
            b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    refused("400 for a broken chunk", b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n"),
    refused("400 for two Host lines", b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n"),
    refused("a folded header", b"GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n"),
    refused("431 for a large head", get("/", "A: " + "a" * 70_000)),
    refused("431 for many headers", get("/", *(f"A{n}: b" for n in range(120)))),
    refused("431 for a long path", get("/" + "a" * 70_000)),
    refused("a refusal with 70 KB behind it",
            b"POST / HTTP/1.1\r\nHost: x\r\nHost: y\r\nContent-Length: 70000\r\n\r\n" + b"a" * 70_000),
    refused("two requests, the second one bad", get() + b"nonsense\r\n\r\n"),
    refused("413 of a body that is too long for retries",
            request("POST", "/", "Content-Length: 100000", body=b"a" * 100_000)),
    Case("403 for an upgrade that is not allowed", http(),
         [[Send(get("/", "Connection: Upgrade", "Upgrade: websocket")), ReadEnd()]], UP),
    Case("an upgrade that is not allowed on a direct response",
         http({"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": "hello"}}}),
         [[Send(get("/", "Connection: Upgrade", "Upgrade: websocket")), ReadEnd()]], UP),
    Case("an upgrade to h2c", http(), [ask(get("/", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c",
                                               "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA"))], UP),
    Case("CONNECT that is not allowed", http(),
         [[Send(b"CONNECT x:443 HTTP/1.1\r\nHost: x:443\r\n\r\n"), ReadEnd()]], UP),
    Case("TRACE", http(), [ask(request("TRACE", "/"))], UP),
    Case("an answer to HEAD when the backend refuses", http(), [ask(request("HEAD", "/"), head_only=True)], {"up": REFUSES}),
    Case("a local reply with a mapper", http(to("empty"), clusters=[EMPTY], hcm={"local_reply_config": {
        "mappers": [{"filter": {"status_code_filter": {"comparison": {"op": "EQ", "value": {
            "default_value": 503, "runtime_key": "k"}}}}, "status_code": 599,
            "body": {"inline_string": "sorry"}, "headers_to_add": [{"header": {"key": "x-a", "value": "1"}}]}],
        "body_format": {"text_format_source": {"inline_string": "%LOCAL_REPLY_BODY% %RESPONSE_CODE%"}}}}),
         [ask(get()), ask(get("/", "A: " + "a" * 70_000))]),
    Case("the server header by default", http(hcm={"server_name": ""}), [ask(get()), ask(get("/x"))], UP),
    Case("an overloaded cluster", http(clusters=[cluster("up", "up", circuit_breakers={"thresholds": [
        {"max_requests": 0, "max_pending_requests": 0, "max_connections": 0}]})]), [ask(get())], UP),
    Case("no pending requests are allowed", http(clusters=[cluster("up", "up", circuit_breakers={"thresholds": [
        {"max_pending_requests": 0}]})]), [ask(get())], UP),
]
