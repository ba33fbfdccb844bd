//! The loop: wait for something, make it an event, let the core decide, do it.

use std::{
    collections::{BTreeMap, VecDeque},
    os::fd::{AsFd, BorrowedFd},
    path::Path,
    time::Duration,
};

use baton_contract::{
    control::{Answer, Request},
    exit::Exit,
    generation::Generation,
    message::DrainStrategy,
};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

use crate::{
    SupervisorError, SupervisorOptions,
    addresses::Memory,
    base_id,
    control_socket::ControlSocket,
    door::Door,
    escrow::Store,
    estate::{self, Before},
    fd_store::FdStore,
    perform::Performer,
    precheck::{self, home_error},
    reexec::{self, Baggage, BaggageError, Left},
    resources,
    segment::Counters,
    signals::{self, Signals},
    spawn::Program,
    state::{
        Policy, Supervisor,
        action::Fatal,
        event::{Estate, Event, StopKind, Time, Waiter},
    },
    systemd::{self, Manager},
    upgrade,
    worker::Worker,
};

/// Longest time without a look at heartbeats and timers.
const TURN_MAX: Duration = Duration::from_millis(500);
/// Most events handled before the loop looks at its descriptors again.
const MAX_EVENTS: usize = 4096;
/// Time workers get to exit by themselves when the supervisor ends early.
const WIND_DOWN: Duration = Duration::from_secs(1);

/// Runs until it is told to stop, and returns how it ended.
///
/// # Errors
/// When it could not start: another instance runs, the control socket cannot be opened, the first
/// generation fails. The running generations, if any, are ended before it returns.
pub fn run(mut options: SupervisorOptions) -> Result<Exit, SupervisorError> {
    let system = |what| move |source| SupervisorError::System { what, source };
    // First of all: these descriptors have fixed numbers.
    let baggage = reexec::of_this_process();
    let (before, inherited) = match &baggage {
        Left::Nothing => (Before::Process, systemd::inherited_sockets()),
        Left::Usable(_) | Left::Unusable | Left::Rehearsal(..) => (Before::Program, Vec::new()),
    };
    let signals = Signals::install().map_err(system("install signal handlers"))?;
    signals::let_through();
    // The parent of a rehearsal is the supervisor.
    if let Some(parent) = options.end_with
        && !matches!(baggage, Left::Rehearsal(..))
    {
        signals::end_with(parent);
    }
    match baggage {
        Left::Nothing | Left::Unusable => {}
        Left::Rehearsal(baggage, proof) => {
            return upgrade::rehearse(baggage, proof).map(|()| Exit::Ok);
        }
        Left::Usable(baggage) => match take_over(baggage, &options) {
            Ok((core, performer)) => return Loop { core, performer, signals }.run(),
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::error!(error, "the state cannot be used, workers have to come back");
            }
        },
    }
    precheck::flags(&options)?;
    let control = base_id::lock(&mut options)
        .and_then(ControlSocket::open)
        .map_err(|error| home_error(error, options.base_id))?;
    base_id::tell(&options);
    let program = Program::new(&options).map_err(system("find the program of this process"))?;
    let mut found = estate::find_or_create(options.base_id, control.path(), before);
    let door = open_door(control.path());
    let mut performer = Performer {
        store: FdStore::new(inherited, program.path().clone()),
        clock: found.clock,
        program,
        control,
        door,
        manager: Manager::new(),
        counters: found.segment.as_mut().map(Counters::new),
        segment: found.segment,
        workers: found.workers,
        configs: BTreeMap::new(),
        escrow: Store::default(),
        addresses: Memory::default(),
        resources: resources::Store::default(),
        orphans: 0,
        events: VecDeque::new(),
        check: None,
        preflight: None,
        execute: None,
        listeners_changed: true,
        overflow: 0,
        late: Vec::new(),
        finished: None,
        options,
    };
    let counts = performer.counters.as_ref().map(Counters::shown);
    let first = match found.estate {
        Some(estate) => Event::Adopt(Estate { counts: counts.unwrap_or_default(), ..estate }),
        None => Event::Start,
    };
    performer.events.push_back(first);
    let core = Supervisor::new(policy(&performer.options));
    Loop { core, performer, signals }.run()
}

