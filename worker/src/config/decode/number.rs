//! Numbers in text, as Envoy reads them: YAML 1.1's octal and hexadecimal without quotes, protobuf's
//! JSON form, in which a leading zero means nothing, in quotes.

/// A whole number. `plain` says that it stands there without quotes.
pub(super) fn integer(text: &str, plain: bool) -> Option<i128> {
    let number = if plain { based(text) } else { hexadecimal(text) };
    number.or_else(|| text.parse().ok()).or_else(|| whole(text))
}

/// A number that may have a fraction. Infinity is none.
pub(super) fn float(text: &str, plain: bool) -> Option<f64> {
    let number = if plain { based(text) } else { hexadecimal(text) };
    #[expect(
        clippy::cast_precision_loss,
        reason = "so does every reader of floating-point numbers"
    )]
    let number = number.map(|number| number as f64);
    number.or_else(|| text.parse().ok()).filter(|number: &f64| number.is_finite())
}

/// `0440` and `0x1ff`, with a sign or without. `None` for decimal numbers and for what has digits that
/// octal has not, which Envoy takes for decimal.
pub(super) fn based(text: &str) -> Option<i128> {
    let (sign, digits) = split_sign(text);
    let octal = digits.strip_prefix('0').filter(|rest| !rest.is_empty());
    let octal = octal.filter(|rest| rest.bytes().all(|b| (b'0'..=b'7').contains(&b)));
    let number = octal.and_then(|rest| i64::from_str_radix(rest, 8).ok());
    number.map(|number| sign * i128::from(number)).or_else(|| hexadecimal(text))
}

fn hexadecimal(text: &str) -> Option<i128> {
    let (sign, digits) = split_sign(text);
    let rest = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X"))?;
    let digits = rest.bytes().all(|b| b.is_ascii_hexdigit()).then_some(rest)?;
    u64::from_str_radix(digits, 16).ok().map(|number| sign * i128::from(number))
}

fn split_sign(text: &str) -> (i128, &str) {
    match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    }
}

/// `1.0` and `1e3` are whole numbers, too.
fn whole(text: &str) -> Option<i128> {
    // Above this, an `f64` no longer holds every whole number.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let number = text.parse::<f64>().ok()?;
    let exact = number.fract() == 0.0 && number.abs() <= EXACT;
    exact.then(|| format!("{number:.0}").parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The results are those of Envoy 1.40.
    #[test]
    fn whole_numbers_are_read_as_envoy_reads_them() {
        let check = |text, plain: Option<i128>, quoted: Option<i128>| {
            assert_eq!(integer(text, true), plain, "{text}");
            assert_eq!(integer(text, false), quoted, "\"{text}\"");
        };
        check("0440", Some(0o440), Some(440));
        check("0000511", Some(0o511), Some(511));
        check("010", Some(8), Some(10));
        check("-010", Some(-8), Some(-10));
        check("+010", Some(8), Some(10));
        check("0778", Some(778), Some(778));
        check("0999", Some(999), Some(999));
        check("0", Some(0), Some(0));
        check("00", Some(0), Some(0));
        check("-0", Some(0), Some(0));
        check("+7", Some(7), Some(7));
        check("0x1F", Some(31), Some(31));
        check("0X1f", Some(31), Some(31));
        check("-0x10", Some(-16), Some(-16));
        check("1.0", Some(1), Some(1));
        check("07.0", Some(7), Some(7));
        check("1e3", Some(1000), Some(1000));
        check(".5e1", Some(5), Some(5));
        for text in
            ["0o17", "0b11", "1_000", "1:30", "0x", "1.5", "true", "", "-", "0x-1", "--1", "nan"]
        {
            check(text, None, None);
        }
    }

    #[test]
    fn numbers_with_a_fraction_are_read_as_envoy_reads_them() {
        let check = |text, plain: Option<f64>, quoted: Option<f64>| {
            assert_eq!(float(text, true), plain, "{text}");
            assert_eq!(float(text, false), quoted, "\"{text}\"");
        };
        check("0144", Some(100.0), Some(144.0));
        check("0x64", Some(100.0), Some(100.0));
        check("0.5", Some(0.5), Some(0.5));
        check("1e2", Some(100.0), Some(100.0));
        check("nan", None, None);
        check("inf", None, None);
        check(".inf", None, None);
    }
}
