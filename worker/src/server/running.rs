//! From READY to the end: carries out what the supervisor says, reports, and ends when it is time.

use std::{os::fd::OwnedFd, rc::Rc, sync::Arc, time::Duration};

use baton_contract::{
    exit::Exit,
    listener_key::ListenerKey,
    message::{
        Drain, DrainStrategy, Drained, OnRemoved, Pause, Peer, PeerRole, Released, Status, Stop,
        ToWorker,
    },
    shm::{SlotIndex, mono_ms},
};
use tokio::sync::{Notify, mpsc};

use super::{
    admin::Admin,
    drain_listeners::Closing,
    export::{self, Target},
    import::{self, Ground},
    inherit::Heirs,
    lifecycle::{Lifecycle, Phase, Verdict},
    orphan::Orphanage,
    publish::Sockets,
    signals::Signals,
    startup::{Prepared, chain, names},
    threads::ThreadError,
    watch::Watch,
};
use crate::{
    clock,
    cluster::report::Reporter,
    handoff::{Link, LinkError, Received},
    listener::acceptor::Patience,
    stats::LogStats,
    sys::fault,
};

/// Time between two signs of life.
const HEARTBEAT: Duration = Duration::from_millis(250);
/// The same while the worker waits for its last connections, so that it ends soon after them.
const HEARTBEAT_ENDING: Duration = Duration::from_millis(20);
/// The same while the worker looks for a supervisor.
const HEARTBEAT_ORPHAN: Duration = Duration::from_millis(100);
/// Time connections have to end when somebody stops a worker that has no supervisor, ms.
const ORPHAN_STOP_MS: u64 = 30_000;
/// A draining worker hears within this time of a generation that takes its connections, or none is
/// going to. Probation is shorter by default.
const PEER_WITHIN: Duration = Duration::from_secs(30);
/// Time for the threads to close their books at the end; one that hangs must not keep the process.
const THREADS_FINISH: Duration = Duration::from_secs(1);
/// Time for the access log to reach the disk at the end.
const LOG_FINISH: Duration = Duration::from_secs(2);

/// A worker from READY on.
pub(super) struct Running {
    pub(super) link: Link,
    pub(super) life: Lifecycle,
    pub(super) it: Prepared,
    admin: Admin,
    pub(super) closing: Closing,
    pub(super) reporter: Reporter,
    /// Lines that logs lost, and how many are in the statistics.
    log_stats: (LogStats, [u64; 2]),
    pub(super) orphanage: Orphanage,
    /// Listeners that PAUSE named: served until DRAIN.
    pub(super) removed: Vec<ListenerKey>,
    /// Listeners that wait for their sockets.
    pub(super) sockets: Sockets,
    released: (mpsc::UnboundedSender<Vec<ListenerKey>>, mpsc::UnboundedReceiver<Vec<ListenerKey>>),
    heirs: Option<Rc<Heirs>>,
    watch: Rc<Watch>,
    /// A thread is stuck, or goes on.
    news: Rc<Notify>,
    /// Where connections shall move.
    targets: mpsc::UnboundedSender<Option<Target>>,
}

