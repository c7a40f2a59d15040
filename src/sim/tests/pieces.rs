//! The parts that don't depend on the network: the random numbers and the arena.

use crate::sim::Rng;
use crate::sim::arena::Arena;

#[test]
fn the_dice_are_splitmix64_as_its_author_published_it() {
    let mut rng = Rng::new(1_234_567);
    let published = [
        6_457_827_717_110_365_317,
        3_203_168_211_198_807_973,
        9_817_491_932_198_370_423,
        4_593_380_528_125_082_431,
        16_408_922_859_458_223_821_u64,
    ];
    assert_eq!([(); 5].map(|()| rng.next_u64()), published);
}

#[test]
fn a_number_below_a_bound_is_below_it_and_every_one_of_them_comes() {
    let mut rng = Rng::new(3);
    let mut counts = [0; 6];
    (0..6_000).for_each(|_| counts[rng.below(6) as usize] += 1);
    assert!(counts.iter().all(|count| (800..1_200).contains(count)), "{counts:?}");
    assert_eq!((rng.below(0), rng.below(1)), (0, 0));
    assert!(rng.below(u64::MAX) > 1 << 32, "the whole width is used");
}

#[test]
fn a_chance_comes_true_as_often_as_its_probability_says() {
    let mut rng = Rng::new(4);
    for (probability, range) in [(0.25, 2_300..2_700), (0.9, 8_800..9_200), (1.0, 10_000..10_001), (1e-9, 0..2)] {
        let count = (0..10_000).filter(|_| rng.chance(probability)).count();
        assert!(range.contains(&count), "{probability}: {count}");
    }
    let before = rng.clone();
    assert!(!rng.chance(0.0) && !rng.chance(-1.0));
    assert_eq!(rng, before, "for never nothing is drawn");
    // The limit itself: a draw that equals the probability is not below it.
    let draw = (before.clone().next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
    assert!(!rng.chance(draw));
    assert!(before.clone().chance(draw + f64::EPSILON));
}

#[test]
fn an_arena_finds_a_thing_by_its_own_id_alone_and_uses_places_again() {
    let mut arena = Arena::new();
    let ids: Vec<_> = (10..14).map(|thing| arena.insert(thing)).collect();
    *arena.get_mut(ids[1]).expect("it is there") += 100;
    assert_eq!((arena.get(ids[1]), arena.get(ids[2]), arena.len()), (Some(&111), Some(&12), 4));
    assert_eq!((arena.remove(ids[2]), arena.remove(ids[2]), arena.len()), (Some(12), None, 3));
    assert_eq!((arena.get(ids[2]).copied(), arena.get_mut(ids[2]).copied()), (None, None));
    let again = arena.insert(99);
    assert!(!ids.contains(&again), "a place is used again under another name");
    assert_eq!((arena.get(ids[2]).copied(), arena.get_mut(ids[2]).copied()), (None, None));
    assert_eq!((arena.remove(ids[2]), arena.get(again), arena.len()), (None, Some(&99), 4));
    arena.remove(ids[0]);
    let all: Vec<_> = arena.iter().map(|(id, thing)| (id, *thing)).collect();
    assert_eq!(all, [(ids[1], 111), (again, 99), (ids[3], 13)]);
}
