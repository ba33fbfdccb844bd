//! What a file of Rust uses: its paths, absolute or relative, in imports or anywhere else. Tests are left
//! out. It knows as much of the grammar as that needs.

use std::collections::{BTreeMap, BTreeSet};

/// What matters of the text.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Token<'a> {
    Word(&'a str),
    /// `::`
    Separator,
    Mark(char),
}

use Token::{Mark, Separator, Word};

/// A path as it is written, and the inline modules around it.
#[derive(Debug)]
struct Written {
    inside: Vec<String>,
    path: Vec<String>,
}

/// What is used by one file, before it is known which modules there are.
#[derive(Debug, Default)]
pub(super) struct Uses {
    /// Imported paths and the names they get here.
    imports: Vec<(Written, String)>,
    paths: Vec<Written>,
    /// Modules that are there for tests only.
    pub(super) tests: Vec<String>,
}

impl Uses {
    /// Reads a file.
    pub(super) fn of(text: &str) -> Self {
        let mut uses = Self::default();
        let tokens = tokens(text);
        let mut rest = &tokens[..];
        let (mut depth, mut inside) = (0_usize, Vec::<(String, usize)>::new());
        while let Some((token, after)) = rest.split_first() {
            let around = || inside.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
            rest = match (token, after) {
                (Mark('#'), [Mark('['), Word("cfg"), Mark('('), Word("test"), Mark(')'), ..]) => {
                    uses.skip_test(after)
                }
                (Word("mod"), [Word(name), Mark('{'), after @ ..]) => {
                    inside.push(((*name).to_owned(), depth));
                    depth += 1;
                    after
                }
                (Mark('{'), _) => {
                    depth += 1;
                    after
                }
                (Mark('}'), _) => {
                    depth = depth.saturating_sub(1);
                    inside.pop_if(|(_, outer)| *outer == depth);
                    after
                }
                (Word("use"), [Word(_) | Separator | Mark('{'), ..]) => {
                    uses.import(&around(), &[], after)
                }
                // Who may see it is no use of it.
                (Word("pub"), [Mark('('), Word("in"), after @ ..]) => skip_path(after),
                (Word(_), [Separator, Word(_), ..]) => {
                    let (path, after) = path(rest);
                    uses.paths.push(Written { inside: around(), path });
                    after
                }
                (Separator, [Word(_), ..]) => skip_path(after),
                _ => after,
            };
        }
        uses
    }

    /// Adds an import, all members of a group. Returns what follows.
    fn import<'t, 'a>(
        &mut self,
        inside: &[String],
        prefix: &[String],
        tokens: &'t [Token<'a>],
    ) -> &'t [Token<'a>] {
        let (own, mut rest) = path(tokens);
        let path = [prefix, &own].concat();
        if let [Mark('{'), after @ ..] = rest {
            rest = after;
            loop {
                rest = match rest {
                    [] => return rest,
                    [Mark('}'), after @ ..] => return after,
                    [Mark(','), after @ ..] => after,
                    _ => self.import(inside, &path, rest),
                };
            }
        }
        let mut name = path.iter().rfind(|part| *part != "self").cloned().unwrap_or_default();
        match rest {
            // What a glob brings is looked up in its module.
            [Mark('*'), after @ ..] => (name, rest) = (String::new(), after),
            [Word("as"), Word(other), after @ ..] => (name, rest) = ((*other).to_owned(), after),
            [_, after @ ..] if path.len() == prefix.len() => rest = after,
            _ => {}
        }
        self.imports.push((Written { inside: inside.to_vec(), path }, name));
        rest
    }

    /// Goes past an item that is there for tests only.
    fn skip_test<'t, 'a>(&mut self, tokens: &'t [Token<'a>]) -> &'t [Token<'a>] {
        let mut rest = skip_group(tokens);
        while let [Mark('#'), after @ ..] = rest {
            rest = skip_group(after);
        }
        let is_import = rest.iter().take(2).any(|token| *token == Word("use"));
        if let [Word("mod"), Word(name), Mark(';'), after @ ..] = rest {
            self.tests.push((*name).to_owned());
            return after;
        }
        loop {
            rest = match rest {
                [] | [Mark('}'), ..] => return rest,
                [Mark(';'), after @ ..] => return after,
                [Mark('{'), ..] if !is_import => return skip_group(rest),
                [Mark('(' | '[' | '{'), ..] => skip_group(rest),
                [_, after @ ..] => after,
            };
        }
    }

    /// All paths from the root of the crate, as far as they are of this crate. `module` is the path of
    /// the file, `modules` has those of all files.
    pub(super) fn resolve(&self, module: &str, modules: &BTreeSet<String>) -> BTreeSet<String> {
        let mut names = BTreeMap::new();
        let mut found = BTreeSet::new();
        for (written, name) in &self.imports {
            let Some(path) = absolute(written, module, modules, &BTreeMap::new()) else { continue };
            if modules.contains(&path) {
                names.insert(name.clone(), path.clone());
            }
            found.insert(path);
        }
        found.extend(self.paths.iter().filter_map(|it| absolute(it, module, modules, &names)));
        found
    }
}

