//! The timer wheel with a million live timers, each in an entry of 64 bytes as the table has them.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkGroup, Criterion};

use crate::support::{CpuTime, Order, cpu_time, million};
use crate::wheel::{Node, Nodes, SLOTS, Wheel};

/// A rotation of the wheel, in ticks.
const ROTATION: u64 = SLOTS as u64;

/// The budget of a turn, as the reactor's.
const BUDGET: u32 = 1024;

/// As large as a connection's entry.
#[derive(Default)]
#[repr(align(64))]
struct Line {
    node: Node,
}

const _: () = assert!(size_of::<Line>() == 64, "as large as the table's");

struct Lines(Vec<Line>);

impl Nodes for Lines {
    #[inline]
    fn node(&mut self, index: u32) -> &mut Node {
        &mut self.0[index as usize].node
    }
}

/// When the timers are due.
#[derive(Clone, Copy)]
enum Spread {
    /// Evenly over four rotations.
    Uniform,
    /// All at one tick.
    OneSlot,
    /// Evenly over one rotation, a hundred rotations away.
    Far,
}

impl Spread {
    const ALL: [Self; 3] = [Self::Uniform, Self::OneSlot, Self::Far];

    const fn name(self) -> &'static str {
        match self {
            Self::Uniform => "uniform",
            Self::OneSlot => "one slot",
            Self::Far => "far",
        }
    }

    /// The due tick of the timer that is the `nth` of this many, if the present tick is 0: never
    /// before that of the previous timer.
    fn due(self, nth: usize, count: usize) -> u64 {
        let share = |ticks: u64| ticks * nth as u64 / count as u64;
        match self {
            Self::Uniform => 1 + share(4 * ROTATION),
            Self::OneSlot => 5000,
            Self::Far => 100 * ROTATION + share(ROTATION),
        }
    }
}

/// A full wheel, and what to do next.
struct Full {
    wheel: Wheel,
    lines: Lines,
    /// The slot of each timer and the tick it is due at, in the order of these ticks.
    filed: Vec<(u32, u64)>,
    /// The same, in the order in which they are touched or scheduled again: the first `busy` of
    /// them, over and over.
    touched: Vec<(u32, u64)>,
    busy: usize,
    at: usize,
    now: u64,
    live: usize,
}

impl Full {
    /// In memory order a timer is next to those that are due about the same time, as with
    /// connections accepted in a row. In random order each is alone, and the access order is
    /// neither of the two; hot, only the first of them are accessed.
    fn new(spread: Spread, order: Order) -> Self {
        let count = million();
        let places = order.places(count);
        let filed: Vec<(u32, u64)> =
            places.iter().enumerate().map(|(nth, &place)| (place, spread.due(nth, count))).collect();
        let mut touched = filed.clone();
        if order != Order::Memory {
            touched = order.places(count).iter().map(|&nth| filed[nth as usize]).collect();
        }
        let lines = Lines((0..count).map(|_| Line::default()).collect());
        let busy = if order == Order::Hot { count.min(1000) } else { count };
        let mut full = Self { wheel: Wheel::new(0), lines, filed, touched, busy, at: 0, now: 0, live: 0 };
        full.fill();
        full
    }

    /// Files every timer, and returns to the first tick.
    fn fill(&mut self) {
        (self.wheel, self.now, self.at) = (Wheel::new(0), 0, 0);
        self.lines.0.iter_mut().for_each(|line| line.node = Node::new());
        for &(place, due) in &self.filed {
            self.wheel.file(&mut self.lines, place, due);
        }
        self.live = self.filed.len();
    }

    #[inline]
    fn next(&mut self) -> (u32, u64) {
        let timer = self.touched[self.at];
        self.at = if self.at + 1 == self.busy { 0 } else { self.at + 1 };
        timer
    }

    /// Advances until a timer fires or `looks` nodes were examined in vain, a turn's budget at a
    /// time.
    #[inline]
    fn fire(&mut self, budget: &mut u32) -> Option<u32> {
        let fired = self.wheel.pop_due(&mut self.lines, self.now, budget);
        if fired.is_none() && *budget > 0 {
            self.now += 1;
        }
        fired
    }
}

type Group<'a> = BenchmarkGroup<'a, CpuTime>;

