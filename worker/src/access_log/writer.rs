//! All sinks of a process.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering, mpsc::sync_channel},
    time::Duration,
};

use super::sink::{SinkWriter, Tally};
use crate::{clock, config::access_log::Sink};

/// Why an access log cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The file cannot be opened, or its thread cannot be started.
    #[error("cannot open the access log `{sink}`")]
    Open {
        /// Which one.
        sink: Sink,
        /// Why.
        #[source]
        cause: io::Error,
    },
}

/// What happened to log lines since the process began.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counts {
    /// Lines written.
    pub written: u64,
    /// Lines lost, because a disk was full or a reader too slow.
    pub dropped: u64,
    /// Writes that failed.
    pub failed_writes: u64,
    /// Files that could not be reopened.
    pub failed_reopens: u64,
}

/// The access log files of a process, each opened once, however many listeners log to it.
#[derive(Debug, Default)]
pub struct LogWriter {
    /// Locked when the configuration is applied and on commands, never for a request.
    sinks: Mutex<Vec<Arc<SinkWriter>>>,
    tally: Arc<Tally>,
}

impl LogWriter {
    /// A writer without any sink yet.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// The sink, opened now if it was not open.
    pub(super) fn open(&self, sink: &Sink) -> Result<Arc<SinkWriter>, LogError> {
        let mut sinks = self.sinks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = sinks.iter().find(|known| known.sink == *sink) {
            return Ok(Arc::clone(known));
        }
        let opened = SinkWriter::start(sink.clone(), &self.tally)
            .map_err(|cause| LogError::Open { sink: sink.clone(), cause })?;
        let opened = Arc::new(opened);
        sinks.push(Arc::clone(&opened));
        Ok(opened)
    }

    /// Opens all files anew, after they were renamed. Does not wait. Every line lands in the old
    /// or in the new file.
    pub fn reopen(&self) {
        for sink in self.all() {
            sink.reopen();
        }
    }

    /// Waits until everything handed over so far is written, at most for `limit`, and says
    /// whether it is. For the end of the process; never call it on a thread that carries traffic.
    pub fn finish(&self, limit: Duration) -> bool {
        let deadline = clock::now() + limit;
        let sinks = self.all();
        let (done, finished) = sync_channel(sinks.len().max(1));
        let expected = sinks.len();
        // A stuck sink must not hold up the others, and its queue may be full.
        for sink in sinks {
            let done = done.clone();
            let waiting = std::thread::Builder::new().spawn(move || sink.barrier(done));
            if waiting.is_err() {
                return false;
            }
        }
        drop(done);
        (0..expected).all(|_| {
            finished.recv_timeout(deadline.saturating_duration_since(clock::now())).is_ok()
        })
    }

    /// What happened to log lines so far.
    pub fn counts(&self) -> Counts {
        Counts {
            written: self.tally.written.load(Ordering::Relaxed),
            dropped: self.tally.dropped.load(Ordering::Relaxed),
            failed_writes: self.tally.failed_writes.load(Ordering::Relaxed),
            failed_reopens: self.tally.failed_reopens.load(Ordering::Relaxed),
        }
    }

    fn all(&self) -> Vec<Arc<SinkWriter>> {
        self.sinks.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
