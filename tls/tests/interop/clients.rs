//! finale serves, other programs are the clients.

use finale::{Event, ListenOptions, Reactor, Stream};
use finale_tls::{Tls, TlsSocket};

use crate::programs::{Other, Version};
use crate::stage::{Files, Process, Seen, run};

/// An answer of many records, without a length: only the end of the stream says that it is whole.
fn answer() -> Vec<u8> {
    let mut answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".to_vec();
    answer.extend((0..300_000_u32).map(|at| b'a' + (at % 26) as u8));
    answer.extend_from_slice(b"\nthe end\n");
    answer
}

/// Starts the client, and serves it. `None` if it is not installed.
fn serve(
    other: Other,
    version: Version,
    ends: bool,
    prepare: impl FnOnce(&mut Process),
    mut program: impl FnMut(&mut Process, &mut TlsSocket<'_>, Event<'_>),
) -> Option<(Seen, Process)> {
    let files = Files::new();
    let mut reactor = Reactor::new().expect("a reactor");
    let listener = reactor.listen("127.0.0.1:0", ListenOptions::default()).expect("a free port");
    let mut tls = Tls::new();
    let config = finale_tls::server_config(&files.certificate, &files.key).expect("good files");
    tls.accept_on(listener.id, &config).expect("a good configuration");
    let port = listener.addr.ip().expect("TCP").port();
    let mut process = Process::start(other.client(&files, port, version, ends))?;
    prepare(&mut process);
    let seen = run(&mut reactor, &mut tls, |socket, event| program(&mut process, socket, event));
    Some((seen, process))
}

/// Answers a line, or an empty one of HTTP, and ends.
fn answer_line(socket: &mut TlsSocket<'_>, event: Event<'_>) {
    if let Event::Data(bytes) = event
        && bytes.ends_with(b"\n")
        && !socket.end_called()
    {
        socket.write(&answer()).expect("room");
        socket.end();
    }
}

/// The part of an answer that curl prints.
fn expected(other: Other) -> Vec<u8> {
    let answer = answer();
    if other == Other::Curl { answer[answer.len() - 300_009..].to_vec() } else { answer }
}

#[test]
fn every_client_gets_the_whole_answer_and_its_end() {
    for other in [Other::OpenSsl, Other::Curl, Other::Node, Other::Python, Other::GnuTls] {
        for version in Version::ALL {
            let is_piped = matches!(other, Other::OpenSsl | Other::GnuTls);
            let prepare = |process: &mut Process| {
                if is_piped {
                    process.write(b"request\n")
                }
            };
            let found = serve(other, version, false, prepare, |_, socket, event| answer_line(socket, event));
            let Some((seen, process)) = found else { continue };
            let (is_clean, output) = process.finish();
            let name = format!("{other:?}, {version:?}: {seen:?}");
            assert!(output == expected(other), "{} bytes: {name}", output.len());
            assert!(is_clean, "{name}");
            println!("{other:?}, {version:?}: {}", seen.ending);
        }
    }
}

#[test]
fn a_client_that_ends_its_side_first_is_seen_to_end_and_gets_the_answer() {
    // OpenSSL and curl end both sides at once, and Python can't read after its own end.
    for other in [Other::Node, Other::GnuTls] {
        for version in Version::ALL {
            let prepare = |process: &mut Process| {
                process.write(b"request\n");
                process.close_stdin();
            };
            let found = serve(other, version, true, prepare, |_, socket, event| {
                if matches!(event, Event::End) {
                    socket.write(&answer()).expect("room");
                    socket.end();
                }
            });
            let Some((seen, process)) = found else { continue };
            let (_, output) = process.finish();
            let name = format!("{other:?}, {version:?}: {seen:?}");
            assert!(seen.data == b"request\n" && seen.has("end"), "{name}");
            println!("{other:?}, {version:?}: {} of {} bytes, {}", output.len(), answer().len(), seen.ending);
            if version == Version::Tls13 {
                assert!(output == answer(), "{} bytes: {name}", output.len());
            }
        }
    }
}

#[test]
fn a_client_that_ends_without_an_answer_has_ended_and_was_not_cut() {
    for version in Version::ALL {
        let prepare = |process: &mut Process| {
            process.write(b"request\n");
            process.close_stdin();
        };
        let found = serve(Other::OpenSsl, version, true, prepare, |_, socket, event| {
            if matches!(event, Event::End) {
                socket.end();
            }
        });
        let Some((seen, _)) = found else { continue };
        assert!(seen.has("end") && seen.data == b"request\n", "{version:?}: {seen:?}");
    }
}

#[test]
fn a_client_that_is_killed_was_cut() {
    for other in [Other::OpenSsl, Other::Curl, Other::Node, Other::Python, Other::GnuTls] {
        for version in Version::ALL {
            let is_piped = matches!(other, Other::OpenSsl | Other::GnuTls);
            let prepare = |process: &mut Process| {
                if is_piped {
                    process.write(b"request\n")
                }
            };
            let found = serve(other, version, false, prepare, |process, _, event| {
                if matches!(event, Event::Data(_)) {
                    process.kill();
                }
            });
            let Some((seen, _)) = found else { continue };
            let error = seen.error.as_deref().unwrap_or_default();
            assert!(error.contains("truncated") && !seen.has("end"), "{other:?}, {version:?}: {seen:?}");
            assert!(seen.ending.contains("truncated"), "{other:?}, {version:?}: {seen:?}");
        }
    }
}

#[test]
fn a_client_that_is_told_of_no_end_does_not_take_the_answer_for_whole() {
    // The answer and a reset: what each makes of it is its own, but it gets no close_notify.
    for other in [Other::Curl, Other::Node, Other::Python] {
        for version in Version::ALL {
            let found = serve(
                other,
                version,
                false,
                |_| {},
                |_, socket, event| {
                    if matches!(event, Event::Data(_)) && !socket.destroy_called() {
                        socket.destroy();
                    }
                },
            );
            let Some((seen, process)) = found else { continue };
            let (is_clean, _) = process.finish();
            assert!(!is_clean, "{other:?}, {version:?}: {seen:?}");
        }
    }
}
