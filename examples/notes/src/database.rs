//! The database, on a thread of its own: SQLite waits for the disk, and the reactor must not.
//!
//! Invariant: a write is answered after its COMMIT has returned, so what was acknowledged survives
//! the death of the process at any moment. All writes that wait share one transaction: while the
//! disk is busy with one, the next ones gather.
//!
//! Invariant: at most `max_pending` jobs have no answer that was taken. Both queues have room for
//! all of them, so neither thread ever waits for the other.

use std::error::Error;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use finale::{Inbox, Reactor, Sender, SocketId};
use rusqlite::{Connection, ErrorCode, TransactionBehavior};

use crate::schema::{self, Change, Draft, Note, Page};

/// During a restart two processes write. One waits this long for the other.
const BUSY: Duration = Duration::from_secs(5);
/// Jobs of one transaction: it bounds how long the first one waits for its answer.
const BATCH: usize = 64;

/// What is to be done.
#[derive(Debug)]
pub(crate) enum Work {
    List {
        before: i64,
    },
    Read(i64),
    Create(Draft),
    Replace(i64, Draft),
    Delete(i64),
    Attachment(i64),
    Attach(i64, String, Vec<u8>),
    /// The changes after this one. `None`: only those to come.
    Follow(Option<i64>),
    /// Another process may have changed something.
    Look,
}

/// What was found or done.
#[derive(Debug)]
pub(crate) enum Outcome {
    Page(Page),
    Note(Note),
    Created(Note),
    Done,
    Attachment(String, Vec<u8>),
    Following(Following),
    NotFound,
    Failed(ErrorCode),
}

/// Where a client that follows the changes begins.
#[derive(Debug)]
pub(crate) struct Following {
    /// What it has missed. `None`: more than is remembered.
    pub(crate) missed: Option<Vec<Change>>,
    pub(crate) last: i64,
}

/// From the thread of the database.
#[derive(Debug)]
pub(crate) enum Message {
    /// A job has ended. `to` is its connection, if it has one.
    Done { to: Option<SocketId>, outcome: Outcome, took: Duration },
    /// Notes have changed.
    Changed(Vec<Change>),
}

#[derive(Debug)]
struct Job {
    from: Option<SocketId>,
    work: Work,
    begun: Instant,
}

/// The reactor's end.
#[derive(Debug)]
pub(crate) struct Database {
    /// `None` while it is dropped.
    jobs: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
    pending: usize,
    max_pending: usize,
}

impl Database {
    /// Opens the file, and starts the thread.
    pub(crate) fn open(
        file: &Path,
        max_pending: u16,
        reactor: &Reactor,
    ) -> Result<(Self, Inbox<Message>), Box<dyn Error>> {
        let mut connection = Connection::open(file).map_err(|error| format!("{}: {error}", file.display()))?;
        connection.busy_timeout(BUSY)?;
        schema::prepare(&mut connection).map_err(|error| format!("{}: {error}", file.display()))?;
        let last = schema::last_change(&connection)?;
        let max_pending = usize::from(max_pending);
        let (jobs, queue) = sync_channel(max_pending);
        // A transaction has one message in addition to those of its jobs.
        let (sender, answers) = reactor.inbox(2 * max_pending);
        let worker = Worker { connection, queue, sender, last };
        let thread = std::thread::Builder::new().name("database".to_owned()).spawn(move || worker.run())?;
        Ok((Self { jobs: Some(jobs), thread: Some(thread), pending: 0, max_pending }, answers))
    }

    /// Begins a job. Returns whether there was room for it.
    #[must_use]
    pub(crate) fn begin(&mut self, from: Option<SocketId>, work: Work) -> bool {
        let has_room = self.pending < self.max_pending;
        let job = Job { from, work, begun: Instant::now() };
        let begun = has_room && self.jobs.as_ref().is_some_and(|jobs| jobs.try_send(job).is_ok());
        self.pending += usize::from(begun);
        begun
    }

    /// An answer was taken.
    pub(crate) const fn taken(&mut self) {
        self.pending -= 1;
    }

    pub(crate) const fn pending(&self) -> usize {
        self.pending
    }
}

impl Drop for Database {
    /// Waits for the jobs that were begun, and closes the file.
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // If it has panicked, it has printed that.
            let _ = thread.join();
        }
    }
}

