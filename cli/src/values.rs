//! The values of arguments: numbers, sizes, durations and names, as people write them.
//!
//! A message of a parser completes the sentence "invalid value '5x' for '--grace <DUR>': ...".

use std::ops::RangeInclusive;
use std::time::Duration;

use clap::ValueEnum;

/// A year. A longer time is a mistake in the unit.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// 1 TiB takes minutes even on loopback. More is a mistake in the unit.
const LARGEST_BYTES: u64 = 1 << 40;

const WRITE_DURATION: &str = "write a number and a unit (ms, s, m, h or d), as 250ms, 2s or 1m";
const WRITE_BYTES: &str = r"write \r, \n, \t, \0, \\ or \x and two hexadecimal digits";
const WRITE_SIZE: &str = "write a number of bytes, as 64, 16KiB, 1MiB or 1GiB";

/// A parser of whole numbers in this range.
pub(crate) fn number<T: TryFrom<u64>>(
    range: RangeInclusive<u64>,
) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static {
    move |text| {
        // `parse` would accept a sign.
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        let number = text.parse().ok().filter(|number| digits && range.contains(number));
        number.and_then(|number| T::try_from(number).ok()).ok_or_else(|| match (*range.start(), *range.end()) {
            (from, u64::MAX) => format!("write a whole number, {from} or more"),
            (from, to) => format!("write a whole number from {from} to {to}"),
        })
    }
}

/// A parser of counts in this range: whole numbers, also with k or M for thousands and millions.
pub(crate) fn count<T: TryFrom<u64>>(
    range: RangeInclusive<u64>,
) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static {
    let number = number::<u64>(range.clone());
    move |text| {
        let units = [("k", 1_000), ("K", 1_000), ("M", 1_000_000)];
        let unit = units.iter().find_map(|(name, unit)| Some((text.strip_suffix(name)?, *unit)));
        let (digits, unit) = unit.unwrap_or((text, 1));
        let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        let count = digits.parse::<u64>().ok().filter(|_| is_number).and_then(|count| count.checked_mul(unit));
        let count = count.map_or_else(|| number("none"), |count| number(&count.to_string()));
        let write = |why| format!("{why}, as 500, 10k or 2M");
        count.map_err(write).and_then(|count| T::try_from(count).map_err(|_large| write("it is too large".to_owned())))
    }
}

/// A duration, zero included.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    duration_up_to(text, LONGEST, "a year")
}

/// One of at most this time, and its name.
pub(crate) fn duration_up_to(text: &str, longest: Duration, name: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(time) if time > longest => Err(format!("it is longer than {name}; {WRITE_DURATION}")),
        Ok(time) => Ok(time),
        Err(humantime::DurationError::UnknownUnit { unit, .. }) if unit.is_empty() => {
            Err(format!("the unit is missing; {WRITE_DURATION}"))
        }
        Err(_) => Err(format!("it is not a duration; {WRITE_DURATION}")),
    }
}

/// A duration that ends something, so zero is refused. The reactor's clock counts milliseconds.
pub(crate) fn time_limit(text: &str) -> Result<Duration, String> {
    const SHORTEST: Duration = Duration::from_millis(1);
    match duration(text)? {
        Duration::ZERO => Err("it must be longer than zero; leave the option out for its default".to_owned()),
        time if time < SHORTEST => Err(format!("it is shorter than 1ms; {WRITE_DURATION}")),
        time => Ok(time),
    }
}

/// A number of bytes.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    match text.parse::<bytesize::ByteSize>() {
        Ok(size) if size.as_u64() > LARGEST_BYTES => Err(format!("it is more than 1 TiB; {WRITE_SIZE}")),
        Ok(size) => Ok(size.as_u64()),
        Err(_) => Err(format!("it is not a size; {WRITE_SIZE}")),
    }
}

/// Bytes as text with escapes: `GET / HTTP/1.1\r\n\r\n`.
pub(crate) fn bytes(text: &str) -> Result<Box<[u8]>, String> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some((plain, escape)) = rest.split_once('\\') {
        bytes.extend_from_slice(plain.as_bytes());
        let hex = escape.strip_prefix('x').and_then(|digits| digits.get(..2));
        // `from_str_radix` would accept a sign.
        let hex = hex.filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let byte = match (escape.chars().next(), hex.map(|digits| u8::from_str_radix(digits, 16))) {
            (Some('x'), Some(Ok(byte))) => byte,
            (Some('r'), _) => b'\r',
            (Some('n'), _) => b'\n',
            (Some('t'), _) => b'\t',
            (Some('0'), _) => 0,
            (Some('\\'), _) => b'\\',
            (Some(other), _) => return Err(format!("\\{other} is no escape; {WRITE_BYTES}")),
            (None, _) => return Err(format!("it ends with \\; {WRITE_BYTES}")),
        };
        bytes.push(byte);
        rest = &escape[if hex.is_some() { 3 } else { 1 }..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    Ok(bytes.into())
}

/// The permissions of a file, octal.
pub(crate) fn file_mode(text: &str) -> Result<u32, String> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| digits && *mode <= 0o777);
    mode.ok_or_else(|| "write permissions as octal digits up to 777, as 660".to_owned())
}

