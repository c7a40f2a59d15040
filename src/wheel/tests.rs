//! The seventeen known mistakes of timer wheels, then arbitrary sequences compared with a map.

use super::*;
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const ROTATION: u64 = SLOTS as u64;
/// Present ticks to start from: both ends of the wheel, the middle of a rotation, and close to the
/// end of `u64`.
const STARTS: [u64; 6] = [0, 1, ROTATION - 1, ROTATION, 1_234_567_890, u64::MAX - 9 * ROTATION];

/// More examined nodes than any pass needs here, so that an endless pass fails instead of hanging.
const LOOKS_MOST: u32 = 100_000;

impl Nodes for Vec<Node> {
    fn node(&mut self, index: u32) -> &mut Node {
        &mut self[index as usize]
    }
}

fn setup(now: u64, count: u32) -> (Wheel, Vec<Node>) {
    (Wheel::new(now), (0..count).map(|_| Node::new()).collect())
}

/// All that one pass for tick `now` returns, in rising order, with the number of examined nodes.
#[track_caller]
fn pass(wheel: &mut Wheel, nodes: &mut Vec<Node>, now: u64) -> (Vec<u32>, u32) {
    let mut budget = LOOKS_MOST;
    let mut fired = Vec::new();
    while let Some(index) = wheel.pop_due(nodes, now, &mut budget) {
        assert!(!nodes[index as usize].is_filed());
        fired.push(index);
    }
    assert!(budget > 0, "the pass for tick {now} has no end");
    check(wheel, nodes);
    fired.sort_unstable();
    (fired, LOOKS_MOST - budget)
}

#[track_caller]
fn expect(wheel: &mut Wheel, nodes: &mut Vec<Node>, now: u64, fired: &[u32]) {
    assert_eq!(pass(wheel, nodes, now).0, fired, "in the pass for tick {now}");
}

/// Files one node this many ticks ahead, from every start, and expects it at that tick and not
/// before.
#[track_caller]
fn check_ahead(ticks: u64) {
    for now in STARTS {
        let (mut wheel, mut nodes) = setup(now, 1);
        wheel.file(&mut nodes, 0, now + ticks);
        assert!(wheel.next_due().is_some_and(|tick| tick > now && tick <= now + ticks));
        expect(&mut wheel, &mut nodes, now + ticks - 1, &[]);
        assert_eq!(wheel.next_due(), Some(now + ticks));
        expect(&mut wheel, &mut nodes, now + ticks, &[0]);
        expect(&mut wheel, &mut nodes, now + 3 * ROTATION + ticks, &[]);
        assert_eq!((wheel.next_due(), wheel.len()), (None, 0));
    }
}

/// The lists, the bitmap, the marks and the length agree, and no node is where it would be found
/// too late.
#[track_caller]
fn check(wheel: &Wheel, nodes: &[Node]) {
    let mut filed = 0;
    for (list, &head) in wheel.heads.iter().enumerate() {
        if list < SLOTS {
            let bit = wheel.occupied.words[list / 64] >> (list % 64) & 1;
            assert_eq!(bit == 1, head != NIL, "the bit of slot {list}");
        }
        let (mut prev, mut at) = (mark(list), head);
        while at != NIL {
            let node = &nodes[at as usize];
            assert_eq!(node.prev, prev, "the way back from node {at} of list {list}");
            if list < SLOTS && !(wheel.in_pass && wheel.pass_covers(list)) {
                let ticks = 1 + slots_between(slot_after(wheel.present), list) as u64;
                assert!(node.due - wheel.present >= ticks, "slot {list} comes up too late for {at}");
            }
            filed += 1;
            (prev, at) = (at, node.next);
        }
    }
    for (word, &bits) in wheel.occupied.words.iter().enumerate() {
        let bit = wheel.occupied.groups[word / 64] >> (word % 64) & 1;
        assert_eq!(bit == 1, bits != 0, "the bit of word {word}");
    }
    assert_eq!(wheel.len(), filed);
    assert_eq!(nodes.iter().filter(|node| node.is_filed()).count(), filed);
    assert!(wheel.in_pass || wheel.heads[EXPIRING] == NIL);
}

