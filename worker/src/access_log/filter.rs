//! Decides which streams are logged.

use std::sync::LazyLock;

use crate::{
    config::{
        access_log::{Comparison, LogFilter, Op},
        matcher::HeaderMatcher,
    },
    http::{
        head::RequestHead,
        header_match,
        stream_info::{FLAGS, LogContext},
    },
};

/// Parts of a whole in `runtime_filter`.
const MILLION: u32 = 1_000_000;

/// A filter with its response flags looked up.
#[derive(Debug)]
pub(super) enum Filter {
    Status(Comparison),
    Duration(Comparison),
    NotHealthCheck,
    /// There is no tracing, so no request is traced.
    Never,
    Header(Box<HeaderMatcher>),
    /// Any of these bits.
    Flags(u32),
    Fraction(u32),
    And(Vec<Self>),
    Or(Vec<Self>),
}

impl Filter {
    pub(super) fn new(filter: &LogFilter) -> Self {
        match filter {
            LogFilter::Status(comparison) => Self::Status(*comparison),
            LogFilter::Duration(comparison) => Self::Duration(*comparison),
            LogFilter::NotHealthCheck => Self::NotHealthCheck,
            LogFilter::Traceable => Self::Never,
            LogFilter::Header(matcher) => Self::Header(matcher.clone()),
            LogFilter::ResponseFlag(wanted) if wanted.is_empty() => Self::Flags(u32::MAX),
            LogFilter::ResponseFlag(wanted) => {
                let named = |letters: &str| wanted.iter().any(|flag| flag == letters);
                let bits = FLAGS.iter().filter(|(_, letters, _)| named(letters));
                Self::Flags(bits.fold(0, |all, (bit, ..)| all | bit))
            }
            LogFilter::Fraction(share) => Self::Fraction(*share),
            LogFilter::And(filters) => Self::And(filters.iter().map(Self::new).collect()),
            LogFilter::Or(filters) => Self::Or(filters.iter().map(Self::new).collect()),
        }
    }

    pub(super) fn matches(&self, cx: &LogContext<'_>) -> bool {
        static NO_REQUEST: LazyLock<RequestHead> = LazyLock::new(RequestHead::default);
        let info = cx.info;
        match self {
            Self::Status(comparison) => compare(*comparison, u64::from(info.status)),
            Self::Duration(comparison) => {
                let ended = info.ended.unwrap_or(cx.now);
                let duration = ended.saturating_duration_since(info.started).as_millis();
                compare(*comparison, u64::try_from(duration).unwrap_or(u64::MAX))
            }
            Self::NotHealthCheck => !info.health_check,
            Self::Never => false,
            Self::Header(matcher) => {
                header_match::matches(matcher, cx.request.unwrap_or(&NO_REQUEST))
            }
            Self::Flags(wanted) => info.flags.bits() & wanted != 0,
            Self::Fraction(share) => fastrand::u32(0..MILLION) < *share,
            Self::And(filters) => filters.iter().all(|filter| filter.matches(cx)),
            Self::Or(filters) => filters.iter().any(|filter| filter.matches(cx)),
        }
    }
}

fn compare(comparison: Comparison, value: u64) -> bool {
    let wanted = u64::from(comparison.value);
    match comparison.op {
        Op::Eq => value == wanted,
        Op::Ge => value >= wanted,
        Op::Le => value <= wanted,
        Op::Ne => value != wanted,
    }
}
