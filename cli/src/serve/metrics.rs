//! SIGUSR1: the metrics of all shards, as one sum.

use std::fmt;
use std::sync::{Arc, OnceLock, mpsc};

use finale::{Metrics, Sender};
use finale_tls::{Tls, TlsMetrics};
use serde::Serialize;
use serde::ser::{SerializeStruct as _, Serializer};

use crate::output;
use crate::signals::SignalCount;

/// Requests that one shard can have queued. Further ones are dropped.
pub(super) const REQUESTS: usize = 16;

/// Where a shard sends its metrics.
pub(super) type Request = mpsc::Sender<Counts>;

/// Where a shard leaves its metrics when it ends: it answers no request any more.
pub(super) type Last = Arc<OnceLock<Counts>>;

/// The metrics of one shard, or their sum.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Counts {
    #[serde(flatten)]
    reactor: Metrics,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(serialize_with = "tls_object")]
    tls: Option<TlsMetrics>,
}

/// The names are stable: programs read them.
fn tls_object<S: Serializer>(tls: &Option<TlsMetrics>, serializer: S) -> Result<S::Ok, S::Error> {
    let counts = tls.unwrap_or_default();
    let mut object = serializer.serialize_struct("tls", 5)?;
    object.serialize_field("handshakes", &counts.handshakes)?;
    object.serialize_field("resumed", &counts.resumed)?;
    object.serialize_field("failed_handshakes", &counts.failed_handshakes)?;
    object.serialize_field("truncated", &counts.truncated)?;
    object.serialize_field("failed", &counts.failed)?;
    object.end()
}

/// One line per number, with its name.
impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reactor.fmt(f)?;
        self.tls.as_ref().map_or(Ok(()), |tls| tls.fmt(f))
    }
}

impl Counts {
    pub(super) fn new(reactor: Metrics, tls: Option<&Tls>) -> Self {
        Self { reactor, tls: tls.map(Tls::metrics) }
    }

    fn add(mut self, other: &Self) -> Self {
        self.reactor += &other.reactor;
        if let (Some(ours), Some(theirs)) = (&mut self.tls, &other.tls) {
            *ours += theirs;
        }
        self
    }
}

/// Requests the metrics of all shards.
pub(super) struct MetricsRequests {
    signals: SignalCount,
    shards: Vec<(Sender<Request>, Last)>,
    json: bool,
}

impl MetricsRequests {
    pub(super) const fn new(signals: SignalCount, shards: Vec<(Sender<Request>, Last)>, json: bool) -> Self {
        Self { signals, shards, json }
    }

    /// Prints the metrics if a signal has arrived.
    pub(super) fn check(&mut self) {
        if self.signals.take_new() == 0 {
            return;
        }
        let request = |(shard, last): &(Sender<Request>, Last)| {
            let (sender, counts) = mpsc::channel();
            let _ = shard.send(sender);
            (counts, Arc::clone(last))
        };
        // All of them, before the first answer is awaited.
        let requested: Vec<_> = self.shards.iter().map(request).collect();
        // A shard that has ended, or ends now, drops the sender, which ends the wait for it.
        let counts = requested.iter().filter_map(|(counts, last)| counts.recv().ok().or_else(|| last.get().cloned()));
        let sum = counts.reduce(|sum, more| sum.add(&more));
        match sum {
            Some(sum) if self.json => match output::json(&sum) {
                Ok(text) => output::say(format_args!("{text}")),
                Err(error) => output::error(format_args!("{error}")),
            },
            Some(sum) => output::say(format_args!("{sum}")),
            None => {}
        }
    }
}
