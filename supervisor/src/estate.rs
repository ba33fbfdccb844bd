//! What a dead supervisor with the same base id left: its segment, with the generation table in it,
//! and workers that serve on. And how those workers come back.

use std::{collections::BTreeMap, os::fd::AsFd, path::Path, sync::Arc, time::Duration};

use baton_contract::{
    generation::Generation,
    shm::{Row, SegmentError, SegmentOwner, SlotIndex, find, start_of},
};

use crate::{
    clock::Clock,
    config_file,
    door::Return,
    fd_store::copy_listening,
    perform::Performer,
    spawn::Process,
    state::{
        action::Recipe,
        event::{Arrival, Estate, Event, Orphan},
    },
    worker::Worker,
};

/// Most workers that may come back without a row in the generation table.
const MAX_STRANGERS: usize = 64;

/// Everything that is needed to go on, or to begin.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) segment: Option<SegmentOwner>,
    pub(crate) clock: Clock,
    /// Workers of the dead supervisor, without a channel yet.
    pub(crate) workers: BTreeMap<Generation, Worker>,
    /// `None` when there was no other supervisor before.
    pub(crate) estate: Option<Estate>,
}

/// Who was the supervisor before this one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Before {
    /// Another process, which is gone.
    Process,
    /// An older program in this process, whose state could not be used.
    Program,
}

/// Takes over the segment of a dead supervisor, or makes one. To be called with the lock held.
pub(crate) fn find_or_create(base_id: u32, control_socket: &Path, before: Before) -> Found {
    let home = home(control_socket);
    // A segment of another layout cannot be read, but its workers can come back.
    let strangers = has_alien_segment(base_id);
    let names = match before {
        Before::Process => SegmentOwner::adoptable(base_id, home),
        Before::Program => SegmentOwner::left_by_this_process(base_id, home),
    };
    let adopted = names.into_iter().find_map(|name| {
        SegmentOwner::adopt(&name)
            .inspect_err(|error| tracing::warn!(name, %error, "a segment cannot be taken over"))
            .ok()
    });
    let Some(mut segment) = adopted else {
        let estate = strangers.then(|| Estate { strangers, ..Estate::default() });
        let clock = Clock::start();
        let segment = create(base_id, control_socket, &clock);
        return Found { segment, clock, workers: BTreeMap::new(), estate };
    };
    SegmentOwner::sweep_stale(base_id);
    let clock = Clock::resume(segment.started());
    let (living, dead): (Vec<Row>, Vec<Row>) = segment.rows().into_iter().partition(|r| r.lives);
    for row in dead {
        if let Err(error) = segment.retire(row.slot) {
            tracing::error!(generation = %row.generation, %error, "statistics are lost");
        }
    }
    let mut estate = Estate { next: segment.next_generation(), strangers, ..Estate::default() };
    let mut workers = BTreeMap::new();
    for row in living {
        match Process::adopt(row.pid, row.start) {
            Ok(process) => {
                let mut worker = Worker::orphan(row.generation, process);
                worker.slot = Some(row.slot);
                worker.await_return();
                workers.insert(row.generation, worker);
                estate.orphans.push(orphan(&row, &clock));
            }
            Err(error) => {
                tracing::debug!(generation = %row.generation, %error, "it ended just now");
                drop(segment.retire(row.slot));
            }
        }
    }
    Found { segment: Some(segment), clock, workers, estate: Some(estate) }
}

/// Identifies the place of a control socket. Two proxies with the same base id in two places are
/// two proxies.
fn home(control_socket: &Path) -> u64 {
    let path = std::path::absolute(control_socket);
    let path = path.unwrap_or_else(|_| control_socket.to_owned());
    let hash = config_file::identify(path.as_os_str().as_encoded_bytes()).0;
    u64::try_from(hash >> 64).unwrap_or(u64::MAX)
}

fn orphan(row: &Row, clock: &Clock) -> Orphan {
    Orphan {
        generation: row.generation,
        pid: row.pid,
        started: clock.at_mono_ms(row.registered_mono_ms),
        state: row.state,
    }
}

/// There is a segment of a layout this program does not know, and its supervisor is gone.
fn has_alien_segment(base_id: u32) -> bool {
    find(base_id)
        .iter()
        .any(|name| matches!(SegmentOwner::probe(name), Err(SegmentError::Layout { .. })))
}

