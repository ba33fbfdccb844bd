//! With real sockets on the loopback interface.

use std::{
    cell::{Cell, RefCell},
    io::Read,
    net::{TcpListener as StdListener, TcpStream as StdStream},
};

use tokio::task::LocalSet;

use super::*;
use crate::listener::limit::{Capacity, Gate};

#[derive(Default)]
struct Collector {
    connections: RefCell<Vec<(Accepted, Permit)>>,
    refused: Cell<usize>,
}

impl Serve for Collector {
    fn serve(self: Rc<Self>, connection: Accepted, permit: Permit) {
        self.connections.borrow_mut().push((connection, permit));
    }

    fn refused(&self, _limit: Limit) {
        self.refused.set(self.refused.get() + 1);
    }
}

struct Fixture {
    collector: Rc<Collector>,
    acceptor: Acceptor,
    address: SocketAddr,
}

fn fixture(max: Option<u64>) -> Fixture {
    let listener = StdListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let collector = Rc::new(Collector::default());
    let shared = Shared {
        serve: RefCell::new(Rc::clone(&collector) as Rc<dyn Serve>),
        global: Door::alone(&Gate::global(None, Capacity::UNLIMITED)),
        listener: Door::alone(&Gate::listener("l", max)),
        rules: Cell::default(),
    };
    let acceptor = Acceptor::new(Arc::new(listener.into()), Rc::new(shared));
    Fixture { collector, acceptor, address }
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        tokio::time::timeout(Duration::from_secs(20), test).await.expect("in time");
    });
}

async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[test]
fn connections_wait_while_nobody_polls_and_none_is_lost() {
    run(async {
        let mut f = fixture(None);
        let early: Vec<_> = (0..3).map(|_| StdStream::connect(f.address).unwrap()).collect();
        f.acceptor.start().unwrap();
        until(|| f.collector.connections.borrow().len() == 3).await;
        f.acceptor.stop();
        let late: Vec<_> = (0..3).map(|_| StdStream::connect(f.address).unwrap()).collect();
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(f.collector.connections.borrow().len(), 3, "paused");
        f.acceptor.start().unwrap();
        until(|| f.collector.connections.borrow().len() == 6).await;
        drop((early, late));
    });
}

#[test]
fn over_the_limit_a_connection_is_closed_and_counted() {
    run(async {
        let mut f = fixture(Some(1));
        f.acceptor.start().unwrap();
        let kept = StdStream::connect(f.address).unwrap();
        until(|| f.collector.connections.borrow().len() == 1).await;
        let mut over = StdStream::connect(f.address).unwrap();
        until(|| f.collector.refused.get() == 1).await;
        assert_eq!(over.read(&mut [0]).unwrap(), 0, "closed");
        f.collector.connections.borrow_mut().clear();
        let next = StdStream::connect(f.address).unwrap();
        until(|| f.collector.connections.borrow().len() == 1).await;
        drop((kept, next));
    });
}

#[test]
fn a_removed_listener_accepts_what_waits_before_it_closes() {
    run(async {
        let f = fixture(None);
        let waiting: Vec<_> = (0..5).map(|_| StdStream::connect(f.address).unwrap()).collect();
        f.acceptor.empty(Patience::REMOVED).await.unwrap();
        assert_eq!(f.collector.connections.borrow().len(), 5);
        assert!(StdStream::connect(f.address).is_err(), "closed");
        drop(waiting);
    });
}

#[test]
fn accepted_connections_inherit_the_options() {
    run(async {
        let mut f = fixture(None);
        let keepalive = |interval| model::TcpKeepalive {
            probes: Some(3),
            time: Some(Duration::from_secs(77)),
            interval,
        };
        let earlier = keepalive(Some(Duration::from_secs(5)));
        set_inherited_options(&f.acceptor.socket, Some(&earlier)).unwrap();
        let interval = SockRef::from(&*f.acceptor.socket).tcp_keepalive_interval().unwrap();
        assert_eq!(interval, Duration::from_secs(5));
        let rules = Rules { keepalive: Some(keepalive(None)), ..Rules::default() };
        f.acceptor.shared.rules.set(rules);
        f.acceptor.start().unwrap();
        let client = StdStream::connect(f.address).unwrap();
        until(|| f.collector.connections.borrow().len() == 1).await;
        let connections = f.collector.connections.borrow();
        let Some((Accepted::Tcp { stream, .. }, _)) = connections.first() else { panic!("TCP") };
        let socket = SockRef::from(stream);
        assert!(socket.tcp_nodelay().unwrap());
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(77));
        assert!(socket.tcp_keepalive_interval().unwrap() > Duration::from_secs(5), "the system's");
        drop(client);
    });
}

#[test]
fn only_errors_that_stay_need_a_pause() {
    let check = |code: Errno, expected: bool| {
        assert_eq!(needs_pause(&io::Error::from_raw_os_error(code as i32)), expected, "{code}");
    };
    check(Errno::EMFILE, true);
    check(Errno::ENFILE, true);
    check(Errno::ENOMEM, true);
    check(Errno::ECONNABORTED, false);
}

#[test]
fn only_a_listener_of_one_address_knows_that_of_its_connections() {
    let one = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    assert_eq!(only_address(&one), Some(one.local_addr().unwrap()));
    let all = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    assert_eq!(only_address(&all), None);
}
