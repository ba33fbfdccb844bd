//! Path normalisation as Envoy does it: escaped slashes, then dot segments and needless escapes,
//! then double slashes and unsafe characters. The query is never touched.
//!
//! A path with nothing to do (nearly all of them) is recognised in one pass and left alone.

use crate::config::hcm::{EscapedSlashes, HttpConnectionManager};

/// What is done to paths.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PathPolicy {
    /// Remove dot segments, decode escapes of unreserved characters, escape those that may not stand
    /// in a URI, turn `\` into `/`, and refuse malformed escapes and `%00`. Envoy's `normalize_path`.
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
/// When the path has to be refused; it is then as it came.
pub fn normalize(path: &mut Vec<u8>, policy: &PathPolicy) -> Result<Normalized, PathError> {
    if path.first() != Some(&b'/') || is_plain(path) {
        return Ok(Normalized::Unchanged);
    }
    let query = memchr::memchr(b'?', path).unwrap_or(path.len());
    check(path.get(..query).unwrap_or_default(), *policy)?;
    let mut end = query;
    let mut result = Normalized::Unchanged;
    if policy.escaped_slashes != EscapedSlashes::Keep {
        let kept = unescape_slashes(path.get_mut(..end).unwrap_or_default());
        if kept < end {
            result = match policy.escaped_slashes {
                EscapedSlashes::UnescapeAndRedirect => Normalized::Redirect,
                EscapedSlashes::Keep
                | EscapedSlashes::Reject
                | EscapedSlashes::UnescapeAndForward => Normalized::Changed,
            };
        }
        end = kept;
    }
    let mut changed = false;
    if policy.normalize {
        let part = path.get_mut(..end).unwrap_or_default();
        let (kept, touched) = decode_unreserved(part);
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
    if policy.normalize && path.iter().take(end).any(|byte| is_unsafe(*byte)) {
        escape_unsafe(path, end);
        changed = true;
    }
    Ok(if changed && result == Normalized::Unchanged { Normalized::Changed } else { result })
}

/// Finds what the policy refuses.
fn check(path: &[u8], policy: PathPolicy) -> Result<(), PathError> {
    for at in memchr::memchr_iter(b'%', path) {
        match escape(path.get(at..).unwrap_or_default()) {
            Some(b'/' | b'\\') if policy.escaped_slashes == EscapedSlashes::Reject => {
                return Err(PathError::EscapedSlash);
            }
            None if policy.normalize => return Err(PathError::Escape),
            Some(0) if policy.normalize => return Err(PathError::Nul),
            Some(_) | None => {}
        }
    }
    Ok(())
}

/// Whether a character may not stand in a URI (RFC 3986 §2) though requests have it: clients are lax.
const fn is_unsafe(byte: u8) -> bool {
    matches!(byte, b'"' | b'<' | b'>' | b'^' | b'`' | b'{' | b'|' | b'}')
}

/// Percent-encodes unsafe characters in the first `end` bytes.
fn escape_unsafe(path: &mut Vec<u8>, end: usize) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let query = path.split_off(end);
    for byte in std::mem::take(path) {
        if is_unsafe(byte) {
            let (high, low) = (usize::from(byte >> 4), usize::from(byte & 15));
            path.extend([b'%', HEX[high], HEX[low]]);
        } else {
            path.push(byte);
        }
    }
    path.extend(query);
}

