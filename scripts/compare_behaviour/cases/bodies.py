"""Bodies in both directions, whole, slow and cut short."""

from ..case import (Case, Close, ReadEnd, ReadHead, ReadRequest, Reset, Response, Send, Serve, ShutWrite, Wait, answer,
                    ask, get, http, request, to)

UP = {"up": [[Serve()]]}
CHUNKED = "Transfer-Encoding: chunked"


def upload(name, data, **hcm):
    return Case(name, http(hcm=hcm), [[Send(data), Response(), Send(get("/next")), Response()]], UP)


def chunks(name, body):
    return upload(name, request("POST", "/", CHUNKED, body=body))


def download(name, *script):
    return Case(name, http(), [[Send(get()), Response(), Send(get("/next")), Response()]],
                {"up": [[ReadHead(), *script], [Serve()]]})


HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED_HEAD = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
LONG = HEAD + b"content-length: 100000\r\n\r\n" + b"a" * 30_000

CASES = [
    upload("a body with a length", request("POST", "/", "Content-Length: 5", body=b"hello")),
    upload("a body with the length 0", request("POST", "/", "Content-Length: 0")),
    upload("a large body", request("POST", "/", "Content-Length: 200000", body=b"a" * 200_000)),
    upload("a GET with a body", request("GET", "/", "Content-Length: 5", body=b"hello")),
    upload("two equal lengths", request("POST", "/", "Content-Length: 5", "Content-Length: 5", body=b"hello")),
    upload("a length with a plus", request("POST", "/", "Content-Length: +5", body=b"hello")),
    upload("a list of equal lengths", request("POST", "/", "Content-Length: 5, 5", body=b"hello")),
    chunks("a body in chunks", b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"),
    chunks("an empty body in chunks", b"0\r\n\r\n"),
    chunks("a chunk with an extension", b"5;a=b\r\nhello\r\n0\r\n\r\n"),
    chunks("a chunk with a quoted extension", b"5;a=\"b;c\"\r\nhello\r\n0\r\n\r\n"),
    chunks("a blank before an extension", b"5 ;a\r\nhello\r\n0\r\n\r\n"),
    chunks("blanks behind a size", b"5  \r\nhello\r\n0\r\n\r\n"),
    chunks("a tab behind a size", b"5\t\r\nhello\r\n0\r\n\r\n"),
    chunks("a blank before a size", b" 5\r\nhello\r\n0\r\n\r\n"),
    chunks("a size with zeros", b"0000005\r\nhello\r\n000\r\n\r\n"),
    chunks("a size in capitals", b"A\r\nhellohello\r\n0\r\n\r\n"),
    chunks("a size with 0x", b"0x5\r\nhello\r\n0\r\n\r\n"),
    chunks("a size without CR", b"5\nhello\r\n0\r\n\r\n"),
    chunks("a chunk that is longer than its size", b"3\r\nhello\r\n0\r\n\r\n"),
    chunks("trailers", b"5\r\nhello\r\n0\r\nA: b\r\n\r\n"),
    Case("trailers that are passed on", http(hcm={"http_protocol_options": {"enable_trailers": True}}),
         [ask(request("POST", "/", CHUNKED, body=b"5\r\nhello\r\n0\r\nA: b\r\n\r\n"))], UP),
    upload("chunked in another spelling", request("POST", "/", "Transfer-Encoding: Chunked", body=b"0\r\n\r\n")),
    upload("chunked twice", request("POST", "/", CHUNKED, CHUNKED, body=b"0\r\n\r\n")),
    Case("two requests at once", http(), [[Send(get("/one") + get("/two")), Response(), Response()]], UP),
    Case("a slow body", http(), [[Send(request("POST", "/", "Content-Length: 10")), Send(b"0123456789", 0.05), Response()]],
         UP),
    Case("a client that goes in the middle of its body", http(),
         [[Send(request("POST", "/", "Content-Length: 100", body=b"abc")), Wait(0.3), Close()]],
         {"up": [[ReadRequest(), ReadEnd()]]}),
    Case("a client that ends its side in the middle of its body", http(),
         [[Send(request("POST", "/", "Content-Length: 100", body=b"abc")), ShutWrite(), ReadEnd()]],
         {"up": [[ReadRequest(), ReadEnd()]]}),
    Case("a client that ends its side after its request", http(), [[Send(get()), ShutWrite(), ReadEnd()]],
         {"up": [[ReadRequest(), Wait(0.3), Send(answer()), ReadEnd()]]}),
    Case("a client that goes while the backend works", http(), [[Send(get()), Wait(0.3), Close()]],
         {"up": [[ReadRequest(), ReadEnd()]]}),
    Case("a client that resets while the backend works", http(), [[Send(get()), Wait(0.3), Reset()]],
         {"up": [[ReadRequest(), ReadEnd()]]}),
    Case("an early answer with close", http(),
         [[Send(request("POST", "/", "Content-Length: 1000", body=b"abc")), Response(), ReadEnd()]],
         {"up": [[ReadHead(), Send(answer("413 Payload Too Large", "Connection: close", body=b"no")), Close()]]}),
    Case("an early answer without close", http(),
         [[Send(request("POST", "/", "Content-Length: 1000", body=b"abc")), Response(), ReadEnd()]],
         {"up": [[ReadHead(), Send(answer("413 Payload Too Large", body=b"no")), ReadEnd()]]}),
    Case("an early answer, and the rest comes", http(),
         [[Send(request("POST", "/", "Content-Length: 10", body=b"abc")), Response(), Send(b"defghij" + get("/next")),
           ReadEnd()]],
         {"up": [[ReadHead(), Send(answer("413 Payload Too Large", body=b"no")), ReadEnd()], [Serve()]]}),
    Case("an early answer to chunks", http(),
         [[Send(request("POST", "/", CHUNKED, body=b"3\r\nabc\r\n")), Response(), ReadEnd()]],
         {"up": [[ReadHead(), Send(answer("413 Payload Too Large", body=b"no")), ReadEnd()]]}),
    download("a response in chunks", Send(CHUNKED_HEAD + b"2\r\nok\r\n0\r\n\r\n"), Serve()),
    download("a response in chunks with blanks", Send(CHUNKED_HEAD + b"2 ;x\r\nok\r\n3  \r\nabc\r\n0 \r\n\r\n"), Serve()),
    download("a response in chunks with trailers", Send(CHUNKED_HEAD + b"2\r\nok\r\n0\r\nA: b\r\n\r\n"), Serve()),
    download("a response up to the end", Send(HEAD + b"\r\nhello"), Close()),
    download("a response up to a reset", Send(HEAD + b"\r\nhello"), Wait(0.2), Reset()),
    download("a response with the length 0", Send(HEAD + b"content-length: 0\r\n\r\n"), Serve()),
    download("a response that is too short", Send(LONG), Close()),
    download("a response that is too short and slow", Send(LONG), Wait(0.3), Close()),
    download("a response that is reset", Send(LONG), Wait(0.3), Reset()),
    download("a response in chunks that is too short", Send(CHUNKED_HEAD + b"5\r\nhello\r\n5\r\nab"), Close()),
    download("a response in chunks without an end", Send(CHUNKED_HEAD + b"5\r\nhello\r\n"), Close()),
    download("a response with a broken chunk", Send(CHUNKED_HEAD + b"5\r\nhello\r\nxyz\r\n"), ReadEnd()),
    download("a response's head that is cut", Send(HEAD), Close()),
    download("a response with bytes behind it", Send(answer() + b"extra"), ReadEnd()),
    download("two responses to one request", Send(answer() + answer("200 OK", body=b"second")), ReadEnd()),
    Case("a response that stops, and the route's time is over", http(to(timeout="0.4s")), [[Send(get()), Response()]],
         {"up": [[ReadHead(), Send(LONG), ReadEnd()]]}),
    Case("a response that stops, and the stream is idle", http(hcm={"stream_idle_timeout": "0.4s"}),
         [[Send(get()), Response()]], {"up": [[ReadHead(), Send(LONG), ReadEnd()]]}),
    Case("a response that comes before a request", http(), [[Send(get()), Response()]],
         {"up": [[Send(answer("200 OK", body=b"early")), ReadHead(), Send(answer()), ReadEnd()]]}),
]
