//! The server of `finale lab`. The page itself is tried in a browser: `.ci/lab`.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::process::Child;
use std::thread;

use rustix::process::{Resource, Rlimit, Signal, kill_process, prlimit};

use crate::common::{Outcome, PATIENCE, command, finish, pid, run};

struct Lab {
    child: Child,
    addr: String,
}

impl Lab {
    fn start() -> Self {
        let mut child = command(&["lab", "--listen", "127.0.0.1:0"]).spawn().expect("it starts");
        let mut line = String::new();
        let stdout = child.stdout.as_mut().expect("it is a pipe");
        BufReader::new(stdout).read_line(&mut line).expect("it says where it is");
        let addr = line.trim_end().strip_prefix("the lab is at http://").and_then(|rest| rest.strip_suffix('/'));
        Self { addr: addr.expect("the line has the address").to_owned(), child }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.addr).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a limit can be set");
        stream
    }

    /// Everything that is answered to these bytes.
    fn ask(&self, request: &str) -> String {
        let mut stream = self.connect();
        // It may refuse before it has read everything.
        let _ = stream.write_all(request.as_bytes());
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("the answer is whole, and no reset follows it");
        answer
    }

    fn get(&self, target: &str) -> String {
        self.ask(&format!("GET {target} HTTP/1.1\r\nHost: {}\r\n\r\n", self.addr))
    }

    fn stop(self) -> Outcome {
        kill_process(pid(&self.child), Signal::TERM).expect("it runs");
        finish(self.child)
    }
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").expect("there is a body").1
}

#[test]
fn a_run_is_answered_as_trace_prints_it() {
    let lab = Lab::start();
    let script = "client connect; client write 5; client end; wait 1s; server end";
    let query: String = script.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let printed = run(&["trace", script, "--json"]);
    assert_eq!(body(&lab.get(&format!("/api/run?script={query}"))), printed.stdout.trim_end());
    assert_eq!(lab.stop().code, Some(0));
}

/// RFC 9110, section 8.6: an answer with this status has no length.
#[test]
fn there_is_no_icon_and_no_length_of_it() {
    let lab = Lab::start();
    let answer = lab.get("/favicon.ico");
    assert!(answer.starts_with("HTTP/1.1 204 No Content\r\n"), "{answer}");
    let head = answer.to_ascii_lowercase();
    assert!(!head.contains("content-length") && !head.contains("transfer-encoding"), "{answer}");
    assert_eq!(body(&answer), "");
    assert_eq!(lab.stop().code, Some(0));
}

#[test]
fn what_is_no_run_is_refused_in_words() {
    let lab = Lab::start();
    for (target, status, part) in [
        ("/api/run", "400", "script is missing"),
        ("/api/run?script=client+jump", "400", "no such verb"),
        ("/api/run?script=client+connect;client+vanish;client+end", "400", "lost power"),
        ("/api/real?script=client+connect;wait+1h", "400", "10 s at most"),
        ("/api/test?script=wait+1s", "400", "does not connect"),
        ("/api/states?view=none", "400", "client or server"),
        ("/../etc/passwd", "404", "no such page"),
        ("/%00", "404", "no such page"),
    ] {
        let answer = lab.get(target);
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")) && body(&answer).contains(part),
            "{target}: {answer}"
        );
    }
    let answer = lab.ask("GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 421 "), "{answer}");
    assert_eq!(lab.stop().stderr, "");
}

