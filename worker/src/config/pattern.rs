//! Regular expressions: RE2's syntax on bytes, as Envoy compiles it, in the words of the `regex` crate.
//!
//! Envoy matches bytes and not characters: `.` is any byte but the end of a line, `\d` is ten digits,
//! `é` in an expression is two bytes. The crate has more syntax than RE2 (operators in classes,
//! `\<`, `(?x)`), which here means what it means to RE2, or is refused.

use std::fmt::Write as _;

use regex::bytes::{Regex, RegexBuilder};

/// Most memory of one compiled expression, bytes. RE2 has a limit of this kind, too.
const SIZE_MAX: usize = 10 * 1024 * 1024;

/// The classes that may stand in `[[:…:]]`.
const CLASSES: &[&str] = &[
    "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct",
    "space", "upper", "word", "xdigit",
];

/// Why an expression is refused, in a few words.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct PatternError(String);

/// How much of a text an expression must match.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Extent {
    /// All of it.
    Whole,
    /// A part of it.
    Part,
}

/// Compiles an expression.
///
/// # Errors
/// When it is not one RE2 would take, or when it is too large.
pub(crate) fn compile(pattern: &str, extent: Extent) -> Result<Regex, PatternError> {
    let mut translated = translate(pattern)?;
    if extent == Extent::Whole {
        translated = format!(r"\A(?:{translated})\z");
    }
    let built = RegexBuilder::new(&translated).unicode(false).size_limit(SIZE_MAX).build();
    built.map_err(|error| {
        if let regex::Error::CompiledTooBig(limit) = error {
            return PatternError(format!("it would take more than {limit} bytes of memory"));
        }
        let text = error.to_string();
        let cause = text.lines().last().unwrap_or("");
        PatternError(cause.trim_start_matches("error: ").to_owned())
    })
}

/// Compiles what is searched for in names, like the filter of an admin page.
///
/// # Errors
/// As [`compile`].
pub(crate) fn search(pattern: &str) -> Result<Regex, PatternError> {
    compile(pattern, Extent::Part)
}

/// RE2's syntax in that of the crate, without Unicode.
fn translate(pattern: &str) -> Result<String, PatternError> {
    let mut translator = Translator { rest: pattern, out: String::new(), depth: 0 };
    while translator.step()? {}
    if translator.depth > 0 {
        return Err(refused("a `(` has no `)`"));
    }
    Ok(translator.out)
}

fn refused(text: impl Into<String>) -> PatternError {
    PatternError(text.into())
}

/// What an element of a class or an escape stands for.
enum Element {
    /// One byte.
    Byte(u8),
    /// Several, as a class in the crate's syntax.
    Class(String),
}

struct Translator<'a> {
    rest: &'a str,
    out: String,
    /// Open groups.
    depth: usize,
}

