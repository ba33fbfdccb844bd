//! The worker threads: each one runs its own tokio runtime, polls its share of the listener shards
//! and reports that it makes progress.
//!
//! Thread i of T polls the shards with `shard % T == i`. The main thread sends commands and waits
//! for the answers; it never touches what a thread owns.

mod release;
mod update;

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    io,
    os::fd::OwnedFd,
    rc::Rc,
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};

use baton_contract::{
    listener_key::ListenerKey,
    peer::Stay,
    shm::{EscrowId, SegmentWorker, Sums, ThreadSlab, Ticket, mono_ms},
};
use tokio::{
    sync::{mpsc, oneshot},
    task::LocalSet,
};

pub(super) use self::update::{Changed, OwnGate, Update};
use super::{
    awaited::Awaited,
    books::Books,
    crew::{Crew, GiveAway, Import, Landing, Reply},
    watch::{Opinion, Signs, Watch, Watched},
};
use crate::{
    activity::{Activity, Work},
    listener::{
        Serve,
        acceptor::{Acceptor, Patience, Shared},
        limit::{Door, Gate, Permit},
    },
    sys::fault,
};

/// Time between two signs of life of a thread.
const PULSE: Duration = Duration::from_millis(200);

/// What the threads do with connections; made on the thread it serves.
pub(super) trait Service {
    /// Takes the connections of one listener, by its position in the configuration.
    fn listener(&self, index: usize) -> Option<Rc<dyn Serve>>;
    /// Takes up a new edition of the configuration.
    fn update(&self, update: &Update);
    /// Housekeeping; called every [`PULSE`].
    fn tick(&self);
    /// Counts of the ledger: connections opened, and ended by reason.
    fn books(&self) -> Books;
    /// Ends the books: what is still open is cut by a deadline.
    fn cut(&self);
    /// Begins to give connections away, or stops it.
    fn give_away(&self, to: Option<GiveAway>);
    /// Wakes all connections, a few at a time.
    fn look_again(&self);
    /// Prepares to take over what another generation offers.
    ///
    /// # Errors
    /// Why it has to stay there.
    fn import(&self, import: Import) -> Result<Landing, Stay>;
    /// Prepares to go on with a connection of a dead generation; `None` when it is not to be had or
    /// lost, which is in the books then.
    fn inherit(&self, id: EscrowId, import: Import) -> Option<Landing>;
}

/// Makes the service of a thread on that thread.
pub(super) type MakeService =
    dyn Fn(u32, ThreadSlab, &Arc<Activity>) -> Rc<dyn Service> + Send + Sync;

/// A shard and the listener it belongs to.
#[derive(Clone, Debug)]
pub(super) struct Shard {
    pub key: ListenerKey,
    pub number: u32,
    /// Position of the listener in the configuration.
    pub listener: usize,
    pub socket: Arc<OwnedFd>,
}

/// The limits of connections all threads share.
#[derive(Clone, Debug)]
pub(super) struct Gates {
    pub global: Arc<Gate>,
    /// By the position of the listener.
    pub listeners: HashMap<usize, OwnGate>,
}

/// A thread could not do what it was told.
#[derive(Debug, thiserror::Error)]
pub(super) enum ThreadError {
    #[error("cannot start worker thread {index}")]
    Spawn {
        index: u32,
        #[source]
        source: io::Error,
    },
    #[error("cannot poll listener `{key}`")]
    Poll {
        key: ListenerKey,
        #[source]
        source: io::Error,
    },
    #[error("worker thread {0} ended")]
    Ended(u32),
    #[error("no worker thread works")]
    AllStuck,
}

type Done<T = ()> = oneshot::Sender<T>;