/// The path from the root of the crate; `None` when it is another crate's.
fn absolute(
    written: &Written,
    module: &str,
    modules: &BTreeSet<String>,
    names: &BTreeMap<String, String>,
) -> Option<String> {
    let mut here: Vec<&str> = module.split("::").collect();
    here.extend(written.inside.iter().map(String::as_str));
    let mut path: Vec<&str> = written.path.iter().map(String::as_str).collect();
    let first = *path.first()?;
    let base = match first {
        "crate" => Vec::new(),
        "self" | "super" => here,
        _ if names.contains_key(first) => {
            path.remove(0);
            names.get(first)?.split("::").collect()
        }
        _ if modules.contains(&format!("{module}::{first}")) => here,
        _ => return None,
    };
    let mut whole = base;
    for part in path {
        match part {
            "crate" | "self" => {}
            "super" => drop(whole.pop()),
            _ => whole.push(part),
        }
    }
    (!whole.is_empty()).then(|| whole.join("::"))
}

/// The path that the tokens begin with, and what follows it.
fn path<'t, 'a>(tokens: &'t [Token<'a>]) -> (Vec<String>, &'t [Token<'a>]) {
    let (mut path, mut rest) = (Vec::new(), tokens);
    loop {
        rest = match rest {
            [Word(word), after @ ..] => {
                path.push((*word).to_owned());
                after
            }
            _ => return (path, rest),
        };
        match rest {
            [Separator, after @ ..] if matches!(after, [Word(_) | Mark('{' | '*'), ..]) => {
                rest = after;
            }
            _ => return (path, rest),
        }
    }
}

fn skip_path<'t, 'a>(tokens: &'t [Token<'a>]) -> &'t [Token<'a>] {
    path(tokens).1
}

/// Goes past what is in brackets of any kind.
fn skip_group<'t, 'a>(tokens: &'t [Token<'a>]) -> &'t [Token<'a>] {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate() {
        match token {
            Mark('(' | '[' | '{') => depth += 1,
            Mark(')' | ']' | '}') => depth = depth.saturating_sub(1),
            Word(_) | Separator | Mark(_) => {}
        }
        if depth == 0 {
            return tokens.get(at + 1..).unwrap_or_default();
        }
    }
    &[]
}

