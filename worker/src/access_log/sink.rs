//! One destination of log lines and the thread that writes to it.
//!
//! Each sink has a thread of its own, so a full pipe behind stdout delays no file. Buffers reach
//! it through a bounded channel; when that is full, lines are dropped and counted.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
};

use super::Lines;
use crate::config::access_log::Sink;

/// Buffers that may wait for the writer. With 64 KiB each, 16 MiB: some seconds of a busy proxy.
const QUEUE: usize = 256;

/// What happened to log lines since the process began.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) written: AtomicU64,
    pub(super) dropped: AtomicU64,
    pub(super) failed_writes: AtomicU64,
    pub(super) failed_reopens: AtomicU64,
}

/// The sending side of a sink.
#[derive(Debug)]
pub(super) struct SinkWriter {
    pub(super) sink: Sink,
    queue: SyncSender<Job>,
    reopen: Arc<AtomicBool>,
    tally: Arc<Tally>,
}

/// What the writer thread is asked to do.
#[derive(Debug)]
enum Job {
    Write(Lines),
    /// Look at the `reopen` flag.
    Wake,
    /// Say so when everything before is written.
    Barrier(SyncSender<()>),
}

impl SinkWriter {
    /// Opens the sink and starts its thread.
    pub(super) fn start(sink: Sink, tally: &Arc<Tally>) -> io::Result<Self> {
        let output = Output::open(&sink)?;
        let (queue, jobs) = sync_channel(QUEUE);
        let reopen = Arc::new(AtomicBool::new(false));
        let thread = WriterThread {
            sink: sink.clone(),
            output,
            reopen: Arc::clone(&reopen),
            tally: Arc::clone(tally),
            torn: false,
            healthy: true,
        };
        std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || thread.run(&jobs))?;
        Ok(Self { sink, queue, reopen, tally: Arc::clone(tally) })
    }

    /// Hands lines over without waiting; drops and counts them when the writer is far behind.
    pub(super) fn submit(&self, lines: Lines) {
        if let Err(
            TrySendError::Full(Job::Write(lines)) | TrySendError::Disconnected(Job::Write(lines)),
        ) = self.queue.try_send(Job::Write(lines))
        {
            self.tally.dropped.fetch_add(lines.count, Ordering::Relaxed);
        }
    }

    /// Asks for the file to be opened anew. Lines submitted before may land in either file.
    pub(super) fn reopen(&self) {
        // Release: pairs with the swap of the writer thread.
        self.reopen.store(true, Ordering::Release);
        // A full queue wakes the thread as well.
        drop(self.queue.try_send(Job::Wake));
    }

    /// Asks to be told when everything submitted so far is written. May wait for a place in the
    /// queue, so it is not for threads that carry traffic.
    pub(super) fn barrier(&self, done: SyncSender<()>) -> bool {
        self.queue.send(Job::Barrier(done)).is_ok()
    }
}

/// What a writer thread owns.
struct WriterThread {
    sink: Sink,
    output: Output,
    reopen: Arc<AtomicBool>,
    tally: Arc<Tally>,
    /// The last write stopped inside a line.
    torn: bool,
    /// No failure was reported since the last success.
    healthy: bool,
}

impl WriterThread {
    fn run(mut self, jobs: &Receiver<Job>) {
        while let Ok(job) = jobs.recv() {
            // Acquire: pairs with the store in `SinkWriter::reopen`.
            if self.reopen.swap(false, Ordering::Acquire) {
                self.open_again();
            }
            match job {
                Job::Write(lines) => self.write(&lines),
                Job::Wake => {}
                Job::Barrier(done) => drop(done.send(())),
            }
        }
    }

    /// The old file stays in use when the new one cannot be opened: better there than nowhere.
    fn open_again(&mut self) {
        match Output::open(&self.sink) {
            Ok(output) => {
                self.output = output;
                self.torn = false;
            }
            Err(error) => {
                self.tally.failed_reopens.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(sink = %self.sink, %error, "cannot reopen an access log");
            }
        }
    }

    fn write(&mut self, lines: &Lines) {
        if self.torn && self.output.write(b"\n").is_ok() {
            self.torn = false;
        }
        let mut rest = lines.bytes.as_slice();
        let failure = loop {
            if rest.is_empty() {
                break None;
            }
            match self.output.write(rest) {
                Ok(0) => break Some(io::Error::from(io::ErrorKind::WriteZero)),
                Ok(count) => rest = rest.get(count..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Some(error),
            }
        };
        let Some(error) = failure else {
            self.tally.written.fetch_add(lines.count, Ordering::Relaxed);
            self.healthy = true;
            return;
        };
        let done = lines.bytes.len() - rest.len();
        let whole = lines.bytes.get(..done).unwrap_or_default();
        self.torn = self.torn || whole.last().is_some_and(|last| *last != b'\n');
        let kept = u64::try_from(memchr::memchr_iter(b'\n', whole).count()).unwrap_or(0);
        let kept = kept.min(lines.count);
        self.tally.written.fetch_add(kept, Ordering::Relaxed);
        self.tally.dropped.fetch_add(lines.count - kept, Ordering::Relaxed);
        self.tally.failed_writes.fetch_add(1, Ordering::Relaxed);
        if std::mem::take(&mut self.healthy) {
            tracing::warn!(sink = %self.sink, %error, "cannot write an access log; lines are lost");
        }
    }
}

/// An open sink.
enum Output {
    File(File),
    Stdout(io::Stdout),
    Stderr(io::Stderr),
}

impl Output {
    fn open(sink: &Sink) -> io::Result<Self> {
        Ok(match sink {
            Sink::File(path) => Self::File(append_to(path)?),
            Sink::Stdout => Self::Stdout(io::stdout()),
            Sink::Stderr => Self::Stderr(io::stderr()),
        })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.write(bytes),
            Self::Stdout(stdout) => {
                let mut lock = stdout.lock();
                lock.write_all(bytes)?;
                lock.flush()?;
                Ok(bytes.len())
            }
            Self::Stderr(stderr) => stderr.write(bytes),
        }
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}
