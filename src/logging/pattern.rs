//! `--log-format`: patterns as spdlog has them, which is what Envoy takes.

use std::fmt::{self, Write as _};

use super::time::Civil;

/// What a line may be made of.
#[derive(Debug)]
pub(super) struct Values<'a> {
    pub(super) time: Civil,
    pub(super) level: &'a str,
    pub(super) component: &'a str,
    pub(super) file: &'a str,
    pub(super) line: u32,
    pub(super) message: &'a str,
}

/// A parsed pattern.
#[derive(Clone, Debug)]
pub(super) struct Pattern(Vec<Part>);

#[derive(Clone, Debug)]
enum Part {
    Text(String),
    Flag { flag: char, align: Align, width: usize, cut: bool },
}

#[derive(Clone, Copy, Debug)]
enum Align {
    Left,
    Center,
    Right,
}

impl Pattern {
    /// Every text is a pattern: what is not known stands for itself.
    pub(super) fn parse(text: &str) -> Self {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find('%') {
            let (before, found) = rest.split_at(at);
            parts.push(Part::Text(before.to_owned()));
            let (part, length) = flag(found);
            parts.push(part);
            rest = found.get(length..).unwrap_or_default();
        }
        parts.push(Part::Text(rest.to_owned()));
        Self(parts)
    }

    /// Writes a line, without its end.
    pub(super) fn write(&self, out: &mut String, values: &Values<'_>) -> fmt::Result {
        for part in &self.0 {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Flag { flag, width: 0, .. } => values.write(out, *flag)?,
                Part::Flag { flag, align, width, cut } => {
                    let mut text = String::new();
                    values.write(&mut text, *flag)?;
                    if *cut {
                        text = text.chars().take(*width).collect();
                    }
                    match align {
                        Align::Left => write!(out, "{text:<width$}")?,
                        Align::Center => write!(out, "{text:^width$}")?,
                        Align::Right => write!(out, "{text:>width$}")?,
                    }
                }
            }
        }
        Ok(())
    }
}

/// The flag at the beginning of a text, which is a `%`, and its length.
fn flag(text: &str) -> (Part, usize) {
    let mut at = 1;
    let align = match text.as_bytes().get(at) {
        Some(b'-') => Align::Left,
        Some(b'=') => Align::Center,
        _ => Align::Right,
    };
    at += usize::from(!matches!(align, Align::Right));
    let rest = text.get(at..).unwrap_or_default();
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    // As in spdlog no field is wider.
    let width = rest.get(..digits).and_then(|text| text.parse().ok()).unwrap_or(0).min(64);
    at += digits;
    let cut = digits > 0 && text.as_bytes().get(at) == Some(&b'!');
    at += usize::from(cut);
    match text.get(at..).and_then(|rest| rest.chars().next()) {
        Some(flag) => (Part::Flag { flag, align, width, cut }, at + flag.len_utf8()),
        None => (Part::Text(text.to_owned()), text.len()),
    }
}

impl Values<'_> {
    fn write(&self, out: &mut String, flag: char) -> fmt::Result {
        let time = &self.time;
        match flag {
            'v' => out.push_str(self.message),
            '_' => out.push_str(&self.message.replace('\n', "\\n")),
            'j' => {
                let text = serde_json::Value::from(self.message).to_string();
                out.push_str(text.trim_start_matches('"').strip_suffix('"').unwrap_or_default());
            }
            'l' => out.push_str(self.level),
            'L' => out.extend(self.level.chars().take(1).map(|c| c.to_ascii_uppercase())),
            'n' => out.push_str(self.component),
            't' => write!(out, "{}", nix::unistd::gettid())?,
            'P' => write!(out, "{}", std::process::id())?,
            'g' => out.push_str(self.file),
            's' => out.push_str(self.file.rsplit('/').next().unwrap_or_default()),
            '#' => write!(out, "{}", self.line)?,
            '@' => write!(out, "{}:{}", self.file, self.line)?,
            // Colours, a context that there never is, and the name of the function, which is not known.
            '^' | '$' | '&' | '!' => {}
            '%' => out.push('%'),
            flag => {
                if !time.write(out, flag)? {
                    out.push('%');
                    out.push(flag);
                }
            }
        }
        Ok(())
    }
}

/// Line ends, quotes and what cannot be printed, as in a string of C.
pub(super) fn escape(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    for c in line.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '"' | '\'' | '\\' => out.extend(['\\', c]),
            ' '..='~' => out.push(c),
            c => {
                let mut bytes = [0; 4];
                for byte in c.encode_utf8(&mut bytes).bytes() {
                    out.extend(['\\', octal(byte >> 6), octal(byte >> 3), octal(byte)]);
                }
            }
        }
    }
    out
}

fn octal(bits: u8) -> char {
    char::from(b'0' + (bits & 7))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn line(pattern: &str) -> String {
        let values = Values {
            time: Civil::at(UNIX_EPOCH + Duration::new(1_795_428_000, 7_008_009)),
            level: "warning",
            component: "main",
            file: "src/a.rs",
            line: 12,
            message: "say \"x\"\nthen",
        };
        let mut out = String::new();
        Pattern::parse(pattern).write(&mut out, &values).unwrap();
        out
    }

    #[test]
    fn patterns_are_those_of_envoy() {
        assert_eq!(
            line("%Y-%m-%dT%T.%fZ\t%l\tenvoy %n %g:%#\t%v"),
            "2026-11-23T10:00:00.007008Z\twarning\tenvoy main src/a.rs:12\tsay \"x\"\nthen"
        );
        assert_eq!(line("[%L][%s] %_ %e %F"), "[W][a.rs] say \"x\"\\nthen 007 007008009");
        assert_eq!(line("{\"m\":\"%j\"}"), r#"{"m":"say \"x\"\nthen"}"#);
        assert_eq!(line("%t"), nix::unistd::gettid().to_string());
        assert_eq!(line("%c, %r"), "Mon Nov 23 10:00:00 2026, 10:00:00 AM");
        assert_eq!(
            line("%E %a %A %b %B %z %p %I:%M %D %R"),
            "1795428000 Mon Monday Nov November +00:00 AM 10:00 11/23/26 10:00"
        );
    }

    #[test]
    fn fields_have_widths_and_unknown_flags_stand_for_themselves() {
        assert_eq!(line("%8l|%-8l|%=9l|%3!l|"), " warning|warning | warning |war|");
        assert_eq!(line("100%% %k %"), "100% %k %");
        assert_eq!(line(""), "");
    }

    #[test]
    fn an_escaped_line_is_one_line() {
        assert_eq!(escape("a\n\t\"é\""), r#"a\n\t\"\303\251\""#);
    }
}