fn open_door(control_socket: &Path) -> Option<Door> {
    Door::open(control_socket)
        .inspect_err(|error| tracing::error!(%error, "workers will not find the next supervisor"))
        .ok()
}

/// Goes on where the program before this one was.
fn take_over(
    baggage: Baggage,
    options: &SupervisorOptions,
) -> Result<(Supervisor, Performer), BaggageError> {
    let program = Program::new(options);
    let program = program.map_err(BaggageError::Read)?;
    let (core, performer) = upgrade::unpack(baggage, options.clone(), program)?;
    Ok((core.under(policy(options)), performer))
}

/// An error and its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

fn fatal_error(fatal: Fatal) -> SupervisorError {
    match fatal {
        Fatal::ConfigFile(text) => SupervisorError::ConfigFile { text },
        Fatal::Config { text, diagnostics } => SupervisorError::Config { text, diagnostics },
        Fatal::Bind(text) => SupervisorError::Bind { text },
        Fatal::FirstGeneration(text) => SupervisorError::FirstGeneration { text },
    }
}

/// Whatever is to change something is in the log.
fn log_request(request: &Request) {
    match request {
        Request::Reload(reload) => tracing::info!(
            dry_run = reload.dry_run,
            force = reload.force,
            concurrency = reload.concurrency,
            "asked by a command: reload"
        ),
        Request::Upgrade { binary } => tracing::info!(
            binary = binary.as_deref().map(|path| tracing::field::display(path.display())),
            "asked by a command: upgrade"
        ),
        Request::Drain { generation, strategy } => tracing::info!(
            %generation,
            strategy = match strategy {
                Some(DrainStrategy::Migrate) => "migrate",
                Some(DrainStrategy::Gradual) => "gradual",
                Some(DrainStrategy::Immediate) | None => "immediate",
            },
            "asked by a command: drain"
        ),
        Request::Stop { now } => tracing::info!(now, "asked by a command: stop"),
        Request::ReopenLogs => tracing::info!("asked by a command: open log files again"),
        Request::Status => {}
    }
}

fn policy(options: &SupervisorOptions) -> Policy {
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let cpus = u32::try_from(cpus).unwrap_or(1);
    Policy {
        start_timeout: options.start_timeout,
        // The worker itself gives up waiting a little earlier and serves without.
        warm_timeout: options.warm_timeout.saturating_add(Duration::from_secs(2)),
        probation: options.probation,
        drain_time: options.drain_time,
        parent_shutdown_time: options.parent_shutdown_time,
        drain_strategy: options.drain_strategy,
        stop_time: options.stop_time,
        max_generations: options.max_generations,
        concurrency: options.concurrency.unwrap_or(cpus).max(1),
        min_shards: cpus,
        ..Policy::default()
    }
}

struct Loop {
    core: Supervisor,
    performer: Performer,
    signals: Signals,
}

impl Loop {
    fn run(&mut self) -> Result<Exit, SupervisorError> {
        self.handle_events();
        while self.performer.finished.is_none() {
            self.wait()?;
            if !self.performer.commands() {
                return self.give_way();
            }
            self.collect();
            self.handle_events();
            self.execute();
        }
        self.wind_down();
        if let Some(door) = &self.performer.door {
            door.clean();
        }
        match self.performer.finished.take() {
            Some(Err(fatal)) => Err(fatal_error(fatal)),
            Some(Ok(exit)) => Ok(exit),
            None => Ok(Exit::Ok),
        }
    }

    /// Goes on as another program, if that was decided. Comes back only when it failed.
    fn execute(&mut self) {
        let Some(program) = self.performer.execute.take() else { return };
        if !self.performer.events.is_empty() || !self.performer.late.is_empty() {
            // They belong to the state as it is now; books are settled within a second.
            self.performer.execute = Some(program);
            return;
        }
        tracing::info!(program = %program.display(), "the program of the supervisor is replaced");
        let error = match upgrade::pack(&self.core, &self.performer) {
            Ok(baggage) => {
                let blocked = reexec::block_signals();
                self.signals.hand_on();
                self.keep_segment(true);
                let error = baggage.execute(&program);
                self.keep_segment(false);
                drop(blocked);
                error
            }
            Err(error) => error,
        };
        let text = format!("cannot execute `{}`: {}", program.display(), chain(&error));
        self.performer.events.push_back(Event::NotExecuted(text));
        self.handle_events();
    }

