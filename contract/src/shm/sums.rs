//! Sums over all live generations, for limits that hold over all of them together.
//!
//! Every thread has a cell of its own for every name and is the only one that writes it. To ask for
//! more it first adds to its own cell and then adds up the cells of all threads of all live
//! generations; is that too much, it takes its own part back:
//!
//! ```text
//! own += 1 ── fence ── sum of all cells ──→ at most the maximum: granted
//!                                      └──→ above it: own -= 1, refused
//! ```
//! **Never more than the maximum is granted.** The fences of all who ask are in one order. Who comes
//! last in it among those that hold a grant sees the parts of all others, so it is refused when they
//! are too many. Two that ask at the same moment for the last place may both be refused; that is the
//! price of having no lock. What a dead process held counts until its generation is retired.

use std::{
    cell::RefCell,
    marker::PhantomData,
    rc::Rc,
    sync::{
        Arc,
        atomic::{
            AtomicU64,
            Ordering::{Acquire, Relaxed, SeqCst},
            fence,
        },
    },
};

use super::{
    Cell,
    layout::{Segment, header, life, row},
    owner::slabs_of,
    slab::Shared,
    table::Table,
};

/// Makes the sums of one thread, on that thread.
#[derive(Clone, Debug)]
pub struct Sums {
    inner: Option<Rc<Inner>>,
    not_send: PhantomData<*const ()>,
}

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    /// Slab of this thread.
    own: usize,
    /// First cell of the table.
    table: usize,
}

/// What there is to add up for one name.
#[derive(Debug, Default)]
struct Live {
    /// Changes of the generation table when the slabs were looked up; `None` = never.
    at: Option<u64>,
    /// Cells that have memory, which they never lose.
    cells: Vec<&'static AtomicU64>,
    /// Slabs in which the cell has no memory yet, because their threads did not start.
    empty: Vec<usize>,
}

/// The part one thread has in a sum, and the way to the parts of all others. A clone is the same
/// part.
#[derive(Clone, Debug)]
pub struct Sum(Part);

#[derive(Clone, Debug)]
enum Part {
    /// In the segment: this thread's cell, and the way to the others.
    Shared { own: Cell, inner: Rc<Inner>, cell: usize, live: Rc<RefCell<Live>> },
    /// Nobody else sees it.
    Alone(Rc<std::cell::Cell<u64>>),
}

impl Sums {
    /// Sums with the parts of a thread in this slab of the segment.
    pub(super) fn new(slab: Option<&(Arc<Shared>, usize)>) -> Self {
        let inner = slab.and_then(|(shared, own)| {
            let table = shared.directory().table(Table::Sums);
            let shared = Arc::clone(shared);
            table.map(|table| Rc::new(Inner { shared, own: *own, table }))
        });
        Self { inner, not_send: PhantomData }
    }

    /// The sum of this name. When the segment has no room for it, or there is no segment, it is the
    /// part of this thread alone.
    pub fn sum(&self, name: &str) -> Sum {
        if let Some(inner) = &self.inner {
            match inner.part(name) {
                Some((cell, own)) => {
                    let (inner, live) = (Rc::clone(inner), Rc::default());
                    return Sum(Part::Shared { own, inner, cell, live });
                }
                None => inner.shared.segment.overflowed(),
            }
        }
        Sum(Part::Alone(Rc::default()))
    }
}

impl Inner {
    /// The cell of a name, and this thread's own.
    fn part(&self, name: &str) -> Option<(usize, Cell)> {
        let segment = &self.shared.segment;
        let cell = Table::Sums.place(segment, self.table, name).ok()?;
        let own = segment.slab(self.own).populate(cell, 1).ok()?.first()?;
        Some((cell, Cell::new(own)))
    }

    fn total(&self, cell: usize, live: &mut Live) -> u64 {
        let segment = &self.shared.segment;
        // Read after the fence of the caller. Who is not in the list yet has its fence after this
        // one, and then it sees us; pairs with `table_changed`, which comes after the row.
        let changes = segment.word(header::TABLE_CHANGES).load(Acquire);
        if live.at != Some(changes) {
            live.look(segment);
            live.at = Some(changes);
        }
        if !live.empty.is_empty() {
            live.look_again(segment, cell);
        }
        live.cells.iter().fold(0, |sum, cell| sum.wrapping_add(cell.load(Relaxed)))
    }
}

impl Live {
    #[cold]
    fn look(&mut self, segment: &Segment) {
        self.cells.clear();
        self.empty.clear();
        let in_use = (0..segment.geometry.slots)
            .filter(|slot| segment.row(*slot, row::LIFE).load(Acquire) != life::FREE);
        self.empty.extend(in_use.flat_map(|slot| slabs_of(segment, slot)));
    }

    /// Finds cells that got memory. Who enters has its memory before its fence, so it is seen here
    /// when its part has to be.
    fn look_again(&mut self, segment: &Segment, cell: usize) {
        let cells = &mut self.cells;
        self.empty.retain(|slab| match segment.slab(*slab).peek(cell) {
            Some(found) => {
                cells.push(found);
                false
            }
            None => true,
        });
    }
}

impl Sum {
    /// Adds one without asking.
    #[inline]
    pub fn add(&self) {
        match &self.0 {
            Part::Shared { own, .. } => own.add(1),
            Part::Alone(own) => own.set(own.get().wrapping_add(1)),
        }
    }

    /// Takes one away.
    #[inline]
    pub fn sub(&self) {
        match &self.0 {
            Part::Shared { own, .. } => own.sub(1),
            Part::Alone(own) => own.set(own.get().wrapping_sub(1)),
        }
    }

    /// Adds one if the sum is at most `max` then; whether it was.
    pub fn add_up_to(&self, max: u64) -> bool {
        self.add();
        let granted = self.total() <= max;
        if !granted {
            self.sub();
        }
        granted
    }

    /// The part of this thread.
    #[inline]
    pub fn own(&self) -> u64 {
        match &self.0 {
            Part::Shared { own, .. } => own.get(),
            Part::Alone(own) => own.get(),
        }
    }

    /// The parts of all threads of all live generations.
    pub fn total(&self) -> u64 {
        match &self.0 {
            Part::Shared { inner, cell, live, .. } => {
                // Between one's own part and those of the others; see the head of this file.
                fence(SeqCst);
                inner.total(*cell, &mut live.borrow_mut())
            }
            Part::Alone(own) => own.get(),
        }
    }

    /// Whether all generations take part.
    pub fn is_shared(&self) -> bool {
        matches!(self.0, Part::Shared { .. })
    }
}
