//! Conditions on headers, query parameters and other texts (`envoy.type.matcher.v3`).

use regex::bytes::Regex;

/// Envoy's `HeaderMatcher`.
#[derive(Clone, Debug)]
pub struct HeaderMatcher {
    /// `name`, lower case; `:path`, `:method`, `:authority` and `:scheme` are allowed.
    pub name: String,
    /// Condition on the value.
    pub condition: HeaderCondition,
    /// `invert_match`.
    pub invert: bool,
    /// `treat_missing_header_as_empty`.
    pub missing_as_empty: bool,
}

/// The condition of a [`HeaderMatcher`].
#[derive(Clone, Debug)]
pub enum HeaderCondition {
    /// `present_match: true` (or no specifier at all); `false` = absent.
    Present(bool),
    /// `range_match`: an integer in `start..end`.
    Range(i64, i64),
    /// `string_match` or one of the deprecated direct fields.
    Text(StringMatcher),
}

/// Envoy's `StringMatcher`.
#[derive(Clone, Debug)]
pub struct StringMatcher {
    /// Kind and pattern.
    pub pattern: StringPattern,
    /// `ignore_case`; patterns are lower case then.
    pub ignore_case: bool,
}

/// The pattern of a [`StringMatcher`].
#[derive(Clone, Debug)]
pub enum StringPattern {
    /// `exact`.
    Exact(String),
    /// `prefix`.
    Prefix(String),
    /// `suffix`.
    Suffix(String),
    /// `contains`.
    Contains(String),
    /// `safe_regex`, anchored.
    Regex(Regex),
}

/// Envoy's `QueryParameterMatcher`.
#[derive(Clone, Debug)]
pub struct QueryMatcher {
    /// `name`.
    pub name: String,
    /// `None`: the parameter must be there.
    pub value: Option<StringMatcher>,
}
