//! Gives connections away: takes the offers of the threads to another generation and says what
//! became of each. Runs as a task of the main thread; no worker thread waits for another process.
//!
//! ```text
//! offer of a thread → word in shared memory → OFFER ─┬─ ACCEPT → decide → COMMIT → moved
//!                                                    ├─ REJECT → withdraw → stays
//!                                                    └─ too late, or the other one is gone
//!                                                          withdraw: yes → stays, no → moved
//! ```

use std::{
    collections::{HashMap, HashSet},
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    time::{Duration, Instant},
};

use baton_contract::{
    generation::Generation,
    memfd,
    peer::{MAX_INLINE, MAX_RECORD, Message, Stay},
    shm::{SegmentWorker, SlotIndex, Ticket},
};
use tokio::sync::{mpsc, oneshot};

use super::crew::{Crew, GiveAway};
use crate::{
    clock,
    handoff::peer::{PeerLink, PeerLinkError},
    migrate::{Answer, ConfigSource, Export, Moved},
    sys::fault,
};

/// Longest time a connection is frozen while nobody has decided about it. Envoy's drain takes
/// minutes instead; a person does not notice this.
pub(super) const FREEZE_MAX: Duration = Duration::from_millis(50);
/// So long the other generation may be silent because it reads a configuration it was just told. One with
/// ten thousand routes takes a fraction of it.
const READ_MAX: Duration = Duration::from_secs(1);
/// How often late offers are looked for.
const TICK: Duration = Duration::from_millis(10);

/// A generation that takes connections.
#[derive(Debug)]
pub(super) struct Target {
    /// This worker's end of the channel to it.
    pub end: OwnedFd,
    /// Its row in the segment.
    pub slot: SlotIndex,
    /// Its number, for messages.
    pub generation: Generation,
}

/// An offer nobody has decided about.
struct Pending {
    answer: oneshot::Sender<Answer>,
    until: Instant,
}

/// Why offers wait for too long.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Cause {
    /// The other generation reads a configuration first.
    Reads,
    /// It does not answer.
    Silent,
}

/// What is said about a generation that is slow, each cause once.
#[derive(Debug, Default)]
struct Complaints {
    /// When it was told a configuration, if it has not said anything since.
    told: Option<Instant>,
    said: Option<Cause>,
}

impl Complaints {
    /// The cause, if it is to be said now.
    fn next(&mut self, now: Instant) -> Option<Cause> {
        let reads = self.told.is_some_and(|told| now.saturating_duration_since(told) < READ_MAX);
        let cause = if reads { Cause::Reads } else { Cause::Silent };
        let new = self.said < Some(cause);
        self.said = self.said.max(Some(cause));
        new.then_some(cause)
    }
}

/// The task.
struct Exporter {
    segment: Arc<SegmentWorker>,
    crew: Crew,
    give_away: GiveAway,
    own: Generation,
    link: Option<(PeerLink, SlotIndex, Generation)>,
    /// Configurations the other generation was told.
    told: HashSet<u128>,
    pending: HashMap<Ticket, Pending>,
    /// The other generation let an offer wait for too long and has not said anything since.
    silent: bool,
    complaints: Complaints,
    hint: u32,
}

/// Runs for as long as somebody may name a target. A new one replaces the one before; none ends
/// the giving away. `closes_removed`: connections of listeners that are gone are closed.
pub(super) async fn run(
    segment: Arc<SegmentWorker>,
    crew: Crew,
    (own, closes_removed): (Generation, bool),
    mut targets: mpsc::UnboundedReceiver<Option<Target>>,
) {
    let (sender, mut exports) = mpsc::unbounded_channel();
    let mut exporter = Exporter {
        segment,
        crew,
        give_away: GiveAway { exports: sender, closes_removed },
        own,
        link: None,
        told: HashSet::new(),
        pending: HashMap::new(),
        silent: false,
        complaints: Complaints::default(),
        hint: own.0.wrapping_mul(997),
    };
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            target = targets.recv() => match target {
                Some(Some(target)) => exporter.aim(target),
                Some(None) => exporter.lose(),
                None => return,
            },
            Some(export) = exports.recv() => exporter.offer(export),
            received = receive(&mut exporter.link) => match received {
                Some(message) => exporter.on_message(&message),
                None => exporter.lose(),
            },
            _ = tick.tick(), if !exporter.pending.is_empty() => exporter.expire(clock::now()),
        }
    }
}

