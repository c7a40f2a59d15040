//! The files of Unix domain sockets: made, replaced and removed by the server that they belong to.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::process::Child;

use crate::common::{command, finish, run, run_with};
use crate::harness::{LINE, signal};
use rustix::process::Signal;

/// A folder of this test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("finale-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a new folder");
        Self(folder)
    }

    fn file(&self) -> PathBuf {
        self.0.join("socket")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn address(path: &Path) -> String {
    format!("unix:{}", path.display())
}

/// Starts a server and waits until it listens.
#[track_caller]
fn serve(path: &Path, args: &[&str]) -> Child {
    let listen = address(path);
    let mut child = command(&["serve", "answer", "--listen", &listen]).args(args).spawn().expect("it starts");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("it is text");
    assert_eq!(line, format!("listening on {listen}\n"));
    child
}

#[track_caller]
fn stop(child: Child) {
    signal(child.id(), Signal::TERM);
    let outcome = finish(child);
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""));
}

#[track_caller]
fn expect_answer(path: &Path) {
    let outcome = run_with(&["connect", "--half-close", &address(path)], b"question".to_vec());
    assert_eq!(outcome.stdout.as_bytes(), LINE, "{outcome:?}");
}

#[test]
fn the_file_of_a_killed_server_is_replaced() {
    let folder = Folder::new("killed");
    let path = folder.file();
    for _ in 0..3 {
        let mut child = serve(&path, &[]);
        expect_answer(&path);
        child.kill().expect("it runs");
        child.wait().expect("it is ours");
        assert!(path.exists());
    }
    stop(serve(&path, &[]));
    assert!(!path.exists());
}

#[test]
fn of_servers_that_find_an_unused_file_together_one_serves() {
    let folder = Folder::new("together");
    let path = folder.file();
    drop(UnixListener::bind(&path).expect("a new file"));
    let listen = address(&path);
    let start = || command(&["serve", "answer", "--listen", &listen]).spawn().expect("it starts");
    let mut children: Vec<_> = (0..8).map(|_| start()).collect();
    let mut serving = Vec::new();
    for mut child in children.drain(..) {
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("it is text");
        if line.is_empty() {
            let outcome = finish(child);
            assert!(outcome.code == Some(1) && outcome.stderr.contains("in use"), "{outcome:?}");
        } else {
            serving.push(child);
        }
    }
    assert_eq!(serving.len(), 1, "servers that listen");
    expect_answer(&path);
    serving.into_iter().for_each(stop);
    assert!(!path.exists());
}

#[test]
fn a_file_that_is_no_socket_of_an_ended_server_is_not_replaced() {
    let folder = Folder::new("others");
    let (path, listen) = (folder.file(), address(&folder.file()));
    fs::write(&path, "precious").expect("a new file");
    run(&["serve", "answer", "--listen", &listen]).refused_with(1, "in use");
    assert_eq!(fs::read(&path).expect("it is there"), b"precious");
    let elsewhere = folder.0.join("elsewhere");
    fs::rename(&path, &elsewhere).expect("it is there");
    std::os::unix::fs::symlink(&elsewhere, &path).expect("a new link");
    run(&["serve", "answer", "--listen", &listen]).refused_with(1, "in use");
    assert_eq!(fs::read(&path).expect("it is there"), b"precious");
    fs::remove_file(&path).expect("it is there");
    let datagrams = UnixDatagram::bind(&path).expect("a new file");
    run(&["serve", "answer", "--listen", &listen]).refused_with(1, "in use");
    drop(datagrams);
    fs::remove_file(&path).expect("it is there");
    let child = serve(&path, &[]);
    run(&["serve", "answer", "--listen", &listen]).refused_with(1, "in use");
    expect_answer(&path);
    stop(child);
}

#[test]
fn a_server_removes_no_file_that_another_has_put_at_its_path() {
    let folder = Folder::new("replaced");
    let path = folder.file();
    let first = serve(&path, &[]);
    fs::remove_file(&path).expect("it is there");
    let second = serve(&path, &[]);
    stop(first);
    expect_answer(&path);
    fs::remove_file(&path).expect("it is there");
    fs::write(&path, "precious").expect("a new file");
    stop(second);
    assert_eq!(fs::read(&path).expect("it is there"), b"precious");
}

#[test]
fn the_file_has_the_permissions_that_were_asked_for() {
    let folder = Folder::new("mode");
    let path = folder.file();
    for mode in ["600", "660", "777"] {
        let child = serve(&path, &["--unix-mode", mode]);
        let meta = fs::metadata(&path).expect("it is there");
        assert!(meta.file_type().is_socket());
        assert_eq!(format!("{:o}", meta.permissions().mode() & 0o777), mode);
        stop(child);
    }
    for listen in ["127.0.0.1:0", "unix:@finale-mode"] {
        run(&["serve", "answer", "--listen", listen, "--unix-mode", "600"]).refused_with(2, "--unix-mode");
    }
    run(&["serve", "answer", "--listen", &address(&path), "--unix-mode", "888"]).refused_with(2, "octal");
}

#[test]
fn options_of_a_port_are_refused_for_a_socket_file() {
    let folder = Folder::new("options");
    let listen = address(&folder.file());
    for option in [&["--reuse-port"][..], &["--defer-accept", "1s"], &["--user-timeout", "5s"]] {
        run(&[&["serve", "answer", "--listen", &listen], option].concat()).refused_with(2, "for TCP");
    }
    assert!(!folder.file().exists());
}

#[test]
fn a_server_that_can_t_print_its_address_ends_and_removes_its_file() {
    let folder = Folder::new("unprinted");
    let full = || fs::OpenOptions::new().write(true).open("/dev/full").expect("it is there");
    for listen in ["127.0.0.1:0", &address(&folder.file())] {
        let child = command(&["serve", "answer", "--listen", listen]).stdout(full()).spawn();
        finish(child.expect("it starts")).refused_with(1, "No space left");
    }
    assert!(!folder.file().exists());
}

/// The lock makes sure that of two servers that find an unused file only one replaces it.
#[test]
fn a_server_waits_a_second_for_the_lock_of_the_folder_and_serves_without_it() {
    let folder = Folder::new("locked");
    let lock = fs::File::open(&folder.0).expect("it is there");
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).expect("nobody has it");
    let begun = std::time::Instant::now();
    let mut child =
        command(&["serve", "answer", "--listen", "unix:socket"]).current_dir(&folder.0).spawn().expect("it starts");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("it is text");
    assert_eq!(line, "listening on unix:socket\n");
    assert!(begun.elapsed() >= std::time::Duration::from_secs(1), "it has not waited");
    drop(lock);
    stop(child);
}
