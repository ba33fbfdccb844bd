//! Proof that the loops of the data path get further.
//!
//! Whoever takes bytes from the kernel, gives it some, or uses what was read, says so with [`moved`], next
//! to the call that does it. A loop turns under [`drive`], which believes nobody else: when a loop says
//! again and again that it got further, and no byte moved, it is ended. So a mistake in a connection's
//! states costs that connection, not its thread.
//!
//! Changes of state are not told apart from none at all. Each is followed by bytes or by waiting after a
//! few turns, and what may be tried many times, such as to connect, says [`moved`] once for each try.

use std::{cell::Cell, ops::ControlFlow};

/// Turns in a row in which no byte moved, at most. An exchange has less than ten states.
const EMPTY_TURNS_MAX: u32 = 100;

thread_local! {
    /// Bytes that moved on this thread; it wraps around.
    static MOVED: Cell<usize> = const { Cell::new(0) };
}

/// A loop said that it got further, and did not. It is a fault of ours.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("turned {EMPTY_TURNS_MAX} times without moving a byte")]
pub struct Stuck;

/// Says that so many bytes moved on this thread.
#[inline]
pub fn moved(bytes: usize) {
    MOVED.with(|moved| moved.set(moved.get().wrapping_add(bytes)));
}

/// Calls `turn` as long as it says that it got further: `Continue(())` when it does not any more, `Break`
/// when it says so.
///
/// # Errors
/// When it does not get further although it says so. A debug build panics then: its user wants to know.
#[inline]
pub fn drive<B>(mut turn: impl FnMut() -> ControlFlow<B, bool>) -> Result<ControlFlow<B>, Stuck> {
    let mut seen = MOVED.get();
    let mut empty = 0;
    loop {
        match turn() {
            ControlFlow::Break(end) => return Ok(ControlFlow::Break(end)),
            ControlFlow::Continue(false) => return Ok(ControlFlow::Continue(())),
            ControlFlow::Continue(true) => {}
        }
        let now = MOVED.get();
        empty = if now == seen { empty + 1 } else { 0 };
        seen = now;
        if empty >= EMPTY_TURNS_MAX {
            return Err(stuck());
        }
    }
}

/// The tests of this package look at what a release build does.
#[cold]
fn stuck() -> Stuck {
    #[cfg(not(test))]
    debug_assert!(false, "{Stuck}");
    Stuck
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Drives a loop that says for ever that it gets further; how often it turned.
    fn turns(mut turn: impl FnMut(u32)) -> (u32, Result<ControlFlow<()>, Stuck>) {
        let mut turns = 0;
        let end = drive(|| {
            turns += 1;
            turn(turns);
            // Longer than a test would last.
            if turns < 1_000_000 { ControlFlow::Continue(true) } else { ControlFlow::Break(()) }
        });
        (turns, end)
    }

    #[test]
    fn a_loop_that_only_says_that_it_gets_further_is_ended() {
        assert_eq!(turns(|_| {}), (EMPTY_TURNS_MAX, Err(Stuck)));
    }

    #[test]
    fn a_loop_that_got_further_once_is_ended_later() {
        let once = |turn| moved(usize::from(turn == 50));
        assert_eq!(turns(once), (50 + EMPTY_TURNS_MAX, Err(Stuck)));
    }

    #[test]
    fn a_loop_that_moves_a_byte_now_and_then_goes_on() {
        let seldom = |turn| moved(usize::from(turn % EMPTY_TURNS_MAX == 0));
        assert_eq!(turns(seldom), (1_000_000, Ok(ControlFlow::Break(()))));
    }

    #[test]
    fn a_loop_that_waits_is_left_at_once() {
        assert_eq!(drive(|| ControlFlow::<(), _>::Continue(false)), Ok(ControlFlow::Continue(())));
    }
}
