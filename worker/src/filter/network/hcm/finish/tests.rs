//! A connection that does not get further.

use std::{io::Read, net::TcpListener, ops::ControlFlow, rc::Rc, sync::Arc};

use super::*;
use crate::{
    access_log::LogWriter,
    cluster::ClusterManager,
    config::{
        listener::NetworkFilter,
        load::{Source, load},
    },
    drain::DrainHandle,
    filter::network::NewConnection,
    migrate::{Opened, Origin},
    stats::ThreadStats,
    thread::{Parts, Thread},
    transport::Stream,
};

const CONFIG: &str = r#"
static_resources:
  listeners:
  - address: {socket_address: {address: 127.0.0.1, port_value: 0}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: test
          route_config: {}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
"#;

/// A connection manager on a thread of its own.
fn manager() -> Rc<Hcm> {
    let source = Source { path: "test.yaml".into(), bytes: CONFIG.into() };
    let bootstrap = Arc::new(load(&source, &crate::extension::load_options()).unwrap().bootstrap);
    let thread = Thread::new(Parts {
        index: 0,
        activity: Arc::default(),
        escrow: crate::escrow::Desk::default(),
        clusters: ClusterManager::new(&bootstrap),
        bootstrap: Arc::clone(&bootstrap),
        stats: ThreadStats::detached(),
        drain: DrainHandle::new(crate::clock::now()),
        log_writer: LogWriter::new(),
        source: None,
    });
    let filter = &bootstrap.listeners[0].filter_chains[0].filters[0];
    let NetworkFilter::HttpConnectionManager(config) = filter else { panic!("{filter:?}") };
    Rc::new(Hcm::new(&thread, config).unwrap())
}

#[test]
fn a_connection_that_does_not_get_further_is_cut_and_counted() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _runtime = runtime.enter();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let hcm = manager();
    let mut connection = Connection::new(
        Rc::clone(&hcm),
        NewConnection {
            stream: Stream::adopt(listener.accept().unwrap().0.into()).unwrap(),
            peer: None,
            local: None,
            listener: "l".into(),
            filter_chain: "".into(),
            buffer_limit_bytes: 1 << 20,
            origin: Origin::nowhere(),
            opened: Opened::now(),
        },
    );
    let stuck = crate::progress::drive(|| ControlFlow::<(), _>::Continue(true)).unwrap_err();
    assert_eq!(connection.give_up(stuck), EndReason::CutByDeadline);
    assert_eq!(hcm.thread.ledger.stuck_connections(), 1);
    drop(connection);
    let seen = client.read(&mut [0]);
    assert!(seen.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset));
}
