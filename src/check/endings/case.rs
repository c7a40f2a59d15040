//! Where and how a conversation is cut, and every case numbered.

use std::fmt;
use std::time::Duration;

use super::Found;
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
            Self::Fin => script.finish().receive_end().close(),
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

/// In which direction the cut lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Direction {
    /// Behind so many bytes that the peer has sent.
    Sent,
    /// Behind so many bytes that the peer has received.
    Received,
    /// Nowhere: the whole conversation, the peer's bytes leaving one at a time, and arriving one at a time.
    ByteByByte,
    /// Nowhere: the whole conversation as it is.
    Whole,
}

/// One case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Case {
    /// Its number, for [`Endings::replay`](super::Endings::replay).
    pub seed: u64,
    /// How it is cut.
    pub cut: Cut,
    /// At which byte.
    pub byte: u64,
    pub(super) direction: Direction,
    /// 0 is calm.
    pub(super) weather: u64,
}

impl Case {
    pub(super) const fn undisturbed() -> Self {
        Self { seed: 0, cut: Cut::Delay, byte: 0, direction: Direction::Whole, weather: 0 }
    }

    /// Whether the peer must get the whole answer all the same.
    pub(super) const fn changes_nothing(&self, sent_bytes: u64) -> bool {
        match self.direction {
            Direction::Whole | Direction::ByteByByte => true,
            Direction::Sent => {
                matches!(self.cut, Cut::Delay) || (matches!(self.cut, Cut::Fin) && self.byte == sent_bytes)
            }
            Direction::Received => matches!(self.cut, Cut::Delay),
        }
    }

    /// Whether one byte fits into the peer's receive buffer, so that what it receives can be cut at each.
    pub(super) const fn needs_a_small_window(&self) -> bool {
        matches!(self.direction, Direction::Received | Direction::ByteByByte)
    }

    /// The peer's script in this case, and what it writes.
    pub(super) fn script(&self, whole: &Script) -> (Script, Vec<u8>) {
        let script = match self.direction {
            Direction::Whole => whole.clone(),
            Direction::ByteByByte => byte_by_byte(whole),
            Direction::Sent => self.cut_sending(whole),
            Direction::Received => self.cut_receiving(whole),
        };
        let sends = script.steps.iter().flat_map(|step| if let Step::Send(bytes) = step { &bytes[..] } else { &[] });
        let sent = sends.copied().collect();
        (script, sent)
    }

    fn cut_sending(&self, whole: &Script) -> Script {
        let mut cut = Script::new();
        let mut left = usize::try_from(self.byte).unwrap_or(usize::MAX);
        let mut steps = whole.steps.iter();
        // The cut comes with the byte, not behind what the peer would have waited for after it.
        while let Some(step) = steps.next() {
            let Step::Send(bytes) = step else {
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
            cut = self.cut.then(if left > 0 { cut.send(&bytes[..left]) } else { cut });
            if self.cut == Cut::Delay {
                cut = if left < bytes.len() { cut.send(&bytes[left..]) } else { cut };
                cut.steps.extend(steps.cloned());
            }
            return cut;
        }
        self.cut.then(cut)
    }

    fn cut_receiving(&self, whole: &Script) -> Script {
        let mut cut = Script::new();
        let mut left = self.byte;
        let mut steps = whole.steps.iter();
        for step in steps.by_ref() {
            match step {
                Step::Receive(bytes) if *bytes < left => left -= bytes,
                Step::Receive(bytes) => {
                    cut = self.cut.then(cut.receive(left));
                    if self.cut == Cut::Delay {
                        cut = cut.receive(bytes - left);
                        cut.steps.extend(steps.cloned());
                    }
                    return cut;
                }
                Step::ReceiveEnd => {
                    cut = self.cut.then(cut.receive(left));
                    if self.cut == Cut::Delay {
                        cut.steps.push(step.clone());
                        cut.steps.extend(steps.cloned());
                    }
                    return cut;
                }
                Step::Send(_) | Step::Urgent | Step::Wait(_) | Step::StopReading | Step::ReadOn => {}
                Step::Finish | Step::Close | Step::Reset | Step::Vanish => {}
            }
            cut.steps.push(step.clone());
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
        match self.direction {
            Direction::Sent => write!(f, "the peer {} behind byte {} of what it sends", self.cut, self.byte)?,
            Direction::Received => write!(f, "the peer {} behind byte {} of what it receives", self.cut, self.byte)?,
            Direction::ByteByByte => f.write_str("the peer sends and receives byte by byte")?,
            Direction::Whole => f.write_str("nothing is cut")?,
        }
        if self.weather > 0 { write!(f, ", in weather {}", self.weather) } else { Ok(()) }
    }
}

/// All cases of a conversation, in order: the calm ones first, and of those the mildest.
pub(super) struct Cases {
    pub(super) whole: Found,
    pub(super) sent_bytes: u64,
    calm: Vec<Case>,
    weathers: u64,
}

impl Cases {
    pub(super) fn new(script: &Script, whole: Found, cuts: &[Cut], weathers: u64) -> Self {
        let sent_bytes = Case::undisturbed().script(script).1.len() as u64;
        let mut calm = vec![Case::undisturbed(), Case { direction: Direction::ByteByByte, ..Case::undisturbed() }];
        for &cut in cuts {
            for (direction, bytes) in
                [(Direction::Sent, sent_bytes), (Direction::Received, whole.received.len() as u64)]
            {
                calm.extend((0..=bytes).map(|byte| Case { cut, byte, direction, ..Case::undisturbed() }));
            }
        }
        Self { whole, sent_bytes, calm, weathers }
    }

    pub(super) const fn len(&self) -> u64 {
        self.calm.len() as u64 * (1 + self.weathers)
    }

    /// The case with this number; those beyond the last begin anew.
    pub(super) fn get(&self, seed: u64) -> Case {
        let count = self.calm.len() as u64;
        Case { seed, weather: seed / count, ..self.calm[(seed % count) as usize] }
    }
}