#[derive(Debug)]
pub(super) enum Command {
    Add(Vec<Shard>),
    Update { update: Arc<Update>, done: Done },
    Poll(Done<Result<(), ThreadError>>),
    Pause { except: Arc<[ListenerKey]>, done: Done },
    Release { keys: Arc<[ListenerKey]>, patience: Patience, done: Done },
    Cut(Done),
    Report(Done),
    GiveAway(Option<GiveAway>),
    Import { ticket: Ticket, import: Import, replies: mpsc::UnboundedSender<Reply> },
    Land { ticket: Ticket, segment: Arc<SegmentWorker> },
    Forget(Ticket),
    Adopt { id: EscrowId, import: Import },
    LookAgain,
    End,
}

/// All worker threads of the process. They end when this is dropped.
pub(super) struct Threads {
    threads: Vec<Handle>,
}

struct Handle {
    commands: mpsc::UnboundedSender<Command>,
    signs: Arc<Signs>,
    opinion: Rc<Opinion>,
    thread: JoinHandle<()>,
}

impl Threads {
    /// Starts one thread for each slab.
    pub(super) fn start(
        slabs: Vec<ThreadSlab>,
        gates: &Gates,
        make: &Arc<MakeService>,
    ) -> Result<Self, ThreadError> {
        let mut threads = Vec::with_capacity(slabs.len());
        for (index, slab) in (0..).zip(slabs) {
            let (commands, receiver) = mpsc::unbounded_channel();
            let signs = Arc::new(Signs::default());
            signs.pulse.show(&Books::default(), mono_ms());
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(|source| ThreadError::Spawn { index, source })?;
            let start = Start {
                index,
                slab,
                gates: gates.clone(),
                make: Arc::clone(make),
                signs: Arc::clone(&signs),
            };
            let thread = std::thread::Builder::new()
                .name(format!("wrk:{index}"))
                .spawn(move || LocalSet::new().block_on(&runtime, body(start, receiver)))
                .map_err(|source| ThreadError::Spawn { index, source })?;
            threads.push(Handle { commands, signs, opinion: Opinion::good(), thread });
        }
        Ok(Self { threads })
    }

    /// What is needed to find threads that make no progress.
    pub(super) fn watch(&self) -> Watch {
        let watched = (0..).zip(&self.threads);
        Watch(watched.map(|(at, own)| Watched::new(at, &own.signs, &own.opinion)).collect())
    }

    /// A way to the threads for other tasks of the main thread.
    pub(super) fn crew(&self) -> Crew {
        Crew(self.threads.iter().map(|thread| thread.commands.clone()).collect())
    }

    /// Gives each thread its share of the shards. They are not polled yet.
    pub(super) fn add(&self, shards: &[Shard]) {
        let count = self.threads.len().max(1);
        for (index, thread) in self.threads.iter().enumerate() {
            let mine = shards.iter().filter(|shard| shard.number as usize % count == index);
            // A thread that ended is found out by the command that waits for an answer.
            drop(thread.commands.send(Command::Add(mine.cloned().collect())));
        }
    }

    /// Polls all shards; returns when every thread is registered with its poller.
    pub(super) async fn poll(&self) -> Result<(), ThreadError> {
        for answer in self.ask(Command::Poll).await? {
            answer?;
        }
        Ok(())
    }

    /// Stops polling all shards but those of the listeners in `except`. A thread that is stuck polls
    /// nothing, and does as it is told when it goes on.
    pub(super) async fn pause(&self, except: Arc<[ListenerKey]>) -> Result<(), ThreadError> {
        self.ask(|done| Command::Pause { except: Arc::clone(&except), done }).await.map(drop)
    }

    /// Brings the books up to date.
    pub(super) async fn report(&self) -> Result<(), ThreadError> {
        self.ask(Command::Report).await.map(drop)
    }

    /// Writes off all open connections.
    pub(super) async fn cut(&self) -> Result<(), ThreadError> {
        self.ask(Command::Cut).await.map(drop)
    }

    /// The books of all threads, as of their last pulse.
    pub(super) fn books(&self) -> Books {
        self.threads
            .iter()
            .fold(Books::default(), |sum, thread| sum.plus(&thread.signs.pulse.books()))
    }

    /// When the slowest thread made progress last, in ms of `mono_ms`.
    pub(super) fn slowest_mono_ms(&self) -> u64 {
        let pulses = self.threads.iter().map(|thread| thread.signs.pulse.at());
        pulses.min().unwrap_or_else(mono_ms)
    }

