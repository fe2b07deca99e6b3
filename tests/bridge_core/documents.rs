//! Documents for everybody, the time, and what a revocation keeps from being rolled out.

use super::*;

/// The numbers of the beacons that answered a device, and of those for everybody.
fn beacons(effects: &[Effect]) -> (Vec<u64>, Vec<u64>) {
    let (mut answers, mut all) = (Vec::new(), Vec::new());
    for effect in effects {
        if let Effect::PublishBeacon(draft) = effect {
            assert_eq!(draft.to.is_some(), draft.nonce.is_some());
            if draft.to.is_some() { &mut answers } else { &mut all }.push(draft.seq);
        }
    }
    (answers, all)
}

#[test]
fn a_hello_is_answered_with_its_nonce_and_numbers_never_repeat() {
    let mut bench = fleet(&[]);
    let greet = |bench: &mut Bench, line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let event = bench.event(&words);
        beacons(&bench.step(event).effects).0
    };
    let first = greet(&mut bench, "hello a 2");
    assert_eq!(first.len(), 1);
    // Anybody can repeat a hello: not each one is answered.
    assert!(greet(&mut bench, "hello a 3").is_empty());
    bench.unix += 1_000;
    let second = greet(&mut bench, "hello a 3");
    assert!(second > first);
    bench.happen("restart");
    bench.unix += 1_000;
    assert!(greet(&mut bench, "hello a 4") > second, "over a restart too");
}

#[test]
fn everybody_is_told_the_time_every_hour() {
    let mut bench = fleet(&[("connect remembered", "a 1: nothing, b 1: nothing, c 1: nothing")]);
    assert_eq!(bench.bridge.deadline(), Some(bench.unix + 3_600_000));
    bench.unix += 3_600_000;
    let told = beacons(&bench.step(Event::DeadlineReached).effects);
    assert_eq!((told.0.len(), told.1.len()), (0, 1));
    assert_eq!(bench.bridge.deadline(), Some(bench.unix + 3_600_000));
}

#[test]
fn a_root_is_believed_published_and_named_by_what_land_signs() {
    let mut bench = fleet(&[]);
    let second = bench.signer.root_after(bench.signer.root_bytes(), |_| ());
    let third = bench.signer.root_after(&second, |_| ());
    let push = |bytes: &[u8]| Event::DocumentPushed { kind: DocumentKind::Root, bytes: bytes.to_vec() };
    let gap = bench.step(push(&third)).answer.unwrap_err();
    assert!(matches!(gap, Rejection::Refused(r) if r.code == trust::Code::RootGap));
    let taken = bench.step(push(&second));
    assert_eq!(taken.answer, Ok(Answer::Taken { kind: DocumentKind::Root, number: 2, new: true }));
    let said: Vec<String> = taken.effects.iter().filter_map(|e| bench.say(e)).collect();
    assert_eq!(said, ["a 2: nothing", "b 2: nothing", "c 2: nothing"], "each generation is signed alike, so a new one");
    let names = |e: &Effect| matches!(e, Effect::PublishAssignment(draft) if draft.numbers.root == 2);
    assert_eq!(taken.effects.iter().filter(|e| names(e)).count(), 3);
    let again = bench.step(push(&second));
    assert_eq!(again.answer, Ok(Answer::Taken { kind: DocumentKind::Root, number: 2, new: false }));
    assert!(again.effects.is_empty());
    bench.happen("restart");
    let roots = |effects: &[Effect]| {
        effects.iter().filter(|e| matches!(e, Effect::PublishDocument(d) if d.document == DocumentKind::Root)).count()
    };
    assert_eq!(
        roots(&bench.step(Event::BrokerConnected { remembered: true, retains: true }).effects),
        2,
        "the whole chain"
    );
    bench.step(push(&third)).answer.unwrap();
}

#[test]
fn a_revoked_release_is_not_rolled_out() {
    let mut bench = fleet(&[]);
    let bundle = bench.bundles[0].digest;
    let bytes = bench.signer.revocation(3, |revocation| {
        revocation.bundles = vec![RevokedBundle {
            bundle: WhichBundle::StatementSha256(bundle),
            severity: Severity::NoNew,
            reason: "wrong labels".into(),
        }];
    });
    bench.step(Event::DocumentPushed { kind: DocumentKind::Revocation, bytes }).answer.unwrap();
    assert_eq!(bench.happen("start 1 0 60 100%"), ["conflict"]);
    assert_eq!(bench.happen("start 2 0 60 100%").last().unwrap(), "started 1");
    let older = bench.signer.revocation(2, |_| ());
    let refused = bench.step(Event::DocumentPushed { kind: DocumentKind::Revocation, bytes: older }).answer;
    assert!(matches!(refused, Err(Rejection::Refused(r)) if r.code == trust::Code::RollbackRev));
}

#[test]
fn t79_a_device_whose_disk_was_put_back_is_heard_and_alarmed_but_a_replay_is_not() {
    let mut bench = fleet(&[("hello a 7.1", "a 1: nothing")]);
    bench.step(report("a", 7, 2, Some(1)));
    let heard = |bench: &Bench| bench.bridge.devices()[&device("a")].report.as_ref().map(|r| (r.boot, r.seq));
    assert_eq!(heard(&bench), Some((7, 2)));
    bench.unix += 1_000;
    // An old hello, and an old report after it: the broker may have recorded both.
    let event = bench.event(&["hello", "a", "3.1"]);
    let answer = beacons(&bench.step(event).effects).0[0];
    bench.step(report("a", 3, 2, Some(1)));
    assert_eq!(heard(&bench), Some((7, 2)), "recorded long ago");
    assert_eq!(bench.bridge.devices()[&device("a")].alarm, None);
    // A report that names the beacon of this moment was made by who is there now.
    bench.step(report("a", 3, 3, Some(answer)));
    assert_eq!(heard(&bench), Some((3, 3)));
    let alarm = bench.bridge.devices()[&device("a")].alarm.clone().unwrap();
    assert!(alarm.what.contains("boot 3 after 7"), "{}", alarm.what);
    assert_eq!(bench.happen("hello a 3.4"), ["a 1: nothing"], "it is heard as any device");
    bench.step(report("a", 3, 5, Some(answer + 1)));
    bench.step(report("a", 3, 3, Some(answer)));
    assert_eq!(heard(&bench), Some((3, 5)), "recorded since");
    // Of before the loss, with a boot that the device has not reached again; also after land forgot whom it answered.
    bench.happen("restart");
    bench.step(report("a", 7, 9, Some(1)));
    assert_eq!(heard(&bench), Some((3, 5)), "recorded before");
    bench.step(report("a", 3, 6, Some(answer + 1)));
    assert_eq!(heard(&bench), Some((3, 6)));
}
