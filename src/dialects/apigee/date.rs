//! Points in time as Java prints them.
//!
//! Owns `SimpleDateFormat` patterns for UTC and the English language, and the calendar under them. Refuses time zones
//! other than UTC (there is no zone table here) and the clock: times are handed in.

/// A point in time taken apart, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Civil {
    /// The year; 0 is 1 BC.
    pub year: i64,
    /// 1 to 12.
    pub month: u32,
    /// 1 to 31.
    pub day: u32,
    /// 0 to 23.
    pub hour: u32,
    /// 0 to 59.
    pub minute: u32,
    /// 0 to 59.
    pub second: u32,
    /// 0 to 999.
    pub millisecond: u32,
    /// 0 for Sunday.
    pub weekday: u32,
    /// 1 to 366.
    pub day_of_year: u32,
}

const MILLIS_PER_DAY: i64 = 86_400_000;

impl Civil {
    /// From milliseconds since 1970.
    pub fn of_millis(millis: i64) -> Self {
        let days = millis.div_euclid(MILLIS_PER_DAY);
        let in_day = millis.rem_euclid(MILLIS_PER_DAY) as u32;
        let (year, month, day) = civil_of_days(days);
        Self {
            year,
            month,
            day,
            hour: in_day / 3_600_000,
            minute: in_day / 60_000 % 60,
            second: in_day / 1000 % 60,
            millisecond: in_day % 1000,
            weekday: (days + 4).rem_euclid(7) as u32,
            day_of_year: (days - days_of_civil(year, 1, 1)) as u32 + 1,
        }
    }

    /// Milliseconds since 1970.
    pub fn millis(&self) -> i64 {
        let days = days_of_civil(self.year, self.month, self.day);
        let seconds =
            i64::from(self.hour) * 3600 + i64::from(self.minute) * 60 + i64::from(self.second);
        days.saturating_mul(MILLIS_PER_DAY)
            .saturating_add(seconds * 1000 + i64::from(self.millisecond))
    }
}

/// Days since 1970 as a date. The year is counted from March, so that leap days come last.
fn civil_of_days(days: i64) -> (i64, u32, u32) {
    const DAYS_PER_ERA: i64 = 146_097;
    let shifted = days.saturating_add(719_468);
    let era = shifted.div_euclid(DAYS_PER_ERA);
    let day_of_era = shifted.rem_euclid(DAYS_PER_ERA);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month as u32, day as u32)
}

fn days_of_civil(year: i64, month: u32, day: u32) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_from_march = i64::from((month + 9) % 12);
    let day_of_year = (153 * month_from_march + 2) / 5 + i64::from(day) - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era.saturating_mul(146_097)
        .saturating_add(day_of_era - 719_468)
}

/// Months in English.
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
/// Days of the week in English, Sunday first.
pub const WEEKDAYS: [&str; 7] = [
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
];

/// `Wed, 21 Aug 2013 19:16:47 UTC`: how variables such as `system.time` read.
pub const VARIABLE_FORMAT: &str = "EEE, dd MMM yyyy HH:mm:ss z";

/// The longest run of one pattern letter that counts; longer ones pad no further.
const WIDTH_MAX: usize = 32;

/// A time by a pattern of `SimpleDateFormat`. `None` when a letter is not one of its letters or a quote is open.
pub fn format(pattern: &str, millis: i64) -> Option<String> {
    let time = Civil::of_millis(millis);
    let mut text = String::with_capacity(pattern.len() + 16);
    let mut rest = pattern;
    while let Some(first) = rest.chars().next() {
        if first == '\'' {
            let body = rest.get(1..)?;
            if let Some(after) = body.strip_prefix('\'') {
                text.push('\'');
                rest = after;
                continue;
            }
            rest = quoted(body, &mut text)?;
            continue;
        }
        let run = rest
            .chars()
            .take_while(|character| *character == first)
            .count();
        if first.is_ascii_alphabetic() {
            field(first, run.min(WIDTH_MAX), &time, &mut text)?;
        } else {
            text.extend(std::iter::repeat_n(first, run));
        }
        rest = rest.get(run * first.len_utf8()..)?;
    }
    Some(text)
}

/// Appends the text up to the closing quote, in which two quotes stand for one; gives what follows.
fn quoted<'p>(mut body: &'p str, into: &mut String) -> Option<&'p str> {
    loop {
        let (plain, after) = body.split_once('\'')?;
        into.push_str(plain);
        match after.strip_prefix('\'') {
            Some(more) => {
                into.push('\'');
                body = more;
            }
            None => return Some(after),
        }
    }
}

