//! The routes of a connection manager as they are now: a table that is replaced whole.
//!
//! A request takes the table it finds and keeps it to its end; the next one, on the same connection
//! too, takes the newest.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
};

use super::RouteTable;
use crate::config::route::RouteConfiguration;

/// Routes on one thread.
#[derive(Debug)]
pub struct RouteSlot {
    current: RefCell<Rc<RouteTable>>,
    /// A table came that may have no routes; before that nobody knows any.
    is_known: Cell<bool>,
}

impl RouteSlot {
    /// Routes that stand in the configuration.
    pub fn fixed(configuration: &Arc<RouteConfiguration>) -> Rc<Self> {
        let current = RefCell::new(Rc::new(RouteTable::new(configuration)));
        Rc::new(Self { current, is_known: Cell::new(true) })
    }

    /// Routes that are still to come: until then there is none.
    pub fn awaited() -> Rc<Self> {
        let current = RefCell::new(Rc::new(RouteTable::new(&Arc::default())));
        Rc::new(Self { current, is_known: Cell::new(false) })
    }

    /// The table for a request that begins.
    pub fn current(&self) -> Rc<RouteTable> {
        Rc::clone(&self.current.borrow())
    }

    /// Whether a table came.
    pub fn is_known(&self) -> bool {
        self.is_known.get()
    }

    /// Requests from now on take this table.
    pub fn replace(&self, configuration: &Arc<RouteConfiguration>) {
        self.current.replace(Rc::new(RouteTable::new(configuration)));
        self.is_known.set(true);
    }
}
