//! Each kind of ending in words. docs/guides/endings.md has the same table, and a test compares
//! them.

use finale::{ConnectionErrorKind, Ending, EndingKind, LookupErrorKind, TimeoutKind};

/// What it means, and what to do.
pub(crate) fn explain(ending: &Ending) -> (&'static str, &'static str) {
    match &ending.kind {
        EndingKind::Confirmed => (
            "both sides finished, and the peer's kernel has every byte",
            "nothing; if the peer's program must have read them, your protocol needs an answer",
        ),
        EndingKind::HandedOff => (
            "both sides finished, and our kernel delivers the rest without reporting the result",
            "nothing; use `CloseMode::Confirmed` where you need the result",
        ),
        EndingKind::Destroyed => (
            "your program, `Pipes`, `Pool::discard` or the limit of a stop destroyed it",
            "find out which; for a pipe, read the ending of the other side",
        ),
        EndingKind::Failed(error) => explain_error(error.kind),
        _ => ("a kind that is newer than this program", "read the changelog"),
    }
}

pub(crate) fn explain_error(kind: ConnectionErrorKind) -> (&'static str, &'static str) {
    match kind {
        ConnectionErrorKind::Reset => (
            "the peer's kernel reset the connection: its program crashed, aborted, or closed over unread bytes",
            "take nothing for complete that your protocol did not complete; a client can reconnect",
        ),
        ConnectionErrorKind::TimedOut(timer) => explain_timeout(timer),
        ConnectionErrorKind::Refused => {
            ("no program listens at that address", "retry with back-off: a server may be restarting")
        }
        ConnectionErrorKind::Unreachable => {
            ("there is no route, or a filter refuses the connection", "check address, route and firewall; retry slowly")
        }
        ConnectionErrorKind::Lookup(LookupErrorKind::NotFound | LookupErrorKind::NoAddress) => {
            ("the name does not exist or has no address", "check the name; a retry does not help")
        }
        ConnectionErrorKind::Lookup(_) => ("the resolver failed", "retry with back-off"),
        ConnectionErrorKind::NoLocalAddress => (
            "no local port is free, or the local address is not one of this machine",
            "keep connections open with `Pool`; let the peer finish first, so that TIME_WAIT is not ours",
        ),
        ConnectionErrorKind::OutOfResources => {
            ("no descriptor or no memory is left", "raise the limit of descriptors; set `max_connections` below it")
        }
        ConnectionErrorKind::Aborted => {
            ("the system ended the connection, for example by `ss -K`", "an administrator did it: ask, then retry")
        }
        ConnectionErrorKind::System => ("another error of the system", "read `ConnectionError::os`"),
        ConnectionErrorKind::Layer(_) => {
            ("a layer on the connection has failed, such as TLS", "read `ConnectionError::detail`")
        }
        _ => ("a kind that is newer than this program", "read the changelog"),
    }
}

pub(crate) fn explain_timeout(timer: TimeoutKind) -> (&'static str, &'static str) {
    match timer {
        TimeoutKind::Connect => (
            "no address answered within `connect_timeout`",
            "retry with back-off; a firewall that drops packets looks like this",
        ),
        TimeoutKind::HalfClosed => (
            "one side had finished, and then no byte moved for `half_closed_timeout`",
            "check that your program calls `end` after `Event::End`; otherwise the peer never finished",
        ),
        TimeoutKind::Close => (
            "after our `end` the peer took nothing, did not acknowledge our FIN, or (after `discard`) did not finish, for `close_timeout`",
            "what was written may be lost; the peer hangs or its machine is gone",
        ),
        TimeoutKind::Write => {
            ("bytes waited for `write_timeout`, and the peer took none", "nothing on a server; a client can reconnect")
        }
        TimeoutKind::Deadline => (
            "it was not done by the deadline that your program (or `Pipes`) set",
            "repeat the request only if it is idempotent",
        ),
        TimeoutKind::Ending => (
            "the connection was half-closed or closing for the whole `ending_timeout`",
            "set a longer one if long answers to half-closed peers are normal",
        ),
        TimeoutKind::Kernel => (
            "the peer's machine no longer answers: keep-alive, `user_timeout` or retransmissions gave up",
            "reconnect with back-off",
        ),
        _ => ("a timer that is newer than this program", "read the changelog"),
    }
}