impl Translator<'_> {
    fn take(&mut self, prefix: &str) -> bool {
        let Some(rest) = self.rest.strip_prefix(prefix) else { return false };
        self.rest = rest;
        true
    }

    fn next(&mut self) -> Option<char> {
        let c = self.rest.chars().next()?;
        self.rest = self.rest.get(c.len_utf8()..).unwrap_or_default();
        Some(c)
    }

    /// Translates one element; false at the end.
    fn step(&mut self) -> Result<bool, PatternError> {
        let start = self.rest;
        let Some(c) = self.next() else { return Ok(false) };
        match c {
            '\\' => self.escape_outside()?,
            '[' => self.class()?,
            '(' => {
                self.depth += 1;
                self.out.push('(');
                self.group()?;
            }
            ')' => {
                self.depth =
                    self.depth.checked_sub(1).ok_or_else(|| refused("a `)` has no `(`"))?;
                self.out.push(')');
            }
            '{' => match repetition(start) {
                Some(text) => {
                    self.out.push_str(text);
                    self.rest = start.get(text.len()..).unwrap_or_default();
                }
                None => self.literal('{'),
            },
            '.' | '*' | '+' | '?' | '|' | '^' | '$' => self.out.push(c),
            _ => self.literal(c),
        }
        Ok(true)
    }

    fn literal(&mut self, c: char) {
        if c.is_ascii_alphanumeric() {
            self.out.push(c);
        } else {
            self.bytes(c.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }

    fn bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            push_byte(&mut self.out, *byte);
        }
    }

    /// What follows a `(`: a name, flags, or nothing special.
    fn group(&mut self) -> Result<(), PatternError> {
        const FLAGS: &str = "imsU-";
        if !self.rest.starts_with('?') {
            return Ok(());
        }
        for look in ["?=", "?!", "?<=", "?<!"] {
            if self.rest.starts_with(look) {
                let text = "look-around, including look-ahead and look-behind, is not supported";
                return Err(refused(text));
            }
        }
        let named = self.rest.starts_with("?P<") || self.rest.starts_with("?<");
        let end = if named { self.rest.find('>') } else { self.rest.find([':', ')']) };
        let head = end.and_then(|end| self.rest.get(..=end));
        let head = head.ok_or_else(|| refused("a `(?` is not complete"))?;
        let last = head.chars().next_back().unwrap_or(' ');
        if !named {
            let flags = head.trim_matches(['?', ':', ')']);
            if let Some(flag) = flags.chars().find(|c| !FLAGS.contains(*c)) {
                return Err(refused(format!("`(?{flag}` is not supported")));
            }
        }
        self.out.push_str(head);
        self.rest = self.rest.get(head.len()..).unwrap_or_default();
        if last == ')' {
            self.depth -= 1;
        }
        Ok(())
    }

    /// What follows a `\` outside a class.
    fn escape_outside(&mut self) -> Result<(), PatternError> {
        match self.rest.chars().next() {
            Some(c @ ('b' | 'B' | 'A' | 'z')) => {
                self.next();
                self.out.extend(["\\", c.encode_utf8(&mut [0; 4])]);
                // `\b{start}` means something to the crate only.
                if self.rest.starts_with('{') && repetition(self.rest).is_none() {
                    self.next();
                    self.literal('{');
                }
            }
            Some('C') => {
                self.next();
                self.out.push_str(r"[\x00-\xff]");
            }
            Some('Q') => {
                self.next();
                let (quoted, rest) = self.rest.split_once(r"\E").unwrap_or((self.rest, ""));
                self.rest = rest;
                for c in quoted.chars() {
                    self.literal(c);
                }
            }
            _ => match self.escape()? {
                Element::Byte(byte) => push_byte(&mut self.out, byte),
                Element::Class(text) => self.out.push_str(&text),
            },
        }
        Ok(())
    }

    /// What follows a `\` anywhere.
    fn escape(&mut self) -> Result<Element, PatternError> {
        let c = self.next().ok_or_else(|| refused("a `\\` stands at the end"))?;
        Ok(match c {
            'd' | 'D' | 'w' | 'W' => Element::Class(format!("\\{c}")),
            // RE2 leaves out the vertical tab, which is in the crate's.
            's' => Element::Class(r"[\t\n\f\r ]".to_owned()),
            'S' => Element::Class(r"[^\t\n\f\r ]".to_owned()),
            'p' | 'P' => self.property(c)?,
            'x' => self.hexadecimal()?,
            '0'..='7' => self.octal(c)?,
            'a' => Element::Byte(7),
            'f' => Element::Byte(12),
            'n' => Element::Byte(b'\n'),
            'r' => Element::Byte(b'\r'),
            't' => Element::Byte(b'\t'),
            'v' => Element::Byte(11),
            _ => match u8::try_from(c) {
                Ok(byte) if byte.is_ascii_punctuation() || byte == b' ' => Element::Byte(byte),
                _ if c.is_ascii_digit() => return Err(no_backreference()),
                _ => return Err(refused(format!("`\\{c}` is not an escape"))),
            },
        })
    }

    /// `\x7f` and `\x{7f}`.
    fn hexadecimal(&mut self) -> Result<Element, PatternError> {
        let wrong = || refused("`\\x` needs two digits, or up to `\\x{ff}` in braces");
        let rest = self.rest;
        let (digits, length) = match rest.strip_prefix('{') {
            Some(inside) => {
                let end = inside.find('}').ok_or_else(wrong)?;
                (inside.get(..end).unwrap_or_default(), end + 2)
            }
            None => (rest.get(..2).ok_or_else(wrong)?, 2),
        };
        let all_digits = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit());
        let byte = all_digits.then(|| u8::from_str_radix(digits, 16).ok()).flatten();
        self.rest = rest.get(length..).unwrap_or_default();
        byte.map(Element::Byte).ok_or_else(wrong)
    }

    /// `\0`, `\012`; a single digit from 1 would be a reference to a group.
    fn octal(&mut self, first: char) -> Result<Element, PatternError> {
        let more = self.rest.bytes().take(2).take_while(|b| (b'0'..=b'7').contains(b)).count();
        if first != '0' && more == 0 {
            return Err(no_backreference());
        }
        let (digits, rest) = self.rest.split_at_checked(more).unwrap_or((self.rest, ""));
        let number = u8::from_str_radix(&format!("{first}{digits}"), 8);
        self.rest = rest;
        number.map(Element::Byte).map_err(|_| refused("an octal number is above `\\377`"))
    }

    /// `\pL` and `\p{Greek}`, of the 256 characters that a byte can be in Latin-1.
    fn property(&mut self, letter: char) -> Result<Element, PatternError> {
        let wrong = || refused(format!("`\\{letter}` needs the name of a class of characters"));
        let rest = self.rest;
        let length = match rest.strip_prefix('{') {
            Some(inside) => inside.find('}').ok_or_else(wrong)? + 2,
            None => rest.chars().next().ok_or_else(wrong)?.len_utf8(),
        };
        let name = rest.get(..length).unwrap_or_default();
        self.rest = rest.get(length..).unwrap_or_default();
        let members = regex::Regex::new(&format!("\\{letter}{name}")).map_err(|_| wrong())?;
        let mut class = "[".to_owned();
        for byte in 0..=u8::MAX {
            if members.is_match(char::from(byte).encode_utf8(&mut [0; 4])) {
                push_byte(&mut class, byte);
            }
        }
        if class.len() == 1 {
            class.push_str(r"^\x00-\xff");
        }
        class.push(']');
        Ok(Element::Class(class))
    }

    /// What follows a `[`.
    fn class(&mut self) -> Result<(), PatternError> {
        self.out.push('[');
        if self.take("^") {
            self.out.push('^');
        }
        let mut first = true;
        loop {
            if !first && self.take("]") {
                self.out.push(']');
                return Ok(());
            }
            first = false;
            let Some(bytes) = self.elements()? else { continue };
            let (last, before) = bytes.split_last().ok_or_else(|| refused("empty class"))?;
            self.bytes(before);
            let is_range = self.rest.starts_with('-') && !self.rest.starts_with("-]");
            if !is_range {
                push_byte(&mut self.out, *last);
                continue;
            }
            self.next();
            let Some(high) = self.elements()? else {
                return Err(refused("the end of a range in `[…]` is not one character"));
            };
            let (end, more) = high.split_first().ok_or_else(|| refused("empty class"))?;
            if end < last {
                return Err(refused("a range in `[…]` ends before it begins"));
            }
            push_byte(&mut self.out, *last);
            self.out.push('-');
            push_byte(&mut self.out, *end);
            self.bytes(more);
        }
    }

    /// The bytes of one character in a class; `None` for a class in it, which was written.
    fn elements(&mut self) -> Result<Option<Vec<u8>>, PatternError> {
        if self.rest.starts_with("[:")
            && let Some(end) = self.rest.find(":]")
        {
            let (name, rest) = self.rest.split_at_checked(end + 2).unwrap_or((self.rest, ""));
            let word = name.trim_matches(['[', ':', ']', '^']);
            if !CLASSES.contains(&word) {
                return Err(refused(format!("`{name}` is not a class of characters")));
            }
            self.out.push_str(name);
            self.rest = rest;
            return Ok(None);
        }
        let c = self.next().ok_or_else(|| refused("a `[` has no `]`"))?;
        if c != '\\' {
            return Ok(Some(c.encode_utf8(&mut [0; 4]).bytes().collect()));
        }
        Ok(match self.escape()? {
            Element::Byte(byte) => Some(vec![byte]),
            Element::Class(text) => {
                self.out.push_str(&text);
                None
            }
        })
    }
}