/// Makes a segment. Without one the proxy works, but nobody sees statistics of it as a whole.
pub(crate) fn create(base_id: u32, control_socket: &Path, clock: &Clock) -> Option<SegmentOwner> {
    let created = SegmentOwner::create(base_id).or_else(|error| {
        let in_memory = SegmentOwner::in_memory_file(base_id).map_err(|_| error);
        in_memory.inspect(|_| {
            tracing::warn!(
                "no shared memory, is /dev/shm full? statistics are in memory of the supervisor instead, \
                 and begin anew if it is killed"
            );
        })
    });
    match created {
        Ok(segment) => {
            segment.set_origin(home(control_socket), clock.started());
            Some(segment)
        }
        Err(error) => {
            let error: &dyn std::error::Error = &error;
            tracing::error!(
                error,
                "no shared memory, is /dev/shm full? each generation counts for itself, and connections \
                 neither move nor outlive a crash"
            );
            None
        }
    }
}

impl Performer {
    /// No other supervisor took the workers over.
    pub(crate) fn commands(&self) -> bool {
        self.segment.as_ref().is_none_or(SegmentOwner::commands)
    }

    /// Lets orphans in.
    pub(crate) fn open_door(&mut self) {
        let now = self.clock.now();
        let returns = self.door.as_mut().map(|door| door.turn(now)).unwrap_or_default();
        for back in returns {
            if let Err((back, why)) = self.let_in(back) {
                back.refuse(&why);
            }
        }
    }

    fn let_in(&mut self, back: Return) -> Result<(), (Box<Return>, String)> {
        let generation = back.reattach.generation;
        if let Err(why) = self.recognise(&back) {
            return Err((Box::new(back), why));
        }
        let segment = self.segment.as_ref();
        let (epoch, os_id) = segment.map_or((0, ""), |segment| (segment.epoch(), segment.os_id()));
        if let Err(why) = back.welcome(epoch, os_id) {
            return Err((Box::new(back), why));
        }
        let alien = back.is_alien();
        let Return { channel, pid, reattach, config, held } = back;
        let Some(worker) = self.workers.get_mut(&generation) else { return Ok(()) };
        let shards = held.iter().map(|(entry, _)| (entry.spec.key.clone(), entry.shard)).collect();
        worker.comes_back(channel, shards);
        let specs = held.iter().map(|(entry, _)| (entry.spec.key.clone(), entry.spec.clone()));
        let specs: BTreeMap<_, _> = specs.collect();
        for (entry, fd) in held {
            self.store.hold(&entry, fd);
        }
        self.listeners_changed = true;
        let id = config_file::identify(&config);
        self.configs.entry(id).or_insert_with(|| Arc::from(config));
        worker.config = Some(id);
        let registered = worker.slot.and_then(|slot| self.registered(slot));
        let arrival = Arrival {
            pid,
            started: registered.unwrap_or_else(|| self.clock.now()),
            recipe: Recipe { config: id, concurrency: reattach.concurrency },
            state: reattach.state,
            listeners: specs.into_values().collect(),
            cut_in: reattach.deadline_ms.map(Duration::from_millis),
            migrates: !alien && reattach.hello.migrates(),
            alien,
        };
        self.events.push_back(Event::Reattached { generation, arrival: Box::new(arrival) });
        Ok(())
    }

    /// When a generation was registered, as a time of ours.
    fn registered(&self, slot: SlotIndex) -> Option<Duration> {
        let rows = self.segment.as_ref()?.rows();
        let row = rows.into_iter().find(|row| row.slot == slot)?;
        Some(self.clock.at_mono_ms(row.registered_mono_ms))
    }

    /// Checks that the process that called is the worker it says it is.
    fn recognise(&mut self, back: &Return) -> Result<(), String> {
        let generation = back.reattach.generation;
        match self.workers.get(&generation) {
            Some(worker) if worker.process.id() != back.pid => {
                Err(format!("process {} is not generation {generation}", back.pid))
            }
            Some(worker) if !worker.is_awaited() => Err("nobody waits for it".to_owned()),
            Some(_) => Ok(()),
            None if self.workers.len() >= MAX_STRANGERS => Err("too many live already".to_owned()),
            None => {
                // It has no row in the segment: another layout, or there was no room.
                let start = start_of(back.pid).unwrap_or(0);
                let process = Process::adopt(back.pid, start).map_err(|error| error.to_string())?;
                let mut worker = Worker::orphan(generation, process);
                worker.await_return();
                self.workers.insert(generation, worker);
                Ok(())
            }
        }
    }

    /// Copies the listening sockets of a worker that does not answer.
    pub(crate) fn rescue(&mut self, generation: Generation) {
        let Some(worker) = self.workers.get(&generation) else { return };
        let pid = worker.process.id();
        match copy_listening(pid, worker.process.as_fd()) {
            Ok(sockets) => {
                let kept = self.store.keep_for_later(sockets);
                tracing::info!(%generation, pid, kept, "kept sockets of a worker that hangs");
            }
            Err(error) => {
                tracing::error!(%generation, pid, %error, "cannot copy listening sockets");
            }
        }
    }
}