/// The next message of the other generation; `None` when it is gone. Never, without one.
async fn receive(link: &mut Option<(PeerLink, SlotIndex, Generation)>) -> Option<Message> {
    let Some((link, ..)) = link else { return std::future::pending().await };
    match link.recv().await {
        Ok(received) => received.map(|(message, _)| message),
        Err(error) => {
            tracing::warn!(%error, "the channel to the other generation failed");
            None
        }
    }
}

impl Exporter {
    /// From now on connections go there.
    fn aim(&mut self, target: Target) {
        self.lose();
        match PeerLink::new(target.end, self.own) {
            Ok(link) => {
                tracing::info!(to = %target.generation, "connections move");
                self.link = Some((link, target.slot, target.generation));
                self.crew.give_away(Some(&self.give_away));
            }
            Err(error) => tracing::error!(%error, "connections cannot move"),
        }
    }

    /// The other generation is gone, or another one takes its place. Shared memory says what it
    /// has taken.
    fn lose(&mut self) {
        if self.link.take().is_some() {
            self.crew.give_away(None);
        }
        self.told.clear();
        (self.silent, self.complaints) = (false, Complaints::default());
        for (ticket, pending) in std::mem::take(&mut self.pending) {
            self.take_back(ticket, pending, Stay::NoPeer);
        }
    }

    fn offer(&mut self, export: Export) {
        fault::point("migrate.old.frozen");
        let Export { record, fds, source, counts, frozen_at, answer } = export;
        let stays = |answer: oneshot::Sender<Answer>, why| answer.send(Answer::Stays(why)).is_ok();
        let Some(slot) = self.link.as_ref().map(|(_, slot, _)| *slot) else {
            stays(answer, Stay::NoPeer);
            return;
        };
        // One connection at a time finds out whether it answers again; the others are not frozen.
        if self.silent && !self.pending.is_empty() {
            stays(answer, Stay::Timeout);
            return;
        }
        if source.as_deref().is_some_and(|source| !self.tell(source)) {
            stays(answer, Stay::Config);
            return;
        }
        self.hint = self.hint.wrapping_add(1);
        let Some(ticket) = self.segment.offer(slot, counts, self.hint) else {
            stays(answer, Stay::Overload);
            return;
        };
        let sent = self.send_offer(ticket, record, fds);
        let pending = Pending { answer, until: frozen_at + FREEZE_MAX };
        if let Err(why) = sent {
            self.take_back(ticket, pending, why);
            return;
        }
        self.pending.insert(ticket, pending);
        fault::point("migrate.old.offered");
    }

    fn send_offer(
        &mut self,
        ticket: Ticket,
        record: Vec<u8>,
        mut fds: Vec<OwnedFd>,
    ) -> Result<(), Stay> {
        let Some((link, ..)) = &mut self.link else { return Err(Stay::NoPeer) };
        let record = if record.len() > MAX_INLINE {
            if record.len() > MAX_RECORD {
                return Err(Stay::Overload);
            }
            fds.push(memfd::sealed("baton-record", &record).map_err(|_| Stay::Overload)?);
            None
        } else {
            Some(record)
        };
        link.send(&Message::Offer { ticket, record }, fds).map_err(|error| {
            tracing::debug!(%error, "an offer cannot be sent");
            Stay::Overload
        })
    }

    /// Makes sure that the other generation knows a configuration.
    fn tell(&mut self, source: &ConfigSource) -> bool {
        if self.told.contains(&source.hash) {
            return true;
        }
        let Some((link, ..)) = &mut self.link else { return false };
        let Ok(file) = source.file.as_fd().try_clone_to_owned() else { return false };
        let message = Message::Config { hash: source.hash, path: source.path.clone() };
        let sent = link.send(&message, vec![file]).is_ok();
        if sent {
            self.told.insert(source.hash);
            self.complaints.told = Some(clock::now());
        }
        sent
    }

