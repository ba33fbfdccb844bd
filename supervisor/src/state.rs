//! The core of the supervisor: events in, actions out, no I/O, no clock.
//!
//! It holds what is known about every living generation and decides what happens next. The rules,
//! with the names the simulation test uses for them:
//!
//! - I1: as long as a generation served once, its listeners are held until another one that serves
//!   does not want them, or it gave them up itself.
//! - I2: at most one generation is on its way to serve.
//! - I3: a serving generation gets PAUSE only after a newer one confirmed TAKE.
//! - I4: a reload that fails before that point leaves the serving generation untouched.
//! - I5: every reload gets exactly one verdict, and in bounded time.
//! - I6: connections go from a draining generation to the serving one only, and it is told when
//!   that is another one.
//!
//! ```text
//!            ┌───────── pending reload (newest request wins)
//!            ↓
//! attempt: Reading → … → Taking → Pausing
//!                                   │ new one: serving, on probation; older one: fallback
//!                    probation over ┤ fallback drains
//!            dies or stops to beat  ┘ fallback resumes; without one: respawn with backoff
//! ```

pub mod accounts;
pub mod action;
mod adoption;
mod attempt;
mod drained;
pub mod event;
mod introduce;
mod life;
mod live;
mod member;
mod outcome;
mod report;
mod requests;
mod stuck;
mod timers;
mod upgrade;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use baton_contract::{
    control::{GenerationReport, Moves, Outcome},
    generation::{Generation, State},
    listener_key::ListenerKey,
    message::{FromWorker, ToWorker},
};

use serde::{Deserialize, Serialize};

use self::{
    action::{Action, Level, Recipe},
    adoption::Adopting,
    attempt::Attempt,
    event::{CommandId, ConfigId, Event, ResourcesId, Time},
    member::Member,
    requests::{Pending, Stopping},
    upgrade::Upgrade,
};

pub use self::member::Policy;

/// Generations that ended and are still shown.
const REMEMBERED: usize = 8;

/// The core. It can be written down and read back by another version of this program when no
/// generation is on its way, so a new field needs a default that means "nothing happened".
#[derive(Debug, Deserialize, Serialize)]
#[serde(default)]
pub struct Supervisor {
    #[serde(skip)]
    policy: Policy,
    now: Time,
    #[serde(skip)]
    actions: Vec<Action>,
    members: BTreeMap<Generation, Member>,
    gone: VecDeque<GenerationReport>,
    /// Number of the next generation.
    next: u32,
    next_command: u64,
    serving: Option<Generation>,
    /// Paused, and able to come back while the serving one is on probation.
    fallback: Option<Generation>,
    probation_until: Option<Time>,
    /// The answer to RESUME that is due.
    resuming: Option<(Generation, CommandId, Time)>,
    #[serde(skip)]
    attempt: Option<Attempt>,
    pending_reload: Option<Pending>,
    pending_dry_run: Option<Pending>,
    /// When a respawn is due.
    respawn_at: Option<Time>,
    /// Respawns since a generation last passed its probation.
    tries: u32,
    last_good: Option<Recipe>,
    /// Configurations that were rolled back.
    bad: BTreeSet<ConfigId>,
    /// Listeners of the generation that serves, or served last.
    wanted: BTreeSet<ListenerKey>,
    /// What that generation accepted beside its configuration; the next one begins with it.
    resources: Option<ResourcesId>,
    /// Listeners that a generation gave up and that were not taken away yet.
    #[serde(skip)]
    unwanted: Option<(Generation, BTreeSet<ListenerKey>)>,
    /// Generations that have sockets of a listener.
    users: BTreeMap<ListenerKey, BTreeSet<Generation>>,
    /// Workers of a dead supervisor are waited for.
    #[serde(skip)]
    adopting: Option<Adopting>,
    /// The program is being replaced, or is to be.
    upgrade: Option<Upgrade>,
    #[serde(skip)]
    stopping: Option<Stopping>,
    last_tick: Time,
    last_reload: Option<Outcome>,
    reloads: u64,
    failed_reloads: u64,
    respawns: u64,
    /// What became of connections of generations that are gone, as they said.
    past: Moves,
    /// What became of all connections, as the segment says.
    #[serde(skip)]
    accounted: Option<Moves>,
}

impl Default for Supervisor {
    fn default() -> Self {
        Self::new(Policy::default())
    }
}

