//! Generations that die, come back, drain and end; and who uses which listener.

use std::time::Duration;

use baton_contract::{
    control::Verdict,
    generation::{Generation, State},
    listener_key::ListenerKey,
    message::{Drain, DrainStrategy, Resume, Stop},
};

use super::{
    REMEMBERED, Supervisor,
    accounts::with,
    action::{Action, Kill, Level},
    attempt::{Origin, Stage},
    event::{CommandId, ConfigId, Death, Time},
    live::Wishes,
    member::{CLOSED_TO_KILL, Ending, Member, Push, STOP_TO_TERM, TERM_TO_KILL},
};

/// Longest wait between two respawns.
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// Wait before the second respawn; it doubles from there.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
/// Most configurations remembered as bad.
const MAX_BAD: usize = 1024;

/// Wait before the respawn with this number, counted from 0.
fn backoff(tries: u32) -> Duration {
    let Some(doublings) = tries.checked_sub(1) else { return Duration::ZERO };
    BACKOFF_FIRST.saturating_mul(1_u32.checked_shl(doublings).unwrap_or(u32::MAX)).min(BACKOFF_MAX)
}

/// A duration as the protocol has it.
pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Supervisor {
    pub(super) fn on_bound_or_late(&mut self, generation: Generation, result: Result<(), String>) {
        if result.is_ok()
            && let Some(member) = self.members.get(&generation)
        {
            for key in &member.keys {
                self.users.entry(key.clone()).or_default().insert(generation);
            }
        }
        self.on_bound(generation, result);
    }

    pub(super) fn on_released(&mut self, generation: Generation, keys: &[ListenerKey]) {
        for key in keys {
            if let Some(users) = self.users.get_mut(key) {
                users.remove(&generation);
            }
            if let Some(member) = self.members.get_mut(&generation) {
                member.leaving.remove(key);
            }
        }
        self.release_unused();
    }

    /// Closes listeners nobody has, nobody is about to have, and the serving configuration does not want.
    pub(super) fn release_unused(&mut self) {
        let wanted = &self.wanted;
        let unused: Vec<ListenerKey> = self
            .users
            .iter()
            .filter(|(key, users)| users.is_empty() && !wanted.contains(*key))
            .filter(|(key, _)| !self.is_coming(key))
            .map(|(key, _)| key.clone())
            .collect();
        if unused.is_empty() {
            return;
        }
        self.users.retain(|key, _| !unused.contains(key));
        self.push(Action::Release(unused));
    }

    pub(super) fn on_channel_closed(&mut self, generation: Generation) {
        let now = self.now;
        let fallback = self.fallback == Some(generation);
        let Some(member) = self.members.get_mut(&generation) else { return };
        member.channel = false;
        let needs_channel = !matches!(member.state, State::HandingOff | State::Draining);
        if needs_channel && member.ending.is_none() {
            // It should exit now; what is left of it is useless.
            let next = now.saturating_add(CLOSED_TO_KILL);
            member.ending = Some(Ending { push: Push::Terminated, next });
        }
        if fallback {
            self.fallback = None;
            self.set_state(generation, State::Draining);
        }
    }

    pub(super) fn on_exited(&mut self, generation: Generation, how: Death) {
        if self.orphan_ended(generation, how) {
            return;
        }
        let Some(member) = self.members.remove(&generation) else { return };
        self.remember(&member, how);
        for users in self.users.values_mut() {
            users.remove(&generation);
        }
        self.push(Action::Retire { generation });
        let why = format!("generation {generation} (process {}) {how}", member.pid);
        let expected = member.ending.is_some() || member.state == State::Draining;
        let level = if expected { Level::Info } else { Level::Warn };
        self.push(Action::Log(level, why.clone()));
        if self.fallback == Some(generation) {
            self.fallback = None;
        }
        if self.serving == Some(generation) {
            self.serving_lost(generation, &member, &why);
        } else if let Some(attempt) = &mut self.attempt {
            if attempt.generation == Some(generation) {
                let text = if member.error.is_empty() { why } else { member.error };
                self.fail_attempt(Verdict::Refused, text, Vec::new(), None);
            } else if matches!(attempt.stage, Stage::Pausing(old, _) if old == generation) {
                self.finish_attempt(Verdict::Serving, why);
            }
        }
        self.release_unused();
    }

    /// Adds the last numbers of a generation to those of the past.
    fn remember(&mut self, member: &Member, how: Death) {
        let clean = match how {
            Death::Exited(status) => status == 0,
            Death::Killed(_) => false,
            Death::Unseen => member.said_goodbye,
        };
        let lost = if clean { 0 } else { member.status.connections };
        self.past = with(self.past, &member.status);
        self.past.cut = self.past.cut.saturating_add(lost);
        let mut row = self.row(member);
        row.state = if clean && member.error.is_empty() { State::Dead } else { State::Failed };
        row.connections = 0;
        row.cut_in_ms = None;
        if row.error.is_empty() && !clean {
            row.error = how.to_string();
        }
        self.gone.push_front(row);
        self.gone.truncate(REMEMBERED);
    }

    /// The serving generation is gone, or as good as gone.
    pub(super) fn serving_lost(&mut self, generation: Generation, member: &Member, why: &str) {
        self.serving = None;
        self.probation_until = None;
        let in_switch = self.attempt.as_ref().is_some_and(|attempt| {
            attempt.generation == Some(generation) && matches!(attempt.stage, Stage::Pausing(..))
        });
        let limit = self.policy.heartbeat_timeout;
        let fallback = self.fallback.take().filter(|fallback| {
            let old = self.members.get(fallback);
            old.is_some_and(|old| old.fit(self.now, limit))
        });
        if self.stopping.is_some() {
            return;
        }
        let text = if let Some(old) = fallback {
            let old_config = self.members.get(&old).map(|old| old.recipe.config);
            self.resume(old);
            if old_config != Some(member.recipe.config) {
                self.condemn(member.recipe.config);
            }
            format!("{why}; generation {old} serves again")
        } else {
            self.last_good.get_or_insert(member.recipe);
            self.schedule_respawn();
            format!("{why}; a new worker is started from the last good configuration")
        };
        self.push(Action::Log(Level::Error, text.clone()));
        if in_switch {
            self.finish_attempt(Verdict::RolledBack, text);
        } else if let Some(last) = &mut self.last_reload
            && last.generation == Some(generation)
            && fallback.is_some()
        {
            last.verdict = Verdict::RolledBack;
            last.serving = fallback;
            last.text = text;
        }
        if self.attempt.as_ref().is_some_and(|a| a.origin == Origin::DryRun)
            && self.serving.is_none()
        {
            let text = "the serving generation died meanwhile".to_owned();
            self.fail_attempt(Verdict::Refused, text, Vec::new(), None);
        }
    }

    /// Remembers that a configuration had to be rolled back. An attempt that brings the same one up
    /// once more, without force, ends.
    fn condemn(&mut self, config: ConfigId) {
        if self.bad.len() < MAX_BAD {
            self.bad.insert(config);
        }
        let same = self.attempt.as_ref().is_some_and(|attempt| {
            let coming = !matches!(attempt.stage, Stage::Pausing(..));
            coming && !attempt.force && attempt.recipe.is_some_and(|recipe| recipe.config == config)
        });
        if same {
            let text = "its configuration was rolled back meanwhile".to_owned();
            self.fail_attempt(Verdict::Refused, text, Vec::new(), None);
        }
    }

    /// Lets the fallback poll again.
    pub(super) fn resume(&mut self, old: Generation) {
        let now = self.now;
        self.serving = Some(old);
        let Some(member) = self.members.get_mut(&old) else { return };
        member.cut_at = None;
        member.paused_at = None;
        member.introduced = None;
        self.last_good = Some(member.recipe);
        self.wanted.clone_from(&member.keys);
        self.resources = member.resources;
        let keys = member.keys.iter().cloned().collect();
        let listeners = member.listeners.clone();
        // The newer one may have changed their options.
        self.push(Action::Listen { generation: old, listeners });
        self.push(Action::SendListeners { generation: old, keys, request: 0 });
        let command = self.command(old, Resume {}.into());
        self.resuming = Some((old, command, now.saturating_add(self.policy.command_timeout)));
        self.set_state(old, State::Serving);
    }

    pub(super) fn on_resume_answer(
        &mut self,
        generation: Generation,
        command: CommandId,
        result: &Result<(), String>,
    ) {
        if self.resuming.is_none_or(|(g, c, _)| g != generation || c != command) {
            return;
        }
        self.resuming = None;
        if let Err(text) = result {
            self.give_up(generation, &format!("generation {generation} did not resume: {text}"));
        }
    }

    /// Ends the serving generation because it does not work, and goes on without it.
    pub(super) fn give_up(&mut self, generation: Generation, why: &str) {
        if self.serving != Some(generation) {
            return;
        }
        let Some(member) = self.members.get_mut(&generation) else { return };
        why.clone_into(&mut member.error);
        let member = member.clone();
        self.set_state(generation, State::Failed);
        self.end(generation, Time::ZERO);
        self.serving_lost(generation, &member, why);
    }

    /// Plans the next respawn.
    pub(super) fn schedule_respawn(&mut self) {
        if self.stopping.is_some() {
            return;
        }
        self.respawn_at = Some(self.now.saturating_add(backoff(self.tries)));
        self.tries = self.tries.saturating_add(1);
    }

    /// The older generation cannot come back any more: it finishes and exits.
    pub(super) fn drain(&mut self, generation: Generation) {
        let (now, policy) = (self.now, self.policy);
        let Some(member) = self.members.get_mut(&generation) else { return };
        if member.ending.is_some() {
            return;
        }
        member.cut_at.get_or_insert_with(|| now.saturating_add(policy.parent_shutdown_time));
        member.wishes = Wishes::default();
        let removed = member.keys.difference(&self.wanted).cloned().collect();
        let Some(member) = self.members.get(&generation) else { return };
        let drain = self.drain_of(member, removed);
        self.set_state(generation, State::Draining);
        self.deafen_removed(generation);
        self.command(generation, drain.into());
    }

    /// New connections stay out of listeners that only draining generations have left.
    fn deafen_removed(&mut self, generation: Generation) {
        let Some(member) = self.members.get(&generation) else { return };
        let in_use = |key: &ListenerKey| {
            self.wanted.contains(key)
                || self.members.values().any(|other| {
                    let over = matches!(other.state, State::Draining | State::Failed | State::Dead);
                    !over && other.keys.contains(key)
                })
        };
        let removed: Vec<ListenerKey> =
            member.keys.iter().filter(|key| !in_use(key)).cloned().collect();
        if !removed.is_empty() {
            self.push(Action::Deafen(removed.clone()));
            self.withdraw(&removed, Some(generation));
        }
    }

    /// Tells a generation that is not needed any more to finish sooner.
    pub(super) fn hurry(&mut self, generation: Generation, strategy: DrainStrategy, within: Time) {
        let now = self.now;
        if self.fallback == Some(generation) {
            self.fallback = None;
        }
        let Some(member) = self.members.get_mut(&generation) else { return };
        member.hurried = true;
        member.wishes = Wishes::default();
        let soon = now.saturating_add(within);
        let cut_at = member.cut_at.map_or(soon, |at| at.min(soon));
        member.cut_at = Some(cut_at);
        let removed = member.keys.difference(&self.wanted).cloned().collect();
        let left = millis(cut_at.saturating_sub(now));
        let drain_ms = match strategy {
            // A worker begins after a quarter of the time with what has not moved, and has to be done well
            // before the end.
            DrainStrategy::Migrate => left / 4,
            DrainStrategy::Gradual | DrainStrategy::Immediate => left,
        };
        let drain = Drain { strategy, drain_ms, deadline_ms: left, removed };
        self.set_state(generation, State::Draining);
        self.deafen_removed(generation);
        self.command(generation, drain.into());
    }

    /// Ends a process: STOP, then SIGTERM, then SIGKILL.
    pub(super) fn end(&mut self, generation: Generation, graceful: Time) {
        let now = self.now;
        let Some(member) = self.members.get_mut(&generation) else { return };
        if !member.channel {
            let next = now.saturating_add(CLOSED_TO_KILL);
            member.ending = Some(Ending { push: Push::Terminated, next });
            self.push(Action::Signal { generation, signal: Kill::Term });
            return;
        }
        let next = now.saturating_add(graceful).saturating_add(STOP_TO_TERM);
        member.ending = Some(Ending { push: Push::Asked, next });
        let stop = Stop { graceful_ms: millis(graceful) };
        self.push(Action::Send { generation, message: stop.into(), command: None });
    }

    /// The next push for each process that was told to end and did not.
    pub(super) fn push_endings(&mut self) {
        let now = self.now;
        let mut signals = Vec::new();
        for member in self.members.values_mut() {
            let Some(ending) = member.ending.as_mut().filter(|ending| ending.next <= now) else {
                continue;
            };
            let (push, signal) = match ending.push {
                Push::Asked => (Push::Terminated, Kill::Term),
                Push::Terminated | Push::Killed => (Push::Killed, Kill::Kill),
            };
            *ending = Ending { push, next: now.saturating_add(TERM_TO_KILL) };
            signals.push((member.generation, signal));
        }
        for (generation, signal) in signals {
            self.push(Action::Signal { generation, signal });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_between_respawns_doubles_up_to_five_seconds() {
        let waits: Vec<u64> = (0..9).map(|tries| millis(backoff(tries))).collect();
        assert_eq!(waits, [0, 100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(backoff(u32::MAX), BACKOFF_MAX);
    }
}
