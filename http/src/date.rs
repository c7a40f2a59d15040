//! The format of `Date`.

use std::time::{SystemTime, UNIX_EPOCH};

const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// A time in the format of HTTP (RFC 9110, section 5.6.7). Times before 1970 are 1970.
///
/// ```
/// use std::time::{Duration, UNIX_EPOCH};
/// let date = finale_http::date(UNIX_EPOCH + Duration::from_secs(784_111_777));
/// assert_eq!(date, "Sun, 06 Nov 1994 08:49:37 GMT");
/// ```
#[must_use]
pub fn date(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let weekday = DAYS[(days % 7) as usize];
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{weekday}, {day:02} {} {year:04} {hour:02}:{minute:02}:{second:02} GMT", MONTHS[month])
}

/// The year, the month from 0 and the day from 1 of a number of days since 1970.
fn civil(mut days: u64) -> (u64, usize, u64) {
    // 400 years have a fixed number of days.
    let mut year = 1970 + days / 146_097 * 400;
    days %= 146_097;
    let is_leap = |year: u64| year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400);
    while days >= 365 + u64::from(is_leap(year)) {
        days -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let lengths = [31, 28 + u64::from(is_leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while days >= lengths[month] {
        days -= lengths[month];
        month += 1;
    }
    (year, month, days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn leap_days_and_centuries_are_where_the_calendar_has_them() {
        let of = |days: u64| date(UNIX_EPOCH + Duration::from_secs(days * 86_400));
        assert_eq!(of(0), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(of(11_016), "Tue, 29 Feb 2000 00:00:00 GMT");
        assert_eq!(of(11_017), "Wed, 01 Mar 2000 00:00:00 GMT");
        assert_eq!(of(19_782), "Thu, 29 Feb 2024 00:00:00 GMT");
        assert_eq!(of(47_540), "Sun, 28 Feb 2100 00:00:00 GMT");
        assert_eq!(of(47_541), "Mon, 01 Mar 2100 00:00:00 GMT");
        assert_eq!(of(157_114), "Wed, 01 Mar 2400 00:00:00 GMT");
        assert_eq!(of(157_113), "Tue, 29 Feb 2400 00:00:00 GMT");
    }
}