    /// Ends the threads and waits for them.
    pub(super) fn join(self) {
        for Handle { commands, thread, .. } in self.threads {
            // Others may hold a way to the thread, so closing this one does not end it.
            drop(commands.send(Command::End));
            if thread.join().is_err() {
                tracing::error!("a worker thread panicked");
            }
        }
    }

    fn send<T>(&self, command: impl Fn(Done<T>) -> Command) -> Vec<Awaited<T>> {
        let send = |(index, thread): (u32, &Handle)| {
            let (done, answer) = oneshot::channel();
            // When the thread is gone the answer never comes, which the caller sees.
            drop(thread.commands.send(command(done)));
            Awaited::new(index, answer, &thread.opinion)
        };
        (0..).zip(&self.threads).map(send).collect()
    }

    /// The answers of all threads but those that are stuck.
    async fn ask<T>(&self, command: impl Fn(Done<T>) -> Command) -> Result<Vec<T>, ThreadError> {
        let mut answers = Vec::with_capacity(self.threads.len());
        for answer in self.send(command) {
            answers.extend(answer.wait().await?);
        }
        Ok(answers)
    }
}

fn answer<T>(done: Done<T>, value: T) {
    if done.send(value).is_err() {
        tracing::debug!("nobody waits for the answer of a worker thread");
    }
}

/// What a thread starts with.
struct Start {
    index: u32,
    slab: ThreadSlab,
    gates: Gates,
    make: Arc<MakeService>,
    signs: Arc<Signs>,
}

/// What a thread owns.
struct Local {
    service: Rc<dyn Service>,
    gates: Gates,
    global: Rc<Door>,
    /// By the position of the listener, as in [`Gates`].
    doors: HashMap<usize, Rc<Door>>,
    sums: Sums,
    listeners: HashMap<usize, Rc<Shared>>,
    acceptors: Vec<(ListenerKey, Acceptor)>,
    signs: Arc<Signs>,
    /// What was offered and accepted, and is not decided yet.
    landings: HashMap<Ticket, Landing>,
}

async fn body(start: Start, mut commands: mpsc::UnboundedReceiver<Command>) {
    let sums = start.slab.sums();
    let mut local = Local {
        global: Door::new(&start.gates.global, &sums),
        doors: HashMap::new(),
        sums,
        gates: start.gates,
        service: (start.make)(start.index, start.slab, &start.signs.activity),
        listeners: HashMap::new(),
        acceptors: Vec::new(),
        signs: start.signs,
        landings: HashMap::new(),
    };
    for (index, own) in &local.gates.listeners {
        local.doors.insert(*index, Door::new(&own.gate, &local.sums));
    }
    let _end = End(Arc::clone(&local.signs));
    local.report();
    local.signs.pulse.begin();
    let mut pulse = tokio::time::interval(PULSE);
    pulse.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            command = commands.recv() => match command {
                Some(Command::End) | None => return,
                Some(command) => {
                    local.signs.activity.begin(Work::Command);
                    local.carry_out(command);
                }
            },
            _ = pulse.tick() => {
                local.signs.activity.begin(Work::Housekeeping);
                local.service.tick();
                local.global.look();
                local.report();
            }
        }
    }
}

/// Says that a thread ended, however it did.
struct End(Arc<Signs>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.pulse.end();
    }
}

