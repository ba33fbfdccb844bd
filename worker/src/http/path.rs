//! Path normalisation as Envoy does it: escaped slashes, then dot segments and needless escapes,
//! then double slashes. The query is never touched.
//!
//! A path with nothing to do (nearly all of them) is recognised in one pass and left alone.

use crate::config::hcm::{EscapedSlashes, HttpConnectionManager};

/// What is done to paths.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PathPolicy {
    /// Remove dot segments, decode escapes of unreserved characters, turn `\` into `/`, and
    /// refuse malformed escapes and `%00`. Envoy's `normalize_path`.
    pub normalize: bool,
    /// Make one slash of several. Envoy's `merge_slashes`.
    pub merge_slashes: bool,
    /// What to do about `%2F` and `%5C`. Envoy's `path_with_escaped_slashes_action`.
    pub escaped_slashes: EscapedSlashes,
}

impl PathPolicy {
    /// The policy of a connection manager.
    pub fn of(manager: &HttpConnectionManager) -> Self {
        Self {
            normalize: manager.normalize_path,
            merge_slashes: manager.merge_slashes,
            escaped_slashes: manager.escaped_slashes,
        }
    }
}

/// What became of a path.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Normalized {
    /// Nothing had to be done.
    Unchanged,
    /// The path was rewritten.
    Changed,
    /// The path was rewritten and the client has to come again with it (307).
    Redirect,
}

/// Why a path is refused with 400.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PathError {
    /// A `%` without two hexadecimal digits behind it.
    #[error("the path contains a malformed escape")]
    Escape,
    /// `%00`.
    #[error("the path contains an escaped NUL")]
    Nul,
    /// `%2F` or `%5C`, and the policy refuses them.
    #[error("the path contains an escaped slash")]
    EscapedSlash,
}

impl PathError {
    /// `%RESPONSE_CODE_DETAILS%` of the 400.
    pub fn details(self) -> &'static str {
        "path_normalization_failed"
    }
}

/// Applies the policy to `path` (with query) in place. Paths that do not start with `/` (`*`, and
/// the empty one of CONNECT) are left alone.
///
/// # Errors
/// When the path has to be refused; it may then be half rewritten.
pub fn normalize(path: &mut Vec<u8>, policy: &PathPolicy) -> Result<Normalized, PathError> {
    if path.first() != Some(&b'/') || is_plain(path) {
        return Ok(Normalized::Unchanged);
    }
    let query = memchr::memchr(b'?', path).unwrap_or(path.len());
    let mut end = query;
    let mut result = Normalized::Unchanged;
    if policy.escaped_slashes != EscapedSlashes::Keep {
        let kept = unescape_slashes(path.get_mut(..end).unwrap_or_default());
        if kept < end {
            result = match policy.escaped_slashes {
                EscapedSlashes::Reject => return Err(PathError::EscapedSlash),
                EscapedSlashes::UnescapeAndRedirect => Normalized::Redirect,
                EscapedSlashes::Keep | EscapedSlashes::UnescapeAndForward => Normalized::Changed,
            };
        }
        end = kept;
    }
    let mut changed = false;
    if policy.normalize {
        let part = path.get_mut(..end).unwrap_or_default();
        let (kept, touched) = decode_unreserved(part)?;
        changed |= touched;
        let kept_after = remove_dot_segments(part.get_mut(..kept).unwrap_or_default());
        changed |= kept_after < kept;
        end = kept_after;
    }
    if policy.merge_slashes {
        let kept = merge_slashes(path.get_mut(..end).unwrap_or_default());
        changed |= kept < end;
        end = kept;
    }
    path.drain(end..query);
    Ok(if changed && result == Normalized::Unchanged { Normalized::Changed } else { result })
}

/// True when no rule can apply: no escape, no backslash, no segment that starts with a dot, no
/// empty segment, all of it before the query.
#[inline]
fn is_plain(path: &[u8]) -> bool {
    let mut last = 0;
    for &byte in path {
        match byte {
            b'?' => return true,
            b'%' | b'\\' => return false,
            b'.' | b'/' if last == b'/' => return false,
            _ => last = byte,
        }
    }
    true
}

