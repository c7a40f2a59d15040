//! Where and how a conversation is cut, and the number of each case.

use std::fmt;
use std::time::Duration;

use crate::sim::Script;
use crate::sim::script::Step;

/// Longer than a packet travels, and shorter than the limits of a handler.
const DELAY: Duration = Duration::from_micros(100);

/// How a peer ends or disturbs a conversation.
///
/// ```
/// use finale::check::{Cut, Endings};
/// use finale::sim::Script;
/// use finale::{Event, ListenOptions, Socket};
///
/// let server = |socket: &mut Socket<'_>, event: Event<'_>| {
///     if matches!(event, Event::End) {
///         socket.end();
///     }
/// };
/// let script = Script::new().send(b"x").finish().receive_end();
/// let endings = Endings::of_a_server(ListenOptions::default(), script);
/// let report = endings.cuts(&[Cut::Fin, Cut::Reset]).run(|| server);
/// assert!(report.violation().is_none(), "{report}");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cut {
    /// Waits 0.1 ms at this byte, and continues.
    Delay,
    /// Sends FIN, and reads on to our end.
    Fin,
    /// close(2): sends FIN and reads no more. Later bytes are answered with RST.
    Close,
    /// Sends RST.
    Reset,
    /// Sends and reads nothing more. Its kernel continues.
    Silence,
    /// The machine disappears.
    Vanish,
}

impl Cut {
    /// All cuts, the mildest first.
    pub const ALL: &'static [Cut] = &[Cut::Delay, Cut::Fin, Cut::Close, Cut::Reset, Cut::Silence, Cut::Vanish];

    fn then(self, script: Script) -> Script {
        match self {
            Self::Delay => script.wait(DELAY),
            Self::Fin => script.finish().read_on().receive_end().close(),
            Self::Close => script.close(),
            Self::Reset => script.reset(),
            Self::Silence => script.stop_reading(),
            Self::Vanish => script.vanish(),
        }
    }
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Delay => "waits",
            Self::Fin => "finishes and reads on",
            Self::Close => "closes",
            Self::Reset => "resets",
            Self::Silence => "falls silent",
            Self::Vanish => "vanishes",
        })
    }
}

/// Where a conversation is cut.
///
/// ```
/// use finale::check::{CaseResult, CutPoint};
/// // For `Endings::holds`: a peer that has sent less than a line gets no answer.
/// fn whole_lines_only(found: &CaseResult) -> Result<(), String> {
///     match found.case.point {
///         CutPoint::Sent(0..6) if !found.received.is_empty() => Err("an answer to half a line".to_owned()),
///         _ => Ok(()),
///     }
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CutPoint {
    /// Not at all.
    Nowhere,
    /// Not at all, but the peer's bytes leave and arrive one at a time.
    ByteByByte,
    /// After this many bytes that the peer has sent.
    Sent(u64),
    /// After this many bytes that the peer has received.
    Received(u64),
    /// Before the connection is established; the handler is a client. [`Cut::Reset`] refuses the
    /// connection, [`Cut::Vanish`] does not answer.
    Connecting,
}

/// One case.
///
/// ```
/// use finale::check::Endings;
/// use finale::sim::Script;
/// use finale::{Event, ListenOptions, Socket};
///
/// // Never ends its side.
/// let wrong = |_: &mut Socket<'_>, _: Event<'_>| {};
/// let script = Script::new().send(b"x").finish().receive_end();
/// let endings = Endings::of_a_server(ListenOptions::default(), script);
/// let report = endings.run(|| wrong);
/// let (case, _) = report.violation().expect("a violation");
/// // The same case again, alone.
/// let again = endings.replay(case.seed(), || wrong);
/// assert_eq!(again.violation(), report.violation());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Case {
    /// The number of the peer. 0 is the script that [`Endings`](super::Endings) was created with;
    /// the others follow in the order in which they were added.
    pub peer: u8,
    /// Where its conversation is cut.
    pub point: CutPoint,
    /// How it is cut; without a meaning for a conversation that is not cut.
    pub cut: Cut,
    /// The number of the network conditions: 0 is none, 1 is tight (see
    /// [`Endings::conditions`](super::Endings::conditions)), others are random.
    pub conditions: u64,
}

