//! A device loses its power again and again, while it fetches, verifies and tries a release.
//!
//! Decides what must have held at each loss and at the end. The moments are drawn from a fixed seed; the exact
//! interleavings differ from run to run, and the simulation replays those that matter.

use crate::answers::{npy, npy_bytes};
use crate::fleet::Fleet;
use crate::programs::{Desk, wait_for};
use serde_json::{Value, json};
use std::thread::park_timeout;
use std::time::{Duration, Instant};

const KILLS: usize = 12;
/// A release that was on trial at more than three starts goes back; the last start is the one that it needs.
const MOST_TRIAL_BOOTS: u64 = 2;
/// The golden rows are many, so that there is something to fetch and to probe.
const COPIES: usize = 10;

#[test]
fn a_release_survives_every_loss_of_power_and_is_confirmed_once() {
    let mut fleet = Fleet::start();
    fleet.enlist("edge-1");
    large_bundle(&fleet.desk);
    fleet.desk.json("petrel push large");
    fleet.agents.clear();
    let id = fleet.desk.json("petrel rollout start digits@1.0.0 --trial-answers 20")["id"].clone();

    let mut dice = fastrand::Rng::with_seed(7);
    let (mut fetching, mut verifying) = (0, 0);
    for kill in 0..KILLS {
        fleet.start_agent("edge-1");
        let desk = &fleet.desk;
        let arrives = || holds(desk, "incoming") || holds(desk, "bundles");
        wait_for("the first bytes of the bundle", || arrives().then_some(()));
        // Soon, to meet the fetch; or later, to meet what follows it.
        let longest = if kill % 2 == 0 && !holds(desk, "bundles") { 15 } else { 150 };
        live(Duration::from_millis(dice.u64(5..=longest)));
        fleet.agents.get_mut("edge-1").unwrap().kill();
        fetching += usize::from(holds(desk, "incoming"));
        verifying += usize::from(holds(desk, "bundles") && trial(&ledger(desk)).is_none());
        if trial(&ledger(desk)).is_some_and(|trial| trial["boots"].as_u64() >= Some(MOST_TRIAL_BOOTS)) {
            break;
        }
    }
    // How fast the machine is decides which is met; the pull's own tests cut the fetch at every chunk.
    println!("the fetch was met {fetching} times, what follows it {verifying} times");
    assert!(fetching + verifying > 0, "no loss of power came before the trial");
    if trial(&ledger(&fleet.desk)).is_none() {
        fleet.start_agent("edge-1");
        wait_for("the trial", || trial(&ledger(&fleet.desk)));
        fleet.agents.get_mut("edge-1").unwrap().kill();
    }
    fleet.start_agent("edge-1");

    let images = npy(&fleet.desk.path("models/digits/heldout_x.npy"));
    let expected = npy(&fleet.desk.path("models/digits/heldout_class.npy"));
    wait_for("a model that serves", || (fleet.local("edge-1", "/v2/models/digits/ready", None).0 == 200).then_some(()));
    for at in 0..25 {
        let answer = fleet.classes("edge-1", 1, &images[at * 64..(at + 1) * 64]);
        assert_eq!(answer["outputs"][0]["data"][0].as_f64(), Some(expected[at]), "row {at}");
    }
    let ended = fleet.rollout(&id, "the end of the rollout", |rollout| rollout["ended"].is_u64());
    assert_eq!(
        (&ended["state"], &ended["results"][0]["outcome"]),
        (&json!("completed"), &json!("confirmed")),
        "{ended}"
    );
    assert_eq!(ended["results"].as_array().unwrap().len(), 1);

    // One more start: what was confirmed stays, and is not said as news.
    fleet.start_agent("edge-1");
    fleet
        .device("edge-1", "its report", |device| device["online"] == true && device["streams"][0]["converged"] == true);
    // The loss of power may have come before land's word that it has the verdict.
    let acknowledged = || Some(ledger(&fleet.desk)).filter(|ledger| ledger["outbox"] == json!([]));
    let ledger = wait_for("its verdict to be acknowledged", acknowledged);
    let stream = &ledger["streams"]["digits"];
    assert_eq!((&stream["active"]["release"], &stream["trial"]), (&json!(1_000_000), &Value::Null));
    assert_eq!(ledger["verdicts_given"], json!(1));
    assert_eq!(fleet.rollout(&id, "the rollout", |_| true), ended);
    assert!(!holds(&fleet.desk, "incoming"), "what was fetched is cleared away");
    let said = fleet.agents["edge-1"].said();
    assert!(!said.contains("begins anew") && !said.contains("E_"), "{said}");
}

/// Digits whose golden rows are all that Python answered, many times over.
fn large_bundle(desk: &Desk) {
    for (name, target, shape) in [("heldout_x", "x.npy", vec![1, 8, 8]), ("heldout_y", "y.npy", vec![10])] {
        let values = npy(&desk.path(&format!("models/digits/{name}.npy")));
        let rows = COPIES * values.len() / shape.iter().product::<usize>();
        desk.write(target, npy_bytes(&[&[rows], &shape[..]].concat(), &values.repeat(COPIES)));
    }
    let line = crate::programs::pack("digits", "1.0.0");
    let golden = "--golden models/digits/golden_x.npy models/digits/golden_y.npy";
    assert!(line.contains(golden));
    desk.done(&format!("{} -o large", line.replace(golden, "--golden x.npy y.npy")));
    desk.done("petrel sign large --key keys/publisher.pem");
}

/// Lets time pass before a process is ended: the moment of a fault, which nothing waits for.
fn live(time: Duration) {
    let end = Instant::now() + time;
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        park_timeout(left);
    }
}

/// The newest whole slot of the device's ledger: at any moment there is one.
fn ledger(desk: &Desk) -> Value {
    let slot = |name: &str| -> Option<(u64, Value)> {
        let text = std::fs::read_to_string(desk.path("edge-1").join(name)).ok()?;
        let (header, payload) = text.split_once('\n')?;
        Some((header.split(' ').nth(2)?.parse().ok()?, serde_json::from_str(payload).ok()?))
    };
    let whole = [slot("ledger.a"), slot("ledger.b")].into_iter().flatten();
    whole.max_by_key(|(number, _)| *number).expect("no slot of the ledger is whole").1
}

fn trial(ledger: &Value) -> Option<Value> {
    Some(ledger["streams"]["digits"]["trial"].clone()).filter(|trial| !trial.is_null())
}

fn holds(desk: &Desk, folder: &str) -> bool {
    std::fs::read_dir(desk.path("edge-1").join(folder)).is_ok_and(|mut entries| entries.next().is_some())
}
