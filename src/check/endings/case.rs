//! Where and how a conversation is cut, and every case numbered.

use std::fmt;
use std::time::Duration;

use crate::sim::Script;
use crate::sim::script::Step;

/// Longer than a packet travels, and shorter than any limit of a handler.
const DELAY: Duration = Duration::from_micros(100);

/// How a peer ends, or disturbs, a conversation.
///
/// Only two ways to cut:
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
/// assert!(report.broken().is_none(), "{report}");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cut {
    /// Waits 0.1 ms at this byte, and goes on.
    Delay,
    /// Finishes here, and reads on to our end.
    Fin,
    /// close(2): finishes here and reads no more; what comes later is answered with RST.
    Close,
    /// RST.
    Reset,
    /// Says nothing more, and reads nothing more; its kernel goes on.
    Silence,
    /// The machine disappears.
    Vanish,
}

impl Cut {
    /// Every way, the mildest first.
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
/// use finale::check::{Found, Place};
/// // For `Endings::holds`: a peer that has sent less than a line gets no answer.
/// fn whole_lines_only(found: &Found) -> Result<(), String> {
///     match found.case.place {
///         Place::Sent(0..6) if !found.received.is_empty() => Err("an answer to half a line".to_owned()),
///         _ => Ok(()),
///     }
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Place {
    /// Nowhere: the whole conversation as it is.
    Nowhere,
    /// Nowhere, but the peer's bytes leave one at a time, and arrive one at a time.
    ByteByByte,
    /// Behind so many bytes that the peer has sent.
    Sent(u64),
    /// Behind so many bytes that the peer has received.
    Received(u64),
    /// Before there is a connection; the handler is a client. [`Cut::Reset`] refuses it,
    /// [`Cut::Vanish`] never answers.
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
/// let (case, _) = report.broken().expect("a violation");
/// // The same case again, alone.
/// let again = endings.replay(case.seed(), || wrong);
/// assert_eq!(again.broken(), report.broken());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Case {
    /// Which peer: 0 is the script that [`Endings`](super::Endings) was made with, the others
    /// follow as they were added.
    pub peer: u8,
    /// Where its conversation is cut.
    pub place: Place,
    /// How; without a meaning if the place is nowhere.
    pub cut: Cut,
    /// Under which network conditions: 0 are none, 1 are tight (see
    /// [`Endings::conditions`](super::Endings::conditions)), others are random.
    pub conditions: u64,
}

/// In a seed, the place is above the byte, then follow the cut, the conditions and the peer.
const PLACE_SHIFT: u32 = 24;
const CUT_SHIFT: u32 = 28;
const CONDITIONS_SHIFT: u32 = 32;
const PEER_SHIFT: u32 = 56;
const BYTES: u64 = 1 << PLACE_SHIFT;

impl Case {
    pub(super) const UNDISTURBED: Self = Self { peer: 0, place: Place::Nowhere, cut: Cut::Delay, conditions: 0 };

    /// The case's number, for [`Endings::replay`](super::Endings::replay): the same case has the
    /// same number in every conversation.
    #[must_use]
    pub fn seed(&self) -> u64 {
        let (place, byte) = match self.place {
            Place::Nowhere => (0, 0),
            Place::ByteByByte => (1, 0),
            Place::Sent(byte) => (2, byte),
            Place::Received(byte) => (3, byte),
            Place::Connecting => (4, 0),
        };
        let cut = Cut::ALL.iter().position(|cut| *cut == self.cut).unwrap_or(0) as u64;
        let above = u64::from(self.peer) << PEER_SHIFT | self.conditions << CONDITIONS_SHIFT;
        above | cut << CUT_SHIFT | place << PLACE_SHIFT | byte.min(BYTES - 1)
    }