/// The fields of a seed, from the lowest bits: byte, point, cut, conditions, peer.
const POINT_SHIFT: u32 = 24;
const CUT_SHIFT: u32 = 28;
const CONDITIONS_SHIFT: u32 = 32;
const PEER_SHIFT: u32 = 56;
const BYTES: u64 = 1 << POINT_SHIFT;

impl Case {
    /// The last byte that a seed has room for.
    pub(super) const LAST_BYTE: u64 = BYTES - 1;
    pub(super) const UNCUT: Self = Self { peer: 0, point: CutPoint::Nowhere, cut: Cut::Delay, conditions: 0 };

    /// The number of the case, for [`Endings::replay`](super::Endings::replay). It does not depend
    /// on the conversation.
    #[must_use]
    pub fn seed(&self) -> u64 {
        let (point, byte) = match self.point {
            CutPoint::Nowhere => (0, 0),
            CutPoint::ByteByByte => (1, 0),
            CutPoint::Sent(byte) => (2, byte),
            CutPoint::Received(byte) => (3, byte),
            CutPoint::Connecting => (4, 0),
        };
        let cut = Cut::ALL.iter().position(|cut| *cut == self.cut).unwrap_or(0) as u64;
        let above = u64::from(self.peer) << PEER_SHIFT | self.conditions << CONDITIONS_SHIFT;
        above | cut << CUT_SHIFT | point << POINT_SHIFT | byte.min(Self::LAST_BYTE)
    }

    /// The case with this number, if there is one.
    pub(super) fn of_seed(seed: u64) -> Option<Self> {
        let byte = seed % BYTES;
        let point = match seed >> POINT_SHIFT & 0xF {
            0 => CutPoint::Nowhere,
            1 => CutPoint::ByteByByte,
            2 => CutPoint::Sent(byte),
            3 => CutPoint::Received(byte),
            4 => CutPoint::Connecting,
            _ => return None,
        };
        let cut = *Cut::ALL.get((seed >> CUT_SHIFT & 0xF) as usize)?;
        let conditions = seed >> CONDITIONS_SHIFT & ((1 << (PEER_SHIFT - CONDITIONS_SHIFT)) - 1);
        let case = Self { peer: (seed >> PEER_SHIFT) as u8, point, cut, conditions };
        // A point without a byte has the number zero there.
        (case.seed() == seed).then_some(case)
    }

    /// Whether the peer must get the whole answer: nothing is cut, or only delayed.
    #[must_use]
    pub const fn is_harmless(&self) -> bool {
        matches!(self.point, CutPoint::Nowhere | CutPoint::ByteByByte)
            || (matches!(self.cut, Cut::Delay) && !matches!(self.point, CutPoint::Connecting))
    }

    /// The size of the peer's receive buffer, if the case depends on it: the bytes before the cut
    /// fit exactly, and `small` bytes under tight conditions.
    pub(super) fn receive_buffer(&self, small: usize) -> Option<usize> {
        match self.point {
            CutPoint::ByteByByte => Some(1),
            CutPoint::Received(byte) => Some(usize::try_from(byte).unwrap_or(usize::MAX).max(1)),
            CutPoint::Nowhere | CutPoint::Sent(_) | CutPoint::Connecting => self.is_tight().then_some(small),
        }
    }

    /// Small buffers and marks, and peers that read nothing.
    pub(super) const fn is_tight(&self) -> bool {
        self.conditions == 1
    }

    fn reads_nothing(&self) -> bool {
        let is_rude = matches!(self.cut, Cut::Close | Cut::Reset | Cut::Silence | Cut::Vanish);
        self.is_tight() && is_rude && matches!(self.point, CutPoint::Sent(_))
    }