/// A message could not be carried out.
#[derive(Debug, thiserror::Error)]
enum CommandError {
    #[error("the handoff channel failed")]
    Link(#[from] LinkError),
    #[error("not possible")]
    Threads(#[from] ThreadError),
}

impl Running {
    pub(super) fn new(link: Link, prepared: Prepared) -> Self {
        let released = mpsc::unbounded_channel();
        let log_stats = (LogStats::new(&prepared.stats), [0; 2]);
        let reporter = Reporter::new(&prepared.clusters, &prepared.stats);
        let (targets, named) = mpsc::unbounded_channel();
        if let Some(segment) = &prepared.segment {
            let welcome = &prepared.welcome;
            let closes = welcome.settings.on_removed == OnRemoved::Close;
            let crew = prepared.threads.crew();
            let own = (welcome.generation, closes);
            tokio::task::spawn_local(export::run(Arc::clone(segment), crew, own, named));
        }
        let heirs = Ground::of(&prepared).map(|ground| Rc::new(Heirs::new(ground)));
        let (watch, news) = (Rc::new(prepared.threads.watch()), Rc::new(Notify::new()));
        let limit = Duration::from_millis(prepared.welcome.settings.thread_timeout_ms);
        if !limit.is_zero() {
            tokio::task::spawn_local(Rc::clone(&watch).run(limit, Rc::clone(&news)));
        }
        Self {
            admin: Admin::new(&prepared),
            closing: Closing::default(),
            reporter,
            log_stats,
            orphanage: Orphanage::new(&prepared),
            link,
            life: Lifecycle::new(),
            it: prepared,
            removed: Vec::new(),
            sockets: Sockets::default(),
            released,
            heirs,
            watch,
            news,
            targets,
        }
    }

    /// Runs until the worker has ended.
    pub(super) async fn run(mut self, mut signals: Signals) -> Exit {
        let clusters = Arc::clone(&self.it.clusters);
        tokio::task::spawn_local(async move { clusters.run_refresh().await });
        let interval = Duration::from_millis(self.it.welcome.settings.status_interval_ms.max(10));
        let mut status = tokio::time::interval(interval);
        status.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let pause = match (self.life.is_ending(), self.life.is_orphan()) {
                (true, _) => HEARTBEAT_ENDING,
                (false, true) => HEARTBEAT_ORPHAN,
                (false, false) => HEARTBEAT,
            };
            let is_in_charge = self.takes_resources();
            tokio::select! {
                biased;
                received = self.link.recv(), if !self.life.is_orphan() => {
                    self.received(received).await;
                }
                answer = self.orphanage.answer(), if self.orphanage.is_calling() => {
                    self.on_answer(answer);
                }
                Some(keys) = self.released.1.recv() => self.has_released(keys),
                () = self.it.escrow.1.ready() => self.send_escrow(),
                event = self.it.resources.event(), if is_in_charge => self.take_resources(event).await,
                action = self.admin.action() => self.act(action),
                () = signals.next() => self.asked_to_end().await,
                _ = status.tick(), if !self.life.is_orphan() => self.send_status(),
                () = self.news.notified(), if !self.life.is_orphan() => self.send_status(),
                () = tokio::time::sleep(pause) => {}
            }
            self.close_due_listeners().await;
            self.look_for_supervisor();
            self.heartbeat();
            self.report();
            let lost = [self.it.log_writer.counts().dropped, self.it.log.lost()];
            self.log_stats.0.lost(&mut self.log_stats.1, lost);
            match self.life.verdict(clock::now(), self.it.gates.global.open()) {
                Verdict::Stay => {}
                Verdict::Finish => return self.finish().await,
                Verdict::Cut => {
                    let open = self.it.gates.global.open();
                    tracing::warn!(connections = open, "cut at the deadline");
                    // Nobody goes on with what is cut on purpose.
                    self.it.escrow.0.close();
                    let cut = tokio::time::timeout(THREADS_FINISH, self.it.threads.cut()).await;
                    if !matches!(cut, Ok(Ok(()))) {
                        tracing::error!("a worker thread does not write its connections off");
                    }
                    return self.finish().await;
                }
            }
        }
    }

    async fn received(&mut self, received: Result<Option<Received>, LinkError>) {
        match received {
            Ok(Some(received)) if self.is_superseded() => {
                let seq = received.seq;
                self.try_send(|link| link.nack(seq, "another supervisor commands this worker"));
                self.lost_supervisor(None);
            }
            Ok(Some(received)) => {
                let (seq, name) = (received.seq, received.message.name());
                tracing::debug!(message = name, "from the supervisor");
                match self.carry_out(received).await {
                    Ok(()) => {}
                    Err(CommandError::Link(error)) => self.lost_supervisor(Some(&error)),
                    Err(error @ CommandError::Threads(_)) => {
                        tracing::error!(message = name, error = chain(&error), "not carried out");
                        self.try_send(|link| link.nack(seq, chain(&error)));
                    }
                }
            }
            Ok(None) => self.lost_supervisor(None),
            Err(error) => self.lost_supervisor(Some(&error)),
        }
    }

    async fn carry_out(&mut self, received: Received) -> Result<(), CommandError> {
        let seq = received.seq;
        match received.message {
            ToWorker::Take(_) | ToWorker::Resume(_) => {
                fault::point("take");
                self.serve().await?;
                fault::point("taken");
                self.link.ack(seq)?;
            }
            ToWorker::Pause(pause) => {
                fault::point("pause");
                self.pause(pause).await?;
                fault::point("paused");
                self.link.ack(seq)?;
            }
            ToWorker::Drain(drain) => {
                fault::point("drain");
                self.drain(drain).await?;
                fault::point("draining");
                self.link.ack(seq)?;
            }
            ToWorker::Stop(stop) => {
                fault::point("stop");
                self.stop(stop).await?;
            }
            ToWorker::ReopenLogs(_) => {
                self.it.log_writer.reopen();
                self.it.log.reopen();
                self.link.ack(seq)?;
            }
            ToWorker::Listeners(listeners) => {
                self.receive_sockets(listeners, received.fds).await?;
            }
            ToWorker::Unbound(unbound) => self.receive_unbound(unbound),
            ToWorker::Peer(peer) => match received.fds.into_iter().next() {
                Some(end) => {
                    self.meet(peer, end);
                    self.link.ack(seq)?;
                }
                None => self.link.nack(seq, "PEER comes with a descriptor")?,
            },
            ToWorker::Adopt(adopt) => match &self.heirs {
                Some(heirs) => {
                    let heirs = Rc::clone(heirs);
                    tokio::task::spawn_local(async move {
                        heirs.adopt(adopt, received.fds).await;
                    });
                }
                None => self.link.nack(seq, "this worker keeps no shared memory")?,
            },
            ToWorker::Release(release) => {
                self.release_drained(release.keys);
                self.link.ack(seq)?;
            }
            ToWorker::Welcome(_)
            | ToWorker::Config(_)
            | ToWorker::Addresses(_)
            | ToWorker::Resources(_)
            | ToWorker::Reattached(_) => {
                self.link.nack(seq, "the worker is configured already")?;
            }
        }
        Ok(())
    }

    /// PEER: connections go to another generation, or come from it.
    fn meet(&self, peer: Peer, end: OwnedFd) {
        match peer.role {
            PeerRole::Export => {
                let slot = SlotIndex(peer.slot);
                let target = Target { end, slot, generation: peer.generation };
                // The task runs as long as this sender lives.
                drop(self.targets.send(Some(target)));
            }
            PeerRole::Import => {
                let Some(ground) = Ground::of(&self.it) else { return };
                tokio::task::spawn_local(import::run(ground, end, peer.generation));
            }
        }
    }

    /// TAKE and RESUME: polls everything; returns when every thread does.
    async fn serve(&mut self) -> Result<(), CommandError> {
        self.it.threads.poll().await?;
        self.admin.start();
        self.count_serving();
        self.closing.cancel();
        self.removed.clear();
        self.it.drain.cancel();
        drop(self.targets.send(None));
        self.life.serve();
        self.it.clusters.tell_lacks();
        self.tell_resources();
        tracing::info!(generation = %self.it.welcome.generation, "serving");
        Ok(())
    }

    /// The facts of `/stats` about a server that serves.
    pub(super) fn count_serving(&self) {
        let stats = &self.it.server_stats;
        let count = |list: usize| u64::try_from(list).unwrap_or(u64::MAX);
        let listeners = count(self.it.listeners.count());
        let threads = u64::from(self.it.welcome.settings.concurrency);
        stats.server.concurrency.set(threads);
        let clusters = count(self.it.clusters.table().len());
        stats.cluster_manager.active_clusters.set(clusters);
        stats.listener_manager.total_listeners_draining.set(0);
        stats.listener_manager.total_listeners_active.set(listeners);
        stats.listener_manager.workers_started.set(1);
        if self.life.phase == Phase::Ready {
            let took = clock::now().duration_since(self.it.started).as_millis();
            stats.server.initialization_time_ms.record(u64::try_from(took).unwrap_or(u64::MAX));
            stats.cluster_manager.cluster_added.add(clusters);
            stats.listener_manager.listener_added.add(listeners);
            stats.listener_manager.listener_create_success.add(listeners * threads);
        }
    }

    /// The listeners that were not drained before are stopped.
    fn count_stopped(&self) {
        let listeners = self.it.listeners.count();
        self.it.server_stats.stopped(listeners.saturating_sub(self.closing.closed()));
    }

    async fn pause(&mut self, pause: Pause) -> Result<(), CommandError> {
        self.removed = pause.removed;
        self.admin.stop();
        self.it.threads.pause(self.removed.as_slice().into()).await?;
        if self.life.phase == Phase::Serving {
            self.life.phase = Phase::Paused;
        }
        // The supervisor tells its user now how many connections there are.
        self.it.threads.report().await?;
        self.send_status();
        Ok(())
    }

    async fn drain(&mut self, drain: Drain) -> Result<(), CommandError> {
        let now = clock::now();
        let deadline = Duration::from_millis(drain.deadline_ms);
        // What is going to move is not told to close while it waits for its new generation.
        let begin = match drain.strategy {
            DrainStrategy::Migrate => now + (deadline / 4).min(PEER_WITHIN),
            DrainStrategy::Gradual | DrainStrategy::Immediate => now,
        };
        self.it.drain.start(drain.strategy, Duration::from_millis(drain.drain_ms), begin);
        self.count_stopped();
        self.life.drain(now, deadline);
        self.it.threads.pause(self.removed.as_slice().into()).await?;
        let mut keys = std::mem::take(&mut self.removed);
        keys.extend(drain.removed);
        self.release(keys, Patience::REMOVED);
        Ok(())
    }

    async fn stop(&mut self, stop: Stop) -> Result<(), CommandError> {
        let (now, before) = (clock::now(), self.life.phase);
        self.it.drain.start(DrainStrategy::Immediate, Duration::ZERO, now);
        self.it.drain.stop(now);
        self.count_stopped();
        self.life.stop(now, Duration::from_millis(stop.graceful_ms));
        self.admin.close();
        drop(std::mem::take(&mut self.it.admin_shards));
        let places = &self.it.places;
        self.it.sockets.retain(|shard| !places.is_admin(&shard.key));
        // Who was served by this generation alone is not left in a queue that is closed unseen.
        let removed = std::mem::take(&mut self.removed);
        let (served, others): (Vec<_>, Vec<_>) =
            self.it.places.traffic().cloned().partition(|key| match before {
                Phase::Serving => true,
                Phase::Paused => removed.contains(key),
                Phase::Ready | Phase::Draining | Phase::Stopping => false,
            });
        self.it.threads.pause(served.as_slice().into()).await?;
        let patience = Patience::stopping(Duration::from_millis(stop.graceful_ms));
        self.release(served, patience);
        if before != Phase::Stopping {
            self.release(others, Patience::NONE);
        }
        Ok(())
    }

    /// SIGTERM or SIGINT. With a supervisor it is the one to end its workers. An orphan has nobody
    /// else to tell it: it stops as the service would, the second time at once.
    async fn asked_to_end(&mut self) {
        if !self.life.is_orphan() {
            tracing::warn!("SIGTERM and SIGINT are for the supervisor; a worker does nothing");
            return;
        }
        let graceful_ms = match self.life.phase {
            Phase::Stopping => 0,
            Phase::Ready | Phase::Serving | Phase::Paused | Phase::Draining => ORPHAN_STOP_MS,
        };
        if let Err(error) = self.stop(Stop { graceful_ms }).await {
            tracing::error!(error = chain(&error), "not everything was told to stop");
        }
    }

    /// Empties the queues of removed listeners without waiting for it.
    pub(super) fn release(&mut self, keys: Vec<ListenerKey>, patience: Patience) {
        if keys.is_empty() {
            return;
        }
        self.life.releasing += 1;
        let released = self.it.threads.release(&keys.as_slice().into(), patience, &self.it.sockets);
        let done = self.released.0.clone();
        tokio::task::spawn_local(async move {
            if let Err(error) = released.await {
                tracing::error!(error = chain(&error), "a removed listener was not emptied");
            }
            // The receiver lives as long as the process.
            drop(done.send(keys));
        });
    }

    fn has_released(&mut self, keys: Vec<ListenerKey>) {
        self.life.releasing -= 1;
        self.it.sockets.retain(|shard| !keys.contains(&shard.key));
        self.try_send(|link| link.send(Released { keys }));
    }

    /// Tells the supervisor which connections can outlive this process.
    fn send_escrow(&mut self) {
        let batches = &mut self.it.escrow.1;
        if self.life.is_orphan() {
            batches.forget();
        } else if let Err(error) = batches.send(&mut self.link) {
            self.lost_supervisor(Some(&error));
        }
    }

    pub(super) fn try_send(&mut self, send: impl FnOnce(&mut Link) -> Result<(), LinkError>) {
        if self.life.is_orphan() {
            return;
        }
        if let Err(error) = send(&mut self.link) {
            self.lost_supervisor(Some(&error));
        }
    }

    /// Alive as far as all threads are. One that only waits for a processor is.
    fn heartbeat(&self) {
        if let Some(segment) = &self.it.segment {
            segment.heartbeat(self.watch.alive_at());
        }
    }

    pub(super) fn send_status(&mut self) {
        let status = self.status();
        let news = self.it.clusters.take_news();
        let features = self.it.welcome.features.clone();
        self.try_send(|link| {
            names::tell(link, news, &features)?;
            link.send(status)
        });
    }

    fn status(&self) -> Status {
        let status = self.it.threads.books().status();
        let stuck = self.watch.stuck();
        Status {
            served: if stuck.is_empty() { 0 } else { self.watch.served() },
            stuck,
            connections: self.it.gates.global.open(),
            slowest_thread_mono_ms: self.it.threads.slowest_mono_ms().min(mono_ms()),
            ..status
        }
    }

    /// Ends the threads and says goodbye.
    async fn finish(mut self) -> Exit {
        self.it.escrow.0.close();
        let report = tokio::time::timeout(THREADS_FINISH, self.it.threads.report()).await;
        let threads_answer = matches!(report, Ok(Ok(()))) && self.watch.stuck().is_empty();
        if !threads_answer {
            tracing::error!("a worker thread does not answer; its last numbers are missing");
        }
        fault::point("drained");
        let status = self.status();
        self.try_send(|link| link.send(Drained { status }));
        if !self.life.is_orphan()
            && let Err(error) = self.link.drain().await
        {
            tracing::warn!(error = chain(&error), "the supervisor did not hear the end");
        }
        let generation = self.it.welcome.generation;
        if threads_answer {
            self.it.threads.join();
        }
        if !self.it.log_writer.finish(LOG_FINISH) {
            tracing::warn!("the end of the access log could not be written in time");
        }
        tracing::info!(%generation, "ended");
        Exit::Ok
    }
}
