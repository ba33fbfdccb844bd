//! How many arguments a function has, with those that hide in tuples. Clippy counts a tuple as one.

use super::source::Token::{self, Mark, Word};
use super::source::tokens;

/// As `too-many-arguments-threshold` in `clippy.toml`.
const ARGUMENTS_MAX: usize = 6;

/// Functions that have more. This list gets shorter only.
const HELD: &[&str] = &[
    "worker/src/filter/network/hcm/resume.rs: read_upstream",
    "worker/src/filter/network/tcp_proxy/session/parts.rs: import",
];

/// The functions of a file and how many arguments each has, `self` included.
fn functions(text: &str) -> Vec<(String, usize)> {
    let tokens = tokens(text);
    let mut found = Vec::new();
    for at in 0..tokens.len() {
        let [Word("fn"), Word(name), rest @ ..] = tokens.get(at..).unwrap_or_default() else {
            continue;
        };
        found.push(((*name).to_owned(), arguments(rest)));
    }
    found
}

/// Counts what is bound between the parentheses that follow the generics.
fn arguments(tokens: &[Token<'_>]) -> usize {
    let (mut angles, mut depth, mut count) = (0_usize, 0_usize, 0);
    // The pattern of an argument is before its colon; what is after it is a type.
    let mut in_pattern = true;
    let mut before = Mark(' ');
    for token in tokens {
        match token {
            Mark('<') => angles += 1,
            // An arrow closes nothing.
            Mark('>') if before != Mark('-') => angles = angles.saturating_sub(1),
            Mark('(' | '[') if depth > 0 || angles == 0 => depth += 1,
            Mark(')' | ']') if depth > 0 => depth -= 1,
            Mark(',') if depth == 1 && angles == 0 => in_pattern = true,
            Mark(':') if depth == 1 => in_pattern = false,
            Word("self") if depth == 1 && in_pattern => (count, in_pattern) = (count + 1, false),
            Word("mut" | "ref") => {}
            Word(word) if depth > 0 && in_pattern => {
                // A name and not a type that is taken apart.
                let is_name = !word.starts_with(|c: char| c.is_ascii_uppercase());
                count += usize::from(is_name);
            }
            Word(_) | Token::Separator | Mark(_) => {}
        }
        if depth == 0 && angles == 0 && *token == Mark(')') {
            break;
        }
        before = *token;
    }
    count
}

#[test]
fn no_tuple_hides_that_a_function_has_too_many_arguments() {
    let mut violations = Vec::new();
    let mut long = Vec::new();
    for (name, text) in super::files("rs") {
        let is_test = name.ends_with("/tests.rs") || name.contains("/tests/");
        if is_test || !super::is_shipped(&name) {
            continue;
        }
        for (function, count) in functions(super::before_tests(&text)) {
            if count > ARGUMENTS_MAX {
                long.push((format!("{name}: {function}"), count));
            }
        }
    }
    for (function, count) in &long {
        if !HELD.contains(&&**function) {
            violations.push(format!("{function} has {count}"));
        }
    }
    for held in HELD.iter().filter(|held| !long.iter().any(|(function, _)| function == *held)) {
        violations.push(format!("{held} has no more than {ARGUMENTS_MAX}: take it off `HELD`"));
    }
    super::report("at most 6 arguments, those in tuples counted", &violations);
}

#[test]
fn arguments_in_tuples_count() {
    let text = "fn none() {} fn one<F: Fn(A, B) -> C>(f: F) -> (A, B) {}
        fn three(&mut self, (mut a, b): (&A<'_>, Vec<(B, C)>)) {}
        fn four(mut a: A, Wrapped(b): W, [c, _]: [u8; 2]) where F: Fn(x, y) {}
        fn pointer(f: fn(A, B) -> C, (g, h): (impl Fn(A, B), B),) {}";
    let found: Vec<_> = functions(text).into_iter().map(|(_, count)| count).collect();
    assert_eq!(found, [0, 1, 3, 4, 3]);
}
