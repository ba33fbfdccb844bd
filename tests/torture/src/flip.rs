//! Changes every file of a configuration again and again, in every way, while it is used.

use crate::files::Way;
use crate::proxy::dynamic::{DynamicConfig, Part, Version};
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// A thread that changes the files until it is told to end.
#[derive(Debug)]
pub struct Flipper {
    config: Arc<DynamicConfig>,
    stop: Sender<()>,
    thread: JoinHandle<io::Result<u64>>,
}

/// What was done to the files.
#[derive(Clone, Copy, Debug)]
pub struct Flips {
    /// How often each file was changed at least.
    pub rounds: u64,
    /// What is in all of them now.
    pub last: Version,
}

impl Flipper {
    /// Changes each file once in every `period`, one after the other within it.
    pub fn start(config: Arc<DynamicConfig>, period: Duration) -> Self {
        let (stop, stopped) = channel();
        let files = Arc::clone(&config);
        let step = period / u32::try_from(Part::ALL.len()).expect("a few parts");
        let thread = std::thread::spawn(move || {
            let mut rounds = 0;
            while change_all(&files, rounds, step, &stopped)? {
                rounds += 1;
            }
            Ok(rounds)
        });
        Self { config, stop, thread }
    }

    /// Ends it, with one more change of every file by rename, which every program notices.
    ///
    /// # Errors
    ///
    /// When a file could not be written.
    pub fn finish(self) -> io::Result<Flips> {
        drop(self.stop);
        let rounds = self.thread.join().expect("the thread that changes files")?;
        // After the one that may have been begun.
        let last = Version::after(rounds + 2);
        for part in Part::ALL {
            self.config.put(part, last, Way::Rename)?;
        }
        Ok(Flips { rounds, last })
    }
}

/// One change of every file; false when it was ended before the last.
fn change_all(
    files: &DynamicConfig,
    round: u64,
    step: Duration,
    stopped: &Receiver<()>,
) -> io::Result<bool> {
    for part in Part::ALL {
        if stopped.recv_timeout(step) != Err(RecvTimeoutError::Timeout) {
            return Ok(false);
        }
        files.put(part, Version::after(round + 1), Way::of_change(round))?;
    }
    Ok(true)
}