    /// Whether the segment stays when another program is executed.
    fn keep_segment(&self, keep: bool) {
        let segment = self.performer.segment.as_ref();
        if let Some(Err(error)) = segment.map(|segment| segment.keep_over_exec(keep)) {
            tracing::warn!(%error, "statistics begin anew in the next program");
        }
    }

    /// Another supervisor took over while this one was stopped. Everything is its business now.
    fn give_way(&mut self) -> Result<Exit, SupervisorError> {
        tracing::error!("another supervisor commands the workers; this one ends");
        if let Some(segment) = self.performer.segment.take() {
            segment.leave();
        }
        self.performer.control.leave();
        Err(SupervisorError::Superseded)
    }

    /// Sleeps until something happens or a timer is due.
    fn wait(&mut self) -> Result<(), SupervisorError> {
        let now = self.performer.clock.now();
        let ping = self.performer.manager.ping(now);
        let wake = self.core.wake_at().into_iter().chain(ping).min();
        let left = wake.map_or(TURN_MAX, |at| at.saturating_sub(now).min(TURN_MAX));
        // Rounded up: waking a moment too early would only turn the loop once more.
        let millis = u16::try_from(left.as_micros().div_ceil(1000)).unwrap_or(u16::MAX);
        let mut fds = self.poll_set();
        match poll(&mut fds, PollTimeout::from(millis)) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => {
                Err(SupervisorError::System { what: "wait for events", source: errno.into() })
            }
        }
    }

    fn poll_set(&self) -> Vec<PollFd<'_>> {
        fn entry(fd: BorrowedFd<'_>, writes: bool) -> PollFd<'_> {
            let writable = if writes { PollFlags::POLLOUT } else { PollFlags::empty() };
            PollFd::new(fd, PollFlags::POLLIN | writable)
        }
        let signals = self.signals.sockets().map(|(fd, _)| entry(fd, false));
        let control = self.performer.control.sockets().map(|(fd, writes)| entry(fd, writes));
        let workers = self.performer.workers.values().flat_map(|worker| {
            let channel = worker.channel().map(|(fd, writes)| entry(fd, writes));
            channel.into_iter().chain(std::iter::once(entry(worker.process.as_fd(), false)))
        });
        let door = self.performer.door.iter().flat_map(Door::sockets);
        let door = door.map(|fd| entry(fd, false));
        let preflight = self.performer.preflight.iter().map(|asked| entry(asked.as_fd(), false));
        signals.chain(control).chain(workers).chain(door).chain(preflight).collect()
    }

    /// Makes events of everything that is ready. Reading is cheap and never blocks, so all
    /// descriptors are tried.
    fn collect(&mut self) {
        self.performer.beats();
        for meaning in self.signals.take() {
            tracing::info!(signal = meaning.names(), "asked by a signal: {}", meaning.as_str());
            self.performer.restore_own_sockets();
            self.performer.events.push_back(meaning.event());
        }
        for (waiter, request) in self.performer.control.turn() {
            self.on_request(waiter, request);
        }
        self.performer.open_door();
        self.performer.hear_program();
        let generations: Vec<Generation> = self.performer.workers.keys().copied().collect();
        for generation in generations {
            self.collect_from(generation);
            self.performer.keep_escrow(generation);
            self.performer.learn_addresses(generation);
        }
        self.performer.events.push_back(Event::Tick);
    }

    fn collect_from(&mut self, generation: Generation) {
        let Performer { workers, events, resources, .. } = &mut self.performer;
        let Some(worker) = workers.get_mut(&generation) else { return };
        let died = worker.process.reap();
        // What it said before it died comes first.
        worker.receive(events);
        let flushed = worker.flush().map(drop);
        let mut keep = |worker: &mut Worker, events: &mut VecDeque<Event>| {
            for (told, fds) in std::mem::take(&mut worker.resources) {
                events.extend(resources.keep(generation, told, fds));
            }
        };
        keep(worker, events);
        match died {
            Some(how) => {
                while worker.channel().is_some() {
                    let before = worker.heard(events);
                    worker.receive(events);
                    keep(worker, events);
                    if worker.heard(events) == before {
                        worker.close(events);
                    }
                }
                events.push_back(Event::Exited { generation, how });
            }
            None => self.performer.check(generation, flushed),
        }
    }

    fn on_request(&mut self, waiter: Waiter, request: Request) {
        let done = |text: &str| Answer::Done { text: text.to_owned() };
        log_request(&request);
        let performer = &mut self.performer;
        match request {
            Request::Reload(reload) => {
                let waits = reload.wait || reload.dry_run;
                performer
                    .events
                    .push_back(Event::Reload { waiter: waits.then_some(waiter), reload });
                if !waits {
                    performer.control.answer(waiter, &done("a reload was requested"));
                }
            }
            Request::Upgrade { binary } => {
                let upgrade = Event::Upgrade { waiter: Some(waiter), program: binary };
                performer.events.push_back(upgrade);
            }
            Request::Status => {
                self.core.learn(performer.accounts());
                let report = self.core.report(performer.clock.now());
                let answer = Answer::Status(Box::new(performer.complete(report)));
                performer.control.answer(waiter, &answer);
            }
            Request::Drain { generation, strategy } => performer.events.push_back(Event::Drain {
                waiter: Some(waiter),
                generation,
                strategy,
            }),
            Request::Stop { now } => {
                let kind = if now { StopKind::Now } else { StopKind::Patient };
                performer.events.push_back(Event::Stop(kind));
                performer.control.answer(waiter, &done("the supervisor stops"));
            }
            Request::ReopenLogs => {
                performer.events.push_back(Event::ReopenLogs);
                performer.control.answer(waiter, &done("log files are opened again"));
            }
        }
    }

    fn handle_events(&mut self) {
        let mut actions = Vec::new();
        for _ in 0..MAX_EVENTS {
            let Some(event) = self.performer.events.pop_front() else { break };
            let now = self.performer.clock.now();
            // Signs of life are many, and nothing is told because of one.
            if !matches!(event, Event::Beat { .. }) {
                self.core.learn(self.performer.accounts());
            }
            if let Event::Exited { generation, .. } = event {
                // Whatever is said from now on counts what was lost with it.
                self.performer.close_books(generation);
                self.core.learn(self.performer.accounts());
            }
            if matches!(event, Event::ReopenLogs) {
                (self.performer.options.reopen_log)();
            }
            self.core.step(now, event, &mut actions);
            for action in actions.drain(..) {
                self.performer.perform(action);
            }
            if let Some(program) = self.performer.check.take() {
                self.performer.check_program(&self.core, &program);
            }
        }
        self.performer.give_orphans(self.core.adopter());
        self.performer.keep_configs(&self.core.configs_in_use());
        self.performer.resources.retain(&self.core.resources_in_use());
        if let Some(counters) = &self.performer.counters {
            counters.show(self.core.counts(), self.performer.workers.len());
            counters.in_escrow(self.performer.escrow.len());
        }
        let serving = self.core.serving().is_some() && !self.core.is_stopping();
        self.performer.keep_stored(serving);
        self.performer.manager.status(self.core.summary());
    }

    /// Ends workers that are still there.
    fn wind_down(&mut self) {
        let deadline = self.performer.clock.now().saturating_add(WIND_DOWN);
        while !self.performer.workers.is_empty() {
            let left = deadline.saturating_sub(self.performer.clock.now());
            let workers = &mut self.performer.workers;
            workers.retain(|_, worker| worker.process.reap().is_none());
            if left == Time::ZERO {
                for worker in workers.values_mut() {
                    worker.process.destroy();
                }
                workers.clear();
            }
            let mut fds: Vec<PollFd<'_>> = workers
                .values()
                .map(|worker| PollFd::new(worker.process.as_fd(), PollFlags::POLLIN))
                .collect();
            let millis = u16::try_from(left.as_millis()).unwrap_or(u16::MAX);
            if let Err(errno) = poll(&mut fds, PollTimeout::from(millis.saturating_add(1))) {
                tracing::debug!(%errno, "interrupted while workers end");
            }
        }
    }
}