impl Wheel {
    fn pass_covers(&self, slot: usize) -> bool {
        slots_between(self.pass_slot, slot) < self.pass_slots_left
    }
}

#[test]
fn a_deadline_in_the_past_fires_at_once() {
    for now in STARTS {
        let (mut wheel, mut nodes) = setup(now, 2);
        wheel.file(&mut nodes, 0, now.saturating_sub(1));
        wheel.file(&mut nodes, 1, 0);
        assert_eq!(wheel.next_due(), Some(now));
        expect(&mut wheel, &mut nodes, now, &[0, 1]);
        expect(&mut wheel, &mut nodes, now + 2 * ROTATION, &[]);
    }
}

#[test]
fn a_deadline_of_now_fires_in_the_next_pass_even_of_the_same_tick() {
    let (mut wheel, mut nodes) = setup(7, 1);
    for now in [7, 8, 8, 8] {
        expect(&mut wheel, &mut nodes, now, &[]);
        wheel.file(&mut nodes, 0, now);
        assert_eq!(wheel.next_due(), Some(now));
        expect(&mut wheel, &mut nodes, now, &[0]);
    }
}

#[test]
fn a_deadline_one_tick_ahead_fires_one_tick_ahead() {
    check_ahead(1);
}

#[test]
fn a_deadline_one_rotation_ahead_fires_after_one_rotation() {
    check_ahead(ROTATION - 1);
    check_ahead(ROTATION);
}

#[test]
fn a_deadline_one_tick_more_than_a_rotation_ahead_does_not_fire_at_the_first_tick() {
    check_ahead(ROTATION + 1);
}

#[test]
fn a_deadline_many_rotations_ahead_is_looked_at_once_a_rotation() {
    check_ahead(5 * ROTATION + 3);
    let (mut wheel, mut nodes) = setup(0, 1);
    wheel.file(&mut nodes, 0, 5 * ROTATION + 3);
    let looks: u32 = (1..5 * ROTATION).map(|now| wheel_looks(&mut wheel, &mut nodes, now)).sum();
    assert_eq!(looks, 5);
}

/// The examined nodes of a pass that returns nothing, without the check of the whole wheel.
fn wheel_looks(wheel: &mut Wheel, nodes: &mut Vec<Node>, now: u64) -> u32 {
    let mut budget = LOOKS_MOST;
    assert_eq!(wheel.pop_due(nodes, now, &mut budget), None);
    LOOKS_MOST - budget
}

#[test]
fn a_deadline_near_the_end_of_u64_neither_overflows_nor_fires_early() {
    let (mut wheel, mut nodes) = setup(0, 3);
    for index in 0..3 {
        wheel.file(&mut nodes, index, u64::MAX - u64::from(index));
    }
    expect(&mut wheel, &mut nodes, 10 * ROTATION, &[]);
    assert!(wheel.next_due().is_some_and(|tick| tick <= 11 * ROTATION));
    expect(&mut wheel, &mut nodes, u64::MAX - 3, &[]);
    assert_eq!(wheel.next_due(), Some(u64::MAX - 2));
    expect(&mut wheel, &mut nodes, u64::MAX - 1, &[1, 2]);
    expect(&mut wheel, &mut nodes, u64::MAX, &[0]);
    wheel.file(&mut nodes, 0, u64::MAX);
    assert_eq!(wheel.next_due(), Some(u64::MAX));
    expect(&mut wheel, &mut nodes, u64::MAX, &[0]);
}

#[test]
fn a_jump_of_the_clock_over_many_rotations_looks_at_each_node_once() {
    for now in STARTS {
        let (mut wheel, mut nodes) = setup(now, 600);
        for index in 0..600 {
            wheel.file(&mut nodes, index, now + 1 + u64::from(index) * 199);
        }
        let due: Vec<u32> = (0..600).filter(|index| index * 199 < 100_000).collect();
        assert_eq!(pass(&mut wheel, &mut nodes, now + 100_000), (due, 600));
        assert_eq!(pass(&mut wheel, &mut nodes, now + 100_000), (vec![], 0));
    }
}

