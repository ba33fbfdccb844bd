//! Real threads and sockets with a service that greets and closes.

use std::{
    cell::Cell,
    io::Read,
    net::{SocketAddr, TcpListener, TcpStream},
};

use super::*;
use crate::{
    listener::{
        Accepted,
        limit::{Limit, Permit},
    },
    stats::EndReason,
};

/// Sends the number of its thread and closes.
struct Greeter {
    thread: u32,
    greeted: Cell<u64>,
}

impl Service for Rc<Greeter> {
    fn inherit(&self, _: EscrowId, _: Import) -> Option<Landing> {
        None
    }

    fn listener(&self, _index: usize) -> Option<Rc<dyn Serve>> {
        Some(Self::clone(self) as Rc<dyn Serve>)
    }

    fn tick(&self) {}

    fn books(&self) -> Books {
        let mut ended = [0; 7];
        ended[EndReason::Client as usize] = self.greeted.get();
        Books { opened: self.greeted.get(), ended, ..Books::default() }
    }

    fn give_away(&self, _to: Option<GiveAway>) {}

    fn look_again(&self) {}

    fn import(&self, _import: Import) -> Result<Landing, Stay> {
        Err(Stay::Version)
    }

    fn cut(&self) {}
}

impl Serve for Greeter {
    fn serve(self: Rc<Self>, connection: Accepted, _permit: Permit) {
        let Accepted::Tcp { stream, .. } = connection else { return };
        stream.try_write(&[b'0' + u8::try_from(self.thread).unwrap()]).unwrap();
        self.greeted.set(self.greeted.get() + 1);
    }

    fn refused(&self, _limit: Limit) {}
}

fn make() -> Arc<MakeService> {
    Arc::new(|thread, _slab| Rc::new(Rc::new(Greeter { thread, greeted: Cell::new(0) })))
}

fn gates() -> Gates {
    Gates {
        global: Gate::global(None, None),
        listeners: Arc::from([OwnGate {
            gate: Gate::listener("l", None),
            ignores_global: false,
            keepalive: None,
        }]),
    }
}

fn shard(number: u32) -> (Shard, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let key = ListenerKey::tcp(address);
    (Shard { key, number, listener: 0, socket: Arc::new(listener.into()) }, address)
}

fn greeting(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(20), test).await.expect("in time");
    });
}

fn start(threads: usize) -> Threads {
    let slabs = (0..threads).map(|_| ThreadSlab::detached()).collect();
    Threads::start(slabs, &gates(), &make()).unwrap()
}

#[test]
fn each_thread_polls_the_shards_of_its_remainder() {
    run(async {
        let threads = start(2);
        let (shards, addresses): (Vec<_>, Vec<_>) = (0..5).map(shard).unzip();
        threads.add(&shards);
        threads.poll().await.unwrap();
        let served: Vec<_> = addresses.into_iter().map(greeting).collect();
        assert_eq!(served, ["0", "1", "0", "1", "0"]);
        threads.report().await.unwrap();
        assert_eq!(threads.books().opened, 5);
        threads.join();
    });
}

#[test]
fn paused_threads_leave_connections_in_the_queue_and_resume_serves_them() {
    run(async {
        let threads = start(1);
        let (kept, kept_address) = shard(0);
        let (removed, removed_address) = shard(0);
        let except: Arc<[ListenerKey]> = Arc::from([removed.key.clone()]);
        threads.add(&[kept, removed]);
        threads.poll().await.unwrap();
        threads.pause(except).await.unwrap();
        assert_eq!(greeting(removed_address), "0", "goes on until it is released");
        let mut waiting = TcpStream::connect(kept_address).unwrap();
        threads.report().await.unwrap();
        assert_eq!(threads.books().opened, 1);
        threads.poll().await.unwrap();
        let mut text = String::new();
        waiting.read_to_string(&mut text).unwrap();
        assert_eq!(text, "0");
        threads.join();
    });
}

#[test]
fn a_released_listener_serves_what_waits_and_is_closed() {
    run(async {
        let threads = start(2);
        let (shard, address) = shard(1);
        let key = shard.key.clone();
        threads.add(std::slice::from_ref(&shard));
        drop(shard);
        let mut waiting = TcpStream::connect(address).unwrap();
        threads.release(&Arc::from([key]), Patience::REMOVED).await.unwrap();
        let mut text = String::new();
        waiting.read_to_string(&mut text).unwrap();
        assert_eq!(text, "1");
        assert!(TcpStream::connect(address).is_err());
        threads.join();
    });
}
