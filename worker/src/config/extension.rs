//! What the loader knows of an extension: its names, its fields, and how it becomes a configuration.
//!
//! The list of them comes from above, with the options of a load: what an extension does with a
//! request lies in higher layers than how a file is read.

use super::{
    lower::Lower,
    message::Msg,
    settings::SharedSettings,
    support::{self, MessageSupport},
};

/// Makes the configuration of a decoded message; `None` when it is wrong, which was reported.
pub(crate) type Make = fn(&Lower<'_>, &Msg) -> Option<SharedSettings>;

/// A kind of HTTP filter, for the loader.
#[derive(Debug)]
pub struct HttpExtension {
    /// Names it may be configured under without a type; the first one is that of today.
    pub(crate) names: &'static [&'static str],
    /// The message that configures it, by full name.
    pub(crate) message: &'static str,
    /// It needs no configuration.
    pub(crate) may_be_empty: bool,
    /// It must be the last one.
    pub(crate) is_terminal: bool,
    /// What is implemented of its messages.
    pub(crate) tables: &'static [MessageSupport],
    /// Fields that may be left out, by message.
    pub(crate) skippable: &'static [(&'static str, &'static [&'static str])],
    /// Makes its configuration.
    pub(crate) lower: Make,
    /// Its message in `typed_per_filter_config`, and how that becomes a configuration.
    pub(crate) per_route: Option<(&'static str, Make)>,
}

impl HttpExtension {
    /// The message that configures it, by full name.
    pub fn message(&self) -> &'static str {
        self.message
    }
}

/// All extensions that a file may name.
#[derive(Clone, Copy, Debug, Default)]
pub struct Extensions {
    /// HTTP filters.
    pub http: &'static [&'static HttpExtension],
}

impl Extensions {
    /// The HTTP filter that this message configures.
    pub(crate) fn http_filter(self, message: &str) -> Option<&'static HttpExtension> {
        self.http.iter().copied().find(|known| known.message == message)
    }

    /// The HTTP filter of this name, today's or an older one.
    pub(crate) fn named(self, name: &str) -> Option<&'static HttpExtension> {
        self.http.iter().copied().find(|known| known.names.contains(&name))
    }

    /// What is implemented of a message.
    pub(crate) fn support(self, message: &str) -> Option<&'static MessageSupport> {
        let of_filters = || {
            let tables = self.http.iter().flat_map(|known| known.tables);
            tables.into_iter().find(|table| table.name == message)
        };
        support::find(message).or_else(of_filters)
    }

    /// True when a field may be left out.
    pub(crate) fn may_skip(self, message: &str, field: &str) -> bool {
        let of_filters = self.http.iter().flat_map(|known| known.skippable);
        support::may_skip(message, field)
            || of_filters
                .into_iter()
                .any(|(name, fields)| *name == message && fields.contains(&field))
    }
}