#[test]
fn filing_again_in_the_handler_waits_for_the_next_pass() {
    let (mut wheel, mut nodes) = setup(0, 2);
    for now in [1, 1, 5, 5, 3 * ROTATION, 3 * ROTATION] {
        let (mut budget, mut fired) = (100, 0);
        wheel.file(&mut nodes, 0, now);
        wheel.file(&mut nodes, 1, now + 1);
        while let Some(index) = wheel.pop_due(&mut nodes, now, &mut budget) {
            // Due already, due in a slot that the pass still covers, and due a rotation later in
            // the slot that is being expired.
            wheel.file(&mut nodes, index, [0, now - 1, now][fired % 3]);
            wheel.file(&mut nodes, 1, now + ROTATION);
            fired += 1;
        }
        assert_eq!((fired, wheel.next_due()), (1, Some(now)));
        check(&wheel, &nodes);
    }
    expect(&mut wheel, &mut nodes, 3 * ROTATION, &[0]);
}

#[test]
fn cancelling_the_node_being_fired_changes_nothing_and_its_followers_may_go() {
    let (mut wheel, mut nodes) = setup(0, 4);
    for index in 0..4 {
        wheel.file(&mut nodes, index, 9);
    }
    let mut budget = 100;
    let fired = wheel.pop_due(&mut nodes, 9, &mut budget);
    assert_eq!((fired, wheel.len()), (Some(3), 3));
    wheel.cancel(&mut nodes, 3);
    assert_eq!(wheel.len(), 3);
    // The head of the expiring list, and its tail; then the one in between is moved away and to a
    // later tick.
    wheel.cancel(&mut nodes, 2);
    wheel.cancel(&mut nodes, 0);
    check(&wheel, &nodes);
    wheel.file(&mut nodes, 1, 12);
    expect(&mut wheel, &mut nodes, 9, &[]);
    expect(&mut wheel, &mut nodes, 11, &[]);
    expect(&mut wheel, &mut nodes, 12, &[1]);
}

#[test]
fn the_last_overdue_node_is_cancelled_and_moved_like_any_other() {
    let (mut wheel, mut nodes) = setup(5, 1);
    wheel.file(&mut nodes, 0, 5);
    wheel.cancel(&mut nodes, 0);
    check(&wheel, &nodes);
    assert_eq!((wheel.next_due(), wheel.is_empty()), (None, true));
    wheel.file(&mut nodes, 0, 4);
    wheel.file(&mut nodes, 0, 3);
    check(&wheel, &nodes);
    expect(&mut wheel, &mut nodes, 5, &[0]);
}

#[test]
fn cancelling_a_neighbour_in_the_same_slot_leaves_the_others() {
    for cancelled in 0..3 {
        let (mut wheel, mut nodes) = setup(0, 3);
        for index in 0..3 {
            wheel.file(&mut nodes, index, 40 + u64::from(index) * ROTATION);
        }
        wheel.cancel(&mut nodes, cancelled);
        wheel.cancel(&mut nodes, cancelled);
        check(&wheel, &nodes);
        assert_eq!((wheel.len(), nodes[cancelled as usize].due()), (2, None));
        let others: Vec<u32> = (0..3).filter(|&index| index != cancelled).collect();
        expect(&mut wheel, &mut nodes, 40 + 2 * ROTATION, &others);
    }
}

#[test]
fn moved_to_an_earlier_tick_it_fires_then_and_once() {
    let (mut wheel, mut nodes) = setup(0, 1);
    for (due, earlier) in [(5 * ROTATION, 30), (100, 99), (200, 1), (40, 40)] {
        let now = wheel.present;
        wheel.file(&mut nodes, 0, now + due);
        wheel.file(&mut nodes, 0, now + earlier);
        assert_eq!((wheel.next_due(), wheel.len()), (Some(now + earlier), 1));
        expect(&mut wheel, &mut nodes, now + earlier - 1, &[]);
        expect(&mut wheel, &mut nodes, now + earlier, &[0]);
        expect(&mut wheel, &mut nodes, now + 6 * ROTATION, &[]);
    }
}

