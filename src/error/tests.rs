use std::collections::BTreeSet;
use std::error::Error as _;
use std::fmt::Display;

use rustix::io::Errno;

use super::*;

/// One line each, none like another, and no full stop: the words are put into longer lines.
#[track_caller]
fn check_lines<T: Display>(all: impl IntoIterator<Item = T>) {
    let mut seen = BTreeSet::new();
    for line in all.into_iter().map(|one| one.to_string()) {
        assert!(line.len() > 5 && !line.contains('\n') && !line.ends_with('.'), "{line:?}");
        assert!(seen.insert(line.clone()), "{line:?} is said twice");
    }
}

fn os(errno: Errno) -> OsError {
    OsError::from_raw(errno.raw_os_error())
}

fn io(errno: Errno) -> io::Error {
    io::Error::from(errno)
}

const ADDRESSES: [BadAddress; 8] = [
    BadAddress::NoPort,
    BadAddress::BadPort,
    BadAddress::NoHost,
    BadAddress::NoPath,
    BadAddress::BadPath,
    BadAddress::NotIpv6,
    BadAddress::NoInterface,
    BadAddress::NotAnIp,
];
const OPTIONS: [BadOption; 6] = [
    BadOption::KeepAliveTime,
    BadOption::KeepAliveCount,
    BadOption::UserTimeout,
    BadOption::BufferSize,
    BadOption::HighWaterMark,
    BadOption::LowWaterMark,
];
const TIMERS: [Timer; 6] =
    [Timer::Connect, Timer::HalfClosed, Timer::Linger, Timer::Write, Timer::Deadline, Timer::Kernel];
const LOOKUPS: [LookupCause; 4] =
    [LookupCause::NotFound, LookupCause::TryAgain, LookupCause::NoAddress, LookupCause::Failed];

#[test]
fn every_refusal_and_every_cause_has_a_line_of_its_own() {
    check_lines(ADDRESSES);
    check_lines(OPTIONS);
    check_lines(TIMERS);
    check_lines(LOOKUPS);
    let addr = "127.0.0.1:7".parse().expect("an address");
    let plain = [
        Error::Gone,
        Error::WriteAfterEnd,
        Error::QueueFull { queued_bytes: 11, limit_bytes: 10 },
        Error::Listen { addr, source: os(Errno::ADDRINUSE) },
        Error::System { call: "epoll_wait", source: os(Errno::BADF) },
        Error::ReactorGone,
    ];
    let bad = ADDRESSES.map(Error::BadAddress).into_iter().chain(OPTIONS.map(Error::BadOption));
    check_lines(plain.into_iter().chain(bad));
    let plain = [
        Cause::Reset,
        Cause::Refused,
        Cause::Unreachable,
        Cause::NoLocalAddress,
        Cause::OutOfResources,
        Cause::Aborted,
        Cause::System,
    ];
    let others = TIMERS.map(Cause::TimedOut).into_iter().chain(LOOKUPS.map(Cause::Lookup));
    check_lines(plain.into_iter().chain(others));
}

#[test]
fn a_refusal_names_the_numbers_and_the_reason_behind_it() {
    let full = Error::QueueFull { queued_bytes: 1234, limit_bytes: 999 }.to_string();
    assert!(full.contains("1234") && full.contains("999"), "{full}");
    let addr = "[::1]:80".parse().expect("an address");
    let taken = Error::Listen { addr, source: os(Errno::ADDRINUSE) };
    assert!(taken.to_string().contains("[::1]:80"), "{taken}");
    let failed = Error::System { call: "accept4", source: os(Errno::MFILE) };
    assert!(failed.to_string().contains("accept4"), "{failed}");
    for error in [taken, failed, Error::BadAddress(BadAddress::NoHost), Error::BadOption(BadOption::BufferSize)] {
        let source = error.source().unwrap_or_else(|| panic!("{error} has a reason"));
        assert!(source.to_string().len() > 5 && error.to_string().ends_with(&source.to_string()), "{error}: {source}");
    }
    for error in [Error::Gone, Error::WriteAfterEnd, Error::ReactorGone] {
        assert!(error.source().is_none(), "{error} is its own reason");
    }
}

