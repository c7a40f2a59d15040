//! How the servers that can be stopped are stopped: by a call from the thread that probes them.

use std::cell::RefCell;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::{env, fs, process};

/// A server's orders. Clones are the same.
#[derive(Clone)]
pub(crate) struct Control(Arc<Orders>);

struct Orders {
    number: u32,
    is_stopping: AtomicBool,
    /// How often the server was reloaded.
    reloads: AtomicU32,
}

thread_local! {
    static HERE: RefCell<Option<Control>> = const { RefCell::new(None) };
}

impl Control {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self(Arc::new(Orders { number, is_stopping: AtomicBool::new(false), reloads: AtomicU32::new(0) }))
    }

    /// Makes it the one of this thread.
    pub(crate) fn install(self) {
        HERE.set(Some(self));
    }

    /// That of the server that this thread runs or has started last.
    pub(crate) fn here() -> Self {
        HERE.with_borrow_mut(|here| here.get_or_insert_with(Self::new).clone())
    }

    pub(crate) fn stop(&self) {
        self.0.is_stopping.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.0.is_stopping.load(Ordering::SeqCst)
    }

    /// The server has stopped, and begins again.
    pub(crate) fn begin_again(&self) {
        self.0.is_stopping.store(false, Ordering::SeqCst);
        self.0.reloads.fetch_add(1, Ordering::SeqCst);
    }

    /// A command of the shell that reloads the server.
    pub(crate) fn reload_command(&self) -> String {
        format!("touch '{}'", self.path().display())
    }

    /// Whether a reload was ordered since the last call. It is counted then.
    pub(crate) fn takes_reload(&self) -> bool {
        let is_ordered = fs::remove_file(self.path()).is_ok();
        self.0.reloads.fetch_add(u32::from(is_ordered), Ordering::SeqCst);
        is_ordered
    }

    /// How often the server has begun again.
    pub(crate) fn reloads(&self) -> u32 {
        self.0.reloads.load(Ordering::SeqCst)
    }

    fn path(&self) -> PathBuf {
        env::temp_dir().join(format!("finale-zoo-{}-{}", process::id(), self.0.number))
    }
}
