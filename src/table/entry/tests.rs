use super::*;
use crate::table::queue::Spares;

const CONDITIONS: [Flags; 22] = [
    Flags::READABLE,
    Flags::WRITABLE,
    Flags::READ_CLOSED,
    Flags::HANGUP,
    Flags::ERROR,
    Flags::PAUSED,
    Flags::DISCARD,
    Flags::END,
    Flags::DESTROY,
    Flags::FULL,
    Flags::IDLE,
    Flags::LIMIT,
    Flags::WRITE,
    Flags::SOON,
    Flags::QUEUED,
    Flags::REGISTERED,
    Flags::NOTICED,
    Flags::IPV6,
    Flags::GRACE,
    Flags::FILL,
    Flags::OVERFLOW,
    Flags::HELD,
];

/// Every combination of these conditions.
fn combinations(of: &[Flags]) -> impl Iterator<Item = Flags> {
    (0..1_u32 << of.len()).map(|mask| {
        let set = of.iter().enumerate().filter(|(bit, _)| mask >> bit & 1 == 1);
        set.fold(Flags::NONE, |flags, (_, &flag)| flags | flag)
    })
}

/// Every state with every combination of these conditions.
fn situations(of: &[Flags]) -> impl Iterator<Item = Entry> {
    let states = State::ALL.iter().copied();
    states.flat_map(move |state| combinations(of).map(move |flags| entry(state, flags)))
}

fn entry(state: State, flags: Flags) -> Entry {
    Entry { state, flags, ..Entry::reserved() }
}

/// The events that can be pending: all but those that are delivered where they arise.
fn posted() -> impl DoubleEndedIterator<Item = Emits> {
    Emits::ALL.iter().copied().filter(|emits| !matches!(emits, Emits::Data | Emits::Close))
}

const fn bit(emits: Emits) -> u16 {
    1 << emits as u16
}

// --- the conditions and the pending events ---

#[test]
fn no_two_conditions_share_a_bit() {
    for (one, &flag) in CONDITIONS.iter().enumerate() {
        let mut flags = Flags::NONE;
        flags.set(flag, true);
        for (other, &asked) in CONDITIONS.iter().enumerate() {
            assert_eq!(flags.has(asked), one == other, "{flags:?}");
        }
        assert_eq!(flags.pending(), None, "{flags:?} is no event");
        assert!(flags.replace(flag, false) && !flags.replace(flag, true) && flags.replace(flag, true));
        assert!(format!("{flags:?}").contains(&format!("{:b}", 1 << one)));
        flags.set(flag, false);
        assert_eq!(flags, Flags::NONE);
    }
}

#[test]
fn several_conditions_are_set_and_cleared_together_and_others_stay() {
    let mut flags = Flags::READABLE | Flags::ERROR;
    flags.set(Flags::ERROR | Flags::PAUSED, true);
    assert!(flags.has(Flags::READABLE) && flags.has(Flags::ERROR) && flags.has(Flags::PAUSED));
    assert_eq!(flags | Flags::ERROR, flags, "a condition that holds still holds");
    flags.set(Flags::READABLE | Flags::ERROR, false);
    assert_eq!(flags, Flags::PAUSED);
    assert!(flags.has(Flags::PAUSED | Flags::ERROR), "any of them");
}

#[test]
fn readiness_and_the_clocks_are_sets_of_their_own() {
    let all = |of: &[Flags]| of.iter().fold(Flags::NONE, |flags, &flag| flags | flag);
    assert_eq!(Flags::READINESS, all(&CONDITIONS[..5]));
    assert_eq!(Flags::CLOCKS, all(&[Flags::IDLE, Flags::LIMIT, Flags::WRITE, Flags::GRACE]));
}

#[test]
fn events_are_pending_in_the_order_of_the_grammar_and_taken_once() {
    let mut flags = Flags::QUEUED;
    for emits in posted().rev() {
        assert!(!flags.is_pending(emits));
        flags.post(bit(emits));
        flags.post(bit(emits));
        assert!(flags.is_pending(emits));
        assert_eq!(flags.pending(), Some(emits), "it comes before all that are pending already");
    }
    for emits in posted() {
        assert_eq!(flags.pending(), Some(emits));
        flags.take_pending(emits);
        flags.take_pending(emits);
    }
    assert_eq!((flags.pending(), flags), (None, Flags::QUEUED));
}