#[test]
fn moved_to_a_later_tick_it_fires_only_then() {
    let (mut wheel, mut nodes) = setup(0, 1);
    for later in [31, 29 + ROTATION, 30 + ROTATION, 31 + 4 * ROTATION] {
        let now = wheel.present;
        wheel.file(&mut nodes, 0, now + 30);
        wheel.file(&mut nodes, 0, now + later);
        // The old slot is examined exactly once more.
        assert_eq!((wheel.next_due(), nodes[0].due()), (Some(now + 30), Some(now + later)));
        assert_eq!(pass(&mut wheel, &mut nodes, now + 30), (vec![], 1));
        expect(&mut wheel, &mut nodes, now + later - 1, &[]);
        assert_eq!(wheel.next_due(), Some(now + later));
        expect(&mut wheel, &mut nodes, now + later, &[0]);
    }
    wheel.file(&mut nodes, 0, 0);
    wheel.file(&mut nodes, 0, wheel.present + 2);
    assert_eq!(wheel.next_due(), Some(wheel.present));
    let now = wheel.present;
    expect(&mut wheel, &mut nodes, now, &[]);
    assert_eq!(wheel.next_due(), Some(now + 2));
}

#[test]
fn the_last_node_of_a_slot_takes_the_slot_bit_with_it() {
    let (mut wheel, mut nodes) = setup(0, 4);
    for (index, due) in [(0, 70), (1, 70), (2, 71), (3, 9000)] {
        wheel.file(&mut nodes, index, due);
    }
    for (cancelled, next_due) in [(0, Some(70)), (1, Some(71)), (2, Some(9000)), (3, None)] {
        wheel.cancel(&mut nodes, cancelled);
        check(&wheel, &nodes);
        assert_eq!(wheel.next_due(), next_due);
    }
    assert!(wheel.is_empty() && wheel.occupied.groups == [0; GROUPS]);
}

#[test]
fn with_only_far_nodes_the_next_tick_is_a_rotation_away_at_most() {
    let (mut wheel, mut nodes) = setup(100, 1);
    wheel.file(&mut nodes, 0, 100 + 1000 * ROTATION);
    for rotation in 1..=1000 {
        let tick = 100 + rotation * ROTATION;
        assert_eq!(wheel.next_due(), Some(tick));
        let mut budget = 1;
        let fired = wheel.pop_due(&mut nodes, tick, &mut budget);
        assert_eq!((fired.is_some(), budget), (rotation == 1000, 0));
        assert_eq!(wheel.pop_due(&mut nodes, tick, &mut budget), None);
    }
}

#[test]
fn a_million_in_one_slot_cost_a_budget_a_turn() {
    const COUNT: u32 = 1_000_000;
    let (mut wheel, mut nodes) = setup(0, COUNT);
    for index in 0..COUNT {
        wheel.file(&mut nodes, index, if index % 2 == 0 { 5 } else { 5 + ROTATION });
    }
    let (mut turns, mut fired) = (0, 0);
    while wheel.next_due() == Some(5) {
        let mut budget = 1000;
        while wheel.pop_due(&mut nodes, 5, &mut budget).is_some() {
            fired += 1;
        }
        turns += 1;
        assert!(turns <= 1000, "the slot is never done");
    }
    assert_eq!((turns, fired, wheel.len()), (1000, COUNT / 2, COUNT as usize / 2));
    check(&wheel, &nodes);
}

#[test]
fn never_before_the_deadline_and_in_the_first_pass_after_it() {
    for step in [1, 3, 7] {
        let (mut wheel, mut nodes) = setup(0, 400);
        let due = |index: u32| 1 + u64::from(index) * 97;
        for index in 0..400 {
            wheel.file(&mut nodes, index, due(index));
        }
        let mut now = 0;
        while !wheel.is_empty() {
            now += step;
            assert!(now < due(400), "a node is lost");
            let mut budget = LOOKS_MOST;
            while let Some(index) = wheel.pop_due(&mut nodes, now, &mut budget) {
                assert!((due(index)..due(index) + step).contains(&now));
            }
        }
    }
}