fn hex(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

/// The byte that an escape at the start of `text` stands for.
fn escape(text: &[u8]) -> Option<u8> {
    match text {
        [b'%', high, low, ..] => Some(hex(*high)? << 4 | hex(*low)?),
        _ => None,
    }
}

/// Copies `text` over itself: `next` gets the rest and says which byte to write and how many to
/// go on. Returns the new length.
fn rewrite<E>(
    text: &mut [u8],
    mut next: impl FnMut(&[u8]) -> Result<(u8, usize), E>,
) -> Result<usize, E> {
    let (mut read, mut write) = (0, 0);
    while let Some(rest) = text.get(read..).filter(|rest| !rest.is_empty()) {
        let (byte, len) = next(rest)?;
        read += len;
        if let Some(slot) = text.get_mut(write) {
            *slot = byte;
        }
        write += 1;
    }
    Ok(write)
}

/// Replaces `%2F` by `/` and `%5C` by `\`.
fn unescape_slashes(text: &mut [u8]) -> usize {
    let done: Result<usize, std::convert::Infallible> = rewrite(text, |rest| {
        Ok(match (escape(rest), rest) {
            (Some(byte @ (b'/' | b'\\')), _) => (byte, 3),
            (_, [byte, ..]) => (*byte, 1),
            (_, []) => (0, 1),
        })
    });
    done.unwrap_or_else(|never| match never {})
}

/// Decodes the escapes of unreserved characters, makes slashes of backslashes, and refuses broken
/// escapes. Returns the new length and whether anything changed.
fn decode_unreserved(text: &mut [u8]) -> Result<(usize, bool), PathError> {
    let mut touched = false;
    let kept = rewrite(text, |rest| match (rest, escape(rest)) {
        ([b'%', ..], None) => Err(PathError::Escape),
        (_, Some(0)) => Err(PathError::Nul),
        (_, Some(byte)) if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => {
            touched = true;
            Ok((byte, 3))
        }
        ([b'\\', ..], None) => {
            touched = true;
            Ok((b'/', 1))
        }
        ([byte, ..], _) => Ok((*byte, 1)),
        ([], _) => Ok((0, 1)),
    })?;
    Ok((kept, touched))
}

/// RFC 3986 §5.2.4 for a path that starts with a slash. Returns the new length.
fn remove_dot_segments(text: &mut [u8]) -> usize {
    // Invariant: `write <= read`, and the output so far ends before the slash that `read` is at.
    let (mut read, mut write) = (0, 0);
    while read < text.len() {
        let rest = text.get(read + 1..).unwrap_or_default();
        let len = memchr::memchr(b'/', rest).unwrap_or(rest.len());
        let last = len == rest.len();
        let segment = rest.get(..len).unwrap_or_default();
        let dots = match segment {
            b"." => Some(write),
            b".." => {
                let before = text.get(..write).unwrap_or_default();
                Some(memchr::memrchr(b'/', before).unwrap_or(0))
            }
            _ => None,
        };
        if let Some(back) = dots {
            write = back;
            // A dot segment at the end leaves its slash.
            if last && let Some(slot) = text.get_mut(write) {
                *slot = b'/';
                write += 1;
            }
        } else {
            text.copy_within(read..read + 1 + len, write);
            write += 1 + len;
        }
        read += 1 + len;
    }
    write
}

/// Makes one slash of several. Returns the new length.
fn merge_slashes(text: &mut [u8]) -> usize {
    let (mut write, mut last) = (0, 0);
    for read in 0..text.len() {
        let byte = text.get(read).copied().unwrap_or_default();
        if byte == b'/' && last == b'/' {
            continue;
        }
        last = byte;
        if let Some(slot) = text.get_mut(write) {
            *slot = byte;
        }
        write += 1;
    }
    write
}

#[cfg(test)]
mod tests {
    use super::{EscapedSlashes, Normalized, PathError, PathPolicy, normalize};

    const NORMALIZE: PathPolicy =
        PathPolicy { normalize: true, merge_slashes: false, escaped_slashes: EscapedSlashes::Keep };

    #[track_caller]
    fn check(policy: PathPolicy, input: &str, expected: Result<(Normalized, &str), PathError>) {
        let mut path = input.as_bytes().to_vec();
        let result = normalize(&mut path, &policy);
        let path = String::from_utf8(path).unwrap();
        assert_eq!(result.map(|r| (r, &*path)), expected, "{input}");
    }

    #[test]
    fn dot_segments_and_needless_escapes_go_away() {
        for (input, output) in [
            ("/../x", "/x"),
            ("/a/b/../c", "/a/c"),
            ("/a/./b", "/a/b"),
            ("/a/..", "/"),
            ("/a/b/..", "/a/"),
            ("/a/.", "/a/"),
            ("/..", "/"),
            ("/.", "/"),
            ("/../../..", "/"),
            ("/a/%2e%2E/b", "/b"),
            ("/%2e", "/"),
            ("/a//../b", "/a/b"),
            (r"/a\..\b", "/b"),
            ("/%61%7e", "/a~"),
            ("/a/../b?c/../d%zz", "/b?c/../d%zz"),
            ("//../x", "/x"),
        ] {
            check(NORMALIZE, input, Ok((Normalized::Changed, output)));
        }
        for same in
            ["/", "/a", "//x", "/.a", "/a/..b", "/...", "/a.b/", "/%2F", "/%25", "*", "", "/a?%"]
        {
            check(NORMALIZE, same, Ok((Normalized::Unchanged, same)));
        }
        check(NORMALIZE, "/%", Err(PathError::Escape));
        check(NORMALIZE, "/%4", Err(PathError::Escape));
        check(NORMALIZE, "/%g0", Err(PathError::Escape));
        check(NORMALIZE, "/%00", Err(PathError::Nul));
    }

    #[test]
    fn slashes_are_merged_only_in_the_path() {
        let merge = PathPolicy { merge_slashes: true, ..NORMALIZE };
        check(merge, "//a///b//?c//d", Ok((Normalized::Changed, "/a/b/?c//d")));
        check(merge, "/a//../b", Ok((Normalized::Changed, "/a/b")));
        check(merge, "/a/b?c//d", Ok((Normalized::Unchanged, "/a/b?c//d")));
        let only = PathPolicy { normalize: false, ..merge };
        check(only, "//a/../%zz", Ok((Normalized::Changed, "/a/../%zz")));
    }

    #[test]
    fn escaped_slashes_are_treated_before_everything_else() {
        let with = |escaped_slashes| PathPolicy { escaped_slashes, ..NORMALIZE };
        let (reject, forward, redirect) = (
            with(EscapedSlashes::Reject),
            with(EscapedSlashes::UnescapeAndForward),
            with(EscapedSlashes::UnescapeAndRedirect),
        );
        for input in ["/..%2fx", "/a%2Fb", "/a%5cb", "/a%5C"] {
            check(NORMALIZE, input, Ok((Normalized::Unchanged, input)));
            let mut path = input.as_bytes().to_vec();
            assert_eq!(normalize(&mut path, &reject), Err(PathError::EscapedSlash));
        }
        check(forward, "/a%2f..%2Fb?%2f", Ok((Normalized::Changed, "/b?%2f")));
        check(redirect, "/a%2f..%5Cb?%2f", Ok((Normalized::Redirect, "/b?%2f")));
        check(redirect, "/a/../b", Ok((Normalized::Changed, "/b")));
        check(reject, "/a?b=%2f", Ok((Normalized::Unchanged, "/a?b=%2f")));
    }

    #[test]
    fn nothing_is_done_when_nothing_is_asked() {
        let nothing = PathPolicy { normalize: false, ..NORMALIZE };
        for path in ["/../x", "//x", "/%zz", "/%00", r"/a\b", "/..%2f"] {
            check(nothing, path, Ok((Normalized::Unchanged, path)));
        }
    }
}
