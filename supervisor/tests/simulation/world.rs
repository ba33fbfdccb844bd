//! Workers, a disk and people, all of them made from one seed.

mod behaviour;
mod crash;
mod live;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use baton_contract::{
    control::Reload,
    generation::{Generation, State},
    listener_key::{ListenerKey, ListenerSpec, SocketOptions},
    message::{
        DrainListeners, DrainStrategy, Drained, FailReason, Failed, FromWorker, Hello,
        NeedListeners, Ready, Released, Status, StuckThread, ToWorker,
    },
    version::{FEATURES, ProtoRange, shm_layout},
};
use baton_supervisor::state::{
    Policy, Supervisor,
    action::{Action, Kill, Recipe},
    event::{
        Arrival, CommandId, ConfigId, Death, Estate, Event, Orphan, ResourcesId, StopKind, Time,
        Waiter,
    },
};

use crate::rules::{Rules, Seen};

/// Lines of the trace that are kept.
const TRACE: usize = 400;

/// What a configuration makes a worker do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Nature {
    Good,
    Invalid,
    BindFails,
    CrashStarting,
    CrashWarming,
    CrashTaking,
    CrashServing,
    HangStarting,
    HangWarming,
    HangTaking,
    HangServing,
}

const BAD: [Nature; 10] = [
    Nature::Invalid,
    Nature::BindFails,
    Nature::CrashStarting,
    Nature::CrashWarming,
    Nature::CrashTaking,
    Nature::CrashServing,
    Nature::HangStarting,
    Nature::HangWarming,
    Nature::HangTaking,
    Nature::HangServing,
];

/// A process.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) config: ConfigId,
    pub(crate) alive: bool,
    pub(crate) hung: bool,
    /// One of its threads makes no progress.
    stuck: bool,
    pub(crate) polling: bool,
    draining: bool,
    /// It was told TAKE, so it serves on without a supervisor.
    took: bool,
    /// Sockets it has.
    pub(crate) keys: BTreeSet<ListenerKey>,
    /// Listeners its configuration has now.
    pub(crate) wants: BTreeSet<ListenerKey>,
    /// Listeners it was told to empty and has not closed yet.
    releasing: BTreeSet<ListenerKey>,
    /// Listeners somebody asked it to drain.
    pub(crate) drained: BTreeSet<ListenerKey>,
    /// It has what it needs to begin with.
    warmed: bool,
    /// Its channel delivers in order.
    inbox_until: Time,
    outbox_until: Time,
}

/// What the agenda holds.
#[derive(Clone, Debug)]
enum Item {
    /// A message reaches a worker.
    ToWorker(Generation, Option<CommandId>, ToWorker),
    Welcomed(Generation),
    GivenListeners(Generation, BTreeSet<ListenerKey>),
    /// It has emptied and closed these.
    Emptied(Generation, Vec<ListenerKey>),
    /// It asks again for what it could not have.
    AskAgain(Generation),
    /// Something reaches the supervisor.
    ToSupervisor(Event),
    Heartbeat(Generation),
    /// A worker dies.
    Die(Generation, Death),
    /// A worker stops to do anything.
    Freeze(Generation),
    /// Its last connection ended.
    Empty(Generation),
    /// An orphan comes back to a new supervisor.
    Return(Generation),
    /// The service manager starts the supervisor again.
    Restart,
    People,
    Quiet,
    LastReload,
    LastStop,
}

/// Everything around the core.
pub(crate) struct World {
    core: Supervisor,
    policy: Policy,
    random: fastrand::Rng,
    now: Time,
    agenda: BTreeMap<(Time, u64), Item>,
    count: u64,
    pub(crate) workers: BTreeMap<Generation, Worker>,
    /// Sockets that were sent to each worker, as the performer counts.
    given: BTreeMap<Generation, BTreeSet<ListenerKey>>,
    natures: BTreeMap<ConfigId, (Nature, BTreeSet<ListenerKey>)>,
    disk: ConfigId,
    next_waiter: u64,
    faults: bool,
    trace: VecDeque<String>,
    rules: Rules,
    finished: bool,
    /// It ended because it could not start; the service manager starts it again.
    down: bool,
}

