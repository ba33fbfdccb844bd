//! Bodies of the messages. Times are milliseconds, monotonic where they are points in time.

use serde::{Deserialize, Serialize};

use super::status::Status;
use crate::{
    generation::Generation,
    listener_key::{ListenerKey, ListenerSpec},
    peer,
    version::{ProtoRange, for_tests, shm_layout},
};

/// Longest text or diagnostic in a message, bytes. Senders cut longer ones.
pub const MAX_TEXT_LEN: usize = 4096;
/// Most diagnostics in one [`Failed`] or [`Ready`] message.
pub const MAX_DIAGNOSTICS: usize = 200;
/// Most clusters named in [`Ready::unresolved`].
const MAX_UNRESOLVED: usize = 10;
/// Longest of its lines, bytes; names of hosts have at most 255.
const MAX_UNRESOLVED_LEN: usize = 400;
/// Most bytes of diagnostics in one message, as JSON. A text of [`MAX_TEXT_LEN`] bytes, all of them
/// escaped, takes 24 KiB beside them.
const MAX_DIAGNOSTICS_LEN: usize = 32 * 1024;

/// HELLO: who the worker is.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Hello {
    /// Protocol versions the worker speaks.
    pub proto: ProtoRange,
    /// Layout version of the shared-memory segment the worker knows.
    #[serde(default)]
    pub shm_layout: u32,
    /// Version of the program.
    #[serde(default)]
    pub build_id: String,
    /// Optional features.
    #[serde(default)]
    pub features: Vec<String>,
    /// Process number of the worker.
    #[serde(default)]
    pub pid: u32,
}

impl Hello {
    /// The worker can give connections away and take them, and who owns one on its way can be
    /// decided in the shared memory that both know.
    pub fn migrates(&self) -> bool {
        self.shm_layout == shm_layout() && self.features.iter().any(|name| name == peer::FEATURE)
    }
}

/// WELCOME: what was agreed, and all settings that are not in the configuration file.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Welcome {
    /// Protocol version to use.
    pub proto: u16,
    /// Number of this generation.
    pub generation: Generation,
    /// Features both sides know.
    #[serde(default)]
    pub features: Vec<String>,
    /// Where the statistics are; `None` = keep them private, the layouts do not match.
    #[serde(default)]
    pub segment: Option<SegmentRef>,
    /// Settings of the command line.
    #[serde(default)]
    pub settings: Box<WorkerSettings>,
    /// Monotonic clock of the supervisor.
    #[serde(default)]
    pub now_mono_ms: u64,
    /// Unix time of the supervisor's start, seconds.
    #[serde(default)]
    pub started_unix_s: u64,
    /// Epoch of the supervisor. When the segment shows a later one, another supervisor commands and
    /// this one is not obeyed any more. 0 = not known.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub epoch: u64,
    /// Socket where the worker finds the next supervisor when this one is gone; empty = nowhere.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reattach_at: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for this")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Place of a generation in the shared-memory segment.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct SegmentRef {
    /// Name for the operating system.
    pub os_id: String,
    /// Slot of this generation.
    pub slot: u32,
}

/// Settings that come from the command line and reach the worker by WELCOME.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default)]
pub struct WorkerSettings {
    /// Number of worker threads, at least 1.
    pub concurrency: u32,
    /// Time within which connections are told to close, from DRAIN on.
    pub drain_time_ms: u64,
    /// Time after the switch at which the draining generation is ended.
    pub parent_shutdown_time_ms: u64,
    /// How connections are told to close.
    pub drain_strategy: DrainStrategy,
    /// What happens to connections of listeners that are gone.
    pub on_removed: OnRemoved,
    /// Fields that are parsed but not implemented are warnings.
    pub allow_unimplemented: bool,
    /// `${VAR}` in the configuration is replaced.
    pub expand_env: bool,
    /// The admin interface may change things.
    pub admin_allow_mutations: bool,
    /// Levels of the log: the default one, then those of components, as in `info,http:debug`.
    pub log_level: String,
    /// `--base-id`.
    pub base_id: u32,
    /// Time a worker may take to get ready after its configuration is read.
    pub warm_timeout_ms: u64,
    /// Time between STATUS messages.
    pub status_interval_ms: u64,
    /// Envoy's `--service-node`; replaces `node.id` when not empty.
    pub service_node: String,
    /// Envoy's `--service-cluster`; replaces `node.cluster` when not empty.
    pub service_cluster: String,
    /// Envoy's `--service-zone`; replaces `node.locality.zone` when not empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub service_zone: String,
    /// Envoy's `--admin-address-path`: where the address of the admin interface is written; empty =
    /// nowhere.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub admin_address_path: String,
    /// Envoy's `--config-yaml` beside a file: text that is merged over it; empty = none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub config_overlay: String,
    /// Which connections outlive the worker.
    pub crash_escrow: super::CrashEscrow,
    /// How many of them there may be, over all generations.
    pub escrow_limit: u32,
    /// Time without progress after which a thread counts as stuck; 0 = threads are not watched.
    #[serde(skip_serializing_if = "is_usual_thread_timeout")]
    pub thread_timeout_ms: u64,
}