    /// The case with this number; a number that no case has is the nearest one's.
    pub(super) fn of_seed(seed: u64) -> Self {
        let byte = seed % BYTES;
        let place = match seed >> PLACE_SHIFT & 0xF {
            0 => Place::Nowhere,
            1 => Place::ByteByByte,
            2 => Place::Sent(byte),
            3 => Place::Received(byte),
            _ => Place::Connecting,
        };
        let cut = (seed >> CUT_SHIFT & 0xF) as usize;
        let cut = Cut::ALL.get(cut).copied().unwrap_or(Cut::Vanish);
        let conditions = seed >> CONDITIONS_SHIFT & ((1 << (PEER_SHIFT - CONDITIONS_SHIFT)) - 1);
        Self { peer: (seed >> PEER_SHIFT) as u8, place, cut, conditions }
    }

    /// Whether the peer must get the whole answer: nothing is cut, or only a delay is put in.
    #[must_use]
    pub const fn is_harmless(&self) -> bool {
        matches!(self.place, Place::Nowhere | Place::ByteByByte)
            || (matches!(self.cut, Cut::Delay) && !matches!(self.place, Place::Connecting))
    }

    /// The size of the peer's receive buffer, if the case depends on it: exactly the bytes before
    /// the cut fit in, or `small` ones under tight conditions.
    pub(super) fn receive_buffer(&self, small: usize) -> Option<usize> {
        match self.place {
            Place::ByteByByte => Some(1),
            Place::Received(byte) => Some(usize::try_from(byte).unwrap_or(usize::MAX).max(1)),
            Place::Nowhere | Place::Sent(_) | Place::Connecting => self.is_tight().then_some(small),
        }
    }

    /// Small buffers, small marks, and rude peers that read nothing.
    pub(super) const fn is_tight(&self) -> bool {
        self.conditions == 1
    }

    fn is_deaf(&self) -> bool {
        let is_rude = matches!(self.cut, Cut::Close | Cut::Reset | Cut::Silence | Cut::Vanish);
        self.is_tight() && is_rude && matches!(self.place, Place::Sent(_))
    }

    /// The peer's script in this case. A byte that leaves alone arrives within `travel`.
    pub(super) fn script(&self, whole: &Script, travel: Duration) -> Script {
        match self.place {
            Place::Nowhere => whole.clone(),
            Place::ByteByByte => byte_by_byte(whole, 3 * travel),
            Place::Sent(byte) if self.is_deaf() => self.cut_sending(&deaf(whole), byte),
            Place::Sent(byte) => self.cut_sending(whole, byte),
            Place::Received(byte) => self.cut_receiving(whole, byte),
            Place::Connecting => Script::new(),
        }
    }

    fn cut_sending(&self, whole: &Script, byte: u64) -> Script {
        let mut cut = Script::new();
        let mut left = usize::try_from(byte).unwrap_or(usize::MAX);
        let mut steps = whole.steps.iter();
        // The cut comes with the byte, not behind what the peer would have waited for after it.
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
            cut = self.cut.then(if self.is_deaf() { cut.wait(DELAY * 10) } else { cut });
            if self.cut == Cut::Delay {
                cut.steps.extend((left < bytes.len()).then(|| step.with(&bytes[left..])));
                cut.steps.extend(steps.cloned());
            }
            return cut;
        }
        self.cut.then(cut)
    }