/// A value as it is written on the command line.
pub(crate) fn name(value: impl ValueEnum) -> String {
    value.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        let read = [("0", 0), ("64", 64), ("16KiB", 16 << 10), ("1MiB", 1 << 20), ("1GiB", 1 << 30), ("2kB", 2000)];
        for (text, bytes) in read {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["-5", "", "many", "1XiB", "5TiB", "99999999999999999999", "99999999999GiB"] {
            assert!(size(text).is_err_and(|why| why.ends_with(WRITE_SIZE)), "{text}");
        }
    }

    #[test]
    fn counts_are_read_as_people_write_them() {
        for (text, number) in [("0", 0), ("7", 7), ("100k", 100_000), ("2K", 2_000), ("3M", 3_000_000)] {
            assert_eq!(count::<u64>(0..=u64::MAX)(text), Ok(number), "{text}");
        }
        for text in ["", "k", "1.5k", "-1k", "+1", "1 k", "1kk", "1G", "99999999999999999M", "many"] {
            let refused = Err("write a whole number, 0 or more, as 500, 10k or 2M".to_owned());
            assert_eq!(count::<u64>(0..=u64::MAX)(text), refused, "{text}");
        }
        let refused = Err("write a whole number from 1 to 16000, as 500, 10k or 2M".to_owned());
        assert_eq!(count::<u16>(1..=16_000)("17k"), refused);
        assert_eq!(count::<u16>(1..=16_000)("16k"), Ok(16_000));
    }

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, ms) in [("250ms", 250), ("2s", 2_000), ("1m", 60_000), ("0s", 0)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["-1s", "2", "", "soon", "366d", "99999999999999999999s"] {
            assert!(duration(text).is_err_and(|why| why.ends_with(WRITE_DURATION)), "{text}");
        }
        assert!(time_limit("0s").is_err());
        for text in ["1ns", "999us", "999us 999ns"] {
            assert!(time_limit(text).is_err_and(|why| why.starts_with("it is shorter than 1ms")), "{text}");
        }
        assert_eq!(time_limit("1ms"), Ok(Duration::from_millis(1)));
    }

    #[test]
    fn bytes_are_text_with_escapes() {
        let read: [(&str, &[u8]); 5] = [
            ("GET /\\r\\n", b"GET /\r\n"),
            ("", b""),
            (r"\t\0\\n", b"\t\0\\n"),
            (r"\x00\xfF\x411", b"\x00\xff\x411"),
            ("ä\\n", "ä\n".as_bytes()),
        ];
        for (text, expected) in read {
            assert_eq!(bytes(text).as_deref(), Ok(expected), "{text}");
        }
        for text in [r"\q", r"\x1", r"\x+1", r"\xäb", r"\ä", "end\\"] {
            assert!(bytes(text).is_err_and(|why| why.ends_with(WRITE_BYTES)), "{text}");
        }
    }

    #[test]
    fn permissions_are_octal_digits() {
        for (text, mode) in [("660", 0o660), ("0600", 0o600), ("0", 0), ("777", 0o777)] {
            assert_eq!(file_mode(text), Ok(mode), "{text}");
        }
        for text in ["", "888", "1777", "rw-rw----", "+660", "-1", "0o660"] {
            assert!(file_mode(text).is_err_and(|why| why.contains("octal")), "{text}");
        }
    }

    #[test]
    fn numbers_outside_their_range_are_refused_with_the_range_in_words() {
        assert_eq!(number::<u16>(1..=256)("256"), Ok(256));
        for text in ["0", "257", "-1", "+1", "", "1.5", "99999999999999999999"] {
            let refused = Err("write a whole number from 1 to 256".to_owned());
            assert_eq!(number::<u16>(1..=256)(text), refused, "{text}");
        }
        assert_eq!(number::<u64>(1..=u64::MAX)("0"), Err("write a whole number, 1 or more".to_owned()));
    }
}
