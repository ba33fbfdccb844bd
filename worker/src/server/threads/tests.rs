//! Real threads and sockets with a service that greets and closes.

use std::{
    cell::Cell,
    io::Read,
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Mutex, mpsc::Receiver},
};

use super::*;
use crate::{
    listener::{
        Accepted,
        acceptor::Rules,
        limit::{Capacity, Limit, Permit},
    },
    stats::EndReason,
};

/// Sends the number of its thread and closes.
struct Greeter {
    thread: u32,
    /// Where thread 1 hangs when it looks again.
    gate: Option<Arc<Mutex<Receiver<()>>>>,
    greeted: Cell<u64>,
}

impl Service for Rc<Greeter> {
    fn inherit(&self, _: EscrowId, _: Import) -> Option<Landing> {
        None
    }

    fn listener(&self, _index: usize) -> Option<Rc<dyn Serve>> {
        Some(Self::clone(self) as Rc<dyn Serve>)
    }

    fn update(&self, _update: &Update) {}

    fn tick(&self) {}

    fn books(&self) -> Books {
        let mut ended = [0; 7];
        ended[EndReason::Client as usize] = self.greeted.get();
        Books { opened: self.greeted.get(), ended, ..Books::default() }
    }

    fn give_away(&self, _to: Option<GiveAway>) {}

    fn look_again(&self) {
        if let Some(gate) = self.gate.as_ref().filter(|_| self.thread == 1) {
            gate.lock().unwrap().recv().unwrap();
        }
    }

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
    make_with(None)
}

fn make_with(gate: Option<Arc<Mutex<Receiver<()>>>>) -> Arc<MakeService> {
    Arc::new(move |thread, _slab, _activity| {
        Rc::new(Rc::new(Greeter { thread, gate: gate.clone(), greeted: Cell::new(0) }))
    })
}

fn gates() -> Gates {
    Gates {
        global: Gate::global(None, Capacity::UNLIMITED),
        listeners: HashMap::from([(
            0,
            OwnGate { gate: Gate::listener("l", None), rules: Rules::default() },
        )]),
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
    start_with(threads, &make())
}

fn start_with(threads: usize, make: &Arc<MakeService>) -> Threads {
    let slabs = (0..threads).map(|_| ThreadSlab::detached()).collect();
    Threads::start(slabs, &gates(), make).unwrap()
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
        threads.release(&Arc::from([key]), Patience::REMOVED, &[]).await.unwrap();
        let mut text = String::new();
        waiting.read_to_string(&mut text).unwrap();
        assert_eq!(text, "1");
        assert!(TcpStream::connect(address).is_err());
        threads.join();
    });
}

#[test]
fn a_stuck_thread_is_found_and_does_not_keep_others_from_what_they_are_told() {
    run(LocalSet::new().run_until(async {
        let (go_on, gate) = std::sync::mpsc::channel::<()>();
        let gate = Arc::new(Mutex::new(gate));
        let threads = start_with(2, &make_with(Some(gate)));
        let (shards, addresses): (Vec<_>, Vec<_>) = (0..2).map(shard).unzip();
        threads.add(&shards);
        threads.poll().await.unwrap();
        let (watch, news) = (Rc::new(threads.watch()), Rc::new(tokio::sync::Notify::new()));
        let watching = Rc::clone(&watch).run(Duration::from_millis(600), Rc::clone(&news));
        tokio::task::spawn_local(watching);
        threads.crew().look_again();
        threads.pause(Arc::from([])).await.unwrap();
        let waiting: Vec<_> =
            addresses.iter().map(|address| TcpStream::connect(address).unwrap()).collect();
        let keys: Vec<_> = shards.iter().map(|shard| shard.key.clone()).collect();
        threads.release(&keys.as_slice().into(), Patience::REMOVED, &shards).await.unwrap();
        for mut stream in waiting {
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            assert_eq!(text, "0", "another thread empties the queue of the stuck one");
        }
        let stuck = watch.stuck();
        assert_eq!(stuck.iter().map(|stuck| stuck.thread).collect::<Vec<_>>(), [1]);
        assert!(watch.alive_at() <= mono_ms() - 400, "the heartbeat is that of the stuck thread");
        go_on.send(()).unwrap();
        while !watch.stuck().is_empty() {
            news.notified().await;
        }
        threads.join();
    }));
}
