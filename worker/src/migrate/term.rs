//! Which editions of the configuration have something as it is.
//!
//! Resources change one by one, so a listener and a table of routes that a request uses may be of
//! different age. Who goes on with the request elsewhere needs one edition that has both.

use std::{cell::RefCell, rc::Rc, sync::Arc};

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
}

impl Term {
    /// Something that the newest edition has.
    pub fn begin(newest: &Edition) -> Rc<Self> {
        let first = newest.0.borrow().as_ref().map_or(0, |source| source.edition);
        Rc::new(Self { first, newest: newest.clone(), last: RefCell::default() })
    }

    /// The newest edition is the last one that has it.
    pub fn end(&self) {
        let mut last = self.last.borrow_mut();
        if last.is_none() {
            *last = self.newest.source();
        }
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
