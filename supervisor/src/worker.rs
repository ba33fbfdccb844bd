//! One worker as the loop sees it: its process, its channel, what was sent and not answered.

use std::{
    collections::{BTreeSet, VecDeque},
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use baton_contract::{
    channel::{Channel, Flushed, Outbox, ReceiveError},
    fault,
    frame::{Frame, MAX_FDS},
    generation::Generation,
    listener_key::ListenerKey,
    message::{
        Addresses, Escrow, FromWorker, ListenerShard, Listeners, Resources, ToWorker, Unescrow,
    },
    shm::SlotIndex,
};
use serde::{Deserialize, Serialize};

use crate::{
    fd_store::FdStore,
    reexec::{Baggage, BaggageError},
    silence::Silence,
    spawn::{Process, Program},
    state::event::{CommandId, ConfigId, Event},
};

/// Most commands that may wait for an answer.
const MAX_UNANSWERED: usize = 64;
/// Most malformed packets before the channel counts as broken.
const MAX_MALFORMED: u32 = 16;
/// Most packets read from one worker before others get their turn.
const MAX_PACKETS: usize = 64;

/// Why a worker was not reached.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WorkerError {
    #[error("cannot make the message")]
    Message(#[from] baton_contract::message::MessageError),
    #[error("the channel failed")]
    Channel(#[from] baton_contract::channel::OutboxError),
    #[error("cannot copy a descriptor")]
    Descriptor(#[from] io::Error),
}

/// A worker without its descriptors.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct WorkerState {
    generation: Generation,
    pid: u32,
    awaited: bool,
    /// Frames that were not sent yet.
    waiting: Vec<Vec<u8>>,
    seq: u64,
    unanswered: VecDeque<(u64, CommandId)>,
    malformed: u32,
    shards: BTreeSet<(ListenerKey, u32)>,
    listed: bool,
    slot: Option<SlotIndex>,
    #[serde(default)]
    config: Option<ConfigId>,
    last_beat_ms: u64,
}

/// A worker process and its channel.
#[derive(Debug)]
pub(crate) struct Worker {
    generation: Generation,
    pub(crate) process: Process,
    /// `None` when it ended or failed, or an orphan has not come back yet.
    channel: Option<Channel>,
    /// It lived before this supervisor did, and may come back.
    awaited: bool,
    outbox: Outbox,
    seq: u64,
    unanswered: VecDeque<(u64, CommandId)>,
    malformed: u32,
    /// Sockets it has.
    shards: BTreeSet<(ListenerKey, u32)>,
    listed: bool,
    pub(crate) slot: Option<SlotIndex>,
    /// What it runs.
    pub(crate) config: Option<ConfigId>,
    pub(crate) last_beat_ms: u64,
    pub(crate) silence: Silence,
    /// What it put into escrow and took out of it, in order.
    pub(crate) escrow: Vec<Parcel>,
    /// What it said about names.
    pub(crate) addresses: Vec<Addresses>,
    /// What it accepted beside its configuration.
    pub(crate) resources: Vec<(Resources, Vec<OwnedFd>)>,
}

/// A message about connections in escrow.
#[derive(Debug)]
pub(crate) enum Parcel {
    /// ESCROW with its descriptors.
    In(Escrow, Vec<OwnedFd>),
    /// UNESCROW.
    Out(Unescrow),
}

impl Worker {
    /// Starts the process.
    ///
    /// # Errors
    /// When there is no program, no descriptor or no memory.
    pub(crate) fn start(program: &Program, generation: Generation) -> io::Result<Self> {
        let (ours, theirs) = Channel::pair()?;
        let process = program.start(generation, &theirs)?;
        Ok(Self { channel: Some(ours), ..Self::orphan(generation, process) })
    }

    /// A worker that lives and has no channel to this supervisor yet.
    pub(crate) fn orphan(generation: Generation, process: Process) -> Self {
        Self {
            generation,
            process,
            channel: None,
            awaited: false,
            outbox: Outbox::default(),
            seq: 0,
            unanswered: VecDeque::new(),
            malformed: 0,
            shards: BTreeSet::new(),
            listed: false,
            slot: None,
            config: None,
            last_beat_ms: 0,
            silence: Silence::default(),
            escrow: Vec::new(),
            addresses: Vec::new(),
            resources: Vec::new(),
        }
    }

    /// Its number.
    pub(crate) const fn generation(&self) -> Generation {
        self.generation
    }

    /// Puts its process and channel into the baggage; what else is known of it.
    pub(crate) fn pack(&self, baggage: &mut Baggage) -> Result<WorkerState, BaggageError> {
        let name = |what: &str| format!("worker.{}.{what}", self.generation);
        baggage.put_fd(name("process"), self.process.as_fd())?;
        if let Some(channel) = &self.channel {
            baggage.put_fd(name("channel"), channel.as_fd())?;
        }
        let mut waiting = Vec::new();
        for (at, (frame, fds)) in self.outbox.waiting().enumerate() {
            for (number, fd) in fds.iter().enumerate() {
                baggage.put_fd(name(&format!("{at}.{number}")), fd.as_fd())?;
            }
            // A frame that could be queued can be encoded.
            waiting.push(frame.encode().unwrap_or_default());
        }
        Ok(WorkerState {
            generation: self.generation,
            pid: self.process.id(),
            awaited: self.awaited,
            waiting,
            seq: self.seq,
            unanswered: self.unanswered.clone(),
            malformed: self.malformed,
            shards: self.shards.clone(),
            listed: self.listed,
            slot: self.slot,
            config: self.config,
            last_beat_ms: self.last_beat_ms,
        })
    }

    /// A worker as it was packed.
    pub(crate) fn unpack(state: WorkerState, baggage: &mut Baggage) -> Result<Self, BaggageError> {
        let name = |what: &str| format!("worker.{}.{what}", state.generation);
        let process = Process::restore(state.pid, baggage.take_fd(&name("process"))?);
        let channel = match baggage.take_fd(&name("channel")) {
            Ok(fd) => Some(Channel::from_fd(fd).map_err(BaggageError::Read)?),
            Err(_) => None,
        };
        let mut outbox = Outbox::default();
        for (at, bytes) in state.waiting.iter().enumerate() {
            let Ok(frame) = Frame::decode(bytes) else { continue };
            let mut fds = Vec::new();
            for number in 0..frame.nfds {
                fds.push(baggage.take_fd(&name(&format!("{at}.{number}")))?);
            }
            if let Err(error) = outbox.push(frame, fds) {
                tracing::error!(%error, "a message to a worker is lost");
            }
        }
        Ok(Self {
            channel,
            awaited: state.awaited,
            outbox,
            seq: state.seq,
            unanswered: state.unanswered,
            malformed: state.malformed,
            shards: state.shards,
            listed: state.listed,
            slot: state.slot,
            config: state.config,
            last_beat_ms: state.last_beat_ms,
            ..Self::orphan(state.generation, process)
        })
    }

    /// The worker may come back by itself.
    pub(crate) fn await_return(&mut self) {
        self.awaited = true;
    }

    /// It may come back and has not yet.
    pub(crate) fn is_awaited(&self) -> bool {
        self.awaited && self.channel.is_none()
    }

    /// A worker that was waited for is back with this channel and these sockets.
    pub(crate) fn comes_back(&mut self, channel: Channel, shards: BTreeSet<(ListenerKey, u32)>) {
        self.awaited = false;
        self.channel = Some(channel);
        self.outbox = Outbox::default();
        self.unanswered.clear();
        self.malformed = 0;
        self.shards = shards;
        self.listed = true;
    }

    /// Its sockets of these listeners are not those it needs.
    pub(crate) fn lacks(&mut self, keys: &[ListenerKey]) {
        self.shards.retain(|(key, _)| !keys.contains(key));
    }

    /// The channel to poll, with whether something waits to be written; `None` when it ended.
    pub(crate) fn channel(&self) -> Option<(BorrowedFd<'_>, bool)> {
        self.channel.as_ref().map(|channel| (channel.as_fd(), !self.outbox.is_empty()))
    }

    /// Sends a message, now or when the channel takes it.
    ///
    /// # Errors
    /// When the channel is broken.
    pub(crate) fn send(
        &mut self,
        message: &ToWorker,
        command: Option<CommandId>,
        fds: Vec<OwnedFd>,
    ) -> Result<(), WorkerError> {
        if self.channel.is_none() {
            return Ok(());
        }
        self.seq = self.seq.saturating_add(1);
        let count = u16::try_from(fds.len()).unwrap_or(u16::MAX);
        let frame = message.to_frame(self.generation, self.seq, count)?;
        if let Some(command) = command {
            self.unanswered.push_back((self.seq, command));
            if self.unanswered.len() > MAX_UNANSWERED {
                self.unanswered.pop_front();
            }
        }
        tracing::trace!(generation = %self.generation, message = message.name(), "sent");
        self.outbox.push(frame, fds)?;
        self.flush().map(drop)
    }

    /// Whether it can be sent more without that it waits.
    pub(crate) fn is_idle(&self) -> bool {
        self.channel.is_some() && self.outbox.is_empty()
    }

    /// Writes what waits.
    ///
    /// # Errors
    /// When the channel is broken.
    pub(crate) fn flush(&mut self) -> Result<Flushed, WorkerError> {
        match &self.channel {
            Some(channel) => Ok(self.outbox.flush(channel)?),
            None => Ok(Flushed::All),
        }
    }

    /// Sends the sockets of these listeners it does not have yet. After the first time only those
    /// that accept, because a worker that polls would spin on others. `request` is answered, if it is
    /// not 0.
    ///
    /// # Errors
    /// When the channel is broken.
    pub(crate) fn send_listeners(
        &mut self,
        keys: &[ListenerKey],
        request: u64,
        store: &FdStore,
    ) -> Result<(), WorkerError> {
        let mut entries = Vec::new();
        for key in keys {
            let shards = store.shards(key);
            let count = u32::try_from(shards.len()).unwrap_or(u32::MAX);
            for (shard, fd, listening) in shards {
                if self.shards.contains(&(key.clone(), shard)) || (self.listed && !listening) {
                    continue;
                }
                let entry = ListenerShard { key: key.clone(), shard, shards: count };
                entries.push((entry, fd.try_clone_to_owned()?));
            }
        }
        if self.listed && entries.is_empty() && request == 0 {
            return Ok(());
        }
        self.listed = true;
        let mut entries = entries.into_iter().peekable();
        loop {
            let (manifest, fds): (Vec<_>, Vec<_>) = entries.by_ref().take(MAX_FDS).unzip();
            self.shards.extend(manifest.iter().map(|e: &ListenerShard| (e.key.clone(), e.shard)));
            let last = entries.peek().is_none();
            self.send(&Listeners { manifest, last, request }.into(), None, fds)?;
            if last {
                return Ok(());
            }
        }
    }

    /// Reads what is there. Ends with `ChannelClosed` when the channel ended.
    pub(crate) fn receive(&mut self, events: &mut VecDeque<Event>) {
        let generation = self.generation;
        for _ in 0..MAX_PACKETS {
            let Some(channel) = &self.channel else { return };
            match channel.recv() {
                Ok(Some((frame, fds))) => match FromWorker::from_frame(&frame) {
                    Ok(FromWorker::Escrow(escrow)) => self.escrow.push(Parcel::In(escrow, fds)),
                    Ok(FromWorker::Unescrow(gone)) => self.escrow.push(Parcel::Out(gone)),
                    Ok(FromWorker::Addresses(told)) => self.addresses.push(told),
                    Ok(FromWorker::Resources(told)) => self.resources.push((told, fds)),
                    Ok(message) => self.on_message(message, events),
                    Err(error) => self.on_malformed(&error, events),
                },
                Ok(None) => self.close(events),
                Err(ReceiveError::Empty) => return,
                Err(ReceiveError::Io(error)) => {
                    tracing::warn!(%generation, %error, "the handoff channel failed");
                    self.close(events);
                }
                Err(error) => self.on_malformed(&error, events),
            }
        }
    }

    fn on_message(&mut self, message: FromWorker, events: &mut VecDeque<Event>) {
        let generation = self.generation;
        tracing::trace!(%generation, message = message.name(), "received");
        fault::point_of("supervisor.received", message.name());
        let (of, result) = match message {
            FromWorker::Ack(ack) => (ack.of, Ok(())),
            FromWorker::Nack(nack) => (nack.of, Err(nack.text)),
            FromWorker::Released(released) => {
                self.shards.retain(|(key, _)| !released.keys.contains(key));
                events.push_back(Event::Message { generation, message: released.into() });
                return;
            }
            message @ (FromWorker::Hello(_)
            | FromWorker::NeedListeners(_)
            | FromWorker::Warm(_)
            | FromWorker::Ready(_)
            | FromWorker::Failed(_)
            | FromWorker::Status(_)
            | FromWorker::Escrow(_)
            | FromWorker::Unescrow(_)
            | FromWorker::Addresses(_)
            | FromWorker::Resources(_)
            | FromWorker::Drained(_)
            | FromWorker::DrainListeners(_)
            | FromWorker::Reattach(_)
            | FromWorker::Holding(_)) => {
                events.push_back(Event::Message { generation, message });
                return;
            }
        };
        if let Some(at) = self.unanswered.iter().position(|(seq, _)| *seq == of)
            && let Some((_, command)) = self.unanswered.remove(at)
        {
            events.push_back(Event::Answered { generation, command, result });
        }
    }

    /// How much of what it said waits to be handled.
    pub(crate) fn heard(&self, events: &VecDeque<Event>) -> usize {
        events.len().saturating_add(self.escrow.len()).saturating_add(self.addresses.len())
    }

    /// A bad packet is skipped; a worker that sends many is not listened to any more.
    fn on_malformed(
        &mut self,
        error: &(dyn std::error::Error + 'static),
        events: &mut VecDeque<Event>,
    ) {
        tracing::warn!(generation = %self.generation, error, "a packet was skipped");
        self.malformed = self.malformed.saturating_add(1);
        if self.malformed >= MAX_MALFORMED {
            self.close(events);
        }
    }

    /// Stops using the channel.
    pub(crate) fn close(&mut self, events: &mut VecDeque<Event>) {
        if self.channel.take().is_some() {
            events.push_back(Event::ChannelClosed { generation: self.generation });
        }
    }
}
