//! One living generation as the core sees it, and the limits that apply to all.

use std::{collections::BTreeSet, time::Duration};

use baton_contract::{
    generation::{Generation, State},
    listener_key::{ListenerKey, ListenerSpec},
    message::{DrainStrategy, Status},
};

use serde::{Deserialize, Serialize};

use super::{
    action::Recipe,
    event::{ResourcesId, Time},
    live::Wishes,
};

/// Time limits and counts. All of them can be set for tests.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// From the start of a worker to a good configuration.
    pub start_timeout: Duration,
    /// From there to READY. The worker gets a little less.
    pub warm_timeout: Duration,
    /// From TAKE to its answer.
    pub take_timeout: Duration,
    /// From PAUSE or RESUME to its answer.
    pub command_timeout: Duration,
    /// How long the older generation can come back.
    pub probation: Duration,
    /// Silence after which a generation counts as hung.
    pub heartbeat_timeout: Duration,
    /// Silence after which a hung generation that cannot be rolled back is replaced.
    pub replace_after: Duration,
    /// Silence after which a hung generation that does not serve is killed. Connections whose state is
    /// in the kernel go on elsewhere then.
    pub kill_after: Duration,
    /// Time for connections to be told to close.
    pub drain_time: Duration,
    /// From the switch to the end of the older generation.
    pub parent_shutdown_time: Duration,
    /// How connections are told.
    pub drain_strategy: DrainStrategy,
    /// Time for connections to end when the supervisor stops.
    pub stop_time: Duration,
    /// Generations that may live before a reload has to wait, at least 2.
    pub max_generations: usize,
    /// Time a generation gets that has to make room for another.
    pub hurry_time: Duration,
    /// Time the connections of the other threads get to move or end, when a generation that was
    /// replaced has threads that are stuck.
    pub stuck_time: Duration,
    /// Worker threads when a reload does not name a number.
    pub concurrency: u32,
    /// Fewest sockets of a TCP listener.
    pub min_shards: u32,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            start_timeout: Duration::from_secs(30),
            warm_timeout: Duration::from_secs(17),
            take_timeout: Duration::from_secs(5),
            command_timeout: Duration::from_secs(2),
            probation: Duration::from_secs(10),
            heartbeat_timeout: Duration::from_secs(3),
            replace_after: Duration::from_secs(5),
            kill_after: Duration::from_secs(15),
            drain_time: Duration::from_mins(10),
            parent_shutdown_time: Duration::from_mins(15),
            drain_strategy: DrainStrategy::Gradual,
            stop_time: Duration::from_secs(30),
            max_generations: 8,
            hurry_time: Duration::from_secs(10),
            stuck_time: Duration::from_secs(30),
            concurrency: 1,
            min_shards: 1,
        }
    }
}

/// From STOP to SIGTERM, in addition to the time STOP grants.
pub(super) const STOP_TO_TERM: Duration = Duration::from_secs(2);
/// From SIGTERM to SIGKILL.
pub(super) const TERM_TO_KILL: Duration = Duration::from_secs(2);
/// From the end of a channel to SIGKILL for a worker that should have exited with it.
pub(super) const CLOSED_TO_KILL: Duration = Duration::from_secs(1);

/// How far the end of a process was pushed.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) enum Push {
    /// STOP was sent.
    Asked,
    /// SIGTERM was sent.
    Terminated,
    /// SIGKILL was sent.
    Killed,
}

/// The end of a process that is on its way.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct Ending {
    pub(super) push: Push,
    /// When the next push is due.
    pub(super) next: Time,
}

/// One living generation.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Member {
    pub(super) generation: Generation,
    pub(super) recipe: Recipe,
    pub(super) state: State,
    pub(super) pid: u32,
    pub(super) started: Time,
    /// Commands can be sent.
    pub(super) channel: bool,
    pub(super) last_beat: Time,
    /// Listeners its configuration has.
    pub(super) keys: BTreeSet<ListenerKey>,
    /// The same with their options.
    pub(super) listeners: Vec<ListenerSpec>,
    /// Listeners it gave up while it served, because somebody asked for it.
    pub(super) drained: BTreeSet<ListenerKey>,
    /// Listeners it empties: RELEASE was sent, RELEASED has not come.
    pub(super) leaving: BTreeSet<ListenerKey>,
    /// What it asked about listeners and did not get yet.
    pub(super) wishes: Wishes,
    /// What it accepted beside its configuration, as it said last, or as it was given.
    pub(super) resources: Option<ResourcesId>,
    /// Last numbers it sent.
    pub(super) status: Status,
    /// When it is ended, set from the switch on.
    pub(super) cut_at: Option<Time>,
    /// It was told to hurry to make room.
    pub(super) hurried: bool,
    /// It can give connections away and take them.
    pub(super) migrates: bool,
    /// When it was told to stop polling.
    pub(super) paused_at: Option<Time>,
    /// The generation it gives its connections to.
    pub(super) introduced: Option<Generation>,
    pub(super) ending: Option<Ending>,
    /// DRAINED came.
    pub(super) said_goodbye: bool,
    /// It speaks another protocol and should be replaced.
    pub(super) alien: bool,
    /// Why it failed.
    pub(super) error: String,
    /// Since when some of its threads make no progress.
    pub(super) stuck_since: Option<Time>,
}

impl Default for Member {
    fn default() -> Self {
        Self::new(Generation::default(), Recipe::default(), Time::ZERO)
    }
}

impl Member {
    pub(super) fn new(generation: Generation, recipe: Recipe, now: Time) -> Self {
        Self {
            generation,
            recipe,
            state: State::Starting,
            pid: 0,
            started: now,
            channel: true,
            last_beat: now,
            keys: BTreeSet::new(),
            listeners: Vec::new(),
            drained: BTreeSet::new(),
            leaving: BTreeSet::new(),
            wishes: Wishes::default(),
            resources: None,
            status: Status::default(),
            cut_at: None,
            hurried: false,
            migrates: false,
            paused_at: None,
            introduced: None,
            ending: None,
            said_goodbye: false,
            alien: false,
            error: String::new(),
            stuck_since: None,
        }
    }

    /// It has this listener from now on, with these options.
    pub(super) fn holds(&mut self, spec: ListenerSpec) {
        self.drained.remove(&spec.key);
        self.keys.insert(spec.key.clone());
        match self.listeners.iter_mut().find(|known| known.key == spec.key) {
            Some(known) => *known = spec,
            None => self.listeners.push(spec),
        }
    }

    /// Commands reach it and nobody ends it.
    pub(super) const fn reachable(&self) -> bool {
        self.channel && self.ending.is_none()
    }

    /// It could serve: it shows signs of life, and all of its threads get on.
    pub(super) fn fit(&self, now: Time, limit: Duration) -> bool {
        self.reachable() && self.stuck_since.is_none() && !self.silent(now, limit)
    }

    /// It showed no sign of life for `limit`.
    pub(super) fn silent(&self, now: Time, limit: Duration) -> bool {
        now.saturating_sub(self.last_beat) > limit
    }
}
