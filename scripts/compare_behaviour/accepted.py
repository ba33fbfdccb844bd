"""Differences from Envoy that are on purpose.

Each has its reason and the words of a document that tell it to users; `scripts/compare-behaviour`
looks whether the document still says them. Patterns are those of a shell.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Accept:
    """`item` as the script prints it; `envoy` and `baton` are the values of both."""
    item: str
    reason: str
    # File and words.
    told: tuple
    case: str = "*"
    envoy: str = "*"
    baton: str = "*"


CONFIG, STATS = "docs/CONFIG.md", "docs/STATS.md"

CLOSES_GENTLY = (CONFIG, "for a moment what the client still sends, so that the answer is not lost")
ANSWERS_AND_GOES_ON = (CONFIG, "A local reply ends the connection only if the rest of the request does not come")
REFUSES_MORE = (CONFIG, "A second `host` line, a malformed `host`, a folded line and a chunk that is longer than its size")
OTHER_METHODS = (CONFIG, "TRACE gets 405, an expectation other than `100-continue` 417")
SAYS_WHAT_WAS_WRONG = (CONFIG, "A refused head is flagged `DPE`, and `%RESPONSE_CODE_DETAILS%` says more exactly")
HALF_CLOSED = (CONFIG, "A client that half-closes its connection after its request gets its answer; Envoy takes it for gone")
REFUSES_RESPONSES = (CONFIG, "For a response with a status above 999, a folded line or a line end that is not CR LF")
CUTS = (CONFIG, "A response without a length that ends with a reset counts as cut; Envoy takes it for complete")
HEADS = (CONFIG, "A response to HEAD that has no length is passed on without one; Envoy adds `transfer-encoding: chunked`")
REASONS = (CONFIG, "The reason phrase of a response is the standard one, or none")
PATHS = (CONFIG, "A path that these rules refuse is answered with 400, logged as it came")
NORMALISES = (CONFIG, "`normalize_path` is on unless it is switched off")
SWITCHES = (CONFIG, "An endpoint's 101 must name a protocol that the client asked for")
RETRIES = (CONFIG, "is sent once more, on another connection, if the kept connection it was written to ends")
INTERIM = (CONFIG, "Interim responses other than 100 are not passed on")
LOOPBACK = (CONFIG, "gets the address of the peer even if that is a loopback address")
NOT_COUNTED = (STATS, "These of Envoy's are not there")
COUNTED_OTHERWISE = (STATS, "These count something else than Envoy's")


def whole(told, reason, *names):
    """Cases that go another way from the first byte of the answer on: everything that follows differs."""
    return [Accept("*", reason, told, case=name) for name in names]


ACCEPTED = [
    # How connections end.
    Accept("client * end", "a reset would destroy the answer that is on its way", CLOSES_GENTLY,
           envoy="reset", baton="closed"),
    Accept("client * response *", "a reset would destroy the answer that is on its way", CLOSES_GENTLY,
           envoy="none, got b'', connection reset", baton="none, got b'', connection closed"),
    Accept("client * end", "baton's end comes at once, Envoy's after its delay", CLOSES_GENTLY,
           envoy="open", baton="closed"),
    Accept("stat http.test.downstream_cx_delayed_close_timeout", "the client was first", CLOSES_GENTLY,
           envoy="1", baton="0"),
    Accept("stat http.test.downstream_cx_destroy_*", "the client was first", CLOSES_GENTLY),

    # Answers before the end of a request.
    Accept("client * header connection", "the request's rest is there", ANSWERS_AND_GOES_ON,
           envoy="close", baton="(none)"),
    Accept("log * received", "the request's rest is read", ANSWERS_AND_GOES_ON, envoy="0"),
    *whole(ANSWERS_AND_GOES_ON, "the request's rest is there", "404 without a virtual host, POST with a body"),

    # Requests.
    *whole(REFUSES_MORE, "what proxies read in two ways is refused", "a chunk that is longer than its size",
           "gRPC with a bad request", "hosts with ports", "400 for two Host lines", "a folded header",
           "a refusal with 70 KB behind it", "chunked twice", "400 for a request without Host"),
    *whole(OTHER_METHODS, "an answer is better than none that anybody understands", "expect with another value",
           "TRACE", "methods", "CONNECT that is not allowed", "426 for HTTP/1.0"),
    *whole((CONFIG, "| request target | as large as a head (`max_request_headers_kb`) | 414 |"),
           "RFC 9110 has a status for it", "431 for a long path"),
    Accept("log * details", "it says more", SAYS_WHAT_WAS_WRONG, envoy="http1.*", baton="http1.*"),
    Accept("log * method", "it was understood", SAYS_WHAT_WAS_WRONG, envoy="-"),
    *whole(SAYS_WHAT_WAS_WRONG, "it is known before an endpoint is looked for", "a blank before a size",
           "a size with 0x", "a size without CR", "400 for a broken chunk"),
    *whole(HALF_CLOSED, "ends of directions are independent", "a client that ends its side after its request",
           "a client that goes while the backend works", "a client that ends its side in the middle of its body",
           "a tunnel the client ends", "CONNECT that ends here", "CONNECT that is passed on", "TCP"),
    *whole(NORMALISES, "routes see what upstreams see", "path /a%zz, normal", "path /a%, normal", "path /a%2, normal",
           "path /a/../b, by default", "path /a%41, by default"),
    *whole(PATHS, "refused paths are logged as they came", "path *, REJECT_REQUEST",
           "path */a?b=c#d, *", "path /a#b, *"),
    Accept("log * details", "it says what was done", PATHS, case="path *, UNESCAPE_AND_REDIRECT"),
    Accept("* x-forwarded-for", "the peer is who it is", LOOPBACK, baton="*127.0.0.1"),
    Accept("log * xff", "the peer is who it is", LOOPBACK, baton="*127.0.0.1"),

    # Responses.
    *whole(REFUSES_RESPONSES, "what clients read in two ways is refused", "status 1000 is not one",
           "a folded header in a response", "a response's head without CR", "a response with a large head"),
    *whole(CUTS, "nobody knows whether it was all", "a response up to a reset", "a response with a broken chunk"),
    Accept("* header transfer-encoding", "there is no body", HEADS, envoy="chunked", baton="(none)"),
    Accept("* header content-length", "an answer without a body says so to HEAD, too", HEADS,
           envoy="(none)", baton="0"),
    Accept("* line", "clients do not read it", REASONS, envoy="HTTP/1.1 ??? *", baton="HTTP/1.1 ???*",
           case="status *"),
    Accept("* line", "RFC 9112 section 2.3", REASONS, envoy="HTTP/1.0 *", baton="HTTP/1.1 *"),
    Accept("* header server", "the name is baton's", REASONS, envoy="envoy", baton="baton"),
    Accept("* header x-hop", "the header is between the endpoint and the proxy",
           (CONFIG, "Headers that an endpoint's `connection` names are not passed on"),
           envoy="1", baton="(none)"),
    Accept("* trailers", "one switch is enough", (CONFIG, "`enable_trailers` in the connection manager is enough")),
    *whole(INTERIM, "few clients expect them", "a 103 with proxy_100_continue"),
    Accept("stat *_1??", "what is not passed on is not counted", INTERIM, baton="0"),
    *whole(RETRIES, "endpoints close kept connections at any time",
           "a kept connection that dies with the next request", "a kept connection that is reset with the next request"),
    *whole((CONFIG, "An idle connection to an endpoint is closed at once if the endpoint sends anything unasked"),
           "whose answer would it be", "a response that comes before a request"),

    Accept("* header grpc-message", "a 204 has no text", (CONFIG, "a 204 has no `grpc-message`, because it has no text"), baton="(none)"),

    # Upgrades.
    *whole(SWITCHES, "bytes of another protocol are not for this client", "an upgrade to another protocol than asked",
           "an upgrade without an Upgrade header", "an upgrade without a Connection header", "a 101 nobody asked for",
           "an upgrade with a list of protocols", "an upgrade header without connection", "an upgrade with a body",
           "an upgrade the backend answers with 200", "an upgrade the backend refuses"),
    Accept("client * end", "the endpoint's reset is passed on", HALF_CLOSED, case="a tunnel the backend resets"),
    Accept("log * flags", "its end is no failure", SWITCHES, envoy="UC", baton="-"),
    Accept("log * details", "its end is no failure", SWITCHES,
           envoy="upstream_reset_after_response_started{connection_termination}", baton="-"),
    Accept("* header connection", "both spellings are the same", SWITCHES, case="an upgrade with another spelling"),

    Accept("log * cluster", "nothing goes there", (CONFIG, "A request whose upgrade is refused has no cluster"),
           envoy="up", baton="-", case="*upgrade*"),

    # Logs.
    Accept("log * path", "a line of a log stays one", (CONFIG, "are written as `\\xHH`"),
           baton="*\\x??*"),

    # Statistics that count something else.
    Accept("stat http.test.downstream_rq_rx_reset", "no client went", COUNTED_OTHERWISE, baton="0"),
    Accept("stat http.test.downstream_rq_response_before_rq_complete", "the request is there", COUNTED_OTHERWISE),
    Accept("stat http.test.rq_reset_after_downstream_response_started", "responses are cut", COUNTED_OTHERWISE,
           envoy="0"),
    Accept("stat http.test.downstream_rq_tx_reset", "the end of a tunnel is no reset", SWITCHES, envoy="1", baton="0"),
    Accept("stat http.test.rq_total", "there was a route", COUNTED_OTHERWISE, envoy="0", baton="1"),
    Accept("stat http.test.rq_direct_response", "there was a route", COUNTED_OTHERWISE, envoy="0", baton="1"),
    Accept("stat http.test.rq_redirect", "they are redirects", COUNTED_OTHERWISE, envoy="0"),
    Accept("stat http.test.downstream_cx_upgrades_total", "it failed", COUNTED_OTHERWISE, envoy="1", baton="0"),
    Accept("stat http.test.downstream_cx_http1_total", "nothing came on one", COUNTED_OTHERWISE),
    Accept("stat cluster.empty.lb_healthy_panic", "there is nothing to choose from", COUNTED_OTHERWISE),
    Accept("stat cluster.up.upstream_rq_unknown", "it is known", COUNTED_OTHERWISE, envoy="1", baton="0"),
    Accept("stat cluster.up.upstream_cx_close_notify", "its end was announced", COUNTED_OTHERWISE, envoy="0"),
    Accept("stat *_rq_completed", "what is not passed on is not counted", INTERIM, case="*100*"),

    # Statistics baton does not have.
    Accept("stat cluster.*.alt.*", "no configuration can tell which names there will be", NOT_COUNTED, baton="0"),
    Accept("stat listener.test.http.*", "the connection manager's own statistics say the same", NOT_COUNTED, baton="0"),
    Accept("stat listener.test.worker_*", "threads are shown by `baton status`", NOT_COUNTED, baton="0"),
    Accept("stat cluster.*.total_match_count", "there are no subsets", NOT_COUNTED, baton="0"),
    Accept("stat cluster.*.external.upstream_rq_*", "there is no zone of internal and external requests", NOT_COUNTED,
           baton="0"),
    Accept("stat cluster.*.internal.upstream_rq_*", "there is no zone of internal and external requests", NOT_COUNTED,
           baton="0"),
    Accept("stat cluster.*.upstream_cx_rx_bytes_buffered", "what waits in buffers is no level that is worth a counter",
           NOT_COUNTED, baton="0"),
    Accept("stat *_bytes_total", "follows from the heads and bodies, which are compared", NOT_COUNTED),
]
