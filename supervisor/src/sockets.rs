//! Sockets on their way to a worker, and the files in which they are found.

use baton_contract::{
    fault,
    generation::Generation,
    listener_key::{ListenerKey, ListenerSpec},
};

use crate::{
    perform::Performer,
    state::{action::Urgency, event::Event},
};

impl Performer {
    /// Binds what a generation needs and is not held.
    pub(crate) fn bind(
        &mut self,
        generation: Generation,
        (listeners, shards): (&[ListenerSpec], u32),
        urgency: Urgency,
    ) {
        let restored = self.restore_files(listeners);
        let result = match restored {
            // A worker that takes the place of a dead one has better things to do than to fail.
            Err(text) if urgency != Urgency::Respawn => Err(text),
            _ => self.store.bind(listeners, shards).map_err(|error| error.to_string()),
        };
        fault::point("supervisor.bound");
        self.events.push_back(Event::Bound { generation, result });
    }

    /// Lets the sockets of a generation accept. It gets those that were made just now for a file that
    /// was removed: after they were bound, or while the generation was not the serving one.
    pub(crate) fn listen(&mut self, generation: Generation, listeners: &[ListenerSpec]) {
        let restored = self.restore_files(listeners).unwrap_or_default();
        let result = self.store.listen(listeners).map_err(|error| error.to_string());
        self.listeners_changed = true;
        fault::point("supervisor.listening");
        self.events.push_back(Event::Listening { generation, result });
        if !restored.is_empty() {
            self.send_listeners(generation, &restored, 0);
        }
    }

    /// Binds what a serving generation needs in addition, and lets it accept. One that fails is no reason
    /// to fail for the others.
    pub(crate) fn bind_more(
        &mut self,
        generation: Generation,
        listeners: &[ListenerSpec],
        shards: u32,
    ) {
        let mut failed = Vec::new();
        for spec in listeners {
            let restored = self.restore_files(std::slice::from_ref(spec));
            let added = restored
                .and_then(|_| self.store.add(spec, shards).map_err(|error| error.to_string()));
            if let Err(text) = added {
                failed.push((spec.key.clone(), text));
            }
        }
        self.listeners_changed = true;
        self.events.push_back(Event::BoundMore { generation, failed });
    }

    /// Sends the sockets of these listeners that a worker does not have.
    pub(crate) fn send_listeners(
        &mut self,
        generation: Generation,
        keys: &[ListenerKey],
        request: u64,
    ) {
        let Some(worker) = self.workers.get_mut(&generation) else { return };
        let result = worker.send_listeners(keys, request, &self.store);
        self.check(generation, result);
        fault::point("supervisor.listeners_sent");
    }

    /// Brings the files of Unix listeners back that somebody removed. Who has the sockets without a
    /// file gets the others with the next LISTENERS.
    fn restore_files(&mut self, listeners: &[ListenerSpec]) -> Result<Vec<ListenerKey>, String> {
        let restored = self.store.restore_files(listeners);
        for worker in self.workers.values_mut() {
            worker.lacks(&restored.keys);
        }
        for error in &restored.failed {
            tracing::error!(%error, "a socket file was removed and cannot be made again");
        }
        match restored.failed.first() {
            Some(error) => Err(error.to_string()),
            None => Ok(restored.keys),
        }
    }

    /// Brings the sockets back in which commands and workers find this process.
    pub(crate) fn restore_own_sockets(&mut self) {
        self.control.restore();
        if let Some(door) = &mut self.door {
            door.restore();
        }
    }
}
