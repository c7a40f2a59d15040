//! What is done in a run, as text: `client connect; client write 5; client end; server end`.
//!
//! Steps are separated by semicolons, and each takes 10 ms, or the time of its `wait`. What a plus
//! joins happens at the same time: `client end + server end`.

use std::fmt;
use std::time::Duration;

use super::setting::Setting;
use crate::errors::Error;
use crate::values;

/// Between two steps: each packet and its acknowledgement arrive meanwhile.
pub(crate) const STEP: Duration = Duration::from_millis(10);
/// Longer scripts are programs.
const MOST_ACTIONS: usize = 200;
/// The most bytes that one action writes: enough to fill every buffer.
const MOST_BYTES: u64 = 1 << 20;
/// The longest pause and delay: longer than every default limit.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// One side of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Side {
    Client,
    Server,
}

impl Side {
    pub(crate) const BOTH: [Self; 2] = [Self::Client, Self::Server];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
        }
    }
}

/// What one side does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Connect,
    Write(u64),
    End,
    Destroy,
    Pause,
    Resume,
    Discard,
    /// close(2) by a program without finale: its kernel closes the connection at once.
    Close,
    /// A child process gets a copy of the descriptor.
    Fork,
    /// Its program is stopped by SIGSTOP; its kernel continues.
    Freeze,
    /// SIGCONT.
    Thaw,
    /// Its program dies, and its kernel closes the connection.
    Crash,
    /// Its machine loses power.
    Vanish,
    /// Its machine loses power, and is back at once.
    Reboot,
    Set(Setting),
}

impl Verb {
    /// Those without an argument.
    const PLAIN: [Self; 13] = [
        Self::Connect,
        Self::End,
        Self::Destroy,
        Self::Pause,
        Self::Resume,
        Self::Discard,
        Self::Close,
        Self::Fork,
        Self::Freeze,
        Self::Thaw,
        Self::Crash,
        Self::Vanish,
        Self::Reboot,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Write(_) => "write",
            Self::End => "end",
            Self::Destroy => "destroy",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Discard => "discard",
            Self::Close => "close",
            Self::Fork => "fork",
            Self::Freeze => "freeze",
            Self::Thaw => "thaw",
            Self::Crash => "crash",
            Self::Vanish => "vanish",
            Self::Reboot => "reboot",
            Self::Set(_) => "set",
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Write(bytes) => write!(f, "{} {bytes}", self.name()),
            Self::Set(setting) => write!(f, "{} {setting}", self.name()),
            verb => f.write_str(verb.name()),
        }
    }
}

/// What happens at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Of(Side, Verb),
    /// The wire is cut: every packet is lost.
    Cut,
    Restore,
    /// Packets take this long.
    Delay(Duration),
    /// The next packet of this side is lost.
    Lose(Side),
    /// Packets wait on the wire.
    Hold,
    Release,
    Wait(Duration),
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Of(side, verb) => write!(f, "{} {verb}", side.name()),
            Self::Cut => f.write_str("network cut"),
            Self::Restore => f.write_str("network restore"),
            Self::Delay(time) => write!(f, "network delay {}", one_word(*time)),
            Self::Lose(side) => write!(f, "network lose {}", side.name()),
            Self::Hold => f.write_str("network hold"),
            Self::Release => f.write_str("network release"),
            Self::Wait(time) => write!(f, "wait {}", one_word(*time)),
        }
    }
}

/// As a script can contain it.
fn one_word(time: Duration) -> String {
    humantime::format_duration(time).to_string().replace(' ', "")
}

const GRAMMAR: &str = "write steps as `client connect; client write 5; server end; wait 1s; network cut`, \
                       with + between what happens at the same time; verbs: connect, write N, end, destroy, pause, \
                       resume, discard, close, fork, freeze, thaw, crash, vanish, reboot, set NAME VALUE; \
                       of the network: cut, restore, delay DUR, lose SIDE, hold, release";

/// The steps of a script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Script(pub(crate) Vec<Vec<Action>>);

impl Script {
    /// # Errors
    /// With the first part that is not an action, and the grammar.
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let mut actions = 0;
        let step = |text: &str| {
            let step = text.split('+').map(action).collect::<Result<Vec<_>, _>>()?;
            let waits = step.iter().any(|action| matches!(action, Action::Wait(_)));
            if waits && step.len() > 1 {
                return Err(Error::usage(format!("the script: {:?}: wait is a step of its own", text.trim())));
            }
            Ok(step)
        };
        let steps = text.split([';', '\n']).filter(|step| !step.trim().is_empty()).map(step);
        let steps = steps.collect::<Result<Vec<_>, _>>()?;
        for step in &steps {
            actions += step.len();
        }
        match actions {
            0 => Err(Error::usage(format!("the script has no step; {GRAMMAR}"))),
            1..=MOST_ACTIONS => {
                let script = Self(steps);
                script.settings_come_first()?;
                Ok(script)
            }
            _ => Err(Error::usage(format!("the script has {actions} actions; write at most {MOST_ACTIONS}"))),
        }
    }

    /// When each step begins, since the run began, and when the last one is over.
    pub(crate) fn times(&self) -> Vec<Duration> {
        let mut times = vec![Duration::ZERO];
        for step in &self.0 {
            let takes = if let [Action::Wait(time)] = step[..] { time } else { STEP };
            times.push(times.last().copied().unwrap_or_default() + takes);
        }
        times
    }

    /// What a side has set before it begins.
    pub(crate) fn settings(&self, side: Side) -> Vec<Setting> {
        let setting = |action: &Action| match *action {
            Action::Of(of, Verb::Set(setting)) if of == side => Some(setting),
            _ => None,
        };
        self.0.iter().flatten().filter_map(setting).collect()
    }

    /// A setting counts from the beginning of the connection.
    fn settings_come_first(&self) -> Result<(), Error> {
        let mut actions = self.0.iter().flatten().skip_while(|action| !matches!(action, Action::Of(_, Verb::Connect)));
        match actions.find(|action| matches!(action, Action::Of(_, Verb::Set(_)))) {
            Some(late) => Err(Error::usage(format!("the script: {late}: write it before `client connect`"))),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let step = |step: &Vec<Action>| step.iter().map(ToString::to_string).collect::<Vec<_>>().join(" + ");
        f.write_str(&self.0.iter().map(step).collect::<Vec<_>>().join("; "))
    }
}

