//! The command line.

use crate::engine::{Pace, Plan};
use crate::exchange::{Exchange, Request};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// A load generator and a backend that cost less than the proxy between them.
#[derive(Debug, clap::Parser)]
#[command(name = "baton-load", version)]
pub(crate) struct Options {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Serves HTTP/1 on one port and TCP on another until stdin is closed; prints the ports.
    Backend(BackendOptions),
    /// Passes bytes on and does nothing else: what the kernel costs any proxy.
    Relay(RelayOptions),
    /// Sends HTTP/1 requests.
    Http(HttpOptions),
    /// Sends WebSocket messages that come back.
    Ws(WsOptions),
    /// Opens connections, each for one byte that comes back.
    TcpConnect(ConnectOptions),
    /// Transfers as many bytes as possible.
    TcpBulk(BulkOptions),
    /// Holds idle connections that had one request each, until stdin is closed.
    Idle(IdleOptions),
}

/// Where the backend listens.
#[derive(Debug, clap::Args)]
pub(crate) struct BackendOptions {
    /// Port for HTTP; 0 is a free one.
    #[arg(long, default_value_t = 0)]
    pub(crate) http_port: u16,
    /// Port for TCP; 0 is a free one.
    #[arg(long, default_value_t = 0)]
    pub(crate) tcp_port: u16,
}

/// What is relayed.
#[derive(Debug, clap::Args)]
pub(crate) struct RelayOptions {
    /// Ports of this machine and where their connections go, `8080=127.0.0.1:9000`.
    #[arg(required = true, value_parser = pair)]
    pub(crate) pairs: Vec<(u16, SocketAddr)>,
    /// Moves bytes by `splice` through a pipe, not by `recv` and `send`.
    #[arg(long)]
    pub(crate) splice: bool,
}

fn pair(text: &str) -> Result<(u16, SocketAddr), String> {
    let (port, to) = text.split_once('=').ok_or("expected PORT=ADDRESS")?;
    let port = port.parse().map_err(|error| format!("`{port}`: {error}"))?;
    Ok((port, to.parse().map_err(|error| format!("`{to}`: {error}"))?))
}

/// Common to all that repeat an exchange.
#[derive(Debug, clap::Args)]
pub(crate) struct PaceOptions {
    /// The proxy.
    #[arg(long)]
    target: SocketAddr,
    /// Connections.
    #[arg(long, short = 'c', default_value_t = 64)]
    connections: usize,
    /// Duration, in seconds.
    #[arg(long, short = 'd', default_value_t = 5.0)]
    seconds: f64,
    /// Requests per second of all connections together; without it, as many as possible.
    #[arg(long)]
    rate: Option<f64>,
    /// The times of requests of the first so many seconds do not count.
    #[arg(long, default_value_t = 0.0)]
    warmup: f64,
}

impl PaceOptions {
    fn plan(&self, exchange: Exchange, once: bool) -> Plan {
        Plan {
            target: self.target,
            connections: self.connections.max(1),
            exchange,
            once,
            pace: self.rate.filter(|rate| *rate > 0.0).map_or(Pace::Closed, Pace::PerSecond),
            time: seconds(self.seconds),
            warmup: seconds(self.warmup),
        }
    }
}

fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::ZERO)
}

/// HTTP requests.
#[derive(Debug, clap::Args)]
pub(crate) struct HttpOptions {
    #[command(flatten)]
    pace: PaceOptions,
    /// Paths, which take turns; `/bytes/N` is answered by N bytes.
    #[arg(long, default_value = "/bytes/1024")]
    path: Vec<String>,
    /// A file with a path on each line, in place of `--path`.
    #[arg(long)]
    paths: Option<PathBuf>,
    /// The method.
    #[arg(long, default_value = "GET")]
    method: String,
    /// Bytes of a body.
    #[arg(long)]
    body: Option<usize>,
    /// A connection for each request.
    #[arg(long)]
    close: bool,
}

impl HttpOptions {
    /// The run.
    pub(crate) fn plan(&self) -> Plan {
        let text = self.paths.as_ref().map(|name| {
            std::fs::read_to_string(name).expect("the file of `--paths` must be readable")
        });
        let paths: Vec<String> = text
            .map_or_else(|| self.path.clone(), |text| text.lines().map(str::to_owned).collect());
        let requests = paths.iter().map(|path| self.request(path)).collect();
        self.pace.plan(Exchange::Http(requests), self.close)
    }