    /// The peer's script in this case. A single byte arrives within `travel`.
    pub(super) fn script(&self, whole: &Script, travel: Duration) -> Script {
        match self.point {
            CutPoint::Nowhere => whole.clone(),
            CutPoint::ByteByByte => byte_by_byte(whole, 3 * travel),
            CutPoint::Sent(byte) if self.reads_nothing() => self.cut_sending(&without_reads(whole), byte),
            CutPoint::Sent(byte) => self.cut_sending(whole, byte),
            CutPoint::Received(byte) => self.cut_receiving(whole, byte),
            CutPoint::Connecting => Script::new(),
        }
    }

    fn cut_sending(&self, whole: &Script, byte: u64) -> Script {
        let mut cut = Script::new();
        let mut left = usize::try_from(byte).unwrap_or(usize::MAX);
        let mut steps = whole.steps.iter();
        // The cut follows the byte, and not what the peer would wait for after it.
        while let Some(step) = steps.next() {
            let Some(bytes) = step.written() else {
                if left == 0 && self.cut != Cut::Delay {
                    break;
                }
                cut.steps.push(step.clone());
                continue;
            };
            if bytes.len() < left {
                left -= bytes.len();
                cut.steps.push(step.clone());
                continue;
            }
            cut.steps.extend((left > 0).then(|| step.with(&bytes[..left])));
            cut = self.cut.then(if self.reads_nothing() { cut.wait(DELAY * 10) } else { cut });
            if self.cut == Cut::Delay {
                cut.steps.extend((left < bytes.len()).then(|| step.with(&bytes[left..])));
                cut.steps.extend(steps.cloned());
            }
            return cut;
        }
        self.cut.then(cut)
    }

    /// The peer reads nothing before the cut, and the last byte before it fills its buffer: however
    /// the bytes arrive, it has received exactly this many.
    fn cut_receiving(&self, whole: &Script, byte: u64) -> Script {
        let mut cut = Script::new().stop_reading();
        let mut received = 0_u64;
        let mut steps = whole.steps.iter();
        while let Some(step) = steps.next() {
            let rest = match step {
                Step::Receive(bytes) if received.saturating_add(*bytes) < byte => {
                    received += bytes;
                    cut.steps.push(Step::AwaitUnread(received));
                    continue;
                }
                Step::Receive(bytes) => Step::Receive(bytes.saturating_add(received) - byte),
                Step::ReceiveEnd => Step::ReceiveEnd,
                Step::StopReading | Step::Sip { .. } | Step::ReadOn => continue,
                Step::Send(_)
                | Step::Drip { .. }
                | Step::Flood { .. }
                | Step::Urgent
                | Step::Wait(_)
                | Step::AwaitUnread(_)
                | Step::Finish
                | Step::Close
                | Step::Reset
                | Step::Vanish => {
                    cut.steps.push(step.clone());
                    continue;
                }
            };
            cut = self.cut_here(cut, byte);
            if self.cut == Cut::Delay {
                cut.steps.push(rest);
                cut.steps.extend(steps.cloned());
            }
            return cut;
        }
        self.cut_here(cut, byte)
    }

    fn cut_here(&self, mut cut: Script, byte: u64) -> Script {
        cut.steps.push(Step::AwaitUnread(byte));
        self.cut.then(cut.read_on())
    }
}

/// The same peer without its reads: it sends everything at once.
fn without_reads(whole: &Script) -> Script {
    let reads = |step: &&Step| !matches!(step, Step::Receive(_) | Step::ReceiveEnd | Step::ReadOn | Step::Sip { .. });
    let mut script = Script::new().stop_reading();
    script.steps.extend(whole.steps.iter().filter(reads).cloned());
    script
}

