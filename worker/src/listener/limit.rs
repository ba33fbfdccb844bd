//! How many downstream connections may be open: over all listeners, and on one listener.
//!
//! A [`Gate`] is what a limit is: it belongs to the process and knows how many connections the process
//! has. A [`Door`] is the gate as one thread sees it; through it the connections of all generations
//! are counted together, so that two of them in the overlap of a reload have one limit and not two.
//! Each generation applies the limit of its own configuration to all of them.

use std::{
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use baton_contract::shm::{Sum, Sums, ThreadSlab};

/// Which limit was reached.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Limit {
    /// That of all listeners together.
    Global,
    /// That of the listener.
    Listener,
}

/// A limit, and the connections of this process that count. Shared by all threads.
#[derive(Debug)]
pub struct Gate {
    /// Under this name all generations count together.
    name: String,
    open: AtomicU64,
    /// Over all generations; `u64::MAX` = no limit.
    max: u64,
    /// Of this process alone.
    own_max: u64,
}

impl Gate {
    /// The gate of all listeners: at most `max` connections over all generations, and at most
    /// `own_max` in this process, whose descriptors are limited. `None` = any number.
    pub fn global(max: Option<u64>, own_max: Option<u64>) -> Arc<Self> {
        Self::new("global".to_owned(), max, own_max)
    }

    /// The gate of a listener: at most `max` connections over all generations in which a listener
    /// has this name; `None` = any number.
    pub fn listener(name: &str, max: Option<u64>) -> Arc<Self> {
        Self::new(format!("listener.{name}"), max, None)
    }

    fn new(name: String, max: Option<u64>, own_max: Option<u64>) -> Arc<Self> {
        Arc::new(Self {
            name,
            open: AtomicU64::new(0),
            max: max.unwrap_or(u64::MAX),
            own_max: own_max.unwrap_or(u64::MAX),
        })
    }

    /// Connections open now in this process.
    pub fn open(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }
}

/// A gate as one thread sees it.
#[derive(Debug)]
pub struct Door {
    gate: Arc<Gate>,
    /// Of all threads of all generations; this thread changes its own part.
    sum: Sum,
}

impl Door {
    /// The gate for the thread of these sums.
    pub fn new(gate: &Arc<Gate>, sums: &Sums) -> Rc<Self> {
        let sum = sums.sum(&gate.name);
        Rc::new(Self { gate: Arc::clone(gate), sum })
    }

    /// A gate that counts what comes through this door and nothing else.
    pub fn alone(gate: &Arc<Gate>) -> Rc<Self> {
        Self::new(gate, &ThreadSlab::detached().sums())
    }

    fn enter(&self) -> bool {
        let before = self.gate.open.fetch_add(1, Ordering::Relaxed);
        // Without shared memory the number of the process is all there is to go by.
        let own_max = self.gate.own_max.min(self.gate.max);
        let granted = before < own_max && self.count_in();
        if !granted {
            self.gate.open.fetch_sub(1, Ordering::Relaxed);
        }
        granted
    }

    fn count_in(&self) -> bool {
        if self.gate.max == u64::MAX {
            self.sum.add();
            return true;
        }
        self.sum.add_up_to(self.gate.max)
    }

    fn enter_anyway(&self) {
        self.gate.open.fetch_add(1, Ordering::Relaxed);
        self.sum.add();
    }

    fn leave(&self) {
        self.gate.open.fetch_sub(1, Ordering::Relaxed);
        self.sum.sub();
    }
}

/// The right of one connection to be open; given back when dropped, on the thread that asked.
#[derive(Debug)]
pub struct Permit {
    global: Rc<Door>,
    listener: Rc<Door>,
}

impl Permit {
    /// Asks both gates for one more connection.
    ///
    /// # Errors
    /// The limit that was reached; neither gate counts the connection then.
    pub fn ask(global: &Rc<Door>, listener: &Rc<Door>) -> Result<Self, Limit> {
        if !global.enter() {
            return Err(Limit::Global);
        }
        if !listener.enter() {
            global.leave();
            return Err(Limit::Listener);
        }
        Ok(Self { global: Rc::clone(global), listener: Rc::clone(listener) })
    }

    /// As [`Permit::ask`], for a listener to which the limit of all listeners does not apply. Its
    /// connections count there all the same.
    ///
    /// # Errors
    /// The limit that was reached; neither gate counts the connection then.
    pub fn ask_listener(global: &Rc<Door>, listener: &Rc<Door>) -> Result<Self, Limit> {
        if !listener.enter() {
            return Err(Limit::Listener);
        }
        global.enter_anyway();
        Ok(Self { global: Rc::clone(global), listener: Rc::clone(listener) })
    }

