//! The filter between real sockets on the loopback interface.

use std::{fs, path::Path, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::LocalSet,
};

use baton_contract::record::Reader;

use super::*;
use crate::{
    access_log::LogWriter,
    cluster::ClusterManager,
    config::{
        cluster::{Balancer, Cluster, Discovery, DnsFamily, EndpointConfig},
        model::{Address, Bootstrap, ClusterIndex},
        target::WeightedTarget,
    },
    drain::DrainHandle,
    escrow::Desk,
    migrate::{Common, ConfigSource, Export, Moved, Opened, Origin, Term},
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
        source: Some(Arc::new(source())),
        activity: Arc::default(),
        escrow: Desk::default(),
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

/// A configuration that can be handed on.
fn source() -> ConfigSource {
    let file = fs::File::open("/dev/null").unwrap();
    ConfigSource {
        hash: 7,
        file_hash: 7,
        edition: 0,
        path: "envoy.yaml".to_owned(),
        file: file.into(),
    }
}

fn origin(thread: &Thread) -> Rc<Origin> {
    let term = Term::begin(&thread.edition);
    Rc::new(Origin { term, listener: 0, chain: 0, name: "l".into(), keys: Vec::new(), path: None })
}

/// A connection that is served, to its end.
type Life = std::pin::Pin<Box<dyn Future<Output = EndReason>>>;

fn life(serving: Serving) -> Life {
    Box::pin(async move { serving.await.reason })
}

/// A client whose connection is served by the filter.
async fn client(thread: &Rc<Thread>, config: TcpProxy) -> (TcpStream, Life) {
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
        origin: origin(thread),
        opened: Opened::now(),
    });
    (client.unwrap(), life(serving))
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
        assert_eq!(reason, EndReason::Client);
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
            assert_eq!(reason, EndReason::Upstream);
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
            assert_eq!(serving.await, EndReason::Upstream);
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
        assert_eq!(serving.await, EndReason::Upstream);
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
        assert_eq!(serving.await, EndReason::Client);
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
            assert_eq!(serving.await, EndReason::Timeout);
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

/// Takes over what a thread gives away.
fn arrive(filter: &Rc<TcpProxyFilter>, export: &Export) -> Result<Serving, Stay> {
    let mut record = Reader::new(&export.record).unwrap();
    let common = Common::read(&mut record, clock::now()).unwrap();
    let copy = |fd: &std::os::fd::OwnedFd| fd.try_clone().unwrap();
    Rc::clone(filter).import(Arrived {
        record,
        fds: export.fds.iter().map(copy).collect(),
        common,
        listener: "l".into(),
        filter_chain: "".into(),
        buffer_limit_bytes: 1 << 20,
        origin: origin(&filter.thread),
        successor: None,
        at_home: true,
    })
}

/// The first line of a log.
async fn line(thread: &Thread, path: &Path) -> String {
    let deadline = clock::now() + Duration::from_secs(10);
    loop {
        thread.tick();
        let lines = fs::read_to_string(path).unwrap_or_default();
        if !lines.is_empty() || clock::now() > deadline {
            return lines;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[test]
fn a_connection_that_moves_is_counted_once_and_logged_once_at_its_end() {
    block_on(async {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (old, new) = (
            thread(cluster(&[server.local_addr().unwrap()])),
            thread(cluster(&[server.local_addr().unwrap()])),
        );
        let config = TcpProxy { access_log: vec![log_to(&path)], ..proxy() };
        let filter = Rc::new(TcpProxyFilter::new(&new, &Arc::new(config.clone())).unwrap());
        let (mut client, serving) = client(&old, config).await;
        let serving = tokio::task::spawn_local(serving);
        let mut served = server.accept().await.unwrap().0;
        client.write_all(b"before").await.unwrap();
        served.read_exact(&mut [0; 6]).await.unwrap();
        let (exports, mut offers) = tokio::sync::mpsc::unbounded_channel();
        old.mover.start(exports, false);
        // The first offer is refused, as by a generation without room: it goes on where it is.
        client.write_all(b"!").await.unwrap();
        let refused: Export = offers.recv().await.unwrap();
        refused.answer.send(Answer::Stays(Stay::Overload)).unwrap();
        served.read_exact(&mut [0; 1]).await.unwrap();
        let deadlines = old.deadlines.clone();
        let offer = loop {
            deadlines.wake_all();
            let wait = tokio::time::timeout(Duration::from_millis(20), offers.recv());
            if let Ok(offer) = wait.await {
                break offer.unwrap();
            }
        };
        let arrived = arrive(&filter, &offer).unwrap();
        offer.answer.send(Answer::Moved(Moved { ticket: None })).unwrap();
        assert_eq!(serving.await.unwrap(), EndReason::Migrated);
        let talk = async {
            served.write_all(b"after").await.unwrap();
            client.read_exact(&mut [0; 5]).await.unwrap();
            drop(client);
            assert_eq!(served.read(&mut [0; 1]).await.unwrap(), 0);
            drop(served);
        };
        let (ended, ()) = tokio::join!(arrived, talk);
        assert_eq!(ended.reason, EndReason::Client);
        for (thread, total) in [(&old, 1), (&new, 0)] {
            let stats = &thread.cluster(ClusterIndex(0)).unwrap().stats;
            assert_eq!(stats.upstream_cx_total.value(), total);
            assert_eq!(stats.upstream_cx_active.value(), 0);
            assert_eq!(stats.upstream_cx_destroy.value(), 1 - total);
            assert_eq!(TcpStats::new(&thread.stats, "p").downstream_cx_total.value(), total);
        }
        assert_eq!(TcpStats::new(&old.stats, "p").downstream_cx_rx_bytes_total.value(), 7);
        assert_eq!(TcpStats::new(&new.stats, "p").downstream_cx_tx_bytes_total.value(), 5);
        old.tick();
        assert_eq!(line(&new, &path).await, "- - 7 c\n");
    });
}

#[test]
fn a_record_that_does_not_fit_leaves_the_connection_where_it_is() {
    block_on(async {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let old = thread(cluster(&[server.local_addr().unwrap()]));
        let elsewhere = Cluster { name: "other".to_owned(), ..cluster(&[]) };
        let (mut client, serving) = client(&old, proxy()).await;
        let serving = tokio::task::spawn_local(serving);
        let mut served = server.accept().await.unwrap().0;
        let (exports, mut offers) = tokio::sync::mpsc::unbounded_channel();
        old.mover.start(exports, false);
        client.write_all(b"x").await.unwrap();
        let offer: Export = offers.recv().await.unwrap();
        let filter =
            |thread: &Rc<Thread>| Rc::new(TcpProxyFilter::new(thread, &Arc::new(proxy())).unwrap());
        let without = thread(elsewhere);
        assert_eq!(arrive(&filter(&without), &offer).err(), Some(Stay::Config));
        let cut = Export { fds: Vec::new(), ..offer };
        assert_eq!(arrive(&filter(&old), &cut).err(), Some(Stay::Malformed));
        // Nobody answers: it goes on here.
        old.mover.stop();
        drop(cut);
        served.read_exact(&mut [0; 1]).await.unwrap();
        drop((client, served));
        assert_eq!(serving.await.unwrap(), EndReason::Client);
    });
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
