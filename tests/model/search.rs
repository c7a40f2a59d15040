//! The search: every state once, breadth first, with the way that led there.

use std::collections::HashMap;

use finale::lifecycle::{Input, State};

use crate::moves::{Actor, Move, Moves, Table, Violation};
use crate::world::Composed;

/// A step from one state to another, by their numbers, and the bit of who made it.
type Edge = (u32, u32, u16);

/// Who, which side, and the input.
type Step = (Actor, usize, Option<Input>);

/// Everything that was found.
pub(crate) struct Found {
    pub(crate) states: Vec<Composed>,
    pub(crate) edges: Vec<Edge>,
    pub(crate) depth: u32,
    pub(crate) taken: [[bool; Input::ALL.len()]; State::ALL.len()],
}

/// What the search knows of the way: for each state its predecessor and the step.
#[derive(Default)]
struct Ways {
    numbers: HashMap<u128, u32>,
    before: Vec<Option<(u32, Step)>>,
}

/// Searches everything that can be reached with this table; or the shortest way to a promise that does not hold.
pub(crate) fn search(table: &Table, hand_off: &[[bool; 2]]) -> Result<Found, String> {
    let mut found = Found { states: vec![], edges: vec![], depth: 0, taken: Default::default() };
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
                self.edges.push((number, to, bit));
            }
        }
        Ok(())
    }

    fn note(&mut self, ways: &mut Ways, state: Composed, by: Option<(u32, &Move)>) -> u32 {
        let next = self.states.len() as u32;
        let number = *ways.numbers.entry(state.packed()).or_insert(next);
        if number == next {
            self.states.push(state);
            ways.before.push(by.map(|(from, step)| (from, (step.actor, step.side, step.input))));
        }
        number
    }

    /// How the state was reached, one step a line.
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
        let mut heads = vec![u32::MAX; self.states.len()];
        let mut links = Vec::new();
        for (from, to, _) in self.edges.iter().filter(|(_, _, actor)| actor & actors != 0) {
            links.push((*from, heads[*to as usize]));
            heads[*to as usize] = links.len() as u32 - 1;
        }
        let mut reaches: Vec<bool> = self.states.iter().map(&goal).collect();
        let mut queue: Vec<u32> = (0..).zip(&reaches).filter_map(|(number, is)| is.then_some(number)).collect();
        while let Some(number) = queue.pop() {
            let mut link = heads[number as usize];
            while let Some((from, next)) = links.get(link as usize) {
                if !std::mem::replace(&mut reaches[*from as usize], true) {
                    queue.push(*from);
                }
                link = *next;
            }
        }
        self.states.iter().zip(&reaches).filter_map(|(state, reaches)| (!reaches).then_some(*state)).collect()
    }
}
