//! Just enough HTTP/1 and WebSocket for a client and a server that know each other.

use std::io::{self, BufRead, Read, Write};

/// Longest head that is read, bytes.
const HEAD_MAX: u64 = 16 * 1024;
/// Key of client frames; any will do.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// First line and headers of a message.
#[derive(Debug, Default)]
pub(super) struct Head {
    pub first_line: String,
    pub content_length: usize,
    pub closes: bool,
    pub upgrades: bool,
}

/// Reads a head; `None` when the other side closed before it.
pub(super) fn read_head(from: &mut impl BufRead) -> io::Result<Option<Head>> {
    let mut from = from.take(HEAD_MAX);
    let mut head = Head::default();
    if from.read_line(&mut head.first_line)? == 0 {
        return Ok(None);
    }
    loop {
        let mut line = String::new();
        if from.read_line(&mut line)? == 0 {
            return Err(io::Error::other("the head breaks off"));
        }
        let line = line.trim_end().to_ascii_lowercase();
        let Some((name, value)) = line.split_once(':') else { break };
        match (name, value.trim()) {
            ("content-length", length) => {
                head.content_length = length.parse().map_err(io::Error::other)?;
            }
            ("connection", "close") => head.closes = true,
            ("upgrade", "websocket") => head.upgrades = true,
            _ => {}
        }
    }
    head.first_line.truncate(head.first_line.trim_end().len());
    Ok(Some(head))
}

/// Reads exactly this many bytes.
pub(super) fn read_body(from: &mut impl Read, length: usize) -> io::Result<Vec<u8>> {
    let mut body = vec![0; length];
    from.read_exact(&mut body)?;
    Ok(body)
}

/// Byte number `at` of every long body, so that both sides know what must come.
pub(super) fn pattern(at: usize) -> u8 {
    let mixed = (at as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56;
    u8::try_from(mixed).unwrap_or(0)
}

/// Part of the pattern.
pub(super) fn pattern_part(start: usize, length: usize) -> Vec<u8> {
    (start..start + length).map(pattern).collect()
}

/// Sends a short text frame (RFC 6455 §5.2); a client masks it.
pub(super) fn send_frame(to: &mut impl Write, text: &[u8], masked: bool) -> io::Result<()> {
    let length = u8::try_from(text.len()).ok().filter(|length| *length < 126);
    let length = length.ok_or_else(|| io::Error::other("only short frames"))?;
    let mut frame = vec![0x81, length | if masked { 0x80 } else { 0 }];
    if masked {
        frame.extend_from_slice(&MASK);
        frame.extend(text.iter().zip(MASK.iter().cycle()).map(|(byte, key)| byte ^ key));
    } else {
        frame.extend_from_slice(text);
    }
    to.write_all(&frame)
}

/// Receives a short text frame.
pub(super) fn receive_frame(from: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut start = [0; 2];
    from.read_exact(&mut start)?;
    let [kind, length] = start;
    if kind != 0x81 || length & 0x7f >= 126 {
        return Err(io::Error::other("not a short text frame"));
    }
    let mut mask = [0; 4];
    if length & 0x80 != 0 {
        from.read_exact(&mut mask)?;
    }
    let mut text = read_body(from, usize::from(length & 0x7f))?;
    for (byte, key) in text.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_back_as_they_were() {
        for masked in [true, false] {
            let mut wire = Vec::new();
            send_frame(&mut wire, b"message 7", masked).unwrap();
            assert_eq!(receive_frame(&mut wire.as_slice()).unwrap(), b"message 7");
        }
    }

    #[test]
    fn a_head_tells_length_and_connection() {
        let text = "HTTP/1.1 200 OK\r\nContent-Length: 12\r\nConnection: close\r\n\r\n";
        let head = read_head(&mut text.as_bytes()).unwrap().unwrap();
        assert_eq!((head.first_line.as_str(), head.content_length), ("HTTP/1.1 200 OK", 12));
        assert!(head.closes);
        assert!(read_head(&mut "".as_bytes()).unwrap().is_none());
    }
}