/// [`WorkerSettings::thread_timeout_ms`] when nobody says otherwise.
const THREAD_TIMEOUT_MS: u64 = 3000;

/// Debug builds only: another time, so that a test need not wait.
const TEST_THREAD_TIMEOUT_MS: &str = "BATON_TEST_THREAD_TIMEOUT_MS";

/// What a supervisor says for [`WorkerSettings::thread_timeout_ms`].
pub fn thread_timeout_ms() -> u64 {
    let asked = for_tests(TEST_THREAD_TIMEOUT_MS).and_then(|text| text.parse().ok());
    asked.unwrap_or(THREAD_TIMEOUT_MS)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for this")]
const fn is_usual_thread_timeout(ms: &u64) -> bool {
    *ms == THREAD_TIMEOUT_MS
}

impl Default for WorkerSettings {
    fn default() -> Self {
        Self {
            concurrency: 1,
            drain_time_ms: 600_000,
            parent_shutdown_time_ms: 900_000,
            drain_strategy: DrainStrategy::Gradual,
            on_removed: OnRemoved::Keep,
            allow_unimplemented: false,
            expand_env: false,
            admin_allow_mutations: false,
            log_level: "info".to_owned(),
            base_id: 0,
            warm_timeout_ms: 15_000,
            status_interval_ms: 1000,
            service_node: String::new(),
            service_cluster: String::new(),
            service_zone: String::new(),
            admin_address_path: String::new(),
            config_overlay: String::new(),
            crash_escrow: super::CrashEscrow::Off,
            escrow_limit: 0,
            thread_timeout_ms: THREAD_TIMEOUT_MS,
        }
    }
}

/// What a draining generation does with its connections.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DrainStrategy {
    /// They move to the newest generation; those that cannot are told to close as with
    /// [`Self::Gradual`].
    Migrate,
    /// They are told to close, with rising probability over the drain time.
    #[default]
    Gradual,
    /// They are told to close, with the next response of each.
    Immediate,
}

/// What happens to a connection whose listener the newest configuration does not have.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OnRemoved {
    /// What is in progress moves and goes on under its own configuration to its end; what is idle
    /// is told to close.
    #[default]
    Keep,
    /// It stays in its generation and is told to close.
    Drain,
    /// It is closed.
    Close,
}

/// CONFIG: carries one descriptor, a sealed memfd with the file's bytes.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Config {
    /// Hash of the bytes, hexadecimal.
    pub hash: String,
    /// Path as given on the command line; relative ones are relative to the inherited directory.
    pub path: String,
    /// Bytes in the memfd.
    pub size: u64,
    /// The bytes were read from the running copy, not from the file: this is a respawn.
    #[serde(default)]
    pub respawn: bool,
    /// No other generation serves, so nothing is served while this one waits for DNS.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub alone: bool,
    /// RESOURCES is the next message.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub resources: bool,
}

/// `NEED_LISTENERS`: also carries no listener at all when the configuration has none.
///
/// A generation that is on its way names all of its listeners, once. One that serves names what it
/// needs in addition, or with other options, whenever that changes; see [`super::LIVE_LISTENERS_FEATURE`].
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default)]
pub struct NeedListeners {
    /// The listeners, at most a few hundred in one message.
    pub listeners: Vec<ListenerSpec>,
    /// No more of these messages follow.
    pub last: bool,
    /// Chosen by a generation that serves, not 0, and said again in the answer; 0 = it is on its way.
    #[serde(skip_serializing_if = "is_zero")]
    pub request: u64,
}

/// LISTENERS: the frame carries one descriptor for each entry, in the same order.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default)]
pub struct Listeners {
    /// What the descriptors are.
    pub manifest: Vec<ListenerShard>,
    /// No more of these messages follow for this request.
    pub last: bool,
    /// The request of a generation that serves which is answered with this; 0 = none of those.
    #[serde(skip_serializing_if = "is_zero")]
    pub request: u64,
}

/// One listening socket. Thread i of T polls the shards with `shard % T == i`.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct ListenerShard {
    /// Which listener it belongs to.
    pub key: ListenerKey,
    /// Its number among the listener's sockets, from 0.
    pub shard: u32,
    /// Number of sockets of this listener.
    pub shards: u32,
}

/// WARM: progress for logs and `baton reload`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default)]
pub struct Warm {
    /// What is going on.
    pub text: String,
}

/// READY: the worker waits for TAKE.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default)]
pub struct Ready {
    /// Warnings of the configuration, one rendered diagnostic each.
    pub warnings: Vec<String>,
    /// Something did not get warm in time, for example a name that does not resolve.
    pub degraded: bool,
    /// Clusters that have no address at all, a line about each; with another generation that serves
    /// they are a reason to refuse this one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unresolved: Vec<String>,
}

