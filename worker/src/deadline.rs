//! Deadlines of connections, one table for each thread.
//!
//! A timer for every request would cost more than parsing it. Here a connection owns one entry
//! for life: a number in a flat list. One task per thread sleeps until the earliest of them and
//! wakes the connections whose time has come; a connection then finds out by itself which of its
//! limits was reached. Moving a deadline is one store.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    task::Waker,
    time::{Duration, Instant},
};

use tokio::sync::Notify;

/// Deadlines fire this much late at most (when the thread is not busy).
const RESOLUTION: Duration = Duration::from_millis(10);

/// An entry without a deadline.
const NEVER: u64 = u64::MAX;

/// The table of one thread.
#[derive(Clone, Debug)]
pub struct Deadlines {
    table: Rc<Table>,
}

#[derive(Debug)]
struct Table {
    base: Instant,
    due: RefCell<Vec<u64>>,
    wakers: RefCell<Vec<Option<Waker>>>,
    free: RefCell<Vec<usize>>,
    /// No deadline is earlier than this, in milliseconds since `base`.
    next: Cell<u64>,
    earlier: Notify,
}

impl Deadlines {
    /// An empty table; `now` is its zero.
    pub fn new(now: Instant) -> Self {
        Self {
            table: Rc::new(Table {
                base: now,
                due: RefCell::default(),
                wakers: RefCell::default(),
                free: RefCell::default(),
                next: Cell::new(NEVER),
                earlier: Notify::new(),
            }),
        }
    }

    /// A new entry without a deadline.
    pub fn entry(&self) -> Deadline {
        let index = self.table.free.borrow_mut().pop().unwrap_or_else(|| {
            self.table.due.borrow_mut().push(NEVER);
            self.table.wakers.borrow_mut().push(None);
            self.table.due.borrow().len() - 1
        });
        Deadline { deadlines: self.clone(), index }
    }

    /// Wakes whoever is due; runs for as long as the thread.
    ///
    /// # Cancel safety
    /// Cancel safe: no state is held across an await.
    pub async fn run(&self) {
        loop {
            let next = self.table.next.get();
            let changed = self.table.earlier.notified();
            if next == NEVER {
                changed.await;
            } else {
                let at = self.table.base + Duration::from_millis(next);
                tokio::select! {
                    () = tokio::time::sleep_until(at.into()) => {}
                    () = changed => continue,
                }
            }
            self.fire(crate::clock::now());
            // Not more often than the resolution, however many deadlines there are.
            tokio::time::sleep(RESOLUTION).await;
        }
    }

    /// Wakes every entry, so that each finds out what has changed for all of them.
    pub fn wake_all(&self) {
        for waker in self.table.wakers.borrow().iter().flatten() {
            waker.wake_by_ref();
        }
    }

    /// Wakes up to `count` entries from position `from` on; the position after the last one, 0 when
    /// the end of the table was reached.
    pub fn wake_some(&self, from: usize, count: usize) -> usize {
        let wakers = self.table.wakers.borrow();
        let mut left = count;
        for (at, waker) in wakers.iter().enumerate().skip(from) {
            if left == 0 {
                return at;
            }
            if let Some(waker) = waker {
                waker.wake_by_ref();
                left -= 1;
            }
        }
        0
    }

    /// Wakes the entries due at `now` and finds the earliest of the others.
    fn fire(&self, now: Instant) {
        let now = self.millis(now);
        let mut next = NEVER;
        let mut due = self.table.due.borrow_mut();
        let mut wakers = self.table.wakers.borrow_mut();
        for (at, waker) in due.iter_mut().zip(wakers.iter_mut()) {
            if *at <= now {
                *at = NEVER;
                if let Some(waker) = waker.take() {
                    waker.wake();
                }
            } else if *at < next {
                next = *at;
            }
        }
        self.table.next.set(next);
    }

    fn millis(&self, at: Instant) -> u64 {
        let millis = at.saturating_duration_since(self.table.base).as_millis();
        u64::try_from(millis).unwrap_or(NEVER)
    }
}

/// One connection's entry; freed when dropped.
#[derive(Debug)]
pub struct Deadline {
    deadlines: Deadlines,
    index: usize,
}

impl Deadline {
    /// The task is woken at `at` or a little later; `None` = never. Replaces the last deadline.
    pub fn set(&self, at: Option<Instant>, waker: &Waker) {
        let table = &self.deadlines.table;
        // Rounded up, so that whoever is woken finds its limit reached.
        let at = at.map_or(NEVER, |at| self.deadlines.millis(at).saturating_add(1));
        table.due.borrow_mut()[self.index] = at;
        let wakers = &mut table.wakers.borrow_mut()[self.index];
        if wakers.as_ref().is_none_or(|old| !old.will_wake(waker)) {
            *wakers = Some(waker.clone());
        }
        if at < table.next.get() {
            table.next.set(at);
            table.earlier.notify_one();
        }
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        let table = &self.deadlines.table;
        table.due.borrow_mut()[self.index] = NEVER;
        table.wakers.borrow_mut()[self.index] = None;
        table.free.borrow_mut().push(self.index);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use super::*;

    struct Count(AtomicUsize);

    impl std::task::Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn only_what_is_due_is_woken_and_the_next_one_is_known() {
        let base = crate::clock::now();
        let deadlines = Deadlines::new(base);
        let (early, late) = (deadlines.entry(), deadlines.entry());
        let count = Arc::new(Count(AtomicUsize::new(0)));
        let waker = Waker::from(Arc::clone(&count));
        early.set(Some(base + Duration::from_millis(5)), &waker);
        late.set(Some(base + Duration::from_millis(500)), &waker);
        deadlines.fire(base + Duration::from_millis(6));
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert_eq!(deadlines.table.next.get(), 501);
        drop(late);
        deadlines.fire(base + Duration::from_secs(1));
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert_eq!(deadlines.table.next.get(), NEVER);
    }
}
