//! What the values of Envoy's flags may be. A value that Envoy refuses, or that its manual calls wrong,
//! ends the program with exit code 2 before anything was done.

/// `--concurrency`, threads. Envoy takes 0 for 1.
pub(super) fn threads(text: &str) -> Result<u32, String> {
    /// More than any machine has use for; each has its own statistics.
    const MAX: u32 = 1024;
    let hint = || format!("a number from 0 to {MAX}, where 0 is 1");
    let threads: u32 = text.parse().map_err(|_| hint())?;
    if threads > MAX { Err(hint()) } else { Ok(threads.max(1)) }
}

/// A time, as Envoy limits it.
pub(super) fn seconds(text: &str) -> Result<u64, String> {
    let seconds: Result<u32, _> = text.parse();
    seconds.map(u64::from).map_err(|_| format!("a number of seconds from 0 to {}", u32::MAX))
}

/// `--stats-tag`: only letters and digits in the name, no dot in the value.
pub(super) fn stats_tag(text: &str) -> Result<String, String> {
    let hint = "write NAME:VALUE, as in `zone:west`";
    let Some((name, value)) = text.split_once(':') else { return Err(hint.to_owned()) };
    if name.is_empty() || !name.chars().all(|letter| letter.is_ascii_alphanumeric()) {
        return Err(format!("the name of a tag has only letters and digits; {hint}"));
    }
    if value.is_empty() || value.contains('.') {
        return Err(format!("the value of a tag is not empty and has no dot; {hint}"));
    }
    Ok(text.to_owned())
}

/// `--socket-mode`: octal, as for `chmod`.
pub(super) fn file_mode(text: &str) -> Result<u32, String> {
    /// All bits that a file has.
    const MAX: u32 = 0o7777;
    let digits = !text.is_empty() && text.bytes().all(|digit| (b'0'..=b'7').contains(&digit));
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| digits && *mode <= MAX);
    mode.ok_or_else(|| "write the permissions in octal digits, as in `600`".to_owned())
}

/// `--local-address-ip-version`.
pub(super) fn ip_version(text: &str) -> Result<String, String> {
    match text {
        "v4" | "v6" => Ok(text.to_owned()),
        _ => Err("write `v4` or `v6`".to_owned()),
    }
}

/// The path of a socket.
pub(super) fn path(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("name a file".to_owned()) } else { Ok(text.to_owned()) }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use crate::cli::Cli;

    /// Flag, values that are taken, values that are refused.
    type Row = (&'static str, &'static [&'static str], &'static [&'static str]);

    const NUMBERS: (&[&str], &[&str]) = (
        &["0", "5", "010", "+5", "4294967295"],
        &["junk", "-1", "1.5", "10s", "0x10", "4294967296", "5 ", ""],
    );

    const WORDS: [Row; 8] = [
        (
            "--stats-tag",
            &["foo:bar", "foo:b:c", "foo:b c", "f1:bär"],
            &["foo", "foo:", ":bar", "foo:b.c", "a_b:c", "a-b:c", ""],
        ),
        ("--local-address-ip-version", &["v4", "v6"], &["v7", "V4", "4", ""]),
        (
            "--socket-mode",
            &["600", "0600", "777", "7777", "0"],
            &["999", "rw", "", "-600", "+600", "0o600", "600x", "10000"],
        ),
        ("--socket-path", &["@x", "/run/x", "x"], &[""]),
        ("--drain-strategy", &["gradual", "immediate", "migrate"], &["junk", "Gradual", ""]),
        ("--mode", &["serve", "validate", "init_only"], &["junk", "Validate", ""]),
        ("--concurrency", &["0", "1", "1024"], &["1025", "-1", "junk", "4294967296", ""]),
        ("--disable-extensions", &["a/b", "a,b", ""], &[]),
    ];

    #[test]
    fn a_flag_takes_what_it_can_mean_and_refuses_anything_else() {
        let numbers = [
            "--base-id",
            "--restart-epoch",
            "--drain-time-s",
            "--parent-shutdown-time-s",
            "--file-flush-interval-msec",
            "--file-flush-min-size-kb",
            "--warm-timeout-s",
            "--probation-s",
            "--stop-time-s",
        ];
        let numbers = numbers.map(|flag| (flag, NUMBERS.0, NUMBERS.1));
        for (flag, good, bad) in WORDS.into_iter().chain(numbers) {
            let parse =
                |value: &str| Cli::try_parse_from(["baton", "-c", "x", &format!("{flag}={value}")]);
            for value in good {
                assert!(parse(value).is_ok(), "{flag} {value}: {}", parse(value).unwrap_err());
            }
            for value in bad {
                let error = parse(value).expect_err(&format!("{flag} `{value}`"));
                assert_eq!(error.exit_code(), 2, "{flag} `{value}`");
                assert!(error.to_string().contains(flag), "{error}");
            }
        }
        for switch in ["--cpuset-threads=true", "--cpuset-threads 3", "--enable-core-dump=1"] {
            let line = format!("baton -c x {switch}");
            assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{switch}");
        }
    }

    #[test]
    fn levels_of_components_are_refused_beside_fine_grain_logging() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' '));
        let error = parse("baton -c x --enable-fine-grain-logging --component-log-level http:info");
        assert_eq!(error.unwrap_err().exit_code(), 2);
        assert!(parse("baton -c x --enable-fine-grain-logging -l info").is_ok());
    }
}
