//! Mistakes in format strings.

/// A format string cannot be understood.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{mistake}")]
pub struct FormatError {
    /// Where it is, in bytes from the start of the string.
    pub offset: usize,
    /// What is wrong.
    pub mistake: Mistake,
}

/// What is wrong with a format string.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Mistake {
    /// A `%` that begins no operator.
    #[error("`%` begins no operator such as `%PROTOCOL%`; write `%%` for a percent sign")]
    NoOperator,
    /// The closing `%` or `)` is missing.
    #[error("operator `%{name}` is not closed{}", if *.argument { " by `)%`" } else { " by `%`" })]
    NotClosed {
        /// The operator.
        name: String,
        /// Whether it has an argument.
        argument: bool,
    },
    /// No such operator.
    #[error("unknown operator `%{name}%`{}", did_you_mean(*suggestion))]
    Unknown {
        /// What was written.
        name: String,
        /// What was probably meant.
        suggestion: Option<&'static str>,
    },
    /// Envoy has it, we do not yet.
    #[error("operator `%{name}%` is not implemented")]
    NotImplemented {
        /// The operator.
        name: String,
    },
    /// It needs an argument.
    #[error("operator `%{name}%` needs an argument: `%{name}({example})%`")]
    ArgumentMissing {
        /// The operator.
        name: String,
        /// A valid argument.
        example: &'static str,
    },
    /// It takes no argument.
    #[error("operator `%{name}%` takes no argument")]
    ArgumentUnexpected {
        /// The operator.
        name: String,
    },
    /// The argument is wrong.
    #[error("`{argument}` is not an argument of `%{name}%`; {expected}")]
    ArgumentInvalid {
        /// The operator.
        name: String,
        /// The argument.
        argument: String,
        /// What is allowed.
        expected: &'static str,
    },
    /// It takes no length.
    #[error("operator `%{name}%` takes no length")]
    LengthUnexpected {
        /// The operator.
        name: String,
    },
}

fn did_you_mean(suggestion: Option<&str>) -> String {
    suggestion.map_or_else(String::new, |name| format!("; did you mean `%{name}%`?"))
}
