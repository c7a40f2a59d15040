//! Signals that end `finale connect`.

use std::io::{ErrorKind, Read as _, Write as _};
use std::process::Stdio;

use crate::common::{command, finish, pid};
use crate::connect::{server, wait_until_full};
use rustix::process::{Signal, kill_process};

#[test]
fn a_signal_resets_the_connection_reports_its_ending_and_is_the_exit_code() {
    for (signal, name, code) in
        [(Signal::INT, "SIGINT", 130), (Signal::TERM, "SIGTERM", 143), (Signal::HUP, "SIGHUP", 129)]
    {
        let (addr, server) = server(|mut stream| {
            stream.write_all(b"!").expect("the client reads");
            stream.read(&mut [0]).map_err(|error| error.kind())
        });
        let mut child = command(&["connect", &addr]).stdin(Stdio::piped()).spawn().expect("it starts");
        let _open = child.stdin.take();
        child.stdout.as_mut().expect("it is a pipe").read_exact(&mut [0]).expect("it is connected");
        kill_process(pid(&child), signal).expect("it runs");
        let outcome = finish(child);
        assert_eq!(outcome.code, Some(code), "{outcome:?}");
        assert_eq!(
            outcome.stderr.lines().next(),
            Some(&*format!("finale: {addr}: interrupted by {name}, resetting it"))
        );
        assert!(outcome.last_line().contains("destroyed by us; neither side finished; 1 byte read"), "{outcome:?}");
        assert_eq!(outcome.stderr.lines().count(), 2, "{outcome:?}");
        assert_eq!(server.join().expect("the server ends"), Err(ErrorKind::ConnectionReset));
    }
}

/// Ctrl-C ends the producer of stdin, too, and the peer must not take that for the end of the input.
#[test]
fn an_end_of_stdin_after_a_signal_is_no_end_of_the_input() {
    for _ in 0..20 {
        let (addr, server) = server(|mut stream| {
            stream.write_all(b"!").expect("the client reads");
            stream.read(&mut [0]).map_err(|error| error.kind())
        });
        let mut child = command(&["connect", &addr]).stdin(Stdio::piped()).spawn().expect("it starts");
        let stdin = child.stdin.take();
        child.stdout.as_mut().expect("it is a pipe").read_exact(&mut [0]).expect("it is connected");
        kill_process(pid(&child), Signal::INT).expect("it runs");
        drop(stdin);
        assert_eq!(finish(child).code, Some(130));
        assert_eq!(server.join().expect("the server ends"), Err(ErrorKind::ConnectionReset));
    }
}

/// Another thread could take the signal, and not run until the end of stdin was seen.
#[test]
fn the_helper_threads_handle_no_signal() {
    let (addr, server) = server(|mut stream| {
        stream.write_all(b"!").expect("the client reads");
        stream.read(&mut [0]).expect("the client ends")
    });
    let mut child = command(&["connect", &addr]).stdin(Stdio::piped()).spawn().expect("it starts");
    child.stdout.as_mut().expect("it is a pipe").read_exact(&mut [0]).expect("it is connected");
    let threads = std::fs::read_dir(format!("/proc/{}/task", child.id())).expect("it runs");
    let open: Vec<_> = threads
        .map(|thread| thread.expect("it runs").path())
        .filter(|path| {
            let status = std::fs::read_to_string(path.join("status")).expect("a thread of it lives on");
            let blocked = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).expect("Linux has it");
            let blocked = u64::from_str_radix(blocked.trim(), 16).expect("a mask");
            [Signal::HUP, Signal::INT, Signal::TERM].iter().any(|signal| blocked & 1 << (signal.as_raw() - 1) == 0)
        })
        .collect();
    assert_eq!(open, [std::path::PathBuf::from(format!("/proc/{0}/task/{0}", child.id()))]);
    drop(child.stdin.take());
    assert_eq!((finish(child).code, server.join().expect("the server ends")), (Some(0), 0));
}

#[test]
fn a_signal_ends_it_while_stdout_is_full() {
    let (addr, server) = server(|mut stream| while stream.write_all(&[b'x'; 64 << 10]).is_ok() {});
    let mut child = command(&["connect", &addr]).spawn().expect("it starts");
    let unread = child.stdout.take().expect("it is a pipe");
    wait_until_full(&unread);
    kill_process(pid(&child), Signal::TERM).expect("it runs");
    let outcome = finish(child);
    assert_eq!(outcome.code, Some(143), "{outcome:?}");
    assert!(outcome.last_line().contains("destroyed by us"), "{outcome:?}");
    drop(unread);
    server.join().expect("the server ends");
}

/// Less than an empty pipe takes: a large write would block.
#[test]
fn a_signal_ends_it_after_a_slow_reader_has_read_a_part() {
    let (addr, server) = server(|mut stream| while stream.write_all(&[b'x'; 64 << 10]).is_ok() {});
    let mut child = command(&["connect", &addr]).spawn().expect("it starts");
    let mut slow = child.stdout.take().expect("it is a pipe");
    wait_until_full(&slow);
    slow.read_exact(&mut [0; 8192]).expect("it is full");
    wait_until_full(&slow);
    kill_process(pid(&child), Signal::TERM).expect("it runs");
    let outcome = finish(child);
    assert_eq!(outcome.code, Some(143), "{outcome:?}");
    drop(slow);
    server.join().expect("the server ends");
}

#[test]
fn a_signal_that_was_ignored_at_the_start_stays_ignored() {
    let (addr, server) = server(|mut stream| {
        stream.write_all(b"!").expect("the client reads");
        stream.read(&mut [0]).expect("the client continues")
    });
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", r#"trap "" HUP INT; exec "$FINALE" connect "$ADDR""#]).env("ADDR", &addr);
    shell.env("FINALE", env!("CARGO_BIN_EXE_finale")).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = shell.stderr(Stdio::piped()).spawn().expect("there is a shell");
    let mut stdin = child.stdin.take().expect("it is a pipe");
    child.stdout.as_mut().expect("it is a pipe").read_exact(&mut [0]).expect("it is connected");
    for signal in [Signal::HUP, Signal::INT] {
        kill_process(pid(&child), signal).expect("it runs");
    }
    stdin.write_all(b"!").expect("it reads");
    drop(stdin);
    assert_eq!(server.join().expect("the server ends"), 1);
    assert_eq!(finish(child).code, Some(0));
}

#[test]
fn a_signal_ends_it_while_it_connects() {
    let path = std::env::temp_dir().join(format!("finale-full-{}", std::process::id()));
    let _of_a_run_that_was_killed = std::fs::remove_file(&path);
    let listener = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).expect("it can be made");
    listener.bind(&socket2::SockAddr::unix(&path).expect("it is short")).expect("the path is free");
    listener.listen(0).expect("it can listen");
    let _fills_the_backlog = std::os::unix::net::UnixStream::connect(&path).expect("there is room for one");
    let mut child = command(&["connect", &format!("unix:{}", path.display())]).spawn().expect("it starts");
    // This line shows that it is connecting.
    let mut line = [0; 8];
    child.stderr.as_mut().expect("it is a pipe").read_exact(&mut line).expect("it takes longer than a second");
    kill_process(pid(&child), Signal::INT).expect("it runs");
    let outcome = finish(child);
    assert_eq!(outcome.code, Some(130), "{outcome:?}");
    assert!(outcome.last_line().contains("destroyed by us"), "{outcome:?}");
    std::fs::remove_file(&path).expect("it is ours");
}
