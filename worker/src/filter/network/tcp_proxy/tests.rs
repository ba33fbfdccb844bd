//! The filter between real sockets on the loopback interface.

use std::{fs, path::Path, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::LocalSet,
};

use super::*;
use crate::migrate::{Opened, Origin};
use crate::{
    access_log::LogWriter,
    cluster::ClusterManager,
    config::{
        cluster::{Balancer, Cluster, Discovery, DnsFamily, EndpointConfig},
        listener::WeightedTarget,
        model::{Address, Bootstrap, ClusterIndex},
    },
    drain::DrainHandle,
    stats::ThreadStats,
    thread::Parts,
};

fn cluster(endpoints: &[std::net::SocketAddr]) -> Cluster {
    let endpoint = |address: &std::net::SocketAddr| EndpointConfig {
        address: Address::Ip(*address),
        hostname: String::new(),
        weight: 1,
        priority: 0,
        zone: String::new(),
    };
    Cluster {
        name: "c".to_owned(),
        stat_name: "c".to_owned(),
        discovery: Discovery::Static,
        balancer: Balancer::RoundRobin,
        connect_timeout: Duration::from_secs(5),
        endpoints: endpoints.iter().map(endpoint).collect(),
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

fn proxy() -> TcpProxy {
    TcpProxy {
        stat_prefix: "p".to_owned(),
        clusters: vec![WeightedTarget { cluster: ClusterIndex(0), weight: 1 }],
        idle_timeout: Some(Duration::from_hours(1)),
        max_connection_duration: None,
        max_connect_attempts: 1,
        access_log: Vec::new(),
    }
}

/// A thread with one cluster.
fn thread(cluster: Cluster) -> Rc<Thread> {
    let bootstrap =
        Arc::new(Bootstrap { clusters: vec![Arc::new(cluster)], ..Bootstrap::default() });
    Thread::new(Parts {
        index: 0,
        stats: ThreadStats::detached(),
        drain: DrainHandle::new(clock::now()),
        clusters: ClusterManager::new(&bootstrap),
        log_writer: LogWriter::new(),
        source: None,
        bootstrap,
    })
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let tasks = LocalSet::new();
    let limited =
        tasks.run_until(async { tokio::time::timeout(Duration::from_secs(20), future).await });
    runtime.block_on(limited).expect("in time")
}

/// A client whose connection is served by the filter.
async fn client(thread: &Rc<Thread>, config: TcpProxy) -> (TcpStream, Serving) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    let (stream, peer) = accepted.unwrap();
    let filter = Rc::new(TcpProxyFilter::new(thread, &Arc::new(config)).unwrap());
    let serving = filter.serve(NewConnection {
        buffer_limit_bytes: 1 << 20,
        stream: stream.into(),
        peer: Some(peer),
        local: Some(address),
        listener: "l".into(),
        filter_chain: "".into(),
        origin: Origin::nowhere(),
        opened: Opened::now(),
    });
    (client.unwrap(), serving)
}

/// A port that refuses connections.
async fn closed_port() -> std::net::SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

#[test]
fn a_connection_is_proxied_both_ways_and_counted() {
    block_on(async {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let thread = thread(cluster(&[server.local_addr().unwrap()]));
        let (mut client, serving) = client(&thread, proxy()).await;
        let talk = async {
            client.write_all(b"ping").await.unwrap();
            client.shutdown().await.unwrap();
            let mut served = server.accept().await.unwrap().0;
            let mut heard = Vec::new();
            served.read_to_end(&mut heard).await.unwrap();
            assert_eq!(heard, b"ping");
            served.write_all(b"pong!").await.unwrap();
            drop(served);
            heard.clear();
            client.read_to_end(&mut heard).await.unwrap();
            assert_eq!(heard, b"pong!");
        };
        let (reason, ()) = tokio::join!(serving, talk);
        assert_eq!(reason.reason, EndReason::Client);
        let stats = &thread.cluster(ClusterIndex(0)).unwrap().stats;
        assert_eq!(stats.upstream_cx_total.value(), 1);
        assert_eq!(stats.upstream_cx_active.value(), 0);
        assert_eq!(stats.upstream_rq_active.value(), 0);
        assert_eq!(stats.upstream_cx_tx_bytes_total.value(), 4);
        assert_eq!(stats.upstream_cx_rx_bytes_total.value(), 5);
        let tcp = TcpStats::new(&thread.stats, "p");
        assert_eq!(tcp.downstream_cx_total.value(), 1);
        assert_eq!(tcp.downstream_cx_tx_bytes_total.value(), 5);
    });
}

#[test]
fn another_endpoint_is_tried_when_one_refuses() {
    block_on(async {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let refused = closed_port().await;
        let thread = thread(cluster(&[refused, server.local_addr().unwrap()]));
        for _ in 0..4 {
            let config = TcpProxy { max_connect_attempts: 2, ..proxy() };
            let (mut client, serving) = client(&thread, config).await;
            let talk = async {
                let mut served = server.accept().await.unwrap().0;
                served.write_all(b"x").await.unwrap();
                assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 1);
                drop(served);
                assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0);
                drop(client);
            };
            let (reason, ()) = tokio::join!(serving, talk);
            assert_eq!(reason.reason, EndReason::Upstream);
        }
        let stats = &thread.cluster(ClusterIndex(0)).unwrap().stats;
        // A failure costs two turns of the rotation, so all fail first but perhaps the first.
        assert!((3..=4).contains(&stats.upstream_cx_connect_fail.value()));
        assert_eq!(stats.upstream_cx_connect_attempts_exceeded.value(), 0);
        assert_eq!(stats.upstream_cx_active.value(), 0);
    });
}

