//! What is implemented of matchers. Leaving a part of one out would match too much: all are strict.

use super::{MessageSupport, harmless, read, strict};

pub(super) const TABLE: &[MessageSupport] = &[
    strict(
        "envoy.config.route.v3.HeaderMatcher",
        &[
            read("name", ""),
            read("exact_match", "deprecated by Envoy: use `string_match`"),
            read("safe_regex_match", "deprecated by Envoy: use `string_match`"),
            read("range_match", ""),
            read("present_match", ""),
            read("prefix_match", "deprecated by Envoy: use `string_match`"),
            read("suffix_match", "deprecated by Envoy: use `string_match`"),
            read("contains_match", "deprecated by Envoy: use `string_match`"),
            read("string_match", ""),
            read("invert_match", ""),
            read("treat_missing_header_as_empty", ""),
        ],
    ),
    strict(
        "envoy.config.route.v3.QueryParameterMatcher",
        &[read("name", ""), read("string_match", ""), read("present_match", "")],
    ),
    strict(
        "envoy.type.matcher.v3.StringMatcher",
        &[
            read("exact", ""),
            read("prefix", ""),
            read("suffix", ""),
            read("safe_regex", ""),
            read("contains", ""),
            read("ignore_case", ""),
        ],
    ),
    strict(
        "envoy.type.matcher.v3.RegexMatcher",
        &[
            harmless("google_re2", "expressions always have RE2's syntax and take linear time"),
            read("regex", "must match the whole text"),
        ],
    ),
    strict(
        "envoy.type.matcher.v3.RegexMatchAndSubstitute",
        &[read("pattern", ""), read("substitution", r"`\1` is the first group")],
    ),
    strict("envoy.type.v3.Int64Range", &[read("start", ""), read("end", "exclusive")]),
    strict(
        "envoy.config.core.v3.RuntimeFractionalPercent",
        &[
            read("default_value", ""),
            harmless("runtime_key", "there are no runtime values: the default is used"),
        ],
    ),
    strict(
        "envoy.type.v3.FractionalPercent",
        &[read("numerator", ""), read("denominator", "default `HUNDRED`")],
    ),
    strict(
        "envoy.config.core.v3.RuntimeUInt32",
        &[
            read("default_value", ""),
            harmless("runtime_key", "there are no runtime values: the default is used"),
        ],
    ),
];
