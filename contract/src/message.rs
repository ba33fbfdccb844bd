//! What supervisor and worker say to each other over the handoff channel.
//!
//! Each message is a JSON object in the body of a [`Frame`]. Receivers ignore unknown fields and
//! give missing ones a default, so a field can be added without a new protocol version. A message
//! of unknown kind is answered with [`Nack`] and otherwise ignored.
//!
//! ```text
//! worker                                   supervisor
//!   HELLO ────────────────────────────────→
//!         ←──────────────── WELCOME, CONFIG + memfd, RESOURCES + memfd, ADDRESSES*
//!   NEED_LISTENERS | FAILED ──────────────→  binds what it does not hold
//!         ←──────────────── LISTENERS + sockets (several frames, `last` on the final one)
//!   WARM* ADDRESSES* READY ───────────────→
//!         ←──────────────── TAKE             ACK once every thread polls
//!                                            only then: PAUSE to the older generation, ACK
//!   STATUS each second ───────────────────→
//!         ←──────────────── PAUSE, RESUME, PEER + channel, DRAIN, STOP, REOPEN_LOGS
//!   ESCROW + descriptors, UNESCROW ───────→  of connections that outlive the worker
//!         ←──────────────── ADOPT + descriptors  of a generation that died
//!   RESOURCES + memfd ────────────────────→  kept for the next generation
//!   NEED_LISTENERS ───────────────────────→  binds what it does not hold, each for itself
//!         ←──────────────── UNBOUND*, LISTENERS + sockets
//!   DRAIN_LISTENERS ──────────────────────→  lets no new connection in
//!         ←──────────────── RELEASE
//!   RELEASED, DRAINED ────────────────────→
//! ```

mod addresses;
mod bodies;
mod escrow;
mod listeners;
mod reattach;
mod resources;
mod status;

pub use addresses::*;
pub use bodies::*;
pub use escrow::{
    Adopt, CrashEscrow, Escrow, EscrowEntry, Hex, MAX_ESCROW_RECORD, MAX_ESCROW_RECORDS, Unescrow,
};
pub use listeners::*;
pub use reattach::*;
pub use resources::*;
pub use status::*;

use crate::{
    frame::{Frame, MAX_BODY_LEN},
    generation::Generation,
    version::ProtoRange,
};

/// Why a message cannot be made into a frame or read from one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// The kind is not known to this build.
    #[error("unknown message kind {kind}")]
    UnknownKind {
        /// The kind in the frame.
        kind: u16,
    },
    /// The body is not the JSON object this kind has.
    #[error("the body of a {name} message is malformed")]
    Body {
        /// Name of the message.
        name: &'static str,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// The body is larger than a frame can carry.
    #[error("a {name} message of {len} bytes is longer than {MAX_BODY_LEN}")]
    TooLong {
        /// Name of the message.
        name: &'static str,
        /// Bytes of the body.
        len: usize,
    },
}

