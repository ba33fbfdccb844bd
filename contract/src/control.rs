//! What the `baton` commands and a running supervisor say to each other.
//!
//! One JSON object a line over a Unix socket, in a directory only its owner may enter. A client
//! sends one request; the supervisor answers with any number of [`Answer::Phase`] lines and one
//! final line. Unknown fields are ignored.

pub mod client;
pub mod path;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{
    exit::Exit,
    generation::{Generation, State},
    message::{DrainStrategy, Kinds},
};

/// Longest line in either direction, bytes.
pub const MAX_LINE_LEN: usize = 256 * 1024;

/// What a command asks for.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum Request {
    /// Start a new generation from the configuration file.
    Reload(Reload),
    /// Replace the program of the supervisor, then start a new generation from it; answered like a
    /// reload that waits.
    Upgrade {
        /// The new program; `None` = the file the supervisor was started from.
        #[serde(default)]
        binary: Option<PathBuf>,
    },
    /// Tell about all generations.
    Status,
    /// End a draining generation sooner: strategy immediate, or the one named.
    Drain {
        /// The generation.
        generation: Generation,
        /// Strategy from now on.
        #[serde(default)]
        strategy: Option<DrainStrategy>,
    },
    /// End the supervisor and all its workers.
    Stop {
        /// Cut connections instead of waiting.
        #[serde(default)]
        now: bool,
    },
    /// Open log files again.
    ReopenLogs,
}

/// Body of [`Request::Reload`].
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub struct Reload {
    /// Stream the phases and answer with the outcome; otherwise answer at once.
    pub wait: bool,
    /// Stop before the switch and report what would happen.
    pub dry_run: bool,
    /// Accept a configuration that was rolled back before.
    pub force: bool,
    /// Number of worker threads from now on; `None` = as before.
    pub concurrency: Option<u32>,
}

/// One line of the supervisor.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// Progress of a reload; more lines follow.
    Phase(Phase),
    /// The end of a reload.
    Reloaded(Box<Outcome>),
    /// Answer to [`Request::Status`].
    Status(Box<Report>),
    /// Done, or accepted when not waiting.
    Done {
        /// One line for people.
        text: String,
    },
    /// Not done.
    Refused {
        /// One line for people.
        text: String,
        /// Exit code of the command.
        code: u8,
    },
}

impl Answer {
    /// No line follows this one.
    pub const fn is_final(&self) -> bool {
        !matches!(self, Self::Phase(_))
    }

    /// The word for an answer that makes no sense where it came.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Phase(_) => "progress of a reload",
            Self::Reloaded(_) => "the end of a reload",
            Self::Status(_) => "a status",
            Self::Done { .. } => "done",
            Self::Refused { .. } => "refused",
        }
    }

    /// How the command that got this final answer ends.
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Phase(_) | Self::Status(_) | Self::Done { .. } => Exit::Ok as u8,
            Self::Reloaded(outcome) => outcome.verdict.exit() as u8,
            Self::Refused { code, .. } => *code,
        }
    }
}

/// Steps of a reload, in order.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Another reload, or too many draining generations, come first.
    Queued,
    /// A new program runs the supervisor.
    Upgraded,
    /// The configuration file was read.
    Read,
    /// The process of the new generation runs.
    Started,
    /// The configuration is good and the listeners are bound.
    Accepted,
    /// The new generation could serve.
    Warmed,
    /// The new generation polls the listeners.
    TookOver,
    /// The older generation stopped polling and finishes its connections.
    OldPaused,
}

impl Step {
    /// The step in words.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Upgraded => "upgraded",
            Self::Read => "read",
            Self::Started => "started",
            Self::Accepted => "accepted",
            Self::Warmed => "warmed",
            Self::TookOver => "took over",
            Self::OldPaused => "old draining",
        }
    }
}

/// Body of [`Answer::Phase`].
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Phase {
    /// Which step was reached.
    pub step: Step,
    /// Time since the request, microseconds.
    pub at_us: u64,
    /// The generation it is about.
    #[serde(default)]
    pub generation: Option<Generation>,
    /// More about it, may be empty.
    #[serde(default)]
    pub text: String,
}

/// How a reload ended.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The new generation serves.
    Serving,
    /// Dry run: the new generation would serve.
    WouldServe,
    /// The configuration is invalid; nothing changed.
    Invalid,
    /// Not started, could not start, or a listener cannot be bound; nothing changed.
    Refused,
    /// The new generation failed after the switch; the older one serves again.
    RolledBack,
    /// The supervisor stops.
    Stopping,
}

