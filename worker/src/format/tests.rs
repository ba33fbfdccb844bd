//! Parsing: what is accepted, and what mistakes look like. Values are compared with Envoy's in
//! the tests of `access_log`.

use std::time::{Duration, UNIX_EPOCH};

use super::{parse, time::TimeFormat};

#[test]
fn mistakes_say_what_is_meant_and_where() {
    for (text, offset, message) in [
        (
            "a %RESPONSE_COD%",
            2,
            "unknown operator `%RESPONSE_COD%`; did you mean `%RESPONSE_CODE%`?",
        ),
        ("%NO_SUCH_THING_AT_ALL%", 0, "unknown operator `%NO_SUCH_THING_AT_ALL%`"),
        (
            "100% sure",
            3,
            "`%` begins no operator such as `%PROTOCOL%`; write `%%` for a percent sign",
        ),
        ("%", 0, "`%` begins no operator such as `%PROTOCOL%`; write `%%` for a percent sign"),
        ("%PROTOCOL", 0, "operator `%PROTOCOL` is not closed by `%`"),
        ("%%%REQ(x", 2, "operator `%REQ` is not closed by `)%`"),
        ("%REQ%", 0, "operator `%REQ%` needs an argument: `%REQ(Header-Name)%`"),
        ("%REQ()%", 0, "operator `%REQ%` needs an argument: `%REQ(Header-Name)%`"),
        (
            "%REQ(a?b?c)%",
            0,
            "`a?b?c` is not an argument of `%REQ%`; a header name, or two joined by one `?`, is \
             expected",
        ),
        ("%PROTOCOL(x)%", 0, "operator `%PROTOCOL%` takes no argument"),
        ("%RESPONSE_CODE:3%", 0, "operator `%RESPONSE_CODE%` takes no length"),
        ("%REQ(x):a%", 0, "operator `%REQ` is not closed by `)%`"),
        ("%DYNAMIC_METADATA(a:b)%", 0, "operator `%DYNAMIC_METADATA%` is not implemented"),
        (
            "%START_TIME(%Q)%",
            0,
            "`%Q` is not an argument of `%START_TIME%`; it is a `strftime` pattern with a \
             conversion that is not supported",
        ),
        (
            "%PATH(XX)%",
            0,
            "`XX` is not an argument of `%PATH%`; `WQ` or `NQ`, then `:ORIG`, `:PATH` or \
             `:ORIG_OR_PATH` are expected",
        ),
    ] {
        let error = parse(text).unwrap_err();
        assert_eq!((error.offset, &*error.to_string()), (offset, message), "{text}");
    }
}

#[test]
fn text_without_operators_is_known_as_such() {
    assert_eq!(parse("").unwrap().as_literal(), Some(""));
    assert_eq!(parse("100%% é").unwrap().as_literal(), Some("100% é"));
    assert_eq!(parse("%PROTOCOL%").unwrap().as_literal(), None);
    assert!(parse("%PROTOCOL%").unwrap().as_operator().is_some());
}

#[test]
fn times_are_written_by_every_conversion() {
    // 2026-11-23T13:05:09.012345678Z, a Monday.
    let time = UNIX_EPOCH + Duration::new(1_795_439_109, 12_345_678);
    let leap = UNIX_EPOCH + Duration::from_secs(1_709_164_800);
    for (pattern, time, expected) in [
        ("%Y-%m-%dT%H:%M:%S", time, "2026-11-23T13:05:09"),
        ("%F %T %R %D", time, "2026-11-23 13:05:09 13:05 11/23/26"),
        ("%d/%b/%Y:%H:%M:%S %z", time, "23/Nov/2026:13:05:09 +0000"),
        ("%a %A %B %h %e %j %y %u %w", time, "Mon Monday November Nov 23 327 26 1 1"),
        ("%I %p %Z %%", time, "01 PM UTC %"),
        ("%s.%3f %f %6f %1f", time, "1795439109.012 012345678 012345 0"),
        ("%E3S|%E6S", time, "09.012|09.012345"),
        ("%F %j %a", leap, "2024-02-29 060 Thu"),
        ("%F %j %I%p", leap + Duration::from_secs(86_400), "2024-03-01 061 12AM"),
        ("%F %j", UNIX_EPOCH, "1970-01-01 001"),
        ("%F %j", UNIX_EPOCH + Duration::from_secs(4_107_542_399), "2100-02-28 059"),
        ("%F %j", UNIX_EPOCH + Duration::from_secs(4_107_542_400), "2100-03-01 060"),
    ] {
        let mut out = Vec::new();
        TimeFormat::parse(pattern).unwrap().write(&mut out, time);
        assert_eq!(String::from_utf8(out).unwrap(), expected, "{pattern}");
    }
}
