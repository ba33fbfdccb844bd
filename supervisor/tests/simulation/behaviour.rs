//! How the simulated processes and people behave: what a worker does with what it is told, how it
//! dies, and what operators ask for.

use super::*;

impl World {
    pub(super) fn die(&mut self, generation: Generation, how: Death) -> Result<(), String> {
        let Some(worker) = self.workers.get_mut(&generation) else { return Ok(()) };
        if !worker.alive {
            return Ok(());
        }
        worker.alive = false;
        worker.polling = false;
        if self.random.bool() {
            self.step(Event::ChannelClosed { generation })?;
        }
        self.step(Event::Exited { generation, how })
    }

    /// Something reaches the supervisor.
    pub(super) fn arrive(&mut self, event: Event) -> Result<(), String> {
        let of_dead = match &event {
            Event::Message { generation, .. }
            | Event::Answered { generation, .. }
            | Event::Beat { generation } => {
                !self.workers.get(generation).is_some_and(|worker| worker.alive)
            }
            _ => false,
        };
        if let Event::Message { generation, message: FromWorker::Released(released) } = &event
            && let Some(given) = self.given.get_mut(generation)
        {
            given.retain(|key| !released.keys.contains(key));
        }
        if of_dead { Ok(()) } else { self.step(event) }
    }

    /// Something happens to a worker that works.
    pub(super) fn reach(&mut self, generation: Generation, item: Item) -> Result<(), String> {
        match item {
            Item::Welcomed(_) => self.configure(generation),
            Item::GivenListeners(_, keys) => return self.take_sockets(generation, keys),
            Item::Emptied(_, keys) => self.emptied(generation, keys),
            Item::AskAgain(_) => self.ask_again(generation),
            Item::ToWorker(_, command, message) => self.obey(generation, command, &message),
            Item::Empty(_) => {
                self.say(generation, Drained::default().into());
                let at = self.workers.get(&generation).map_or(self.now, |w| w.outbox_until);
                self.plan(at + Duration::from_millis(1), Item::Die(generation, Death::Exited(0)));
            }
            Item::Return(_) => return self.come_back(generation),
            Item::Heartbeat(_) => {
                self.plan(self.now + Duration::from_secs(1), Item::Heartbeat(generation));
                let status = self.status(generation);
                self.say(generation, status.into());
                return self.step(Event::Beat { generation });
            }
            _ => {}
        }
        Ok(())
    }

    fn status(&mut self, generation: Generation) -> Status {
        let connections = self.random.u64(0..50);
        let stuck = self.workers.get(&generation).is_some_and(|worker| worker.stuck);
        let thread =
            StuckThread { for_ms: 3000, text: "it spins".to_owned(), ..Default::default() };
        Status {
            connections,
            served: if stuck { self.random.u64(0..=connections) } else { 0 },
            stuck: if stuck { vec![thread] } else { Vec::new() },
            ..Status::default()
        }
    }

    pub(super) fn configure(&mut self, generation: Generation) {
        match self.nature(generation) {
            Nature::Invalid => {
                self.say(generation, Failed::new(FailReason::Config, "invalid", []).into());
                let at = self.workers.get(&generation).map_or(self.now, |w| w.outbox_until);
                self.plan(at + Duration::from_millis(1), Item::Die(generation, Death::Exited(1)));
            }
            Nature::HangStarting => self.plan(self.now, Item::Freeze(generation)),
            _ => {
                let keys = self.workers.get(&generation).map(|w| w.wants.clone());
                let listeners = keys.into_iter().flatten().map(live::spec).collect();
                self.say(generation, NeedListeners { listeners, last: true, request: 0 }.into());
            }
        }
    }

    pub(super) fn warm(&mut self, generation: Generation) {
        match self.nature(generation) {
            Nature::CrashWarming => self.plan(self.now, Item::Die(generation, Death::Exited(70))),
            Nature::HangWarming => self.plan(self.now, Item::Freeze(generation)),
            _ => self.say(generation, Ready::default().into()),
        }
    }

