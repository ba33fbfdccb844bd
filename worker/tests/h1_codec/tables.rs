//! The rows of the request policy. The first rows of each table are the design's, the others
//! are more of the same kind.

/// One request and the status its client gets; 0: more bytes are needed.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) input: Vec<u8>,
    pub(crate) status: u16,
}

pub(crate) fn case(name: impl Into<String>, input: impl Into<Vec<u8>>, status: u16) -> Case {
    Case { name: name.into(), input: input.into(), status }
}

/// A GET with these header lines.
pub(crate) fn get(lines: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n")
}

/// A POST with these header lines and this body.
pub(crate) fn post(lines: &str, body: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n{body}")
}

/// A POST with this chunked body.
pub(crate) fn chunked(body: &str) -> String {
    post("Transfer-Encoding: chunked", body)
}

/// A request with this request line.
pub(crate) fn line(line: &str) -> String {
    format!("{line}\r\nHost: a\r\n\r\n")
}

/// A request with these lines instead of Host.
pub(crate) fn host(lines: &str) -> String {
    format!("GET / HTTP/1.1\r\n{lines}\r\n")
}

pub(crate) fn many(count: usize) -> String {
    let lines: Vec<_> = (0..count - 1).map(|n| format!("x-{n}: y")).collect();
    get(&lines.join("\r\n"))
}

