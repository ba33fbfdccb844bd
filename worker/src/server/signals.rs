//! SIGTERM and SIGINT in a worker.
//!
//! They are meant for the supervisor, which says STOP to its workers; `pkill -TERM baton` and a
//! service manager that signals the whole group reach the workers as well, and must not end them
//! before their time. So a worker catches them, and looks at them only when it has no supervisor.

use std::{io, os::unix::net::UnixStream as StdStream};

use nix::libc::{SIGINT, SIGTERM};
use signal_hook::low_level::pipe;
use tokio::net::UnixStream;

/// The signals of this process from the moment of [`Signals::install`] on.
#[derive(Debug)]
pub(super) struct Signals {
    /// A byte for each signal; `None` when they could not be caught.
    bytes: Option<UnixStream>,
}

impl Signals {
    /// Catches the signals. They go on to end the process when that is not possible.
    pub(super) fn install() -> Self {
        let bytes = catch().inspect_err(|error| {
            tracing::warn!(%error, "cannot catch SIGTERM; it ends this worker at once");
        });
        Self { bytes: bytes.ok() }
    }

    /// The next signal, or several that came at once.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(super) async fn next(&mut self) {
        let Some(bytes) = &self.bytes else { return std::future::pending().await };
        loop {
            let mut seen = [0; 64];
            match bytes.try_read(&mut seen) {
                Ok(1..) => return,
                // The other end lives as long as the process.
                Ok(0) => return std::future::pending().await,
                Err(_) => {
                    if bytes.readable().await.is_err() {
                        return std::future::pending().await;
                    }
                }
            }
        }
    }
}

fn catch() -> io::Result<UnixStream> {
    let (ours, handlers) = StdStream::pair()?;
    ours.set_nonblocking(true)?;
    for signal in [SIGTERM, SIGINT] {
        pipe::register(signal, handlers.try_clone()?)?;
    }
    UnixStream::from_std(ours)
}