#[test]
fn of_the_pending_events_only_a_ready_after_its_connect_outlives_a_destroy_and_conditions_stay() {
    let conditions = CONDITIONS.into_iter().fold(Flags::NONE, |flags, flag| flags | flag);
    let all = posted().fold(0, |all, emits| all | bit(emits));
    for pending in (0..=all).filter(|pending| pending & !all == 0) {
        let mut flags = conditions;
        flags.post(pending);
        let has_connected = pending & (bit(Emits::Ready) - 1) == 0;
        let ready = flags.is_pending(Emits::Ready) && has_connected;
        flags.clear_pending_but_ready();
        assert_eq!(flags.pending(), ready.then_some(Emits::Ready), "{pending:b}");
        flags.take_pending(Emits::Ready);
        assert_eq!(flags, conditions);
    }
}

// --- the questions about an entry ---

/// The live states in which the peer's FIN was not read.
const READING: [State; 4] = [State::Open, State::Flushing, State::LocalFinished, State::Lingering];

#[test]
fn there_is_input_while_their_fin_was_not_read_unless_the_caller_has_paused() {
    for entry in situations(&[Flags::READABLE, Flags::PAUSED, Flags::READ_CLOSED]) {
        let may = READING.contains(&entry.state) || entry.state == State::Broken;
        let has_input = may && entry.flags.has(Flags::READABLE) && !entry.flags.has(Flags::PAUSED);
        assert_eq!(entry.has_input(), has_input, "{entry:?}");
    }
}

#[test]
fn an_end_is_due_once_by_the_callers_wish_or_where_no_half_may_stay_open() {
    let half_open = [true, false].into_iter();
    for (entry, half_open) in half_open.flat_map(|half| situations(&[Flags::END]).map(move |entry| (entry, half))) {
        let is_requested = entry.flags.has(Flags::END);
        let is_due = (entry.state == State::Open && is_requested)
            || (entry.state == State::PeerFinished && (is_requested || !half_open));
        let settings = Settings { half_open, ..Settings::default() };
        assert_eq!(entry.has_end_due(&settings), is_due, "{entry:?}, half open: {half_open}");
        if is_due {
            assert_ne!(lifecycle::compact(entry.state, Input::EndCalled).to, entry.state, "it is due no longer");
        }
    }
}

#[test]
fn a_notice_is_due_once_where_it_is_wanted_or_where_a_pause_holds_back_a_broken_connection() {
    let conditions = [Flags::READ_CLOSED, Flags::NOTICED, Flags::PAUSED];
    let notify_peer_ended = [true, false].into_iter();
    for (entry, notify_peer_ended) in
        notify_peer_ended.flat_map(|on| situations(&conditions).map(move |entry| (entry, on)))
    {
        let has = |flag| entry.flags.has(flag);
        let is_new = has(Flags::READ_CLOSED) && !has(Flags::NOTICED);
        let is_wanted = notify_peer_ended || (entry.state == State::Broken && has(Flags::PAUSED));
        let is_due = is_new && is_wanted && (READING.contains(&entry.state) || entry.state == State::Broken);
        let settings = Settings { notify_peer_ended, ..Settings::default() };
        assert_eq!(entry.has_notice_due(&settings, None), is_due, "{entry:?}, wanted: {notify_peer_ended}");
        // While a call has to be repeated, it is unknown whether a broken connection has unread
        // bytes.
        let extra = Extra { retry_at: Some(crate::table::extra::Deadline::In(20)), ..Extra::default() };
        let is_known = is_due && entry.state != State::Broken;
        assert_eq!(entry.has_notice_due(&settings, Some(&extra)), is_known, "{entry:?}, wanted: {notify_peer_ended}");
        if is_due {
            assert!(lifecycle::compact(entry.state, Input::PeerEnded).emits == bit(Emits::PeerEnded), "{entry:?}");
        }
    }
}