pub(crate) fn framing_cases() -> Vec<Case> {
    let both = "Content-Length: 5\r\nTransfer-Encoding: chunked";
    let reverse = "Transfer-Encoding: chunked\r\nContent-Length: 5";
    let last = "0\r\n\r\n";
    vec![
        case("CL+TE (CL first)", post(both, last), 400),
        case("TE+CL (TE first)", post(reverse, last), 400),
        case("dup CL same", post("Content-Length: 1\r\nContent-Length: 1", "x"), 400),
        case("dup CL differ", post("Content-Length: 1\r\nContent-Length: 2", "xx"), 400),
        case("CL list 1, 1", post("Content-Length: 1, 1", "x"), 400),
        case("CL +1", post("Content-Length: +1", "x"), 400),
        case("CL -1", post("Content-Length: -1", "x"), 400),
        case("CL 0x1", post("Content-Length: 0x1", "x"), 400),
        case("CL 1e0", post("Content-Length: 1e0", "x"), 400),
        case("CL huge 2^64", post("Content-Length: 18446744073709551616", "x"), 400),
        case("CL empty", post("Content-Length: ", "x"), 400),
        case("CL space colon", post("Content-Length : 1", "x"), 400),
        case("TE space colon", post("Transfer-Encoding : chunked", last), 400),
        case("TE xchunked", post("Transfer-Encoding: xchunked", last), 501),
        case("TE identity", post("Transfer-Encoding: identity", last), 501),
        case("TE gzip, chunked", post("Transfer-Encoding: gzip, chunked", last), 501),
        case("TE chunked, identity", post("Transfer-Encoding: chunked, identity", last), 501),
        case(
            "TE chunked x2 hdrs",
            post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", last),
            400,
        ),
        case("TE chunked, chunked", post("Transfer-Encoding: chunked, chunked", last), 400),
        case("TE CHUNKED upper", post("Transfer-Encoding: CHUNKED", last), 200),
        case("TE \\x0bchunked", post("Transfer-Encoding: \x0bchunked", last), 400),
        case(
            "TE in HTTP/1.0",
            "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        case("GET+chunked", get("Transfer-Encoding: chunked") + last, 200),
        // Beyond the table.
        case("CL with inner space", post("Content-Length: 1 1", "x"), 400),
        case("CL with tab around", post("Content-Length:\t1\t", "x"), 200),
        case("CL with leading zeros", post("Content-Length: 0001", "x"), 200),
        case("CL largest", post("Content-Length: 18446744073709551615", "x"), 0),
        case("CL with quote", post("Content-Length: \"1\"", "x"), 400),
        case("CL with semicolon", post("Content-Length: 1;x", "x"), 400),
        case("CL 1.0", post("Content-Length: 1.0", "x"), 400),
        case("CL arabic digit", post("Content-Length: \u{661}", "x"), 400),
        case("CL three times", post(&["Content-Length: 1"; 3].join("\r\n"), "x"), 400),
        case("CL+TE gzip", post("Content-Length: 1\r\nTransfer-Encoding: gzip", "x"), 400),
        case("CL+TE empty", post("Content-Length: 1\r\nTransfer-Encoding:", "x"), 400),
        case("CL:0+TE", post("Content-Length: 0\r\nTransfer-Encoding: chunked", last), 400),
        case("TE empty", post("Transfer-Encoding:", last), 400),
        case("TE comma", post("Transfer-Encoding: ,", last), 400),
        case("TE chunked comma", post("Transfer-Encoding: chunked,", last), 400),
        case("TE comma chunked", post("Transfer-Encoding: ,chunked", last), 400),
        case("TE chunked; q=1", post("Transfer-Encoding: chunked;q=1", last), 501),
        case("TE quoted", post("Transfer-Encoding: \"chunked\"", last), 501),
        case("TE trailing space", post("Transfer-Encoding: chunked ", last), 200),
        case("TE leading tab", post("Transfer-Encoding:\tchunked", last), 200),
        case("TE no-break space", post("Transfer-Encoding: \u{a0}chunked", last), 501),
        case("TE chunked NEL", post("Transfer-Encoding: chunked\u{85}", last), 501),
        case(
            "TE underscore alias",
            post("Transfer_Encoding: chunked\r\nContent-Length: 1", "x"),
            200,
        ),
        case(
            "TE in two cases",
            post("TRANSFER-ENCODING: chunked\r\ntransfer-encoding: x", last),
            400,
        ),
        case("TE folded", post("Transfer-Encoding:\r\n chunked", last), 400),
        case(
            "TE gzip+TE chunked",
            post("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked", last),
            400,
        ),
        case("CL in HTTP/1.0", "POST / HTTP/1.0\r\nHost: a\r\nContent-Length: 1\r\n\r\nx", 200),
        case(
            "TE+CL in HTTP/1.0",
            "POST / HTTP/1.0\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\nx",
            400,
        ),
        case("body cut short", post("Content-Length: 2", "x"), 0),
        case("GET with CL", get("Content-Length: 1") + "x", 200),
    ]
}

pub(crate) fn chunk_cases() -> Vec<Case> {
    let end = "\r\n0\r\n\r\n";
    let ok = |body: &str| chunked(&format!("{body}{end}"));
    let padded = format!("1{}\r\nx", " ".repeat(4096));
    vec![
        case("chunk bad size", ok("g\r\nx"), 400),
        case("chunk 0x1", ok("0x1\r\nx"), 400),
        case("chunk size beyond 64 bits", ok("10000000000000000\r\nx"), 400),
        case("chunk zeros, beyond 64 bits", ok("00010000000000000000\r\nx"), 400),
        case("chunk leading zeros", ok("00000000000000001\r\nx"), 200),
        case("chunk leading zeros, ext", ok("00000000000000000001;a\r\nx"), 200),
        case("chunk leading zeros, blank", ok("00000000000000000001 \r\nx"), 200),
        case("chunk leading zeros, blank, digit", ok("00000000000000000 1\r\nx"), 400),
        case("chunk 255 digits", ok(&format!("{:0255}\r\nx", 1)), 200),
        case("chunk 256 digits", ok(&format!("{:0256}\r\nx", 1)), 400),
        case("last chunk 255 digits", chunked(&format!("{:0255}\r\n\r\n", 0)), 200),
        case("last chunk 256 digits", chunked(&format!("{:0256}\r\n\r\n", 0)), 400),
        case("chunk LF only", chunked("1\nx\n0\n\n"), 400),
        case("chunk data no CRLF", chunked("1\r\nx0\r\n\r\n"), 400),
        case("chunk ext LF (TERM.EXT)", ok("1;\nx\r\nx"), 400),
        case("chunk ext 32KB", ok(&format!("1;{}\r\nx", "a".repeat(32 * 1024))), 400),
        // Beyond the table.
        case("chunk upper hex", ok("A\r\n0123456789"), 200),
        case("chunk 16 digits", ok("0000000000000001\r\nx"), 200),
        case("chunk largest", chunked("ffffffffffffffff\r\nx"), 0),
        case("chunk empty size", ok("\r\nx"), 400),
        case("chunk size -1", ok("-1\r\nx"), 400),
        case("chunk size +1", ok("+1\r\nx"), 400),
        case("chunk size space before", ok(" 1\r\nx"), 400),
        case("chunk size space after", ok("1 \r\nx"), 200),
        case("chunk size tab after", ok("1\t\r\nx"), 200),
        case("chunk size blanks, ext", ok("1 \t;a\r\nx"), 200),
        case("chunk 16 digits, blanks", ok("0000000000000001  \r\nx"), 200),
        case("chunk size blank, digit", ok("1 0\r\nx"), 400),
        case("chunk size blank, name", ok("1 a=b\r\nx"), 400),
        case("chunk size blank, CR", ok("1 \r\r\nx"), 400),
        case("chunk size vertical tab", ok("1\x0b\r\nx"), 400),
        case("chunk size blank, NUL", ok("1 \0\r\nx"), 400),
        case("chunk blanks 4 KiB", ok(&padded), 200),
        case("chunk blanks 4 KiB + 1", ok(&format!("1{}\r\nx", " ".repeat(4097))), 400),
        case("chunk blanks 4 KiB, twice", ok(&format!("{padded}\r\n{padded}")), 200),
        case("last chunk blanks", chunked("0 \t\r\n\r\n"), 200),
        case("chunk size underscore", ok("1_0\r\nx"), 400),
        case("chunk ext only", ok(";a\r\nx"), 400),
        case("chunk ext", ok("1;a=b\r\nx"), 200),
        case("chunk ext quoted", ok("1;a=\"b;c\"\r\nx"), 200),
        case("chunk ext CR", ok("1;a\rb\r\nx"), 400),
        case("chunk ext NUL", ok("1;a\0\r\nx"), 400),
        case("chunk ext DEL", ok("1;a\x7f\r\nx"), 400),
        case("chunk ext 4 KiB", ok(&format!("1;{}\r\nx", "a".repeat(4096))), 200),
        case("chunk ext 4 KiB + 1", ok(&format!("1;{}\r\nx", "a".repeat(4097))), 400),
        case("chunk ext sum", ok(&format!("1;{0}\r\nx\r\n1;{0}\r\nx", "a".repeat(2100))), 400),
        case("chunk size CR CR LF", ok("1\r\r\nx"), 400),
        case("chunk data too long", ok("1\r\nxy"), 400),
        case("chunk data LF", chunked("1\r\nx\n0\r\n\r\n"), 400),
        case("chunk data CR", chunked("1\r\nx\r0\r\n\r\n"), 400),
        case("chunk cut", chunked("5\r\nx"), 0),
        case("last chunk cut", chunked("1\r\nx\r\n0\r\n"), 0),
        case("last chunk 000", chunked("1\r\nx\r\n000\r\n\r\n"), 200),
        case("last chunk LF", chunked("1\r\nx\r\n0\r\n\n"), 400),
        case("trailer", chunked("0\r\nx-a: b\r\n\r\n"), 200),
        case("trailer forbidden", chunked("0\r\nContent-Length: 5\r\nHost: b\r\n\r\n"), 200),
        case("trailer LF", chunked("0\r\nx-a: b\n\r\n"), 400),
        case("trailer no colon", chunked("0\r\nx-a\r\n\r\n"), 400),
        case("trailer no name", chunked("0\r\n: b\r\n\r\n"), 400),
        case("trailer space colon", chunked("0\r\na : b\r\n\r\n"), 400),
        case("trailer fold", chunked("0\r\na: b\r\n c\r\n\r\n"), 400),
        case("trailer NUL", chunked("0\r\na: \0\r\n\r\n"), 400),
        case("trailer bare CR", chunked("0\r\na: b\rc\r\n\r\n"), 400),
        case("trailer 17 KiB", chunked(&format!("0\r\na: {}\r\n\r\n", "b".repeat(17 * 1024))), 400),
        case("trailers 101", chunked(&format!("0\r\n{}\r\n", "a: b\r\n".repeat(101))), 400),
        case("trailers 100", chunked(&format!("0\r\n{}\r\n", "a: b\r\n".repeat(100))), 200),
    ]
}

pub(crate) fn syntax_cases() -> Vec<Case> {
    vec![
        case("bare LF line ends", "GET / HTTP/1.1\nHost: a\n\n", 400),
        case("bare CR in value", get("x: a\rb"), 400),
        case("NUL in value", get("x: a\0b"), 400),
        case("obs-fold", get("x: a\r\n b"), 400),
        case("leading SP header line", "GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400),
        case("empty hdr name", get(": b"), 400),
        case("hdr no colon", get("abc"), 400),
        case("hdr name with SP", get("a b: c"), 400),
        case("hdr name non-token @", get("a@b: c"), 400),
        case("101 headers", many(101), 431),
        case("1000 headers", many(1000), 431),
        case("hdr 64KB", get(&format!("x: {}", "y".repeat(64 * 1024))), 431),
        case("hdr 256KB", get(&format!("x: {}", "y".repeat(256 * 1024))), 431),
        case("TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(), 400),
        // Beyond the table.
        case("100 headers", many(100), 200),
        case("one bare LF", "GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", 400),
        case("bare LF after request line", "GET / HTTP/1.1\nHost: a\r\n\r\n", 400),
        case("bare LF at the end", "GET / HTTP/1.1\r\nHost: a\r\n\n", 400),
        case("CR CR LF", "GET / HTTP/1.1\r\r\nHost: a\r\n\r\n", 400),
        case("CR at the end only", "GET / HTTP/1.1\r\nHost: a\r\n\rX", 400),
        case("tab fold", get("x: a\r\n\tb"), 400),
        case("fold before the end", get("x: a\r\n "), 400),
        case("tab in value", get("x: a\tb"), 200),
        case("obs-text in value", get("x: \u{e9}"), 200),
        case("empty value", get("x:"), 200),
        case("name with tab", get("a\t: b"), 400),
        case("name with quote", get("a\"b: c"), 400),
        case("name with slash", get("a/b: c"), 400),
        case("name with brackets", get("a[b]: c"), 400),
        case("name with braces", get("{a}: c"), 400),
        case("name with comma", get("a,b: c"), 400),
        case("name non-ascii", get("\u{e9}: c"), 400),
        case("pseudo header", get(":path: /x"), 400),
        case("all token marks", get("!#$%&'*+-.^_`|~09: x"), 200),
        case("two colons", get("a:: c"), 200),
        case("empty line before", "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 200),
        case("two empty lines before", "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 200),
        case("three empty lines before", "\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        case("LF before", "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        case("CR before", "\rGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        case("SP before", " GET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        case("HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        case("NUL first", "\0", 400),
        case("SSH", "SSH-2.0-OpenSSH_9.2\r\n", 400),
        case("redis", "*1\r\n$4\r\nPING\r\n", 400),
        case("PROXY v1", "PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\nGET / HTTP/1.1\r\n\r\n", 400),
        case("PROXY v2", b"\r\n\r\n\0\r\nQUIT\n".to_vec(), 400),
        case("a response", "HTTP/1.1 200 OK\r\n\r\n", 400),
        case("nothing", "", 0),
        case("cut in the line", "GET / HT", 0),
        case("cut in a header", "GET / HTTP/1.1\r\nHo", 0),
        case("no end", "GET / HTTP/1.1\r\nHost: a\r\n", 0),
    ]
}

pub(crate) fn host_cases() -> Vec<Case> {
    let ok = |name: &str| case(format!("Host {name}"), host(&format!("Host: {name}\r\n")), 200);
    let bad = |name: &str| case(format!("Host {name}"), host(&format!("Host: {name}\r\n")), 400);
    let mut cases = vec![
        case("no Host", "GET / HTTP/1.1\r\n\r\n", 400),
        case("two Host", host("Host: a\r\nHost: a\r\n"), 400),
        case("Host with /", host("Host: a/b\r\n"), 400),
        case("Host with @", host("Host: u@a\r\n"), 400),
        case("Host empty", host("Host:\r\n"), 200),
        case("Host blank", host("Host: \t\r\n"), 200),
        case("Host empty in HTTP/1.0", "GET / HTTP/1.0\r\nHost:\r\n\r\n", 200),
        case("Host empty, absolute", "GET http://a/ HTTP/1.1\r\nHost:\r\n\r\n", 200),
        case("Host empty, absolute without a host", "GET http:/// HTTP/1.1\r\nHost:\r\n\r\n", 400),
        case("two Host, empty", host("Host:\r\nHost:\r\n"), 400),
        case("two Host, one empty", host("Host:\r\nHost: a\r\n"), 400),
        case("two Host, other empty", host("Host: a\r\nHost:\r\n"), 400),
        case("no Host in HTTP/1.0", "GET / HTTP/1.0\r\n\r\n", 400),
        case("Host in two cases", host("Host: a\r\nHOST: b\r\n"), 400),
        case("no Host, absolute", "GET http://a/ HTTP/1.1\r\n\r\n", 400),
        case("no Host, absolute, 1.0", "GET http://a/ HTTP/1.0\r\n\r\n", 200),
        case("Host and pseudo", host("Host: a\r\n:authority: b\r\n"), 400),
    ];
    cases.extend(["a.b", "A-b_c", "1.2.3.4:80", "[::1]", "[::1]:80", "a:", "a:65535"].map(ok));
    cases.extend(["a b", "a, b", "a,b", "a?b", "a#b", "a\\b", "a:b", "a:80:80", ":80"].map(bad));
    cases.extend(["[::1", "::1", "[]", "[g]", "[::1]x", "a:123456", "a%00", "a%2fb"].map(bad));
    cases.extend(["\u{e9}", "a<b", "a>b", "a\"b", "a^b", "a|b", "a`b", "{a}", "a:+8"].map(bad));
    cases
}

pub(crate) fn line_cases() -> Vec<Case> {
    let long = format!("/{}", "x".repeat(64 * 1024));
    vec![
        case("HTTP/1.2", line("GET / HTTP/1.2"), 505),
        case("HTTP/2.0 text", line("GET / HTTP/2.0"), 505),
        case("HTTP/9.9", line("GET / HTTP/9.9"), 505),
        case("http/1.1 lower", line("GET / http/1.1"), 400),
        case("HTTP/0.9", line("GET / HTTP/0.9"), 400),
        case("tab as SP", line("GET\t/\tHTTP/1.1"), 400),
        case("double SP", line("GET  / HTTP/1.1"), 400),
        case("SP in target", line("GET /a b HTTP/1.1"), 400),
        case("NUL in target", line("GET /\0 HTTP/1.1"), 400),
        case("non-ascii target", line("GET /\u{e9} HTTP/1.1"), 400),
        case("fragment in target", line("GET /a#b HTTP/1.1"), 400),
        case("bad pct %zz", line("GET /%zz HTTP/1.1"), 400),
        case("%00 in path", line("GET /%00 HTTP/1.1"), 400),
        case("/../x", line("GET /../x HTTP/1.1"), 200),
        case("/..%2fx", line("GET /..%2fx HTTP/1.1"), 400),
        case("//x", line("GET //x HTTP/1.1"), 200),
        case("relative target x", line("GET x HTTP/1.1"), 400),
        case("* with GET", line("GET * HTTP/1.1"), 400),
        case("method g@t", line("G@T / HTTP/1.1"), 400),
        case("method lower get", line("get / HTTP/1.1"), 400),
        case("method 300 chars", line(&format!("{} / HTTP/1.1", "X".repeat(300))), 400),
        case("URI 64KB", line(&format!("GET {long} HTTP/1.1")), 414),
        case("CONNECT a:80", line("CONNECT a:80 HTTP/1.1"), 404),
        case("TRACE", line("TRACE / HTTP/1.1"), 405),
        // Beyond the table.
        case("HTTP/1.1x", line("GET / HTTP/1.1x"), 400),
        case("HTTP/1.10", line("GET / HTTP/1.10"), 400),
        case("HTTP/11.1", line("GET / HTTP/11.1"), 400),
        case("HTTP/3", line("GET / HTTP/3"), 400),
        case("HTTP/1", line("GET / HTTP/1"), 400),
        case("HTTP /1.1", line("GET / HTTP /1.1"), 400),
        case("no version", "GET /\r\n\r\n", 400),
        case("no version, LF", "GET /\n", 400),
        case("SP after version", line("GET / HTTP/1.1 "), 400),
        case("two SP before version", line("GET /  HTTP/1.1"), 400),
        case("vertical tab as SP", line("GET\x0b/ HTTP/1.1"), 400),
        case("mixed case method", line("Get / HTTP/1.1"), 400),
        case("method with dash", line("M-SEARCH / HTTP/1.1"), 200),
        case("method of digits", line("123 / HTTP/1.1"), 400),
        case("method PURGE", line("PURGE / HTTP/1.1"), 200),
        case("method 32 chars", line(&format!("{} / HTTP/1.1", "X".repeat(32))), 200),
        case("method 33 chars", line(&format!("{} / HTTP/1.1", "X".repeat(33))), 400),
        case("no method", " / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        case("OPTIONS *", line("OPTIONS * HTTP/1.1"), 200),
        case("OPTIONS **", line("OPTIONS ** HTTP/1.1"), 400),
        case("DEL in target", line("GET /\x7f HTTP/1.1"), 400),
        case("empty target", line("GET  HTTP/1.1"), 400),
        case("backslash target", line("GET \\ HTTP/1.1"), 400),
        case("target ?a", line("GET ?a HTTP/1.1"), 400),
        case("ftp URL", line("GET ftp://a/ HTTP/1.1"), 400),
        case("URL without authority", line("GET http:///x HTTP/1.1"), 400),
        case("URL with user", line("GET http://u@a/ HTTP/1.1"), 400),
        case("URL with query only", line("GET http://b?x HTTP/1.1"), 200),
        case("URL upper case", line("GET HTTP://B/ HTTP/1.1"), 200),
        case("URL cut", line("GET http: HTTP/1.1"), 400),
        case("URL bad port", line("GET http://a:b/ HTTP/1.1"), 400),
        case("URL and bad Host", "GET http://a/ HTTP/1.1\r\nHost: b/c\r\n\r\n", 400),
        case("authority form with GET", line("GET a:80 HTTP/1.1"), 400),
        case("CONNECT with path", line("CONNECT / HTTP/1.1"), 400),
        case("CONNECT without port", line("CONNECT a HTTP/1.1"), 400),
        case("% at the end", line("GET /a% HTTP/1.1"), 400),
        case("% and one digit", line("GET /a%4 HTTP/1.1"), 400),
        case("% in query", line("GET /?a=100% HTTP/1.1"), 200),
        case("%5C", line("GET /a%5Cb HTTP/1.1"), 400),
        case("%2F in query", line("GET /?a=%2F%00 HTTP/1.1"), 200),
        case("URI 32 KiB", line(&format!("GET /{} HTTP/1.1", "x".repeat(32 * 1024 - 1))), 200),
        case("URI 32 KiB + 1", line(&format!("GET /{} HTTP/1.1", "x".repeat(32 * 1024))), 414),
        case("no method, URI too long", format!(" {long}"), 400),
        case("URI too long and junk", line(&format!("GET {long}\0\0")), 414),
    ]
}

pub(crate) fn connection_cases() -> Vec<Case> {
    vec![
        case(
            "Upgrade h2c",
            get("Connection: upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA"),
            200,
        ),
        case("Expect bogus", get("Expect: 200-ok"), 417),
        case("Connection: close, Host", get("Connection: close, Host"), 400),
        // Beyond the table.
        case("Expect continue", post("Expect: 100-Continue\r\nContent-Length: 1", "x"), 200),
        case("Expect list", get("Expect: 100-continue, x"), 417),
        case("Expect empty", get("Expect:"), 417),
        case("Expect twice", get("Expect: 100-continue\r\nExpect: 100-continue"), 200),
        case("Expect twice in a line", get("Expect: 100-continue, 100-continue"), 200),
        case("Expect twice, bogus", get("Expect: 100-continue\r\nExpect: x"), 417),
        case("Expect twice, bogus first", get("Expect: x\r\nExpect: 100-continue"), 417),
        case("Expect in HTTP/1.0", "GET / HTTP/1.0\r\nHost: a\r\nExpect: x\r\n\r\n", 200),
        case("Upgrade twice", get("Connection: upgrade\r\nUpgrade: a\r\nUpgrade: b"), 200),
        case(
            "Connection names CL",
            post("Connection: content-length\r\nContent-Length: 1", "x"),
            400,
        ),
        case("Connection names TE", get("Connection: Transfer-Encoding"), 400),
        case("Connection names Cookie", get("Connection: cookie"), 400),
        case("Connection names XFF", get("Connection: X-Forwarded-For"), 400),
        case("Connection names Authorization", get("Connection: authorization"), 400),
        case("Connection empty", get("Connection: ,, ,"), 200),
        case("Connection junk", get("Connection: @#!,close"), 200),
        case("Connection twice", get("Connection: close\r\nConnection: keep-alive"), 200),
    ]
}
