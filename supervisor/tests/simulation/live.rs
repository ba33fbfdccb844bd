//! Listeners that come and go in simulated workers.

use super::*;

pub(super) fn spec(key: ListenerKey) -> ListenerSpec {
    ListenerSpec { key, name: String::new(), options: SocketOptions::default(), min_shards: 1 }
}

impl World {
    /// What the performer does with `BindMore`.
    pub(super) fn bind_more(
        &mut self,
        generation: Generation,
        listeners: &[ListenerSpec],
    ) -> Event {
        let mut failed = Vec::new();
        for spec in listeners {
            if self.faults && self.random.u8(..) < 40 {
                failed.push((spec.key.clone(), "EADDRINUSE".to_owned()));
            } else {
                self.rules.bound(std::slice::from_ref(spec));
                self.rules.listening(std::slice::from_ref(spec));
            }
        }
        Event::BoundMore { generation, failed }
    }

    /// LISTENERS reached a worker: the first time it warms up.
    pub(super) fn take_sockets(
        &mut self,
        generation: Generation,
        keys: BTreeSet<ListenerKey>,
    ) -> Result<(), String> {
        let Some(worker) = self.workers.get_mut(&generation) else { return Ok(()) };
        if let Some(key) = keys.iter().find(|key| worker.releasing.contains(*key)) {
            return Err(format!("{generation} gets {key} before it said RELEASED"));
        }
        if worker.draining {
            return Ok(());
        }
        worker.keys.extend(keys);
        if !worker.warmed {
            worker.warmed = true;
            self.warm(generation);
        }
        Ok(())
    }

    /// The queues of these are empty and closed.
    pub(super) fn emptied(&mut self, generation: Generation, keys: Vec<ListenerKey>) {
        let Some(worker) = self.workers.get_mut(&generation) else { return };
        worker.keys.retain(|key| !keys.contains(key));
        worker.releasing.retain(|key| !keys.contains(key));
        let again: Vec<_> =
            keys.iter().filter(|key| worker.wants.contains(*key)).cloned().collect();
        let again = again.into_iter().filter(|key| !worker.drained.contains(key));
        let again: Vec<_> = again.collect();
        self.say_surely(generation, Released { keys }.into());
        // A supervisor that came meanwhile was not asked.
        self.need(generation, again);
    }

    /// The configuration of a worker changes: some listeners come, some go.
    pub(super) fn change_listeners(&mut self, generation: Generation) {
        let changed = key(self.random.u16(1..12));
        let Some(worker) = self.workers.get_mut(&generation) else { return };
        if !worker.warmed || worker.draining || worker.hung {
            return;
        }
        if worker.wants.remove(&changed) {
            let removed = DrainListeners { keys: vec![changed], removed: true };
            self.say_surely(generation, removed.into());
        } else {
            worker.wants.insert(changed.clone());
            worker.drained.remove(&changed);
            self.need(generation, [changed]);
        }
    }

    /// Somebody asks a worker to drain some of its listeners.
    pub(super) fn drain_listeners(&mut self, generation: Generation) {
        let Some(worker) = self.workers.get_mut(&generation).filter(|it| it.polling) else {
            return;
        };
        let mut keys = worker.keys.clone();
        keys.retain(|_| self.random.bool());
        worker.drained.extend(keys.iter().cloned());
        let keys = keys.into_iter().collect();
        self.say_surely(generation, DrainListeners { keys, removed: false }.into());
    }

    /// A worker says what it accepted: as long as it works, in any state.
    pub(super) fn tell_resources(&mut self, generation: Generation) {
        self.count += 1;
        let resources = ResourcesId(self.count);
        self.tell(generation, Event::Resources { generation, resources });
    }

    /// Says what it has too many or too few of.
    pub(super) fn ask_again(&mut self, generation: Generation) {
        let Some(worker) = self.workers.get(&generation) else { return };
        if worker.draining {
            return;
        }
        let keys: Vec<_> = worker.keys.difference(&worker.wants).cloned().collect();
        let mut lacks: BTreeSet<_> = worker.wants.difference(&worker.keys).cloned().collect();
        lacks.retain(|key| !worker.drained.contains(key));
        if !keys.is_empty() {
            self.say_surely(generation, DrainListeners { keys, removed: true }.into());
        }
        self.need(generation, lacks);
    }

    fn need(&mut self, generation: Generation, keys: impl IntoIterator<Item = ListenerKey>) {
        let listeners: Vec<_> = keys.into_iter().map(spec).collect();
        if listeners.is_empty() {
            return;
        }
        self.count += 1;
        let need = NeedListeners { listeners, last: true, request: self.count };
        self.say_surely(generation, need.into());
    }
}
