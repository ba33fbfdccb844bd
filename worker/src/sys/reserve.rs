//! One descriptor that is kept for the case that no other is left: with its number a client that waits in
//! the queue of the kernel can be accepted and closed. Otherwise it would wait for ever.
//!
//! ```text
//! none ── keep ──→ kept ── lend ──→ lent ── returned ──→ kept
//!                                    └─ its number was taken ──→ missed ── somebody opens ──→ kept
//! ```
//! The kernel gives the number to whoever asks first. So whatever connections are served with
//! is closed again when it was opened while the reserve was lent or missed, and its number becomes the reserve.

use std::{
    fs::File,
    io,
    os::fd::{AsRawFd, OwnedFd},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use nix::{
    errno::Errno,
    sys::resource::{Resource, getrlimit},
};

/// That of the process.
static RESERVE: Reserve = Reserve::new();

/// See the module. Each process has one.
#[derive(Debug)]
struct Reserve {
    file: Mutex<Option<OwnedFd>>,
    /// Odd from lending on until it is back.
    turns: AtomicU64,
}

impl Reserve {
    const fn new() -> Self {
        Self { file: Mutex::new(None), turns: AtomicU64::new(0) }
    }

    const fn is_out(turns: u64) -> bool {
        turns % 2 == 1
    }

    fn was_out_since(&self, turns: u64) -> bool {
        Self::is_out(turns) || self.turns.load(Ordering::SeqCst) != turns
    }

    /// Makes sure that there is one, if there can be and it is one that somebody `wants`.
    fn keep(
        &self,
        make: impl FnOnce() -> io::Result<OwnedFd>,
        wants: impl FnOnce(&OwnedFd) -> bool,
    ) {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if file.is_some() {
            return;
        }
        match make() {
            Ok(made) => *file = Some(made).filter(wants),
            // Somebody has it, and will give it back.
            Err(error) if error.raw_os_error() == Some(Errno::EMFILE as i32) => return,
            // It is not the number that is missing: nobody can help with that.
            Err(_) => {}
        }
        let turns = self.turns.load(Ordering::SeqCst);
        if Self::is_out(turns) {
            self.turns.store(turns + 1, Ordering::SeqCst);
        }
    }

    /// Frees the number; false when there is none, or somebody has it already.
    fn lend(&self) -> bool {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if file.is_none() {
            return false;
        }
        // Before it is free: whoever gets it sees this.
        self.turns.fetch_add(1, Ordering::SeqCst);
        *file = None;
        true
    }
}

/// Makes sure that the reserve is there, if it can be.
pub fn keep() {
    RESERVE.keep(file, |_| true);
}

/// Takes the reserve when the process has descriptors enough. Where there are few, polling comes first, and
/// nobody needs it before there are clients: [`lend`] takes it then.
pub fn keep_of_many() {
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft);
    let many = |file: &OwnedFd| u64::try_from(file.as_raw_fd()).is_ok_and(|n| n < limit / 4);
    RESERVE.keep(file, many);
}

fn file() -> io::Result<OwnedFd> {
    File::open("/dev/null").map(OwnedFd::from)
}

/// The reserve, whose number is free meanwhile. It comes back when this is dropped.
#[derive(Debug)]
pub struct Lent(());

/// Frees the number of the reserve for who calls; `None` when there is none, or somebody else has it.
pub fn lend() -> Option<Lent> {
    keep();
    RESERVE.lend().then(|| Lent(()))
}

impl Drop for Lent {
    fn drop(&mut self) {
        keep();
    }
}

/// A moment before something is opened, to find out whether that got the number of the reserve.
#[derive(Clone, Copy, Debug)]
pub struct Turn(u64);

impl Turn {
    /// The present moment.
    pub fn now() -> Self {
        Self(RESERVE.turns.load(Ordering::SeqCst))
    }

    /// Whether what was opened since may have the number of the reserve: it has to be closed, and [`keep`]
    /// called.
    pub fn has_reserve(self) -> bool {
        RESERVE.was_out_since(self.0)
    }
}

/// Runs something that opens descriptors, with which connections are served.
///
/// # Errors
/// Its own, and `EMFILE` when it may have got the number of the reserve: what was opened is closed again.
pub fn open<T>(make: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let turn = Turn::now();
    let made = make()?;
    if turn.has_reserve() {
        drop(made);
        keep();
        return Err(Errno::EMFILE.into());
    }
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> io::Result<OwnedFd> {
        Err(Errno::EMFILE.into())
    }

    #[test]
    fn what_is_opened_while_it_is_lent_has_it() {
        let reserve = Reserve::new();
        reserve.keep(file, |_| true);
        let before = reserve.turns.load(Ordering::SeqCst);
        assert!(!reserve.was_out_since(before));
        assert!(reserve.lend());
        assert!(!reserve.lend(), "it is lent");
        assert!(reserve.was_out_since(before));
        let during = reserve.turns.load(Ordering::SeqCst);
        reserve.keep(file, |_| true);
        assert!(reserve.was_out_since(during));
        assert!(reserve.was_out_since(before), "whoever was slow sees it, too");
        assert!(!reserve.was_out_since(reserve.turns.load(Ordering::SeqCst)));
        assert!(reserve.lend(), "it is back");
    }

    #[test]
    fn it_stays_missed_until_somebody_can_give_it_back() {
        let reserve = Reserve::new();
        reserve.keep(file, |_| true);
        assert!(reserve.lend());
        reserve.keep(full, |_| true);
        assert!(!reserve.lend(), "somebody has it");
        let later = reserve.turns.load(Ordering::SeqCst);
        assert!(reserve.was_out_since(later), "the next that is opened becomes it");
        reserve.keep(file, |_| true);
        assert!(!reserve.was_out_since(reserve.turns.load(Ordering::SeqCst)));
        assert!(reserve.lend());
    }

    #[test]
    fn nobody_is_refused_for_one_that_cannot_come_back() {
        let reserve = Reserve::new();
        reserve.keep(full, |_| true);
        assert!(!reserve.lend(), "there never was one");
        assert!(!reserve.was_out_since(0));
        reserve.keep(file, |_| true);
        assert!(reserve.lend());
        reserve.keep(|| Err(Errno::ENFILE.into()), |_| true);
        assert!(!reserve.was_out_since(reserve.turns.load(Ordering::SeqCst)));
    }

    #[test]
    fn it_is_not_kept_where_polling_needs_it() {
        let reserve = Reserve::new();
        reserve.keep(file, |_| false);
        assert!(!reserve.lend());
        reserve.keep(file, |_| true);
        assert!(reserve.lend());
    }
}