#[test]
fn an_error_is_looked_up_where_no_read_would_bring_it_and_where_a_notice_depends_on_it() {
    let conditions = [Flags::ERROR, Flags::HANGUP, Flags::READABLE, Flags::PAUSED];
    let notify_peer_ended = [true, false].into_iter();
    for (entry, notify_peer_ended) in
        notify_peer_ended.flat_map(|on| situations(&conditions).map(move |entry| (entry, on)))
    {
        let has = |flag| entry.flags.has(flag);
        let is_due = if READING.contains(&entry.state) {
            has(Flags::ERROR) && (has(Flags::PAUSED) || notify_peer_ended)
        } else if entry.state == State::Broken {
            has(Flags::HANGUP) && has(Flags::PAUSED)
        } else {
            has(Flags::ERROR) || has(Flags::HANGUP)
        };
        let settings = Settings { notify_peer_ended, ..Settings::default() };
        assert_eq!(entry.has_error_due(&settings), is_due, "{entry:?}, wanted: {notify_peer_ended}");
    }
}

#[test]
fn bytes_leave_while_our_half_is_open_and_our_fin_leaves_without_any() {
    for entry in situations(&[]) {
        assert_eq!(entry.owes_output(true), entry.state.can_send(), "{entry:?}");
        assert_eq!(entry.owes_output(false), entry.state.is_flushing(), "{entry:?}");
    }
}

// --- what a socket needs next ---

/// What an extra can contain that matters here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Has {
    Nothing,
    Bytes,
    Options,
    Retry,
}

fn extra(has: Has) -> Option<Extra> {
    let mut extra = Extra::default();
    match has {
        Has::Nothing => return None,
        Has::Bytes => _ = extra.queue.push(b"x", &mut Spares::default()),
        Has::Options => extra.nodelay = Some(true),
        Has::Retry => extra.retry_at = Some(crate::table::extra::Deadline::At(1)),
    }
    Some(extra)
}

#[test]
fn what_comes_next_is_an_event_a_step_in_this_turn_or_in_the_next_the_close_or_a_wait() {
    const READY: Flags = Flags::READABLE.and(Flags::WRITABLE);
    let cases = [
        ("the first step begins to connect", State::Created, Flags::NONE, Has::Nothing, Next::Now),
        ("the resolver's answer will come", State::Resolving, READY, Has::Nothing, Next::Wait),
        ("no attempt is under way", State::Connecting, Flags::NONE, Has::Nothing, Next::Now),
        ("no attempt can begin now", State::Connecting, Flags::NONE, Has::Retry, Next::Wait),
        ("an attempt is under way", State::Connecting, Flags::REGISTERED, Has::Nothing, Next::Wait),
        ("it is known how it goes", State::Connecting, Flags::REGISTERED | Flags::SOON, Has::Nothing, Next::Now),
        (
            "an end waits until it is connected",
            State::Connecting,
            Flags::REGISTERED | Flags::END,
            Has::Bytes,
            Next::Wait,
        ),
        ("a step was asked for", State::Open, Flags::SOON, Has::Nothing, Next::Now),
        ("nothing was read since", State::Open, Flags::WRITABLE, Has::Nothing, Next::Wait),
        ("more may be read", State::Open, READY, Has::Nothing, Next::Later),
        ("the caller has paused", State::Open, READY | Flags::PAUSED, Has::Nothing, Next::Wait),
        ("more may be written", State::Open, Flags::WRITABLE, Has::Bytes, Next::Later),
        ("there is no room", State::Open, Flags::NONE, Has::Bytes, Next::Wait),
        ("the caller has ended", State::Open, Flags::END, Has::Nothing, Next::Now),
        ("an option was changed", State::Open, Flags::NONE, Has::Options, Next::Now),
        ("an error during a pause", State::Open, Flags::PAUSED | Flags::ERROR, Has::Nothing, Next::Now),
        ("our FIN may leave", State::Flushing, Flags::WRITABLE, Has::Nothing, Next::Later),
        ("our FIN waits for room", State::LastFlush, Flags::NONE, Has::Nothing, Next::Wait),
        ("it lingers now", State::LocalFinished, Flags::DISCARD, Has::Nothing, Next::Now),
        ("it lingers already", State::Lingering, Flags::DISCARD, Has::Nothing, Next::Wait),
        ("our half may stay open", State::PeerFinished, READY, Has::Nothing, Next::Wait),
        ("it may be acknowledged", State::Closing, Flags::HANGUP, Has::Nothing, Next::Now),
        ("it is not acknowledged", State::Closing, READY, Has::Nothing, Next::Wait),
        ("nothing leaves any more", State::Broken, Flags::WRITABLE, Has::Bytes, Next::Wait),
        ("what arrived is read", State::Broken, READY, Has::Nothing, Next::Later),
        ("it may be read to the end", State::Broken, Flags::PAUSED | Flags::HANGUP, Has::Nothing, Next::Now),
        ("how it ended", State::Broken, Flags::PAUSED | Flags::READ_CLOSED, Has::Nothing, Next::Now),
        ("it is over", State::Confirmed, READY | Flags::SOON, Has::Bytes, Next::Close),
        ("it was destroyed", State::ResetByUs, Flags::DESTROY, Has::Nothing, Next::Close),
    ];
    for (why, state, flags, has, next) in cases {
        let decided = |entry: &Entry| entry.next(&Settings::default(), extra(has).as_ref());
        let mut entry = entry(state, flags);
        assert_eq!(decided(&entry), next, "{why}: {entry:?}");
        entry.flags.post(bit(Emits::Error));
        let with_event = if flags.has(Flags::DESTROY) { Next::Now } else { Next::Deliver };
        assert_eq!(decided(&entry), with_event, "{why}, with an event: {entry:?}");
    }
    let closed = Settings { half_open: false, ..Settings::default() };
    assert_eq!(entry(State::PeerFinished, Flags::NONE).next(&closed, None), Next::Now, "our half ends with theirs");
    let noticing = Settings { notify_peer_ended: true, ..Settings::default() };
    let paused = entry(State::Open, Flags::PAUSED | Flags::READ_CLOSED);
    assert_eq!((paused.next(&noticing, None), paused.next(&closed, None)), (Next::Now, Next::Wait));
    let failing = entry(State::Open, Flags::ERROR);
    assert_eq!(
        (failing.next(&noticing, None), failing.next(&closed, None)),
        (Next::Now, Next::Wait),
        "a FIN, or a reset"
    );
}

