//! Which editions of the configuration have something as it is.
//!
//! Resources change one by one, so a listener and a table of routes that a request uses may be of
//! different age. Who goes on with the request elsewhere needs one edition that has both.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use super::ConfigSource;

/// The newest edition of the configuration that a thread was told of.
#[derive(Clone, Debug, Default)]
pub struct Edition(Rc<RefCell<Option<Arc<ConfigSource>>>>);

impl Edition {
    /// Begins with this one; `None` when it cannot be handed on, as in tests.
    pub fn new(source: Option<Arc<ConfigSource>>) -> Self {
        Self(Rc::new(RefCell::new(source)))
    }

    /// The newest one.
    pub fn source(&self) -> Option<Arc<ConfigSource>> {
        self.0.borrow().clone()
    }

    /// There is a newer one.
    pub fn renew(&self, source: Arc<ConfigSource>) {
        self.0.replace(Some(source));
    }
}

/// The editions of the configuration that have one and the same version of something: of a listener, of
/// a table of routes.
#[derive(Debug)]
pub struct Term {
    first: u64,
    newest: Edition,
    /// The last one, once it is known.
    last: RefCell<Option<Arc<ConfigSource>>>,
    /// There is nothing in its place: what uses it is to end within a time.
    farewell: Cell<Option<Farewell>>,
}

/// Since when something is gone, and how long what uses it may go on.
#[derive(Clone, Copy, Debug)]
pub struct Farewell {
    since: Instant,
    within: Duration,
}

impl Farewell {
    /// When the time is over.
    pub fn end(&self) -> Instant {
        self.since + self.within
    }

    /// Whether this one of many users is asked to end now: more and more of them are.
    pub fn asks(&self, now: Instant, random: u64) -> bool {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let elapsed = nanos(now.saturating_duration_since(self.since));
        let within = nanos(self.within);
        elapsed >= within || random.checked_rem(within).is_none_or(|at| at < elapsed)
    }
}

impl Term {
    /// Something that the newest edition has.
    pub fn begin(newest: &Edition) -> Rc<Self> {
        let first = newest.0.borrow().as_ref().map_or(0, |source| source.edition);
        Rc::new(Self {
            first,
            newest: newest.clone(),
            last: RefCell::default(),
            farewell: Cell::default(),
        })
    }

    /// The newest edition is the last one that has it.
    pub fn end(&self) {
        let mut last = self.last.borrow_mut();
        if last.is_none() {
            *last = self.newest.source();
        }
    }

    /// There is nothing in its place: what uses it ends within this time.
    pub fn say_farewell(&self, since: Instant, within: Duration) {
        self.farewell.set(Some(Farewell { since, within }));
    }

    /// There is something in its place again: who still uses it may go on.
    pub fn take_back(&self) {
        self.farewell.set(None);
    }

    /// Until when what uses it may go on.
    pub fn farewell(&self) -> Option<Farewell> {
        self.farewell.get()
    }

    /// An edition that has it.
    pub fn source(&self) -> Option<Arc<ConfigSource>> {
        let last = self.last.borrow();
        last.clone().or_else(|| self.newest.source())
    }

    /// An edition that has both; there may be none.
    pub fn source_with(&self, other: &Self) -> Option<Arc<ConfigSource>> {
        let (own, its) = (self.source()?, other.source()?);
        let source = if own.edition <= its.edition { own } else { its };
        (source.edition >= self.first.max(other.first)).then_some(source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(edition: u64) -> Arc<ConfigSource> {
        let file = std::fs::File::open("/dev/null").unwrap().into();
        let hash = u128::from(edition);
        Arc::new(ConfigSource { hash, file_hash: 0, edition, path: String::new(), file })
    }

    #[test]
    fn a_request_moves_under_an_edition_that_has_both_its_listener_and_its_table() {
        let newest = Edition::new(Some(source(1)));
        let edition = |source: Option<Arc<ConfigSource>>| source.map(|source| source.edition);
        let (listener, table) = (Term::begin(&newest), Term::begin(&newest));
        newest.renew(source(2));
        assert_eq!(edition(listener.source_with(&table)), Some(2), "both are as they were");
        table.end();
        newest.renew(source(3));
        let newer = Term::begin(&newest);
        assert_eq!(edition(listener.source_with(&table)), Some(2));
        assert_eq!(edition(listener.source_with(&newer)), Some(3));
        listener.end();
        newest.renew(source(4));
        assert_eq!(edition(listener.source_with(&newer)), Some(3));
        let newest_table = Term::begin(&newest);
        assert_eq!(edition(listener.source_with(&newest_table)), None, "no edition has both");
        assert_eq!(edition(listener.source()), Some(3));
    }

    #[test]
    fn more_and_more_users_of_what_is_gone_are_asked_to_end() {
        let (now, second) = (crate::clock::now(), Duration::from_secs(1));
        let farewell = Farewell { since: now, within: second * 4 };
        let asked = |after: Duration| {
            (0..4_u64).filter(|at| farewell.asks(now + after, at * 1_000_000_000 + 1)).count()
        };
        assert_eq!([0, 1, 2, 3, 4].map(|after| asked(second * after)), [0, 1, 2, 3, 4]);
        let at_once = Farewell { since: now, within: Duration::ZERO };
        assert!(at_once.asks(now, 7));
    }
}
