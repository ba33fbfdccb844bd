//! Connecting to real sockets on the loopback interface.

use std::{future::poll_fn, net::Ipv4Addr, path::PathBuf, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UnixListener},
};

use super::*;
use crate::{
    cluster::endpoint::EndpointInfo,
    config::cluster::{Balancer, Discovery, DnsFamily},
};

fn cluster() -> Cluster {
    Cluster {
        name: "c".to_owned(),
        stat_name: "c".to_owned(),
        discovery: Discovery::Static,
        balancer: Balancer::RoundRobin,
        connect_timeout: Duration::from_secs(5),
        endpoints: Vec::new(),
        dns_refresh: Duration::from_secs(5),
        respect_dns_ttl: false,
        dns_family: DnsFamily::Auto,
        keepalive: None,
        idle_timeout: None,
        max_requests_per_connection: None,
        source_address: None,
        buffer_limit_bytes: 1024 * 1024,
    }
}

async fn connect(address: EndpointAddress, cluster: &Cluster) -> io::Result<Stream> {
    let endpoint = Endpoint::new(address, EndpointInfo::default());
    let begun = Connecting::start(&endpoint, cluster);
    let mut attempt = begun.map_err(|error| match error {
        ConnectError::Bind { source, .. } | ConnectError::Socket(source) => source,
    })?;
    poll_fn(|cx| attempt.poll(cx)).await
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(future)
}

#[test]
fn tcp_connects_with_the_options_of_the_cluster() {
    block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let keepalive = TcpKeepalive {
            probes: Some(3),
            time: Some(Duration::from_secs(11)),
            interval: Some(Duration::from_secs(2)),
        };
        let source = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 7));
        let cluster =
            Cluster { keepalive: Some(keepalive), source_address: Some(source), ..cluster() };
        let (stream, accepted) =
            tokio::join!(connect(EndpointAddress::Ip(address), &cluster), listener.accept());
        let (stream, (_accepted, peer)) = (stream.unwrap(), accepted.unwrap());
        assert_eq!(peer.ip(), source);
        assert_eq!(stream.local_addr(), Some(peer));
        assert_eq!(stream.peer_addr(), Some(address));
        let socket = socket2::SockRef::from(&stream);
        assert!(socket.tcp_nodelay().unwrap());
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap().as_secs(), 11);
        assert_eq!(socket.tcp_keepalive_interval().unwrap().as_secs(), 2);
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), 3);
    });
}

#[test]
fn a_port_nobody_listens_on_is_refused() {
    block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let error = connect(EndpointAddress::Ip(address), &cluster()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    });
}

#[test]
fn a_source_address_that_is_not_ours_fails_at_once() {
    block_on(async {
        let source = Some("192.0.2.1".parse().unwrap());
        let cluster = Cluster { source_address: source, ..cluster() };
        let address = EndpointAddress::Ip("127.0.0.1:9".parse().unwrap());
        let error = connect(address, &cluster).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable);
    });
}

#[test]
fn reasons_are_in_the_words_of_envoy() {
    let refused = io::Error::from_raw_os_error(nix::libc::ECONNREFUSED);
    assert_eq!(delayed_reason(&refused), "delayed connect error: Connection refused");
    let source = io::Error::from_raw_os_error(nix::libc::EADDRNOTAVAIL);
    let bind = ConnectError::Bind { address: "192.0.2.77".parse().unwrap(), source };
    let expected = "failed to bind to 192.0.2.77:0: Cannot assign requested address";
    let to = EndpointAddress::Ip("192.0.2.1:80".parse().unwrap());
    assert_eq!(bind.reason(&to), expected);
    let unreachable = io::Error::from_raw_os_error(nix::libc::ENETUNREACH);
    let expected = "immediate connect error: Network is unreachable|remote address:192.0.2.1:80";
    assert_eq!(ConnectError::Socket(unreachable).reason(&to), expected);
    let missing = io::Error::from_raw_os_error(nix::libc::ENOENT);
    let expected = "immediate connect error: No such file or directory|remote address:/run/a";
    let to = EndpointAddress::Pipe(PathBuf::from("/run/a").into());
    assert_eq!(ConnectError::Socket(missing).reason(&to), expected);
}

async fn exchange(path: PathBuf, listener: UnixListener) {
    let cluster = cluster();
    let (stream, accepted) =
        tokio::join!(connect(EndpointAddress::Pipe(path.into()), &cluster), listener.accept());
    let (mut stream, mut accepted) = (stream.unwrap(), accepted.unwrap().0);
    stream.write_all(b"hello").await.unwrap();
    stream.shutdown_write().unwrap();
    let mut heard = Vec::new();
    accepted.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"hello");
    assert_eq!(stream.peer_addr(), None);
}

#[test]
fn unix_sockets_connect_by_path_and_by_abstract_name() {
    block_on(async {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        exchange(path.clone(), UnixListener::bind(&path).unwrap()).await;

        let name = format!("baton-connect-test-{}", std::process::id());
        let raw = format!("\0{name}");
        exchange(PathBuf::from(format!("@{name}")), UnixListener::bind(raw).unwrap()).await;

        let missing = directory.path().join("missing");
        let error = connect(EndpointAddress::Pipe(missing.into()), &cluster()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    });
}
