//! Connections that outlive this process: the side of the main thread. Makes batches of what the
//! threads put into escrow and take out of it.
//!
//! Nothing here may break the handoff channel: a batch leaves only when nothing else waits there, and
//! only one at a time is on its way.

use std::{
    collections::BTreeMap,
    os::fd::OwnedFd,
    sync::Arc,
    time::{Duration, Instant},
};

use baton_contract::{
    frame::MAX_FDS,
    message::{Escrow, EscrowEntry, Hex, MAX_ESCROW_RECORDS, Unescrow},
    shm::{EscrowId, SegmentWorker},
};
use tokio::sync::mpsc;

use crate::{
    clock,
    escrow::{Deposit, Errand},
    handoff::{Link, LinkError},
    sys::fault,
};

/// How long a batch waits for more. Connections that end meanwhile are never sent.
const GATHER: Duration = Duration::from_millis(10);
/// Wait for a channel that is busy.
const RETRY: Duration = Duration::from_millis(2);
/// Names in one UNESCROW; each takes about 30 bytes.
const NAMES: usize = 1000;

/// What is to be told to the supervisor.
#[derive(Debug)]
pub(super) struct Batches {
    errands: mpsc::UnboundedReceiver<Errand>,
    segment: Option<Arc<SegmentWorker>>,
    deposits: BTreeMap<EscrowId, Deposit>,
    withdrawn: Vec<EscrowId>,
    due: Option<Instant>,
}

impl Batches {
    /// Errands of the threads come from `errands`.
    pub(super) fn new(
        errands: mpsc::UnboundedReceiver<Errand>,
        segment: Option<Arc<SegmentWorker>>,
    ) -> Self {
        let (deposits, withdrawn) = (BTreeMap::new(), Vec::new());
        Self { errands, segment, deposits, withdrawn, due: None }
    }

    /// Waits until there is something to send.
    ///
    /// # Cancel safety
    /// Cancel safe: an errand that was received is kept.
    pub(super) async fn ready(&mut self) {
        loop {
            let errand = match self.due {
                None => self.errands.recv().await,
                Some(due) => tokio::select! {
                    biased;
                    () = tokio::time::sleep_until(due.into()) => return,
                    errand = self.errands.recv() => errand,
                },
            };
            match errand {
                Some(errand) => self.take(errand),
                // All threads are gone, and what they had with them.
                None => return std::future::pending().await,
            }
        }
    }

    fn take(&mut self, errand: Errand) {
        match errand {
            Errand::Deposit(deposit) => drop(self.deposits.insert(deposit.id, deposit)),
            Errand::Withdraw(id) if self.deposits.remove(&id).is_some() => self.free(id),
            Errand::Withdraw(id) => self.withdrawn.push(id),
        }
        self.due.get_or_insert_with(|| clock::now() + GATHER);
    }

    fn free(&self, id: EscrowId) {
        if let Some(segment) = &self.segment {
            segment.escrow_free(id);
        }
    }

    /// Sends what is due, as far as the channel takes it at once.
    ///
    /// # Errors
    /// When the channel failed.
    pub(super) fn send(&mut self, link: &mut Link) -> Result<(), LinkError> {
        while link.is_idle() {
            if !self.withdrawn.is_empty() {
                let rest = self.withdrawn.split_off(self.withdrawn.len().min(NAMES));
                let connections = std::mem::replace(&mut self.withdrawn, rest);
                link.send(Unescrow { connections })?;
            } else if let Some((escrow, descriptors)) = self.batch() {
                fault::point("escrow.sending");
                link.send_with(escrow, descriptors)?;
                fault::point("escrow.sent");
            } else {
                self.due = None;
                return Ok(());
            }
        }
        self.due = Some(clock::now() + RETRY);
        Ok(())
    }

    /// Drops everything, because nobody is there to take it.
    pub(super) fn forget(&mut self) {
        for id in std::mem::take(&mut self.deposits).into_keys() {
            self.free(id);
        }
        self.withdrawn.clear();
        self.due = None;
    }

    /// As many connections as fit into a frame.
    fn batch(&mut self) -> Option<(Escrow, Vec<OwnedFd>)> {
        let (mut connections, mut descriptors, mut bytes) = (Vec::new(), Vec::new(), 0);
        while let Some(entry) = self.deposits.first_entry() {
            let deposit = entry.get();
            bytes += deposit.record.len();
            let full = descriptors.len() + deposit.descriptors.len() > MAX_FDS
                || bytes > MAX_ESCROW_RECORDS;
            if full {
                break;
            }
            let Deposit { id, record, config, descriptors: own, copies: _ } = entry.remove();
            let count = u16::try_from(own.len()).unwrap_or(u16::MAX);
            descriptors.extend(own);
            let record = Hex(record);
            let config = config.map_or_else(String::new, |hash| format!("{hash:032x}"));
            connections.push(EscrowEntry { id, descriptors: count, record, config, held_ms: 0 });
        }
        (!connections.is_empty()).then_some((Escrow { connections }, descriptors))
    }
}

#[cfg(test)]
mod tests {
    use baton_contract::{channel::Channel, generation::Generation, message::FromWorker};

    use super::*;
    use crate::escrow::Copies;

    fn deposit(index: u32) -> Errand {
        let file = || std::fs::File::open("/dev/null").unwrap().into();
        let descriptors = (0..6).map(|_| file()).collect();
        Errand::Deposit(Deposit {
            id: EscrowId { index, nonce: 1 },
            record: vec![7; 200],
            config: None,
            descriptors,
            copies: Copies::count(6),
        })
    }

    /// What came at the other end: positions of connections, and names of ended ones.
    fn read(ours: &Channel, names: &mut Vec<u32>, ended: &mut Vec<EscrowId>) {
        while let Ok(Some((frame, descriptors))) = ours.recv() {
            let message = FromWorker::from_frame(&frame).unwrap();
            if let FromWorker::Escrow(escrow) = message {
                assert_eq!(descriptors.len(), 6 * escrow.connections.len());
                names.extend(escrow.connections.iter().map(|entry| entry.id.index));
            } else if let FromWorker::Unescrow(gone) = message {
                ended.extend(gone.connections);
            }
        }
    }

    #[test]
    fn batches_fill_frames_and_what_ended_before_is_never_sent() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (ours, theirs) = Channel::pair().unwrap();
            let mut link = Link::new(theirs, Generation(1)).unwrap();
            let (errands, receiver) = mpsc::unbounded_channel();
            let mut batches = Batches::new(receiver, None);
            for index in 0..100 {
                errands.send(deposit(index)).unwrap();
            }
            errands.send(Errand::Withdraw(EscrowId { index: 3, nonce: 1 })).unwrap();
            errands.send(Errand::Withdraw(EscrowId { index: 200, nonce: 9 })).unwrap();
            let (mut names, mut ended) = (Vec::new(), Vec::new());
            while names.len() < 99 || ended.is_empty() {
                tokio::time::timeout(Duration::from_secs(20), batches.ready()).await.unwrap();
                batches.send(&mut link).unwrap();
                read(&ours, &mut names, &mut ended);
            }
            let expected: Vec<u32> = (0..100).filter(|index| *index != 3).collect();
            assert_eq!(names, expected);
            assert_eq!(ended, [EscrowId { index: 200, nonce: 9 }]);
        });
    }
}
