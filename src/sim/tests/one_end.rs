//! One end of a connection by itself: what it accepts, what it reports, and what it remembers.

use std::collections::VecDeque;
use std::time::Duration;

use super::*;
use crate::options::{KeepAlive, SystemOptions};
use crate::sim::end::{End, Owner, Phase, Probing, Tuning, shrink};
use crate::sim::fault::{Fault, FaultCounts};

const FAR: u64 = 1 << 40;

/// An open end with buffers of these sizes; the peer's window never closes.
fn open(send_bytes: usize, receive_bytes: usize) -> End {
    let tuning = Tuning::new(&SystemOptions::default(), send_bytes, receive_bytes);
    let mut end = End::new(Owner::Script, SERVER, AT, AT, tuning);
    end.phase = Phase::Open;
    end.window_end = FAR;
    end
}

/// The numbers from `from` on, as bytes.
fn count(from: u64, to: u64) -> Vec<u8> {
    (from..to).map(|number| number as u8).collect()
}

/// The caller writes the next bytes of the count, and they are sent at once.
fn write(end: &mut End, bytes: u64) {
    end.outgoing.extend(count(end.written, end.written + bytes));
    end.written += bytes;
    end.next = end.written;
}

/// The peer's bytes of the count arrive.
fn arrive(end: &mut End, from: u64, to: u64, fin: bool) -> bool {
    end.take_bytes(from, &count(from, to), fin, None)
}

fn take_in(end: &mut End, bytes: usize) -> Vec<u8> {
    let mut buffer = vec![0; bytes];
    let taken = end.take_in(&mut buffer);
    buffer.truncate(taken);
    buffer
}

#[test]
fn keep_alive_counts_in_whole_seconds_and_never_in_none() {
    let ms = Duration::from_millis;
    let times = KeepAlive { idle: ms(1), interval: ms(2_001), count: 3 };
    let Probing { idle, interval, count } = Probing::from(times);
    assert_eq!((idle, interval, count), (1_000_000_000, 3_000_000_000, 3));
    let none = Probing::from(KeepAlive { idle: Duration::ZERO, interval: ms(1_000), count: 1 });
    assert_eq!((none.idle, none.interval), (1_000_000_000, 1_000_000_000));
}

#[test]
fn a_fin_counts_as_one_byte_behind_the_last() {
    let mut end = open(100, 100);
    assert!(!end.is_pending() && !end.is_fin_acked() && !end.is_done());
    write(&mut end, 10);
    assert_eq!((end.stream_end(), end.is_pending()), (10, true));
    end.finished = true;
    assert_eq!((end.stream_end(), end.is_pending()), (11, true));
    assert!(!end.take_ack(10, FAR), "the bytes alone are no edge: no write waits for room");
    assert!(end.is_pending() && !end.is_fin_acked());
    assert!(end.take_ack(11, FAR), "the FIN has arrived");
    assert!(!end.is_pending() && end.is_fin_acked() && !end.is_done(), "they have not finished");
    assert!(arrive(&mut end, 0, 0, true) && end.is_done());
    let mut never_finished = open(100, 100);
    arrive(&mut never_finished, 0, 0, true);
    assert!(!never_finished.is_done(), "we have not");
}

#[test]
fn room_is_a_third_of_the_buffer_and_at_least_a_byte() {
    for (send_bytes, queued, room) in
        [(90, 0, true), (90, 60, true), (90, 61, false), (90, 90, false), (1, 0, true), (1, 1, false), (90, 95, false)]
    {
        let mut end = open(send_bytes, 1);
        write(&mut end, queued);
        assert_eq!(end.has_room(), room, "{queued} of {send_bytes}");
    }
}

#[test]
fn a_window_that_was_told_is_not_taken_back() {
    let mut end = open(1, 100);
    assert_eq!(end.own_window_end(), 100);
    arrive(&mut end, 0, 30, false);
    assert_eq!(end.own_window_end(), 100, "what arrived fills what was advertised");
    take_in(&mut end, 10);
    assert_eq!(end.own_window_end(), 110);
    end.advertised_end = 500;
    assert_eq!(end.own_window_end(), 500, "the buffer was larger when it was advertised");
}

