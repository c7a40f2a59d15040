//! One step of the lifecycle; the table of connections; its ready queue.

use std::hint::black_box;
use std::time::Instant;

use criterion::Criterion;

use crate::id::SocketId;
use crate::lifecycle::{self, Cell, Input, State, compact};
use crate::options::Settings;
use crate::support::{CpuTime, Order, million};
use crate::table::Table;
use crate::table::entry::Flags;
use crate::table::shared::Shared;
use crate::ticks::Epoch;

pub(crate) fn measure(criterion: &mut Criterion<CpuTime>) {
    step(criterion);
    table(criterion);
    find(criterion);
    ready_queue(criterion);
}

/// Every pair of state and input, mixed; and the same for a socket, without the impossible pairs.
fn step(criterion: &mut Criterion<CpuTime>) {
    let all: Vec<(State, Input)> =
        State::ALL.iter().flat_map(|&state| Input::ALL.iter().map(move |&input| (state, input))).collect();
    let mixed: Vec<(State, Input)> = Order::Random.places(all.len()).iter().map(|&place| all[place as usize]).collect();
    let mut group = criterion.benchmark_group("lifecycle");
    let mut pairs = mixed.iter().cycle();
    group.bench_function("step, all pairs mixed", |bencher| {
        bencher.iter(|| pairs.next().map(|&(state, input)| compact(state, input).emits));
    });
    let possible: Vec<(State, Input)> =
        mixed.iter().copied().filter(|&(state, input)| lifecycle::step(state, input) != Cell::Impossible).collect();
    let mut pairs = possible.iter().cycle();
    let (mut table, slots) = full(1);
    group.bench_function("apply to a socket, all possible pairs mixed", |bencher| {
        bencher.iter(|| {
            let Some(&(state, input)) = pairs.next() else { return };
            let entry = table.entry_mut(slots[0]);
            entry.state = state;
            black_box(entry.apply(input).emits);
        });
    });
    group.finish();
}

/// A table with this many open connections, and their slots.
fn full(count: usize) -> (Table, Vec<u32>) {
    let mut table = Table::new(1, Epoch(Instant::now()), Shared::new(Box::new(|| {})));
    let slots = (0..count)
        .map(|_| {
            let settings = table.settings.intern(Settings::default());
            let slot = table.insert(settings, None, Flags::NONE);
            table.entry_mut(slot).apply(Input::Accepted);
            slot
        })
        .collect();
    (table, slots)
}

/// A connection is inserted and removed, in a table that holds others.
fn table(criterion: &mut Criterion<CpuTime>) {
    let mut group = criterion.benchmark_group("table");
    let (mut table, slots) = full(million());
    let settings = table.entry(slots[0]).settings;
    group.bench_function("insert + remove, 1 M beside it", |bencher| {
        bencher.iter(|| {
            table.settings.hold(settings);
            let slot = table.insert(settings, None, Flags::NONE);
            table.remove(black_box(slot));
        });
    });
    group.finish();
}

/// A socket is found by its id, or its id is stale.
fn find(criterion: &mut Criterion<CpuTime>) {
    let mut group = criterion.benchmark_group("find by id, 1 M sockets");
    let (table, _) = full(million());
    for order in Order::ALL {
        let mut places = order.places(million());
        if order == Order::Hot {
            places.truncate(1000);
        }
        let mut ids = places.iter().map(|&slot| table.id(slot)).cycle();
        let ids: Vec<SocketId> = ids.by_ref().take(places.len()).collect();
        let stale: Vec<SocketId> =
            ids.iter().map(|id| SocketId::new(id.reactor(), id.index(), id.generation() + 1)).collect();
        for (what, ids) in [("hit", ids), ("stale", stale)] {
            let mut ids = ids.iter().cycle();
            group.bench_function(format!("{what}/{}", order.name()), |bencher| {
                bencher.iter(|| ids.next().and_then(|&id| table.find(id)));
            });
        }
    }
    group.finish();
}

/// A socket becomes ready and has its turn, after this many others.
fn ready_queue(criterion: &mut Criterion<CpuTime>) {
    let mut group = criterion.benchmark_group("ready queue, push + pop");
    for (others, name) in [(1, "1"), (1000, "1 k"), (million(), "1 M")] {
        for order in [Order::Memory, Order::Random] {
            let (mut table, _) = full(others);
            order.places(others).iter().for_each(|&slot| table.wake(slot));
            group.bench_function(format!("{name} queued/{}", order.name()), |bencher| {
                bencher.iter(|| {
                    if let Some(slot) = table.pop_ready() {
                        table.wake(slot);
                    }
                });
            });
        }
    }
    group.finish();
}
