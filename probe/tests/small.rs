//! A request for a large answer whose answer is small: there is no middle of it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use finale_probe::{CaseReport, Framing, Options, Verdict, probe};

/// Answers each line with a line.
fn server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("it is bound");
    thread::spawn(move || listener.incoming().flatten().for_each(|client| drop(thread::spawn(|| answer(client)))));
    addr
}

fn answer(mut client: TcpStream) {
    let lines = BufReader::new(client.try_clone().expect("there is a descriptor")).lines();
    for _ in lines.map_while(Result::ok) {
        let _ = client.write_all(b"hello\n");
    }
}

#[test]
fn no_case_reports_what_it_could_not_try_with_a_small_answer() {
    let mut options = Options::new("hello\n");
    options.big_request = Some(b"big\n".to_vec());
    options.framing = Framing::Until(b"\n".to_vec());
    (options.timeout, options.runs) = (Duration::from_millis(500), 2);
    options.cases = ["slow-reader", "late-input", "never-read", "reset-mid-answer", "vanish"].map(str::to_owned).into();
    let report = probe(&server().to_string(), &options, |_| {}).expect("it is served");
    let [slow_reader, late_input, never_read, mid_answer, vanish] = &report.cases[..] else { panic!("{report}") };
    let words = "the answer has 6 bytes, and kernels take up to 8388608 without a reader; give a request with a larger \
                 one (--big-request)";
    for case in [never_read, mid_answer] {
        assert_eq!((case.verdict, case.summary.as_str()), (Verdict::Skip, words), "{}", case.id);
    }
    assert!(slow_reader.verdict == Verdict::Pass && slow_reader.summary.ends_with(words), "{slow_reader:?}");
    let tried = |case: &CaseReport, what: &str| case.seen.keys().any(|variant| variant.starts_with(what));
    assert!(!tried(late_input, "big answer"), "{late_input:?}");
    assert!(!tried(vanish, "in the middle of an answer"), "{vanish:?}");
}