#[test]
fn a_clock_that_goes_back_neither_loses_nor_repeats() {
    let (mut wheel, mut nodes) = setup(1000, 2);
    wheel.file(&mut nodes, 0, 1001);
    wheel.file(&mut nodes, 1, 2000);
    expect(&mut wheel, &mut nodes, 3, &[]);
    expect(&mut wheel, &mut nodes, 1001, &[0]);
    wheel.file(&mut nodes, 0, 900);
    expect(&mut wheel, &mut nodes, 0, &[0]);
    expect(&mut wheel, &mut nodes, 1999, &[]);
    expect(&mut wheel, &mut nodes, 2000, &[1]);
}

#[test]
fn a_clock_that_goes_back_during_a_pass_does_not_end_it_early() {
    let (mut wheel, mut nodes) = setup(0, 3);
    for (index, due) in [(0, 10), (1, 10), (2, 11)] {
        wheel.file(&mut nodes, index, due);
    }
    // The budget is used up before the pass for tick 10 has ended, so tick 11 is not begun, and not
    // counted as seen.
    for now in [10, 11] {
        assert_eq!(wheel.pop_due(&mut nodes, now, &mut 0), None);
    }
    expect(&mut wheel, &mut nodes, 4, &[0, 1]);
    assert_eq!(wheel.next_due(), Some(11));
    expect(&mut wheel, &mut nodes, 11, &[2]);
}

#[test]
fn a_pass_that_is_overtaken_by_the_clock_goes_on_to_the_new_tick() {
    let (mut wheel, mut nodes) = setup(0, 3);
    for (index, due) in [(0, 10), (1, 10), (2, 20)] {
        wheel.file(&mut nodes, index, due);
    }
    let mut budget = 1;
    assert!(wheel.pop_due(&mut nodes, 10, &mut budget).is_some());
    assert_eq!(wheel.pop_due(&mut nodes, 10, &mut budget), None);
    assert_eq!(wheel.next_due(), Some(10));
    expect(&mut wheel, &mut nodes, 25, &[0, 2]);
}

proptest! {
    #[test]
    fn the_bitmap_finds_what_a_search_finds(bits in vec(0..SLOTS, 0..12), cleared in 0..12usize, from in 0..SLOTS) {
        let mut bitmap = Bitmap::new();
        let mut set: BTreeSet<usize> = bits.iter().copied().collect();
        bits.iter().for_each(|&slot| bitmap.set(slot));
        for slot in bits.iter().take(cleared) {
            bitmap.clear(*slot);
            set.remove(slot);
        }
        for from in bits.iter().flat_map(|&slot| [slot, (slot + 1) % SLOTS]).chain([from, 0, SLOTS - 1]) {
            prop_assert_eq!(bitmap.first_from(from), set.range(from..).chain(&set).next().copied());
        }
    }

    #[test]
    fn arbitrary_sequences_agree_with_a_map(start in 0..STARTS.len(), steps in vec(step(), 1..80)) {
        let mut model = Model::new(STARTS[start]);
        for step in steps {
            model.apply(step);
            model.check_next_due();
        }
        // Everything left is returned at the last tick: the present pass, one up to the last tick,
        // and one for its overdue nodes.
        for _ in 0..2 {
            model.pass(u64::MAX, LOOKS_MOST, &[]);
            check(&model.wheel, &model.nodes);
        }
        prop_assert!(model.dues.is_empty() && model.wheel.is_empty());
    }
}

const COUNT: u32 = 24;

#[derive(Debug, Clone, Copy)]
enum Act {
    File(u32, i64),
    FileAt(u32, u64),
    FileFired(i64),
    Cancel(u32),
}

#[derive(Debug, Clone)]
enum Step {
    Act(Act),
    /// Advances the clock by this many ticks, then pops with a budget; one act follows each node
    /// that is returned.
    Pass(i64, u32, Vec<Act>),
}

