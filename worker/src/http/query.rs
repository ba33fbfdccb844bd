//! Changes of the query of a path: parameters keep their order and their spelling.

/// True when there is a parameter of this name, however it is escaped.
pub fn contains(path: &[u8], name: &[u8]) -> bool {
    parameters(path).any(|parameter| is_named(parameter, name))
}

/// Removes every parameter of this name.
pub fn remove(path: &mut Vec<u8>, name: &[u8]) {
    if !contains(path, name) {
        return;
    }
    let end = query_start(path).unwrap_or(path.len());
    let mut kept = path.get(..end).unwrap_or_default().to_vec();
    let mut separator = b'?';
    for parameter in parameters(path).filter(|parameter| !is_named(parameter, name)) {
        kept.push(separator);
        kept.extend_from_slice(parameter);
        separator = b'&';
    }
    *path = kept;
}

/// Adds a parameter at the end; what would not be text of a parameter is escaped.
pub fn append(path: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    let separator = match query_start(path) {
        None => Some(b'?'),
        Some(at) if at + 1 == path.len() => None,
        Some(_) => Some(b'&'),
    };
    path.extend(separator);
    escape(name, path);
    path.push(b'=');
    escape(value, path);
}

/// Where the `?` stands.
fn query_start(path: &[u8]) -> Option<usize> {
    memchr::memchr(b'?', path)
}

fn parameters(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let query = query_start(path).and_then(|at| path.get(at + 1..)).unwrap_or_default();
    query.split(|byte| *byte == b'&').filter(|parameter| !parameter.is_empty())
}

fn is_named(parameter: &[u8], name: &[u8]) -> bool {
    let own = parameter.split(|byte| *byte == b'=').next().unwrap_or_default();
    own == name || (own.contains(&b'%') && unescape(own) == name)
}

fn unescape(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let escaped = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = escaped.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match byte.filter(|_| *first == b'%') {
            Some(byte) => {
                plain.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                plain.push(*first);
                rest = after;
            }
        }
    }
    plain
}

fn escape(text: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for byte in text {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(byte) {
            out.push(*byte);
        } else {
            let digit = |half: u8| DIGITS.get(usize::from(half)).copied();
            out.push(b'%');
            out.extend([digit(byte >> 4), digit(byte & 15)].into_iter().flatten());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(path: &str, change: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut path = path.as_bytes().to_vec();
        change(&mut path);
        String::from_utf8(path).unwrap()
    }

    #[test]
    fn parameters_are_removed_and_added_and_the_others_stay_as_they_are() {
        let without = |path: &str| changed(path, |path| remove(path, b"a b"));
        assert_eq!(without("/p?x=1&a%20b=2&y&a%20b"), "/p?x=1&y");
        assert_eq!(without("/p?a%20b=2"), "/p");
        assert_eq!(without("/p?z=%zz"), "/p?z=%zz");
        assert_eq!(without("/p"), "/p");
        let with = |path: &str| changed(path, |path| append(path, b"k", b"1 /\xff"));
        assert_eq!(with("/p"), "/p?k=1%20%2F%FF");
        assert_eq!(with("/p?"), "/p?k=1%20%2F%FF");
        assert_eq!(with("/p?x"), "/p?x&k=1%20%2F%FF");
        assert!(contains(b"/p?x=1&y", b"y") && !contains(b"/p?x=1&y", b"1"));
    }
}
