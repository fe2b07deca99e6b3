//! Steps that are saved together: in their order, with who asked, and nothing comes out before.

use super::{Bench, device, fleet};
use bridge_core::audit::Deed;
use bridge_core::{Committed, Effect, Event, Now, Record, Step};

/// Retires `a`, which is there, and then asks for a device that is not.
fn steps(bench: &mut Bench) -> Vec<Step> {
    let now = Now { unix: bench.unix };
    let asked = |name: &str| Deed::new("anna", "device.retire", name, "done");
    let mut retire = |name: &str| {
        let step = bench.bridge.step(now, Event::DeviceRetired { device: device(name) });
        step.asked_by(|answer| match answer {
            Ok(_) => asked(name),
            Err(rejection) => Deed { outcome: rejection.code().into(), ..asked(name) },
        })
    };
    vec![retire("a"), retire("z")]
}

fn commit(steps: Vec<Step>) -> (Vec<Committed>, Vec<Record>) {
    let mut saved = Vec::new();
    let committed = Step::commit_all(steps, |records| {
        saved = records.to_vec();
        Ok::<_, std::convert::Infallible>(())
    });
    (committed.unwrap(), saved)
}

#[test]
fn several_steps_are_saved_in_one_and_each_has_its_answer() {
    let mut bench = fleet(&[]);
    let steps = steps(&mut bench);
    let (committed, saved) = commit(steps);
    let [retired, unknown] = &committed[..] else { panic!("{committed:?}") };
    assert!(retired.answer.is_ok() && retired.effects.iter().any(|e| matches!(e, Effect::ClearDevice { .. })));
    assert_eq!(unknown.answer.as_ref().unwrap_err().code(), "not_found");
    assert!(unknown.effects.is_empty(), "{unknown:?}");
    let told: Vec<String> = saved
        .iter()
        .map(|record| match record {
            Record::Deed(deed) => format!("{} {} {}", deed.who, deed.subject, deed.outcome),
            Record::Device(device) => format!("{} is {}", device.id, device.status),
            _ => "more".into(),
        })
        .filter(|line| line != "more")
        .collect();
    assert_eq!(told, ["anna a done", "a is retired", "anna z not_found"]);
}

#[test]
fn what_is_not_saved_is_not_handed_out() {
    let mut bench = fleet(&[]);
    let steps = steps(&mut bench);
    assert_eq!(Step::commit_all(steps, |_| Err("the disk is full")).unwrap_err(), "the disk is full");
    // Also where nothing is to be saved the hands are asked: they may have something that goes with it.
    let mut asked = 0;
    let nothing = Step::commit_all([], |records| {
        asked += 1;
        assert!(records.is_empty());
        Ok::<_, ()>(())
    });
    assert!(nothing.unwrap().is_empty() && asked == 1);
}
