//! Numbers for the names of clusters.
//!
//! Routes and filters refer to a cluster by its number, so that nothing is looked up by name when a
//! request comes. A name keeps its number for the life of the process: a route may name a cluster
//! before it is there, and a cluster that is replaced or comes back has the number it had.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::target::ClusterIndex;

/// The names of all clusters that were ever spoken of; it only grows.
///
/// Only the main thread uses it, so nobody waits for its lock.
#[derive(Debug, Default)]
pub struct ClusterNames(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    indexes: HashMap<Arc<str>, ClusterIndex>,
    names: Vec<Arc<str>>,
}

impl ClusterNames {
    /// The number of a name, a new one when nobody spoke of it yet. Numbers begin at 0 and have no gaps.
    pub fn intern(&self, name: &str) -> ClusterIndex {
        let mut known = self.lock();
        if let Some(index) = known.indexes.get(name) {
            return *index;
        }
        let index = ClusterIndex(known.names.len());
        let name: Arc<str> = Arc::from(name);
        known.names.push(Arc::clone(&name));
        known.indexes.insert(name, index);
        index
    }

    /// The number of a name that was spoken of.
    pub fn get(&self, name: &str) -> Option<ClusterIndex> {
        self.lock().indexes.get(name).copied()
    }

    /// The name of a number.
    pub fn name(&self, index: ClusterIndex) -> Option<Arc<str>> {
        self.lock().names.get(index.0).cloned()
    }

    /// How many names there are; every number is below that.
    pub fn len(&self) -> usize {
        self.lock().names.len()
    }

    /// True as long as nobody spoke of any cluster.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All names in the order of their numbers.
    pub fn all(&self) -> Vec<Arc<str>> {
        self.lock().names.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // A panic of another holder leaves at most a name without a number.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_keeps_its_number() {
        let names = ClusterNames::default();
        assert!(names.is_empty() && names.get("a").is_none());
        assert_eq!(names.intern("a"), ClusterIndex(0));
        assert_eq!(names.intern("b"), ClusterIndex(1));
        assert_eq!(names.intern("a"), ClusterIndex(0));
        assert_eq!((names.get("b"), names.len()), (Some(ClusterIndex(1)), 2));
        assert_eq!(names.name(ClusterIndex(1)).as_deref(), Some("b"));
        assert_eq!(names.all(), [Arc::from("a"), Arc::from("b")]);
    }
}
