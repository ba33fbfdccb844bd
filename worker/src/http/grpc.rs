//! Answers of the proxy to calls of gRPC: their clients read the status from headers of their own and
//! the HTTP status has to be 200.

use super::headers::Headers;

/// The `grpc-status` that says most nearly what an HTTP status says.
pub fn status(http: u16) -> &'static str {
    match http {
        400 => "13",
        401 => "16",
        403 => "7",
        404 => "12",
        429 | 502 | 503 | 504 => "14",
        _ => "2",
    }
}

/// Makes the head of an answer with an HTTP status one that gRPC clients understand. The status line
/// has to say 200.
pub fn seal(http: u16, headers: &mut Headers) {
    headers.set(b"content-type", b"application/grpc");
    // Who answers may know it better.
    if !headers.contains(b"grpc-status") {
        headers.append(b"grpc-status", status(http).as_bytes());
    }
}

/// Adds the text of an answer as `grpc-message`, in which what is not printable is escaped.
pub fn add_message(text: &[u8], headers: &mut Headers) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut message = Vec::with_capacity(text.len());
    for &byte in text {
        if matches!(byte, b' '..=b'}') && byte != b'%' {
            message.push(byte);
        } else {
            let digit = |nibble: u8| HEX.get(usize::from(nibble)).copied().unwrap_or(b'0');
            message.extend([b'%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
    headers.append(b"grpc-message", &message);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::head::RequestHead;

    #[test]
    fn every_status_has_the_grpc_status_that_envoy_gives_it() {
        let known = [(400, "13"), (401, "16"), (403, "7"), (404, "12"), (429, "14"), (502, "14")];
        for http in 100..1000 {
            let expected = match known.iter().find(|(status, _)| *status == http) {
                Some((_, grpc)) => grpc,
                None if http == 503 || http == 504 => "14",
                None => "2",
            };
            assert_eq!(status(http), expected, "{http}");
        }
    }

    #[test]
    fn a_message_is_escaped() {
        let mut headers = Headers::default();
        add_message("b\u{f6}d%\n~y }".as_bytes(), &mut headers);
        assert_eq!(headers.get(b"grpc-message"), Some(&b"b%C3%B6d%25%0A%7Ey }"[..]));
    }

    #[test]
    fn a_call_of_grpc_is_known_by_its_content_type() {
        for (types, expected) in [
            (&["application/grpc"][..], true),
            (&["application/grpc+proto"], true),
            (&["application/grpc+"], true),
            (&["application/grpc;charset=utf-8"], false),
            (&["application/grpc-web"], false),
            (&["application/grpcfoo"], false),
            (&["APPLICATION/GRPC"], false),
            (&["text/plain"], false),
            (&["application/grpc", "text/plain"], false),
            (&["text/plain", "application/grpc"], false),
            (&[], false),
        ] {
            let mut head = RequestHead::default();
            for kind in types {
                head.headers.append(b"content-type", kind.as_bytes());
            }
            assert_eq!(head.is_grpc(), expected, "{types:?}");
        }
    }
}
