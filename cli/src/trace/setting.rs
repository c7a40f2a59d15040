//! What a script sets for one side before the connection begins: `server set idle-timeout 30s`.

use std::fmt;
use std::time::Duration;

use finale::{ConnectOptions, KeepAlive, ListenOptions};

use crate::values;

/// An option of a side, as the methods of [`ConnectOptions`] and [`ListenOptions`] have them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Setting {
    name: &'static str,
    value: Value,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Value {
    /// `None`: off.
    Time(Option<Duration>),
    Bytes(usize),
    Switch(bool),
}

/// The settings whose value is a time.
const TIMES: [&str; 8] = [
    "keep-alive",
    "user-timeout",
    "idle-timeout",
    "write-timeout",
    "half-closed-timeout",
    "close-timeout",
    "ending-timeout",
    "deadline",
];
const SIZES: [&str; 2] = ["send-buffer", "receive-buffer"];
const SWITCHES: [&str; 2] = ["half-open", "start-paused"];
/// A buffer of the kernel: one segment, to far more than a script writes.
const BUFFERS: std::ops::RangeInclusive<u64> = 1_024..=16 << 20;

impl Setting {
    /// # Errors
    /// In words: what is wrong, and what can be written.
    pub(crate) fn parse(name: &str, value: &str) -> Result<Self, String> {
        let known = |names: &[&'static str]| names.iter().find(|known| **known == name).copied();
        if let Some(name) = known(&TIMES) {
            let value = if value == "off" { None } else { Some(values::time_limit(value)?) };
            return Ok(Self { name, value: Value::Time(value) });
        }
        if let Some(name) = known(&SIZES) {
            let bytes = values::size(value)?;
            let fits = usize::try_from(bytes).ok().filter(|_| BUFFERS.contains(&bytes));
            let bytes = fits.ok_or_else(|| "a buffer has 1KiB to 16MiB".to_owned())?;
            return Ok(Self { name, value: Value::Bytes(bytes) });
        }
        match (known(&SWITCHES), value) {
            (Some(name), "on" | "off") => Ok(Self { name, value: Value::Switch(value == "on") }),
            (Some(_), _) => Err("write on or off".to_owned()),
            (None, _) => {
                let all = [&TIMES[..], &SIZES, &SWITCHES].concat().join(", ");
                Err(format!("there is no such setting; there are {all}"))
            }
        }
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.name)?;
        match self.value {
            Value::Time(Some(time)) => f.write_str(&humantime::format_duration(time).to_string().replace(' ', "")),
            Value::Bytes(bytes) => bytes.fmt(f),
            Value::Switch(true) => f.write_str("on"),
            Value::Time(None) | Value::Switch(false) => f.write_str("off"),
        }
    }
}

/// The probes of a connection that a script asks for: a lost peer is found after four times this
/// time.
const fn probes(time: Duration) -> KeepAlive {
    KeepAlive { idle: time, interval: time, count: 3 }
}

/// The two kinds of options have the same methods, and no trait.
macro_rules! apply {
    ($function:ident, $options:ty) => {
        pub(crate) fn $function(options: $options, settings: &[Setting]) -> $options {
            settings.iter().fold(options, |options, setting| match (setting.name, setting.value) {
                ("keep-alive", Value::Time(time)) => options.keep_alive(time.map(probes)),
                ("user-timeout", Value::Time(time)) => options.user_timeout(time),
                ("idle-timeout", Value::Time(time)) => options.idle_timeout(time),
                ("write-timeout", Value::Time(time)) => options.write_timeout(time),
                ("half-closed-timeout", Value::Time(time)) => options.half_closed_timeout(time),
                ("close-timeout", Value::Time(time)) => options.close_timeout(time),
                ("ending-timeout", Value::Time(time)) => options.ending_timeout(time),
                ("deadline", Value::Time(time)) => options.deadline(time),
                ("send-buffer", Value::Bytes(bytes)) => options.send_buffer_size(bytes),
                ("receive-buffer", Value::Bytes(bytes)) => options.receive_buffer_size(bytes),
                ("half-open", Value::Switch(on)) => options.allow_half_open(on),
                ("start-paused", Value::Switch(on)) => options.start_paused(on),
                _ => options,
            })
        }
    };
}

apply!(connect_options, ConnectOptions);
apply!(listen_options, ListenOptions);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_setting_is_read_printed_and_applied() {
        let values = [(&TIMES[..], "90s"), (&SIZES, "65536"), (&SWITCHES, "off"), (&["start-paused"], "on")];
        for (names, value) in values {
            for name in names.iter().filter(|name| **name != "start-paused" || value == "on") {
                let setting = Setting::parse(name, value).expect("it is one");
                assert_eq!(
                    Setting::parse(name, setting.to_string().split_once(' ').expect("two words").1),
                    Ok(setting)
                );
                let (plain, set) = (ConnectOptions::default(), connect_options(ConnectOptions::default(), &[setting]));
                assert_ne!(format!("{plain:?}"), format!("{set:?}"), "{name} changes the options of a client");
                let (plain, set) = (ListenOptions::default(), listen_options(ListenOptions::default(), &[setting]));
                assert_ne!(format!("{plain:?}"), format!("{set:?}"), "{name} changes the options of a server");
            }
        }
    }

    #[test]
    fn what_is_no_setting_is_refused_with_a_reason() {
        for (name, value, why) in [
            ("linger", "1s", "no such setting"),
            ("deadline", "soon", "not a duration"),
            ("deadline", "0s", "longer than zero"),
            ("send-buffer", "1", "1KiB to 16MiB"),
            ("half-open", "yes", "on or off"),
        ] {
            assert!(Setting::parse(name, value).is_err_and(|error| error.contains(why)), "{name} {value}");
        }
    }
}
