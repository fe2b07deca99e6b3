//! Many worlds, each from its seed: the real cores must keep every rule in all of them.
//!
//! `PETREL_SEEDS=N` lives N worlds; `PETREL_SEED=N` replays one and prints its story.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;
use world::{Outcome, Violation, deliver, run, run_traced};

/// The worlds of an ordinary run.
const SEEDS: u64 = 800;
/// The lines of a story that are shown when a rule is broken.
const LAST: usize = 60;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a whole number")))
}

/// The outcome of a seed; a panic in a core breaks a rule too.
fn lived(seed: u64) -> Outcome {
    catch_unwind(AssertUnwindSafe(|| run(seed))).unwrap_or_else(|_| Outcome {
        seed,
        steps: 0,
        crashes: 0,
        rollouts: (0, 0),
        elapsed_ms: 0,
        violation: Some(Violation { rule: "no core panics", detail: "see the message above".into() }),
    })
}

fn explain(seed: u64, violation: &Violation, story: &[String]) -> ! {
    let last = story[story.len().saturating_sub(LAST)..].join("\n");
    panic!(
        "seed {seed} breaks a rule: {}\n{}\n\nthe last events:\n{last}\n\nreplay it with:\n  \
         PETREL_SEED={seed} cargo test -p world --test simulation -- --nocapture\n",
        violation.rule, violation.detail
    );
}

#[test]
fn every_world_keeps_the_rules() {
    if let Some(seed) = number("PETREL_SEED") {
        let (outcome, story) = run_traced(seed);
        println!("{}", story.join("\n"));
        println!("{outcome:#?}");
        if let Some(violation) = &outcome.violation {
            explain(seed, violation, &story);
        }
        return;
    }
    let seeds = number("PETREL_SEEDS").unwrap_or(SEEDS);
    let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let outcomes = Mutex::new(Vec::new());
    let began = Instant::now();
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds {
                        break;
                    }
                    let outcome = lived(seed);
                    stop.fetch_or(outcome.violation.is_some(), Ordering::Relaxed);
                    outcomes.lock().expect("no test panics with it").push(outcome);
                }
            });
        }
    });
    let outcomes = outcomes.into_inner().expect("all threads ended well");
    let broken = outcomes.iter().filter(|o| o.violation.is_some()).min_by_key(|o| o.seed);
    if let Some(Outcome { seed, violation: Some(violation), .. }) = broken {
        let story = catch_unwind(|| run_traced(*seed).1).unwrap_or_default();
        explain(*seed, violation, &story);
    }
    let steps: u64 = outcomes.iter().map(|o| o.steps).sum();
    let crashes: u64 = outcomes.iter().map(|o| o.crashes).sum();
    let completed: usize = outcomes.iter().map(|o| o.rollouts.0).sum();
    let stopped: usize = outcomes.iter().map(|o| o.rollouts.1).sum();
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "{seeds} worlds in {seconds:.1} s: {steps} steps ({:.0} a second), {crashes} crashes, \
         {completed} rollouts completed and {stopped} stopped",
        steps as f64 / seconds
    );
    // A world in which nothing is tried would keep every rule.
    assert!(completed > 0 && stopped > 0 && crashes > 0, "the worlds were too quiet to prove anything");
}

#[test]
fn a_seed_is_one_story() {
    let (first, second) = (run_traced(3), run_traced(3));
    assert_eq!(first.0, second.0);
    assert!(first.1 == second.1, "the same seed told two stories");
}

/// The same with ten thousand devices is `simulate --fleet 10000`.
#[test]
fn a_bundle_reaches_a_fleet_over_links_that_break_and_land_publishes_it_about_once() {
    let delivered = deliver(1, 300, 100);
    assert_eq!(delivered.outcome.violation, None);
    assert_eq!(delivered.confirmed, delivered.devices);
    let over = delivered.published as f64 / delivered.bundle as f64;
    assert!((1.0..1.3).contains(&over), "{over} of the bundle");
}

#[test]
fn a_release_that_only_the_fleet_sees_failing_is_stopped_at_the_canary_among_real_cores() {
    for (seed, bad) in [(1, true), (2, true), (3, false)] {
        let (hit, stopped, outcome) = world::judge(seed, 500, bad);
        assert_eq!(outcome.violation, None, "seed {seed}");
        let expected = if bad { (30, true) } else { (500, false) };
        assert_eq!((hit, stopped), expected, "seed {seed}");
        println!("{} steps, {hit} of 500 devices hit, stopped: {stopped}", outcome.steps);
    }
}
