//! How many downstream connections may be open: over all listeners, and on one listener.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// Which limit was reached.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Limit {
    /// That of all listeners together.
    Global,
    /// That of the listener.
    Listener,
}

/// Counts open connections and knows how many there may be. Shared by all threads.
#[derive(Debug)]
pub struct Gate {
    open: AtomicU64,
    max: u64,
}

impl Gate {
    /// A gate for at most `max` connections; `None` = any number.
    pub fn new(max: Option<u64>) -> Arc<Self> {
        Arc::new(Self { open: AtomicU64::new(0), max: max.unwrap_or(u64::MAX) })
    }

    /// Connections open now.
    pub fn open(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }

    fn enter(&self) -> bool {
        let before = self.open.fetch_add(1, Ordering::Relaxed);
        if before >= self.max {
            self.leave();
        }
        before < self.max
    }

    fn leave(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The right of one connection to be open; given back when dropped.
#[derive(Debug)]
pub struct Permit {
    global: Arc<Gate>,
    listener: Arc<Gate>,
}

impl Permit {
    /// Asks both gates for one more connection.
    ///
    /// # Errors
    /// The limit that was reached; neither gate counts the connection then.
    pub fn ask(global: &Arc<Gate>, listener: &Arc<Gate>) -> Result<Self, Limit> {
        if !global.enter() {
            return Err(Limit::Global);
        }
        if !listener.enter() {
            global.leave();
            return Err(Limit::Listener);
        }
        Ok(Self { global: Arc::clone(global), listener: Arc::clone(listener) })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.global.leave();
        self.listener.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permit_is_given_back_when_the_connection_ends() {
        let global = Gate::new(Some(2));
        let listener = Gate::new(None);
        let first = Permit::ask(&global, &listener).unwrap();
        let second = Permit::ask(&global, &listener).unwrap();
        assert_eq!(Permit::ask(&global, &listener).unwrap_err(), Limit::Global);
        assert_eq!((global.open(), listener.open()), (2, 2));
        drop(first);
        let third = Permit::ask(&global, &listener).unwrap();
        drop((second, third));
        assert_eq!((global.open(), listener.open()), (0, 0));
    }

    #[test]
    fn a_full_listener_does_not_use_up_the_global_limit() {
        let global = Gate::new(Some(5));
        let listener = Gate::new(Some(0));
        assert_eq!(Permit::ask(&global, &listener).unwrap_err(), Limit::Listener);
        assert_eq!(global.open(), 0);
    }
}
