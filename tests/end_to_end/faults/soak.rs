//! A device that loses its power again and again while it answers and while releases come and go.
//!
//! Decides what must hold after each loss: it answers by itself and rightly, and goes on with whatever it was at.

use super::flows::ledger;
use crate::answers::npy;
use crate::fleet::Fleet;
use crate::programs::wait_for;
use serde_json::Value;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{park_timeout, scope};
use std::time::Duration;

/// Losses of power, where nobody asks for more.
const KILLS: u64 = 15;
const RELEASES: [&str; 2] = ["1.0.0", "2.0.0"];
/// An agent starts and answers in less.
const LONGEST_LIFE: u64 = 400;

/// `PETREL_KILLS` says how often, `PETREL_SEED` when.
#[test]
fn a_device_that_loses_its_power_under_load_needs_no_repair() {
    let asked = |name: &str, usual| std::env::var(name).map_or(usual, |n| n.parse().expect("a number"));
    let (kills, mut dice) = (asked("PETREL_KILLS", KILLS), fastrand::Rng::with_seed(asked("PETREL_SEED", 7)));
    let mut fleet = Fleet::start();
    fleet.enlist("edge-1");
    for version in RELEASES {
        fleet.desk.bundle("digits", version, version);
        fleet.desk.json(&format!("petrel push {version}"));
    }
    let mut began = 0;
    let mut next = roll_out(&fleet, &mut began);
    let asked = Asked { rows: npy(&fleet.desk.path("models/digits/heldout_x.npy")), ..Asked::default() };
    let expected = npy(&fleet.desk.path("models/digits/heldout_class.npy"));
    for _ in 0..kills {
        fleet.start_agent("edge-1");
        if ended(&fleet, &next).is_some() {
            next = roll_out(&fleet, &mut began);
        }
        let life = Duration::from_millis(dice.u64(..LONGEST_LIFE));
        let over = AtomicBool::new(false);
        scope(|scope| {
            let asking = scope.spawn(|| asked.ask_until(&over, &fleet, &expected));
            park_timeout(life);
            over.store(true, Ordering::Relaxed);
            asking.join().unwrap();
        });
        fleet.agents.get_mut("edge-1").unwrap().kill();
        assert!(ledger(&fleet.desk.path("edge-1")).is_some(), "a slot of the ledger is whole");
    }
    // In peace it ends what it was at, and the next release too.
    fleet.start_agent("edge-1");
    let over = AtomicBool::new(true);
    let at_its_end = |rollout: &Value| {
        wait_for("the end of the rollout", || {
            // A trial ends by answers.
            asked.ask_until(&over, &fleet, &expected);
            ended(&fleet, rollout)
        })
    };
    at_its_end(&next);
    let last = roll_out(&fleet, &mut began);
    assert_eq!(at_its_end(&last), "completed");
    println!("{kills} losses of power, {began} rollouts, {} right answers, no repair", asked.right.into_inner());
}

/// How it ended, when it has.
fn ended(fleet: &Fleet, rollout: &Value) -> Option<String> {
    let rollout = fleet.ask(&format!("/rollouts/{rollout}")).1;
    rollout["ended"].as_u64().map(|_| rollout["state"].as_str().unwrap().to_owned())
}

/// One after the other; but a device that went back has the release that is next.
fn roll_out(fleet: &Fleet, began: &mut usize) -> Value {
    let start =
        |version: &str| fleet.desk.run(&format!("petrel rollout start digits@{version} --trial-answers 5 --json"));
    let mut said = start(RELEASES[*began % 2]);
    if said.code != Some(0) {
        assert!(said.out.is_empty() && said.err.contains("lacks this release"), "{said:?}");
        *began += 1;
        said = start(RELEASES[*began % 2]);
    }
    *began += 1;
    let rollout: Value = serde_json::from_str(&said.out).unwrap_or_else(|_| panic!("{said:?}"));
    rollout["id"].clone()
}

#[derive(Default)]
struct Asked {
    rows: Vec<f64>,
    right: AtomicUsize,
}

impl Asked {
    /// Asks until it is over, and at least once until there is an answer when there is time; what is answered is right.
    fn ask_until(&self, over: &AtomicBool, fleet: &Fleet, expected: &[f64]) {
        let mut row = 0;
        loop {
            let (status, answer) = fleet.try_classes("edge-1", &self.rows[row * 64..(row + 1) * 64]);
            if status == 200 {
                assert_eq!(answer["outputs"][0]["data"][0].as_f64(), Some(expected[row]), "{answer}");
                self.right.fetch_add(1, Ordering::Relaxed);
                row = (row + 1) % 30;
            }
            if over.load(Ordering::Relaxed) {
                return;
            }
        }
    }
}
