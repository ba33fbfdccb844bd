//! HTTP/1 messages as their reader understands them: what does not depend on how the bytes came.

/// Fields whose values differ from run to run, and those that say how the message is framed.
const VOLATILE: [&str; 5] = [
    "connection:",
    "date:",
    "transfer-encoding:",
    "x-envoy-upstream-service-time:",
    "x-request-id:",
];

/// A message.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Message {
    /// First line.
    pub start: String,
    /// The other lines, in the order of the alphabet.
    pub fields: Vec<String>,
    /// Without chunks, as far as it came.
    pub body: String,
    /// Trailers.
    pub trailers: Vec<String>,
    /// Its end was there.
    pub whole: bool,
}

/// How the end of a body is found.
enum Framing {
    Length(usize),
    Chunked,
    Rest,
}

/// All requests in what an upstream got.
pub fn requests(bytes: &[u8]) -> Vec<Message> {
    messages(bytes, |head, _| {
        let upgrade = head.start.starts_with("CONNECT ") || field(head, "upgrade").is_some();
        if upgrade { Framing::Rest } else { declared(head).unwrap_or(Framing::Length(0)) }
    })
}

/// All responses to requests with these methods in what a client got; without `100 Continue`, which
/// depends on when the body came.
pub fn responses(bytes: &[u8], methods: &[&str]) -> Vec<Message> {
    let all = messages(bytes, |head, before| {
        let method = methods.get(before).copied().unwrap_or("GET");
        let status = head.start.split(' ').nth(1).unwrap_or_default();
        match status {
            "101" => Framing::Rest,
            "204" | "304" => Framing::Length(0),
            _ if status.starts_with('1') || method == "HEAD" => Framing::Length(0),
            _ if status.starts_with('2') && method == "CONNECT" => Framing::Rest,
            _ => declared(head).unwrap_or(Framing::Rest),
        }
    });
    all.into_iter().filter(|message| !message.is_interim()).collect()
}

/// The framing that the fields declare.
fn declared(head: &Message) -> Option<Framing> {
    if field(head, "transfer-encoding").is_some_and(|coding| coding.ends_with("chunked")) {
        return Some(Framing::Chunked);
    }
    Some(Framing::Length(field(head, "content-length")?.parse().ok()?))
}

fn field<'m>(head: &'m Message, name: &str) -> Option<&'m str> {
    head.fields.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

/// `framing` is told how many messages that are not interim came before.
fn messages(bytes: &[u8], framing: impl Fn(&Message, usize) -> Framing) -> Vec<Message> {
    // Each byte a character: not all that is sent is UTF-8.
    let text: String = bytes.iter().copied().map(char::from).collect();
    let mut rest = text.as_str();
    let mut found = Vec::new();
    let mut before = 0;
    while let Some((head, behind)) = rest.split_once("\r\n\r\n") {
        let mut message = Message::of(head);
        let framing = framing(&message, before);
        message.fields.retain(|line| !VOLATILE.iter().any(|name| line.starts_with(name)));
        rest = message.read_body(&framing, behind);
        before += usize::from(!message.is_interim());
        found.push(message);
    }
    found
}

impl Message {
    fn of(head: &str) -> Self {
        let mut lines = head.split("\r\n").map(str::to_owned);
        let start = lines.next().unwrap_or_default();
        let mut fields: Vec<_> = lines.collect();
        fields.sort();
        Self { start, fields, ..Self::default() }
    }

    /// Reads the body; what follows it.
    fn read_body<'t>(&mut self, framing: &Framing, behind: &'t str) -> &'t str {
        match framing {
            Framing::Rest => {
                self.body = behind.into();
                ""
            }
            Framing::Length(length) => {
                let taken = byte_of(behind, *length);
                self.whole = behind.chars().count() >= *length;
                self.body = behind[..taken].into();
                &behind[taken..]
            }
            Framing::Chunked => self.read_chunks(behind).unwrap_or_default(),
        }
    }

    /// `None` when the end is not there.
    fn read_chunks<'t>(&mut self, mut behind: &'t str) -> Option<&'t str> {
        loop {
            let (size, data) = behind.split_once("\r\n")?;
            let size = usize::from_str_radix(size.split(';').next()?, 16).ok()?;
            if size == 0 {
                behind = data;
                break;
            }
            let taken = byte_of(data, size);
            self.body.push_str(&data[..taken]);
            behind = data[taken..].strip_prefix("\r\n")?;
        }
        loop {
            let (line, more) = behind.split_once("\r\n")?;
            behind = more;
            if line.is_empty() {
                self.whole = true;
                return Some(behind);
            }
            self.trailers.push(line.into());
        }
    }

    fn is_interim(&self) -> bool {
        self.start.starts_with("HTTP/1.1 1") && !self.start.starts_with("HTTP/1.1 101")
    }

    /// Whether one of the two is the other one, or the beginning of it.
    pub fn agrees_with(&self, other: &Self) -> bool {
        let bodies_agree = self.body.starts_with(&other.body) || other.body.starts_with(&self.body);
        let ends_agree = !self.whole || !other.whole || self.trailers == other.trailers;
        self.start == other.start && self.fields == other.fields && bodies_agree && ends_agree
    }
}

/// Where the character of this number begins, or the end.
fn byte_of(text: &str, character: usize) -> usize {
    text.char_indices().nth(character).map_or(text.len(), |(at, _)| at)
}
