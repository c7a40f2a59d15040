use std::collections::BTreeSet;
use std::error::Error as _;
use std::fmt::Display;

use rustix::io::Errno;

use super::*;

/// Each error is one line without a full stop, since it is put into longer lines, and all lines
/// differ.
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

const ADDRESSES: [AddressError; 8] = [
    AddressError::NoPort,
    AddressError::InvalidPort,
    AddressError::NoHost,
    AddressError::NoPath,
    AddressError::InvalidPath,
    AddressError::NotIpv6,
    AddressError::NoInterface,
    AddressError::NotAnAddress,
];
const OPTIONS: [InvalidOption; 6] = [
    InvalidOption::KeepAliveTime,
    InvalidOption::KeepAliveCount,
    InvalidOption::UserTimeout,
    InvalidOption::BufferSize,
    InvalidOption::HighWaterMark,
    InvalidOption::LowWaterMark,
];
const LAYERS: [LayerErrorKind; 4] =
    [LayerErrorKind::Truncated, LayerErrorKind::Handshake, LayerErrorKind::HandshakeTimeout, LayerErrorKind::Protocol];

const TIMERS: [TimeoutKind; 6] = [
    TimeoutKind::Connect,
    TimeoutKind::HalfClosed,
    TimeoutKind::Close,
    TimeoutKind::Write,
    TimeoutKind::Deadline,
    TimeoutKind::Kernel,
];
const LOOKUPS: [LookupErrorKind; 4] =
    [LookupErrorKind::NotFound, LookupErrorKind::TryAgain, LookupErrorKind::NoAddress, LookupErrorKind::Failed];

#[test]
fn every_refusal_and_every_cause_has_a_line_of_its_own() {
    check_lines(ADDRESSES);
    check_lines(OPTIONS);
    check_lines(TIMERS);
    check_lines(LOOKUPS);
    let addr = Target::try_from("127.0.0.1:7").expect("an address");
    let plain = [
        Error::Gone,
        Error::WriteAfterEnd,
        Error::QueueFull { queued_bytes: 11, limit_bytes: 10 },
        Error::Listen { addr, source: os(Errno::ADDRINUSE) },
        Error::System { call: "epoll_wait", source: os(Errno::BADF) },
        Error::UnixSink,
        Error::ReactorGone,
    ];
    let bad = ADDRESSES.map(Error::InvalidAddress).into_iter().chain(OPTIONS.map(Error::InvalidOption));
    check_lines(plain.into_iter().chain(bad));
    let plain = [
        ConnectionErrorKind::Reset,
        ConnectionErrorKind::Refused,
        ConnectionErrorKind::Unreachable,
        ConnectionErrorKind::NoLocalAddress,
        ConnectionErrorKind::OutOfResources,
        ConnectionErrorKind::Aborted,
        ConnectionErrorKind::System,
    ];
    let others = TIMERS.map(ConnectionErrorKind::TimedOut).into_iter().chain(LOOKUPS.map(ConnectionErrorKind::Lookup));
    check_lines(plain.into_iter().chain(others).chain(LAYERS.map(ConnectionErrorKind::Layer)));
}

