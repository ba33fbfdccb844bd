//! The few things of an HTTP/1 head that a load generator and its backend look at.
//!
//! Not a parser of HTTP/1: it believes what it is sent, because the proxies between the two ends
//! are those that check it. What makes an exchange wrong (status, length) is looked at.

use memchr::memchr;

/// Longest head, in bytes. Heads of these programs and of the proxies have a few hundred.
pub(crate) const HEAD_BYTES_MAX: usize = 16 * 1024;

/// A head that is complete.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Head {
    /// Bytes of the head with its empty line.
    pub(crate) size: usize,
    /// Bytes of the first line without its end.
    pub(crate) first: usize,
    /// `content-length`.
    pub(crate) length: Option<usize>,
    /// Whether `connection: close` stands there.
    pub(crate) close: bool,
    /// Whether there is a `transfer-encoding`.
    pub(crate) encoded: bool,
    /// Whether there is an `upgrade`.
    pub(crate) upgrade: bool,
}

/// A head that cannot be understood.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Malformed;

/// The head that `bytes` begin with; `None` as long as it is not complete.
///
/// # Errors
///
/// When it is longer than [`HEAD_BYTES_MAX`] or a length is no number.
pub(crate) fn scan(bytes: &[u8]) -> Result<Option<Head>, Malformed> {
    let mut head = Head::default();
    loop {
        let rest = bytes.get(head.size..).unwrap_or_default();
        let Some(end) = memchr(b'\n', rest) else {
            return if bytes.len() > HEAD_BYTES_MAX { Err(Malformed) } else { Ok(None) };
        };
        let line = rest.get(..end).unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if head.size == 0 {
            head.first = line.len();
        } else if line.is_empty() {
            head.size += end + 1;
            return Ok(Some(head));
        } else {
            head.add(line)?;
        }
        head.size += end + 1;
    }
}

/// The status of an answer, from its first line.
pub(crate) fn status(bytes: &[u8]) -> Option<u16> {
    let digits = bytes.strip_prefix(b"HTTP/1.1 ")?.get(..3)?;
    u16::try_from(number(digits)?).ok()
}

/// A decimal number without a sign.
pub(crate) fn number(digits: &[u8]) -> Option<usize> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_usize, |value, digit| {
        let digit = digit.is_ascii_digit().then(|| usize::from(digit - b'0'))?;
        value.checked_mul(10)?.checked_add(digit)
    })
}

impl Head {
    /// Takes one line after the first. Only lines with the right first letter are looked at.
    fn add(&mut self, line: &[u8]) -> Result<(), Malformed> {
        let initial = line.first().map_or(0, u8::to_ascii_lowercase);
        if !matches!(initial, b'c' | b't' | b'u') {
            return Ok(());
        }
        let Some(colon) = memchr(b':', line) else { return Ok(()) };
        let (name, value) = line.split_at(colon);
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        if name.eq_ignore_ascii_case(b"content-length") {
            self.length = Some(number(value).ok_or(Malformed)?);
        } else if name.eq_ignore_ascii_case(b"connection") {
            self.close |= value.eq_ignore_ascii_case(b"close");
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            self.encoded = true;
        } else if name.eq_ignore_ascii_case(b"upgrade") {
            self.upgrade = true;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 12\r\n\r\nhello";

    #[test]
    fn an_answer_is_complete_at_its_empty_line() {
        for end in 0..ANSWER.len() - 5 {
            assert_eq!(scan(&ANSWER[..end]), Ok(None), "after {end} bytes");
        }
        let expected =
            Head { size: ANSWER.len() - 5, first: 15, length: Some(12), ..Head::default() };
        assert_eq!(scan(ANSWER), Ok(Some(expected)));
    }

    #[test]
    fn fields_that_change_the_framing_are_seen_in_any_case() {
        let check = |line: &str, expected: Head| {
            let text = format!("HTTP/1.1 200 OK\r\n{line}\r\n\r\n");
            let expected = Head { size: text.len(), first: 15, ..expected };
            assert_eq!(scan(text.as_bytes()), Ok(Some(expected)), "{line}");
        };
        check("content-length: 0", Head { length: Some(0), ..Head::default() });
        check("CONTENT-LENGTH:7 ", Head { length: Some(7), ..Head::default() });
        check("Connection: Close", Head { close: true, ..Head::default() });
        check("connection: keep-alive", Head::default());
        check("Transfer-Encoding: chunked", Head { encoded: true, ..Head::default() });
        check("upgrade: websocket", Head { upgrade: true, ..Head::default() });
        check("content-type: text/plain", Head::default());
        check("no colon", Head::default());
    }

    #[test]
    fn nonsense_is_refused() {
        let check = |text: &[u8]| assert_eq!(scan(text), Err(Malformed));
        check(b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n");
        check(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999999\r\n\r\n");
        check(b"HTTP/1.1 200 OK\r\ncontent-length:\r\n\r\n");
        check(&vec![b'x'; HEAD_BYTES_MAX + 1]);
    }

    #[test]
    fn the_status_is_that_of_the_first_line() {
        assert_eq!(status(ANSWER), Some(200));
        assert_eq!(status(b"HTTP/1.1 101 Switching Protocols\r\n"), Some(101));
        assert_eq!(status(b"HTTP/1.0 200 OK\r\n"), None);
        assert_eq!(status(b"HTTP/1.1 2x0 OK\r\n"), None);
        assert_eq!(status(b"HTTP/1.1 2"), None);
    }
}
