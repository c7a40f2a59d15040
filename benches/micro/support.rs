//! What the benchmarks share: the number of everything, and its order in memory.

use std::time::Duration;

use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use rustix::time::{ClockId, clock_gettime};

/// The CPU time of this thread. Other work on the machine affects only the caches.
pub(crate) struct CpuTime;

pub(crate) fn cpu_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).expect("a thread's time is not negative")
}

impl Measurement for CpuTime {
    type Intermediate = Duration;
    type Value = Duration;

    fn start(&self) -> Duration {
        cpu_time()
    }

    fn end(&self, began: Duration) -> Duration {
        cpu_time() - began
    }

    fn add(&self, one: &Duration, other: &Duration) -> Duration {
        *one + *other
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, time: &Duration) -> f64 {
        WallTime.to_f64(time)
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        WallTime.formatter()
    }
}

/// Whether nothing is to be measured, only run once to see that it works: `cargo bench -- --test`,
/// or a plain test run.
pub(crate) fn is_trial() -> bool {
    let has = |flag: &str| std::env::args().any(|arg| arg == flag);
    has("--test") || !has("--bench")
}

/// A million, or as many as show that it works.
pub(crate) fn million() -> usize {
    if is_trial() { 1000 } else { 1_000_000 }
}

/// How a benchmark accesses a memory that no cache holds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// A thousand slots of the million, over and over: as with sockets that are being served, the
    /// caches hold them.
    Hot,
    /// All slots in order, so that the machine prefetches the next ones.
    Memory,
    /// All slots at random: each operation begins with at least one cache miss, which is most of
    /// what is measured.
    Random,
}

impl Order {
    pub(crate) const ALL: [Self; 3] = [Self::Hot, Self::Memory, Self::Random];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Hot => "hot",
            Self::Memory => "in memory order",
            Self::Random => "in random order",
        }
    }

    /// The numbers below `count`, in this order: the same one in every run.
    pub(crate) fn places(self, count: usize) -> Vec<u32> {
        let mut places: Vec<u32> = (0..count as u32).collect();
        if self != Self::Memory {
            let mut draw = Draw(1);
            for left in (1..count).rev() {
                places.swap(left, draw.below(left as u64 + 1) as usize);
            }
        }
        places
    }
}

/// A small generator of numbers (xorshift), the same ones in every run.
pub(crate) struct Draw(pub(crate) u64);

impl Draw {
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}
