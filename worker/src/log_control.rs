//! What this package asks of the log, which belongs to the program around it.

use std::fmt;

/// Changes what is logged while the program runs.
pub trait LogControl: fmt::Debug + Send + Sync {
    /// Sets the level of one component, or of all.
    ///
    /// # Errors
    /// A sentence when the level or the component does not exist.
    fn set(&self, component: Option<&str>, level: &str) -> Result<(), String>;

    /// All components and their levels.
    fn levels(&self) -> Vec<(String, String)>;

    /// Lines that this process could not write.
    fn lost(&self) -> u64 {
        0
    }

    /// Opens the file of the log again, if it goes to one.
    fn reopen(&self);
}