/// Why a worker cannot serve.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FailReason {
    /// The configuration is invalid.
    Config,
    /// The handoff protocol or the segment does not fit.
    Protocol,
    /// Anything else.
    #[default]
    #[serde(other)]
    Internal,
}

/// FAILED: the worker exits after this.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default)]
pub struct Failed {
    /// Kind of failure.
    pub reason: FailReason,
    /// One line.
    pub text: String,
    /// Rendered diagnostics, complete with source line and caret.
    pub diagnostics: Vec<String>,
}

impl Failed {
    /// Makes the message, cutting what would not fit into a frame.
    pub fn new(
        reason: FailReason,
        text: &str,
        diagnostics: impl IntoIterator<Item = String>,
    ) -> Self {
        Self { reason, text: cut(text), diagnostics: bounded(diagnostics) }
    }
}

impl Ready {
    /// Makes the message, cutting what would not fit into a frame.
    pub fn new(
        warnings: impl IntoIterator<Item = String>,
        unresolved: impl IntoIterator<Item = String>,
    ) -> Self {
        let lines = unresolved.into_iter().take(MAX_UNRESOLVED);
        let unresolved: Vec<_> = lines.map(|line| cut_to(&line, MAX_UNRESOLVED_LEN)).collect();
        let warnings = bounded(warnings);
        Self { warnings, degraded: !unresolved.is_empty(), unresolved }
    }
}

/// As many of the lines as fit into a frame, and how many were left out.
fn bounded(lines: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut kept = Vec::new();
    let mut room = MAX_DIAGNOSTICS_LEN;
    let mut left_out = 0_usize;
    for line in lines {
        let line = cut(&line);
        let length = serde_json::to_string(&line).map_or(usize::MAX, |json| json.len());
        match room.checked_sub(length) {
            Some(rest) if kept.len() < MAX_DIAGNOSTICS && left_out == 0 => {
                room = rest;
                kept.push(line);
            }
            _ => left_out = left_out.saturating_add(1),
        }
    }
    if left_out > 0 {
        kept.push(format!("… and {left_out} more; `baton validate` shows all of them"));
    }
    kept
}

/// `text`, at most [`MAX_TEXT_LEN`] bytes of it, cut between two characters.
fn cut(text: &str) -> String {
    cut_to(text, MAX_TEXT_LEN)
}

pub(super) fn cut_to(text: &str, length: usize) -> String {
    let end = text.floor_char_boundary(length);
    text.get(..end).unwrap_or_default().to_owned()
}

/// TAKE: poll the listeners.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default)]
pub struct Take {}

/// PAUSE: stop polling, except for the removed listeners.
///
/// A removed listener is in no newer configuration. The paused generation goes on accepting on it
/// until DRAIN comes, so that a rollback finds it untouched.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default)]
pub struct Pause {
    /// Listeners no newer generation has.
    pub removed: Vec<ListenerKey>,
}

/// RESUME: poll all listeners again. LISTENERS with new shards may come before it.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default)]
pub struct Resume {}

/// DRAIN: finish the connections; may come again with another strategy or an earlier deadline.
///
/// On the removed listeners, those of PAUSE and of this message, the worker accepts until their
/// queue stays empty, then closes them. All others it closes at once: the supervisor and newer
/// generations hold them. It sends RELEASED with what it closed.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default)]
pub struct Drain {
    /// How connections are told.
    pub strategy: DrainStrategy,
    /// Time within which all are told, from now.
    pub drain_ms: u64,
    /// Time after which the supervisor sends STOP, from now.
    pub deadline_ms: u64,
    /// Listeners to empty before they are closed, in addition to those of PAUSE.
    pub removed: Vec<ListenerKey>,
}

/// STOP: exit.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default)]
pub struct Stop {
    /// Time for connections to end by themselves, from now; 0 = cut them and exit at once.
    pub graceful_ms: u64,
}

/// PEER: carries one descriptor, this worker's end of a channel to another generation. What is
/// said on it is in [`crate::peer`]. It replaces an earlier one in the same role.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default)]
pub struct Peer {
    /// The other generation.
    pub generation: Generation,
    /// Its row in the segment.
    pub slot: u32,
    /// What this worker does with its connections.
    pub role: PeerRole,
}

/// Which end of a channel between two generations a worker has.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PeerRole {
    /// It gives its connections away.
    Export,
    /// It takes the other's connections.
    #[default]
    Import,
}

/// `REOPEN_LOGS`: open log files again.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default)]
pub struct ReopenLogs {}

/// RELEASED: the worker has no descriptor of these listeners any more.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default)]
pub struct Released {
    /// The listeners.
    pub keys: Vec<ListenerKey>,
}

/// DRAINED: the final numbers.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default)]
pub struct Drained {
    /// The last snapshot.
    pub status: Status,
}

/// ACK: the message with this sequence number was carried out.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default)]
pub struct Ack {
    /// Sequence number of the message.
    pub of: u64,
}

/// NACK: the message with this sequence number was not carried out.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default)]
pub struct Nack {
    /// Sequence number of the message.
    pub of: u64,
    /// Why.
    pub text: String,
}
