//! A large answer that a reset cuts at another place each time.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use finale_probe::{Options, Verdict, probe};
use socket2::SockRef;

/// What is left of the large answer, in turn.
const LEFT: [usize; 2] = [20_000, 10_000];

/// Answers a line with a line; of the large answer a part arrives, and then a reset.
fn serve(mut client: TcpStream, asked: &AtomicUsize) -> std::io::Result<()> {
    let mut line = String::new();
    BufReader::new(&client).read_line(&mut line)?;
    if line != "big\n" {
        return client.write_all(b"hello\n");
    }
    client.write_all(&vec![b'x'; LEFT[asked.fetch_add(1, Ordering::Relaxed) % LEFT.len()]])?;
    SockRef::from(&client).set_linger(Some(Duration::ZERO))
}

fn server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("it is bound");
    let asked = Arc::new(AtomicUsize::new(0));
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let asked = Arc::clone(&asked);
            thread::spawn(move || serve(client, &asked));
        }
    });
    addr
}

#[test]
fn a_reset_that_cuts_even_what_is_read_at_once_is_a_loss() {
    let mut options = Options::new("hello\n");
    options.big_request = Some(b"big\n".to_vec());
    (options.cases, options.timeout) = (vec!["slow-reader".to_owned()], Duration::from_secs(2));
    let report = probe(&server().to_string(), &options, |_| {}).expect("it is served");
    let case = &report.cases[0];
    let words = "cut at 20000 bytes, and at 10000 bytes of the same answer, then reset";
    assert!(case.verdict == Verdict::Fail && case.summary.contains(words), "{report}");
    assert!(case.cure.as_ref().is_some_and(|cure| cure.starts_with("End with a FIN")), "{report}");
}