impl Local {
    /// Carries a command out and answers.
    fn carry_out(&mut self, command: Command) {
        match command {
            Command::Add(shards) => {
                for shard in shards {
                    self.add(shard);
                }
            }
            Command::Update { update, done } => {
                self.update(&update);
                answer(done, ());
            }
            Command::Poll(done) => answer(done, self.poll()),
            Command::Pause { except, done } => {
                for (key, acceptor) in &mut self.acceptors {
                    if !except.contains(key) {
                        acceptor.stop();
                    }
                }
                answer(done, ());
            }
            Command::Release { keys, patience, done } => self.release(&keys, patience, done),
            Command::Cut(done) => {
                self.service.cut();
                self.report();
                answer(done, ());
            }
            Command::Report(done) => {
                self.service.tick();
                self.report();
                answer(done, ());
            }
            Command::GiveAway(to) => self.service.give_away(to),
            Command::Import { ticket, import, replies } => {
                let landing = self.service.import(import);
                let reply = landing.map(|landing| drop(self.landings.insert(ticket, landing)));
                if replies.send((ticket, reply)).is_err() {
                    self.landings.remove(&ticket);
                }
            }
            Command::Land { ticket, segment } => self.land(ticket, &segment),
            Command::Adopt { id, import } => {
                if let Some(landing) = self.service.inherit(id, import) {
                    self.begin(landing);
                    fault::point("adopt.booked");
                }
            }
            Command::Forget(ticket) => drop(self.landings.remove(&ticket)),
            Command::LookAgain => self.service.look_again(),
            // Ends the loop that calls this.
            Command::End => {}
        }
    }

    /// Serves what was offered; it belongs to this generation now.
    fn land(&mut self, ticket: Ticket, segment: &SegmentWorker) {
        let Some(landing) = self.landings.remove(&ticket) else {
            tracing::error!(
                position = ticket.index,
                nonce = ticket.nonce,
                "a connection that was taken over is lost"
            );
            return;
        };
        self.begin(landing);
        segment.new_booked(ticket);
        fault::point("migrate.new.booked");
    }

    /// Serves what came from another generation.
    fn begin(&self, landing: Landing) {
        let door = landing.listener.and_then(|at| self.doors.get(&at));
        let permit = match door {
            Some(door) => Permit::imported(&self.global, door),
            // Its listener is gone, and its limit with it.
            None => Permit::imported(&self.global, &Door::alone(&Gate::listener("", None))),
        };
        (landing.start)(permit);
    }

    fn add(&mut self, shard: Shard) {
        let Some(shared) = self.shared(shard.listener) else { return };
        self.acceptors.push((shard.key, Acceptor::new(shard.socket, shared)));
    }

    /// What the shards of a listener have in common; made when the first one comes.
    fn shared(&mut self, listener: usize) -> Option<Rc<Shared>> {
        if let Some(shared) = self.listeners.get(&listener) {
            return Some(Rc::clone(shared));
        }
        let own = self.gates.listeners.get(&listener)?;
        let shared = Rc::new(Shared {
            serve: RefCell::new(self.service.listener(listener)?),
            global: Rc::clone(&self.global),
            listener: Rc::clone(self.doors.get(&listener)?),
            rules: Cell::new(own.rules),
        });
        self.listeners.insert(listener, Rc::clone(&shared));
        Some(shared)
    }

    fn poll(&mut self) -> Result<(), ThreadError> {
        for (key, acceptor) in &mut self.acceptors {
            acceptor.start().map_err(|source| ThreadError::Poll { key: key.clone(), source })?;
        }
        Ok(())
    }

    fn release(&mut self, keys: &[ListenerKey], patience: Patience, done: Done) {
        let (released, kept) = self.acceptors.drain(..).partition(|(key, _)| keys.contains(key));
        self.acceptors = kept;
        let released: Vec<(ListenerKey, Acceptor)> = released;
        let emptying: Vec<_> = released
            .into_iter()
            .map(|(key, acceptor)| tokio::task::spawn_local(empty(key, acceptor, patience)))
            .collect();
        tokio::task::spawn_local(async move {
            for task in emptying {
                drop(task.await);
            }
            answer(done, ());
        });
    }

    fn report(&self) {
        self.signs.pulse.show(&self.service.books(), mono_ms());
    }
}

async fn empty(key: ListenerKey, acceptor: Acceptor, patience: Patience) {
    if let Err(error) = acceptor.empty(patience).await {
        tracing::error!(listener = %key, %error, "cannot empty the queue of a removed listener");
    }
}

#[cfg(test)]
mod tests;
