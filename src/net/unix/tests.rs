use std::path::Path;
use std::sync::mpsc::channel;
use std::time::Duration;

use socket2::Type;

use super::*;

fn client(path: &Path) -> io::Result<Socket> {
    connect(&UnixAddr::path(path), &SystemOptions::default(), |_| Ok(()))
}

/// A listener of this test that accepts no connection, and as many clients as its queue takes.
fn full(path: &Path) -> (Socket, Vec<Socket>) {
    let listener = Socket::new(Domain::UNIX, Type::STREAM, None).expect("a socket");
    listener.bind(&UnixAddr::path(path).name().expect("short")).expect("a new file");
    listener.listen(1).expect("bound");
    let clients = std::iter::from_fn(|| client(path).ok()).collect();
    (listener, clients)
}

fn file(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("finale-{name}-{}", std::process::id()))
}

#[test]
fn a_connection_to_a_full_queue_would_block_and_is_not_begun() {
    let path = file("full");
    let (listener, clients) = full(&path);
    assert_eq!(client(&path).expect_err("it is full").kind(), io::ErrorKind::WouldBlock);
    drop(clients);
    while client(&path).is_err() {
        listener.accept().expect("one waits");
    }
    fs::remove_file(path).expect("it is there");
}

#[test]
fn a_connection_that_can_not_be_registered_is_not_begun() {
    let path = file("register");
    let (listener, clients) = full(&path);
    listener.set_nonblocking(true).expect("open");
    drop(clients);
    while listener.accept().is_ok() {}
    let refused = connect(&UnixAddr::path(&path), &SystemOptions::default(), |_| Err(Errno::NOSPC.into()));
    assert!(is(&refused.expect_err("epoll has no room"), Errno::NOSPC));
    assert_eq!(listener.accept().expect_err("nothing was begun").kind(), io::ErrorKind::WouldBlock);
    fs::remove_file(path).expect("it is there");
}

#[test]
fn a_server_with_a_full_queue_is_not_stale_and_the_probe_does_not_wait_for_it() {
    let path = file("stale");
    let (_listener, _clients) = full(&path);
    let (result, results) = channel();
    let addr = UnixAddr::path(&path);
    // On a thread, since a blocking probe would never return.
    std::thread::spawn(move || result.send(listen(&addr, &ListenOptions::default().replace_stale(true)).map(drop)));
    let refused = results.recv_timeout(Duration::from_secs(10)).expect("the probe does not block");
    assert!(is(&refused.expect_err("it is in use"), Errno::ADDRINUSE));
    fs::remove_file(path).expect("it is not replaced");
}

/// A server that stops removes its file while another looks whether it is stale.
#[test]
fn a_file_that_is_gone_is_stale_no_more_and_no_error() {
    let addr = UnixAddr::path(file("gone"));
    assert!(remove_stale(&addr, &SystemOptions::default(), Errno::ADDRINUSE.into()).is_ok());
}

#[test]
fn the_file_of_a_relative_path_is_removed_wherever_the_program_is_then() {
    let path = file("relative");
    let here = std::env::current_dir().expect("it exists");
    let up: PathBuf = here.components().skip(1).map(|_| "..").collect();
    let relative = up.join(path.strip_prefix("/").expect("it is absolute"));
    let (_listener, file) = listen(&UnixAddr::path(relative), &ListenOptions::default()).expect("a new file");
    let file = file.expect("it has a path");
    assert!(path.exists() && file.path.is_absolute(), "{}", file.path.display());
    drop(file);
    assert!(!path.exists());
}

#[test]
fn a_file_of_another_kind_of_socket_is_in_use_and_gives_an_error_of_its_own() {
    let path = file("datagram");
    let _datagram = std::os::unix::net::UnixDatagram::bind(&path).expect("a new file");
    let refused = listen(&UnixAddr::path(&path), &ListenOptions::default().replace_stale(true)).map(drop);
    assert!(is(&refused.expect_err("it is in use"), Errno::ADDRINUSE));
    let failed = client(&path).expect_err("it is no stream socket");
    assert!(crate::ConnectionError::from_os(&failed).to_string().ends_with("not a stream socket"), "{failed}");
    fs::remove_file(path).expect("it is not replaced");
}

#[test]
fn a_name_that_can_not_be_has_a_system_error_of_its_own() {
    let cut = file("cut");
    let tail = Path::new("\0tail");
    let with_zero = [&*cut, tail].map(|path| path.as_os_str().to_owned()).into_iter().collect::<std::ffi::OsString>();
    for (path, errno) in
        [(with_zero, Errno::INVAL), ("x".repeat(108).into(), Errno::NAMETOOLONG), ("".into(), Errno::NOENT)]
    {
        let addr = UnixAddr::path(path);
        assert!(is(&listen(&addr, &ListenOptions::default()).map(drop).expect_err("no name"), errno), "{addr}");
        assert!(is(&connect(&addr, &SystemOptions::default(), |_| Ok(())).expect_err("no name"), errno), "{addr}");
    }
    assert!(!cut.exists(), "the path is not cut at its zero byte");
}