#[test]
fn a_client_is_closed_when_nobody_can_be_reached() {
    block_on(async {
        for endpoints in [vec![], vec![closed_port().await]] {
            let thread = thread(cluster(&endpoints));
            let (mut client, serving) = client(&thread, proxy()).await;
            assert_eq!(serving.await.reason, EndReason::Upstream);
            assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0);
            let stats = &thread.cluster(ClusterIndex(0)).unwrap().stats;
            let nobody = u64::from(endpoints.is_empty());
            assert_eq!(stats.upstream_cx_none_healthy.value(), nobody);
            assert_eq!(stats.upstream_cx_connect_attempts_exceeded.value(), 1 - nobody);
        }
    });
}

/// An address whose accept queue is full, so that connecting takes for ever.
async fn full_backlog() -> (socket2::Socket, Vec<TcpStream>, std::net::SocketAddr) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let any: std::net::SocketAddr = "127.0.0.1:0".parse().unwrap();
    socket.bind(&any.into()).unwrap();
    socket.listen(0).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let mut waiting = Vec::new();
    let patience = Duration::from_millis(200);
    while let Ok(stream) = tokio::time::timeout(patience, TcpStream::connect(address)).await {
        waiting.push(stream.unwrap());
    }
    (socket, waiting, address)
}

#[test]
fn a_connect_that_takes_too_long_is_given_up() {
    block_on(async {
        let (_socket, _waiting, address) = full_backlog().await;
        let slow = Cluster { connect_timeout: Duration::from_millis(50), ..cluster(&[address]) };
        let thread = thread(slow);
        let deadlines = thread.deadlines.clone();
        tokio::task::spawn_local(async move { deadlines.run().await });
        let (mut client, serving) = client(&thread, proxy()).await;
        client.write_all(b"kept while connecting").await.unwrap();
        assert_eq!(serving.await.reason, EndReason::Upstream);
        let stats = &thread.cluster(ClusterIndex(0)).unwrap().stats;
        assert_eq!(stats.upstream_cx_connect_timeout.value(), 1);
        assert_eq!(stats.upstream_cx_connect_fail.value(), 1);
    });
}

#[test]
fn a_client_that_resets_while_we_connect_ends_the_attempt() {
    block_on(async {
        let (_socket, _waiting, address) = full_backlog().await;
        let thread = thread(cluster(&[address]));
        let (client, serving) = client(&thread, proxy()).await;
        socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
        drop(client);
        assert_eq!(serving.await.reason, EndReason::Client);
        assert_eq!(thread.cluster(ClusterIndex(0)).unwrap().stats.upstream_cx_active.value(), 0);
    });
}

#[test]
fn idle_and_old_connections_end_by_timeout() {
    block_on(async {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let thread = thread(cluster(&[server.local_addr().unwrap()]));
        let deadlines = thread.deadlines.clone();
        tokio::task::spawn_local(async move { deadlines.run().await });
        let short = Some(Duration::from_millis(40));
        let idle = TcpProxy { idle_timeout: short, ..proxy() };
        let old = TcpProxy { max_connection_duration: short, ..proxy() };
        for config in [idle, old] {
            let (mut client, serving) = client(&thread, config).await;
            assert_eq!(serving.await.reason, EndReason::Timeout);
            assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0);
        }
        let stats = TcpStats::new(&thread.stats, "p");
        assert_eq!(stats.idle_timeout.value(), 1);
        assert_eq!(stats.max_downstream_connection_duration.value(), 1);
        assert_eq!(thread.cluster(ClusterIndex(0)).unwrap().stats.upstream_cx_active.value(), 0);
    });
}

#[test]
fn weights_choose_the_cluster() {
    let target = |cluster, weight| WeightedTarget { cluster: ClusterIndex(cluster), weight };
    let config = TcpProxy { clusters: vec![target(4, 3), target(5, 0), target(6, 1)], ..proxy() };
    let chosen: Vec<usize> =
        (0..5).map(|random| session::choose_cluster(&config, random).unwrap().0).collect();
    assert_eq!(chosen, [4, 4, 4, 6, 4]);
    let none = TcpProxy { clusters: Vec::new(), ..proxy() };
    assert_eq!(session::choose_cluster(&none, 1), None);
}

fn log_to(path: &Path) -> crate::config::access_log::AccessLog {
    use crate::config::access_log::{AccessLog, LogFormat, Sink};
    let format = "%PROTOCOL% %RESPONSE_FLAGS% %BYTES_RECEIVED% %UPSTREAM_CLUSTER%\n";
    AccessLog {
        sink: Sink::File(path.to_owned()),
        format: LogFormat::Text(crate::format::parse(format).unwrap()),
        filter: None,
    }
}

#[test]
fn the_access_log_has_a_line_for_each_connection() {
    block_on(async {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let thread = thread(cluster(&[closed_port().await]));
        let config = TcpProxy { access_log: vec![log_to(&path)], ..proxy() };
        let (_client, serving) = client(&thread, config).await;
        serving.await;
        thread.tick();
        let deadline = clock::now() + Duration::from_secs(10);
        let mut lines = String::new();
        while lines.is_empty() && clock::now() < deadline {
            tokio::time::sleep(Duration::from_millis(1)).await;
            lines = fs::read_to_string(&path).unwrap_or_default();
        }
        assert_eq!(lines, "- UF,URX 0 c\n");
    });
}