/// Checks a rule for all combinations of the decision's inputs.
#[track_caller]
fn always(rule: impl Fn(&Entry, &Settings, Option<&Extra>, Next) -> bool) {
    let conditions = [
        Flags::READABLE,
        Flags::WRITABLE,
        Flags::READ_CLOSED,
        Flags::HANGUP,
        Flags::ERROR,
        Flags::PAUSED,
        Flags::DISCARD,
        Flags::END,
        Flags::DESTROY,
        Flags::SOON,
        Flags::REGISTERED,
        Flags::NOTICED,
    ];
    let strict = Settings { half_open: false, notify_peer_ended: true, ..Settings::default() };
    for settings in [Settings::default(), strict] {
        for has in [Has::Nothing, Has::Bytes, Has::Options, Has::Retry] {
            let extra = extra(has);
            for mut entry in situations(&conditions) {
                for pending in [0, bit(Emits::End)] {
                    entry.flags.post(pending);
                    let next = entry.next(&settings, extra.as_ref());
                    assert!(rule(&entry, &settings, extra.as_ref(), next), "{next:?} of {entry:?}, {has:?}");
                }
            }
        }
    }
}

#[test]
fn a_destroyed_socket_is_served_now_until_it_is_over_and_no_event_is_pending() {
    always(|entry, _, _, next| {
        let is_over = entry.state.is_final() && entry.flags.pending().is_none();
        !entry.flags.has(Flags::DESTROY) || next == if is_over { Next::Close } else { Next::Now }
    });
}

#[test]
fn a_pending_event_is_delivered_before_anything_else_and_without_one_nothing_is() {
    always(|entry, _, _, next| {
        let is_pending = entry.flags.pending().is_some();
        entry.flags.has(Flags::DESTROY) || is_pending == (next == Next::Deliver)
    });
}

#[test]
fn a_socket_that_is_over_needs_its_close_and_no_other_does() {
    always(|entry, _, _, next| {
        let is_over = entry.state.is_final() && entry.flags.pending().is_none();
        is_over == (next == Next::Close)
    });
}

