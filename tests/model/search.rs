//! The search: every state once, breadth first, with the path that led to it.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use finale::lifecycle::{Input, State};

use crate::moves::{Actor, Move, Moves, Table, Violation};
use crate::world::Composed;

/// A step into a state: the state that it starts from, the bit of its actor, and the next step into
/// the same state.
pub(crate) struct Edge {
    from: u32,
    actor: u16,
    next: u32,
}

/// No edge.
const NONE: u32 = u32::MAX;

/// The actor, the side, and the input.
type Step = (Actor, usize, Option<Input>);

/// Everything that was found.
pub(crate) struct Found {
    pub(crate) states: Vec<Composed>,
    pub(crate) edges: Vec<Edge>,
    /// For each state the last of its edges.
    last_into: Vec<u32>,
    pub(crate) depth: u32,
    pub(crate) taken: [[bool; Input::ALL.len()]; State::ALL.len()],
}

/// The path so far: for each state its predecessor and the step.
#[derive(Default)]
struct Ways {
    numbers: HashMap<u128, u32, BuildHasherDefault<Mix>>,
    before: Vec<Option<(u32, Step)>>,
}

/// A hash of one number, which is all that this search needs; the standard one takes a third of the
/// whole time.
#[derive(Default)]
struct Mix(u64);

impl Hasher for Mix {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only numbers are hashed");
    }

    fn write_u128(&mut self, number: u128) {
        const ODD: u64 = 0x9E37_79B9_7F4A_7C15;
        let half = (number as u64).wrapping_mul(ODD) ^ (number >> 64) as u64;
        let mixed = half.wrapping_mul(ODD);
        self.0 = mixed ^ (mixed >> 32);
    }
}

/// Searches everything that can be reached with this table. Fails with the shortest path to a
/// broken promise.
pub(crate) fn search(table: &Table, hand_off: &[[bool; 2]]) -> Result<Found, String> {
    let mut found = Found { states: vec![], edges: vec![], last_into: vec![], depth: 0, taken: Default::default() };
    let mut ways = Ways::default();
    for &each in hand_off {
        found.note(&mut ways, Composed::new(each), None);
    }
    let (mut next, mut layer) = (0, found.states.len());
    while next < found.states.len() {
        if next == layer {
            (layer, found.depth) = (found.states.len(), found.depth + 1);
        }
        found.expand(table, &mut ways, next as u32)?;
        next += 1;
    }
    Ok(found)
}

impl Found {
    fn expand(&mut self, table: &Table, ways: &mut Ways, number: u32) -> Result<(), String> {
        let from = self.states[number as usize];
        let mut moves = Moves { from, table, taken: &mut self.taken, found: Vec::new(), broken: None };
        moves.collect();
        let Moves { found, broken, .. } = moves;
        if let Some(Violation(wrong)) = broken {
            return Err(format!("{wrong}\n{}", self.way(ways, number)));
        }
        if found.iter().all(|step| step.to == from) && !from.is_over() {
            return Err(format!("nothing can happen any more\n{}", self.way(ways, number)));
        }
        for step in found {
            let bit = crate::moves::bit(step.actor, step.side);
            let to = self.note(ways, step.to, Some((number, &step)));
            if to != number {
                let last = &mut self.last_into[to as usize];
                let next = std::mem::replace(last, self.edges.len() as u32);
                self.edges.push(Edge { from: number, actor: bit, next });
            }
        }
        Ok(())
    }

    fn note(&mut self, ways: &mut Ways, state: Composed, by: Option<(u32, &Move)>) -> u32 {
        let next = self.states.len() as u32;
        let number = *ways.numbers.entry(state.packed()).or_insert(next);
        if number == next {
            self.states.push(state);
            self.last_into.push(NONE);
            ways.before.push(by.map(|(from, step)| (from, (step.actor, step.side, step.input))));
        }
        number
    }

    /// How the state was reached, one step per line.
    fn way(&self, ways: &Ways, mut number: u32) -> String {
        let mut lines = Vec::new();
        loop {
            let state = self.states[number as usize];
            let Some((before, (actor, side, input))) = ways.before[number as usize] else {
                lines.push(format!("{state:?}"));
                lines.reverse();
                return lines.join("\n");
            };
            let what = input.map_or_else(|| format!("{actor:?}"), |input| input.name().to_owned());
            lines.push(format!("{} {what}\n    {state:?}", ["client:", "server:"][side]));
            number = before;
        }
    }

    /// Which states can't reach a goal by steps of these actors alone.
    pub(crate) fn stuck(&self, actors: u16, goal: impl Fn(&Composed) -> bool) -> Vec<Composed> {
        let mut reaches: Vec<bool> = self.states.iter().map(&goal).collect();
        let mut queue: Vec<u32> = (0..).zip(&reaches).filter_map(|(number, is)| is.then_some(number)).collect();
        while let Some(number) = queue.pop() {
            let mut edge = self.last_into[number as usize];
            while let Some(&Edge { from, actor, next }) = self.edges.get(edge as usize) {
                if actor & actors != 0 && !std::mem::replace(&mut reaches[from as usize], true) {
                    queue.push(from);
                }
                edge = next;
            }
        }
        self.states.iter().zip(&reaches).filter_map(|(state, reaches)| (!reaches).then_some(*state)).collect()
    }
}
