//! Who belongs to the fleet: how devices come in, change keys, and go.

use super::*;

#[test]
fn a_device_belongs_to_the_fleet_when_it_enrolled_and_a_person_said_so() {
    let bench = check(&[
        // A word of somebody unknown makes nobody known.
        ("hello a 1", ""),
        ("report a 1", ""),
        ("approve a", "not found"),
        ("enrol a a pending", ""),
        ("hello a 1", ""),
        ("report a 1", ""),
        ("approve a", "a 1: nothing"),
        ("approve a", ""),
        ("hello a 2", "a 1: nothing"),
        // The same word again is no news; another key is another device.
        ("hello a 2", ""),
        ("hello a 3 thief", ""),
        ("forged", ""),
        ("reject a", "conflict"),
        ("enrol b b pending", ""),
        ("reject b", "withdrawn [b2], end b, clear b"),
        ("approve b", "not found"),
        ("enrol b", "b 1: nothing"),
    ]);
    assert_eq!(bench.disbelieved(Disbelief::Unknown), 2);
    assert_eq!(bench.disbelieved(Disbelief::Pending), 1);
    assert_eq!(bench.disbelieved(Disbelief::Replayed), 1);
    assert_eq!(bench.disbelieved(Disbelief::Signature), 2);
}

#[test]
fn a_name_has_one_key_and_a_lost_answer_is_given_again() {
    check(&[
        ("enrol a", "a 1: nothing"),
        ("enrol a thief", "conflict"),
        // Its answer was lost: the certificate that nobody has counts no more.
        ("enrol a", "withdrawn [a1]"),
        ("renew nobody k", "not found"),
        ("return nobody k", "not found"),
    ]);
}

#[test]
fn the_old_key_counts_until_the_new_one_is_used() {
    let bench = check(&[
        ("enrol a", "a 1: nothing"),
        ("renew a x", ""),
        ("hello a 1 a", "a 1: nothing"),
        // Asked again, because the answer was lost: the first new key was never used.
        ("renew a y", "withdrawn [x2]"),
        ("use a x", ""),
        ("use a y", "withdrawn [a1 x2]"),
        ("hello a 2 a", ""),
        ("hello a 3 y", "a 1: nothing"),
        ("use a y", ""),
        // The first word with a new key may as well be the hello.
        ("renew a z", ""),
        ("hello a 4 z", "withdrawn [a1 x2 y3], a 1: nothing"),
    ]);
    assert_eq!(bench.bridge.devices()[&device("a")].credential.key, b"z");
    assert_eq!(bench.disbelieved(Disbelief::Signature), 1);
}

#[test]
fn a_device_that_renews_before_its_first_word_keeps_the_key_that_it_shows() {
    check(&[
        ("enrol a", "a 1: nothing"),
        ("renew a x", ""),
        // It lost its power as soon as it was connected, and was away for long.
        ("renew a y x", "withdrawn [a1]"),
        ("hello a 1 x", "a 1: nothing"),
        ("hello a 2 y", "withdrawn [a1 x2], a 1: nothing"),
    ]);
}

#[test]
fn a_device_whose_certificate_expired_comes_back_when_a_person_says_so() {
    check(&[
        ("enrol a", "a 1: nothing"),
        ("return a k", "conflict"),
        ("wait 3600", ""),
        ("return a k", ""),
        ("hello a 1 k", "withdrawn [a1]"),
        // It asks again, since it did not hear the answer.
        ("return a k", "conflict"),
        ("approve a", "a 2: nothing"),
        // So long that nobody need be told of the first certificates any more.
        ("wait 90001", ""),
        ("return a m", ""),
        ("return a m", "withdrawn [m5]"),
        // Whoever is turned away keeps its generation for whoever has the name next.
        ("reject a", "withdrawn [m5 m6], end a, clear a"),
        ("enrol a n", "a 3: nothing"),
    ]);
}

#[test]
fn a_revoked_device_is_heard_no_more_and_its_name_stays_taken() {
    let bench = fleet(&[
        ("start 1 0 600 1 100%", "publish 1, a 2: install 1, started 1"),
        // Nobody waits for it: the wave goes on without it.
        ("revoke a", "withdrawn [a1], end a, b 2: install 1, c 2: install 1"),
        ("revoke a", ""),
        ("report a 1", ""),
        ("verdict a 1 1 confirmed", ""),
        ("use a a", ""),
        ("hello a 1", "end a"),
        ("need a 1", ""),
        ("enrol a x", "conflict"),
        ("renew a x", "conflict"),
        ("approve a", "conflict"),
        ("verdict b 1 1 confirmed", ""),
        ("verdict c 1 1 confirmed", "clear 1"),
        ("revoke nobody", "not found"),
        // A crash may have kept the broker from hearing of it.
        ("restart", ""),
        ("connect remembered", "withdrawn [a1], clear 1, b 2: install 1, c 2: install 1"),
    ]);
    assert_eq!(bench.phase(1), "Completed");
    assert_eq!((bench.status("a"), bench.disbelieved(Disbelief::Revoked)), (Some(Status::Revoked), 0));
}

#[test]
fn a_retired_device_runs_nothing_and_frees_its_name() {
    let bench = fleet(&[
        ("start 1 0 600 only", "publish 1, a 2: install 1, started 1"),
        ("verdict a 1 1 confirmed", "clear 1"),
        ("retire a", "withdrawn [a1], end a, a 3: nothing, clear a"),
        ("retire a", ""),
        ("revoke a", "conflict"),
        ("report a 7", ""),
        // Whoever left may still hold the token and the key: neither opens the door again.
        ("enrol a a old", "conflict"),
        ("enrol a y old", "conflict"),
        // The next of that name is told more than the last one ever was, and begins to count anew.
        ("enrol a x", "a 4: nothing"),
        ("report a 1", ""),
        ("report a 1", ""),
        ("start 1 0 600 only", "publish 1, a 5: install 1, started 2"),
    ]);
    assert_eq!((bench.disbelieved(Disbelief::Revoked), bench.disbelieved(Disbelief::Replayed)), (1, 1));
}

#[test]
fn a_rejection_does_not_forget_that_one_of_the_name_has_left() {
    fleet(&[
        ("enrol d d pending", ""),
        ("retire d", "withdrawn [d4], end d, clear d"),
        ("enrol d e pending", ""),
        ("reject d", "withdrawn [d4 e5], end d, clear d"),
        ("enrol d d old", "conflict"),
    ]);
}

#[test]
fn a_certificate_whose_end_has_come_need_not_be_told_any_more() {
    check(&[
        ("enrol a", "a 1: nothing"),
        ("revoke a", "withdrawn [a1], end a"),
        ("wait 86400", ""),
        ("enrol b", "b 1: nothing"),
        ("revoke b", "withdrawn [a1 b2], end b"),
        ("wait 3601", ""),
        ("enrol c", "c 1: nothing"),
        ("retire c", "withdrawn [b2 c3], end c, clear c"),
    ]);
}