impl Supervisor {
    /// A core that was written down goes on under this policy. Its next event is
    /// [`Event::Executed`].
    #[must_use]
    pub fn under(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// A supervisor that did nothing yet. Its first event is [`Event::Start`].
    pub fn new(policy: Policy) -> Self {
        Self {
            policy,
            now: Time::ZERO,
            actions: Vec::new(),
            members: BTreeMap::new(),
            gone: VecDeque::new(),
            next: 0,
            next_command: 0,
            serving: None,
            fallback: None,
            probation_until: None,
            resuming: None,
            attempt: None,
            pending_reload: None,
            pending_dry_run: None,
            respawn_at: None,
            tries: 0,
            last_good: None,
            bad: BTreeSet::new(),
            wanted: BTreeSet::new(),
            resources: None,
            unwanted: None,
            users: BTreeMap::new(),
            adopting: None,
            upgrade: None,
            stopping: None,
            last_tick: Time::ZERO,
            last_reload: None,
            reloads: 0,
            failed_reloads: 0,
            respawns: 0,
            past: Moves::default(),
            accounted: None,
        }
    }

    /// Takes one event; what has to be done is added to `actions`, in order.
    pub fn step(&mut self, now: Time, event: Event, actions: &mut Vec<Action>) {
        self.now = self.now.max(now);
        match event {
            Event::Start => self.on_start(),
            Event::Adopt(estate) => self.on_adopt(estate),
            Event::Reattached { generation, arrival } => self.on_reattached(generation, *arrival),
            Event::Reload { waiter, reload } => self.on_reload(waiter, &reload),
            Event::ConfigRead(result) => self.on_config_read(result),
            Event::Spawned { generation, pid } => self.on_spawned(generation, pid),
            Event::SpawnFailed { generation, text } => self.on_spawn_failed(generation, text),
            Event::Message { generation, message } => self.on_message(generation, message),
            Event::Answered { generation, command, result } => {
                self.on_attempt_answer(generation, command, &result);
                self.on_resume_answer(generation, command, &result);
            }
            Event::Bound { generation, result } => self.on_bound_or_late(generation, result),
            Event::Resources { generation, resources } => {
                self.on_resources(generation, resources);
            }
            Event::BoundMore { generation, failed } => self.on_bound_more(generation, failed),
            Event::Listening { generation, result } => self.on_listening(generation, result),
            Event::Beat { generation } => self.on_beat(generation),
            Event::ChannelClosed { generation } => self.on_channel_closed(generation),
            Event::Exited { generation, how } => self.on_exited(generation, how),
            Event::Drain { waiter, generation, strategy } => {
                self.on_drain_request(waiter, generation, strategy);
            }
            Event::Upgrade { waiter, program } => self.on_upgrade(waiter, program),
            Event::Checked(result) => self.on_checked(result),
            Event::NotExecuted(text) => self.on_not_executed(text),
            Event::Executed => self.on_executed(),
            Event::ReopenLogs => self.on_reopen_logs(),
            Event::Stop(kind) => self.on_stop(kind),
            Event::Tick => self.on_tick(),
        }
        self.drain_listeners();
        self.live_listeners();
        self.settle();
        self.introduce();
        actions.append(&mut self.actions);
    }

    /// The generation that connections of dead ones are given to: the one that serves, unless it is
    /// about to end.
    pub fn adopter(&self) -> Option<Generation> {
        let serving = self.serving.filter(|_| self.stopping.is_none())?;
        let member = self.members.get(&serving)?;
        member.fit(self.now, self.policy.heartbeat_timeout).then_some(serving)
    }

    /// Configurations whose bytes are still needed.
    pub fn configs_in_use(&self) -> BTreeSet<ConfigId> {
        let members = self.members.values().map(|member| member.recipe.config);
        let attempt = self.attempt.iter().filter_map(|a| a.recipe).map(|recipe| recipe.config);
        let good = self.last_good.iter().map(|recipe| recipe.config);
        members.chain(attempt).chain(good).collect()
    }

    /// What some generation accepted beside its configuration, and another may still be given.
    pub fn resources_in_use(&self) -> BTreeSet<ResourcesId> {
        let ends = |state| matches!(state, State::Draining | State::Failed | State::Dead);
        let members = self.members.values().filter(|member| !ends(member.state));
        members.filter_map(|member| member.resources).chain(self.resources).collect()
    }

    fn on_resources(&mut self, generation: Generation, resources: ResourcesId) {
        self.on_beat(generation);
        let Some(member) = self.members.get_mut(&generation) else { return };
        member.resources = Some(resources);
        if self.serving == Some(generation) {
            self.resources = Some(resources);
        }
    }

    fn push(&mut self, action: Action) {
        self.actions.push(action);
    }

    /// Sends a message that is answered by ACK or NACK.
    fn command(&mut self, generation: Generation, message: ToWorker) -> CommandId {
        let command = CommandId(self.next_command);
        self.next_command = self.next_command.saturating_add(1);
        self.push(Action::Send { generation, message, command: Some(command) });
        command
    }

    fn set_state(&mut self, generation: Generation, state: State) {
        let Some(member) = self.members.get_mut(&generation) else { return };
        member.state = state;
        let cut_at = member.cut_at;
        self.push(Action::SetState { generation, state, cut_at });
    }

    fn on_message(&mut self, generation: Generation, message: FromWorker) {
        self.on_beat(generation);
        match message {
            FromWorker::Hello(hello) => self.on_hello(generation, &hello),
            FromWorker::NeedListeners(need) => self.on_need_listeners(generation, need),
            FromWorker::Warm(warm) => {
                let text = format!("generation {generation}: {}", warm.text);
                self.push(Action::Log(Level::Info, text));
            }
            FromWorker::Ready(ready) => self.on_ready(generation, ready),
            FromWorker::Failed(failed) => self.on_failed(generation, failed),
            FromWorker::Status(status) => self.on_status(generation, status),
            FromWorker::Released(released) => self.on_released(generation, &released.keys),
            FromWorker::DrainListeners(drained) => {
                self.on_drain_listeners(generation, drained);
            }
            FromWorker::Drained(drained) => {
                if let Some(member) = self.members.get_mut(&generation) {
                    member.status = drained.status;
                    member.said_goodbye = true;
                }
            }
            // The performer turns these into `Answered` and `Reattached`, and keeps what is in escrow and what
            // names resolve to.
            FromWorker::Ack(_)
            | FromWorker::Nack(_)
            | FromWorker::Escrow(_)
            | FromWorker::Unescrow(_)
            | FromWorker::Addresses(_)
            | FromWorker::Resources(_)
            | FromWorker::Reattach(_)
            | FromWorker::Holding(_) => {}
        }
    }

    fn on_beat(&mut self, generation: Generation) {
        let now = self.now;
        if let Some(member) = self.members.get_mut(&generation) {
            member.last_beat = now;
        }
    }
}
