//! Counts in words, for what people read.

use std::fmt::{Display, Formatter, Result};

/// A number of things; made by [`counted`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Counted<N> {
    count: N,
    noun: &'static str,
}

/// `1 listener`, `2 listeners`: for nouns whose plural takes an `s`.
pub const fn counted<N>(count: N, noun: &'static str) -> Counted<N> {
    Counted { count, noun }
}

impl<N: Display + PartialEq + From<u8>> Display for Counted<N> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let plural = if self.count == N::from(1) { "" } else { "s" };
        write!(f, "{} {}{plural}", self.count, self.noun)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thing_has_no_s() {
        let texts = [0_usize, 1, 2, 11].map(|count| counted(count, "listener").to_string());
        assert_eq!(texts, ["0 listeners", "1 listener", "2 listeners", "11 listeners"]);
    }
}
