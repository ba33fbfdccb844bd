//! Times by `strftime` patterns, always in UTC.

use std::time::{SystemTime, UNIX_EPOCH};

/// A parsed time pattern.
#[derive(Clone, Debug)]
pub struct TimeFormat {
    items: Box<[TimeItem]>,
}

/// One item of a time pattern; the letter is that of `strftime`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum TimeItem {
    /// Text.
    Text(Box<str>),
    /// `%Y`.
    Year,
    /// `%y`.
    ShortYear,
    /// `%m`.
    Month,
    /// `%b`, `%h`.
    MonthName,
    /// `%B`.
    LongMonthName,
    /// `%d`.
    Day,
    /// `%e`.
    PaddedDay,
    /// `%j`.
    DayOfYear,
    /// `%a`.
    Weekday,
    /// `%A`.
    LongWeekday,
    /// `%u`.
    WeekdayFromMonday,
    /// `%w`.
    WeekdayFromSunday,
    /// `%H`.
    Hour,
    /// `%I`.
    Hour12,
    /// `%p`.
    HalfOfDay,
    /// `%M`.
    Minute,
    /// `%S`.
    Second,
    /// `%s`.
    Epoch,
    /// `%f`, `%1f` to `%9f`: that many digits of the fraction of the second.
    Fraction(u8),
}

/// Names of the months, January first.
pub const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
/// Names of the days of a week, Sunday first.
pub const DAYS: [&str; 7] =
    ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

impl TimeFormat {
    /// `2026-11-23T13:30:00.123Z`.
    pub(super) fn iso_millis() -> Self {
        // An empty list stands for it: it is the usual one and has a short path.
        Self { items: Box::default() }
    }

    /// A time as `2026-11-23T13:30:00.123Z`.
    pub fn utc(time: SystemTime) -> String {
        let mut out = Vec::new();
        Civil::of(time).iso_millis(&mut out);
        String::from_utf8(out).unwrap_or_default()
    }

    /// Parses a pattern; `None` when it has a conversion we do not know.
    pub(super) fn parse(pattern: &str) -> Option<Self> {
        let mut items = Vec::new();
        let mut text = String::new();
        let mut rest = pattern.chars();
        while let Some(character) = rest.next() {
            if character != '%' {
                text.push(character);
                continue;
            }
            let mut found = Vec::new();
            conversion(&mut rest, &mut text, &mut found)?;
            if !found.is_empty() && !text.is_empty() {
                items.push(TimeItem::Text(std::mem::take(&mut text).into()));
            }
            items.append(&mut found);
        }
        if !text.is_empty() {
            items.push(TimeItem::Text(text.into()));
        }
        Some(Self { items: items.into() })
    }

    /// Appends a time.
    pub(super) fn write(&self, out: &mut Vec<u8>, time: SystemTime) {
        let civil = Civil::of(time);
        if self.items.is_empty() {
            return civil.iso_millis(out);
        }
        for item in &self.items {
            civil.item(out, item);
        }
    }
}

fn conversion(
    rest: &mut std::str::Chars<'_>,
    text: &mut String,
    items: &mut Vec<TimeItem>,
) -> Option<()> {
    use TimeItem as I;
    let colon = || I::Text(":".into());
    let last = match rest.next()? {
        'Y' => I::Year,
        'y' => I::ShortYear,
        'm' => I::Month,
        'b' | 'h' => I::MonthName,
        'B' => I::LongMonthName,
        'd' => I::Day,
        'e' => I::PaddedDay,
        'j' => I::DayOfYear,
        'a' => I::Weekday,
        'A' => I::LongWeekday,
        'u' => I::WeekdayFromMonday,
        'w' => I::WeekdayFromSunday,
        'H' => I::Hour,
        'I' => I::Hour12,
        'p' => I::HalfOfDay,
        'M' => I::Minute,
        'S' => I::Second,
        's' => I::Epoch,
        'f' => I::Fraction(9),
        digit @ '1'..='9' => {
            (rest.next()? == 'f').then_some(())?;
            I::Fraction(u8::try_from(digit.to_digit(10)?).ok()?)
        }
        'E' => {
            let digits = rest.next()?.to_digit(10).filter(|digits| (1..=9).contains(digits))?;
            (rest.next()? == 'S').then_some(())?;
            items.extend([I::Second, I::Text(".".into())]);
            I::Fraction(u8::try_from(digits).ok()?)
        }
        'T' => {
            items.extend([I::Hour, colon(), I::Minute, colon()]);
            I::Second
        }
        'R' => {
            items.extend([I::Hour, colon()]);
            I::Minute
        }
        'F' => {
            let dash = || I::Text("-".into());
            items.extend([I::Year, dash(), I::Month, dash()]);
            I::Day
        }
        'D' => {
            let slash = || I::Text("/".into());
            items.extend([I::Month, slash(), I::Day, slash()]);
            I::ShortYear
        }
        other => {
            text.push_str(match other {
                'z' => "+0000",
                'Z' => "UTC",
                '%' => "%",
                'n' => "\n",
                't' => "\t",
                _ => return None,
            });
            return Some(());
        }
    };
    items.push(last);
    Some(())
}

