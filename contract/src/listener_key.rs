//! Names of listening sockets, and what a worker asks the supervisor to bind.

use std::{fmt, net::SocketAddr, path::PathBuf, str::FromStr};

use serde::{Deserialize, Serialize};

/// The place a listener listens on, in one canonical spelling.
///
/// `tcp://0.0.0.0:10000`, `tcp://[::1]:80`, `unix:///run/app.sock`, or `unix:@name` for an
/// abstract socket. Two keys are the same listener when their text is the same; the name of a
/// listener does not matter, so a renamed listener keeps its sockets.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct ListenerKey(Place);

/// What a key stands for.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Place {
    /// A TCP address and port.
    Tcp(SocketAddr),
    /// A Unix socket in the file system, absolute or relative to the supervisor's directory.
    Unix(PathBuf),
    /// A Unix socket in the abstract namespace, without the leading `@`.
    Abstract(String),
}

/// The text is not a listener key.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{0}` is not a listener key such as `tcp://0.0.0.0:80` or `unix:///run/app.sock`")]
pub struct BadListenerKey(pub String);

impl ListenerKey {
    /// The key of a TCP listener.
    pub const fn tcp(address: SocketAddr) -> Self {
        Self(Place::Tcp(address))
    }

    /// The key of a Unix listener; a leading `@` means the abstract namespace.
    pub fn unix(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        match path.to_str().and_then(|text| text.strip_prefix('@')) {
            Some(name) => Self(Place::Abstract(name.to_owned())),
            None => Self(Place::Unix(path)),
        }
    }

    /// What the key stands for.
    pub const fn place(&self) -> &Place {
        &self.0
    }
}

impl fmt::Display for ListenerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Place::Tcp(address) => write!(f, "tcp://{address}"),
            Place::Unix(path) => write!(f, "unix://{}", path.display()),
            Place::Abstract(name) => write!(f, "unix:@{name}"),
        }
    }
}

impl FromStr for ListenerKey {
    type Err = BadListenerKey;

    fn from_str(text: &str) -> Result<Self, BadListenerKey> {
        let bad = || BadListenerKey(text.to_owned());
        if let Some(address) = text.strip_prefix("tcp://") {
            return address.parse().map(Self::tcp).map_err(|_| bad());
        }
        if let Some(name) = text.strip_prefix("unix:@") {
            return Ok(Self(Place::Abstract(name.to_owned())));
        }
        match text.strip_prefix("unix://") {
            Some("") | None => Err(bad()),
            Some(path) => Ok(Self(Place::Unix(PathBuf::from(path)))),
        }
    }
}

impl TryFrom<String> for ListenerKey {
    type Error = BadListenerKey;

    fn try_from(text: String) -> Result<Self, BadListenerKey> {
        text.parse()
    }
}

impl From<ListenerKey> for String {
    fn from(key: ListenerKey) -> Self {
        key.to_string()
    }
}

/// A listener a generation needs.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ListenerSpec {
    /// Where it listens.
    pub key: ListenerKey,
    /// Name in the configuration; an inherited socket with this `FileDescriptorName` is adopted.
    pub name: String,
    /// Options of the sockets.
    #[serde(default)]
    pub options: SocketOptions,
    /// Fewest sockets wanted; the supervisor never gives fewer. Unix listeners have one.
    #[serde(default = "one")]
    pub min_shards: u32,
}

const fn one() -> u32 {
    1
}

/// Options of listening sockets. Unknown ones are ignored, missing ones are defaults.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub struct SocketOptions {
    /// Length of the accept queue of each shard, connections.
    pub backlog: u32,
    /// `IP_TRANSPARENT`: accept connections to foreign addresses.
    pub transparent: bool,
    /// `IP_FREEBIND`: bind to addresses that are not there yet.
    pub freebind: bool,
    /// An IPv6 socket takes IPv4 too.
    pub ipv4_compat: bool,
    /// `TCP_FASTOPEN` queue, connections; `None` = off.
    pub fast_open_queue: Option<u32>,
    /// File mode of a Unix socket; 0 = as the umask makes it.
    pub mode: u32,
}

impl Default for SocketOptions {
    fn default() -> Self {
        Self {
            backlog: 4096,
            transparent: false,
            freebind: false,
            ipv4_compat: false,
            fast_open_queue: None,
            mode: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_one_canonical_spelling() {
        let check = |text: &str| {
            let key: ListenerKey = text.parse().expect(text);
            assert_eq!(key.to_string(), text);
        };
        check("tcp://0.0.0.0:10000");
        check("tcp://[::1]:80");
        check("unix:///run/app.sock");
        check("unix://relative.sock");
        check("unix:@abstract");
    }

    #[test]
    fn nonsense_is_not_a_key() {
        for text in ["", "tcp://", "tcp://host:1", "udp://1.2.3.4:5", "unix://", "/run/x"] {
            assert!(text.parse::<ListenerKey>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_path_with_an_at_sign_is_abstract() {
        assert_eq!(ListenerKey::unix("@x").to_string(), "unix:@x");
        assert_eq!(ListenerKey::unix("/x").to_string(), "unix:///x");
    }
}
