//! What the core wants done. Actions are carried out in order.

use std::path::PathBuf;

use baton_contract::{
    control::{Answer, Outcome, Phase},
    exit::Exit,
    generation::{Generation, State},
    listener_key::{ListenerKey, ListenerSpec},
    message::ToWorker,
};

use serde::{Deserialize, Serialize};

use super::event::{CommandId, ConfigId, ResourcesId, Time, Waiter};

/// What a generation is started from.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(default)]
pub struct Recipe {
    /// The configuration.
    pub config: ConfigId,
    /// Worker threads.
    pub concurrency: u32,
}

/// Whether traffic waits for a new generation.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Urgency {
    /// Another generation serves meanwhile.
    Beside,
    /// It is the first one, or one that was asked for while none serves.
    First,
    /// The one that served died or hangs; the configuration is not from the file as it is now.
    Respawn,
}

/// A signal for a worker process.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kill {
    /// SIGTERM.
    Term,
    /// SIGKILL.
    Kill,
}

/// How important a log line is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Level {
    /// Normal course of events.
    Info,
    /// Something failed and was handled.
    Warn,
    /// Clients may notice.
    Error,
}

/// What the service manager is told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Notice {
    /// Serving; also the end of a reload.
    Ready,
    /// A reload began.
    Reloading,
    /// The supervisor stops.
    Stopping,
}

/// Why the supervisor ends although it was not told to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Fatal {
    /// The configuration file cannot be read.
    ConfigFile(String),
    /// The configuration is invalid.
    Config {
        /// One line.
        text: String,
        /// Rendered diagnostics.
        diagnostics: Vec<String>,
    },
    /// A listener cannot be bound.
    Bind(String),
    /// The first worker did not start.
    FirstGeneration(String),
}

/// Do this.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Read the configuration file; answered by `ConfigRead`.
    ReadConfig,
    /// Start a worker; answered by `Spawned` or `SpawnFailed`.
    Spawn {
        /// Its generation.
        generation: Generation,
        /// What it runs.
        recipe: Recipe,
    },
    /// Send WELCOME, CONFIG and what else a generation begins with.
    Welcome {
        /// To whom.
        generation: Generation,
        /// What it runs.
        recipe: Recipe,
        /// Protocol version agreed on.
        proto: u16,
        /// Layout of the segment the worker knows.
        shm_layout: u32,
        /// Features agreed on.
        features: Vec<String>,
        /// What another one accepted beside its configuration.
        resources: Option<ResourcesId>,
        /// Whether somebody waits for it.
        urgency: Urgency,
    },
    /// Bind what is not held yet, without accepting; answered by `Bound`.
    Bind {
        /// For whom.
        generation: Generation,
        /// What it needs.
        listeners: Vec<ListenerSpec>,
        /// Fewest sockets for each TCP listener.
        shards: u32,
        /// Whether somebody waits for it.
        urgency: Urgency,
    },
    /// Bind what is not held yet, each for itself, and let all of it accept with these options; answered
    /// by `BoundMore`.
    BindMore {
        /// For whom.
        generation: Generation,
        /// What it needs in addition.
        listeners: Vec<ListenerSpec>,
        /// Fewest sockets for each TCP listener.
        shards: u32,
    },
    /// Send the sockets of these listeners the worker does not have yet, in LISTENERS frames.
    SendListeners {
        /// To whom.
        generation: Generation,
        /// Which.
        keys: Vec<ListenerKey>,
        /// The request of a serving generation that is answered; 0 = none.
        request: u64,
    },
    /// Let the bound sockets of a generation accept; answered by `Listening`.
    Listen {
        /// The generation.
        generation: Generation,
        /// What it needs.
        listeners: Vec<ListenerSpec>,
    },
    /// Send a message.
    Send {
        /// To whom.
        generation: Generation,
        /// What.
        message: ToWorker,
        /// Set when an answer is expected.
        command: Option<CommandId>,
    },
    /// Make a channel between two generations; connections move over it.
    Introduce {
        /// The one that gives its connections away.
        from: Generation,
        /// The one that takes them.
        to: Generation,
    },
    /// Send a signal.
    Signal {
        /// To whom.
        generation: Generation,
        /// Which.
        signal: Kill,
    },
    /// Let no new connection into the queues of these listeners; they are about to be emptied.
    Deafen(Vec<ListenerKey>),
    /// Ask a program whether it could take the state over; answered by `Checked`.
    Check {
        /// The program; `None` = the file this one was started from.
        program: Option<PathBuf>,
    },
    /// Execute the program that was checked in place of this one. Nothing comes after it, unless it
    /// fails: `NotExecuted`.
    Execute {
        /// The program; `None` = the file this one was started from.
        program: Option<PathBuf>,
    },
    /// Copy the listening sockets of a process that does not answer, before anything is bound.
    Rescue {
        /// Whose.
        generation: Generation,
    },
    /// Close these listeners; nobody uses them any more.
    Release(Vec<ListenerKey>),
    /// Close all listeners; the supervisor stops.
    ReleaseAll,
    /// A generation changed its state.
    SetState {
        /// The generation.
        generation: Generation,
        /// Its state from now on.
        state: State,
        /// When it is cut.
        cut_at: Option<Time>,
    },
    /// A generation is gone: fold its statistics, forget its channel.
    Retire {
        /// The generation.
        generation: Generation,
    },
    /// Tell waiting clients about progress.
    Progress {
        /// Who waits.
        waiters: Vec<Waiter>,
        /// The progress.
        phase: Phase,
    },
    /// Tell waiting clients the end of a reload.
    Verdict {
        /// Who waits.
        waiters: Vec<Waiter>,
        /// The end.
        outcome: Box<Outcome>,
    },
    /// Answer one client.
    Answer {
        /// Who waits.
        waiter: Waiter,
        /// The answer.
        answer: Answer,
    },
    /// Tell the service manager.
    Notify(Notice),
    /// Write a log line.
    Log(Level, String),
    /// End the loop.
    Finish(Result<Exit, Fatal>),
}
