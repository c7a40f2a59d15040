//! What the probe costs a server.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use finale_probe::{Options, probe};

/// Answers a line, and never ends. Returns the most connections that were open at the same time.
fn never_ends(listener: TcpListener) -> Arc<AtomicUsize> {
    let most = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&most);
    thread::spawn(move || {
        let mut held: Vec<TcpStream> = Vec::new();
        for mut client in listener.incoming().flatten() {
            let _ = BufReader::new(&client).read_line(&mut String::new());
            let _ = client.write_all(b"hello\n");
            held.retain(|client| client.take_error().is_ok_and(|error| error.is_none()));
            held.push(client);
            seen.fetch_max(held.len(), Ordering::Relaxed);
        }
    });
    most
}

#[test]
fn a_server_that_never_ends_has_few_clients_however_many_runs_there_are() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("it is bound");
    let most = never_ends(listener);
    let mut options = Options::new("hello\n");
    (options.cases, options.runs) = (vec!["half-close".to_owned(), "pipeline-fin".to_owned()], 10);
    options.timeout = std::time::Duration::from_millis(500);
    probe(&addr.to_string(), &options, |_| {}).expect("it answers");
    // A client of the case, and the healthy ones that have not left yet.
    assert!(most.load(Ordering::Relaxed) <= 8, "{most:?}");
}
