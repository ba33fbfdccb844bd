//! How many downstream connections may be open: over all listeners, and on one listener.
//!
//! A [`Gate`] is what a limit is: it belongs to the process and knows how many connections the process
//! has. A [`Door`] is the gate as one thread sees it; through it the connections of all generations
//! are counted together, so that two of them in the overlap of a reload have one limit and not two.
//! Each generation applies the limit of its own configuration to all of them.
//!
//! The descriptors of the process are a limit, too. Where connections move from the older generation, it
//! holds over all generations as well: whatever an older one has must find room here.

use std::{
    cell::Cell,
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
    /// That of the open files of this process.
    Descriptors,
}

impl Limit {
    /// What refused the connection, for the log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Global => "overload.global_downstream_max_connections",
            Self::Listener => "connection_limit of the listener",
            Self::Descriptors => "open files of the process (`ulimit -n`, `LimitNOFILE=`)",
        }
    }
}

/// Connections that the descriptors of this process allow.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Capacity {
    /// Connections of this process.
    pub own: u64,
    /// Whether those of older generations will move to this process, so that they need a place.
    pub shared: bool,
}

impl Capacity {
    /// Any number.
    pub const UNLIMITED: Self = Self { own: u64::MAX, shared: false };
}

/// A limit, and the connections of this process that count. Shared by all threads.
#[derive(Debug)]
pub struct Gate {
    /// Under this name all generations count together.
    name: String,
    open: AtomicU64,
    /// Over all generations; `u64::MAX` = no limit.
    max: u64,
    /// What the descriptors allow.
    capacity: Capacity,
}

impl Gate {
    /// The gate of all listeners: at most `max` connections over all generations, `None` = any number,
    /// and what the descriptors of this process allow.
    pub fn global(max: Option<u64>, capacity: Capacity) -> Arc<Self> {
        Self::new("global".to_owned(), max, capacity)
    }

    /// The gate of a listener: at most `max` connections over all generations in which a listener
    /// has this name; `None` = any number.
    pub fn listener(name: &str, max: Option<u64>) -> Arc<Self> {
        Self::new(format!("listener.{name}"), max, Capacity::UNLIMITED)
    }

    fn new(name: String, max: Option<u64>, capacity: Capacity) -> Arc<Self> {
        Arc::new(Self { name, open: AtomicU64::new(0), max: max.unwrap_or(u64::MAX), capacity })
    }

    /// Whether the descriptors allow so many connections more than there are now.
    pub fn has_room_for(&self, more: u64) -> bool {
        self.open().saturating_add(more) <= self.capacity.own
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
    /// Connections of other generations, when they were counted last.
    others: Cell<u64>,
}

impl Door {
    /// The gate for the thread of these sums.
    pub fn new(gate: &Arc<Gate>, sums: &Sums) -> Rc<Self> {
        let sum = sums.sum(&gate.name);
        // Until they are counted.
        let others = Cell::new(u64::MAX);
        Rc::new(Self { gate: Arc::clone(gate), sum, others })
    }

    /// A gate that counts what comes through this door and nothing else.
    pub fn alone(gate: &Arc<Gate>) -> Rc<Self> {
        Self::new(gate, &ThreadSlab::detached().sums())
    }

    /// Counts the connections of other generations. As long as there is room for twice as many, that is not
    /// done for each connection.
    pub fn look(&self) {
        if self.gate.capacity.shared {
            self.others.set(self.sum.total().saturating_sub(self.gate.open()));
        }
    }

    /// Counts one more connection in, or says what is in its way: `limit`, or the descriptors.
    fn enter(&self, limit: Limit) -> Result<(), Limit> {
        let before = self.gate.open.fetch_add(1, Ordering::Relaxed);
        let max = self.gate.max;
        let most = max.min(self.shared_max(before));
        let refused = if before >= self.gate.capacity.own {
            Limit::Descriptors
        // Without shared memory the number of the process is all there is to go by.
        } else if before < max && self.count_in(most) {
            return Ok(());
        } else if most < max {
            Limit::Descriptors
        } else {
            limit
        };
        self.gate.open.fetch_sub(1, Ordering::Relaxed);
        Err(refused)
    }

    /// As [`Self::enter`], without the limit of the configuration.
    fn enter_with_descriptor(&self) -> Result<(), Limit> {
        let before = self.gate.open.fetch_add(1, Ordering::Relaxed);
        if before < self.gate.capacity.own && self.count_in(self.shared_max(before)) {
            return Ok(());
        }
        self.gate.open.fetch_sub(1, Ordering::Relaxed);
        Err(Limit::Descriptors)
    }

