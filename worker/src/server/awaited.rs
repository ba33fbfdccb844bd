//! An answer of a worker thread that the main thread waits for, but not for ever: a thread that is stuck
//! does not keep the others from what they are told.

use std::rc::Rc;

use tokio::sync::oneshot;

use super::{threads::ThreadError, watch::Opinion};

/// An answer that is due.
#[derive(Debug)]
pub(super) struct Awaited<T> {
    index: u32,
    answer: oneshot::Receiver<T>,
    opinion: Rc<Opinion>,
}

impl<T> Awaited<T> {
    pub(super) fn new(index: u32, answer: oneshot::Receiver<T>, opinion: &Rc<Opinion>) -> Self {
        Self { index, answer, opinion: Rc::clone(opinion) }
    }

    /// The answer; `None` from a thread that is stuck.
    ///
    /// # Errors
    /// When the thread ended.
    pub(super) async fn wait(self) -> Result<Option<T>, ThreadError> {
        tokio::select! {
            biased;
            answer = self.answer => match answer {
                Ok(answer) => Ok(Some(answer)),
                Err(_) => Err(ThreadError::Ended(self.index)),
            },
            () = self.opinion.stuck() => Ok(None),
        }
    }
}
