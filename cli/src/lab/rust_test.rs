//! A run as a Rust test: the client's part as a script of the simulated network, against a server
//! that the reader replaces by their own.

use std::fmt;
use std::fmt::Write as _;
use std::time::Duration;

use finale::sim::{Network, Script as Client};
use finale::{Event, ListenOptions, Reactor};

use crate::errors::Error;
use crate::trace::{Action, Script, Side, Step, Verb};

/// A call that makes the client's script longer.
#[derive(Clone, Copy)]
enum Call {
    Wait(Duration),
    Send(u64),
    Finish,
    Reset,
    Close,
    Vanish,
    StopReading,
    ReadOn,
}

impl Call {
    /// What a scripted client can do of it.
    const fn of(verb: Verb) -> Option<Self> {
        match verb {
            Verb::Write(bytes) => Some(Self::Send(bytes)),
            Verb::End => Some(Self::Finish),
            Verb::Destroy => Some(Self::Reset),
            Verb::Close | Verb::Crash => Some(Self::Close),
            Verb::Vanish => Some(Self::Vanish),
            Verb::Pause => Some(Self::StopReading),
            Verb::Resume => Some(Self::ReadOn),
            _ => None,
        }
    }

    fn apply(self, client: Client) -> Client {
        match self {
            Self::Wait(time) => client.wait(time),
            Self::Send(bytes) => client.send(&vec![b'x'; usize::try_from(bytes).unwrap_or(0)]),
            Self::Finish => client.finish(),
            Self::Reset => client.reset(),
            Self::Close => client.close(),
            Self::Vanish => client.vanish(),
            Self::StopReading => client.stop_reading(),
            Self::ReadOn => client.read_on(),
        }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wait(time) => write!(f, ".wait(Duration::from_micros({}))", time.as_micros()),
            Self::Send(bytes) => write!(f, ".send(&[b'x'; {bytes}])"),
            Self::Finish => f.write_str(".finish()"),
            Self::Reset => f.write_str(".reset()"),
            Self::Close => f.write_str(".close()"),
            Self::Vanish => f.write_str(".vanish()"),
            Self::StopReading => f.write_str(".stop_reading()"),
            Self::ReadOn => f.write_str(".read_on()"),
        }
    }
}

/// The text of a file for `tests/`. It expects the endings that the server in it gets here.
///
/// # Errors
/// If there is no client in the script; as those of the reactor.
pub(super) fn of(script: &Script) -> Result<String, Error> {
    let mut out = String::from("//! Made by `finale lab` from this script:\n//!\n");
    for step in Step::all(script) {
        let _ = writeln!(out, "//! {:>12} us  {}", step.at_us, step.text);
    }
    let (calls, left_out) = client(script)?;
    out += "//!\n//! What the server does in it is left to the server of the test.\n";
    if !left_out.is_empty() {
        let _ = writeln!(out, "//! A scripted client can't do this, so it is left out: {}.", left_out.join("; "));
    }
    out += HEAD;
    for call in &calls {
        let _ = write!(out, "\n        {call}");
    }
    let endings = play(calls.into_iter().fold(Client::new(), |client, call| call.apply(client)))?;
    // In the form that rustfmt gives to long lines.
    let expected = match endings.is_empty() {
        true => "assert!(endings.is_empty(), \"{endings:?}\");".to_owned(),
        false => format!("assert_eq!(\n        endings,\n        {endings:?}\n    );"),
    };
    let _ = write!(out, "{SERVER}    {expected}\n    Ok(())\n}}\n");
    Ok(out)
}

