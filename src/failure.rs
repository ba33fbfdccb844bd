//! Why a command failed: what the user reads, and the exit code.

use std::fmt;

use baton_contract::exit::Exit;

/// A failed command. Shown as `baton: error: …`, causes, then `hint: …`.
#[derive(Debug)]
pub(crate) struct Failure {
    /// How the program ends.
    pub exit: Exit,
    /// What failed, and why, joined by colons; may have several lines.
    pub text: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Failure {
    /// A failure without a cause below it.
    pub(crate) fn new(exit: Exit, text: impl Into<String>) -> Self {
        Self { exit, text: text.into(), hint: None }
    }

    /// A failure with the chain of its causes.
    pub(crate) fn of(exit: Exit, error: &dyn std::error::Error) -> Self {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        Self::new(exit, text)
    }

    /// Adds what to do.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "baton: error: {}", self.text)?;
        // Whatever was tried; some of the texts come from other processes.
        let is_short = self.text.contains("Too many open files");
        let raise =
            is_short.then_some("raise the limit of open files (`ulimit -n`, `LimitNOFILE=`)");
        match raise.or(self.hint.as_deref()) {
            Some(hint) => write!(f, "\nhint: {hint}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lacks_descriptors_ends_with_the_limit_to_raise() {
        let error = std::io::Error::from_raw_os_error(nix::libc::EMFILE);
        let shown = Failure::of(Exit::Internal, &error).hint("look elsewhere").to_string();
        assert!(
            shown.ends_with("hint: raise the limit of open files (`ulimit -n`, `LimitNOFILE=`)")
        );
    }
}
