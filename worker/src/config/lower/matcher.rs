//! Matchers of headers, query parameters and texts.

use super::{
    super::{
        matcher::{HeaderCondition, HeaderMatcher, QueryMatcher, StringMatcher, StringPattern},
        message::{Msg, Value},
    },
    Lower, common,
};

impl Lower<'_> {
    /// The `headers` of a message.
    pub(crate) fn header_matchers(&self, message: &Msg) -> Vec<HeaderMatcher> {
        message.messages("headers").filter_map(|matcher| self.header_matcher(matcher)).collect()
    }

    /// `HeaderMatcher`.
    pub(crate) fn header_matcher(&self, message: &Msg) -> Option<HeaderMatcher> {
        let condition = match common::chosen(message, "header_match_specifier") {
            None => HeaderCondition::Present(true),
            Some((field, set)) => match (field, &set.item.value) {
                ("present_match", Value::Bool(present)) => HeaderCondition::Present(*present),
                ("range_match", Value::Message(range)) => {
                    let (start, end) = (range.int("start"), range.int("end"));
                    HeaderCondition::Range(start.unwrap_or(0), end.unwrap_or(0))
                }
                ("string_match", Value::Message(matcher)) => {
                    HeaderCondition::Text(self.string_matcher(matcher)?)
                }
                ("safe_regex_match", Value::Message(regex)) => {
                    plain(StringPattern::Regex(self.full_regex(regex)?))
                }
                ("exact_match", Value::Text(text)) => plain(StringPattern::Exact(text.clone())),
                ("prefix_match", Value::Text(text)) => plain(StringPattern::Prefix(text.clone())),
                ("suffix_match", Value::Text(text)) => plain(StringPattern::Suffix(text.clone())),
                ("contains_match", Value::Text(text)) => {
                    plain(StringPattern::Contains(text.clone()))
                }
                _ => return None,
            },
        };
        Some(HeaderMatcher {
            name: message.text("name").to_ascii_lowercase(),
            condition,
            invert: message.flag("invert_match").unwrap_or(false),
            missing_as_empty: message.flag("treat_missing_header_as_empty").unwrap_or(false),
        })
    }

    /// `StringMatcher`.
    pub(crate) fn string_matcher(&self, message: &Msg) -> Option<StringMatcher> {
        let ignore_case = message.flag("ignore_case").unwrap_or(false);
        let (field, set) = common::chosen(message, "match_pattern")?;
        let text = match set.item.text() {
            text if ignore_case => text.to_lowercase(),
            text => text.to_owned(),
        };
        let pattern = match field {
            "exact" => StringPattern::Exact(text),
            "prefix" => StringPattern::Prefix(text),
            "suffix" => StringPattern::Suffix(text),
            "contains" => StringPattern::Contains(text),
            "safe_regex" => StringPattern::Regex(self.full_regex(set.item.message()?)?),
            _ => return None,
        };
        Some(StringMatcher { pattern, ignore_case })
    }

    /// The `query_parameters` of a message.
    pub(super) fn query_matchers(&self, message: &Msg) -> Vec<QueryMatcher> {
        let lower = |matcher: &Msg| {
            if matcher.flag("present_match") == Some(false) {
                let at = matcher.at_of("present_match");
                self.report.error(&at, "`present_match: false` is not implemented by baton yet");
            }
            let value = matcher.message("string_match").and_then(|m| self.string_matcher(m));
            QueryMatcher { name: matcher.text("name").to_owned(), value }
        };
        message.messages("query_parameters").map(lower).collect()
    }
}

fn plain(pattern: StringPattern) -> HeaderCondition {
    HeaderCondition::Text(StringMatcher { pattern, ignore_case: false })
}

/// `FractionalPercent` in parts of a million.
pub(crate) fn parts_per_million(message: &Msg) -> u32 {
    let (numerator, denominator) = fraction(message);
    numerator.saturating_mul(1_000_000 / denominator).min(1_000_000)
}

/// Numerator and denominator of a `FractionalPercent`.
pub(crate) fn fraction(message: &Msg) -> (u32, u32) {
    let denominator = match message.choice("denominator") {
        Some("TEN_THOUSAND") => 10_000,
        Some("MILLION") => 1_000_000,
        _ => 100,
    };
    (message.uint32("numerator").unwrap_or(0), denominator)
}
