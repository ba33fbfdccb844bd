//! Conditions on headers and strings, for routes, access log filters and HTTP filters.

use std::borrow::Cow;

use super::head::RequestHead;
use crate::config::route::{HeaderCondition, HeaderMatcher, StringMatcher, StringPattern};

/// Whether a request satisfies a header condition. Several lines of one name count as one value,
/// joined by commas.
pub fn matches(matcher: &HeaderMatcher, head: &RequestHead) -> bool {
    let value = joined(head, matcher.name.as_bytes());
    let present = value.is_some();
    let holds = match (&matcher.condition, value) {
        (HeaderCondition::Present(wanted), _) if !matcher.missing_as_empty => present == *wanted,
        // An absent header counts as an empty one here, so it is there.
        (HeaderCondition::Present(wanted), _) => *wanted,
        (HeaderCondition::Range(..) | HeaderCondition::Text(_), None)
            if !matcher.missing_as_empty =>
        {
            // Absent: neither the condition nor its opposite can be said to hold.
            return false;
        }
        (HeaderCondition::Range(start, end), value) => {
            integer(&value.unwrap_or_default()).is_some_and(|value| (*start..*end).contains(&value))
        }
        (HeaderCondition::Text(text), value) => string(text, &value.unwrap_or_default()),
    };
    holds != matcher.invert
}

/// Whether every condition of a list holds.
pub fn all(matchers: &[HeaderMatcher], head: &RequestHead) -> bool {
    matchers.iter().all(|matcher| matches(matcher, head))
}

/// Whether a value satisfies a string condition.
pub fn string(matcher: &StringMatcher, value: &[u8]) -> bool {
    let equal = |a: &[u8], b: &[u8]| match matcher.ignore_case {
        true => a.eq_ignore_ascii_case(b),
        false => a == b,
    };
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

/// The value of a header, its lines joined by commas.
fn joined<'a>(head: &'a RequestHead, name: &'a [u8]) -> Option<Cow<'a, [u8]>> {
    if name.starts_with(b":") || name == b"host" {
        return head.get(name).map(Cow::Borrowed);
    }
    let mut lines = head.headers.get_all(name);
    let first = lines.next()?;
    let Some(second) = lines.next() else { return Some(Cow::Borrowed(first)) };
    let mut all = [first, b",", second].concat();
    for line in lines {
        all.push(b',');
        all.extend_from_slice(line);
    }
    Some(Cow::Owned(all))
}

fn integer(value: &[u8]) -> Option<i64> {
    std::str::from_utf8(value).ok()?.trim().parse().ok()
}
