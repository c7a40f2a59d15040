//! The service under load, through restarts and a `kill -9`: latencies of each phase, requests
//! that failed, and whether every acknowledged note is there at the end. Run it: `cargo bench -p
//! notes`.

#[allow(dead_code, reason = "the tests use the rest")]
#[path = "../tests/service/harness.rs"]
mod harness;

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use harness::{Address, Client, Notes, folder, request};

/// Half of them keep their connections, half begin a new one, with a handshake, for each request.
const CLIENTS: usize = 8;
const PHASE: Duration = Duration::from_secs(5);
const RESTARTS: usize = 3;

#[derive(Default)]
struct Shared {
    phase: AtomicUsize,
    is_over: AtomicBool,
    /// By phase: how long each answer took.
    latencies: Mutex<Vec<Vec<Duration>>>,
    failures: Mutex<Vec<usize>>,
    /// The ids of notes that were acknowledged.
    acknowledged: Mutex<Vec<i64>>,
}

impl Shared {
    fn count(&self, phase: usize, result: Option<Duration>) {
        let (mut latencies, mut failures) = (lock(&self.latencies), lock(&self.failures));
        let len = failures.len().max(phase + 1);
        latencies.resize_with(len, Vec::new);
        failures.resize(len, 0);
        match result {
            Some(took) => latencies[phase].push(took),
            None => failures[phase] += 1,
        }
    }

    /// Begins the next phase, and lets it last.
    fn next_phase(&self) {
        self.phase.fetch_add(1, Ordering::Relaxed);
        self.last();
    }

    fn last(&self) {
        std::thread::park_timeout(PHASE);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().expect("no panic")
}

/// One request: every fourth one writes a note.
fn exchange(client: &mut Client, number: usize) -> Option<(bool, Option<i64>)> {
    let is_write = number.is_multiple_of(4);
    let text = if is_write {
        harness::note("POST", "/api/notes", &format!("note {number}"))
    } else {
        request("GET", "/api/notes", "", "")
    };
    client.try_send(text).ok()?;
    let answer = client.try_answer().ok().filter(|answer| matches!(answer.status, 200 | 201))?;
    let ends = answer.headers.get("connection").is_some_and(|value| value == "close");
    Some((ends, is_write.then(|| answer.id())))
}

fn load(at: &Address, keeps: bool, shared: &Shared) {
    let mut kept: Option<Client> = None;
    for number in 0.. {
        if shared.is_over.load(Ordering::Relaxed) {
            return;
        }
        let begun = Instant::now();
        let client = kept.take().map_or_else(|| Client::try_connect(at), Ok);
        let result = client.ok().and_then(|mut client| exchange(&mut client, number).map(|result| (client, result)));
        let phase = shared.phase.load(Ordering::Relaxed);
        match result {
            Some((client, (ends, id))) => {
                shared.count(phase, Some(begun.elapsed()));
                lock(&shared.acknowledged).extend(id);
                kept = (keeps && !ends).then_some(client);
            }
            None => {
                shared.count(phase, None);
                // While nothing listens, an attempt fails at once.
                std::thread::park_timeout(Duration::from_millis(10));
            }
        }
    }
}

fn main() -> ExitCode {
    // `cargo bench` passes an option for its own harness.
    let folder = folder("load");
    let mut notes = Notes::start(&folder, &[]);
    let at = notes.at.clone();
    let shared = Shared::default();
    let mut names = vec!["steady".to_owned()];
    notes = std::thread::scope(|scope| {
        for number in 0..CLIENTS {
            let (at, shared) = (&at, &shared);
            scope.spawn(move || load(at, number % 2 == 0, shared));
        }
        shared.last();
        for number in 1..=RESTARTS {
            names.push(format!("restart {number}"));
            shared.phase.fetch_add(1, Ordering::Relaxed);
            notes.restart();
            shared.last();
        }
        names.push("kill -9, start".to_owned());
        shared.phase.fetch_add(1, Ordering::Relaxed);
        notes.kill();
        let notes = Notes::start(&folder, &["--listen", &at.addr.to_string()]);
        shared.last();
        names.push("steady".to_owned());
        shared.next_phase();
        shared.is_over.store(true, Ordering::Relaxed);
        notes
    });
    print(&names, &shared);
    let lost = lost(&notes, &lock(&shared.acknowledged));
    println!("acknowledged notes: {}, lost: {lost}", lock(&shared.acknowledged).len());
    let failures: usize = lock(&shared.failures).iter().take(RESTARTS + 1).sum();
    if lost + failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn print(names: &[String], shared: &Shared) {
    println!("{:<16}{:>10}{:>8}{:>10}{:>10}{:>10}", "phase", "answers", "failed", "p50 ms", "p99 ms", "max ms");
    let failures = lock(&shared.failures).clone();
    for (phase, (name, latencies)) in names.iter().zip(lock(&shared.latencies).iter_mut()).enumerate() {
        latencies.sort_unstable();
        let at = |share: usize| {
            let place = (latencies.len() * share / 1000).min(latencies.len().saturating_sub(1));
            latencies.get(place).copied().unwrap_or_default().as_secs_f64() * 1000.0
        };
        let failed = failures.get(phase).copied().unwrap_or_default();
        let (answers, p50, p99, max) = (latencies.len(), at(500), at(990), at(1000));
        println!("{name:<16}{answers:>10}{failed:>8}{p50:>10.1}{p99:>10.1}{max:>10.1}");
    }
}

/// How many of these notes are not there.
fn lost(notes: &Notes, ids: &[i64]) -> usize {
    let mut client = notes.client();
    let mut lost = 0;
    for ids in ids.chunks(100) {
        client.send(ids.iter().map(|id| request("GET", &format!("/api/notes/{id}"), "", "")).collect::<String>());
        lost += ids.iter().filter(|_| client.answer().status != 200).count();
    }
    lost
}
