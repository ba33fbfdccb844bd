//! Messages that many others contain: addresses, expressions, data sources, header changes.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use regex::bytes::Regex;

use super::{
    super::{
        message::{Msg, Set, Value},
        model::{Address, TcpKeepalive},
        pattern::{self, Extent},
        route::{AppendAction, HeaderAdd, HeaderChanges},
        source::At,
        yaml::shorten,
    },
    Lower,
};
use crate::format::{self, Format};

/// Largest file that a data source may name, bytes.
const MAX_FILE: u64 = 8 * 1024 * 1024;

/// The field of a oneof that is set, by name.
pub(crate) fn chosen<'m>(message: &'m Msg, oneof: &str) -> Option<(&'static str, &'m Set)> {
    message.fields.iter().find_map(|set| {
        let field = message.field(set)?;
        let group = message.ty.oneofs.get(field.oneof?)?;
        (group.name == oneof).then_some((field.name, set))
    })
}

/// A duration of which zero means "off".
pub(crate) fn limit(message: &Msg, name: &str, default: Option<Duration>) -> Option<Duration> {
    match message.duration(name) {
        None => default,
        Some(Duration::ZERO) => None,
        Some(duration) => Some(duration),
    }
}

/// A size that fits into memory.
pub(crate) fn size(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

/// `TcpKeepalive`.
pub(super) fn keepalive(message: &Msg) -> TcpKeepalive {
    let seconds = |name| message.uint(name).map(Duration::from_secs);
    TcpKeepalive {
        probes: message.uint32("keepalive_probes"),
        time: seconds("keepalive_time"),
        interval: seconds("keepalive_interval"),
    }
}

impl Lower<'_> {
    /// An address to listen on: it must be an IP address or a path.
    pub(super) fn listen_address(&self, message: &Msg) -> Option<Address> {
        match self.address(message)? {
            Address::Name { host, port } => {
                let at = socket_at(message);
                let added = self.report.error(&at, format!("`{host}` is not an IP address"));
                match host.as_str() {
                    "localhost" => added.hint(format!("write `127.0.0.1`, port {port}")),
                    "*" => added.hint("write `0.0.0.0` or `::` to listen on every address"),
                    _ => added.hint("a listener needs an IP address, like `0.0.0.0`"),
                };
                None
            }
            Address::Pipe { path, mode } => {
                if let Some(pipe) = message.message("pipe") {
                    self.socket_file(pipe.text("path"), &pipe.at_of("path"));
                }
                Some(Address::Pipe { path, mode })
            }
            Address::Ip(address) => {
                self.ip_to_listen_on(address.ip(), message);
                Some(Address::Ip(address))
            }
        }
    }

    /// An address of any kind.
    pub(super) fn address(&self, message: &Msg) -> Option<Address> {
        if let Some(pipe) = message.message("pipe") {
            self.socket_path(pipe.text("path"), &pipe.at_of("path"))?;
            let path = PathBuf::from(pipe.text("path"));
            return Some(Address::Pipe { path, mode: pipe.uint32("mode").unwrap_or(0) });
        }
        let socket = message.message("socket_address")?;
        if socket.choice("protocol") == Some("UDP") {
            self.report.error(&socket.at_of("protocol"), "UDP is not implemented by baton yet");
            return None;
        }
        let host = socket.text("address");
        if host.is_empty() {
            return None;
        }
        let port = u16::try_from(socket.uint("port_value").unwrap_or(0)).unwrap_or(0);
        match bare(host).parse::<IpAddr>() {
            Ok(ip) => Some(Address::Ip(SocketAddr::new(ip, port))),
            Err(_) if host.contains(['/', ' ', ':']) => {
                let at = socket.at_of("address");
                let added = self.report.error(&at, format!("`{}` is not a host", shorten(host)));
                let hint = if host.contains("://") {
                    "write the name alone, without `http://`"
                } else if host.contains(':') {
                    "write the port in `port_value`"
                } else {
                    "write an IP address or a name"
                };
                added.hint(hint);
                None
            }
            Err(_) => Some(Address::Name { host: host.to_owned(), port }),
        }
    }

    /// `RegexMatcher`: the whole text must match.
    pub(crate) fn full_regex(&self, message: &Msg) -> Option<Regex> {
        self.compile(message, Extent::Whole)
    }

    fn compile(&self, message: &Msg, extent: Extent) -> Option<Regex> {
        let text = message.text("regex");
        match pattern::compile(text, extent) {
            Ok(regex) => Some(regex),
            Err(error) => {
                let cause = error.to_string();
                let added = self
                    .report
                    .error(
                        &message.at_of("regex"),
                        format!("`{}` is not a regular expression", shorten(text)),
                    )
                    .hint(cause.clone());
                if cause.contains("look-around") || cause.contains("backreference") {
                    added.hint("Envoy's RE2 does not have these either");
                }
                None
            }
        }
    }

    /// `RegexMatchAndSubstitute`: a search, not a full match, and `\1` becomes `${1}`.
    pub(super) fn substitution(&self, message: &Msg) -> Option<(Regex, String)> {
        let pattern = message.message("pattern")?;
        let regex = self.compile(pattern, Extent::Part)?;
        let at = message.at_of("substitution");
        let mut text = String::new();
        let mut chars = message.text("substitution").chars();
        while let Some(c) = chars.next() {
            match (c, c == '\\') {
                ('$', _) => text.push_str("$$"),
                (_, false) => text.push(c),
                (_, true) => match chars.next() {
                    Some('\\') => text.push('\\'),
                    Some(digit) if digit.is_ascii_digit() => {
                        let group = digit.to_digit(10).unwrap_or(0) as usize;
                        if group >= regex.captures_len() {
                            let groups = regex.captures_len() - 1;
                            let text =
                                format!("`\\{digit}` refers to a group, but there are {groups}");
                            self.report.error(&at, text);
                            return None;
                        }
                        text.extend(["${", digit.encode_utf8(&mut [0; 4]), "}"]);
                    }
                    _ => {
                        self.report
                            .error(&at, "a `\\` must be followed by a digit or another `\\`");
                        return None;
                    }
                },
            }
        }
        Some((regex, text))
    }

    /// `DataSource`.
    pub(super) fn data(&self, message: &Msg) -> Option<Arc<[u8]>> {
        let (field, set) = chosen(message, "specifier")?;
        if let Value::Bytes(bytes) = &set.item.value {
            return Some(Arc::from(bytes.as_slice()));
        }
        let text = set.item.text();
        match field {
            "inline_string" => Some(Arc::from(text.as_bytes())),
            "environment_variable" => {
                let value = std::env::var(text).ok();
                if value.is_none() {
                    let text = format!("the environment variable `{text}` is not set");
                    self.report.error(&set.item.at, text);
                }
                value.map(|value| Arc::from(value.into_bytes()))
            }
            "filename" => self.file(text, &set.item.at),
            _ => None,
        }
    }

    fn file(&self, path: &str, at: &At) -> Option<Arc<[u8]>> {
        let read = || {
            let metadata = std::fs::metadata(path)?;
            if !metadata.is_file() || metadata.len() > MAX_FILE {
                let text = format!("it is not a file of at most {MAX_FILE} bytes");
                return Err(std::io::Error::other(text));
            }
            std::fs::read(path)
        };
        match read() {
            Ok(bytes) => Some(Arc::from(bytes)),
            Err(error) => {
                self.report.error(at, format!("cannot read `{}`: {error}", shorten(path)));
                None
            }
        }
    }

    /// A text with `%…%` operators.
    pub(crate) fn format(&self, text: &str, at: &At) -> Option<Format> {
        match format::parse(text) {
            Ok(format) => {
                if format.shows_upstream_local() {
                    self.shows_upstream_local.set(true);
                }
                Some(format)
            }
            Err(error) => {
                self.report.error(at, error.to_string());
                None
            }
        }
    }

    /// The four lists of header changes that many messages have.
    pub(super) fn header_changes(&self, message: &Msg) -> HeaderChanges {
        let add = |name| message.messages(name).filter_map(|m| self.header_add(m)).collect();
        let remove = |name| -> Vec<String> {
            message
                .items(name)
                .iter()
                .filter(|item| self.may_change(item.text(), &item.at))
                .map(|item| item.text().to_ascii_lowercase())
                .collect()
        };
        HeaderChanges {
            request_add: add("request_headers_to_add"),
            request_remove: remove("request_headers_to_remove"),
            response_add: add("response_headers_to_add"),
            response_remove: remove("response_headers_to_remove"),
        }
    }

    /// Whether a header of this name may be changed; reported when not.
    pub(crate) fn may_change(&self, name: &str, at: &At) -> bool {
        let fixed = name.starts_with(':') || name.eq_ignore_ascii_case("host");
        if fixed {
            self.report
                .error(at, format!("`{name}` cannot be added or removed"))
                .hint("use `host_rewrite_literal`, `prefix_rewrite` or `regex_rewrite`");
            return false;
        }
        // Envoy takes more, but what is not a token of RFC 9110 §5.6.2 breaks the message.
        let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        let valid = name.bytes().all(is_token);
        if !valid {
            self.report.error(at, format!("`{}` is not a header's name", shorten(name)));
        }
        valid
    }

    /// `HeaderValueOption`.
    pub(crate) fn header_add(&self, message: &Msg) -> Option<HeaderAdd> {
        let header = message.message("header")?;
        let name = header.text("key");
        if name.is_empty() || !self.may_change(name, &header.at_of("key")) {
            return None;
        }
        let action = match (message.flag("append"), message.choice("append_action")) {
            (Some(_), Some(_)) => {
                let at = message.at_of("append");
                let text = "`append` and `append_action` exclude each other";
                self.report.error(&at, text).hint("keep `append_action`, `append` is deprecated");
                return None;
            }
            (Some(false), None) | (None, Some("OVERWRITE_IF_EXISTS_OR_ADD")) => {
                AppendAction::OverwriteIfExistsOrAdd
            }
            (None, Some("ADD_IF_ABSENT")) => AppendAction::AddIfAbsent,
            (None, Some("OVERWRITE_IF_EXISTS")) => AppendAction::OverwriteIfExists,
            (Some(true) | None, _) => AppendAction::AppendIfExistsOrAdd,
        };
        Some(HeaderAdd {
            name: name.to_ascii_lowercase(),
            value: self.format(header.text("value"), &header.at_of("value"))?,
            action,
            keep_empty: message.flag("keep_empty_value").unwrap_or(false),
        })
    }
}

/// An IPv6 address without the brackets it may have.
pub(super) fn bare(host: &str) -> &str {
    host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host)
}

/// Where the host of an address stands.
pub(super) fn socket_at(message: &Msg) -> At {
    message
        .message("socket_address")
        .map_or_else(|| message.at.clone(), |socket| socket.at_of("address"))
}