/// Takes the text apart, without comments and literals.
pub(super) fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let word = |text: &str| text.find(|c| !is_word(c)).unwrap_or(text.len());
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |at| at + 2)
        } else if let Some(length) = literal(rest) {
            length
        } else if rest.starts_with("::") {
            tokens.push(Separator);
            2
        } else if is_word(first) {
            let (word, _) = rest.split_at(word(rest));
            tokens.push(Word(word));
            word.len()
        } else if first == '\'' {
            // A lifetime.
            1 + rest.get(1..).map_or(0, word)
        } else {
            if !first.is_whitespace() {
                tokens.push(Mark(first));
            }
            first.len_utf8()
        };
        rest = rest.get(length..).unwrap_or_default();
    }
    tokens
}

/// The length of the text or character that the code begins with.
fn literal(code: &str) -> Option<usize> {
    let body = code.trim_start_matches(['b', 'c', 'r']);
    let prefix = code.len() - body.len();
    if prefix > 2 {
        return None;
    }
    if code.get(..prefix).is_some_and(|prefix| prefix.ends_with('r')) {
        let text = body.trim_start_matches('#').strip_prefix('"')?;
        let hashes = body.len() - text.len() - 1;
        let end = format!("\"{}", "#".repeat(hashes));
        let length = text.find(&end).map_or(text.len(), |at| at + end.len());
        return Some(prefix + hashes + 1 + length);
    }
    if let Some(inner) = body.strip_prefix('\'') {
        // What follows one character without an escape is its end, or else this is a lifetime.
        let at = if inner.starts_with('\\') {
            2 + inner.get(2..)?.find('\'')?
        } else {
            let length = inner.chars().next()?.len_utf8();
            inner.get(length..)?.starts_with('\'').then_some(length)?
        };
        return Some(prefix + 1 + at + 1);
    }
    let mut escaped = false;
    for (at, c) in body.strip_prefix('"')?.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return Some(prefix + 1 + at + 1),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(text: &str) -> Vec<String> {
        let modules = ["a", "a::b", "a::b::own", "c", "d", "e", "f"].map(str::to_owned).into();
        Uses::of(text).resolve("a::b", &modules).into_iter().collect()
    }

    #[test]
    fn groups_of_imports_are_taken_apart() {
        let text = "use crate::{a::B, c::{self, D}, e as f};\nuse crate::f::*;\n// crate::h\n";
        assert_eq!(used(text), ["a::B", "c", "c::D", "e", "f"]);
    }

    #[test]
    fn relative_paths_are_seen() {
        assert_eq!(
            used("use super::X; use self::own::Y; use own::Z;"),
            ["a::X", "a::b::own::Y", "a::b::own::Z"]
        );
        assert_eq!(
            used("fn f() -> super::super::c::T { own::g::<u8>() }"),
            ["a::b::own::g", "c::T"]
        );
        assert_eq!(used("mod inner { fn f() { super::super::X::new(); } }"), ["a::X::new"]);
    }

    #[test]
    fn an_imported_module_leads_on() {
        assert_eq!(used("use crate::c; fn f() { c::inner::g() }"), ["c", "c::inner::g"]);
        assert_eq!(used("use crate::{c as other}; type T = other::T;"), ["c", "c::T"]);
        assert_eq!(used("use std::fmt; use tokio::io; fn f() { fmt::g(); io::h() }"), [""; 0]);
    }

    #[test]
    fn tests_comments_literals_and_visibility_use_nothing() {
        let text = r##"
            #[cfg(test)]
            #[expect(unused)]
            mod tests;
            #[cfg(test)]
            use crate::{c::X, d};
            #[cfg(test)]
            pub(crate) fn f(_: [u8; 2]) { crate::c::g() }
            pub(in crate::c) fn g<'a>(_: &'a str, _: char) -> impl Sized + use<'a> {
                /* crate::c::x */ ("crate::c::x\"", ['c', '\'', '\u{1}', '"'], r#"" crate::c::x"#, b'"')
            }
            use crate::d::Seen;
            #[cfg(test)]
            mod inline { use crate::c::X; }
        "##;
        assert_eq!(used(text), ["d::Seen"]);
        assert_eq!(Uses::of(text).tests, ["tests"]);
    }
}
