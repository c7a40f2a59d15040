//! finale is the client, other programs serve.

use finale::{ConnectOptions, Event, Reactor, Stream};
use finale_tls::{Tls, TlsSocket};

use crate::programs::{Other, Version};
use crate::stage::{Files, Process, Seen, free_port, run};

/// Starts the server, and connects to it. `None` if it is not installed.
fn connect(
    other: Other,
    version: Version,
    mut program: impl FnMut(&mut Process, &mut TlsSocket<'_>, Event<'_>),
) -> Option<Seen> {
    let files = Files::new();
    let start = |port| Some((port, Process::start(other.server(&files, port, version)?)?));
    // Another program may have taken the port since: then this server exits.
    let listens = |started: &Option<(u16, Process)>| match started {
        Some((_, process)) => process.prints(other.listening()),
        None => true,
    };
    let mut tries = (0..10).map(|_| start(free_port()));
    let (port, mut process) = tries.find(listens).expect("a port stays free")?;
    let mut reactor = Reactor::new().expect("a reactor");
    let mut tls = Tls::new();
    let config = finale_tls::client_config(&files.certificate).expect("a good file");
    let (name, options) = ("localhost".try_into().expect("a name"), ConnectOptions::default());
    tls.connect(&mut reactor.context(), ("127.0.0.1", port), options, &config, name).expect("begun");
    Some(run(&mut reactor, &mut tls, |socket, event| program(&mut process, socket, event)))
}

const ALL: [Other; 4] = [Other::OpenSsl, Other::Node, Other::Python, Other::GnuTls];

/// What it answers to `hello`.
const fn echo(other: Other) -> &'static [u8] {
    match other {
        Other::OpenSsl => b"olleh\n",
        Other::Curl | Other::Node | Other::Python | Other::GnuTls => b"hello\n",
    }
}

#[test]
fn every_server_answers_and_ends_after_us() {
    for other in ALL {
        for version in Version::ALL {
            let mut received = 0;
            let found = connect(other, version, |_, socket, event| match event {
                Event::Ready => drop(socket.write(b"hello\n").expect("room")),
                Event::Data(bytes) => {
                    received += bytes.len();
                    if received >= echo(other).len() {
                        socket.end();
                    }
                }
                _ => {}
            });
            let Some(seen) = found else { continue };
            println!("{other:?}, {version:?}: {:?}: {}", String::from_utf8_lossy(&seen.data), seen.ending);
            assert!(seen.data.starts_with(echo(other)), "{other:?}, {version:?}: {seen:?}");
        }
    }
}

#[test]
fn a_server_that_reads_our_end_says_goodbye_after_it() {
    // The half-close: our side has ended, and theirs continues.
    for other in [Other::Node, Other::Python] {
        for version in Version::ALL {
            let found = connect(other, version, |_, socket, event| {
                if matches!(event, Event::Ready) {
                    socket.write(b"hello\n").expect("room");
                    socket.end();
                }
            });
            let Some(seen) = found else { continue };
            println!("{other:?}, {version:?}: {:?}: {}", String::from_utf8_lossy(&seen.data), seen.ending);
            assert!(seen.data == b"hello\ngoodbye", "{other:?}, {version:?}: {seen:?}");
            assert!(seen.has("end") && seen.ending.contains("clean"), "{other:?}, {version:?}: {seen:?}");
        }
    }
}

#[test]
fn a_server_that_is_killed_has_cut_its_stream() {
    for other in ALL {
        for version in Version::ALL {
            let found = connect(other, version, |process, socket, event| match event {
                Event::Ready => drop(socket.write(b"hello\n").expect("room")),
                Event::Data(_) => process.kill(),
                _ => {}
            });
            let Some(seen) = found else { continue };
            let error = seen.error.as_deref().unwrap_or_default();
            assert!(error.contains("truncated") && !seen.has("end"), "{other:?}, {version:?}: {seen:?}");
            assert!(seen.ending.contains("truncated"), "{other:?}, {version:?}: {seen:?}");
        }
    }
}