/// Defines one direction of the protocol: the enum, the numbers on the wire, both conversions.
macro_rules! messages {
    ($(#[$doc:meta])* $direction:ident {
        $($(#[$variant_doc:meta])* $variant:ident = $kind:literal $name:literal,)*
    }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq)]
        pub enum $direction {
            $($(#[$variant_doc])* $variant($variant),)*
        }

        impl $direction {
            /// Number of the message on the wire.
            pub const fn kind(&self) -> u16 {
                match self { $(Self::$variant(_) => $kind,)* }
            }

            /// Name of the message in logs and documents.
            pub const fn name(&self) -> &'static str {
                match self { $(Self::$variant(_) => $name,)* }
            }

            /// The frame that carries this message with `nfds` descriptors.
            ///
            /// # Errors
            /// When the message does not fit in a frame.
            pub fn to_frame(
                &self,
                generation: Generation,
                seq: u64,
                nfds: u16,
            ) -> Result<Frame, MessageError> {
                let name = self.name();
                let body = match self { $(Self::$variant(body) => serde_json::to_vec(body),)* }
                    .map_err(|source| MessageError::Body { name, source })?;
                if body.len() > MAX_BODY_LEN {
                    return Err(MessageError::TooLong { name, len: body.len() });
                }
                Ok(Frame {
                    version: ProtoRange::ours().max,
                    kind: self.kind(),
                    flags: 0,
                    nfds,
                    seq,
                    generation: u64::from(generation.0),
                    body,
                })
            }

            /// Reads the message in a frame.
            ///
            /// # Errors
            /// When the kind is unknown or the body malformed.
            pub fn from_frame(frame: &Frame) -> Result<Self, MessageError> {
                match frame.kind {
                    $($kind => serde_json::from_slice(&frame.body)
                        .map(Self::$variant)
                        .map_err(|source| MessageError::Body { name: $name, source }),)*
                    kind => Err(MessageError::UnknownKind { kind }),
                }
            }
        }

        $(impl From<$variant> for $direction {
            fn from(body: $variant) -> Self {
                Self::$variant(body)
            }
        })*
    };
}

messages! {
    /// From a worker to the supervisor.
    FromWorker {
        /// First message of a worker.
        Hello = 1 "HELLO",
        /// The configuration is good; these listeners are needed.
        NeedListeners = 2 "NEED_LISTENERS",
        /// Progress while warming.
        Warm = 3 "WARM",
        /// Could serve at once.
        Ready = 4 "READY",
        /// Cannot serve; the worker exits after this.
        Failed = 5 "FAILED",
        /// Numbers, each second; also a sign of life.
        Status = 6 "STATUS",
        /// These listeners are empty and closed in this worker.
        Released = 7 "RELEASED",
        /// No connection is left; the worker exits after this.
        Drained = 8 "DRAINED",
        /// A message was carried out.
        Ack = 9 "ACK",
        /// A message was not carried out.
        Nack = 10 "NACK",
        /// Copies of descriptors of connections that can outlive the worker.
        Escrow = 11 "ESCROW",
        /// These copies are not needed any more.
        Unescrow = 12 "UNESCROW",
        /// First message of an orphan to a new supervisor.
        Reattach = 13 "REATTACH",
        /// Sockets the orphan has.
        Holding = 14 "HOLDING",
        /// What names resolve to, so that the next generation need not begin without addresses.
        Addresses = 15 "ADDRESSES",
        /// Nobody shall connect to these listeners any more.
        DrainListeners = 16 "DRAIN_LISTENERS",
        /// What it accepted beside its configuration, as one sealed memfd.
        Resources = 17 "RESOURCES",
    }
}

messages! {
    /// From the supervisor to a worker.
    ToWorker {
        /// Answer to HELLO.
        Welcome = 32 "WELCOME",
        /// The configuration file, as one sealed memfd.
        Config = 33 "CONFIG",
        /// Listening sockets, in the order of the manifest.
        Listeners = 34 "LISTENERS",
        /// Poll the listeners; acknowledged once every thread does.
        Take = 35 "TAKE",
        /// Stop polling, keep the listeners; acknowledged.
        Pause = 36 "PAUSE",
        /// Poll again; acknowledged.
        Resume = 37 "RESUME",
        /// Finish the connections, then exit; acknowledged.
        Drain = 38 "DRAIN",
        /// Exit.
        Stop = 39 "STOP",
        /// Open log files again; acknowledged.
        ReopenLogs = 40 "REOPEN_LOGS",
        /// A channel to another generation, for connections that move.
        Peer = 41 "PEER",
        /// Connections of a generation that died, to go on with.
        Adopt = 42 "ADOPT",
        /// Answer to REATTACH: this supervisor commands from now on.
        Reattached = 44 "REATTACHED",
        /// What the generations before knew about names; comes before LISTENERS.
        Addresses = 45 "ADDRESSES",
        /// Empty and close these listeners; acknowledged.
        Release = 46 "RELEASE",
        /// Listeners that a generation that serves asked for and does not get.
        Unbound = 47 "UNBOUND",
        /// What the generation before accepted beside its configuration; comes before LISTENERS.
        Resources = 48 "RESOURCES",
    }
}
