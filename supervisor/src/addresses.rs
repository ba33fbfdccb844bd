//! What names resolved to, as workers told it: a new generation begins with that when DNS fails. It
//! outlives the worker that told it, so a generation started after a crash has it, too.
//!
//! Nothing here knows what a cluster or a name is.

use std::collections::BTreeMap;

use baton_contract::{
    generation::Generation,
    message::{
        ADDRESSES_FEATURE, Addresses, MAX_REMEMBERED_ADDRESSES, MAX_RESOLVED_NAMES, Resolved,
    },
};
use serde::{Deserialize, Serialize};

use crate::perform::Performer;

/// The newest answer for each name of each cluster, and who told it.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    answers: BTreeMap<(String, String), (Generation, Resolved)>,
    /// The generation that serves, or served last.
    serving: Generation,
}

/// A [`Memory`] as it travels to another program.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Packed {
    answers: Vec<(Generation, Resolved)>,
    serving: Generation,
}

impl Memory {
    /// Remembers what a worker told; that it has no address for a name only where nobody had one. Beyond [`MAX_RESOLVED_NAMES`] no new name is.
    pub(crate) fn learn(&mut self, from: Generation, told: Addresses) {
        for mut answer in told.answers {
            answer.addresses.truncate(MAX_REMEMBERED_ADDRESSES);
            let key = (answer.cluster.clone(), answer.name.clone());
            let known = self.answers.contains_key(&key);
            let is_news = !known || !answer.addresses.is_empty();
            if is_news && (known || self.answers.len() < MAX_RESOLVED_NAMES) {
                self.answers.insert(key, (from, answer));
            }
        }
    }

    /// This generation serves from now on.
    pub(crate) const fn serves(&mut self, generation: Generation) {
        self.serving = generation;
    }

    /// Forgets what only generations told that are gone and are not the one that serves, or served
    /// last: their names are in no configuration any more, or were told again.
    pub(crate) fn tidy(&mut self, lives: impl Fn(Generation) -> bool) {
        let serving = self.serving;
        self.answers.retain(|_, (from, _)| *from >= serving || lives(*from));
    }

    /// Everything, for a new generation.
    pub(crate) fn messages(&self) -> Vec<Addresses> {
        Addresses::messages(self.answers.values().map(|(_, answer)| answer.clone()))
    }

    /// It as it travels to another program.
    pub(crate) fn pack(&self) -> Packed {
        Packed { answers: self.answers.values().cloned().collect(), serving: self.serving }
    }

    /// It as another program had it.
    pub(crate) fn unpack(packed: Packed) -> Self {
        let mut memory = Self { answers: BTreeMap::new(), serving: packed.serving };
        for (from, answer) in packed.answers {
            memory.learn(from, Addresses { answers: vec![answer] });
        }
        memory
    }
}

impl Performer {
    /// Remembers what a worker told about names.
    pub(crate) fn learn_addresses(&mut self, generation: Generation) {
        let Some(worker) = self.workers.get_mut(&generation) else { return };
        for told in std::mem::take(&mut worker.addresses) {
            self.addresses.learn(generation, told);
        }
    }

    /// Forgets what no generation needs any more.
    pub(crate) fn tidy_addresses(&mut self) {
        let workers = &self.workers;
        self.addresses.tidy(|generation| workers.contains_key(&generation));
    }

    /// Gives a new generation everything that is known, if it understands it.
    pub(crate) fn give_addresses(&mut self, generation: Generation, features: &[String]) {
        if !features.iter().any(|name| name == ADDRESSES_FEATURE) {
            return;
        }
        for addresses in self.addresses.messages() {
            self.send(generation, &addresses.into(), None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(name: &str, last: u8) -> Addresses {
        let addresses = vec![[10, 0, 0, last].into()];
        let (cluster, name) = ("c".to_owned(), name.to_owned());
        Addresses { answers: vec![Resolved { cluster, name, addresses }] }
    }

    fn lacking(name: &str) -> Resolved {
        Resolved { cluster: "c".to_owned(), name: name.to_owned(), addresses: Vec::new() }
    }

    fn names(memory: &Memory) -> Vec<String> {
        let answers = memory.messages().into_iter().flat_map(|message| message.answers);
        answers.map(|answer| format!("{} {}", answer.name, answer.addresses[0])).collect()
    }

    #[test]
    fn the_newest_answer_stays_until_no_generation_needs_it() {
        let (first, second) = (Generation(1), Generation(2));
        let mut memory = Memory::default();
        memory.serves(first);
        memory.learn(first, told("a", 1));
        memory.learn(first, told("b", 1));
        memory.learn(first, told("b", 2));
        assert_eq!(names(&memory), ["a 10.0.0.1", "b 10.0.0.2"]);
        memory.tidy(|_| false);
        assert_eq!(names(&memory).len(), 2, "the next one begins with what the dead one knew");
        memory.learn(second, told("b", 3));
        memory.serves(second);
        memory.tidy(|generation| generation == first);
        assert_eq!(names(&memory).len(), 2, "the first one may serve again");
        memory.learn(second, Addresses { answers: vec![lacking("b"), lacking("c")] });
        let known = memory.messages().remove(0).answers;
        let counts: Vec<_> = known.iter().map(|answer| answer.addresses.len()).collect();
        assert_eq!(counts, [1, 1, 0], "an address is better than none");
        memory.answers.retain(|(_, name), _| name != "c");
        let mut memory = Memory::unpack(memory.pack());
        memory.tidy(|generation| generation == second);
        assert_eq!(names(&memory), ["b 10.0.0.3"]);
    }

    #[test]
    fn no_more_names_are_remembered_than_a_worker_is_given() {
        let mut memory = Memory::default();
        for at in 0..=MAX_RESOLVED_NAMES {
            memory.learn(Generation(1), told(&at.to_string(), 1));
        }
        assert_eq!(memory.answers.len(), MAX_RESOLVED_NAMES);
    }
}
