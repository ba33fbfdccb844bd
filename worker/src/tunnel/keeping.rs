//! When a tunnel is put into escrow, and again when another supervisor commands.

use std::{
    os::fd::OwnedFd,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use baton_contract::shm::EscrowId;
use nix::errno::Errno;

use super::{KeptParts, Leads, Tunnel};
use crate::{
    escrow::{Copies, Desk, Refused, Taken},
    stats::EscrowStats,
};

/// A tunnel is put into escrow once it is this old: shorter ones do not cost what it takes.
const KEEP_AFTER: Duration = Duration::from_millis(20);

/// Whether a tunnel is to be put into escrow.
#[derive(Debug)]
pub struct Keeping {
    /// Since when it could be.
    since: Instant,
    /// It is, or it will never be.
    settled: bool,
}

/// When a tunnel is to be put into escrow.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Due {
    /// At once.
    Now,
    /// Then.
    At(Instant),
    /// Not as things are; when they change, the tunnel is polled.
    Never,
}

/// What the supervisor is to know about a tunnel.
#[derive(Debug)]
pub struct Papers {
    /// The record of the connection without its tunnel.
    pub record: Vec<u8>,
    /// Hash of the configuration that governs it; `None` = that of this generation.
    pub config: Option<u128>,
}

impl Keeping {
    /// For a tunnel that began at `since`.
    pub fn new(since: Instant) -> Self {
        Self { since, settled: false }
    }

    /// Says that a tunnel came from another generation, where it was in escrow by the name `id`.
    /// `false` when it is not to be served here.
    pub fn resume(&mut self, tunnel: &mut Tunnel, desk: &Desk, id: EscrowId) -> bool {
        match desk.take(id) {
            Taken::Held(hold) => {
                tunnel.hold = Some(hold);
                self.settled = true;
                true
            }
            Taken::Unheld => true,
            Taken::Elsewhere => false,
        }
    }

    /// Whether it is time to put the tunnel into escrow.
    pub fn due(&mut self, tunnel: &mut Tunnel, desk: &Desk, now: Instant) -> Due {
        if let Some(stale) = tunnel.hold.take_if(|hold| hold.is_stale()) {
            stale.forget();
            self.settled = false;
        }
        let at = self.since + KEEP_AFTER;
        if self.settled || !desk.holds_tunnels() {
            Due::Never
        } else if now < at {
            Due::At(at)
        } else if !tunnel.can_be_kept() {
            Due::Never
        } else if Copies::may_be_more() {
            Due::Now
        } else {
            // Those that come before it are on their way.
            self.since = now;
            Due::At(now + KEEP_AFTER)
        }
    }

    /// Puts the tunnel into escrow. `papers` is asked for what the supervisor is to know.
    pub fn put(
        &mut self,
        tunnel: &mut Tunnel,
        desk: &Desk,
        stats: &EscrowStats,
        papers: impl FnOnce(EscrowId, &KeptParts, Option<Leads>) -> Papers,
    ) {
        self.settled = true;
        match deposit(tunnel, desk, papers) {
            Ok(()) => stats.deposited.inc(),
            Err(Refused::Full) => {
                stats.full.inc();
                tell_full();
            }
            Err(Refused::Impossible) => stats.failed.inc(),
        }
    }
}

/// Says once that not all connections are safe any more; how many are not, the statistics say.
fn tell_full() {
    static TOLD: AtomicBool = AtomicBool::new(false);
    if !TOLD.swap(true, Ordering::Relaxed) {
        tracing::warn!(
            limit = "open files of the worker and of the supervisor (`ulimit -n`, `LimitNOFILE=`)",
            "from now on some tunnels would not outlive a crash: there is no room for more in escrow"
        );
    }
}

fn deposit(
    tunnel: &mut Tunnel,
    desk: &Desk,
    papers: impl FnOnce(EscrowId, &KeptParts, Option<Leads>) -> Papers,
) -> Result<(), Refused> {
    let mut hold = desk.claim()?;
    let (parts, leads) = tunnel.keep().map_err(|error| match error.raw_os_error() {
        Some(code) if code == Errno::EMFILE as i32 => Refused::Full,
        _ => Refused::Impossible,
    })?;
    let Papers { record, config } = papers(hold.id(), &parts, leads);
    let descriptors: Vec<OwnedFd> = parts.into_descriptors().into();
    hold.deposit(record, config, descriptors)?;
    tunnel.hold = Some(hold);
    Ok(())
}
