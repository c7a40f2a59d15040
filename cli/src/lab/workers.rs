//! Threads for what takes time, so that the reactor answers meanwhile.
//!
//! Invariant: what is under way and what waits are bounded; what does not fit is refused at once.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use finale::{Sender, SocketId};

use super::http::Answer;
use crate::errors::Error;

/// An answer for this connection.
pub(super) type Answered = (SocketId, Answer);
type Job = (SocketId, Box<dyn FnOnce() -> Answer + Send>);

/// Some threads, and the jobs that wait for them.
pub(super) struct Workers {
    jobs: SyncSender<Job>,
}

impl Workers {
    pub(super) fn start(threads: usize, waiting: usize, answers: &Sender<Answered>) -> Result<Self, Error> {
        let (jobs, waits) = sync_channel(waiting);
        let waits = Arc::new(Mutex::new(waits));
        for _ in 0..threads {
            let (waits, answers) = (Arc::clone(&waits), answers.clone());
            let started = thread::Builder::new().name("lab".to_owned()).spawn(move || work(&waits, &answers));
            started.map_err(|source| Error::io("start a thread", source))?;
        }
        Ok(Self { jobs })
    }

    /// Has the job done by one of the threads. The caller takes care that the inbox has room for all
    /// answers: a thread does not wait for it.
    ///
    /// # Errors
    /// With the answer, if too many wait.
    pub(super) fn take(&self, id: SocketId, job: impl FnOnce() -> Answer + Send + 'static) -> Result<(), Answer> {
        self.jobs.try_send((id, Box::new(job))).map_err(|refused| match refused {
            TrySendError::Full(_) => busy(),
            TrySendError::Disconnected(_) => Answer::failed(500, "its threads have ended"),
        })
    }
}

pub(super) fn busy() -> Answer {
    Answer::failed(503, "the lab is busy; try again")
}

fn work(waits: &Mutex<Receiver<Job>>, answers: &Sender<Answered>) {
    loop {
        // The lock is held while it waits: the others wait for the lock.
        let job = waits.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((id, job)) = job else { return };
        let answer = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
        let answer = answer.unwrap_or_else(|_| Answer::failed(500, "the run panicked; please report the link"));
        // Without a reactor no client waits for it.
        if answers.send((id, answer)).is_err() {
            return;
        }
    }
}
