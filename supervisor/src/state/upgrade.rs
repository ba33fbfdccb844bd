//! The program of the supervisor is replaced while it runs: check the new one, execute it in place,
//! start a new generation from it.
//!
//! ```text
//! waiting ─nothing on its way→ checking ─can take the state→ executing ══ new program ══→ reload
//!                                 └──cannot────→ refused ←────fails──┘
//! ```
//! Until the new program runs nothing changed. From `Check` on nothing else begins.

use std::path::PathBuf;

use baton_contract::control::{ListenerChanges, Moves, Outcome, Phase, Step, Verdict};
use serde::{Deserialize, Serialize};

use super::{
    Supervisor,
    action::{Action, Level},
    event::Waiter,
    outcome::micros,
    requests::{MAX_WAITERS, Pending},
};

/// How far it is.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
enum Stage {
    /// Something else comes first.
    Waiting,
    /// The new program looks at the state.
    Checking,
    /// It is about to be executed, or was.
    #[default]
    Executing,
}

/// A new program on its way.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Upgrade {
    pub(super) pending: Pending,
    program: Option<PathBuf>,
    stage: Stage,
}

impl Supervisor {
    pub(super) fn on_upgrade(&mut self, waiter: Option<Waiter>, program: Option<PathBuf>) {
        if self.stopping.is_some() {
            self.refuse(waiter, "the supervisor is stopping");
            return;
        }
        let fresh = Upgrade { pending: self.pending(), program, stage: Stage::Waiting };
        let wanted = fresh.program.clone();
        let upgrade = self.upgrade.get_or_insert(fresh);
        if upgrade.program != wanted || upgrade.pending.waiters.len() >= MAX_WAITERS {
            self.refuse(waiter, "an upgrade to another program is on its way");
            return;
        }
        upgrade.pending.waiters.extend(waiter);
    }

    /// An upgrade begins, or is on its way: nothing else may begin.
    pub(super) fn upgrade_goes_first(&mut self) -> bool {
        let Some(upgrade) = &mut self.upgrade else { return false };
        if upgrade.stage == Stage::Waiting {
            upgrade.stage = Stage::Checking;
            let program = upgrade.program.clone();
            self.push(Action::Check { program });
        }
        true
    }

    pub(super) fn on_checked(&mut self, result: Result<(), String>) {
        let Some(upgrade) = self.upgrade.as_mut().filter(|u| u.stage == Stage::Checking) else {
            return;
        };
        match result {
            Ok(()) => {
                upgrade.stage = Stage::Executing;
                let program = upgrade.program.clone();
                self.push(Action::Execute { program });
            }
            Err(text) => self.give_upgrade_up(text),
        }
    }

    pub(super) fn on_not_executed(&mut self, text: String) {
        self.give_upgrade_up(text);
    }

    /// Everything is as it was.
    fn give_upgrade_up(&mut self, text: String) {
        let Some(upgrade) = self.upgrade.take() else { return };
        self.push(Action::Log(Level::Error, format!("not upgraded: {text}")));
        self.failed_reloads = self.failed_reloads.saturating_add(1);
        let outcome = Outcome {
            verdict: Verdict::Refused,
            generation: None,
            serving: self.serving,
            text,
            diagnostics: Vec::new(),
            connections: Moves::default(),
            listeners: ListenerChanges::default(),
            took_us: micros(self.now.saturating_sub(upgrade.pending.since)),
        };
        let waiters = upgrade.pending.waiters;
        self.push(Action::Verdict { waiters, outcome: Box::new(outcome) });
    }

    /// This is the new program. It starts a generation from itself, even when its configuration
    /// failed with the older program.
    pub(super) fn on_executed(&mut self) {
        self.last_tick = self.now;
        let Some(upgrade) = self.upgrade.take() else { return };
        let phase = Phase {
            step: Step::Upgraded,
            at_us: micros(self.now.saturating_sub(upgrade.pending.since)),
            generation: None,
            text: String::new(),
        };
        self.push(Action::Log(Level::Info, "the program was replaced".to_owned()));
        self.push(Action::Progress { waiters: upgrade.pending.waiters.clone(), phase });
        let pending = self.pending_reload.get_or_insert_default();
        pending.since = upgrade.pending.since;
        pending.force = true;
        pending.waiters.extend(upgrade.pending.waiters);
    }
}