fn key(number: u16) -> ListenerKey {
    ListenerKey::tcp(([127, 0, 0, 1], number).into())
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let policy = Policy {
            probation: Duration::from_millis(random.u64(0..12_000)),
            max_generations: random.usize(2..6),
            parent_shutdown_time: Duration::from_secs(random.u64(5..60)),
            stop_time: Duration::from_secs(5),
            drain_strategy: DrainStrategy::Migrate,
            ..Policy::default()
        };
        let mut world = Self {
            core: Supervisor::new(policy),
            policy,
            random,
            now: Time::ZERO,
            agenda: BTreeMap::new(),
            count: 0,
            workers: BTreeMap::new(),
            given: BTreeMap::new(),
            natures: BTreeMap::new(),
            disk: ConfigId(0),
            next_waiter: 0,
            faults: false,
            trace: VecDeque::new(),
            rules: Rules::new(policy),
            finished: false,
            down: false,
        };
        world.write(Nature::Good);
        world
    }

    /// Lives through a busy time, a quiet time, one more reload and a stop.
    pub(crate) fn run(&mut self) -> Result<(), String> {
        let busy = Duration::from_secs(self.random.u64(20..90));
        self.plan(Duration::from_secs(2), Item::People);
        self.plan(busy, Item::Quiet);
        let quiet = busy + Duration::from_secs(150);
        self.plan(quiet, Item::LastReload);
        self.plan(quiet + Duration::from_mins(1), Item::LastStop);
        self.step(Event::Start)?;
        while !self.finished {
            let planned = self.agenda.keys().next().map(|(at, _)| *at);
            let turn = self.now + Duration::from_millis(500);
            let wake = self.core.wake_at().filter(|_| !self.down);
            let next = planned.into_iter().chain(wake).fold(turn, Time::min);
            self.now = self.now.max(next);
            while let Some(entry) = self.agenda.first_entry()
                && entry.key().0 <= self.now
            {
                let item = entry.remove();
                self.happen(item)?;
            }
            self.step(Event::Tick)?;
            if !self.down {
                self.rules.no_busy_loop(self.now, self.core.wake_at())?;
            }
            if self.now > quiet + Duration::from_secs(200) {
                return Err("it did not stop".to_owned());
            }
        }
        self.rules.at_the_end(&self.workers)
    }

    pub(crate) fn trace(&self) -> String {
        self.trace.iter().fold(String::new(), |all, line| all + line + "\n")
    }

    pub(crate) fn seen(&self) -> Seen {
        self.rules.seen.clone()
    }

    fn note(&mut self, line: &str) {
        if self.trace.len() == TRACE {
            self.trace.pop_front();
        }
        self.trace.push_back(format!("{:>9} ms {line}", self.now.as_millis()));
    }

    fn plan(&mut self, at: Time, item: Item) {
        self.count += 1;
        self.agenda.insert((at, self.count), item);
    }

    /// Gives an event to the core and carries out what it wants, as the performer does.
    fn step(&mut self, event: Event) -> Result<(), String> {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            if self.finished || self.down {
                return Ok(());
            }
            let dull = matches!(
                event,
                Event::Tick
                    | Event::Beat { .. }
                    | Event::Message { message: FromWorker::Status(_), .. }
            );
            if !dull {
                self.note(&format!("→ {event:?}"));
            }
            self.rules.before(&event, &self.core);
            let mut actions = Vec::new();
            self.core.step(self.now, event, &mut actions);
            for action in actions {
                self.note(&format!("    {action:?}"));
                self.rules.check(&action, &self.core)?;
                self.act(action, &mut events);
            }
            self.rules.after(&self.core)?;
        }
        Ok(())
    }

    fn act(&mut self, action: Action, events: &mut VecDeque<Event>) {
        match action {
            Action::ReadConfig => {
                let unreadable = self.faults && self.random.u8(..) < 8;
                let result = if unreadable { Err("EACCES".to_owned()) } else { Ok(self.disk) };
                events.push_back(Event::ConfigRead(result));
            }
            Action::Spawn { generation, recipe } => {
                if self.faults && self.random.u8(..) < 5 {
                    let text = "no program".to_owned();
                    return events.push_back(Event::SpawnFailed { generation, text });
                }
                self.spawn(generation, recipe.config);
                events.push_back(Event::Spawned { generation, pid: 100 + generation.0 });
            }
            Action::Bind { generation, listeners, .. } => {
                let fails = self.nature(generation) == Nature::BindFails;
                let result = if fails { Err("EADDRINUSE".to_owned()) } else { Ok(()) };
                if !fails {
                    self.rules.bound(&listeners);
                }
                events.push_back(Event::Bound { generation, result });
            }
            Action::Listen { generation, listeners } => {
                self.rules.listening(&listeners);
                events.push_back(Event::Listening { generation, result: Ok(()) });
            }
            Action::Welcome { generation, .. } => self.post(generation, Item::Welcomed(generation)),
            Action::BindMore { generation, listeners, .. } => {
                let event = self.bind_more(generation, &listeners);
                events.push_back(event);
            }
            Action::SendListeners { generation, keys, .. } => {
                let given = self.given.entry(generation).or_default();
                let lacks = keys.into_iter().filter(|key| given.insert(key.clone())).collect();
                self.post(generation, Item::GivenListeners(generation, lacks));
            }
            Action::Send { generation, message, command } => {
                self.post(generation, Item::ToWorker(generation, command, message));
            }
            Action::Signal { generation, signal } => {
                let hung = self.workers.get(&generation).is_none_or(|worker| worker.hung);
                if signal == Kill::Kill || !hung {
                    let number = if signal == Kill::Kill { 9 } else { 15 };
                    self.plan(self.now, Item::Die(generation, Death::Killed(number)));
                }
            }
            Action::Finish(Ok(_)) => self.finished = true,
            Action::Finish(Err(_)) => {
                self.down = true;
                self.plan(self.now + Duration::from_millis(100), Item::Restart);
            }
            Action::Check { .. } => {
                let refused = self.random.bool();
                let result = if refused { Err("no".to_owned()) } else { Ok(()) };
                events.push_back(Event::Checked(result));
            }
            Action::Execute { .. } => self.execute(events),
            Action::Rescue { .. }
            | Action::Deafen(_)
            | Action::Release(_)
            | Action::ReleaseAll
            | Action::Introduce { .. }
            | Action::SetState { .. }
            | Action::Retire { .. }
            | Action::Progress { .. }
            | Action::Verdict { .. }
            | Action::Answer { .. }
            | Action::Notify(_)
            | Action::Log(..) => {}
        }
    }

    fn nature(&self, generation: Generation) -> Nature {
        let config = self.workers.get(&generation).map(|worker| worker.config);
        config.and_then(|config| self.natures.get(&config)).map_or(Nature::Good, |n| n.0)
    }

    fn spawn(&mut self, generation: Generation, config: ConfigId) {
        let keys = self.natures.get(&config).map(|(_, keys)| keys.clone()).unwrap_or_default();
        let worker = Worker {
            config,
            alive: true,
            hung: false,
            stuck: false,
            polling: false,
            draining: false,
            took: false,
            keys: BTreeSet::new(),
            wants: keys,
            releasing: BTreeSet::new(),
            drained: BTreeSet::new(),
            warmed: false,
            inbox_until: self.now,
            outbox_until: self.now,
        };
        self.workers.insert(generation, worker);
        if self.nature(generation) == Nature::CrashStarting {
            let at = self.now + self.latency();
            return self.plan(at, Item::Die(generation, Death::Killed(11)));
        }
        let hello = Hello {
            proto: ProtoRange::ours(),
            shm_layout: shm_layout(),
            build_id: String::new(),
            features: FEATURES.iter().map(|&name| name.to_owned()).collect(),
            pid: 0,
        };
        self.say(generation, hello.into());
        let next = self.now + Duration::from_secs(1);
        self.plan(next, Item::Heartbeat(generation));
    }

    /// Mostly short, sometimes late.
    fn latency(&mut self) -> Duration {
        match self.random.u8(..) {
            0..8 if self.faults => Duration::from_millis(self.random.u64(100..8000)),
            _ => Duration::from_micros(self.random.u64(10..30_000)),
        }
    }

    /// Puts something into a worker's channel; what was put there before arrives before.
    fn post(&mut self, generation: Generation, item: Item) {
        let latency = self.latency();
        let Some(worker) = self.workers.get_mut(&generation) else { return };
        worker.inbox_until = worker.inbox_until.max(self.now + latency);
        let at = worker.inbox_until;
        self.plan(at, item);
    }

    /// The other direction; sometimes a message is lost.
    fn tell(&mut self, generation: Generation, event: Event) {
        let latency = self.latency();
        let lost = self.faults && self.random.u8(..) < 3;
        let Some(worker) = self.workers.get_mut(&generation) else { return };
        if worker.hung || !worker.alive {
            return;
        }
        worker.outbox_until = worker.outbox_until.max(self.now + latency);
        let at = worker.outbox_until;
        if lost {
            self.note(&format!("lost: {event:?}"));
        } else {
            self.plan(at, Item::ToSupervisor(event));
        }
    }

    /// As [`Self::say`], but never lost: what follows from it has no deadline.
    fn say_surely(&mut self, generation: Generation, message: FromWorker) {
        let faults = std::mem::take(&mut self.faults);
        self.say(generation, message);
        self.faults = faults;
    }

    fn say(&mut self, generation: Generation, message: FromWorker) {
        self.tell(generation, Event::Message { generation, message });
    }

    fn works(&self, generation: Generation) -> bool {
        self.workers.get(&generation).is_some_and(|worker| worker.alive && !worker.hung)
    }

    fn happen(&mut self, item: Item) -> Result<(), String> {
        match item {
            Item::ToSupervisor(event) => self.arrive(event),
            Item::Restart => self.crash(),
            Item::Welcomed(generation)
            | Item::GivenListeners(generation, _)
            | Item::Emptied(generation, _)
            | Item::AskAgain(generation)
            | Item::ToWorker(generation, ..)
            | Item::Empty(generation)
            | Item::Return(generation)
            | Item::Heartbeat(generation) => {
                if self.works(generation) {
                    self.reach(generation, item)
                } else {
                    Ok(())
                }
            }
            Item::Die(generation, how) => self.die(generation, how),
            Item::Freeze(generation) => {
                self.note(&format!("generation {generation} hangs"));
                if let Some(worker) = self.workers.get_mut(&generation) {
                    worker.hung = true;
                }
                Ok(())
            }
            Item::People => self.people(),
            Item::Quiet => {
                self.become_quiet();
                Ok(())
            }
            Item::LastReload => {
                self.rules.settled(&self.workers, &self.core)?;
                self.rules.last_reload = Some(Waiter(self.next_waiter));
                self.reload(&Reload { wait: true, force: true, ..Reload::default() })
            }
            Item::LastStop => {
                self.rules.settled(&self.workers, &self.core)?;
                self.step(Event::Stop(StopKind::Graceful))
            }
        }
    }
}