    pub(super) fn obey(
        &mut self,
        generation: Generation,
        command: Option<CommandId>,
        message: &ToWorker,
    ) {
        let nature = self.nature(generation);
        let later = self.now + Duration::from_millis(self.random.u64(0..15_000));
        let Some(worker) = self.workers.get_mut(&generation) else { return };
        match message {
            ToWorker::Take(_) if nature == Nature::CrashTaking => {
                return self.plan(self.now, Item::Die(generation, Death::Killed(6)));
            }
            ToWorker::Take(_) if nature == Nature::HangTaking => {
                return self.plan(self.now, Item::Freeze(generation));
            }
            ToWorker::Take(_) | ToWorker::Resume(_) => {
                worker.polling = true;
                worker.took = true;
                match nature {
                    Nature::CrashServing => {
                        self.plan(later, Item::Die(generation, Death::Killed(11)));
                    }
                    Nature::HangServing => self.plan(later, Item::Freeze(generation)),
                    _ => {}
                }
            }
            ToWorker::Pause(_) => worker.polling = false,
            ToWorker::Drain(_) => {
                worker.polling = false;
                let keys = std::mem::take(&mut worker.keys).into_iter().collect();
                if !worker.draining {
                    worker.draining = true;
                    self.say(generation, Released { keys }.into());
                    let end = self.now + Duration::from_millis(self.random.u64(0..90_000));
                    self.plan(end, Item::Empty(generation));
                }
            }
            ToWorker::Release(release) => {
                worker.releasing.extend(release.keys.iter().cloned());
                let at = self.now + Duration::from_millis(self.random.u64(0..1500));
                self.plan(at, Item::Emptied(generation, release.keys.clone()));
            }
            ToWorker::Unbound(_) => {
                let at = self.now + Duration::from_secs(2);
                self.plan(at, Item::AskAgain(generation));
            }
            ToWorker::Stop(stop) => {
                worker.polling = false;
                let end =
                    Duration::from_millis(stop.graceful_ms).min(later.saturating_sub(self.now));
                self.plan(self.now + end, Item::Die(generation, Death::Exited(0)));
            }
            ToWorker::Welcome(_)
            | ToWorker::Config(_)
            | ToWorker::Listeners(_)
            | ToWorker::Peer(_)
            | ToWorker::Adopt(_)
            | ToWorker::ReopenLogs(_)
            | ToWorker::Reattached(_)
            | ToWorker::Resources(_)
            | ToWorker::Addresses(_) => {}
        }
        if let Some(command) = command {
            let refused = self.faults && self.random.u8(..) < 3;
            let result = if refused { Err("no".to_owned()) } else { Ok(()) };
            self.tell(generation, Event::Answered { generation, command, result });
        }
    }

    /// Writes a new file.
    pub(super) fn write(&mut self, nature: Nature) {
        let id = ConfigId(u128::from(self.random.u64(..)));
        let keys = (1..6).filter(|_| self.random.bool()).map(key).chain([key(9)]).collect();
        self.natures.insert(id, (nature, keys));
        self.disk = id;
        self.note(&format!("the file is {nature:?} now, {id}"));
    }

    pub(super) fn reload(&mut self, reload: &Reload) -> Result<(), String> {
        let waiter = Waiter(self.next_waiter);
        self.next_waiter += 1;
        self.rules.asked(waiter);
        self.step(Event::Reload { waiter: Some(waiter), reload: reload.clone() })
    }

    /// Nothing fails any more.
    pub(super) fn become_quiet(&mut self) {
        self.note("quiet from here on");
        self.faults = false;
        // What was good enough to be the last good one may not crash for ever.
        for (nature, _) in self.natures.values_mut() {
            *nature = Nature::Good;
        }
        self.write(Nature::Good);
    }

    /// People and fate do something.
    pub(super) fn people(&mut self) -> Result<(), String> {
        if !self.agenda.values().any(|item| matches!(item, Item::Quiet)) {
            return Ok(());
        }
        self.faults = true;
        let next = self.now + Duration::from_millis(self.random.u64(1..6000));
        self.plan(next, Item::People);
        let living: Vec<Generation> =
            self.workers.iter().filter(|(_, w)| w.alive).map(|(g, _)| *g).collect();
        let victim = self.random.choice(living);
        if let Some(generation) = victim.filter(|_| self.random.bool()) {
            self.change_listeners(generation);
            self.tell_resources(generation);
        }
        match self.random.u8(0..10) {
            0 | 1 => self.write(Nature::Good),
            2 => {
                let nature = self.random.choice(BAD).unwrap_or(Nature::Invalid);
                self.write(nature);
            }
            3 if self.random.bool() => {
                if let Some(generation) = victim {
                    return self.die(generation, Death::Killed(9));
                }
            }
            4 if self.random.u8(0..3) == 0 => {
                if let Some(generation) = victim {
                    return self.happen(Item::Freeze(generation));
                }
            }
            4 if self.random.u8(0..3) == 0 => {
                if let Some(worker) = victim.and_then(|victim| self.workers.get_mut(&victim)) {
                    worker.stuck = true;
                    self.note(&format!("a thread of generation {victim:?} is stuck"));
                    self.rules.seen.stuck();
                }
            }
            5 => {
                for _ in 0..self.random.u8(1..20) {
                    self.step(Event::Reload { waiter: None, reload: Reload::default() })?;
                }
            }
            6 if self.random.bool() => {
                if let Some(generation) = victim {
                    self.drain_listeners(generation);
                }
            }
            6 => {
                if let Some(generation) = victim {
                    let event = Event::Drain { waiter: None, generation, strategy: None };
                    return self.step(event);
                }
            }
            7 if self.random.u8(0..3) == 0 => return self.crash(),
            7 if self.random.bool() => return self.upgrade(),
            7 => return self.step(Event::ReopenLogs),
            _ => {
                let reload = Reload {
                    wait: true,
                    dry_run: self.random.u8(0..5) == 0,
                    force: self.random.u8(0..4) == 0,
                    concurrency: None,
                };
                return self.reload(&reload);
            }
        }
        Ok(())
    }
}