    /// The peer reads nothing before the cut, and its buffer is full with the last byte before it:
    /// however the bytes arrive, it has received exactly so many.
    fn cut_receiving(&self, whole: &Script, byte: u64) -> Script {
        let mut cut = Script::new().stop_reading();
        let mut received = 0;
        let mut steps = whole.steps.iter();
        while let Some(step) = steps.next() {
            let rest = match step {
                Step::Receive(bytes) if received + bytes < byte => {
                    received += bytes;
                    cut.steps.push(Step::Gather(received));
                    continue;
                }
                Step::Receive(bytes) => Step::Receive(received + bytes - byte),
                Step::ReceiveEnd => Step::ReceiveEnd,
                Step::StopReading | Step::Sip { .. } | Step::ReadOn => continue,
                Step::Send(_)
                | Step::Drip { .. }
                | Step::Flood { .. }
                | Step::Urgent
                | Step::Wait(_)
                | Step::Gather(_)
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
        cut.steps.push(Step::Gather(byte));
        self.cut.then(cut.read_on())
    }
}

/// The same peer, without reading: it sends all at once.
fn deaf(whole: &Script) -> Script {
    let reads = |step: &&Step| !matches!(step, Step::Receive(_) | Step::ReceiveEnd | Step::ReadOn | Step::Sip { .. });
    let mut script = Script::new().stop_reading();
    script.steps.extend(whole.steps.iter().filter(reads).cloned());
    script
}

/// Each byte leaves alone, and has arrived before the next one does.
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
        match (self.place, self.cut) {
            (Place::Nowhere, _) => f.write_str("nothing is cut")?,
            (Place::ByteByByte, _) => write!(f, "{peer} sends and receives byte by byte")?,
            (Place::Sent(byte), cut) => write!(f, "{peer} {cut} after byte {byte} of what it sends")?,
            (Place::Received(byte), cut) => write!(f, "{peer} {cut} after byte {byte} of what it receives")?,
            (Place::Connecting, Cut::Vanish) => f.write_str("no answer comes to the connection attempt")?,
            (Place::Connecting, _) => f.write_str("the connection is refused")?,
        }
        match self.conditions {
            0 => Ok(()),
            1 => f.write_str(", under tight conditions"),
            number => write!(f, ", under conditions {number}"),
        }
    }
}

/// All cases of one peer's conversation of so many bytes without conditions, the mildest first.
pub(super) fn calm(peer: u8, sent: u64, received: u64, is_server: bool, cuts: &[Cut]) -> Vec<Case> {
    let case = |place, cut| Case { peer, place, cut, conditions: 0 };
    let mut calm = vec![case(Place::Nowhere, Cut::Delay), case(Place::ByteByByte, Cut::Delay)];
    for &cut in cuts {
        calm.extend((0..=sent).map(|byte| case(Place::Sent(byte), cut)));
        calm.extend((0..=received).map(|byte| case(Place::Received(byte), cut)));
        if is_server && matches!(cut, Cut::Reset | Cut::Vanish) {
            calm.push(case(Place::Connecting, cut));
        }
    }
    calm
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_its_case() {
        for case in calm(3, 3, 4, true, Cut::ALL) {
            let stormy = Case { conditions: 77, ..case };
            assert_eq!(Case::of_seed(case.seed()), case, "{case}");
            assert_eq!(Case::of_seed(stormy.seed()), stormy, "{stormy}");
        }
        for seed in [u64::MAX, 9 << PLACE_SHIFT, 12 << CUT_SHIFT] {
            let _is_some_case = Case::of_seed(seed).to_string();
        }
    }

    #[test]
    fn a_script_is_cut_at_each_byte_of_each_direction() {
        let whole = Script::new().send(b"abc").receive(2).send(b"de").receive_end().finish();
        let case = |place, cut, conditions| Case { peer: 0, place, cut, conditions };
        let cut = |place, cut| case(place, cut, 0).script(&whole, DELAY).to_string();
        assert_eq!(cut(Place::Sent(0), Cut::Reset), "reset");
        assert_eq!(cut(Place::Sent(3), Cut::Reset), "send 3 bytes, reset");
        assert_eq!(cut(Place::Sent(4), Cut::Close), "send 3 bytes, receive 2 bytes, send 1 byte, close");
        assert_eq!(
            cut(Place::Sent(1), Cut::Delay),
            "send 1 byte, wait 100µs, send 2 bytes, receive 2 bytes, send 2 bytes, receive the end, finish"
        );
        assert_eq!(
            cut(Place::Received(1), Cut::Vanish),
            "stop reading, send 3 bytes, leave 1 byte unread, read on, vanish"
        );
        assert_eq!(
            cut(Place::Received(5), Cut::Silence),
            concat!(
                "stop reading, send 3 bytes, leave 2 bytes unread, send 2 bytes, ",
                "leave 5 bytes unread, read on, stop reading"
            )
        );
        let deaf = case(Place::Sent(4), Cut::Reset, 1).script(&whole, DELAY).to_string();
        assert_eq!(deaf, "stop reading, send 3 bytes, send 1 byte, wait 1ms, reset");
    }
}