#[test]
fn bytes_of_any_kind_do_no_harm() {
    let lab = Lab::start();
    let long = format!("GET /?{} HTTP/1.1\r\nHost: {}\r\n\r\n", "x".repeat(1 << 20), lab.addr);
    let headers = format!("GET / HTTP/1.1\r\n{}Host: {}\r\n\r\n", "X: y\r\n".repeat(1000), lab.addr);
    for request in ["\0\0\0\0\r\n\r\n", "GET\r\n\r\n", "SSH-2.0-x\r\n", "GET / HTTP/9.9\r\n\r\n", &long, &headers] {
        let answer = lab.ask(request);
        let is_refused = answer.starts_with("HTTP/1.1 4") || answer.starts_with("HTTP/1.1 505 ");
        assert!(is_refused, "{:.60}: {answer}", request);
    }
    let whole = format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", lab.addr);
    for cut in [0, 1, whole.len() / 2, whole.len() - 1] {
        let mut stream = lab.connect();
        stream.write_all(&whole.as_bytes()[..cut]).expect("it reads");
        stream.shutdown(Shutdown::Write).expect("it is connected");
        assert_eq!(stream.read_to_end(&mut Vec::new()).expect("a FIN, no reset"), 0, "no request, no answer");
    }
    let mut slow = lab.connect();
    for byte in whole.bytes() {
        slow.write_all(&[byte]).expect("it reads");
    }
    let mut answer = String::new();
    slow.read_to_string(&mut answer).expect("it answers");
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    assert_eq!(lab.stop().code, Some(0));
}

/// More than it accepts at once, and more runs than it has threads for.
#[test]
fn many_tabs_are_all_answered() {
    let lab = Lab::start();
    let idle: Vec<_> = (0..40).map(|_| lab.connect()).collect();
    let answers: Vec<_> = thread::scope(|scope| {
        let asks: Vec<_> = (0..100)
            .map(|number| {
                let lab = &lab;
                scope
                    .spawn(move || lab.get(&format!("/api/run?script=client+connect;wait+{}ms;client+end", number + 1)))
            })
            .collect();
        asks.into_iter().map(|ask| ask.join().expect("it is answered")).collect()
    });
    for answer in answers {
        assert!(answer.starts_with("HTTP/1.1 200") || answer.starts_with("HTTP/1.1 503"), "{answer}");
    }
    drop(idle);
    assert_eq!(lab.stop().code, Some(0));
}

#[test]
fn it_ends_while_real_runs_and_a_load_are_under_way() {
    let lab = Lab::start();
    let started =
        lab.ask(&format!("POST /api/load?seconds=60 HTTP/1.1\r\nHost: {0}\r\nOrigin: http://{0}\r\n\r\n", lab.addr));
    assert!(started.starts_with("HTTP/1.1 200"), "{started}");
    let mut real = lab.connect();
    let request = format!("GET /api/real?script=client+connect;wait+9s HTTP/1.1\r\nHost: {}\r\n\r\n", lab.addr);
    real.write_all(request.as_bytes()).expect("it reads");
    let outcome = lab.stop();
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""));
}

#[test]
fn a_load_leaves_descriptors_for_the_page() {
    let lab = Lab::start();
    let few = Rlimit { current: Some(400), maximum: Some(400) };
    prlimit(Some(pid(&lab.child)), Resource::Nofile, few).expect("a lower limit is allowed");
    let load = |connections: usize| {
        let target = format!("/api/load?seconds=60&connections={connections}");
        lab.ask(&format!("POST {target} HTTP/1.1\r\nHost: {0}\r\nOrigin: http://{0}\r\n\r\n", lab.addr))
    };
    let refused = load(500);
    assert!(refused.starts_with("HTTP/1.1 400 ") && refused.contains("descriptors"), "{refused}");
    assert!(load(50).starts_with("HTTP/1.1 200 "));
    assert!(lab.get("/").starts_with("HTTP/1.1 200 "));
    assert_eq!(lab.stop().code, Some(0));
}

#[test]
fn it_listens_on_this_machine_only() {
    run(&["lab", "--listen", "0.0.0.0:0"]).refused_with(2, "write a loopback address");
    run(&["lab", "--listen", "lab"]).refused_with(2, "write an address and a port");
    let lab = Lab::start();
    run(&["lab", "--listen", &lab.addr]).refused_with(1, "in use");
    assert_eq!(lab.stop().code, Some(0));
}