fn field(letter: char, width: usize, time: &Civil, into: &mut String) -> Option<()> {
    let number = |value: i64, into: &mut String| into.push_str(&format!("{value:0width$}"));
    let name = |names: &[&str], index: u32, into: &mut String| {
        let name = names.get(index as usize).copied().unwrap_or_default();
        into.push_str(if width >= 4 {
            name
        } else {
            name.get(..3).unwrap_or(name)
        });
    };
    match letter {
        'G' => into.push_str(if time.year > 0 { "AD" } else { "BC" }),
        'y' | 'Y' if width == 2 => into.push_str(&format!("{:02}", time.year.rem_euclid(100))),
        'y' | 'Y' => number(
            if time.year > 0 {
                time.year
            } else {
                1 - time.year
            },
            into,
        ),
        'M' | 'L' if width >= 3 => name(&MONTHS, time.month - 1, into),
        'M' | 'L' => number(i64::from(time.month), into),
        'd' => number(i64::from(time.day), into),
        'D' => number(i64::from(time.day_of_year), into),
        'E' => name(&WEEKDAYS, time.weekday, into),
        'u' => number(
            i64::from(if time.weekday == 0 { 7 } else { time.weekday }),
            into,
        ),
        'F' => number(i64::from((time.day - 1) / 7 + 1), into),
        'w' => number(
            i64::from(
                (time.day_of_year + 6 - time.weekday) / 7
                    + u32::from(!(time.day_of_year + 6 - time.weekday).is_multiple_of(7)),
            ),
            into,
        ),
        'W' => number(
            i64::from((time.day + 5 - (time.weekday + 6) % 7) / 7 + 1),
            into,
        ),
        'a' => into.push_str(if time.hour < 12 { "AM" } else { "PM" }),
        'H' => number(i64::from(time.hour), into),
        'k' => number(i64::from(if time.hour == 0 { 24 } else { time.hour }), into),
        'K' => number(i64::from(time.hour % 12), into),
        'h' => number(
            i64::from(if time.hour.is_multiple_of(12) {
                12
            } else {
                time.hour % 12
            }),
            into,
        ),
        'm' => number(i64::from(time.minute), into),
        's' => number(i64::from(time.second), into),
        'S' => number(i64::from(time.millisecond), into),
        'z' => into.push_str(if width >= 4 {
            "Coordinated Universal Time"
        } else {
            "UTC"
        }),
        'Z' => into.push_str("+0000"),
        'X' if width <= 3 => into.push('Z'),
        _ => return None,
    }
    Some(())
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        reason = "tests"
    )]
    use super::*;

    #[test]
    fn prints_as_java_does() {
        let millis = 1_377_112_607_089; // 2013-08-21T19:16:47.089Z, a Wednesday
        let cases = [
            (VARIABLE_FORMAT, "Wed, 21 Aug 2013 19:16:47 UTC"),
            ("yyyy-MM-dd'T'HH:mm:ss.SSSXXX", "2013-08-21T19:16:47.089Z"),
            ("yy/M/d h:mm a", "13/8/21 7:16 PM"),
            ("EEEE, MMMM d, yyyy", "Wednesday, August 21, 2013"),
            ("D k K u Z", "233 19 7 3 +0000"),
            ("'it''s' ''yyyy''", "it's '2013'"),
            ("", ""),
            ("G yyyyyy", "AD 002013"),
        ];
        for (pattern, expected) in cases {
            assert_eq!(
                format(pattern, millis).as_deref(),
                Some(expected),
                "{pattern}"
            );
        }
        assert_eq!(format("'open", millis), None);
        assert_eq!(format("b", millis), None);
        assert_eq!(format("yyyy-MM-dd", -1).as_deref(), Some("1969-12-31"));
        assert!(format("yyyy", i64::MAX).is_some() && format("yyyy", i64::MIN).is_some());
    }

    #[test]
    fn calendar_is_its_own_inverse() {
        for day in (-1_000_000..1_000_000).step_by(997) {
            let millis = day * MILLIS_PER_DAY + 12_345;
            assert_eq!(Civil::of_millis(millis).millis(), millis);
        }
        let leap = Civil::of_millis(1_709_164_800_000);
        assert_eq!(
            (
                leap.year,
                leap.month,
                leap.day,
                leap.weekday,
                leap.day_of_year
            ),
            (2024, 2, 29, 4, 60)
        );
    }
}