fn side_of(name: &str) -> Option<Side> {
    Side::BOTH.into_iter().find(|known| known.name() == name)
}

fn action(text: &str) -> Result<Action, Error> {
    let words: Vec<_> = text.split_whitespace().collect();
    let wrong = |why: &str| Error::usage(format!("the script: {:?}: {why}; {GRAMMAR}", text.trim()));
    let time = |text: &str| values::duration_up_to(text, LONGEST, "a day").map_err(|why| wrong(&why));
    match words[..] {
        ["wait", duration] => Ok(Action::Wait(time(duration)?)),
        ["wait", ..] => Err(wrong("how long? wait DUR, in one word")),
        ["network", "cut"] => Ok(Action::Cut),
        ["network", "restore"] => Ok(Action::Restore),
        ["network", "hold"] => Ok(Action::Hold),
        ["network", "release"] => Ok(Action::Release),
        ["network", "lose", ref side @ ..] => {
            side_of(&side.join(" ")).map(Action::Lose).ok_or_else(|| wrong("lose client, or lose server"))
        }
        ["network", "delay", duration] => Ok(Action::Delay(time(duration)?)),
        ["network", "delay", ..] => Err(wrong("how long? delay DUR, in one word")),
        ["network", ..] => Err(wrong("the network does no such thing")),
        [side, ref verb @ ..] => {
            let side = side_of(side);
            let side = side.ok_or_else(|| wrong("it does not begin with client, server, network or wait"))?;
            let verb = match *verb {
                ["write"] => return Err(wrong("how many bytes? write N")),
                ["write", size] => match values::size(size) {
                    Ok(bytes @ 1..=MOST_BYTES) => Verb::Write(bytes),
                    Ok(_) => return Err(wrong("write 1 byte to 1 MiB")),
                    Err(why) => return Err(wrong(&why)),
                },
                ["set", name, value] => Verb::Set(Setting::parse(name, value).map_err(|why| wrong(&why))?),
                [name] => {
                    Verb::PLAIN.into_iter().find(|verb| verb.name() == name).ok_or_else(|| wrong("no such verb"))?
                }
                _ => return Err(wrong("no such action")),
            };
            if (side, verb) == (Side::Server, Verb::Connect) {
                return Err(wrong("the server listens, and the client connects"));
            }
            Ok(Action::Of(side, verb))
        }
        [] => Err(wrong("it is empty")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_read_and_printed_as_it_was_written() {
        let text = "server set idle-timeout 1m5s; client connect; client write 5 + server write 1048576; wait 1m5s; \
                    network delay 20ms; network lose client; network hold; network release; server crash";
        let script = Script::parse(text).expect("it is one");
        assert_eq!((script.0[2].len(), script.to_string()), (2, text.to_owned()));
        assert!(Script::parse(&text.replace("1m5s", "1m 5s")).is_err(), "a duration is one word");
    }

    #[test]
    fn each_step_takes_ten_milliseconds_or_the_time_of_its_wait() {
        let script = Script::parse("client connect; wait 5us; client end + server end").expect("it is one");
        assert_eq!(script.times().iter().map(Duration::as_micros).collect::<Vec<_>>(), [0, 10_000, 10_005, 20_005]);
    }

    #[test]
    fn what_is_no_script_is_refused_with_the_part_that_is_wrong() {
        let many = "client end;".repeat(201);
        for (text, part) in [
            ("", "no step"),
            (" ; ;", "no step"),
            ("client", "\"client\""),
            ("client jump", "no such verb"),
            ("cleint end", "\"cleint end\""),
            ("server connect", "the client connects"),
            ("client write", "how many bytes"),
            ("client write 0", "1 byte to 1 MiB"),
            ("client write 2MiB", "1 byte to 1 MiB"),
            ("client write x", "not a size"),
            ("wait 2d", "longer than a day"),
            ("wait 5", "unit is missing"),
            ("client end + ", "it is empty"),
            ("wait", "how long? wait DUR"),
            ("client connect; wait", "how long? wait DUR"),
            ("wait 1m 5s", "in one word"),
            ("network delay", "how long? delay DUR"),
            ("network lose", "lose client"),
            ("network lose it", "lose client"),
            ("client set linger 1s", "no such setting"),
            ("client connect; server set deadline 1s", "before `client connect`"),
            ("client end + wait 1s", "wait is a step of its own"),
            (&many, "201 actions"),
        ] {
            let error = Script::parse(text).expect_err(text);
            assert!(error.is_usage() && error.to_string().contains(part), "{text}: {error}");
        }
    }
}