/// What the client does, and what it can't do.
fn client(script: &Script) -> Result<(Vec<Call>, Vec<String>), Error> {
    let (mut calls, mut left_out, mut last) = (Vec::new(), Vec::new(), None);
    for (step, at) in script.0.iter().zip(script.times()) {
        for action in step {
            let verb = match action {
                Action::Of(Side::Client, Verb::Connect) => {
                    last = Some(at);
                    continue;
                }
                Action::Of(Side::Client, verb) => *verb,
                Action::Of(Side::Server, _) | Action::Wait(_) => continue,
                other => {
                    left_out.push(other.to_string());
                    continue;
                }
            };
            let (Some(before), Some(call)) = (last, Call::of(verb)) else {
                left_out.push(action.to_string());
                continue;
            };
            if at > before {
                calls.push(Call::Wait(at - before));
            }
            calls.push(call);
            last = Some(at);
        }
    }
    if last.is_none() {
        return Err(Error::usage("the client does not connect in this script; a test needs that"));
    }
    Ok((calls, left_out))
}

/// Plays the test that is written.
fn play(client: Client) -> Result<Vec<String>, Error> {
    let network = Network::new(1);
    let mut reactor = Reactor::with_net(network.host([10, 0, 0, 1].into()));
    let listener = reactor.listen("10.0.0.1:80", ListenOptions::default())?;
    let played = network.peer([10, 0, 0, 2].into()).play(listener.addr, client);
    played.map_err(|source| Error::io("play the client", source))?;
    let mut endings = Vec::new();
    // A client that connects and vanishes is ended by a limit within this time.
    let until = reactor.now() + Duration::from_secs(24 * 60 * 60);
    while let Some((mut socket, event)) = reactor.next_before(until)? {
        match event {
            Event::End => {
                socket.write(b"answer")?;
                socket.end();
            }
            Event::Close(ending) => {
                endings.push(ending.to_string());
                reactor.close_listener(listener.id)?;
            }
            _ => {}
        }
    }
    Ok(endings)
}

const HEAD: &str = r#"
use std::time::Duration;

use finale::sim::{Network, Script};
use finale::{Event, ListenOptions, Reactor};

#[test]
fn the_server_meets_the_client_of_the_lab() -> Result<(), finale::Error> {
    let network = Network::new(1);
    let mut reactor = Reactor::with_net(network.host([10, 0, 0, 1].into()));
    let listener = reactor.listen("10.0.0.1:80", ListenOptions::default())?;
    let client = Script::new()"#;

const SERVER: &str = r#";
    network.peer([10, 0, 0, 2].into()).play(listener.addr, client).expect("there is a route");

    // Put your server here. This one reads everything, answers at the end, and finishes.
    let mut endings = Vec::new();
    let until = reactor.now() + Duration::from_secs(24 * 60 * 60);
    while let Some((mut socket, event)) = reactor.next_before(until)? {
        match event {
            Event::End => {
                socket.write(b"answer")?;
                socket.end();
            }
            Event::Close(ending) => {
                endings.push(ending.to_string());
                reactor.close_listener(listener.id)?;
            }
            _ => {}
        }
    }
"#;

#[cfg(test)]
mod tests {
    use super::*;

    fn text(script: &str) -> String {
        of(&Script::parse(script).expect("it is a script")).expect("there is a client")
    }

    /// `tests/simulated/` compiles and runs this file.
    #[test]
    fn the_test_of_a_run_is_the_one_that_the_library_runs() {
        let script = "client set deadline 1m; client connect; client write 5 + server end; wait 1s; network cut; \
                      client pause; client end";
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/simulated/from_the_lab.rs");
        let kept = std::fs::read_to_string(path).expect("it is there");
        assert_eq!(text(script), kept, "if the change is wanted, write this to {path}");
    }

    #[test]
    fn each_thing_that_a_client_does_is_in_the_test() {
        let calls = [
            ("end", ".finish()"),
            ("destroy", ".reset()"),
            ("close", ".close()"),
            ("crash", ".close()"),
            ("vanish", ".vanish()"),
            ("resume", ".read_on()"),
        ];
        for (verb, call) in calls {
            assert!(text(&format!("client connect; client {verb}")).contains(call), "{verb}");
        }
        let script = Script::parse("wait 1s").expect("it is a script");
        assert!(of(&script).is_err_and(|error| error.to_string().contains("does not connect")));
    }
}
