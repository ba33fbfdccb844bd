//! When there is no socket to connect to an endpoint with: the log says which limit it is, and idle
//! connections make room.
//!
//! Idle connections of other threads may be in the way, too. Each thread looks from time to time whether
//! there was a [`shortage`](count) since it looked last, and closes its own then.

use std::{
    io,
    sync::atomic::{AtomicU64, Ordering},
};

use nix::errno::Errno;

use crate::seldom::Seldom;

/// Shortages of the process.
static SHORTAGES: AtomicU64 = AtomicU64::new(0);

/// What there may be too little of.
const LIMITS: &[(Errno, &str)] = &[
    (Errno::EMFILE, "open files of the process (`ulimit -n`, `LimitNOFILE=`)"),
    (Errno::ENFILE, "open files of the system (`fs.file-max`)"),
    (Errno::EADDRNOTAVAIL, "ports of the source address (`net.ipv4.ip_local_port_range`)"),
    (Errno::ENOBUFS, "memory for sockets"),
    (Errno::ENOMEM, "memory for sockets"),
];

/// What there is too little of, if the error is about that.
pub fn limit_of(error: &io::Error) -> Option<&'static str> {
    let code = error.raw_os_error()?;
    LIMITS.iter().find(|(errno, _)| *errno as i32 == code).map(|(_, limit)| *limit)
}

/// Shortages so far.
pub fn count() -> u64 {
    SHORTAGES.load(Ordering::Relaxed)
}

/// Idle connections should make room, wherever they are.
pub fn ask_for_room() {
    SHORTAGES.fetch_add(1, Ordering::Relaxed);
}

/// A client gets a 503, or its connection is closed, and the log has to say why.
#[cold]
pub fn tell(cluster: &str, limit: &str, error: &io::Error) {
    static SHORT: Seldom = Seldom::new();
    if let Some(connections) = SHORT.count() {
        tracing::warn!(
            cluster,
            connections,
            limit,
            %error,
            "no connection to an endpoint can be begun, a limit is reached"
        );
    }
}
