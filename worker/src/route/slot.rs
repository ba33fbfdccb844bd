//! The routes of a connection manager as they are now: a table that is replaced whole.
//!
//! A request takes the table it finds and keeps it to its end; the next one, on the same connection
//! too, takes the newest.

use std::{cell::RefCell, rc::Rc, sync::Arc};

use super::RouteTable;
use crate::{
    config::route::RouteConfiguration,
    migrate::{Edition, Term},
};

/// Routes on one thread.
#[derive(Debug)]
pub struct RouteSlot {
    current: RefCell<Rc<RouteTable>>,
}

impl RouteSlot {
    /// Routes that stand in the configuration.
    pub fn fixed(configuration: &Arc<RouteConfiguration>) -> Rc<Self> {
        Rc::new(Self { current: RefCell::new(Rc::new(RouteTable::new(configuration))) })
    }

    /// Routes that are still to come: until then there is none.
    pub fn awaited(newest: &Edition) -> Rc<Self> {
        let none = RouteTable::new(&Arc::default()).for_term(Term::begin(newest));
        Rc::new(Self { current: RefCell::new(Rc::new(none)) })
    }

    /// The table for a request that begins.
    pub fn current(&self) -> Rc<RouteTable> {
        Rc::clone(&self.current.borrow())
    }

    /// Requests from now on take this table.
    pub fn replace(&self, configuration: &Arc<RouteConfiguration>, newest: &Edition) {
        let next = RouteTable::new(configuration).for_term(Term::begin(newest));
        self.current.replace(Rc::new(next));
    }

    /// The newest edition of the configuration is the last one with the table there is.
    pub fn end_term(&self) {
        if let Some(term) = self.current.borrow().term() {
            term.end();
        }
    }
}
