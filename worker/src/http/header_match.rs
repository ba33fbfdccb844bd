//! Conditions on headers and strings, for routes, access log filters and HTTP filters.

use super::head::RequestHead;
use crate::config::route::{HeaderCondition, HeaderMatcher, StringMatcher, StringPattern};

/// Whether a request satisfies a header condition. Of several lines of one name it is enough
/// that one does; with `invert`, none may.
pub fn matches(matcher: &HeaderMatcher, head: &RequestHead) -> bool {
    let name = matcher.name.as_bytes();
    let present = head.get(name).is_some();
    let holds = match &matcher.condition {
        // An absent header that counts as an empty one is there.
        HeaderCondition::Present(wanted) => (present || matcher.missing_as_empty) == *wanted,
        HeaderCondition::Range(..) | HeaderCondition::Text(_) if present => {
            any_line(head, name, |value| condition(&matcher.condition, value))
        }
        HeaderCondition::Range(..) | HeaderCondition::Text(_) if matcher.missing_as_empty => {
            condition(&matcher.condition, b"")
        }
        // Absent: neither the condition nor its opposite can be said to hold.
        HeaderCondition::Range(..) | HeaderCondition::Text(_) => return false,
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
pub fn all(matchers: &[HeaderMatcher], head: &RequestHead) -> bool {
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
        StringPattern::Regex(regex) => {
            std::str::from_utf8(value).is_ok_and(|value| regex.is_match(value))
        }
    }
}

fn any_line(head: &RequestHead, name: &[u8], holds: impl FnMut(&[u8]) -> bool) -> bool {
    if name.starts_with(b":") || name == b"host" {
        return head.get(name).is_some_and(holds);
    }
    head.headers.get_all(name).any(holds)
}

fn integer(value: &[u8]) -> Option<i64> {
    std::str::from_utf8(value).ok()?.trim().parse().ok()
}
