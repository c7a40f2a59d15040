//! Where and how a conversation is cut, and every case numbered.

use std::fmt;
use std::time::Duration;

use crate::sim::Script;
use crate::sim::script::Step;

/// How a peer ends, or disturbs, a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cut {
    /// Waits 10 ms at this byte, and goes on.
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
            Self::Delay => script.wait(Duration::from_millis(10)),
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Case {
    /// Where it is cut.
    pub place: Place,
    /// How; of no account if the place is nowhere.
    pub cut: Cut,
    /// Which weather: 0 is calm.
    pub weather: u64,
}

/// In a seed, the place stands above the byte, the cut above that, and the weather on top.
const PLACE_SHIFT: u32 = 24;
const CUT_SHIFT: u32 = 28;
const WEATHER_SHIFT: u32 = 32;
const BYTES: u64 = 1 << PLACE_SHIFT;

impl Case {
    pub(super) const UNDISTURBED: Self = Self { place: Place::Nowhere, cut: Cut::Delay, weather: 0 };

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
        self.weather << WEATHER_SHIFT | cut << CUT_SHIFT | place << PLACE_SHIFT | byte.min(BYTES - 1)
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
        Self { place, cut, weather: seed >> WEATHER_SHIFT }
    }

    /// Whether the peer must get the whole answer: nothing is cut, or only a delay is put in.
    #[must_use]
    pub const fn is_harmless(&self) -> bool {
        matches!(self.place, Place::Nowhere | Place::ByteByByte)
            || (matches!(self.cut, Cut::Delay) && !matches!(self.place, Place::Connecting))
    }

    /// Whether one byte fits into the peer's receive buffer, so that what it receives can be cut at
    /// each.
    pub(super) const fn needs_a_small_window(&self) -> bool {
        matches!(self.place, Place::Received(_) | Place::ByteByByte)
    }

    /// The peer's script in this case.
    pub(super) fn script(&self, whole: &Script) -> Script {
        match self.place {
            Place::Nowhere => whole.clone(),
            Place::ByteByByte => byte_by_byte(whole),
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
            cut = self.cut.then(cut);
            if self.cut == Cut::Delay {
                cut.steps.extend((left < bytes.len()).then(|| step.with(&bytes[left..])));
                cut.steps.extend(steps.cloned());
            }
            return cut;
        }
        self.cut.then(cut)
    }

    fn cut_receiving(&self, whole: &Script, byte: u64) -> Script {
        let mut cut = Script::new();
        let mut left = byte;
        let mut steps = whole.steps.iter();
        for step in steps.by_ref() {
            let rest = match step {
                Step::Receive(bytes) if *bytes < left => {
                    left -= bytes;
                    None
                }
                Step::Receive(bytes) => Some(Step::Receive(bytes - left)),
                Step::ReceiveEnd => Some(Step::ReceiveEnd),
                Step::Send(_) | Step::Drip { .. } | Step::Flood { .. } | Step::Urgent | Step::Wait(_) => None,
                Step::StopReading
                | Step::Sip { .. }
                | Step::ReadOn
                | Step::Finish
                | Step::Close
                | Step::Reset
                | Step::Vanish => None,
            };
            let Some(rest) = rest else {
                cut.steps.push(step.clone());
                continue;
            };
            cut = self.cut.then(cut.receive(left));
            if self.cut == Cut::Delay {
                cut.steps.push(rest);
                cut.steps.extend(steps.cloned());
            }
            return cut;
        }
        self.cut.then(cut.receive(left))
    }
}

/// Each byte leaves alone, and has arrived before the next one does.
fn byte_by_byte(whole: &Script) -> Script {
    let mut script = Script::new();
    for step in &whole.steps {
        let Step::Send(bytes) = step else {
            script.steps.push(step.clone());
            continue;
        };
        for byte in bytes {
            script = script.send(&[*byte]).wait(Duration::from_millis(3));
        }
    }
    script
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.place, self.cut) {
            (Place::Nowhere, _) => f.write_str("nothing is cut")?,
            (Place::ByteByByte, _) => f.write_str("the peer sends and receives byte by byte")?,
            (Place::Sent(byte), cut) => write!(f, "the peer {cut} behind byte {byte} of what it sends")?,
            (Place::Received(byte), cut) => write!(f, "the peer {cut} behind byte {byte} of what it receives")?,
            (Place::Connecting, Cut::Vanish) => f.write_str("nobody answers the connection")?,
            (Place::Connecting, _) => f.write_str("the connection is refused")?,
        }
        if self.weather > 0 { write!(f, ", in weather {}", self.weather) } else { Ok(()) }
    }
}

/// All cases of a conversation of so many bytes in calm weather, the mildest first.
pub(super) fn calm(sent: u64, received: u64, is_client: bool, cuts: &[Cut]) -> Vec<Case> {
    let mut calm = vec![Case::UNDISTURBED, Case { place: Place::ByteByByte, ..Case::UNDISTURBED }];
    let case = |place, cut| Case { place, cut, weather: 0 };
    for &cut in cuts {
        calm.extend((0..=sent).map(|byte| case(Place::Sent(byte), cut)));
        calm.extend((0..=received).map(|byte| case(Place::Received(byte), cut)));
        if is_client && matches!(cut, Cut::Reset | Cut::Vanish) {
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
        for case in calm(3, 4, true, Cut::ALL) {
            let stormy = Case { weather: 77, ..case };
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
        let cut = |place, cut| Case { place, cut, weather: 0 }.script(&whole).to_string();
        assert_eq!(cut(Place::Sent(0), Cut::Reset), "reset");
        assert_eq!(cut(Place::Sent(3), Cut::Reset), "send 3 bytes, reset");
        assert_eq!(cut(Place::Sent(4), Cut::Close), "send 3 bytes, receive 2 bytes, send 1 byte, close");
        assert_eq!(
            cut(Place::Sent(1), Cut::Delay),
            "send 1 byte, wait 10ms, send 2 bytes, receive 2 bytes, send 2 bytes, receive the end, finish"
        );
        assert_eq!(cut(Place::Received(1), Cut::Vanish), "send 3 bytes, receive 1 byte, vanish");
        assert_eq!(
            cut(Place::Received(5), Cut::Silence),
            "send 3 bytes, receive 2 bytes, send 2 bytes, receive 3 bytes, stop reading"
        );
    }
}
