//! Supervisors that die and are started again, and programs that are replaced.

use super::*;

impl World {
    /// SIGKILL for the supervisor; another one is there at once. What was on its way is lost.
    pub(super) fn crash(&mut self) -> Result<(), String> {
        self.note("the supervisor dies");
        self.down = false;
        self.agenda.retain(|_, item| {
            !matches!(
                item,
                Item::ToWorker(..)
                    | Item::Return(_)
                    | Item::Restart
                    | Item::Welcomed(_)
                    | Item::GivenListeners(..)
                    | Item::ToSupervisor(_)
            )
        });
        self.rules.crashed();
        self.given.clear();
        self.core = Supervisor::new(self.policy);
        let living: Vec<Generation> =
            self.workers.iter().filter(|(_, w)| w.alive).map(|(g, _)| *g).collect();
        let mut estate = Estate {
            strangers: self.random.u8(0..4) == 0,
            next: self.workers.keys().next_back().map_or(0, |last| last.0 + 1),
            ..Estate::default()
        };
        for generation in living {
            let pid = 100 + generation.0;
            estate.orphans.push(Orphan { generation, pid, started: Time::ZERO, state: None });
            let took = self.workers.get(&generation).is_some_and(|worker| worker.took);
            let at = self.now + Duration::from_millis(self.random.u64(0..2500));
            if took {
                self.plan(at, Item::Return(generation));
            } else if self.works(generation) {
                // Without a supervisor it cannot get ready.
                self.plan(at, Item::Die(generation, Death::Unseen));
            }
        }
        for worker in self.workers.values_mut() {
            worker.inbox_until = self.now;
            worker.outbox_until = self.now;
        }
        self.step(Event::Adopt(estate))
    }

    pub(super) fn come_back(&mut self, generation: Generation) -> Result<(), String> {
        let Some(worker) = self.workers.get(&generation) else { return Ok(()) };
        let state = match (worker.draining, worker.polling) {
            (true, _) => State::Draining,
            (false, true) => State::Serving,
            (false, false) => State::HandingOff,
        };
        // A draining one gave its sockets back, and what is being closed is not named.
        let keys: BTreeSet<ListenerKey> =
            worker.keys.difference(&worker.releasing).cloned().collect();
        let arrival = Arrival {
            pid: 100 + generation.0,
            started: Time::ZERO,
            recipe: Recipe { config: worker.config, concurrency: 1 },
            state,
            listeners: keys.iter().cloned().map(live::spec).collect(),
            cut_in: worker.draining.then_some(Duration::from_secs(60)),
            migrates: true,
            alien: self.random.u8(0..8) == 0,
        };
        self.given.insert(generation, keys);
        self.step(Event::Reattached { generation, arrival: Box::new(arrival) })?;
        self.ask_again(generation);
        self.tell_resources(generation);
        Ok(())
    }

    /// Somebody replaces the program.
    pub(super) fn upgrade(&mut self) -> Result<(), String> {
        let waiter = Waiter(self.next_waiter);
        self.next_waiter += 1;
        self.rules.asked(waiter);
        self.step(Event::Upgrade { waiter: Some(waiter), program: None })
    }

    /// The core is written down and read by the next program, if that can be executed.
    pub(super) fn execute(&mut self, events: &mut VecDeque<Event>) {
        if self.random.u8(0..4) == 0 {
            return events.push_front(Event::NotExecuted("ENOEXEC".to_owned()));
        }
        let text = serde_json::to_string(&self.core).expect("the core can be written down");
        let core: Supervisor = serde_json::from_str(&text).expect("and read back");
        self.core = core.under(self.policy);
        events.push_front(Event::Executed);
    }
}