/// Sends each byte alone, after the one before has arrived.
fn byte_by_byte(whole: &Script, pause: Duration) -> Script {
    let mut script = Script::new();
    for step in &whole.steps {
        let Step::Send(bytes) = step else {
            script.steps.push(step.clone());
            continue;
        };
        for byte in bytes {
            script = script.send(&[*byte]).wait(pause);
        }
    }
    script
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let peer = if self.peer > 0 { format!("peer {}", self.peer) } else { "the peer".to_owned() };
        match (self.point, self.cut) {
            (CutPoint::Nowhere, _) => f.write_str("nothing is cut")?,
            (CutPoint::ByteByByte, _) => write!(f, "{peer} sends and receives byte by byte")?,
            (CutPoint::Sent(byte), cut) => write!(f, "{peer} {cut} after byte {byte} of what it sends")?,
            (CutPoint::Received(byte), cut) => write!(f, "{peer} {cut} after byte {byte} of what it receives")?,
            (CutPoint::Connecting, Cut::Vanish) => f.write_str("no answer comes to the connection attempt")?,
            (CutPoint::Connecting, _) => f.write_str("the connection is refused")?,
        }
        match self.conditions {
            0 => Ok(()),
            1 => f.write_str(", under tight conditions"),
            number => write!(f, ", under conditions {number}"),
        }
    }
}

/// All cases of one peer's conversation without network conditions, the mildest first.
pub(super) struct PeerCases<'a> {
    pub(super) peer: u8,
    pub(super) sent: u64,
    pub(super) received: u64,
    pub(super) is_server: bool,
    pub(super) cuts: &'a [Cut],
}

impl PeerCases<'_> {
    /// The cases of one cut: before the first byte and after each one, and without a connection.
    const fn of_cut(&self, cut: Cut) -> u64 {
        let can_fail = self.is_server && matches!(cut, Cut::Reset | Cut::Vanish);
        self.sent + 1 + self.received + 1 + can_fail as u64
    }

    pub(super) fn len(&self) -> u64 {
        2 + self.cuts.iter().map(|cut| self.of_cut(*cut)).sum::<u64>()
    }

    /// Whether the conversation can be cut so, whichever cuts were chosen.
    pub(super) fn contain(&self, case: Case) -> bool {
        match case.point {
            CutPoint::Nowhere | CutPoint::ByteByByte => case.cut == Cut::Delay,
            CutPoint::Sent(byte) => byte <= self.sent,
            CutPoint::Received(byte) => byte <= self.received,
            CutPoint::Connecting => self.is_server && matches!(case.cut, Cut::Reset | Cut::Vanish),
        }
    }

    /// The case with this number, below the length.
    pub(super) fn case(&self, number: u64) -> Case {
        let case = |point, cut| Case { peer: self.peer, point, cut, conditions: 0 };
        let Some(number) = number.checked_sub(2) else {
            return case(if number == 0 { CutPoint::Nowhere } else { CutPoint::ByteByByte }, Cut::Delay);
        };
        let (&cut, number) = part_of(self.cuts, |cut| self.of_cut(*cut), number);
        let received = self.sent + 1;
        let connecting = received + self.received + 1;
        let point = match number {
            _ if number < received => CutPoint::Sent(number),
            _ if number < connecting => CutPoint::Received(number - received),
            _ => CutPoint::Connecting,
        };
        case(point, cut)
    }
}

