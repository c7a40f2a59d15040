use std::net::SocketAddr;

use super::*;

const fn of_ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Compares the options of listeners and of outgoing connections, which share their rules.
#[track_caller]
fn expect(
    set: impl Fn(ListenOptions) -> ListenOptions,
    set_too: impl Fn(ConnectOptions) -> ConnectOptions,
    answer: Result<(), InvalidOption>,
) {
    let answer = answer.map_err(Error::InvalidOption);
    assert_eq!(set(ListenOptions::default()).check(), answer, "a listener");
    assert_eq!(set_too(ConnectOptions::default()).check(), answer, "a connection");
}

/// The same setters on both.
macro_rules! expect {
    ($answer:expr, $($setter:ident($value:expr)),*) => {
        expect(|options| options$(.$setter($value))*, |options| options$(.$setter($value))*, $answer)
    };
}

#[test]
fn the_defaults_are_those_that_the_documentation_promises() {
    expect!(Ok(()),);
    let Settings { connect_ms, half_closed_ms, close_ms, high_water_bytes, limit_bytes, .. } = Settings::default();
    assert_eq!((connect_ms, half_closed_ms, close_ms), (Some(30_000), Some(300_000), Some(30_000)));
    assert_eq!((high_water_bytes, limit_bytes), (131_072, 16_777_216));
    let times = KeepAlive::after(Duration::from_secs(77));
    assert_eq!((times.idle.as_secs(), times.interval.as_secs(), times.count), (77, 10, 6));
}

#[test]
fn keep_alive_takes_up_to_32767_seconds_and_1_to_127_probes() {
    let (longest, longer) = (Duration::from_secs(32_767), Duration::from_secs(32_767) + Duration::from_nanos(1));
    let times = |idle, interval, count| KeepAlive { idle, interval, count };
    expect!(Ok(()), keep_alive(times(longest, longest, 127)));
    expect!(Ok(()), keep_alive(times(Duration::ZERO, Duration::ZERO, 1)));
    expect!(Err(InvalidOption::KeepAliveTime), keep_alive(times(longer, longest, 1)));
    expect!(Err(InvalidOption::KeepAliveTime), keep_alive(times(longest, longer, 1)));
    expect!(Err(InvalidOption::KeepAliveCount), keep_alive(times(longest, longest, 0)));
    expect!(Err(InvalidOption::KeepAliveCount), keep_alive(times(longest, longest, 128)));
}

#[test]
fn the_user_timeout_goes_from_a_millisecond_to_what_the_kernels_int_can_hold() {
    const MOST: u64 = i32::MAX as u64;
    expect!(Ok(()), user_timeout(of_ms(1)));
    expect!(Ok(()), user_timeout(Duration::from_nanos(1)));
    expect!(Ok(()), user_timeout(of_ms(MOST)));
    for bad in [Duration::ZERO, of_ms(MOST + 1), Duration::MAX] {
        expect!(Err(InvalidOption::UserTimeout), user_timeout(bad));
    }
}

#[test]
fn a_buffer_has_from_one_byte_to_a_gibibyte() {
    const MOST: usize = 1_073_741_824;
    expect!(Ok(()), send_buffer_size(1), receive_buffer_size(MOST));
    expect!(Ok(()), send_buffer_size(MOST), receive_buffer_size(1));
    for bad in [0, MOST + 1, usize::MAX] {
        expect!(Err(InvalidOption::BufferSize), send_buffer_size(bad));
        expect!(Err(InvalidOption::BufferSize), receive_buffer_size(bad));
    }
}

#[test]
fn the_high_water_mark_is_at_least_a_byte_and_at_most_the_limit() {
    expect!(Ok(()), high_water_mark(1), write_limit(1));
    expect!(Ok(()), high_water_mark(10), write_limit(11));
    expect!(Err(InvalidOption::HighWaterMark), high_water_mark(0));
    expect!(Err(InvalidOption::HighWaterMark), high_water_mark(0), write_limit(0));
    expect!(Err(InvalidOption::HighWaterMark), high_water_mark(11), write_limit(10));
}

#[test]
fn milliseconds_are_rounded_up_so_that_no_timer_is_early() {
    assert_eq!(millis(Duration::ZERO), Some(0));
    assert_eq!(millis(Duration::from_nanos(1)), Some(1));
    assert_eq!(millis(of_ms(7)), Some(7));
    assert_eq!(millis(of_ms(7) + Duration::from_nanos(1)), Some(8));
    assert_eq!(millis(Duration::MAX), None, "longer than anything can run: no limit");
}

#[test]
fn a_setter_changes_what_it_names_and_keeps_the_rest() {
    let listen = ListenOptions::default().nodelay(false).backlog(7).reuse_port(true).ipv6_only(true).start_paused(true);
    assert_eq!((listen.backlog, listen.reuse_port, listen.ipv6_only), (7, ReusePort::On, true));
    assert_eq!((listen.system.nodelay, listen.settings.paused), (false, true));
    let (at, limit) = (SocketAddr::from(([127, 0, 0, 1], 9)), Some(of_ms(5)));
    let connect =
        ConnectOptions::default().notify_peer_ended(true).local_addr(at).connect_timeout(limit).close_timeout(None);
    assert_eq!((connect.local, connect.settings.connect_ms, connect.settings.close_ms), (Some(at), Some(5), None));
    assert!(connect.settings.notify_peer_ended);
    assert_eq!(connect.connect_timeout(None).settings.connect_ms, None);
}

#[test]
fn every_setter_in_common_reaches_its_own_option() {
    let limit = Some(of_ms(3));
    let listen = ListenOptions::default().idle_timeout(limit).half_closed_timeout(of_ms(4)).close_timeout(of_ms(5));
    let settings = listen.close_mode(CloseMode::HandOff).allow_half_open(false).notify_peer_ended(true).settings;
    let expected = Settings {
        idle_ms: Some(3),
        half_closed_ms: Some(4),
        close_ms: Some(5),
        close: CloseMode::HandOff,
        half_open: false,
        notify_peer_ended: true,
        ..Settings::default()
    };
    assert_eq!(settings, expected);
}
