//! Arbitrary calls on arbitrary sockets, in every state, on the simulated network: what a property
//! test and a fuzzer have in common.
//!
//! Invariant: every result and every event is judged by what was seen from outside alone, with a
//! small independent model (`judge`), never by the reactor's table. A script is plain data; the
//! same script gives the same transcript.

mod draw;
mod judge;
pub mod op;
mod program;
mod world;

pub use op::{Dice, Op};

/// Nothing, or what is wrong.
type Verdict = Result<(), String>;

/// A seed for the network, and the calls.
#[derive(Clone)]
pub struct Script {
    pub seed: u64,
    pub ops: Vec<Op>,
}

impl Script {
    /// Plays the script to its end and returns the transcript.
    ///
    /// # Panics
    /// At the first broken rule, with the transcript so far.
    #[track_caller]
    pub fn play(&self) -> Vec<String> {
        let mut world = world::World::new(self.seed);
        match world.play(&self.ops) {
            Ok(()) => world.story,
            Err(wrong) => panic!("{wrong}\nafter\n{}\nof\n{self:?}", world.story.join("\n")),
        }
    }
}

/// One call per line, as it can be written into a test.
impl std::fmt::Debug for Script {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "seed {} and these calls:", self.seed)?;
        self.ops.iter().try_for_each(|op| writeln!(f, "    {op:?},"))
    }
}
