//! Times of log lines, UTC.

use std::{
    fmt::{self, Write},
    time::{SystemTime, UNIX_EPOCH},
};

use baton_worker::format::{DAYS, MONTHS};

/// A time as people read it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Civil {
    epoch: u64,
    year: u64,
    month: u64,
    day: u64,
    weekday: &'static str,
    hour: u64,
    minute: u64,
    second: u64,
    nanos: u32,
}

impl Civil {
    pub(super) fn at(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
        let (year, month, day) = civil(days);
        // 1970 began on a Thursday.
        let weekday = usize::try_from((days + 4) % 7).ok().and_then(|at| DAYS.get(at));
        Self {
            epoch: since.as_secs(),
            year,
            month,
            day,
            weekday: weekday.copied().unwrap_or_default(),
            hour: seconds / 3600,
            minute: seconds / 60 % 60,
            second: seconds % 60,
            nanos: since.subsec_nanos(),
        }
    }

    /// Writes what a flag of a pattern means; `false` when it means no time.
    pub(super) fn write(&self, out: &mut String, flag: char) -> Result<bool, fmt::Error> {
        let Self { epoch, year, month, day, weekday, hour, minute, second, nanos } = *self;
        let name = usize::try_from(month - 1).ok().and_then(|at| MONTHS.get(at));
        let name = name.copied().unwrap_or_default();
        let twelve = (hour + 11) % 12 + 1;
        let half = if hour < 12 { "AM" } else { "PM" };
        let short_weekday = weekday.get(..3).unwrap_or_default();
        let short = name.get(..3).unwrap_or_default();
        match flag {
            'Y' => write!(out, "{year:04}")?,
            'C' => write!(out, "{:02}", year % 100)?,
            'm' => write!(out, "{month:02}")?,
            'd' => write!(out, "{day:02}")?,
            'H' => write!(out, "{hour:02}")?,
            'I' => write!(out, "{twelve:02}")?,
            'M' => write!(out, "{minute:02}")?,
            'S' => write!(out, "{second:02}")?,
            'T' | 'X' => write!(out, "{hour:02}:{minute:02}:{second:02}")?,
            'R' => write!(out, "{hour:02}:{minute:02}")?,
            'D' | 'x' => write!(out, "{month:02}/{day:02}/{:02}", year % 100)?,
            'e' => write!(out, "{:03}", nanos / 1_000_000)?,
            'f' => write!(out, "{:06}", nanos / 1000)?,
            'F' => write!(out, "{nanos:09}")?,
            'E' => write!(out, "{epoch}")?,
            'z' => out.push_str("+00:00"),
            'p' => out.push_str(half),
            'r' => write!(out, "{twelve:02}:{minute:02}:{second:02} {half}")?,
            'c' => {
                write!(
                    out,
                    "{short_weekday} {short} {day} {hour:02}:{minute:02}:{second:02} {year}"
                )?;
            }
            'a' => out.push_str(short_weekday),
            'A' => out.push_str(weekday),
            'b' | 'h' => out.push_str(short),
            'B' => out.push_str(name),
            _ => return Ok(false),
        }
        Ok(true)
    }
}

impl fmt::Display for Civil {
    /// `2026-11-23 10:00:00.123`.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { year, month, day, hour, minute, second, nanos, .. } = self;
        let millis = nanos / 1_000_000;
        write!(out, "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{millis:03}")
    }
}

/// Year, month and day of a day since 1970-01-01. Years are counted from March, so that the leap
/// day is the last of its year.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_are_written_as_envoy_does() {
        let check = |seconds: u64, expected: &str| {
            let time = Civil::at(UNIX_EPOCH + Duration::from_millis(seconds * 1000 + 7));
            assert_eq!(time.to_string(), expected);
        };
        check(0, "1970-01-01 00:00:00.007");
        check(951_782_400, "2000-02-29 00:00:00.007");
        check(1_795_428_000, "2026-11-23 10:00:00.007");
        check(4_107_542_399, "2100-02-28 23:59:59.007");
        check(4_107_542_400, "2100-03-01 00:00:00.007");
    }
}
