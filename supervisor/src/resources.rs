//! What generations accepted beside their configuration, as sealed memory files nobody looks into here.
//! Which of them is given to whom is decided by the core.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io,
    os::fd::{AsFd, OwnedFd},
};

use baton_contract::{
    generation::Generation,
    memfd,
    message::{MAX_RESOURCES_LEN, Resources},
};
use serde::{Deserialize, Serialize};

use crate::{
    perform::Performer,
    reexec::{Baggage, BaggageError},
    state::event::{Event, ResourcesId},
    worker::WorkerError,
};

/// Why a message is not kept; the one before it is.
#[derive(Debug, thiserror::Error)]
enum ResourcesError {
    #[error("RESOURCES comes with one descriptor, not with {0}")]
    Descriptors(usize),
    #[error("the memory file is not sealed")]
    Unsealed,
    #[error("the memory file has {found} bytes, {told} were told")]
    Size { told: u64, found: u64 },
    #[error("{0} bytes are more than {MAX_RESOURCES_LEN}")]
    TooLong(u64),
    #[error("the memory file cannot be looked at: {0}")]
    Look(#[source] io::Error),
}

/// All that some generation may still be given.
#[derive(Debug, Default)]
pub(crate) struct Store {
    next: u64,
    held: BTreeMap<ResourcesId, (Resources, OwnedFd)>,
}

/// A [`Store`] without its files, as it travels to another program.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Packed {
    next: u64,
    held: Vec<(ResourcesId, Resources)>,
}

fn name(id: ResourcesId) -> String {
    format!("resources.{}", id.0)
}

impl Store {
    /// Keeps what a worker said; the event that tells the core.
    pub(crate) fn keep(
        &mut self,
        generation: Generation,
        told: Resources,
        fds: Vec<OwnedFd>,
    ) -> Option<Event> {
        match checked(&told, fds) {
            Ok(file) => {
                let resources = ResourcesId(self.next);
                self.next = self.next.saturating_add(1);
                self.held.insert(resources, (told, file));
                Some(Event::Resources { generation, resources })
            }
            Err(error) => {
                tracing::warn!(%generation, %error, "resources are not kept for the next generation");
                None
            }
        }
    }

    /// Forgets what nobody can be given any more.
    pub(crate) fn retain(&mut self, used: &BTreeSet<ResourcesId>) {
        self.held.retain(|id, _| used.contains(id));
    }

    /// Puts all files into the baggage.
    pub(crate) fn pack(&self, baggage: &mut Baggage) -> Result<(), BaggageError> {
        for (id, (_, file)) in &self.held {
            baggage.put_fd(name(*id), file.as_fd())?;
        }
        let held = self.held.iter().map(|(id, (told, _))| (*id, told.clone())).collect();
        baggage.put("resources", &Packed { next: self.next, held })
    }

    /// The store as it was packed.
    pub(crate) fn unpack(packed: Packed, baggage: &mut Baggage) -> Result<Self, BaggageError> {
        let mut store = Self { next: packed.next, held: BTreeMap::new() };
        for (id, told) in packed.held {
            let file = baggage.take_fd(&name(id))?;
            store.held.insert(id, (told, file));
        }
        Ok(store)
    }
}

/// The file of a message, if it is what the message says and nobody can change it any more.
fn checked(told: &Resources, mut fds: Vec<OwnedFd>) -> Result<OwnedFd, ResourcesError> {
    let count = fds.len();
    let file = fds.pop().filter(|_| count == 1).ok_or(ResourcesError::Descriptors(count))?;
    if !memfd::is_sealed(&file) {
        return Err(ResourcesError::Unsealed);
    }
    let file = File::from(file);
    let found = file.metadata().map_err(ResourcesError::Look)?.len();
    if found > MAX_RESOURCES_LEN {
        return Err(ResourcesError::TooLong(found));
    }
    if found != told.size {
        return Err(ResourcesError::Size { told: told.size, found });
    }
    Ok(file.into())
}

impl Performer {
    /// The resources with this number, if they are still there.
    pub(crate) fn has_resources(&self, id: Option<ResourcesId>) -> Option<ResourcesId> {
        id.filter(|id| self.resources.held.contains_key(id))
    }

    /// Gives a new generation what the one that serves, or served last, accepted.
    pub(crate) fn give_resources(&mut self, generation: Generation, id: Option<ResourcesId>) {
        let Some((told, file)) = id.and_then(|id| self.resources.held.get(&id)) else { return };
        let Some(worker) = self.workers.get_mut(&generation) else { return };
        let result = file
            .try_clone()
            .map_err(WorkerError::Descriptor)
            .and_then(|file| worker.send(&told.clone().into(), None, vec![file]));
        self.check(generation, result);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const G: Generation = Generation(3);

    fn told(size: u64) -> Resources {
        Resources { hash: "1".to_owned(), size }
    }

    fn sealed(bytes: &[u8]) -> OwnedFd {
        memfd::sealed("test", bytes).expect("a file")
    }

    #[test]
    fn only_one_sealed_file_of_the_length_that_was_told_is_kept() {
        let mut store = Store::default();
        let open = tempfile::tempfile().expect("a file").into();
        for (size, fds) in [
            (3, vec![]),
            (3, vec![sealed(b"abc"), sealed(b"abc")]),
            (4, vec![sealed(b"abc")]),
            (0, vec![open]),
        ] {
            assert_eq!(store.keep(G, told(size), fds), None);
        }
        let too_long = usize::try_from(MAX_RESOURCES_LEN).expect("64 bits") + 1;
        let bytes = vec![0; too_long];
        assert_eq!(store.keep(G, told(MAX_RESOURCES_LEN + 1), vec![sealed(&bytes)]), None);
        assert!(store.held.is_empty());
        let (first, second) = (ResourcesId(0), ResourcesId(1));
        for (resources, bytes) in [(first, &b"abc"[..]), (second, b"")] {
            let size = u64::try_from(bytes.len()).expect("few");
            let event = store.keep(G, told(size), vec![sealed(bytes)]);
            assert_eq!(event, Some(Event::Resources { generation: G, resources }));
        }
        store.retain(&[second].into());
        assert_eq!(store.held.keys().collect::<Vec<_>>(), [&second]);
    }

    #[test]
    fn what_is_kept_goes_to_the_next_program() {
        let mut store = Store::default();
        store.keep(G, told(3), vec![sealed(b"abc")]).expect("it is kept");
        let mut baggage = Baggage::default();
        store.pack(&mut baggage).expect("packed");
        let packed = baggage.take("resources").expect("the part");
        let mut store = Store::unpack(packed, &mut baggage).expect("unpacked");
        let (again, file) = store.held.remove(&ResourcesId(0)).expect("it is there");
        assert_eq!(again, told(3));
        assert_eq!(memfd::read(&File::from(file), 9).expect("its bytes"), b"abc");
        let event = store.keep(G, told(0), vec![sealed(b"")]);
        let resources = ResourcesId(1);
        assert_eq!(event, Some(Event::Resources { generation: G, resources }), "a new number");
    }
}
