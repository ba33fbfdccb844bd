//! The value of the `date` header, formatted once per second.

use std::{io::Write, time::SystemTime};

/// Keeps the formatted date of one second.
#[derive(Clone, Debug)]
pub struct DateCache {
    second: u64,
    text: [u8; 29],
}

impl Default for DateCache {
    fn default() -> Self {
        Self { second: 0, text: *b"Thu, 01 Jan 1970 00:00:00 GMT" }
    }
}

impl DateCache {
    /// The date at `now` as RFC 9110 §5.6.7 wants it.
    pub fn get(&mut self, now: SystemTime) -> &[u8] {
        let second = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs());
        if second != self.second {
            let mut text = [0; 29];
            // The formatter writes 29 bytes for every date before the year 10000.
            if write!(text.as_mut_slice(), "{}", httpdate::HttpDate::from(now)).is_ok() {
                self.text = text;
                self.second = second;
            }
        }
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::DateCache;
    use std::time::{Duration, SystemTime};

    #[test]
    fn date_follows_the_clock_in_both_directions() {
        let mut cache = DateCache::default();
        let at = |s| SystemTime::UNIX_EPOCH + Duration::from_millis(s);
        assert_eq!(cache.get(at(999)), b"Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(cache.get(at(784_111_777_500)), b"Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(cache.get(at(784_111_778_000)), b"Sun, 06 Nov 1994 08:49:38 GMT");
        assert_eq!(cache.get(at(0)), b"Thu, 01 Jan 1970 00:00:00 GMT");
    }
}
