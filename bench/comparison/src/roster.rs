//! The servers that are measured, their names, and how each is started for a service.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Where the programs are.
#[derive(Debug, Clone)]
pub(crate) struct Tree {
    pub(crate) root: PathBuf,
}

impl Tree {
    pub(crate) fn finale(&self) -> PathBuf {
        self.root.join("target/release/finale")
    }

    pub(crate) fn load(&self) -> PathBuf {
        self.root.join("bench/target/release/load")
    }

    pub(crate) fn peer(&self, name: &str) -> PathBuf {
        self.root.join("bench/target/peers").join(name)
    }

    /// Raw data, trial pages, the stderr of servers.
    pub(crate) fn scratch(&self) -> PathBuf {
        self.root.join("target/compare")
    }

    pub(crate) fn ablation(&self, patch: &str) -> PathBuf {
        self.root.join("target/ablation").join(patch).join("finale")
    }
}

/// The service that a server provides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Service {
    /// Reads to the client's FIN, answers, ends.
    Answer { bytes: u64 },
    /// Answers as soon as the request has arrived, and finishes first.
    First { request: u64, answer: u64 },
    /// Sends back what arrives.
    Echo,
}

/// The peers, by the name of their program, with the name that the page uses.
const PEERS: &[(&str, &str)] = &[
    (BLOCKING, "C, blocking loop"),
    (EPOLL, "C, epoll"),
    (THREADED, "C, epoll, a second thread"),
    ("mio", "bare mio"),
    (USOCKETS, "uSockets"),
    (LIBUV, "libuv"),
    (TOKIO, "tokio, current_thread"),
    ("smol", "smol"),
    ("go", "Go"),
    ("node", "Node"),
];

pub(crate) const BLOCKING: &str = "blocking";
pub(crate) const EPOLL: &str = "epoll";
pub(crate) const THREADED: &str = "threaded";
pub(crate) const USOCKETS: &str = "usockets";
pub(crate) const LIBUV: &str = "libuv";
pub(crate) const TOKIO: &str = "tokio";
pub(crate) const HAND_OFF: &str = "finale-hand-off";
pub(crate) const CONFIRMED: &str = "finale-confirmed";
pub(crate) const DEFERRED: &str = "finale-deferred";

/// finale itself: the name, the page's name, and the arguments of `finale serve`.
const FINALES: &[(&str, &str, &[&str])] = &[
    (HAND_OFF, "**finale**, hand-off", &["--close", "hand-off"]),
    (CONFIRMED, "**finale**, confirmed close", &["--close", "confirmed"]),
    (DEFERRED, "**finale**, hand-off, deferred accept", &["--close", "hand-off", "--defer-accept", "1s"]),
];

/// Servers whose user-space instructions are not counted, and why.
const UNCOUNTED: &[(&str, &str)] =
    &[("node", "it compiles its code as it runs"), ("go", "valgrind can't run its runtime")];

/// A server that can be run here.
#[derive(Debug, Clone)]
pub(crate) struct Contestant {
    pub(crate) name: String,
    program: PathBuf,
    /// For finale only: how it closes, and its other arguments.
    finale: Option<Vec<String>>,
}

/// How the page calls a server, or a row of another kind.
pub(crate) fn label(name: &str) -> String {
    let finales = FINALES.iter().map(|(finale, label, _)| (*finale, *label));
    let known = finales.chain(PEERS.iter().copied()).find(|(known, _)| *known == name);
    known.map_or_else(|| name.to_owned(), |(_, label)| label.to_owned())
}

pub(crate) fn is_finale(name: &str) -> bool {
    finale_options(name).is_some()
}

/// What can be run here, and a line for each that can't.
pub(crate) fn roster(tree: &Tree) -> (Vec<Contestant>, Vec<String>) {
    let help = help(&tree.finale(), "serve");
    let mut here = Vec::new();
    let mut skipped = Vec::new();
    for (name, _, options) in FINALES {
        match options.iter().find(|option| !knows(&help, option)) {
            None => here.push(Contestant {
                name: (*name).to_owned(),
                program: tree.finale(),
                finale: Some(options.iter().map(|option| (*option).to_owned()).collect()),
            }),
            Some(option) => skipped.push(format!("{name}: this finale serve has no {option}")),
        }
    }
    for (name, _) in PEERS {
        let program = tree.peer(name);
        if program.exists() {
            here.push(Contestant { name: (*name).to_owned(), program, finale: None });
        } else {
            skipped.push(format!("{name}: not built here"));
        }
    }
    (here, skipped)
}

fn finale_options(name: &str) -> Option<&'static [&'static str]> {
    FINALES.iter().find(|(finale, ..)| *finale == name).map(|(.., options)| *options)
}

/// The help of a command: nothing, if there is no such command.
fn help(finale: &Path, command: &str) -> String {
    let output = Command::new(finale).args([command, "--help"]).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
}

