"""Attempts: when a request is sent again, and what each attempt carries."""

from ..case import (REFUSES, Case, Close, ReadEnd, ReadHead, ReadRequest, Reset, Response, Send, Serve, Wait, answer, ask,
                    cluster, get, http, request, to)

ERROR = answer("503 Service Unavailable", body=b"no")
UP = {"up": [[Serve()]]}


def policy(on, **fields):
    return to(retry_policy={"retry_on": on, "num_retries": 2, "retry_back_off": {
        "base_interval": "0.001s", "max_interval": "0.002s"}, **fields})


def retried(name, route, script, data=None):
    """The first connection follows the script, the next ones serve."""
    return Case(name, http(route), [ask(data or get())], {"up": [[*script], [Serve()]]})


POST = request("POST", "/", "Content-Length: 5", body=b"hello")
FAIL = [ReadRequest(), Send(ERROR), ReadEnd()]

CASES = [
    retried("retry of a 503", policy("5xx"), FAIL),
    retried("retry of a 503, POST", policy("5xx"), FAIL, POST),
    retried("retry of a 500 by gateway-error", policy("gateway-error"),
            [ReadRequest(), Send(answer("500 Internal Server Error")), ReadEnd()]),
    retried("retry of a 409 by retriable-4xx", policy("retriable-4xx"), [ReadRequest(), Send(answer("409 Conflict")), ReadEnd()]),
    retried("retry by status code", policy("retriable-status-codes", retriable_status_codes=[418]),
            [ReadRequest(), Send(answer("418 Teapot")), ReadEnd()]),
    retried("retry by header", policy("retriable-headers", retriable_headers=[
        {"name": "x-again", "string_match": {"exact": "yes"}}]),
            [ReadRequest(), Send(answer("200 OK", "x-again: yes")), ReadEnd()]),
    retried("retry by x-envoy-ratelimited", policy("envoy-ratelimited"),
            [ReadRequest(), Send(answer("429 Too Many", "x-envoy-ratelimited: true")), ReadEnd()]),
    retried("retry of a reset", policy("reset"), [ReadRequest(), Reset()]),
    retried("retry of a reset before the request", policy("reset-before-request"), [ReadRequest(), Reset()]),
    retried("retry of a closed connection", policy("reset"), [ReadRequest(), Close()]),
    retried("retry of a closed connection, POST", policy("reset"), [ReadRequest(), Close()], POST),
    retried("retry of a connection that closes without reading", policy("reset"), [Close()]),
    retried("retry of a refused stream", policy("refused-stream"), [ReadRequest(), Close()]),
    retried("no retry without a policy when the connection closes", to(), [ReadRequest(), Close()]),
    retried("no retry without a policy when a fresh connection is closed before reading", to(), [Close()]),
    retried("no retry of a response that began", policy("5xx,reset"),
            [ReadRequest(), Send(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc"), Wait(0.2), Reset()]),
    retried("retry when a try takes too long", policy("5xx", per_try_timeout="0.2s"), [ReadRequest(), ReadEnd()]),
    Case("retries that are used up", http(policy("5xx")), [ask(get())], {"up": [FAIL]}),
    Case("retries that are used up by resets", http(policy("5xx")), [ask(get())], {"up": [[ReadRequest(), Reset()]]}),
    Case("retry at another endpoint", http(policy("connect-failure"), clusters=[cluster("up", "dead", "up")]),
         [ask(get()), ask(get())], {"dead": REFUSES, "up": [[Serve()]]}),
    Case("retry with attempt counts", http(policy("5xx"), virtual_host={
        "include_request_attempt_count": True, "include_attempt_count_in_response": True}), [ask(get())],
         {"up": [FAIL, [Serve()]]}),
    Case("retries a client asks for", http(), [ask(get("/", "x-envoy-retry-on: 5xx", "x-envoy-max-retries: 2"))],
         {"up": [FAIL, [Serve()]]}),
    Case("retries a client asks for at the edge", http(hcm={"use_remote_address": True}),
         [ask(get("/", "x-envoy-retry-on: 5xx", "x-envoy-max-retries: 2"))], {"up": [FAIL, [Serve()]]}),
    Case("a timeout a client asks for", http(), [ask(get("/", "x-envoy-upstream-rq-timeout-ms: 300"))],
         {"up": [[ReadRequest(), ReadEnd()]]}),
    Case("a kept connection that has died meanwhile", http(), [ask(get("/one")), ask(get("/two"))],
         {"up": [[ReadRequest(), Send(answer()), Close()], [Serve()]]}),
    Case("a kept connection that dies with the next request", http(), [ask(get("/one")), ask(get("/two"))],
         {"up": [[ReadRequest(), Send(answer()), ReadRequest(), Close()], [Serve()]]}),
    Case("a kept connection that dies with the next request, reset policy", http(policy("reset")),
         [ask(get("/one")), ask(get("/two"))],
         {"up": [[ReadRequest(), Send(answer()), ReadRequest(), Close()], [Serve()]]}),
    Case("a kept connection that dies with a POST", http(), [ask(get("/one")), ask(POST)],
         {"up": [[ReadRequest(), Send(answer()), ReadRequest(), Close()], [Serve()]]}),
    Case("a kept connection that is reset with the next request", http(), [ask(get("/one")), ask(get("/two"))],
         {"up": [[ReadRequest(), Send(answer()), ReadRequest(), Reset()], [Serve()]]}),
    Case("a kept connection whose idle time is over", http(clusters=[cluster("up", "up", typed_extension_protocol_options={
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "common_http_protocol_options": {"idle_timeout": "0.2s"},
            "explicit_http_config": {"http_protocol_options": {}}}})]),
         [ask(get("/one")), ask(get("/two"))], {"up": [[Serve()]]}),
    Case("one request for each connection", http(clusters=[cluster("up", "up", typed_extension_protocol_options={
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "common_http_protocol_options": {"max_requests_per_connection": 1},
            "explicit_http_config": {"http_protocol_options": {}}}})]),
         [ask(get("/one")), ask(get("/two"))], {"up": [[Serve()]]}),
    retried("a retry of a refused body in chunks", policy("5xx"), FAIL,
            request("POST", "/", "Transfer-Encoding: chunked", body=b"5\r\nhello\r\n0\r\n\r\n")),
    retried("a try beside one that takes too long", {**policy("5xx", per_try_timeout="0.2s"), "route": {
        **policy("5xx", per_try_timeout="0.2s")["route"], "hedge_policy": {"hedge_on_per_try_timeout": True}}},
            [ReadRequest(), ReadEnd()]),
    Case("tries that take too long", http(policy("gateway-error", per_try_timeout="0.2s")), [ask(get())],
         {"up": [[ReadRequest(), ReadEnd()]]}),
    Case("a try that takes too long, and no word that names it",
         http(policy("connect-failure", per_try_timeout="0.2s")), [ask(get())], {"up": [[ReadRequest(), ReadEnd()]]}),
    Case("retries of an endpoint that refuses", http(policy("connect-failure")), [ask(get())], {"up": REFUSES}),
    Case("a copy for another cluster", http(to(request_mirror_policies=[{"cluster": "copy"}]), clusters=[
        cluster("up", "up"), cluster("copy", "copy")]), [ask(POST), ask(get("/two", host="a:80"))],
         {"up": [[Serve()]], "copy": [[Serve(answer("500 Internal Server Error"))]]}),
    Case("a copy for a cluster that refuses", http(to(request_mirror_policies=[{"cluster": "copy"}]), clusters=[
        cluster("up", "up"), cluster("copy", "copy")]), [ask(POST)], {"up": [[Serve()]], "copy": REFUSES}),
    Case("a host that is rewritten by the endpoint", http(to(auto_host_rewrite=True)), [ask(get())], UP),
    Case("an internal redirect that is not configured", http(), [ask(get())],
         {"up": [[Serve(answer("302 Found", "Location: /other", body=b""))]]}),
]