    fn on_message(&mut self, message: &Message) {
        self.silent = false;
        self.complaints.told = None;
        match message {
            Message::Accept(tickets) => self.accepted(tickets),
            Message::Reject(ticket, why) => {
                if let Some(pending) = self.pending.remove(ticket) {
                    self.take_back(*ticket, pending, *why);
                }
            }
            Message::Config { .. }
            | Message::Offer { .. }
            | Message::Commit(_)
            | Message::Withdraw(_) => {
                tracing::warn!(kind = message.kind(), "a message that makes no sense here");
            }
        }
    }

    /// The other generation can take these: from the compare-and-swap on they are its own.
    fn accepted(&mut self, tickets: &[Ticket]) {
        fault::point("migrate.old.accepted");
        let mut committed = Vec::with_capacity(tickets.len());
        for ticket in tickets {
            let Some(pending) = self.pending.remove(ticket) else { continue };
            if self.segment.decide(*ticket) {
                committed.push(*ticket);
                fault::point("migrate.old.decided");
                self.moved(*ticket, pending);
            } else {
                self.take_back(*ticket, pending, Stay::Timeout);
            }
        }
        if committed.is_empty() {
            return;
        }
        self.say(&Message::Commit(committed));
        fault::point("migrate.old.committed");
    }

    /// The connection stays, unless the other generation took it meanwhile.
    fn take_back(&mut self, ticket: Ticket, pending: Pending, why: Stay) {
        if self.segment.withdraw(ticket) || !self.segment.is_decided(ticket) {
            self.say(&Message::Withdraw(vec![ticket]));
            // A task that was dropped has nobody who waits.
            drop(pending.answer.send(Answer::Stays(why)));
        } else {
            self.moved(ticket, pending);
        }
    }

    fn moved(&self, ticket: Ticket, pending: Pending) {
        let moved = Moved { ticket: Some((Arc::clone(&self.segment), ticket)) };
        // A task that was dropped has nobody who waits; the books are settled by the drop.
        drop(pending.answer.send(Answer::Moved(moved)));
    }

    fn complain(&mut self, now: Instant) {
        let Some((_, _, to)) = &self.link else { return };
        match self.complaints.next(now) {
            Some(Cause::Reads) => {
                tracing::info!(%to, "connections wait until the other generation has read their configuration");
            }
            Some(Cause::Silent) => {
                tracing::warn!(%to, "connections wait, the other generation does not answer in time");
            }
            None => {}
        }
    }

    fn say(&mut self, message: &Message) {
        let Some((link, _, to)) = &mut self.link else { return };
        match link.send(message, Vec::new()) {
            Ok(()) => {}
            // It finds out from shared memory.
            Err(PeerLinkError::Wire(error)) => {
                tracing::debug!(%to, %error, "cannot tell the other generation");
            }
            Err(PeerLinkError::Encode(error)) => tracing::error!(%error, "cannot encode"),
        }
    }

    fn expire(&mut self, now: Instant) {
        let late: Vec<Ticket> = self
            .pending
            .iter()
            .filter(|(_, pending)| pending.until <= now)
            .map(|(ticket, _)| *ticket)
            .collect();
        if !late.is_empty() {
            self.silent = true;
            self.complain(now);
        }
        for ticket in late {
            if let Some(pending) = self.pending.remove(&ticket) {
                self.take_back(ticket, pending, Stay::Timeout);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generation_that_reads_a_configuration_is_not_said_to_be_silent() {
        let start = clock::now();
        let after = |ms| start.checked_add(Duration::from_millis(ms)).unwrap();
        let mut complaints = Complaints { told: Some(start), said: None };
        assert_eq!(complaints.next(after(50)), Some(Cause::Reads));
        assert_eq!(complaints.next(after(60)), None, "it is said once");
        assert_eq!(
            complaints.next(after(1000)),
            Some(Cause::Silent),
            "nothing takes that long to read"
        );
        assert_eq!(complaints.next(after(1100)), None);

        let mut complaints = Complaints { told: Some(start), said: None };
        complaints.told = None;
        assert_eq!(
            complaints.next(after(50)),
            Some(Cause::Silent),
            "it answered after it had read"
        );
        complaints.told = Some(after(100));
        assert_eq!(complaints.next(after(150)), None, "worse was said");
    }
}