fn no_backreference() -> PatternError {
    refused("backreferences are not supported")
}

fn push_byte(out: &mut String, byte: u8) {
    // Writing to a string cannot fail.
    let _infallible = write!(out, "\\x{byte:02x}");
}

/// The `{2}`, `{2,}` or `{2,3}` a text begins with.
fn repetition(text: &str) -> Option<&str> {
    let end = text.find('}')?;
    let inside = text.get(1..end)?;
    let number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let (low, high) = inside.split_once(',').unwrap_or((inside, "0"));
    (number(low) && (high.is_empty() || number(high))).then(|| text.get(..=end))?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(pattern: &str, text: &[u8]) -> bool {
        compile(pattern, Extent::Whole).unwrap_or_else(|e| panic!("{pattern}: {e}")).is_match(text)
    }

    /// The results are those of Envoy 1.40.
    #[test]
    fn expressions_match_the_bytes_that_envoys_match() {
        let values: &[&[u8]] = &[
            b"\xe9",
            "é".as_bytes(),
            "٣".as_bytes(),
            b"a\xe9c",
            "aéc".as_bytes(),
            b"5",
            b"k",
            "\u{212a}".as_bytes(),
            b"a",
            b"_",
            b"{",
            b"a{2",
        ];
        let check = |pattern: &str, expected: &[usize]| {
            let matching: Vec<usize> =
                (0..values.len()).filter(|i| whole(pattern, values[*i])).collect();
            assert_eq!(matching, expected, "{pattern}");
        };
        let single = &[0, 5, 6, 8, 9, 10];
        for pattern in [".", "[^x]", r"\C", "(?s).", r"\S", "[^é]", "[^&&&&x]"] {
            check(pattern, single);
        }
        check(".*", &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
        check(r"\d", &[5]);
        check(r"\w", &[5, 6, 8, 9]);
        check(r"\D", &[0, 6, 8, 9, 10]);
        check("a.c", &[3]);
        check("a..c", &[4]);
        check(".{2}", &[1, 2]);
        check("é", &[1]);
        check("[é]", &[]);
        check("[é]{2}", &[1]);
        check("a|é", &[1, 8]);
        check("(?i)K", &[6]);
        check(r"\x{e9}", &[0]);
        check(r"[\x{e9}]", &[0]);
        check(r"\xe9", &[0]);
        check(r"\351", &[0]);
        check(r"\pL", &[0, 6, 8]);
        check(r"[\pL\pN]", &[0, 5, 6, 8]);
        check(r"\p{Greek}", &[]);
        check("[[:alpha:]]", &[6, 8]);
        check("[a&&b]", &[8]);
        check("[[a]]", &[]);
        check(r"[\d-z]", &[5]);
        check("{", &[10]);
        check("a{2", &[11]);
        check("a{,2}", &[]);
        check(r"\_", &[9]);
        check(r"a\z", &[8]);
        check(r"\Qa{2\E", &[11]);
    }

    #[test]
    fn what_is_text_to_re2_is_no_operator() {
        assert!(whole("[[a]]", b"[]"));
        assert!(whole("[a~~b]", b"~"));
        assert!(whole(r"\<a\>", b"<a>"));
        assert!(whole(r"\b{start}", b"{start}") == whole(r"\b\{start\}", b"{start}"));
        assert!(whole("a{,2}", b"a{,2}"));
        assert!(whole("[]a]", b"]"));
        assert!(whole("[a-]", b"-"));
        assert!(whole("# x", b"# x"));
        assert!(!whole(r"\s", b"\x0b"));
    }

    #[test]
    fn what_re2_refuses_is_refused() {
        for pattern in [
            "(?u)a",
            "(?-u)a",
            "(?x) a",
            "(?R)a",
            r"\h",
            r"[z-a]",
            "[a--b]",
            r"\é",
            r"\u0041",
            "a)(b",
            "(",
            "[",
            "(?=a)",
            "(?<!a)",
            r"(a)\1",
            r"\x{100}",
            r"\xg0",
            r"\777",
            "*",
            r"\",
            r"\pX",
            "(?",
            r"[a-\d]",
            "[[:nosuch:]]",
            "a{2,1}",
        ] {
            assert!(compile(pattern, Extent::Whole).is_err(), "{pattern}");
            assert!(compile(pattern, Extent::Part).is_err(), "{pattern}");
        }
    }

    #[test]
    fn an_expression_that_would_take_too_much_memory_is_refused() {
        let error = compile("(a{1000}){1000}", Extent::Whole).unwrap_err();
        assert_eq!(error.to_string(), "it would take more than 10485760 bytes of memory");
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_compiled_or_refused(pattern in r"[\\\[\](){}?*+^$|.a-cé0-9:,\-pPxQE]{0,12}") {
            let whole = compile(&pattern, Extent::Whole);
            let part = compile(&pattern, Extent::Part);
            assert_eq!(whole.is_ok(), part.is_ok(), "{pattern}");
        }
    }
}