    fn request(&self, path: &str) -> Request {
        let connection = if self.close { "connection: close\r\n" } else { "" };
        let length =
            self.body.map_or_else(String::new, |body| format!("content-length: {body}\r\n"));
        let head = format!(
            "{} {path} HTTP/1.1\r\nhost: localhost\r\nuser-agent: baton-load\r\naccept: */*\r\n{connection}{length}\r\n",
            self.method
        );
        let mut bytes = head.into_bytes();
        bytes.extend(std::iter::repeat_n(b'x', self.body.unwrap_or(0)));
        Request { bytes, length: answer_length(path, self.body) }
    }
}

/// Bytes of the body that the backend answers with.
fn answer_length(path: &str, body: Option<usize>) -> Option<usize> {
    // It answers a body by the number of its bytes.
    let count = body.map(|body| body.to_string().len());
    count.or_else(|| path.rsplit_once("/bytes/")?.1.parse().ok())
}

/// WebSocket messages.
#[derive(Debug, clap::Args)]
pub(crate) struct WsOptions {
    #[command(flatten)]
    pace: PaceOptions,
    /// Bytes of a message, at most 125.
    #[arg(long, default_value_t = 64)]
    size: usize,
}

impl WsOptions {
    /// The run.
    pub(crate) fn plan(&self) -> Plan {
        self.pace.plan(Exchange::websocket("/ws", self.size), false)
    }
}

/// Short connections.
#[derive(Debug, clap::Args)]
pub(crate) struct ConnectOptions {
    #[command(flatten)]
    pace: PaceOptions,
}

impl ConnectOptions {
    /// The run.
    pub(crate) fn plan(&self) -> Plan {
        self.pace.plan(Exchange::echo(), true)
    }
}

/// Which way a bulk transfer goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub(crate) enum Direction {
    /// From the backend.
    Down,
    /// To the backend.
    Up,
    /// One connection this way, the next that way.
    Both,
}

/// Long transfers.
#[derive(Debug, clap::Args)]
pub(crate) struct BulkOptions {
    /// The proxy.
    #[arg(long)]
    pub(crate) target: SocketAddr,
    /// Connections.
    #[arg(long, short = 'c', default_value_t = 4)]
    pub(crate) connections: usize,
    /// Duration, in seconds.
    #[arg(long, short = 'd', default_value_t = 5.0)]
    seconds: f64,
    /// Which way.
    #[arg(long, value_enum, default_value = "both")]
    pub(crate) direction: Direction,
}

impl BulkOptions {
    /// Duration.
    pub(crate) fn time(&self) -> Duration {
        seconds(self.seconds)
    }
}

/// Idle connections.
#[derive(Debug, clap::Args)]
pub(crate) struct IdleOptions {
    /// The proxy.
    #[arg(long)]
    pub(crate) target: SocketAddr,
    /// Connections.
    #[arg(long, short = 'c', default_value_t = 10_000)]
    pub(crate) connections: usize,
    /// The path that each asks for once.
    #[arg(long, default_value = "/bytes/1024")]
    pub(crate) path: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    fn http(arguments: &[&str]) -> Vec<Request> {
        let fixed = ["baton-load", "http", "--target", "127.0.0.1:1"];
        let options = Options::parse_from(fixed.iter().chain(arguments));
        let Command::Http(options) = options.command else { panic!("no HTTP") };
        let Exchange::Http(requests) = options.plan().exchange else { panic!("no requests") };
        requests
    }

    #[test]
    fn the_expected_length_follows_from_the_request() {
        let lengths = |arguments: &[&str]| {
            http(arguments).iter().map(|request| request.length).collect::<Vec<_>>()
        };
        assert_eq!(lengths(&[]), [Some(1024)]);
        assert_eq!(lengths(&["--path", "/a/bytes/7", "--path", "/b"]), [Some(7), None]);
        assert_eq!(lengths(&["--method", "POST", "--body", "16384"]), [Some(5)]);
    }

    #[test]
    fn a_pair_is_a_port_and_an_address() {
        assert_eq!(pair("80=127.0.0.1:9000"), Ok((80, SocketAddr::from(([127, 0, 0, 1], 9000)))));
        for wrong in ["80", "x=127.0.0.1:1", "80=x", "70000=127.0.0.1:1"] {
            assert!(pair(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_request_is_ready_to_be_sent() {
        let requests = http(&["--method", "POST", "--body", "2", "--close", "--path", "/x"]);
        let text = String::from_utf8_lossy(&requests[0].bytes).into_owned();
        assert!(text.starts_with("POST /x HTTP/1.1\r\nhost: localhost\r\n"), "{text}");
        assert!(text.ends_with("connection: close\r\ncontent-length: 2\r\n\r\nxx"), "{text}");
    }
}
