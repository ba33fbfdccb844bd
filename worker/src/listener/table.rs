//! The listeners of a generation by their position, which stays theirs for as long as the process lives.

use std::sync::Arc;

use crate::config::listener::Listener;

/// The listeners there are now. Belongs to the main thread.
#[derive(Debug, Default)]
pub struct ListenerTable(Vec<Option<Arc<Listener>>>);

impl ListenerTable {
    /// Those of a start.
    pub fn new(listeners: &[Arc<Listener>]) -> Self {
        Self(listeners.iter().cloned().map(Some).collect())
    }

    /// The listener at a position.
    pub fn get(&self, at: usize) -> Option<&Arc<Listener>> {
        self.0.get(at)?.as_ref()
    }

    /// There is another one at this position, or none.
    pub fn set(&mut self, at: usize, listener: Option<Arc<Listener>>) {
        if self.0.len() <= at {
            self.0.resize(at + 1, None);
        }
        if let Some(slot) = self.0.get_mut(at) {
            *slot = listener;
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.iter().flatten().count()
    }
}
