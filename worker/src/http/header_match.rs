//! Conditions on headers and strings, for routes, access log filters and HTTP filters.

use super::{
    head::{RequestHead, ResponseHead},
    headers::Headers,
};
use crate::config::matcher::{HeaderCondition, HeaderMatcher, StringMatcher, StringPattern};

/// What header conditions are asked of.
pub trait Head {
    /// Whether `holds` is true of one of the lines of that name, which is lower case; `None` when there
    /// is no such line.
    fn any_line(&self, name: &[u8], holds: impl FnMut(&[u8]) -> bool) -> Option<bool>;
}

impl Head for RequestHead {
    fn any_line(&self, name: &[u8], holds: impl FnMut(&[u8]) -> bool) -> Option<bool> {
        if name.starts_with(b":") || name == b"host" {
            return self.get(name).map(holds);
        }
        any_of(&self.headers, name, holds)
    }
}

impl Head for ResponseHead {
    fn any_line(&self, name: &[u8], mut holds: impl FnMut(&[u8]) -> bool) -> Option<bool> {
        if name == b":status" {
            return Some(holds(self.status.to_string().as_bytes()));
        }
        any_of(&self.headers, name, holds)
    }
}

fn any_of(headers: &Headers, name: &[u8], holds: impl FnMut(&[u8]) -> bool) -> Option<bool> {
    headers.contains(name).then(|| headers.get_all(name).any(holds))
}

/// Whether a head satisfies a header condition. Of several lines of one name it is enough that one
/// does; with `invert`, none may.
pub fn matches(matcher: &HeaderMatcher, head: &impl Head) -> bool {
    let name = matcher.name.as_bytes();
    let found = head.any_line(name, |value| condition(&matcher.condition, value));
    let holds = match (&matcher.condition, found) {
        // An absent header that counts as an empty one is there.
        (HeaderCondition::Present(wanted), found) => {
            (found.is_some() || matcher.missing_as_empty) == *wanted
        }
        (HeaderCondition::Range(..) | HeaderCondition::Text(_), Some(holds)) => holds,
        (HeaderCondition::Range(..) | HeaderCondition::Text(_), None)
            if matcher.missing_as_empty =>
        {
            condition(&matcher.condition, b"")
        }
        // Absent: neither the condition nor its opposite can be said to hold.
        (HeaderCondition::Range(..) | HeaderCondition::Text(_), None) => return false,
    };
    holds != matcher.invert
}

fn condition(condition: &HeaderCondition, value: &[u8]) -> bool {
    match condition {
        HeaderCondition::Present(wanted) => *wanted,
        HeaderCondition::Range(start, end) => {
            integer(value).is_some_and(|value| (*start..*end).contains(&value))
        }
        HeaderCondition::Text(text) => string(text, value),
    }
}

/// Whether every condition of a list holds.
pub fn all(matchers: &[HeaderMatcher], head: &impl Head) -> bool {
    matchers.iter().all(|matcher| matches(matcher, head))
}

/// Whether a value satisfies a string condition.
pub fn string(matcher: &StringMatcher, value: &[u8]) -> bool {
    let equal =
        |a: &[u8], b: &[u8]| if matcher.ignore_case { a.eq_ignore_ascii_case(b) } else { a == b };
    match &matcher.pattern {
        StringPattern::Exact(text) => equal(value, text.as_bytes()),
        StringPattern::Prefix(text) => {
            value.get(..text.len()).is_some_and(|start| equal(start, text.as_bytes()))
        }
        StringPattern::Suffix(text) => value
            .len()
            .checked_sub(text.len())
            .and_then(|at| value.get(at..))
            .is_some_and(|end| equal(end, text.as_bytes())),
        StringPattern::Contains(text) if text.is_empty() => true,
        StringPattern::Contains(text) if matcher.ignore_case => {
            value.windows(text.len()).any(|part| equal(part, text.as_bytes()))
        }
        StringPattern::Contains(text) => memchr::memmem::find(value, text.as_bytes()).is_some(),
        StringPattern::Regex(regex) => regex.is_match(value),
    }
}

fn integer(value: &[u8]) -> Option<i64> {
    std::str::from_utf8(value).ok()?.trim().parse().ok()
}