/// The part in which this number is, of parts that follow each other, and the number within it.
pub(super) fn part_of<T>(parts: &[T], len: impl Fn(&T) -> u64, mut number: u64) -> (&T, u64) {
    for part in parts {
        if number < len(part) {
            return (part, number);
        }
        number -= len(part);
    }
    unreachable!("the number is below the length of all parts")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_its_case() {
        let cases = PeerCases { peer: 3, sent: 3, received: 4, is_server: true, cuts: Cut::ALL };
        let all: Vec<Case> = (0..cases.len()).map(|number| cases.case(number)).collect();
        let distinct: std::collections::HashSet<_> = all.iter().collect();
        assert_eq!((distinct.len(), all.len()), (2 + 6 * 9 + 2, 2 + 6 * 9 + 2));
        for case in all {
            let stormy = Case { conditions: 77, ..case };
            assert_eq!(Case::of_seed(case.seed()), Some(case), "{case}");
            assert_eq!(Case::of_seed(stormy.seed()), Some(stormy), "{stormy}");
            assert!(cases.contain(case), "{case}");
        }
        for seed in [u64::MAX, 9 << POINT_SHIFT, 12 << CUT_SHIFT, 1, 99_999_999_999] {
            assert_eq!(Case::of_seed(seed), None, "{seed}");
        }
        let absent = [
            (CutPoint::Sent(4), Cut::Fin),
            (CutPoint::Received(5), Cut::Fin),
            (CutPoint::Connecting, Cut::Fin),
            (CutPoint::Nowhere, Cut::Fin),
        ];
        for (point, cut) in absent {
            assert!(!cases.contain(Case { peer: 3, point, cut, conditions: 0 }), "{point:?}");
        }
    }

    #[test]
    fn a_script_is_cut_at_each_byte_of_each_direction() {
        let whole = Script::new().send(b"abc").receive(2).send(b"de").receive_end().finish();
        let case = |point, cut, conditions| Case { peer: 0, point, cut, conditions };
        let cut = |point, cut| case(point, cut, 0).script(&whole, DELAY).to_string();
        assert_eq!(cut(CutPoint::Sent(0), Cut::Reset), "reset");
        assert_eq!(cut(CutPoint::Sent(3), Cut::Reset), "send 3 bytes, reset");
        assert_eq!(cut(CutPoint::Sent(4), Cut::Close), "send 3 bytes, receive 2 bytes, send 1 byte, close");
        assert_eq!(
            cut(CutPoint::Sent(1), Cut::Delay),
            "send 1 byte, wait 100µs, send 2 bytes, receive 2 bytes, send 2 bytes, receive the end, finish"
        );
        assert_eq!(
            cut(CutPoint::Received(1), Cut::Vanish),
            "stop reading, send 3 bytes, leave 1 byte unread, read on, vanish"
        );
        assert_eq!(
            cut(CutPoint::Received(5), Cut::Silence),
            concat!(
                "stop reading, send 3 bytes, leave 2 bytes unread, send 2 bytes, ",
                "leave 5 bytes unread, read on, stop reading"
            )
        );
        // The cut follows the last byte of a step, or comes within a later one.
        assert_eq!(
            cut(CutPoint::Sent(3), Cut::Delay),
            "send 3 bytes, wait 100µs, receive 2 bytes, send 2 bytes, receive the end, finish"
        );
        assert_eq!(cut(CutPoint::Sent(5), Cut::Reset), "send 3 bytes, receive 2 bytes, send 2 bytes, reset");
        let without_reads = case(CutPoint::Sent(4), Cut::Reset, 1).script(&whole, DELAY).to_string();
        assert_eq!(without_reads, "stop reading, send 3 bytes, send 1 byte, wait 1ms, reset");
    }

    #[test]
    fn a_case_is_a_sentence() {
        let case = |peer, point, cut, conditions| Case { peer, point, cut, conditions }.to_string();
        assert_eq!(case(0, CutPoint::Nowhere, Cut::Delay, 0), "nothing is cut");
        let bytewise = "peer 1 sends and receives byte by byte, under tight conditions";
        assert_eq!(case(1, CutPoint::ByteByByte, Cut::Delay, 1), bytewise);
        let sent = "the peer resets after byte 2 of what it sends, under conditions 2";
        assert_eq!(case(0, CutPoint::Sent(2), Cut::Reset, 2), sent);
        let received = "peer 7 falls silent after byte 0 of what it receives";
        assert_eq!(case(7, CutPoint::Received(0), Cut::Silence, 0), received);
        assert_eq!(case(0, CutPoint::Connecting, Cut::Reset, 0), "the connection is refused");
        let unanswered = "no answer comes to the connection attempt";
        assert_eq!(case(0, CutPoint::Connecting, Cut::Vanish, 0), unanswered);
    }
}
