//! Which inputs are kept for people: a fair draw and what was doubtful, within a room; and that a command gives them.

use super::bench::*;
use agent_core::Samples;
use protocol::Chosen;
use std::collections::BTreeMap;

/// Keeps items of these lots and sizes, by their places.
fn drawn(room: usize, items: &[(u64, usize)]) -> Samples<usize> {
    let mut samples = Samples::new(2 * room);
    for (at, (lot, size)) in items.iter().enumerate() {
        let wanted = samples.wants(*lot, None);
        if wanted.is_wanted() {
            samples.put(wanted, *size, at);
        }
    }
    samples
}

fn places(samples: &Samples<usize>, chosen: Chosen) -> Vec<usize> {
    let all = samples.pick(usize::MAX, usize::MAX);
    all.into_iter().filter(|(why, _)| *why == chosen).map(|(_, at)| *at).collect()
}

#[test]
fn what_is_drawn_is_the_longest_row_of_the_lowest_lots_that_fits() {
    let mut dice = fastrand::Rng::with_seed(7);
    for room in [100, 999, 5_000] {
        let items: Vec<(u64, usize)> = (0..2_000).map(|_| (dice.u64(..), dice.usize(1..=room / 4))).collect();
        // Whatever order they come in, with the sizes that they have: so the lots alone decide.
        let mut sorted: Vec<usize> = (0..items.len()).collect();
        sorted.sort_by_key(|at| items[*at].0);
        let mut left = room;
        let fits = |at: &&usize| {
            let fits = items[**at].1 <= left;
            left = left.saturating_sub(items[**at].1);
            fits
        };
        let mut expected: Vec<usize> = sorted.iter().take_while(fits).copied().collect();
        expected.sort_unstable();
        assert_eq!(places(&drawn(room, &items), Chosen::Drawn), expected, "{room}");
    }
}

#[test]
fn every_input_is_as_likely_as_every_other() {
    let mut dice = fastrand::Rng::with_seed(1);
    let mut counts: BTreeMap<usize, u32> = BTreeMap::new();
    for _ in 0..4_000 {
        let items: Vec<(u64, usize)> = (0..50).map(|_| (dice.u64(..), 10)).collect();
        for at in places(&drawn(100, &items), Chosen::Drawn) {
            *counts.entry(at).or_default() += 1;
        }
    }
    // 10 of 50, 4,000 times: 800 of each, with a deviation of 25.
    assert_eq!(counts.len(), 50);
    assert!(counts.values().all(|count| (670..=930).contains(count)), "{counts:?}");
}

#[test]
fn the_least_sure_are_kept_and_an_input_is_given_once() {
    let mut samples = Samples::new(200);
    for at in 0..1_000_usize {
        // No lot is as low as the first ones; the model is least sure of 500.
        let confidence = 0.5 + (at as f32 - 500.0).abs() / 1_000.0;
        let wanted = samples.wants(at as u64, Some(confidence));
        if wanted.is_wanted() {
            samples.put(wanted, 10, at);
        }
    }
    assert_eq!(places(&samples, Chosen::Drawn), (0..10).collect::<Vec<_>>());
    assert_eq!(places(&samples, Chosen::Doubtful), (495..=504).collect::<Vec<_>>());
    assert_eq!(samples.kept(), (20, 200));
    let names = |count, bytes| samples.pick(count, bytes).into_iter().map(|(_, at)| *at).collect::<Vec<_>>();
    assert_eq!(names(3, 1_000), [0, 1, 500], "half by lot");
    assert_eq!(names(100, 45), [0, 1, 499, 500], "as many as fit");
    assert_eq!(names(100, 9), [] as [usize; 0]);
    assert_eq!((names(19, 1_000).len(), names(30, 1_000).len()), (19, 20));
}

#[test]
fn what_is_given_as_drawn_is_what_was_in_front_of_the_draw() {
    // On both shelves: it is given once, and counts as drawn when its lot would have brought it.
    let mut both = Samples::new(400);
    for (at, lot, confidence, size) in [(0, 5, 0.9, 10), (1, 3, 0.1, 10), (2, 4, 0.5, 40), (3, 9, 0.2, 10)] {
        both.put(both.wants(lot, Some(confidence)), size, at);
    }
    assert_eq!(both.kept(), (4, 140));
    use Chosen::{Doubtful, Drawn};
    assert_eq!(both.pick(4, 1_000), [(Doubtful, &0), (Drawn, &1), (Drawn, &2), (Doubtful, &3)]);
    assert_eq!(both.pick(9, 1_000), [(Drawn, &0), (Drawn, &1), (Drawn, &2), (Drawn, &3)]);
    assert_eq!(both.pick(2, 1_000), [(Drawn, &1), (Doubtful, &3)]);
    // The second lot does not fit into half of the room, nor into the rest: none behind it takes its place.
    assert_eq!(both.pick(4, 30), [(Drawn, &1), (Doubtful, &3)]);
}

#[test]
fn what_is_too_large_or_has_no_room_is_not_kept() {
    let mut samples = Samples::new(800);
    samples.put(samples.wants(1, Some(f32::NAN)), samples.largest() + 1, 1);
    assert_eq!(samples.kept(), (0, 0));
    samples.put(samples.wants(1, None), samples.largest(), 2);
    assert_eq!((samples.kept(), samples.largest()), ((1, 100), 100));
    assert!(!Samples::<usize>::new(0).wants(0, Some(0.0)).is_wanted());
}

#[test]
fn a_command_gives_what_is_kept() {
    let asked = |seq: u32, count: u32, bytes: u32| {
        format!(
            r#"command {seq} {{"what": "samples", "stream": "digits", "request": 3, "count": {count}, "bytes": {bytes}, "by": "anna", "approved": "bert"}}"#
        )
    };
    then(
        RUNNING_1,
        &[
            (&asked(1, 20, 65_536), "give digits 3 20 65536 anna bert"),
            (&asked(2, 0, 65_536), "result 2 refused E_REQUEST"),
            (&asked(3, 201, 65_536), "result 3 refused E_REQUEST"),
            (&asked(4, 20, 131_073), "result 4 refused E_REQUEST"),
        ],
    );
}