/// A point in time, taken apart.
struct Civil {
    epoch: u64,
    nanos: u32,
    year: u32,
    /// 1 to 12.
    month: u32,
    /// 1 to 31.
    day: u32,
    /// 0 is Sunday.
    weekday: u32,
    /// 1 to 366.
    day_of_year: u32,
    hour: u32,
    minute: u32,
    second: u32,
}

impl Civil {
    fn of(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let epoch = since.as_secs();
        let low = |value: u64| u32::try_from(value).unwrap_or(0);
        let (days, clock) = (epoch / 86_400, low(epoch % 86_400));
        // Years that begin in March make the leap day the last one; an era has 400 of them.
        let shifted = days + 719_468;
        let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_march_year =
            day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let march_month = (5 * day_of_march_year + 2) / 153;
        let day = low(day_of_march_year - (153 * march_month + 2) / 5 + 1);
        let month = low(if march_month < 10 { march_month + 3 } else { march_month - 9 });
        let year = low(era * 400 + year_of_era) + u32::from(month <= 2);
        let leap =
            year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
        let march_day = low(day_of_march_year);
        let day_of_year =
            if march_day >= 306 { march_day - 305 } else { march_day + 60 + u32::from(leap) };
        Self {
            epoch,
            nanos: since.subsec_nanos(),
            year,
            month,
            day,
            weekday: low((days + 4) % 7),
            day_of_year,
            hour: clock / 3_600,
            minute: clock / 60 % 60,
            second: clock % 60,
        }
    }

    fn iso_millis(&self, out: &mut Vec<u8>) {
        digits(out, self.year, 4);
        out.push(b'-');
        digits(out, self.month, 2);
        out.push(b'-');
        digits(out, self.day, 2);
        out.push(b'T');
        digits(out, self.hour, 2);
        out.push(b':');
        digits(out, self.minute, 2);
        out.push(b':');
        digits(out, self.second, 2);
        out.push(b'.');
        digits(out, self.nanos / 1_000_000, 3);
        out.push(b'Z');
    }

    fn item(&self, out: &mut Vec<u8>, item: &TimeItem) {
        let month = || MONTHS.get(self.month as usize - 1).copied().unwrap_or_default();
        let weekday = || DAYS.get(self.weekday as usize).copied().unwrap_or_default();
        let short = |name: &'static str| name.get(..3).unwrap_or(name).as_bytes();
        match item {
            TimeItem::Text(text) => out.extend_from_slice(text.as_bytes()),
            TimeItem::Year => digits(out, self.year, 4),
            TimeItem::ShortYear => digits(out, self.year % 100, 2),
            TimeItem::Month => digits(out, self.month, 2),
            TimeItem::MonthName => out.extend_from_slice(short(month())),
            TimeItem::LongMonthName => out.extend_from_slice(month().as_bytes()),
            TimeItem::Day => digits(out, self.day, 2),
            TimeItem::PaddedDay => {
                if self.day < 10 {
                    out.push(b' ');
                }
                digits(out, self.day, 1);
            }
            TimeItem::DayOfYear => digits(out, self.day_of_year, 3),
            TimeItem::Weekday => out.extend_from_slice(short(weekday())),
            TimeItem::LongWeekday => out.extend_from_slice(weekday().as_bytes()),
            TimeItem::WeekdayFromMonday => {
                digits(out, if self.weekday == 0 { 7 } else { self.weekday }, 1);
            }
            TimeItem::WeekdayFromSunday => digits(out, self.weekday, 1),
            TimeItem::Hour => digits(out, self.hour, 2),
            TimeItem::Hour12 => digits(out, (self.hour + 11) % 12 + 1, 2),
            TimeItem::HalfOfDay => {
                out.extend_from_slice(if self.hour < 12 { b"AM" } else { b"PM" });
            }
            TimeItem::Minute => digits(out, self.minute, 2),
            TimeItem::Second => digits(out, self.second, 2),
            TimeItem::Epoch => {
                out.extend_from_slice(itoa::Buffer::new().format(self.epoch).as_bytes());
            }
            TimeItem::Fraction(width) => {
                digits(out, self.nanos / 10_u32.pow(9 - u32::from(*width)), usize::from(*width));
            }
        }
    }
}

/// Appends a number with zeros in front until it has `width` digits.
fn digits(out: &mut Vec<u8>, number: u32, width: usize) {
    let mut buffer = itoa::Buffer::new();
    let text = buffer.format(number).as_bytes();
    for _ in text.len()..width {
        out.push(b'0');
    }
    out.extend_from_slice(text);
}
