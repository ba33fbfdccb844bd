//! What the core tells about itself.

use baton_contract::{
    control::{GenerationReport, Report},
    generation::Generation,
    words::counted,
};

use super::{Supervisor, event::Time, member::Member};

/// A time as the control socket has it.
fn millis(time: Time) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Supervisor {
    /// The state of all generations. The performer adds what only it knows.
    pub fn report(&self, now: Time) -> Report {
        let living = self.members.values().rev().map(|member| self.row_at(member, now));
        Report {
            uptime_ms: millis(now),
            generations: living.chain(self.gone.iter().cloned()).collect(),
            listeners: self.users.keys().map(ToString::to_string).collect(),
            last_reload: self.last_reload.clone(),
            reloads: self.reloads,
            failed_reloads: self.failed_reloads,
            respawns: self.respawns,
            past: self.so_far(),
            stopping: self.stopping.is_some(),
            ..Report::default()
        }
    }

    /// The generation that serves.
    pub const fn serving(&self) -> Option<Generation> {
        self.serving
    }

    /// It was told to stop.
    pub const fn is_stopping(&self) -> bool {
        self.stopping.is_some()
    }

    /// Reloads that ended well and badly, and respawns, since the start.
    pub const fn counts(&self) -> (u64, u64, u64) {
        (self.reloads, self.failed_reloads, self.respawns)
    }

    /// One line for the service manager.
    pub fn summary(&self) -> String {
        let older = self.members.len().saturating_sub(usize::from(self.serving.is_some()));
        match self.serving {
            Some(serving) if older == 0 => format!("generation {serving} serves"),
            Some(serving) => {
                format!("generation {serving} serves beside {}", counted(older, "older one"))
            }
            None => format!("no generation serves, {older} live"),
        }
    }

    pub(super) fn row(&self, member: &Member) -> GenerationReport {
        self.row_at(member, self.now)
    }

    fn row_at(&self, member: &Member, now: Time) -> GenerationReport {
        // Whoever serves is cut by a stop alone, whatever it waited for before it served.
        let ends = self.stopping.is_some() || Some(member.generation) != self.serving;
        let cut_in = member.cut_at.filter(|_| ends).map(|at| millis(at.saturating_sub(now)));
        GenerationReport {
            generation: member.generation,
            state: member.state,
            pid: member.pid,
            config_hash: member.recipe.config.to_string(),
            age_ms: millis(now.saturating_sub(member.started)),
            connections: member.status.connections,
            cut_in_ms: cut_in,
            heartbeat_age_ms: millis(now.saturating_sub(member.last_beat)),
            open: member.status.open,
            moved: member.status.moved,
            stayed: member.status.stayed.clone(),
            concurrency: member.recipe.concurrency,
            drained: member.drained.iter().map(ToString::to_string).collect(),
            listeners: u64::try_from(member.keys.len()).unwrap_or(u64::MAX),
            error: member.error.clone(),
        }
    }
}
