//! `finale connect` on a terminal, and on descriptors that another program has set to O_NONBLOCK.

use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Instant;

use crate::common::{PATIENCE, Server, command, finish, pid};
use crate::connect::server;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, fcntl_getfl, fcntl_setfl, open};
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};
use rustix::process::{Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

/// A terminal: the side of the person, and that of the program.
fn terminal() -> (File, OwnedFd) {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("there are terminals");
    grantpt(&ours).and_then(|()| unlockpt(&ours)).expect("it is ours");
    let name = ptsname(&ours, Vec::new()).expect("it has a name");
    let theirs =
        open(name.as_c_str(), OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty()).expect("it is unlocked");
    (File::from(ours), theirs)
}

/// All that appears on the terminal until its last program has closed it.
fn appeared(mut terminal: File) -> String {
    let (mut text, mut buffer) = (Vec::new(), [0; 4096]);
    // At the end a read fails with EIO.
    while let Ok(count @ 1..) = terminal.read(&mut buffer) {
        text.extend(&buffer[..count]);
    }
    String::from_utf8(text).expect("it is text").replace("\r\n", "\n")
}

fn copy(fd: &OwnedFd) -> Stdio {
    fd.try_clone().expect("descriptors are free").into()
}

fn is_writable(fd: &OwnedFd) -> bool {
    poll(&mut [PollFd::new(fd, PollFlags::OUT)], Some(&Timespec::default())).expect("it is open") == 1
}

/// A terminal that is writable, and takes less than 4096 bytes.
fn nearly_full() -> (File, OwnedFd) {
    let (mut ours, theirs) = terminal();
    let path = format!("/proc/self/fd/{}", theirs.as_raw_fd());
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let mut nonblocking = File::from(open(path, flags, Mode::empty()).expect("it is ours"));
    while is_writable(&theirs) {
        let _ = nonblocking.write(&[b'x'; 4096]);
    }
    while !is_writable(&theirs) {
        ours.read_exact(&mut [0; 64]).expect("it is full");
    }
    (ours, theirs)
}

fn flood(mut stream: TcpStream) {
    while stream.write_all(&[b'x'; 64 << 10]).is_ok() {}
}

#[test]
fn lines_of_events_do_not_run_into_lines_of_data() {
    let (addr, server) = server(|mut stream| {
        stream.write_all(b"no newline").expect("the client reads");
        stream.read(&mut [0]).expect("the client ends")
    });
    let (ours, theirs) = terminal();
    let mut command = command(&["connect", "-v", "--color", "never", &addr]);
    let mut child = command.stdout(copy(&theirs)).stderr(theirs).spawn().expect("it starts");
    drop(command); // It holds the terminal open.
    let text = appeared(ours);
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
    let events = format!("lookup 127.0.0.1\nconnect {addr}\nready\ndata, 10 bytes\nno newline\nend\nclose\nfinale: ");
    assert!(text.starts_with(&events), "{text}");
    server.join().expect("the server ends");
}

#[test]
fn the_ending_begins_a_line_of_its_own_and_log_lines_do_too() {
    let (addr, server) = server(|mut stream| stream.write_all(b"no newline").expect("the client reads"));
    let (ours, theirs) = terminal();
    let mut command = command(&["connect", &addr]);
    command.env("RUST_LOG", "finale=debug");
    let mut child = command.stdout(copy(&theirs)).stderr(theirs).spawn().expect("it starts");
    drop(command);
    let text = appeared(ours);
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
    assert!(text.lines().any(|line| line.ends_with("no newline")), "{text}");
    assert!(text.lines().last().is_some_and(|line| line.contains("finale:")), "{text}");
    server.join().expect("the server ends");
}

#[test]
fn when_the_peer_finishes_a_person_gets_the_prompt_back() {
    for option in [&[] as &[&str], &["--no-half-close"]] {
        let (addr, server) = server(|mut stream| {
            stream.read_exact(&mut [0; 3]).expect("a line comes");
            stream.shutdown(std::net::Shutdown::Write).expect("still connected");
            stream.read(&mut [0]).expect("the client ends")
        });
        let (mut ours, theirs) = terminal();
        let mut command = command(&[&["connect", &addr], option].concat());
        let child = command.stdin(theirs).spawn().expect("it starts");
        drop(command);
        ours.write_all(b"hi\n").expect("there is room");
        let outcome = finish(child);
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
        server.join().expect("the server ends");
    }
}

#[test]
fn a_closed_terminal_resets_the_connection() {
    let (addr, server) = server(|mut stream| {
        stream.write_all(b"!").expect("the client reads");
        stream.read(&mut [0]).map_err(|error| error.kind())
    });
    let (mut ours, theirs) = terminal();
    // This makes it the controlling terminal.
    let mut command = Command::new("setsid");
    command.args(["--ctty", env!("CARGO_BIN_EXE_finale"), "connect", &addr]);
    command.stdin(copy(&theirs)).stdout(copy(&theirs)).stderr(theirs);
    let mut child = command.spawn().expect("setsid(1) exists");
    drop(command);
    ours.read_exact(&mut [0]).expect("it is connected");
    drop(ours);
    // SIGHUP, or the error of the read that comes with it.
    let code = child.wait().expect("it ends").code();
    assert!(matches!(code, Some(129 | 1)), "{code:?}");
    assert_eq!(server.join().expect("the server ends"), Err(ErrorKind::ConnectionReset));
}

#[test]
fn control_d_is_the_end_of_stdin() {
    let (addr, server) = server(|mut stream| std::io::read_to_string(&mut stream).expect("the client ends"));
    let (mut ours, theirs) = terminal();
    let mut command = command(&["connect", &addr]);
    let child = command.stdin(theirs).spawn().expect("it starts");
    drop(command);
    ours.write_all(b"hi\n\x04").expect("there is room");
    let outcome = finish(child);
    assert_eq!((outcome.code, server.join().expect("the server ends").as_str()), (Some(0), "hi\n"), "{outcome:?}");
}

/// Without SIGHUP, as when it is ignored or the terminal is not the controlling one.
#[test]
fn the_end_of_a_terminal_is_no_end_of_stdin() {
    let (addr, server) = server(|mut stream| {
        stream.write_all(b"!").expect("the client reads");
        stream.read(&mut [0]).map_err(|error| error.kind())
    });
    let (ours, theirs) = terminal();
    let mut command = command(&["connect", &addr]);
    let mut child = command.stdin(theirs).spawn().expect("it starts");
    drop(command);
    child.stdout.as_mut().expect("it is a pipe").read_exact(&mut [0]).expect("it is connected");
    drop(ours);
    let outcome = finish(child);
    assert!(outcome.code == Some(1) && outcome.stderr.starts_with("finale: can't read stdin: "), "{outcome:?}");
    assert_eq!(server.join().expect("the server ends"), Err(ErrorKind::ConnectionReset));
}

/// A pipe of a page, one end of which has O_NONBLOCK.
fn pipe(nonblocking: fn(&(OwnedFd, OwnedFd)) -> &OwnedFd) -> (OwnedFd, OwnedFd) {
    let ends = pipe_with(PipeFlags::CLOEXEC).expect("descriptors are free");
    fcntl_setpipe_size(&ends.0, 4096).expect("a page is allowed");
    fcntl_setfl(nonblocking(&ends).as_fd(), OFlags::NONBLOCK).expect("it can be set");
    ends
}

#[test]
fn descriptors_that_do_not_block_lose_nothing() {
    let server = Server::start(&["echo"]);
    let addr = server.addr.to_string();
    let (stdin, to_stdin) = pipe(|ends| &ends.0);
    let (from_stdout, stdout) = pipe(|ends| &ends.1);
    let (from_stderr, stderr) = pipe(|ends| &ends.1);
    let mut command = command(&["connect", "-v", &addr]);
    let mut child = command.stdin(stdin).stdout(stdout).stderr(stderr).spawn().expect("it starts");
    drop(command);
    let sent: Vec<u8> = (0..1_000_000_u32).map(|number| (number % 251) as u8).collect();
    let request = sent.clone();
    let writer = thread::spawn(move || File::from(to_stdin).write_all(&request).expect("it reads"));
    let events = thread::spawn(move || std::io::read_to_string(File::from(from_stderr)).expect("it is text"));
    let mut received = Vec::new();
    File::from(from_stdout).read_to_end(&mut received).expect("it can be read");
    writer.join().expect("everything was written");
    let (code, events) = (child.wait().expect("it ends").code(), events.join().expect("everything was read"));
    assert!(code == Some(0) && received == sent, "{code:?}, {} bytes: {events}", received.len());
    assert!(events.ends_with("1000000 bytes read, 1000000 written\n"), "{events}");
    server.stop_quietly();
}

#[test]
fn limits_end_a_run_whose_terminal_is_full() {
    for (option, reason) in [("-w", "for the idle time"), ("-m", "until --max-time")] {
        let (addr, server) = server(flood);
        let (_unread, theirs) = nearly_full();
        let child = command(&["connect", &addr, option, "200ms"]).stdout(copy(&theirs)).spawn().expect("it starts");
        let outcome = finish(child);
        assert_eq!(outcome.code, Some(1), "{outcome:?}");
        let line = format!("finale: can't write to stdout: it took nothing {reason}\n");
        assert!(outcome.stderr.starts_with(&line), "{outcome:?}");
        assert!(!fcntl_getfl(&theirs).expect("it is open").contains(OFlags::NONBLOCK));
        server.join().expect("the server ends");
    }
}

/// Then the ending can't be printed.
#[test]
fn limits_and_signals_end_a_run_whose_stdout_and_stderr_are_one_full_terminal() {
    for (options, code) in [(&["-v", "-w", "200ms"] as &[&str], 1), (&["-m", "200ms"], 1), (&["-v"], 143), (&[], 143)] {
        let (connected, is_connected) = channel();
        let (addr, server) = server(move |stream| {
            let _ = connected.send(());
            flood(stream);
        });
        let (_unread, theirs) = nearly_full();
        let mut command = command(&[&["connect", &addr], options].concat());
        let child = command.stdout(copy(&theirs)).stderr(copy(&theirs)).spawn().expect("it starts");
        if code == 143 {
            is_connected.recv_timeout(PATIENCE).expect("it connects");
            kill_process(pid(&child), Signal::TERM).expect("it runs");
        }
        assert_eq!(finish(child).code, Some(code), "{options:?}");
        server.join().expect("the server ends");
    }
}

#[test]
fn limits_and_signals_end_a_run_whose_events_are_not_read() {
    for (options, code) in [(&["-m", "200ms"] as &[&str], 1), (&[], 143)] {
        let (addr, server) = server(flood);
        let (unread, stderr) = pipe(|ends| &ends.0);
        let mut command = command(&[&["connect", "-v", &addr], options].concat());
        let child = command.stdout(Stdio::null()).stderr(copy(&stderr)).spawn().expect("it starts");
        if code == 143 {
            let begun = Instant::now();
            while is_writable(&stderr) {
                assert!(begun.elapsed() < PATIENCE, "the pipe does not fill");
                thread::yield_now();
            }
            kill_process(pid(&child), Signal::TERM).expect("it runs");
        }
        assert_eq!(finish(child).code, Some(code), "{options:?}");
        drop(unread);
        server.join().expect("the server ends");
    }
}

#[test]
fn a_socket_as_stdout_gets_everything_and_limits_end_a_run_in_which_it_is_full() {
    let (addr, sender) = server(|mut stream| stream.write_all(&[b'x'; 1 << 20]).expect("the client reads"));
    let (mut ours, theirs) = UnixStream::pair().expect("descriptors are free");
    let mut to_socket = command(&["connect", &addr]);
    let child = to_socket.stdout(OwnedFd::from(theirs)).spawn().expect("it starts");
    drop(to_socket);
    let mut read = Vec::new();
    ours.read_to_end(&mut read).expect("it is open");
    assert_eq!((finish(child).code, read.len()), (Some(0), 1 << 20));
    sender.join().expect("the server ends");
    let (addr, server) = server(flood);
    let (_unread, theirs) = UnixStream::pair().expect("descriptors are free");
    let child = command(&["connect", &addr, "-w", "200ms"]).stdout(OwnedFd::from(theirs)).spawn().expect("it starts");
    let outcome = finish(child);
    assert!(outcome.code == Some(1) && outcome.stderr.contains("it took nothing for the idle time"), "{outcome:?}");
    server.join().expect("the server ends");
}

/// Opening the controlling side of a terminal again makes another terminal.
#[test]
fn the_controlling_side_of_a_terminal_gets_what_is_written_to_it() {
    let (addr, server) = server(|mut stream| stream.write_all(b"typed\n").expect("the client reads"));
    let (ours, theirs) = terminal();
    let mut command = command(&["connect", &addr]);
    let child = command.stdout(ours).spawn().expect("it starts");
    let mut line = [0; 6];
    File::from(theirs).read_exact(&mut line).expect("a line comes");
    assert_eq!((finish(child).code, &line), (Some(0), b"typed\n"));
    server.join().expect("the server ends");
}

#[test]
fn a_stdin_that_does_not_block_is_read_to_its_end() {
    let result = crate::common::run(&["bench", "-n", "20", "--json"]).stdout;
    let (stdin, to_stdin) = pipe(|ends| &ends.0);
    let mut command = command(&["bench", "merge", "--json", "-"]);
    let child = command.stdin(stdin).spawn().expect("it starts");
    drop(command);
    let mut to_stdin = File::from(to_stdin);
    result.as_bytes().chunks(100).for_each(|piece| to_stdin.write_all(piece).expect("it reads"));
    drop(to_stdin);
    let outcome = finish(child);
    assert!(outcome.code == Some(0) && outcome.stdout.starts_with("{\"target\":\"127.0.0.1:"), "{outcome:?}");
}

#[test]
fn a_page_is_printed_whole_on_a_stdout_that_does_not_block() {
    for args in [&["completions", "zsh"] as &[&str], &["states", "--json"], &["sim", "--replay", "3"]] {
        let (from_stdout, stdout) = pipe(|ends| &ends.1);
        let mut nonblocking = command(args);
        let mut child = nonblocking.stdout(stdout).spawn().expect("it starts");
        drop(nonblocking);
        let page = std::io::read_to_string(File::from(from_stdout)).expect("it is text");
        assert_eq!(child.wait().expect("it ends").code(), Some(0), "{args:?}");
        assert_eq!(page, crate::common::run(args).stdout, "{args:?}");
    }
}
