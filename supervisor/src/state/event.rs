//! What can happen to the supervisor.

use std::{fmt, path::PathBuf, time::Duration};

use baton_contract::{
    control::Reload,
    generation::{Generation, State},
    listener_key::{ListenerKey, ListenerSpec},
    message::{DrainStrategy, FromWorker},
};

use serde::{Deserialize, Serialize};

use super::action::Recipe;

/// Time since the supervisor started.
pub type Time = Duration;

/// A client of the control socket that waits for an answer.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct Waiter(pub u64);

/// Identifies the bytes of a configuration.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize,
)]
#[serde(try_from = "String", into = "String")]
pub struct ConfigId(pub u128);

/// What a generation accepted beside its configuration; each has its own number.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct ResourcesId(pub u64);

impl From<ConfigId> for String {
    fn from(id: ConfigId) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for ConfigId {
    type Error = std::num::ParseIntError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        u128::from_str_radix(&text, 16).map(Self)
    }
}

impl fmt::Display for ConfigId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// A message that is answered by ACK or NACK.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct CommandId(pub u64);

/// How a process ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Death {
    /// It exited with this status.
    Exited(i32),
    /// This signal ended it.
    Killed(i32),
    /// It was no child of ours, so nobody tells how.
    Unseen,
}

impl fmt::Display for Death {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(status) => write!(f, "exited with status {status}"),
            Self::Killed(signal) => write!(f, "was ended by signal {signal}"),
            Self::Unseen => f.write_str("ended"),
        }
    }
}

/// How the supervisor shall stop.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum StopKind {
    /// Connections get `--stop-time-s`.
    Graceful,
    /// The same, and said again it changes nothing: what ends already is not cut.
    Patient,
    /// Connections get the full drain time.
    Full,
    /// Connections are cut.
    Now,
}

/// A worker that lives although its supervisor does not.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Orphan {
    /// Its number.
    pub generation: Generation,
    /// Its process.
    pub pid: u32,
    /// When it was started.
    pub started: Time,
    /// What the dead supervisor wrote down last.
    pub state: Option<State>,
}

/// What an orphan said about itself when it came back.
#[derive(Clone, Debug, PartialEq)]
pub struct Arrival {
    /// Its process.
    pub pid: u32,
    /// When it was started.
    pub started: Time,
    /// What it runs.
    pub recipe: Recipe,
    /// SERVING, `HANDING_OFF` or DRAINING.
    pub state: State,
    /// Listeners it has.
    pub listeners: Vec<ListenerSpec>,
    /// When it ends by itself.
    pub cut_in: Option<Duration>,
    /// It can give connections away and take them.
    pub migrates: bool,
    /// It speaks no version of the protocol this program speaks. What every version has is enough
    /// to drain it.
    pub alien: bool,
}

/// What a dead supervisor left.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Estate {
    /// Workers that live.
    pub orphans: Vec<Orphan>,
    /// There may be others that nobody wrote down.
    pub strangers: bool,
    /// Number of the next generation.
    pub next: u32,
    /// Reloads that ended well and badly, and respawns.
    pub counts: (u64, u64, u64),
}

/// Something happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// First event: start the first generation.
    Start,
    /// First event after a supervisor died: wait for its workers.
    Adopt(Estate),
    /// An orphan came back with its listeners; commands reach it from now on.
    Reattached {
        /// Its number.
        generation: Generation,
        /// What it said.
        arrival: Box<Arrival>,
    },
    /// A reload was asked for, by a signal or by a client.
    Reload {
        /// Who waits for the outcome.
        waiter: Option<Waiter>,
        /// What is asked.
        reload: Reload,
    },
    /// The configuration file was read, or why not.
    ConfigRead(Result<ConfigId, String>),
    /// The process of a generation runs.
    Spawned {
        /// The generation.
        generation: Generation,
        /// Its process.
        pid: u32,
    },
    /// The process of a generation could not be started.
    SpawnFailed {
        /// The generation.
        generation: Generation,
        /// Why.
        text: String,
    },
    /// A worker said something other than ACK and NACK.
    Message {
        /// The generation.
        generation: Generation,
        /// What it said.
        message: FromWorker,
    },
    /// A worker answered a command.
    Answered {
        /// The generation.
        generation: Generation,
        /// The command.
        command: CommandId,
        /// Done, or why not.
        result: Result<(), String>,
    },
    /// The listeners of a generation were bound, or why not.
    Bound {
        /// The generation.
        generation: Generation,
        /// Done, or why not.
        result: Result<(), String>,
    },
    /// A generation said what it accepted beside its configuration, in place of what it said before.
    Resources {
        /// The generation.
        generation: Generation,
        /// What it said.
        resources: ResourcesId,
    },
    /// What a serving generation needs in addition is bound and accepts, except for what failed.
    BoundMore {
        /// The generation.
        generation: Generation,
        /// Which failed, and why.
        failed: Vec<(ListenerKey, String)>,
    },
    /// The new listeners of a generation accept, or why not.
    Listening {
        /// The generation.
        generation: Generation,
        /// Done, or why not.
        result: Result<(), String>,
    },
    /// A generation showed a sign of life.
    Beat {
        /// The generation.
        generation: Generation,
    },
    /// The handoff channel of a generation ended or failed.
    ChannelClosed {
        /// The generation.
        generation: Generation,
    },
    /// The process of a generation ended.
    Exited {
        /// The generation.
        generation: Generation,
        /// How.
        how: Death,
    },
    /// A client asks that a draining generation hurries.
    Drain {
        /// Who waits for the answer.
        waiter: Option<Waiter>,
        /// The generation.
        generation: Generation,
        /// Strategy from now on; `None` = immediate.
        strategy: Option<DrainStrategy>,
    },
    /// The program of the supervisor is to be replaced, by a signal or by a client.
    Upgrade {
        /// Who waits for the outcome.
        waiter: Option<Waiter>,
        /// The new program; `None` = the file this one was started from.
        program: Option<PathBuf>,
    },
    /// The new program can take the state over, or why not.
    Checked(Result<(), String>),
    /// The new program could not be executed; this one goes on.
    NotExecuted(String),
    /// First event of the new program, which has the state of the older one.
    Executed,
    /// Log files are to be opened again.
    ReopenLogs,
    /// The supervisor shall stop.
    Stop(StopKind),
    /// Time passed.
    Tick,
}