#[test]
fn an_acknowledgement_frees_bytes_once_and_owes_an_edge_only_to_those_who_wait() {
    let mut end = open(90, 1);
    write(&mut end, 90);
    assert!(!end.take_ack(80, FAR), "there is room, and no write waits for it");
    assert_eq!((end.outgoing.len(), end.acked, end.next), (10, 80, 90));
    assert!(!end.take_ack(80, FAR) && !end.take_ack(5, FAR), "old news");
    assert_eq!(end.outgoing.len(), 10);
    write(&mut end, 80);
    assert!(!end.readiness().writable && end.wants_room, "asking is what makes the edge owed");
    assert!(!end.take_ack(109, FAR), "a byte less than a third");
    assert!(end.wants_room);
    assert!(end.take_ack(110, FAR) && !end.wants_room, "owed once");
    assert!(!end.take_ack(111, FAR));
    end.next = 112;
    end.take_ack(120, FAR);
    assert_eq!((end.next, end.outgoing.len()), (120, 50), "what is acknowledged was sent");
}

#[test]
fn progress_begins_the_repetitions_anew_and_an_opened_window_does_so_for_probes_alone() {
    let stalled = |end: &mut End| {
        (end.backoff, end.retry_at, end.stalled_since) = (3, Some(7), Some(1));
    };
    let is_fresh = |end: &End| (end.backoff, end.retry_at, end.stalled_since) == (0, None, None);
    let mut end = open(100, 1);
    end.window_end = 20;
    write(&mut end, 10);
    stalled(&mut end);
    assert!(!end.take_ack(0, 30) && !is_fresh(&end), "bytes are under way: their own timer runs on");
    assert_eq!(end.window_end, 30);
    end.take_ack(0, 25);
    assert_eq!(end.window_end, 30, "a window is not taken back");
    end.take_ack(4, 30);
    assert!(is_fresh(&end));
    end.next = end.acked;
    stalled(&mut end);
    end.take_ack(4, 30);
    assert!(!is_fresh(&end), "the answer to a probe of a window that stays closed");
    end.take_ack(4, 31);
    assert!(is_fresh(&end));
}

#[test]
fn an_urgent_mark_is_forgotten_when_the_byte_was_acknowledged() {
    let mut end = open(100, 1);
    write(&mut end, 10);
    end.urgent_out = Some(5);
    end.take_ack(5, FAR);
    assert_eq!(end.urgent_out, Some(5), "up to it is not beyond it");
    end.take_ack(6, FAR);
    assert_eq!(end.urgent_out, None);
}

#[test]
fn a_segment_is_cut_out_of_the_buffer_wherever_it_wraps() {
    let mut end = open(100, 1);
    end.outgoing = VecDeque::with_capacity(16);
    write(&mut end, 12);
    end.take_ack(9, FAR);
    write(&mut end, 11);
    assert!(!end.outgoing.as_slices().1.is_empty(), "the buffer wraps");
    for from in 9..=23 {
        for to in from..=23 {
            assert_eq!(end.copy_out(from, to), count(from, to), "{from}..{to}");
        }
    }
}

#[test]
fn bytes_are_taken_in_order_once_and_as_far_as_there_is_room() {
    let mut end = open(1, 10);
    assert!(!arrive(&mut end, 3, 5, false), "a gap");
    assert!(arrive(&mut end, 0, 4, false));
    assert!(!arrive(&mut end, 0, 4, false) && !arrive(&mut end, 1, 3, false), "repeated, in whole or in part");
    assert!(arrive(&mut end, 2, 7, false), "partly new");
    assert!(arrive(&mut end, 7, 20, true), "partly room");
    assert_eq!((end.received, end.peer_finished), (10, false), "a FIN after what did not fit has not arrived");
    assert!(!arrive(&mut end, 10, 20, true), "no room");
    assert_eq!(take_in(&mut end, 100), count(0, 10));
    assert!(arrive(&mut end, 8, 15, true));
    assert_eq!((end.received, end.peer_finished), (16, true), "the FIN counts");
    assert!(!arrive(&mut end, 8, 15, true), "and once");
    assert_eq!(end.received, 16);
    assert_eq!((take_in(&mut end, 2), take_in(&mut end, 9)), (count(10, 12), count(12, 15)));
    assert_eq!(take_in(&mut end, 9), [0; 0]);
}

#[test]
fn what_is_read_comes_out_in_order_though_the_buffer_wraps() {
    let mut end = open(1, 16);
    end.incoming = VecDeque::with_capacity(16);
    arrive(&mut end, 0, 12, false);
    let mut read = take_in(&mut end, 9);
    arrive(&mut end, 12, 20, false);
    assert!(!end.incoming.as_slices().1.is_empty(), "the buffer wraps");
    for bytes in [1, 9, 1] {
        read.extend(take_in(&mut end, bytes));
    }
    assert_eq!(read, count(0, 20));
}