fn knows(help: &str, option: &str) -> bool {
    !option.starts_with("--") || help.contains(option)
}

/// Whether `finale serve` of this tree knows an option.
pub(crate) fn finale_knows(tree: &Tree, option: &str) -> bool {
    knows(&help(&tree.finale(), "serve"), option)
}

/// Whether this tree's finale has a load generator.
pub(crate) fn finale_has_bench(tree: &Tree) -> bool {
    help(&tree.finale(), "bench").contains("--server-pid")
}

impl Contestant {
    /// Another build of finale, with the same arguments as the shipped one with a hand-off close.
    pub(crate) fn ablated(name: String, program: PathBuf) -> Self {
        let options = finale_options(HAND_OFF).unwrap_or_default();
        Self { name, program, finale: Some(options.iter().map(|option| (*option).to_owned()).collect()) }
    }

    /// Its command line for a service, if it has that service.
    pub(crate) fn argv(&self, service: Service) -> Option<Vec<String>> {
        let text = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<String>>();
        let rest = match (&self.finale, service) {
            (Some(options), Service::Answer { bytes }) => {
                [text(&["serve", "answer", "--listen", "127.0.0.1:0", "--bytes", &bytes.to_string()]), options.clone()]
                    .concat()
            }
            (Some(options), Service::First { request, answer }) => {
                let sizes = ["--bytes", &answer.to_string(), "--after", &request.to_string()];
                [text(&["serve", "answer", "--listen", "127.0.0.1:0"]), text(&sizes), options.clone()].concat()
            }
            (Some(options), Service::Echo) => {
                [text(&["serve", "echo", "--listen", "127.0.0.1:0"]), options.clone()].concat()
            }
            // For the echo alone: what the thread costs is the same for all.
            (None, Service::Answer { .. } | Service::First { .. }) if self.name == THREADED => return None,
            (None, Service::Answer { bytes }) => text(&["answer", &bytes.to_string()]),
            (None, Service::First { request, answer }) => text(&["first", &request.to_string(), &answer.to_string()]),
            // It takes a thread for each connection there, which is another server than the one that the page means.
            (None, Service::Echo) if self.name == BLOCKING => return None,
            (None, Service::Echo) => text(&["echo"]),
        };
        Some([vec![self.program.to_string_lossy().into_owned()], rest].concat())
    }

    /// Why its instructions are not counted, if they are not.
    pub(crate) fn instructions_uncounted(&self) -> Option<&'static str> {
        UNCOUNTED.iter().find(|(name, _)| *name == self.name).map(|(_, why)| *why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contestant(name: &str) -> Contestant {
        let options = finale_options(name).map(|options| options.iter().map(|word| (*word).to_owned()).collect());
        Contestant { name: name.into(), program: "/x/program".into(), finale: options }
    }

    #[test]
    fn every_server_is_asked_in_its_own_way() {
        let line = |name: &str, service| contestant(name).argv(service).map(|argv| argv.join(" "));
        let first = Service::First { request: 1, answer: 2 };
        assert_eq!(line(TOKIO, Service::Answer { bytes: 64 }).unwrap(), "/x/program answer 64");
        assert_eq!(line(TOKIO, first).unwrap(), "/x/program first 1 2");
        assert_eq!(
            line(HAND_OFF, first).unwrap(),
            "/x/program serve answer --listen 127.0.0.1:0 --bytes 2 --after 1 --close hand-off"
        );
        assert_eq!(
            line(DEFERRED, Service::Answer { bytes: 64 }).unwrap(),
            "/x/program serve answer --listen 127.0.0.1:0 --bytes 64 --close hand-off --defer-accept 1s"
        );
    }

    #[test]
    fn the_blocking_loop_is_no_echo_server_and_the_second_thread_is_for_the_echo() {
        assert_eq!(contestant(BLOCKING).argv(Service::Echo), None);
        assert!(contestant(EPOLL).argv(Service::Echo).is_some());
        assert!(contestant(THREADED).argv(Service::Echo).is_some());
        assert_eq!(contestant(THREADED).argv(Service::Answer { bytes: 64 }), None);
    }

    #[test]
    fn nobody_is_left_uncounted_who_is_not_a_peer() {
        for (name, _) in UNCOUNTED {
            assert!(PEERS.iter().any(|(peer, _)| peer == name), "{name}");
        }
    }

    #[test]
    fn every_finale_has_options_and_every_server_a_label() {
        for (name, label_there) in PEERS {
            assert_eq!((label(name).as_str(), is_finale(name)), (*label_there, false));
        }
        for (name, label_there, options) in FINALES {
            assert_eq!((label(name).as_str(), is_finale(name)), (*label_there, true));
            assert_eq!(options[0], "--close", "{name}");
        }
    }
}