pub(crate) fn measure(criterion: &mut Criterion<CpuTime>) {
    let mut group = criterion.benchmark_group("timers, 1 M live");
    for order in Order::ALL {
        for spread in Spread::ALL {
            let name = |what: &str| format!("{what}/{}/{}", spread.name(), order.name());
            touch(&mut group, &name("touch"), spread, order);
            cancel_and_schedule(&mut group, &name("cancel + schedule"), spread, order);
            if order != Order::Hot {
                fire(&mut group, &name("fire"), spread, order);
            }
        }
        if order != Order::Hot {
            look(&mut group, &format!("look and file again/far/{}", order.name()), order);
        }
    }
    for spread in Spread::ALL {
        next_due(&mut group, &format!("next deadline/{}", spread.name()), spread);
    }
    group.finish();
}

/// Activity moves a deadline to a later tick.
fn touch(group: &mut Group<'_>, name: &str, spread: Spread, order: Order) {
    let mut full = None;
    group.bench_function(name, |bencher| {
        let full = full.get_or_insert_with(|| Full::new(spread, order));
        let mut later = 1000 * ROTATION;
        bencher.iter(|| {
            let (place, _) = full.next();
            later += 1;
            full.wheel.file(&mut full.lines, place, later);
        });
    });
}

/// A connection is removed and another inserted: the same slot, half of the spread later.
fn cancel_and_schedule(group: &mut Group<'_>, name: &str, spread: Spread, order: Order) {
    let mut full = None;
    group.bench_function(name, |bencher| {
        let full = full.get_or_insert_with(|| {
            let mut full = Full::new(spread, order);
            let half = full.touched.len() / 2;
            let dues: Vec<u64> = full.touched.iter().map(|&(_, due)| due).cycle().skip(half).take(2 * half).collect();
            full.touched.iter_mut().zip(dues).for_each(|(timer, due)| timer.1 = due);
            full
        });
        bencher.iter(|| {
            let (place, due) = full.next();
            full.wheel.cancel(&mut full.lines, place);
            full.wheel.file(&mut full.lines, place, due);
        });
    });
}

/// A timer fires. Uniform: tick by tick, including the examined timers of later rotations; far: the
/// clock has jumped.
fn fire(group: &mut Group<'_>, name: &str, spread: Spread, order: Order) {
    let mut full = None;
    group.bench_function(name, |bencher| {
        let full = full.get_or_insert_with(|| Full::new(spread, order));
        bencher.iter_custom(|wanted| {
            let (mut fired, mut spent) = (0, Duration::ZERO);
            while fired < wanted {
                if full.live == 0 {
                    full.fill();
                }
                if full.now == 0 && !matches!(spread, Spread::Uniform) {
                    full.now = 200 * ROTATION;
                }
                let batch = (full.live as u64).min(wanted - fired);
                let began = cpu_time();
                let mut left = batch;
                while left > 0 {
                    let mut budget = BUDGET;
                    while left > 0 && full.fire(&mut budget).map(black_box).is_some() {
                        left -= 1;
                    }
                }
                spent += cpu_time() - began;
                full.live -= batch as usize;
                fired += batch;
            }
            spent
        });
    });
}

/// The slot of a timer comes up that is due in a later rotation: it is examined and filed again,
/// and none fires.
fn look(group: &mut Group<'_>, name: &str, order: Order) {
    let mut full = None;
    group.bench_function(name, |bencher| {
        let full = full.get_or_insert_with(|| Full::new(Spread::Far, order));
        bencher.iter_custom(|wanted| {
            if full.now + 60 * ROTATION > 100 * ROTATION {
                full.fill();
            }
            let began = cpu_time();
            let mut looks = 0;
            while looks < wanted {
                let mut budget = BUDGET;
                assert_eq!(full.fire(&mut budget), None, "none is due");
                looks += u64::from(BUDGET - budget);
            }
            // The last tick may examine more than was wanted.
            (cpu_time() - began).mul_f64(wanted as f64 / looks as f64)
        });
    });
}

/// When the next pass is due.
fn next_due(group: &mut Group<'_>, name: &str, spread: Spread) {
    let mut full = None;
    group.bench_function(name, |bencher| {
        let full = full.get_or_insert_with(|| Full::new(spread, Order::Memory));
        bencher.iter(|| black_box(&mut full.wheel).next_due());
    });
}
