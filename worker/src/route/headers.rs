//! Header changes of routes, virtual hosts and route configurations.
//!
//! Each level is done whole before the next one: it removes, then computes all its values from
//! what the headers are at that moment, then overwrites, then adds.

use std::ops::Range;

use crate::{
    config::route::{AppendAction, HeaderAdd, HeaderChanges, WeightedCluster},
    http::{
        head::{RequestHead, ResponseHead},
        headers::Headers,
        stream_info::LogContext,
    },
};

/// All header changes that hold for one request.
#[derive(Clone, Copy, Debug)]
pub struct Levels<'a> {
    /// Of the chosen entry of `weighted_clusters`; always the first to be applied.
    pub weighted: Option<&'a HeaderChanges>,
    /// Of the route.
    pub route: &'a HeaderChanges,
    /// Of the virtual host.
    pub virtual_host: &'a HeaderChanges,
    /// Of the route configuration.
    pub configuration: &'a HeaderChanges,
    /// `most_specific_header_mutations_wins`: the route is applied last instead of first.
    pub most_specific_wins: bool,
}

impl<'a> Levels<'a> {
    /// Adds the changes of an entry of `weighted_clusters`.
    #[must_use]
    pub fn with_weighted(mut self, entry: Option<&'a WeightedCluster>) -> Self {
        self.weighted = entry.map(|entry| &entry.headers);
        self
    }

    /// The levels in the order they are applied.
    fn ordered(&self) -> [Option<&'a HeaderChanges>; 4] {
        let (first, last) = if self.most_specific_wins {
            (self.configuration, self.route)
        } else {
            (self.route, self.configuration)
        };
        [self.weighted, Some(first), Some(self.virtual_host), Some(last)]
    }
}

/// Changes the head of a request. Operators see the request as it is when their level begins.
pub fn apply_request(head: &mut RequestHead, levels: &Levels<'_>, cx: &LogContext<'_>) {
    for changes in levels.ordered().into_iter().flatten() {
        change_request(head, changes, cx);
    }
}

/// Changes the head of a request as one level says.
pub fn change_request(head: &mut RequestHead, changes: &HeaderChanges, cx: &LogContext<'_>) {
    if changes.request_add.is_empty() && changes.request_remove.is_empty() {
        return;
    }
    remove(&changes.request_remove, &mut head.headers);
    let cx = LogContext { request: Some(head), ..*cx };
    let values = Values::compute(&changes.request_add, &cx);
    values.store(&changes.request_add, &mut head.headers);
}

/// Changes the head of a response. Operators see the response as it is when their level begins.
pub fn apply_response(head: &mut ResponseHead, levels: &Levels<'_>, cx: &LogContext<'_>) {
    for changes in levels.ordered().into_iter().flatten() {
        change_response(head, changes, cx);
    }
}

/// Changes the head of a response as one level says.
pub fn change_response(head: &mut ResponseHead, changes: &HeaderChanges, cx: &LogContext<'_>) {
    if changes.response_add.is_empty() && changes.response_remove.is_empty() {
        return;
    }
    remove(&changes.response_remove, &mut head.headers);
    let cx = LogContext { response: Some(head), ..*cx };
    let values = Values::compute(&changes.response_add, &cx);
    values.store(&changes.response_add, &mut head.headers);
}

/// The values of a list of changes, one behind the other.
struct Values {
    bytes: Vec<u8>,
    ranges: Vec<Range<usize>>,
}

impl Values {
    fn compute(list: &[HeaderAdd], cx: &LogContext<'_>) -> Self {
        let mut values = Self { bytes: Vec::new(), ranges: Vec::with_capacity(list.len()) };
        for add in list {
            let start = values.bytes.len();
            add.value.write_value(&mut values.bytes, cx);
            values.ranges.push(start..values.bytes.len());
        }
        // What the environment gave could hold a line break; everything else was checked before.
        for byte in values.bytes.iter_mut().filter(|byte| byte.is_ascii_control()) {
            *byte = b' ';
        }
        values
    }

    /// Invariant: `list` is the one the values were computed for.
    fn store(&self, list: &[HeaderAdd], headers: &mut Headers) {
        // "Is it there already" is asked before any change of this level is made.
        let mut additions = Vec::with_capacity(list.len());
        let mut overwrites = Vec::new();
        for (add, range) in list.iter().zip(&self.ranges) {
            let value = self.bytes.get(range.clone()).unwrap_or_default();
            let name = add.name.as_bytes();
            if (value.is_empty() && !add.keep_empty) || is_protected(name) {
                continue;
            }
            let present = || headers.get(name).is_some();
            match add.action {
                AppendAction::AddIfAbsent if present() => {}
                AppendAction::AppendIfExistsOrAdd | AppendAction::AddIfAbsent => {
                    additions.push((name, value));
                }
                AppendAction::OverwriteIfExists if !present() => {}
                AppendAction::OverwriteIfExists | AppendAction::OverwriteIfExistsOrAdd => {
                    overwrites.push((name, value));
                }
            }
        }
        for (name, _) in &overwrites {
            headers.remove(name);
        }
        // A later overwrite of the same name replaces an earlier one.
        for (at, (name, value)) in overwrites.iter().enumerate() {
            if overwrites.iter().skip(at + 1).all(|(later, _)| later != name) {
                headers.append(name, value);
            }
        }
        for (name, value) in additions {
            headers.append(name, value);
        }
    }
}

fn remove(names: &[String], headers: &mut Headers) {
    for name in names.iter().filter(|name| !is_protected(name.as_bytes())) {
        headers.remove(name.as_bytes());
    }
}

/// Names that stand for fields of the head, and the two that say where a message ends: to change
/// them would let a configuration smuggle requests.
fn is_protected(name: &[u8]) -> bool {
    name.starts_with(b":") || matches!(name, b"host" | b"content-length" | b"transfer-encoding")
}