impl Verdict {
    /// Exit code of `baton reload`.
    pub const fn exit(self) -> Exit {
        match self {
            Self::Serving | Self::WouldServe => Exit::Ok,
            Self::Invalid => Exit::Config,
            Self::Refused | Self::Stopping => Exit::Refused,
            Self::RolledBack => Exit::RolledBack,
        }
    }
}

/// Body of [`Answer::Reloaded`].
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Outcome {
    /// How it ended.
    pub verdict: Verdict,
    /// The new generation, if one was started.
    #[serde(default)]
    pub generation: Option<Generation>,
    /// The generation that serves now.
    #[serde(default)]
    pub serving: Option<Generation>,
    /// One line for people; the exact reason when it failed.
    #[serde(default)]
    pub text: String,
    /// Rendered diagnostics when the configuration is invalid, warnings otherwise.
    #[serde(default)]
    pub diagnostics: Vec<String>,
    /// What happened to the connections of older generations.
    #[serde(default)]
    pub connections: Moves,
    /// Listeners that came and went, in canonical text.
    #[serde(default)]
    pub listeners: ListenerChanges,
    /// Time from the request to the end, microseconds.
    #[serde(default)]
    pub took_us: u64,
}

/// Connections of the older generations at the end of a reload.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub struct Moves {
    /// They live on in the new generation.
    pub moved: u64,
    /// They stay with the older generation until they end.
    pub draining: u64,
    /// They ended since the switch in the normal way.
    pub drained: u64,
    /// They were cut at a deadline.
    pub cut: u64,
    /// Those of `moved`, by what they are used for.
    pub moved_kinds: Kinds,
    /// Those of `draining`.
    pub draining_kinds: Kinds,
    /// When the rest of `draining` would be cut, milliseconds from now.
    pub cut_in_ms: Option<u64>,
}

/// Listeners by what a reload does to them.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub struct ListenerChanges {
    /// New ones.
    pub added: Vec<String>,
    /// No longer wanted.
    pub removed: Vec<String>,
    /// Number of those that stay.
    pub kept: u64,
}

/// Body of [`Answer::Status`].
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub struct Report {
    /// Process number of the supervisor.
    pub pid: u32,
    /// `--base-id`.
    pub base_id: u32,
    /// Program version of the supervisor.
    pub build_id: String,
    /// Time since the supervisor started, milliseconds.
    pub uptime_ms: u64,
    /// Path of the configuration file.
    pub config_path: String,
    /// Name of the shared-memory segment, empty without one.
    pub segment: String,
    /// All living generations, newest first, then the last ones that ended.
    pub generations: Vec<GenerationReport>,
    /// Listeners the supervisor holds, in canonical text.
    pub listeners: Vec<String>,
    /// The last reload that ended.
    pub last_reload: Option<Outcome>,
    /// Reloads that ended well since the start.
    pub reloads: u64,
    /// Reloads that failed since the start.
    pub failed_reloads: u64,
    /// Workers started again after they died since the start.
    pub respawns: u64,
    /// What became of connections since the proxy started, over all generations and supervisors:
    /// those that moved, drained, and were cut.
    pub past: Moves,
    /// Metrics that found no room in the segment, so that what they count is not seen.
    pub stats_overflow: u64,
    /// The supervisor is ending.
    pub stopping: bool,
}

/// One generation in a [`Report`].
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct GenerationReport {
    /// Its number.
    pub generation: Generation,
    /// Where it is in its life.
    pub state: State,
    /// Its process.
    #[serde(default)]
    pub pid: u32,
    /// Hash of its configuration.
    #[serde(default)]
    pub config_hash: String,
    /// Time since it was started, milliseconds.
    #[serde(default)]
    pub age_ms: u64,
    /// Open downstream connections.
    #[serde(default)]
    pub connections: u64,
    /// Time until it is ended, milliseconds; `None` unless it drains.
    #[serde(default)]
    pub cut_in_ms: Option<u64>,
    /// Time since the last sign of life, milliseconds.
    #[serde(default)]
    pub heartbeat_age_ms: u64,
    /// Open downstream connections by kind.
    #[serde(default)]
    pub open: Kinds,
    /// Connections it gave to another generation, by kind.
    #[serde(default)]
    pub moved: Kinds,
    /// Connections that ended in it while others moved, by why they had not moved.
    #[serde(default)]
    pub stayed: std::collections::BTreeMap<String, u64>,
    /// Worker threads.
    #[serde(default)]
    pub concurrency: u32,
    /// Listeners it gave up while it served, in canonical text.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drained: Vec<String>,
    /// Number of listeners it has now, without those.
    #[serde(default)]
    pub listeners: u64,
    /// Why it failed.
    #[serde(default)]
    pub error: String,
}