#[test]
fn an_error_number_survives_the_way_through_std_and_says_what_the_system_says() {
    for errno in [Errno::CONNRESET, Errno::MFILE, Errno::PERM] {
        let there = os(errno);
        assert_eq!(there.raw(), errno.raw_os_error());
        assert_eq!(OsError::from(&io::Error::from(there)), there);
        assert_eq!(there.to_string(), io(errno).to_string());
        assert!(format!("{there:?}").contains(&there.to_string()));
    }
    let made_up = io::Error::other("no number in here");
    let none = OsError::from(&made_up);
    assert_eq!(none.raw(), 0, "0 stands for none");
    assert_eq!(OsError::from(&io::Error::from(none)), none);
    for shown in [none.to_string(), format!("{none:?}"), Error::System { call: "call", source: none }.to_string()] {
        assert!(!shown.contains("Success") && shown.contains("no error number"), "{shown}");
    }
}

#[test]
fn each_error_of_a_socket_call_is_of_the_kind_that_the_documentation_promises() {
    let kinds: [(Cause, &[Errno]); 7] = [
        (Cause::Reset, &[Errno::CONNRESET, Errno::PIPE, Errno::NOTCONN]),
        (Cause::Refused, &[Errno::CONNREFUSED, Errno::NOENT]),
        (
            Cause::Unreachable,
            &[
                Errno::HOSTUNREACH,
                Errno::NETUNREACH,
                Errno::HOSTDOWN,
                Errno::NETDOWN,
                Errno::ACCESS,
                Errno::PERM,
                Errno::NODEV,
                Errno::AFNOSUPPORT,
                Errno::INVAL,
            ],
        ),
        (Cause::TimedOut(Timer::Kernel), &[Errno::TIMEDOUT]),
        (Cause::NoLocalAddress, &[Errno::ADDRNOTAVAIL, Errno::ADDRINUSE]),
        (Cause::OutOfResources, &[Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::NOSPC]),
        (Cause::Aborted, &[Errno::CONNABORTED]),
    ];
    for (cause, errnos) in kinds {
        for &errno in errnos {
            let failure = Failure::from_os(&io(errno));
            assert_eq!((failure.cause, failure.os), (cause, Some(os(errno))), "{errno:?}");
        }
    }
    assert_eq!(Cause::from_os(&io(Errno::IO)), Cause::System, "whatever nobody thought of");
    let numberless = Failure::from_os(&io::Error::other("no number"));
    assert_eq!((numberless.cause, numberless.os), (Cause::System, None));
}

#[test]
fn a_socket_that_is_no_stream_has_reset_nothing() {
    let failure = Failure::from_os(&io(Errno::PROTOTYPE));
    assert_eq!(failure.cause, Cause::System);
    assert_eq!(failure.to_string(), format!("failed ({}): not a stream socket", io(Errno::PROTOTYPE)));
}

#[test]
fn a_failure_tells_its_cause_the_systems_words_where_they_add_something_and_every_attempt() {
    let system = Failure::from_os(&io(Errno::IO));
    assert_eq!(system.to_string(), format!("failed ({})", io(Errno::IO)));
    let reset = Failure::from_os(&io(Errno::CONNRESET));
    assert_eq!(reset.to_string(), Cause::Reset.to_string(), "the system's words say no more than ours");
    assert_eq!(reset.source().map(ToString::to_string), Some(io(Errno::CONNRESET).to_string()));
    assert!(Failure::of(Cause::Refused).source().is_none());

    let attempt = |port, cause| Attempt { addr: SocketAddr::from(([10, 0, 0, 1], port)), cause };
    let mut failure = Failure::of(Cause::Refused);
    failure.attempts = vec![attempt(1, Cause::Refused)];
    assert_eq!(
        failure.to_string(),
        "refused: nobody listens there [10.0.0.1:1]",
        "one address: its cause is the cause"
    );
    failure.attempts.push(attempt(2, Cause::Aborted));
    failure.attempts.push(attempt(3, Cause::Unreachable));
    assert_eq!(
        failure.to_string(),
        "refused: nobody listens there [10.0.0.1:1: refused: nobody listens there; \
         10.0.0.1:2: aborted by the system; 10.0.0.1:3: unreachable]"
    );
}

#[test]
fn a_wait_that_would_never_end_says_so_in_words() {
    let source = OsError::from_raw(Errno::DEADLK.raw_os_error());
    let text = Error::System { call: "epoll_wait", source }.to_string();
    assert!(text.starts_with("epoll_wait would never end: sockets or listeners are left"), "{text}");
}