/// True when no rule can apply: no unsafe character, no escape, no backslash, no segment that starts with a dot, no
/// empty segment, all of it before the query.
#[inline]
fn is_plain(path: &[u8]) -> bool {
    let mut last = 0;
    for &byte in path {
        match byte {
            b'?' => return true,
            b'%' | b'\\' => return false,
            b'.' | b'/' if last == b'/' => return false,
            _ if is_unsafe(byte) => return false,
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
fn rewrite(text: &mut [u8], mut next: impl FnMut(&[u8]) -> (u8, usize)) -> usize {
    let (mut read, mut write) = (0, 0);
    while let Some(rest) = text.get(read..).filter(|rest| !rest.is_empty()) {
        let (byte, len) = next(rest);
        read += len;
        if let Some(slot) = text.get_mut(write) {
            *slot = byte;
        }
        write += 1;
    }
    write
}

/// Replaces `%2F` by `/` and `%5C` by `\`.
fn unescape_slashes(text: &mut [u8]) -> usize {
    rewrite(text, |rest| match (escape(rest), rest) {
        (Some(byte @ (b'/' | b'\\')), _) => (byte, 3),
        (_, [byte, ..]) => (*byte, 1),
        (_, []) => (0, 1),
    })
}

/// Decodes the escapes of unreserved characters and makes slashes of backslashes. Returns the new
/// length and whether anything changed.
fn decode_unreserved(text: &mut [u8]) -> (usize, bool) {
    let mut touched = false;
    let kept = rewrite(text, |rest| match (rest, escape(rest)) {
        (_, Some(byte)) if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => {
            touched = true;
            (byte, 3)
        }
        ([b'\\', ..], None) => {
            touched = true;
            (b'/', 1)
        }
        ([byte, ..], _) => (*byte, 1),
        ([], _) => (0, 1),
    });
    (kept, touched)
}

/// RFC 3986 §5.2.4 for a path that starts with a slash. Returns the new length.
///
/// A dot segment may have parameters (`..;a=b`): servers that know them (RFC 2396 §3.3) resolve it
/// all the same, so it must not be taken for a name here.
fn remove_dot_segments(text: &mut [u8]) -> usize {
    // Invariant: `write <= read`, and the output so far ends before the slash that `read` is at.
    let (mut read, mut write) = (0, 0);
    while read < text.len() {
        let rest = text.get(read + 1..).unwrap_or_default();
        let len = memchr::memchr(b'/', rest).unwrap_or(rest.len());
        let last = len == rest.len();
        let segment = rest.get(..len).unwrap_or_default();
        let name = memchr::memchr(b';', segment).and_then(|end| segment.get(..end));
        let dots = match name.unwrap_or(segment) {
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
        if result.is_err() {
            assert_eq!(path, input, "what is refused is logged as it came");
        }
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
            ("/x/..;/admin", "/admin"),
            ("/x/..;a=b/admin", "/admin"),
            ("/x/.;/admin", "/x/admin"),
            ("/x/.;a=b/admin", "/x/admin"),
            ("/x/%2e%2E;/admin", "/admin"),
            ("/x/.%2e;a/admin", "/admin"),
            ("/x/%2e;/y", "/x/y"),
            ("/x/..;;/admin", "/admin"),
            ("/x/..;.;/admin", "/admin"),
            ("/x/..;a=../admin", "/admin"),
            ("/x/..;a=%2F/admin", "/admin"),
            ("/x/y/..;/..;z/admin", "/admin"),
            (r"/x\..;\admin", "/admin"),
            ("/x/..;", "/"),
            ("/x/y/..;z", "/x/"),
            ("/x/.;", "/x/"),
            ("/..;", "/"),
            ("/a//..;/b", "/a/b"),
            ("/a;b/../c", "/c"),
            ("/a/..;?q=/..;/", "/?q=/..;/"),
        ] {
            check(NORMALIZE, input, Ok((Normalized::Changed, output)));
        }
        for same in [
            "/",
            "/a",
            "//x",
            "/.a",
            "/a/..b",
            "/...",
            "/a.b/",
            "/%2F",
            "/%25",
            "*",
            "",
            "/a?%",
            "/a;b/c",
            "/a/...;/b",
            "/a/..x;/b",
            "/a/;/b",
            "/a/b;..",
            "/a/..%3B/b",
            "/a/..,/b",
            "/a?b/..;/c",
        ] {
            check(NORMALIZE, same, Ok((Normalized::Unchanged, same)));
        }
        check(NORMALIZE, "/%", Err(PathError::Escape));
        check(NORMALIZE, "/%4", Err(PathError::Escape));
        check(NORMALIZE, "/%g0", Err(PathError::Escape));
        check(NORMALIZE, "/%00", Err(PathError::Nul));
        check(NORMALIZE, "/%61/../%", Err(PathError::Escape));
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
            check(reject, input, Err(PathError::EscapedSlash));
        }
        check(forward, "/a%2f..%2Fb?%2f", Ok((Normalized::Changed, "/b?%2f")));
        check(redirect, "/a%2f..%5Cb?%2f", Ok((Normalized::Redirect, "/b?%2f")));
        check(redirect, "/a/../b", Ok((Normalized::Changed, "/b")));
        check(reject, "/a?b=%2f", Ok((Normalized::Unchanged, "/a?b=%2f")));
        check(reject, "/a%2Fb%2fc", Err(PathError::EscapedSlash));
        check(forward, "/x/..;%2fadmin", Ok((Normalized::Changed, "/admin")));
        check(forward, "/x%2f..;a%5Cadmin", Ok((Normalized::Changed, "/admin")));
    }

    #[test]
    fn what_may_not_stand_in_a_uri_is_escaped_in_the_path() {
        let changed = |path| Ok((Normalized::Changed, path));
        check(NORMALIZE, "/\"<>{}^|`", changed("/%22%3C%3E%7B%7D%5E%7C%60"));
        check(NORMALIZE, "/a|b?c=|", changed("/a%7Cb?c=|"));
        check(NORMALIZE, "/x/../{y}", changed("/%7By%7D"));
        check(NORMALIZE, "/a?{}", Ok((Normalized::Unchanged, "/a?{}")));
    }

    #[test]
    fn nothing_is_done_when_nothing_is_asked() {
        let nothing = PathPolicy { normalize: false, ..NORMALIZE };
        check(nothing, "/<>", Ok((Normalized::Unchanged, "/<>")));
        for path in ["/../x", "//x", "/%zz", "/%00", r"/a\b", "/..%2f"] {
            check(nothing, path, Ok((Normalized::Unchanged, path)));
        }
    }
}
