//! Exit codes of every `baton` command.

/// Why a command ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Exit {
    /// All went well.
    Ok = 0,
    /// The configuration is invalid.
    Config = 1,
    /// The command line is wrong.
    Usage = 2,
    /// A reload was refused; the running generation is untouched.
    Refused = 3,
    /// A reload was rolled back after the switch.
    RolledBack = 4,
    /// No supervisor answers.
    NotRunning = 5,
    /// Not allowed.
    Permission = 6,
    /// No answer in time; the state is unknown.
    TimedOut = 7,
    /// An internal error.
    Internal = 70,
}