fn ticks() -> impl Strategy<Value = i64> {
    let rotation = ROTATION as i64;
    let rotations = (0..4i64, -2..3i64).prop_map(move |(turns, ticks)| turns * rotation + ticks);
    prop_oneof![3 => -3..6i64, 2 => 0..300i64, 2 => rotations, 1 => 0..6 * rotation]
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => (0..COUNT, ticks()).prop_map(|(index, ticks)| Act::File(index, ticks)),
        1 => (0..COUNT, 0..4u64).prop_map(|(index, ticks)| Act::FileAt(index, u64::MAX - ticks)),
        3 => ticks().prop_map(Act::FileFired),
        3 => (0..COUNT).prop_map(Act::Cancel),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let budget = prop_oneof![0..4u32, Just(1000)];
    prop_oneof![
        3 => act().prop_map(Step::Act),
        2 => (ticks(), budget, vec(act(), 0..6)).prop_map(|(ticks, budget, acts)| Step::Pass(ticks, budget, acts)),
    ]
}

struct Model {
    wheel: Wheel,
    nodes: Vec<Node>,
    dues: BTreeMap<u32, u64>,
    /// The latest tick, as the wheel does not go back.
    clock: u64,
    fired: u32,
    in_pass: bool,
    /// Filed during a pass: these may wait for the next.
    filed_in_pass: BTreeSet<u32>,
}

impl Model {
    fn new(clock: u64) -> Self {
        let (wheel, nodes) = setup(clock, COUNT);
        let (dues, filed_in_pass) = (BTreeMap::new(), BTreeSet::new());
        Self { wheel, nodes, dues, clock, fired: 0, in_pass: false, filed_in_pass }
    }

    fn apply(&mut self, step: Step) {
        match step {
            Step::Act(act) => self.act(act),
            Step::Pass(ticks, budget, acts) => self.pass(self.clock.saturating_add_signed(ticks), budget, &acts),
        }
        check(&self.wheel, &self.nodes);
    }

    fn act(&mut self, act: Act) {
        let (index, due) = match act {
            Act::File(index, ticks) => (index, self.clock.saturating_add_signed(ticks)),
            Act::FileAt(index, due) => (index, due),
            Act::FileFired(ticks) => (self.fired, self.clock.saturating_add_signed(ticks)),
            Act::Cancel(index) => {
                self.dues.remove(&index);
                return self.wheel.cancel(&mut self.nodes, index);
            }
        };
        self.wheel.file(&mut self.nodes, index, due);
        assert_eq!(self.nodes[index as usize].due(), Some(due));
        self.dues.insert(index, due);
        if self.in_pass {
            self.filed_in_pass.insert(index);
        }
    }

    fn pass(&mut self, now: u64, mut budget: u32, acts: &[Act]) {
        self.clock = self.clock.max(now);
        let mut acts = acts.iter();
        let quiet = acts.len() == 0 && self.filed_in_pass.is_empty();
        // A node is examined in its slot, and again if that slot is ahead or if the pass before was
        // not finished.
        let looks_most = 4 * (self.dues.len() + acts.len()) as u32;
        let budget_before = budget;
        loop {
            let fired = self.wheel.pop_due(&mut self.nodes, now, &mut budget);
            self.in_pass = true;
            let Some(index) = fired else { break };
            let due = self.dues.remove(&index);
            assert!(due.is_some_and(|due| due <= self.clock), "{index} fired, due {due:?}, at {}", self.clock);
            self.fired = index;
            if let Some(&act) = acts.next() {
                self.act(act);
            }
        }
        assert!(budget_before - budget <= looks_most);
        if budget > 0 {
            self.in_pass = false;
            // A clock that went back during a pass may hide a tick from the wheel that the model
            // has seen.
            for (index, &due) in &self.dues {
                assert!(due > now || self.filed_in_pass.contains(index), "{index} is lost");
            }
            self.filed_in_pass.clear();
            assert!(!quiet || self.wheel.next_due().is_none_or(|tick| tick > now));
        }
    }

    /// Never after the earliest due tick, unless that has come anyway.
    fn check_next_due(&mut self) {
        let earliest = self.dues.values().min().map(|&due| due.max(self.clock));
        let next_due = self.wheel.next_due();
        assert_eq!((next_due.is_some(), self.wheel.len()), (earliest.is_some(), self.dues.len()));
        assert!(next_due <= earliest, "{next_due:?} is after {earliest:?}");
    }
}
