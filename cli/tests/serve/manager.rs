//! What a service manager receives at NOTIFY_SOCKET (sd_notify(3)).

use std::ffi::OsStr;
use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::common::{PATIENCE, patient};
use crate::harness::{Server, ask, shell, signal};
use rustix::process::Signal;

/// A manager's socket.
struct Manager {
    socket: UnixDatagram,
    name: String,
    file: Option<PathBuf>,
}

impl Manager {
    fn new(name: &str) -> Self {
        let file = std::env::temp_dir().join(format!("finale-manager-{name}-{}", std::process::id()));
        let socket = UnixDatagram::bind(&file).expect("a new file");
        socket.set_read_timeout(Some(PATIENCE)).expect("the time is not zero");
        Self { socket, name: file.to_str().expect("text").to_owned(), file: Some(file) }
    }

    #[cfg(target_os = "linux")]
    fn with_abstract_name(name: &str) -> Self {
        use std::os::linux::net::SocketAddrExt as _;
        use std::os::unix::net::SocketAddr;
        let name = format!("finale-manager-{name}-{}", std::process::id());
        let addr = SocketAddr::from_abstract_name(&name).expect("a short name");
        let socket = UnixDatagram::bind_addr(&addr).expect("a new name");
        socket.set_read_timeout(Some(PATIENCE)).expect("the time is not zero");
        Self { socket, name: format!("@{name}"), file: None }
    }

    fn start(&self, program: impl AsRef<OsStr>, args: &[&str]) -> Server {
        let mut command = Command::new(program);
        command.args(["serve", "answer", "--listen", "127.0.0.1:0"]).args(args);
        Server::spawn(command.env("NOTIFY_SOCKET", &self.name))
    }

    /// Messages, until the queue has no room for another.
    #[track_caller]
    fn fill(&self) {
        let sender = UnixDatagram::unbound().expect("a socket");
        sender.set_nonblocking(true).expect("it can be set");
        while sender.send_to(b"X=1", &self.name).is_ok() {}
    }

    #[track_caller]
    fn message(&self) -> String {
        let mut buffer = [0; 4096];
        let length = self.socket.recv(&mut buffer).expect("a message");
        String::from_utf8(buffer[..length].to_vec()).expect("text")
    }

    #[track_caller]
    fn expect_silence(&self) {
        self.socket.set_nonblocking(true).expect("it can be set");
        let error = self.socket.recv(&mut [0; 100]).expect_err("no further message");
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        if let Some(file) = &self.file {
            let _ = std::fs::remove_file(file);
        }
    }
}

/// The time of the message, on the clock that all processes share.
#[track_caller]
fn expect_reload(message: &str, before: Duration) {
    let micros = message.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").and_then(|micros| micros.parse().ok());
    let time = Duration::from_micros(micros.unwrap_or_else(|| panic!("no time: {message}")));
    assert!(before - Duration::from_micros(1) <= time && time <= now(), "{before:?} {time:?}");
}

fn now() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).expect("less than a second"))
}

/// Every generation has the manager's own socket.
fn is_informed_over_two_restarts(manager: &Manager) {
    let mut server = manager.start(env!("CARGO_BIN_EXE_finale"), &[]);
    assert_eq!(manager.message(), "READY=1");
    for _ in 0..2 {
        let before = now();
        server.restart();
        expect_reload(&manager.message(), before);
        assert_eq!(manager.message(), format!("MAINPID={}\nREADY=1", server.successor));
        ask(server.addr);
    }
    assert_eq!(server.stop(), "", "every message was sent");
    assert_eq!(manager.message(), "STOPPING=1");
    manager.expect_silence();
}

#[test]
fn a_manager_is_informed_of_every_restart_and_of_the_end() {
    is_informed_over_two_restarts(&Manager::new("path"));
}

#[cfg(target_os = "linux")]
#[test]
fn a_manager_with_an_abstract_name_is_informed_too() {
    is_informed_over_two_restarts(&Manager::with_abstract_name("abstract"));
}

#[test]
fn a_restart_that_fails_leaves_the_main_process_of_the_service() {
    let manager = Manager::new("failed");
    let program = std::env::temp_dir().join(format!("finale-manager-program-{}", std::process::id()));
    shell(r#"cp "$1" "$2""#, &[env!("CARGO_BIN_EXE_finale"), program.to_str().expect("text")]);
    let mut server = manager.start(&program, &[]);
    assert_eq!(manager.message(), "READY=1");
    std::fs::remove_file(&program).expect("it is there");
    let before = now();
    signal(server.successor, Signal::HUP);
    server.line_with("not restarted");
    expect_reload(&manager.message(), before);
    assert_eq!(manager.message(), "READY=1");
    server.stop();
    assert_eq!(manager.message(), "STOPPING=1");
    manager.expect_silence();
}

#[test]
fn a_manager_that_does_not_listen_is_a_warning() {
    for name in ["/nowhere/notify", "nowhere", "@finale-no-such-manager", "vsock:1"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_finale"));
        command.args(["serve", "answer", "--listen", "127.0.0.1:0"]);
        let mut server = Server::spawn(command.env("NOTIFY_SOCKET", name));
        let line = server.line();
        assert!(line.contains("NOTIFY_SOCKET"), "{name}: {line}");
        ask(server.addr);
        server.stop();
    }
}

#[test]
fn a_manager_that_does_not_read_is_a_warning_and_gets_later_messages() {
    let manager = Manager::new("full");
    manager.fill();
    let mut server = manager.start(env!("CARGO_BIN_EXE_finale"), &[]);
    let line = server.line();
    assert!(line.contains("can't send READY=1 to NOTIFY_SOCKET"), "{line}");
    ask(server.addr);
    manager.socket.set_nonblocking(true).expect("it can be set");
    while manager.socket.recv(&mut [0; 100]).is_ok() {}
    manager.socket.set_nonblocking(false).expect("it can be set");
    assert_eq!(server.stop(), "");
    assert_eq!(manager.message(), "STOPPING=1");
}

#[test]
fn the_main_process_of_a_service_is_restarted_if_its_manager_is_informed() {
    let manager = Manager::new("main");
    let shell = "SYSTEMD_EXEC_PID=$$ exec \"$0\" serve answer --listen 127.0.0.1:0";
    let mut command = Command::new("sh");
    command.args(["-c", shell, env!("CARGO_BIN_EXE_finale")]).env("NOTIFY_SOCKET", &manager.name);
    let mut server = Server::spawn(&mut command);
    assert_eq!(manager.message(), "READY=1");
    server.restart();
    ask(server.addr);
    server.stop();
}

#[test]
fn a_stop_is_reported_once_and_a_server_that_stops_is_not_restarted() {
    let manager = Manager::new("once");
    let mut server = manager.start(env!("CARGO_BIN_EXE_finale"), &["--grace", "1h"]);
    assert_eq!(manager.message(), "READY=1");
    let mut client = patient(TcpStream::connect(server.addr).expect("it listens"));
    client.write_all(b"a long question").expect("connected");
    ask(server.addr);
    signal(server.successor, Signal::TERM);
    assert_eq!(manager.message(), "STOPPING=1");
    signal(server.successor, Signal::HUP);
    signal(server.successor, Signal::USR1);
    server.line_with("accepted");
    assert!(!server.stop().contains("restart"), "it stops");
    assert_eq!(client.read(&mut [0]).expect_err("the second signal").kind(), io::ErrorKind::ConnectionReset);
    manager.expect_silence();
}
