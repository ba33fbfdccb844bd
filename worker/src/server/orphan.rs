//! An orphan looks for a new supervisor and goes back to work under it, with its listeners.
//!
//! ```text
//! supervised ──channel ends, or a later epoch──→ orphan ──call──→ calling ─REATTACHED→ supervised
//!                                                  ↑──refused, no answer──┘
//! ```
//! What is served goes on throughout. A command of a supervisor whose epoch is over is not obeyed.

use std::{
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use baton_contract::{
    frame::MAX_FDS,
    generation::State,
    message::{HeldShard, Hello, Holding, Reattach, Reattached, ToWorker},
    version::{FEATURES, ProtoRange, shm_layout},
};

use super::{
    lifecycle::Phase,
    running::Running,
    startup::{Prepared, chain},
};
use crate::{
    clock,
    handoff::{Link, LinkError, Received, call},
    listener::acceptor::Patience,
};

/// Time between two looks for a supervisor.
const RETRY: Duration = Duration::from_millis(100);
/// The same after one refused.
const RETRY_REFUSED: Duration = Duration::from_secs(1);
/// Time for an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Most sockets in one frame; each needs about 250 bytes of 64 KiB.
const SOCKETS_PER_MESSAGE: usize = if MAX_FDS < 200 { MAX_FDS } else { 200 };

/// Where the next supervisor is, and whether it was called.
pub(super) struct Orphanage {
    /// Empty = nowhere.
    place: String,
    /// Epoch of the supervisor that commands; 0 = not known.
    epoch: u64,
    calling: Option<Link>,
    next: Option<Instant>,
}

/// Why no supervisor was found.
#[derive(Debug, thiserror::Error)]
enum CallError {
    #[error("cannot call the supervisor")]
    Io(#[from] std::io::Error),
    #[error("the channel to the new supervisor failed")]
    Link(#[from] LinkError),
}

impl Orphanage {
    pub(super) fn new(it: &Prepared) -> Self {
        let (place, epoch) = (it.welcome.reattach_at.clone(), it.welcome.epoch);
        Self { place, epoch, calling: None, next: None }
    }

    /// A supervisor was called and has not answered.
    pub(super) const fn is_calling(&self) -> bool {
        self.calling.is_some()
    }

    /// Its answer.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(super) async fn answer(&mut self) -> Result<Option<Received>, LinkError> {
        match &mut self.calling {
            Some(link) => link.recv().await,
            None => std::future::pending().await,
        }
    }
}

impl Running {
    /// The supervisor is gone. What is served goes on; what was about to end still does.
    pub(super) fn lost_supervisor(&mut self, error: Option<&LinkError>) {
        let reason = error.map_or_else(|| "it is gone".to_owned(), |error| chain(error));
        tracing::warn!(reason, phase = self.life.phase.as_str(), "no supervisor any more");
        self.life.lose_supervisor(clock::now());
        match self.life.phase {
            // It never polled and nobody can tell it to.
            Phase::Ready => self.life.stop(clock::now(), Duration::ZERO),
            Phase::Paused | Phase::Serving | Phase::Draining | Phase::Stopping => {}
        }
    }

    /// Another supervisor commands this worker than the one at the other end of the channel.
    pub(super) fn is_superseded(&self) -> bool {
        let epoch = self.orphanage.epoch;
        let segment = self.it.segment.as_ref();
        epoch != 0 && segment.is_some_and(|segment| segment.command_epoch() != epoch)
    }

    /// Notices that it is an orphan; an orphan calls the next supervisor, or ends alone.
    pub(super) fn look_for_supervisor(&mut self) {
        let now = clock::now();
        if !self.life.is_orphan() {
            if self.is_superseded() {
                self.lost_supervisor(None);
            }
            return;
        }
        if self.life.drains_alone(now) {
            self.drain_alone();
        }
        let due = self.orphanage.next.is_none_or(|next| next <= now);
        if self.orphanage.place.is_empty() || self.life.phase == Phase::Ready || !due {
            return;
        }
        if self.orphanage.calling.take().is_some() {
            tracing::warn!("the new supervisor does not answer");
        }
        match self.call() {
            Ok(link) => {
                self.orphanage.calling = Some(link);
                self.orphanage.next = now.checked_add(PATIENCE);
            }
            Err(error) => {
                tracing::trace!(error = chain(&error), "no supervisor yet");
                self.orphanage.next = now.checked_add(RETRY);
            }
        }
    }

    /// A newer generation serves, and nobody is going to say that this one may end.
    fn drain_alone(&mut self) {
        let now = clock::now();
        let settings = &self.it.welcome.settings;
        let drain_time = Duration::from_millis(settings.drain_time_ms);
        self.it.drain.start(settings.drain_strategy, drain_time, now);
        self.life.drain(now, Duration::from_millis(settings.parent_shutdown_time_ms));
        let removed = std::mem::take(&mut self.removed);
        self.release(removed, Patience::REMOVED);
    }

    fn call(&self) -> Result<Link, CallError> {
        // A new supervisor that cannot read this worker's segment is not written down in it.
        let commander = self.it.segment.as_ref().map(|segment| segment.commander());
        let commander = commander.filter(|one| one.lives).map(|one| one.pid);
        let channel = call(&self.orphanage.place, commander)?;
        let mut link = Link::new(channel, self.it.welcome.generation)?;
        let (config, file) = (&self.it.config, &self.it.source.file);
        let reattach = Reattach {
            hello: Hello {
                proto: ProtoRange::ours(),
                shm_layout: shm_layout(),
                build_id: env!("CARGO_PKG_VERSION").to_owned(),
                features: FEATURES.iter().map(|&feature| feature.to_owned()).collect(),
                pid: std::process::id(),
            },
            generation: self.it.welcome.generation,
            state: match self.life.phase {
                Phase::Ready | Phase::Serving => State::Serving,
                Phase::Paused => State::HandingOff,
                Phase::Draining | Phase::Stopping => State::Draining,
            },
            concurrency: self.it.welcome.settings.concurrency,
            config: config.clone(),
            segment: self.it.welcome.segment.clone(),
            deadline_ms: self.life.left(clock::now()).map(millis),
        };
        link.send_with(reattach, vec![file.try_clone()?])?;
        let (entries, fds) = self.holding()?;
        let mut fds = fds.into_iter();
        let mut chunks = entries.chunks(SOCKETS_PER_MESSAGE).peekable();
        if chunks.peek().is_none() {
            link.send(Holding { manifest: Vec::new(), last: true })?;
        }
        while let Some(chunk) = chunks.next() {
            let holding = Holding { manifest: chunk.to_vec(), last: chunks.peek().is_none() };
            link.send_with(holding, fds.by_ref().take(chunk.len()).collect())?;
        }
        Ok(link)
    }

    /// The sockets it has, by listener and number, and copies of them.
    fn holding(&self) -> std::io::Result<(Vec<HeldShard>, Vec<OwnedFd>)> {
        let mut entries = Vec::new();
        let mut fds = Vec::new();
        for spec in &self.it.specs {
            let mut shards: Vec<_> =
                self.it.sockets.iter().filter(|shard| shard.key == spec.key).collect();
            shards.sort_by_key(|shard| shard.number);
            let count = u32::try_from(shards.len()).unwrap_or(u32::MAX);
            for shard in shards {
                entries.push(HeldShard { spec: spec.clone(), shard: shard.number, shards: count });
                fds.push(shard.socket.try_clone()?);
            }
        }
        Ok((entries, fds))
    }

    /// The supervisor that was called answered, or is gone again.
    pub(super) fn on_answer(&mut self, answer: Result<Option<Received>, LinkError>) {
        let Some(link) = self.orphanage.calling.take() else { return };
        self.orphanage.next = clock::now().checked_add(RETRY);
        match answer.map(|received| received.map(|received| received.message)) {
            Ok(Some(ToWorker::Reattached(answer))) => self.go_back(link, &answer),
            Ok(Some(message)) => {
                tracing::warn!(message = message.name(), "REATTACHED comes first");
            }
            Ok(None) => tracing::info!("the new supervisor ended the call"),
            Err(error) => tracing::warn!(error = chain(&error), "the call failed"),
        }
    }

    fn go_back(&mut self, link: Link, answer: &Reattached) {
        if !answer.refused.is_empty() {
            tracing::warn!(reason = answer.refused, "the new supervisor refuses this worker");
            self.orphanage.next = clock::now().checked_add(RETRY_REFUSED);
            return;
        }
        // The older channel ends here.
        self.link = link;
        let own = self.it.welcome.segment.as_ref().map(|segment| segment.os_id.as_str());
        self.orphanage.epoch = if own == Some(&answer.os_id) { answer.epoch } else { 0 };
        self.orphanage.next = None;
        self.life.find_supervisor();
        // It has no copies of what its predecessor had.
        self.it.escrow.0.renew();
        self.it.clusters.tell_again();
        self.it.welcome.features.clone_from(&answer.features);
        self.ask_again();
        self.tell_new_supervisor();
        self.it.threads.crew().look_again();
        tracing::info!(epoch = answer.epoch, phase = self.life.phase.as_str(), "supervised again");
        self.send_status();
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
