//! What all tests here need: files of a certificate, other programs as processes, and finale on real
//! sockets.

use std::fs;
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use finale::{Event, Reactor};
use finale_tls::{Tls, TlsSocket};

/// How long anything here may take.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// A certificate for `localhost` with its key, as files that are removed again.
pub(crate) struct Files {
    folder: PathBuf,
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl Files {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("finale-interop-{}-{number}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
        let (certificate, key) = (folder.join("cert.pem"), folder.join("key.pem"));
        fs::write(&certificate, made.cert.pem()).expect("written");
        fs::write(&key, made.signing_key.serialize_pem()).expect("written");
        Self { folder, certificate, key }
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A process of another program. It is killed when it is dropped.
pub(crate) struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    /// Of standard output and of standard error: one of them says that a server listens.
    lines: Receiver<String>,
    output: Receiver<Vec<u8>>,
}

impl Process {
    /// Starts a program. `None`, with a line, if it is not installed.
    pub(crate) fn start(mut command: Command) -> Option<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                println!("skipped: {} is not installed", command.get_program().display());
                return None;
            }
            Err(error) => panic!("{command:?}: {error}"),
        };
        let stdin = child.stdin.take();
        let mut stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        let stderr = BufReader::new(child.stderr.take().expect("it is piped"));
        let ((line_sender, lines), (sender, output)) = (channel(), channel());
        let error_sender = line_sender.clone();
        thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| error_sender.send(line)));
        thread::spawn(move || {
            let mut all = Vec::new();
            let mut line = String::new();
            while stdout.read_line(&mut line).is_ok_and(|count| count > 0) {
                all.extend_from_slice(line.as_bytes());
                let _ = line_sender.send(std::mem::take(&mut line));
            }
            let _ = stdout.read_to_end(&mut all);
            let _ = sender.send(all);
        });
        Some(Self { child, stdin, lines, output })
    }

    /// Waits for a line with these words. `false` if it has exited without it.
    pub(crate) fn prints(&self, words: &str) -> bool {
        loop {
            match self.lines.recv_timeout(LIMIT) {
                Ok(line) if line.contains(words) => return true,
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => return false,
                Err(RecvTimeoutError::Timeout) => panic!("it prints nothing"),
            }
        }
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.stdin.iter_mut().for_each(|stdin| stdin.write_all(bytes).expect("it reads"));
    }

    pub(crate) fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
    }

    /// Waits until it has exited. Returns whether that was with 0, and all that it printed.
    pub(crate) fn finish(mut self) -> (bool, Vec<u8>) {
        self.close_stdin();
        let output = self.output.recv_timeout(LIMIT).expect("it ends");
        let is_clean = self.child.wait().expect("our child").success();
        (is_clean, output)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the program of finale has seen.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// The names of the events, without repetitions.
    pub(crate) events: Vec<String>,
    pub(crate) data: Vec<u8>,
    pub(crate) error: Option<String>,
    pub(crate) ending: String,
}

impl Seen {
    pub(crate) fn has(&self, name: &str) -> bool {
        self.events.iter().any(|event| event == name)
    }
}

/// Runs finale until the first stream has closed.
pub(crate) fn run(
    reactor: &mut Reactor,
    tls: &mut Tls,
    mut program: impl FnMut(&mut TlsSocket<'_>, Event<'_>),
) -> Seen {
    let mut seen = Seen::default();
    let until = reactor.context().now() + LIMIT;
    while seen.ending.is_empty() {
        let Some((mut socket, event)) = reactor.next_before(until).expect("it continues") else {
            panic!("it takes too long: {:?}", seen.events);
        };
        let mut events = tls.handle(&mut socket, event);
        while let Some((mut socket, event)) = events.next() {
            let text = event.to_string();
            let name = text.split([',', ':', ' ']).next().unwrap_or_default();
            if seen.events.last().is_none_or(|last| last != name) {
                seen.events.push(name.to_owned());
            }
            match event {
                Event::Data(bytes) => seen.data.extend_from_slice(bytes),
                Event::Error(error) => seen.error = Some(error.to_string()),
                Event::Close(ending) => seen.ending = ending.to_string(),
                _ => {}
            }
            program(&mut socket, event);
        }
    }
    seen
}

/// A port that was free a moment ago, for servers that print none.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("bound").port()
}