#[test]
fn a_refusal_names_the_numbers_and_the_reason_behind_it() {
    let full = Error::QueueFull { queued_bytes: 1234, limit_bytes: 999 }.to_string();
    assert!(full.contains("1234") && full.contains("999"), "{full}");
    let addr = Target::try_from("[::1]:80").expect("an address");
    let taken = Error::Listen { addr, source: os(Errno::ADDRINUSE) };
    assert!(taken.to_string().contains("[::1]:80"), "{taken}");
    let failed = Error::System { call: "accept4", source: os(Errno::MFILE) };
    assert!(failed.to_string().contains("accept4"), "{failed}");
    for error in
        [taken, failed, Error::InvalidAddress(AddressError::NoHost), Error::InvalidOption(InvalidOption::BufferSize)]
    {
        let source = error.source().unwrap_or_else(|| panic!("{error} has a reason"));
        assert!(source.to_string().len() > 5 && error.to_string().ends_with(&source.to_string()), "{error}: {source}");
    }
    for error in [Error::Gone, Error::WriteAfterEnd, Error::UnixSink, Error::ReactorGone] {
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
    let kinds: [(ConnectionErrorKind, &[Errno]); 7] = [
        (ConnectionErrorKind::Reset, &[Errno::CONNRESET, Errno::PIPE, Errno::NOTCONN]),
        (ConnectionErrorKind::Refused, &[Errno::CONNREFUSED, Errno::NOENT]),
        (
            ConnectionErrorKind::Unreachable,
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
        (ConnectionErrorKind::TimedOut(TimeoutKind::Kernel), &[Errno::TIMEDOUT]),
        (ConnectionErrorKind::NoLocalAddress, &[Errno::ADDRNOTAVAIL, Errno::ADDRINUSE]),
        (ConnectionErrorKind::OutOfResources, &[Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::NOSPC]),
        (ConnectionErrorKind::Aborted, &[Errno::CONNABORTED]),
    ];
    for (cause, errnos) in kinds {
        for &errno in errnos {
            let failure = ConnectionError::from_os(&io(errno));
            assert_eq!((failure.kind, failure.os), (cause, Some(os(errno))), "{errno:?}");
        }
    }
    assert_eq!(ConnectionErrorKind::from_os(&io(Errno::IO)), ConnectionErrorKind::System, "any other error");
    let numberless = ConnectionError::from_os(&io::Error::other("no number"));
    assert_eq!((numberless.kind, numberless.os), (ConnectionErrorKind::System, None));
}

#[test]
fn a_socket_that_is_no_stream_has_reset_nothing() {
    let failure = ConnectionError::from_os(&io(Errno::PROTOTYPE));
    assert_eq!(failure.kind, ConnectionErrorKind::System);
    assert_eq!(failure.to_string(), format!("failed ({}): not a stream socket", io(Errno::PROTOTYPE)));
}

#[test]
fn a_failure_tells_its_cause_the_systems_words_where_they_add_something_and_every_attempt() {
    let system = ConnectionError::from_os(&io(Errno::IO));
    assert_eq!(system.to_string(), format!("failed ({})", io(Errno::IO)));
    let reset = ConnectionError::from_os(&io(Errno::CONNRESET));
    assert_eq!(reset.to_string(), ConnectionErrorKind::Reset.to_string(), "the system's words say no more than ours");
    assert_eq!(reset.source().map(ToString::to_string), Some(io(Errno::CONNRESET).to_string()));
    assert!(ConnectionError::of(ConnectionErrorKind::Refused).source().is_none());

    let attempt = |port, kind| ConnectAttempt { addr: SocketAddr::from(([10, 0, 0, 1], port)), kind };
    let mut failure = ConnectionError::of(ConnectionErrorKind::Refused);
    failure.attempts = vec![attempt(1, ConnectionErrorKind::Refused)];
    assert_eq!(
        failure.to_string(),
        "refused: nothing listens there [10.0.0.1:1]",
        "one address: its cause is the cause"
    );
    failure.attempts.push(attempt(2, ConnectionErrorKind::Aborted));
    failure.attempts.push(attempt(3, ConnectionErrorKind::Unreachable));
    assert_eq!(
        failure.to_string(),
        "refused: nothing listens there [10.0.0.1:1: refused: nothing listens there; \
         10.0.0.1:2: aborted by the system; 10.0.0.1:3: unreachable]"
    );
}

#[test]
fn a_wait_that_would_never_end_says_so_in_words() {
    let source = OsError::from_raw(Errno::DEADLK.raw_os_error());
    let text = Error::System { call: "epoll_wait", source }.to_string();
    assert!(text.starts_with("epoll_wait would never end: sockets, listeners or timers are left"), "{text}");
    assert!(text.contains("usually a limit is missing, such as an idle timeout, or a listener is to be"), "{text}");
}