    /// The permit of a connection that came from another generation: it was let in there, so it is
    /// not asked again, and counts even above the limit. Until the other generation drops its own
    /// permit the connection counts twice, and others may be refused at the very edge.
    pub fn imported(global: &Rc<Door>, listener: &Rc<Door>) -> Self {
        global.enter_anyway();
        listener.enter_anyway();
        Self { global: Rc::clone(global), listener: Rc::clone(listener) }
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
    use baton_contract::{
        generation::Generation,
        shm::{Geometry, SegmentOwner, SegmentWorker},
    };

    use super::*;

    fn doors(global: Option<u64>, listener: Option<u64>) -> (Rc<Door>, Rc<Door>) {
        let (global, listener) = (Gate::global(global, None), Gate::listener("l", listener));
        (Door::alone(&global), Door::alone(&listener))
    }

    #[test]
    fn a_permit_is_given_back_when_the_connection_ends() {
        let (global, listener) = doors(Some(2), None);
        let first = Permit::ask(&global, &listener).unwrap();
        let second = Permit::ask(&global, &listener).unwrap();
        assert_eq!(Permit::ask(&global, &listener).unwrap_err(), Limit::Global);
        assert_eq!((global.gate.open(), listener.gate.open()), (2, 2));
        drop(first);
        let third = Permit::ask(&global, &listener).unwrap();
        drop((second, third));
        assert_eq!((global.gate.open(), listener.gate.open()), (0, 0));
    }

    #[test]
    fn a_full_listener_does_not_use_up_the_global_limit() {
        let (global, listener) = doors(Some(5), Some(0));
        assert_eq!(Permit::ask(&global, &listener).unwrap_err(), Limit::Listener);
        assert_eq!((global.gate.open(), global.sum.total()), (0, 0));
    }

    #[test]
    fn a_listener_may_ignore_the_global_limit_and_still_counts_there() {
        let (global, listener) = doors(Some(1), Some(2));
        let first = Permit::ask_listener(&global, &listener).unwrap();
        let second = Permit::ask_listener(&global, &listener).unwrap();
        assert_eq!(Permit::ask_listener(&global, &listener).unwrap_err(), Limit::Listener);
        assert_eq!(global.gate.open(), 2);
        drop((first, second));
    }

    #[test]
    fn the_descriptors_of_the_process_are_a_limit_of_their_own() {
        let global = Door::alone(&Gate::global(None, Some(1)));
        let listener = Door::alone(&Gate::listener("l", None));
        let first = Permit::ask(&global, &listener).unwrap();
        assert_eq!(Permit::ask(&global, &listener).unwrap_err(), Limit::Global);
        drop(first);
    }

    #[test]
    fn an_imported_connection_counts_and_is_never_refused() {
        let (global, listener) = doors(Some(1), Some(1));
        let imported = [Permit::imported(&global, &listener), Permit::imported(&global, &listener)];
        assert_eq!((global.gate.open(), listener.sum.total()), (2, 2));
        assert_eq!(Permit::ask(&global, &listener).unwrap_err(), Limit::Global);
        drop(imported);
        assert!(Permit::ask(&global, &listener).is_ok());
    }

    /// Doors of a generation in the segment, each with the limit of its own configuration.
    fn generation(owner: &mut SegmentOwner, number: u32, max: u64) -> (Rc<Door>, Rc<Door>) {
        let slot = owner.register(Generation(number), 1).unwrap();
        let sums = SegmentWorker::open(owner.os_id(), slot).unwrap().thread(0).unwrap().sums();
        let global = Gate::global(None, None);
        (Door::new(&global, &sums), Door::new(&Gate::listener("l", Some(max)), &sums))
    }

    #[test]
    fn two_generations_have_one_limit() {
        let base_id = 1_900_000_000 + std::process::id();
        let geometry = Geometry { slabs: 24, ..Geometry::default() };
        let mut owner = SegmentOwner::create_with(base_id, geometry).unwrap();
        let old = generation(&mut owner, 1, 3);
        let new = generation(&mut owner, 2, 4);
        let first: Vec<_> = (0..3).map(|_| Permit::ask(&old.0, &old.1).unwrap()).collect();
        assert_eq!(Permit::ask(&old.0, &old.1).unwrap_err(), Limit::Listener);
        let fourth = Permit::ask(&new.0, &new.1).unwrap();
        assert_eq!(Permit::ask(&new.0, &new.1).unwrap_err(), Limit::Listener);
        assert_eq!((old.1.gate.open(), new.1.gate.open()), (3, 1), "the numbers of the processes");
        drop(first);
        let more: Vec<_> = (0..3).map(|_| Permit::ask(&new.0, &new.1).unwrap()).collect();
        assert_eq!(Permit::ask(&old.0, &old.1).unwrap_err(), Limit::Listener);
        drop((more, fourth));
        assert_eq!(new.1.sum.total(), 0);
    }
}