/// The thread's end.
struct Worker {
    connection: Connection,
    queue: Receiver<Job>,
    sender: Sender<Message>,
    /// The last change that was sent.
    last: i64,
}

/// Without its database the service can answer nothing: what supervises it starts it again.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::abort();
        }
    }
}

impl Worker {
    fn run(mut self) {
        let _guard = AbortOnPanic;
        while let Ok(first) = self.queue.recv() {
            let batch: Vec<Job> = std::iter::once(first).chain(self.queue.try_iter().take(BATCH - 1)).collect();
            let outcomes = match self.perform(&batch) {
                Ok(outcomes) => outcomes,
                Err(error) => batch.iter().map(|_| failed(&error)).collect(),
            };
            for (job, outcome) in batch.iter().zip(outcomes) {
                let done = Message::Done { to: job.from, outcome, took: job.begun.elapsed() };
                if self.sender.send(done).is_err() {
                    return; // The reactor is gone.
                }
            }
            self.send_changes();
        }
    }

    /// All of them in one transaction. If that fails, all have failed.
    fn perform(&mut self, batch: &[Job]) -> rusqlite::Result<Vec<Outcome>> {
        let writes = batch.iter().any(|job| job.work.writes());
        let behavior = if writes { TransactionBehavior::Immediate } else { TransactionBehavior::Deferred };
        let transaction = self.connection.transaction_with_behavior(behavior)?;
        let mut outcomes = Vec::with_capacity(batch.len());
        for job in batch {
            match job.work.perform(&transaction) {
                Ok(outcome) => outcomes.push(outcome),
                // SQLite has rolled back all of it, as on a full disk.
                Err(error) if transaction.is_autocommit() => return Err(error),
                Err(error) => outcomes.push(failed(&error)),
            }
        }
        if writes {
            schema::forget(&transaction)?;
        }
        transaction.commit()?;
        Ok(outcomes)
    }

    /// If they can't be read, the next batch tries again.
    fn send_changes(&mut self) {
        let changes = schema::changes(&self.connection, self.last).unwrap_or_default();
        if let Some(last) = changes.last() {
            self.last = last.number;
            let _ = self.sender.send(Message::Changed(changes));
        }
    }
}

impl Work {
    const fn writes(&self) -> bool {
        match self {
            Self::Create(_) | Self::Replace(..) | Self::Delete(_) | Self::Attach(..) => true,
            Self::List { .. } | Self::Read(_) | Self::Attachment(_) | Self::Follow(_) | Self::Look => false,
        }
    }

    fn perform(&self, connection: &Connection) -> rusqlite::Result<Outcome> {
        let done = |found| if found { Outcome::Done } else { Outcome::NotFound };
        Ok(match self {
            Self::List { before } => Outcome::Page(schema::list(connection, *before)?),
            Self::Read(id) => schema::read(connection, *id)?.map_or(Outcome::NotFound, Outcome::Note),
            Self::Create(draft) => Outcome::Created(schema::create(connection, draft)?),
            Self::Replace(id, draft) => {
                schema::replace(connection, *id, draft)?.map_or(Outcome::NotFound, Outcome::Note)
            }
            Self::Delete(id) => done(schema::delete(connection, *id)?),
            Self::Attach(id, kind, bytes) => done(schema::attach(connection, *id, kind, bytes)?),
            Self::Attachment(id) => match schema::attachment(connection, *id)? {
                Some((kind, bytes)) => Outcome::Attachment(kind, bytes),
                None => Outcome::NotFound,
            },
            Self::Follow(after) => Outcome::Following(follow(connection, *after)?),
            Self::Look => Outcome::Done,
        })
    }
}

fn follow(connection: &Connection, after: Option<i64>) -> rusqlite::Result<Following> {
    let last = schema::last_change(connection)?;
    let after = after.unwrap_or(last);
    // A number that is not ours is that of another file.
    let is_remembered = (0..=schema::REMEMBERED).contains(&last.saturating_sub(after)) && after >= 0;
    let missed = if is_remembered { Some(schema::changes(connection, after)?) } else { None };
    Ok(Following { missed, last })
}

fn failed(error: &rusqlite::Error) -> Outcome {
    Outcome::Failed(error.sqlite_error_code().unwrap_or(ErrorCode::Unknown))
}