#[test]
fn a_read_stops_at_an_urgent_byte_and_goes_on_from_there() {
    let mut end = open(1, 100);
    assert!(end.take_bytes(0, &count(0, 10), false, Some(4)));
    assert!(end.urgent_in.is_some());
    assert_eq!(take_in(&mut end, 3), count(0, 3));
    assert_eq!(take_in(&mut end, 100), count(3, 4), "up to the mark");
    assert!(end.urgent_in.is_some(), "it was not passed");
    assert!(end.take_bytes(10, &[], true, None));
    assert_eq!(take_in(&mut end, 2), count(4, 6));
    assert!(end.urgent_in.is_none());
    assert_eq!(take_in(&mut end, 100), count(6, 10));
}

#[test]
fn a_fin_that_has_come_does_not_move_the_urgent_byte() {
    let mut end = open(1, 100);
    assert!(end.take_bytes(0, &count(0, 10), true, Some(4)));
    assert_eq!((take_in(&mut end, 100), take_in(&mut end, 100)), (count(0, 4), count(4, 10)));
}

#[test]
fn an_urgent_mark_is_news_even_without_a_byte_unless_it_is_old() {
    let mut end = open(1, 100);
    arrive(&mut end, 0, 10, false);
    assert!(!end.take_bytes(10, &[], false, Some(9)) && end.urgent_in.is_none(), "it stands in what was received");
    assert!(end.take_bytes(10, &[], false, Some(10)));
    assert_eq!(end.urgent_in, Some(10));
    assert!(!end.take_bytes(10, &[], false, None));
    let mut ended = open(1, 100);
    arrive(&mut ended, 0, 0, true);
    assert!(!ended.take_bytes(1, &[], false, Some(1)) && ended.urgent_in.is_none(), "nothing follows a FIN");
}

#[test]
fn readiness_is_what_epoll_would_say() {
    let of = |change: &dyn Fn(&mut End)| {
        let mut end = open(90, 100);
        change(&mut end);
        end.readiness()
    };
    assert_eq!(of(&|_| ()), flags("out"));
    assert_eq!(of(&|end| write(end, 80)), flags(""));
    assert_eq!(of(&|end| assert!(arrive(end, 0, 1, false))), flags("in out"));
    let fin = |end: &mut End| assert!(arrive(end, 0, 0, true));
    assert_eq!(of(&fin), flags("in out rdhup"));
    assert_eq!(of(&|end| end.finished = true), flags("out"));
    let both = |end: &mut End| {
        write(end, 80);
        end.finished = true;
        fin(end);
    };
    assert_eq!(of(&both), flags("in out rdhup hup"), "a socket that has ended is writable: a write fails at once");
    assert_eq!(of(&|end| end.urgent_in = Some(0)), flags("in out"));
    assert_eq!(of(&|end| end.die(Errno::CONNRESET)), flags("in out rdhup hup err"));
    assert_eq!(of(&|end| end.phase = Phase::Closed), flags("in out rdhup hup"));
    assert_eq!(of(&|end| end.error = Some(Errno::HOSTUNREACH)), flags("out hup err"), "mio calls out and err closed");
    let stuck = |end: &mut End| {
        write(end, 80);
        end.error_flag_stuck = true;
    };
    assert_eq!(of(&stuck), flags("err"), "and err without out not");
}

#[test]
fn in_the_handshake_only_an_error_is_told() {
    for phase in [Phase::SynSent, Phase::SynReceived] {
        let mut end = open(90, 100);
        end.phase = phase;
        assert_eq!(end.readiness(), flags(""));
        end.error = Some(Errno::HOSTUNREACH);
        assert_eq!(end.readiness(), flags("hup err"));
    }
}

#[test]
fn asking_for_room_owes_an_edge_until_it_is_told() {
    let mut end = open(90, 1);
    end.readiness();
    assert!(!end.wants_room, "there is room");
    write(&mut end, 90);
    end.readiness();
    assert!(end.wants_room);
    end.finished = true;
    end.readiness();
    assert!(end.wants_room, "a second look forgives nothing");
}

