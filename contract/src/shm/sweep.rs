//! Names of segments, and what is left of dead supervisors.
//!
//! `baton-<base id>-<boot>-<pid namespace>-<pid of the supervisor>-<random>`. The name survives the
//! SIGKILL of its supervisor, so the next supervisor with the same base id removes it, once no
//! process of it lives.

use std::{fs, sync::atomic::Ordering::Relaxed};

use super::{
    layout::{Segment, header, life, row},
    map, process,
};

/// The parts of a segment's name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct OsId {
    pub(super) base_id: u32,
    pub(super) boot: String,
    pub(super) namespace: u64,
    pub(super) pid: u32,
    pub(super) random: u64,
}

impl OsId {
    /// A new name for this process.
    pub(super) fn new(base_id: u32) -> Self {
        Self {
            base_id,
            boot: process::boot_id(),
            namespace: process::pid_namespace(),
            pid: std::process::id(),
            random: process::random(),
        }
    }

    /// The name as text.
    pub(super) fn text(&self) -> String {
        let Self { base_id, boot, namespace, pid, random } = self;
        format!("baton-{base_id}-{boot}-{namespace}-{pid}-{random:016x}")
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.strip_prefix("baton-")?.split('-');
        let id = Self {
            base_id: parts.next()?.parse().ok()?,
            boot: parts.next()?.to_owned(),
            namespace: parts.next()?.parse().ok()?,
            pid: parts.next()?.parse().ok()?,
            random: u64::from_str_radix(parts.next()?, 16).ok()?,
        };
        parts.next().is_none().then_some(id)
    }
}

/// Names of all segments with this base id, those of running supervisors first.
pub fn find(base_id: u32) -> Vec<String> {
    let mut found: Vec<OsId> = all(base_id);
    found.sort_by_key(|id| (!has_commander(id), id.text()));
    found.iter().map(OsId::text).collect()
}

fn has_commander(id: &OsId) -> bool {
    let text = id.text();
    Segment::open(&text).map_or_else(|_| process::lives(id.pid, 0), |s| commander_lives(&s))
}

/// Names of whole segments of this boot and home whose supervisor does not live, those with living workers
/// first, then by the name.
pub(super) fn adoptable(base_id: u32, home: u64) -> Vec<String> {
    candidates(base_id, home, |segment| !commander_lives(segment))
}

/// The same for segments this process commanded itself, before it executed another program.
pub(super) fn left_by_this_process(base_id: u32, home: u64) -> Vec<String> {
    let own = u64::from(std::process::id());
    candidates(base_id, home, |segment| {
        segment.word(header::COMMANDER_PID).load(Relaxed) == own && commander_lives(segment)
    })
}

fn candidates(base_id: u32, home: u64, fits: impl Fn(&Segment) -> bool) -> Vec<String> {
    let here = (process::boot_id(), process::pid_namespace());
    let ours = all(base_id).into_iter().filter(|id| (&id.boot, id.namespace) == (&here.0, here.1));
    let mut found: Vec<(bool, String)> = ours
        .filter_map(|id| {
            let segment = Segment::open(&id.text()).ok()?;
            let is_ours = segment.word(header::HOME).load(Relaxed) == home;
            (is_ours && fits(&segment)).then(|| (!has_living_process(&segment), id.text()))
        })
        .collect();
    found.sort();
    found.into_iter().map(|(_, name)| name).collect()
}

/// The supervisor that commands lives.
fn commander_lives(segment: &Segment) -> bool {
    let word = |index: usize| segment.word(index).load(Relaxed);
    lives(word(header::COMMANDER_PID), word(header::COMMANDER_START))
}

fn lives(pid: u64, start: u64) -> bool {
    u32::try_from(pid).is_ok_and(|pid| pid != 0 && process::lives(pid, start))
}

fn all(base_id: u32) -> Vec<OsId> {
    let Ok(names) = fs::read_dir(map::DIRECTORY) else { return Vec::new() };
    let ids = names.flatten().filter_map(|entry| OsId::parse(entry.file_name().to_str()?));
    ids.filter(|id| id.base_id == base_id).collect()
}

/// Removes the segments with this base id of which no process lives; how many there were.
pub(super) fn sweep(base_id: u32) -> usize {
    let stale = all(base_id).into_iter().filter(is_stale);
    // It may belong to another user; then it stays.
    stale.filter(|id| map::unlink(&id.text()).is_ok()).count()
}

fn is_stale(id: &OsId) -> bool {
    if id.boot != process::boot_id() {
        return true;
    }
    if id.namespace != process::pid_namespace() {
        return false;
    }
    match Segment::open(&id.text()) {
        Ok(segment) => !has_living_process(&segment),
        // Alien or not whole, because its supervisor died while it made it.
        Err(_) => !process::lives(id.pid, 0),
    }
}

fn has_living_process(segment: &Segment) -> bool {
    if commander_lives(segment) {
        return true;
    }
    (0..segment.geometry.slots).any(|slot| {
        let field = |field: usize| segment.row(slot, field).load(Relaxed);
        field(row::LIFE) != life::FREE && lives(field(row::PID), field(row::PID_START))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_back() {
        let id = OsId::new(7);
        assert_eq!(OsId::parse(&id.text()), Some(id));
    }

    #[test]
    fn other_names_are_left_alone() {
        for name in ["baton", "baton-1", "baton-x-y-1-2-3", "baton-1-a-2-3-4-5", "batons-1-a-2-3-4"]
        {
            assert_eq!(OsId::parse(name), None, "{name}");
        }
    }
}
