//! What can happen to the supervisor.

use std::{fmt, time::Duration};

use baton_contract::{
    control::Reload,
    generation::Generation,
    message::{DrainStrategy, FromWorker},
};

/// Time since the supervisor started.
pub type Time = Duration;

/// A client of the control socket that waits for an answer.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Waiter(pub u64);

/// Identifies the bytes of a configuration.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ConfigId(pub u128);

impl fmt::Display for ConfigId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// A message that is answered by ACK or NACK.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct CommandId(pub u64);

/// How a process ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Death {
    /// It exited with this status.
    Exited(i32),
    /// This signal ended it.
    Killed(i32),
}

impl fmt::Display for Death {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(status) => write!(f, "exited with status {status}"),
            Self::Killed(signal) => write!(f, "was ended by signal {signal}"),
        }
    }
}

/// How the supervisor shall stop.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum StopKind {
    /// Connections get `--stop-time-s`.
    Graceful,
    /// Connections get the full drain time.
    Full,
    /// Connections are cut.
    Now,
}

/// Something happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// First event: start the first generation.
    Start,
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
    /// Log files are to be opened again.
    ReopenLogs,
    /// The supervisor shall stop.
    Stop(StopKind),
    /// Time passed.
    Tick,
}