#[test]
fn the_nearest_deadline_counts_whichever_it_is_and_the_dead_have_none() {
    let mut end = open(90, 1);
    assert_eq!(end.next_deadline(), None);
    end.retry_at = Some(40);
    assert_eq!(end.next_deadline(), Some(40));
    (end.alive_at, end.forget_at, end.corked) = (Some(30), Some(20), Some((0, 10)));
    for expected in [10, 20, 30] {
        assert_eq!(end.next_deadline(), Some(expected));
        match expected {
            10 => end.corked = None,
            20 => end.forget_at = None,
            _ => (),
        }
    }
    (end.forget_at, end.corked) = (Some(20), Some((0, 10)));
    write(&mut end, 90);
    end.finished = true;
    end.die(Errno::TIMEDOUT);
    assert_eq!(
        (end.next_deadline(), end.phase, end.error, end.died),
        (None, Phase::Closed, Some(Errno::TIMEDOUT), true)
    );
    assert_eq!((end.outgoing.len(), end.acked, end.next, end.is_pending()), (0, 91, 91, false), "nothing waits");
}

#[test]
fn an_error_is_told_once_and_the_soft_one_behind_the_hard_one() {
    let mut end = open(90, 1);
    end.phase = Phase::Closed;
    (end.error, end.soft_error) = (Some(Errno::CONNRESET), Some(Errno::HOSTUNREACH));
    assert_eq!([(); 3].map(|()| end.take_error()), [Some(Errno::CONNRESET), Some(Errno::HOSTUNREACH), None]);
}

#[test]
fn an_edge_is_counted_as_the_row_of_the_catalogue_that_it_is() {
    let rows = |words: &str, change: &dyn Fn(&mut End)| {
        let (mut end, mut rows) = (open(90, 100), FaultCounts::default());
        change(&mut end);
        end.mark_edge(&mut rows, flags(words));
        Fault::ALL.iter().filter(|row| rows.count(**row) > 0).copied().collect::<Vec<_>>()
    };
    let fin = |end: &mut End| assert!(arrive(end, 0, 0, true));
    let data = |end: &mut End| assert!(arrive(end, 0, 5, false));
    let data_and_fin = |end: &mut End| assert!(arrive(end, 0, 5, true));
    assert_eq!(rows("in out", &|_| ()), []);
    assert_eq!(rows("in out", &data), []);
    assert_eq!(rows("in rdhup out", &fin), []);
    assert_eq!(rows("in rdhup out", &data_and_fin), [Fault::DataWithFin]);
    assert_eq!(rows("in rdhup", &fin), [Fault::FinWhileBufferFull]);
    let both = |end: &mut End| {
        (end.finished, end.next) = (true, 1);
        fin(end);
    };
    assert_eq!(rows("in rdhup", &both), [], "we have finished: nothing waits for room");
    assert_eq!(rows("in out rdhup hup", &both), [Fault::HangUpBeforeAck]);
    assert_eq!(rows("in out rdhup", &both), [], "no hang-up");
    let unsent = |end: &mut End| {
        write(end, 80);
        both(end);
    };
    assert_eq!(rows("in out rdhup hup", &unsent), [Fault::HangUpBeforeAck, Fault::HangUpWithDataUnsent]);
    let acked = |end: &mut End| {
        both(end);
        end.take_ack(1, FAR);
    };
    assert_eq!(rows("in out rdhup hup", &acked), [], "acknowledged");
    let fin_unacked = |end: &mut End| {
        unsent(end);
        end.take_ack(80, FAR);
    };
    assert_eq!(rows("in out rdhup hup", &fin_unacked), [Fault::HangUpBeforeAck], "all data is there, the FIN is not");
    let dead = |end: &mut End| {
        data(end);
        end.die(Errno::CONNRESET);
    };
    assert_eq!(rows("in out rdhup hup err", &dead), [], "a reset is no hang-up");
    let closed = |end: &mut End| {
        data(end);
        end.phase = Phase::Closed;
    };
    assert_eq!(rows("in out rdhup hup", &closed), [Fault::HangUpWithInputUnread]);
    assert_eq!(rows("in out", &closed), []);
}

#[test]
fn an_empty_buffer_costs_little_and_a_used_one_keeps_its_bytes() {
    for (capacity, kept) in [(256, true), (257, false), (0, true)] {
        let mut buffer = VecDeque::with_capacity(capacity);
        let before = buffer.capacity();
        shrink(&mut buffer);
        assert_eq!(buffer.capacity() == before, kept, "{capacity}");
    }
    let mut used = VecDeque::with_capacity(1_000);
    used.push_back(1);
    shrink(&mut used);
    assert_eq!(used, [1]);
}