#[test]
fn no_socket_waits_while_something_is_asked_of_it_or_can_move() {
    always(|entry, settings, extra, next| {
        let asked = entry.flags.has(Flags::SOON)
            || extra.is_some_and(Extra::has_options)
            || entry.has_end_due(settings)
            || entry.has_notice_due(settings, extra)
            || entry.has_error_due(settings)
            || (entry.state == State::LocalFinished && entry.flags.has(Flags::DISCARD));
        let writes = entry.flags.has(Flags::WRITABLE) && entry.owes_output(extra.is_some_and(Extra::has_bytes));
        let is_early = !entry.state.is_connected();
        next != Next::Wait || (!entry.flags.has(Flags::SOON) && (is_early || !(asked || writes || entry.has_input())))
    });
}

#[test]
fn a_socket_that_can_move_waits_for_its_turn_unless_a_step_was_asked_for() {
    always(|entry, settings, extra, next| {
        let writes = entry.flags.has(Flags::WRITABLE) && entry.owes_output(extra.is_some_and(Extra::has_bytes));
        match next {
            Next::Later => entry.state.is_connected() && !entry.flags.has(Flags::SOON) && (writes || entry.has_input()),
            Next::Now if entry.state.is_connected() => {
                entry.flags.has(Flags::DESTROY | Flags::SOON)
                    || extra.is_some_and(Extra::has_options)
                    || entry.has_end_due(settings)
                    || entry.has_notice_due(settings, extra)
                    || entry.has_error_due(settings)
                    || entry.flags.has(Flags::DISCARD)
            }
            Next::Now | Next::Deliver | Next::Close | Next::Wait => true,
        }
    });
}

#[test]
fn a_socket_that_is_not_connected_waits_for_the_resolver_an_attempt_or_a_retry_and_for_nothing_else() {
    always(|entry, _, extra, next| {
        let flags = entry.flags;
        let has_attempt = flags.has(Flags::REGISTERED) || extra.is_some_and(|extra| extra.retry_at.is_some());
        let waits = entry.state == State::Resolving || has_attempt;
        let is_requested = flags.has(Flags::SOON | Flags::DESTROY) || flags.pending().is_some();
        entry.state.is_connected() || entry.state.is_final() || (next == Next::Wait) == (waits && !is_requested)
    });
}

#[test]
fn lists_clocks_and_the_address_change_nothing_about_what_is_next() {
    let others = Flags::FULL | Flags::CLOCKS | Flags::QUEUED | Flags::IPV6;
    always(|was, settings, extra, next| entry(was.state, was.flags | others).next(settings, extra) == next);
}

// --- the rest of an entry ---

#[test]
fn a_new_state_of_an_established_connection_restarts_its_limit_and_nothing_else_does() {
    let pairs = State::ALL.iter().flat_map(|&state| Input::ALL.iter().map(move |&input| (state, input)));
    for (from, input) in pairs {
        let transition = lifecycle::compact(from, input);
        if lifecycle::step(from, input) == lifecycle::Cell::Impossible {
            continue;
        }
        let mut entry = entry(from, Flags::NONE);
        let emits = entry.apply(input).emits;
        assert_eq!((entry.state, emits), (transition.to, transition.emits), "{from:?} × {input:?}");
        let is_new = transition.to != from && transition.to.is_connected();
        assert_eq!(entry.flags, if is_new { Flags::LIMIT } else { Flags::NONE }, "{from:?} × {input:?}");
    }
}

#[test]
fn a_silence_is_counted_for_34_years_until_its_clock_is_stopped() {
    let mut entry = Entry::reserved();
    assert_eq!(entry.idle_since(), None, "a new socket's clock stands still");
    for tick in [0, 1, 255, 256, 0x01_23_45_67_89, (1 << 40) - 2] {
        entry.set_idle_since(tick);
        assert_eq!(entry.idle_since(), Some(tick));
    }
    entry.stop_idle_clock();
    assert_eq!(entry.idle_since(), None);
}

#[test]
fn a_reserved_slot_is_no_socket_and_a_new_socket_has_nothing_but_what_it_is_given() {
    assert!(!Entry::reserved().is_socket());
    for flags in [Flags::NONE, Flags::PAUSED | Flags::READABLE] {
        let entry = Entry::new(8, 3, flags);
        assert!(entry.is_socket() && entry.state == State::Created && !entry.timer.is_filed());
        assert_eq!((entry.generation, entry.settings, entry.extra), (8, 3, NIL));
        assert_eq!(entry.flags, flags);
        assert_eq!((entry.first_fin, entry.heard_last, entry.peer(&Slab::new())), (FirstFin::Neither, false, None));
    }
}
