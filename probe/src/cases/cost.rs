//! What each case costs a server that ends well, about, for those who want to know before they run
//! it. Measured on `examples/http`.

/// By the id of the case: connections, bytes and seconds, with the healthy clients left out. "As long
/// as the timeout": `Options::timeout`, by default 10 s.
const COSTS: &[(&str, &str)] = &[
    ("half-close", "6 connections per run, one at a time, and 3 slow requests; 120 and 4 s with 20 runs"),
    ("slow-reader", "some 5 connections with big answers; 9 s"),
    ("late-input", "some 30 connections; 4 s"),
    ("early-answer", "some 20 connections and up to 60 MB of uploads, up to 10 MB if the server is not local; 5 s"),
    (
        "farewell-while-talking",
        "a connection that sends small pieces; as long as the timeout, and 3 more if the server ends it",
    ),
    ("connect-only", "2 connections, held as long as the timeout or a claim"),
    ("half-request", "4 connections, held as long as the timeout or a claim"),
    ("drip-request", "3 connections, held as long as the timeout or a claim"),
    ("idle", "1 connection, held as long as the timeout or a claim, and no healthy client beside it"),
    ("silent-forget", "1 connection, held as long as the timeout or a claim"),
    ("half-closed-hold", "4 connections, one at a time; until the server ends them, at most the timeout"),
    ("never-read", "4 connections with big answers that nothing reads, held as long as the timeout or a claim"),
    ("pipeline", "2 connections per run, one at a time; 40 and 2 s with 20 runs"),
    ("pipeline-fin", "a connection per run, one at a time; 1 s"),
    ("request-plus-partial", "5 connections, one at a time; less than 1 s"),
    ("reuse-after-error", "12 connections, one at a time; 1 s"),
    (
        "keep-alive-race",
        "1 connection, or some 30 if the server ends it, each held as long as the server holds an idle one, at most the timeout",
    ),
    ("recycle", "2000 requests on 4 connections at a time; at most 20 s"),
    ("greedy-keepalive", "up to 16 busy connections at a time for 1 s; 2 s"),
    ("reset-after-request", "some 100 connections, one at a time, and as many healthy ones after them; 4 s"),
    ("reset-mid-answer", "10 connections with big answers, one at a time, and as many healthy ones; 2 s"),
    ("fin-then-reset", "some 100 connections, one at a time, and as many healthy ones after them; 4 s"),
    ("abandon-slow", "a slow request for each way to leave; some seconds each"),
    ("vanish", "some 10 connections, of which the server may keep some; 4 times as long as the timeout"),
    ("churn", "up to 4100 connections, one at a time; at most 80 s"),
    ("abort-storm", "250 connections at a time, aborted, and as many healthy ones; 3 s"),
    ("stop-in-flight", "some connections and a stop; as long as the server takes to stop"),
    ("stop-race", "some connections and a stop; as long as the server takes to stop"),
    ("stop-idle", "some connections and a stop; as long as the server takes to stop"),
    ("stop-queued", "some connections and a stop; as long as the server takes to stop"),
    ("stop-restart", "some connections, a stop, and the next start"),
    ("reload", "some connections that are busy, and a reload"),
];

/// What a case costs; empty if that was not written down.
pub(crate) fn cost(id: &str) -> &'static str {
    COSTS.iter().find(|(case, _)| *case == id).map_or("", |(_, cost)| cost)
}

#[cfg(test)]
mod tests {
    use super::cost;
    use crate::cases::all;

    #[test]
    fn each_case_has_its_cost() {
        let missing: Vec<_> = all().map(|case| case.id).filter(|id| cost(id).is_empty()).collect();
        assert!(missing.is_empty(), "cases/cost.rs has no line for {missing:?}");
    }
}