    /// Connections of all generations that fit into this process, when it has `own` already. There is no
    /// need to count them while they are few.
    fn shared_max(&self, own: u64) -> u64 {
        let Capacity { own: max, shared } = self.gate.capacity;
        let few = own.saturating_add(self.others.get()) < max / 2;
        if shared && !few { max } else { u64::MAX }
    }

    fn count_in(&self, max: u64) -> bool {
        if max == u64::MAX {
            self.sum.add();
            return true;
        }
        self.sum.add_up_to(max)
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
        global.enter(Limit::Global)?;
        listener.enter(Limit::Listener).inspect_err(|_| global.leave())?;
        Ok(Self { global: Rc::clone(global), listener: Rc::clone(listener) })
    }

    /// As [`Permit::ask`], for a listener to which the limit of all listeners does not apply. Its
    /// connections count there all the same.
    ///
    /// # Errors
    /// The limit that was reached; neither gate counts the connection then.
    pub fn ask_listener(global: &Rc<Door>, listener: &Rc<Door>) -> Result<Self, Limit> {
        global.enter_with_descriptor()?;
        listener.enter(Limit::Listener).inspect_err(|_| global.leave())?;
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
        let global = Gate::global(global, Capacity::UNLIMITED);
        let listener = Gate::listener("l", listener);
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
        let capacity = Capacity { own: 1, shared: false };
        let global = Door::alone(&Gate::global(None, capacity));
        let listener = Door::alone(&Gate::listener("l", None));
        let first = Permit::ask(&global, &listener).unwrap();
        assert_eq!(Permit::ask(&global, &listener).unwrap_err(), Limit::Descriptors);
        // No listener has descriptors that there are not.
        assert_eq!(Permit::ask_listener(&global, &listener).unwrap_err(), Limit::Descriptors);
        assert!(!global.gate.has_room_for(1));
        drop(first);
        assert!(Permit::ask_listener(&global, &listener).is_ok());
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
    fn generation(
        owner: &mut SegmentOwner,
        (number, max): (u32, u64),
        capacity: Capacity,
    ) -> (Rc<Door>, Rc<Door>) {
        let slot = owner.register(Generation(number), 1).unwrap();
        let sums = SegmentWorker::open(owner.os_id(), slot).unwrap().thread(0).unwrap().sums();
        let global = Gate::global(None, capacity);
        (Door::new(&global, &sums), Door::new(&Gate::listener("l", Some(max)), &sums))
    }

    #[test]
    fn two_generations_have_one_limit() {
        let base_id = 1_900_000_000 + std::process::id();
        let geometry = Geometry { slabs: 24, ..Geometry::default() };
        let mut owner = SegmentOwner::create_with(base_id, geometry).unwrap();
        let old = generation(&mut owner, (1, 3), Capacity::UNLIMITED);
        let new = generation(&mut owner, (2, 4), Capacity::UNLIMITED);
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

    #[test]
    fn what_an_older_generation_has_keeps_its_place_for_when_it_moves() {
        let base_id = 1_910_000_000 + std::process::id();
        let geometry = Geometry { slabs: 24, ..Geometry::default() };
        let mut owner = SegmentOwner::create_with(base_id, geometry).unwrap();
        let capacity = Capacity { own: 4, shared: true };
        let old = generation(&mut owner, (1, 100), capacity);
        let new = generation(&mut owner, (2, 100), capacity);
        let mut held: Vec<_> = (0..3).map(|_| Permit::ask(&old.0, &old.1).unwrap()).collect();
        let own = Permit::ask(&new.0, &new.1).unwrap();
        for counted in [false, true] {
            assert_eq!(Permit::ask(&new.0, &new.1).unwrap_err(), Limit::Descriptors, "{counted}");
            new.0.look();
        }
        let moved: Vec<_> = held.iter().map(|_| Permit::imported(&new.0, &new.1)).collect();
        held.clear();
        assert_eq!(new.0.gate.open(), 4);
        assert_eq!(Permit::ask(&new.0, &new.1).unwrap_err(), Limit::Descriptors);
        drop((own, moved));
        new.0.look();
        assert!(Permit::ask(&new.0, &new.1).is_ok());
    }
}
