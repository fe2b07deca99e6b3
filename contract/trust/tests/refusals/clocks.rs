//! A clock that jumps: nothing that a system clock says moves the lower bound or the state.

use crate::signer::*;
use crate::{Case, taken};
use petrel_trust::*;

const DAY: i64 = 86_400;

pub(crate) fn cases() -> Vec<Case> {
    let mut tried = 0;
    let system_clocks = [
        0,
        T0 - DAY,
        1, // fifty years before, where the calendar of documents begins
        T0 + 50 * 365 * DAY,
        T0 - 3_600,
        T0 + 3_600,
        1_483_228_799, // before and after the leap second of 2016
        1_483_228_800,
        2_147_483_647, // 2038, and the second after it
        2_147_483_648,
        4_294_967_296,
        253_402_207_200,
    ];
    for told in [false, true] {
        for system in system_clocks {
            for uptime in [0, UP, 24 * 3_600_000 + UP] {
                let mut t = trust();
                if told {
                    beaconed(&mut t, 1, |_| {}).expect("the answer");
                }
                let before = json(t.counters());
                let low = t.clock().low(uptime);
                let best = t.clock().best(Time::from_unix(system), uptime);
                assert!(best >= low, "never earlier than what is certain");
                let near = (0..=DAY).contains(&(system - low.unix()));
                let believed = t.clock().fresh(uptime) && near;
                assert_eq!(best, if believed { moment(system) } else { low });
                assert_eq!(json(t.counters()), before, "a look at a clock changes nothing");
                tried += 1;
            }
        }
    }
    assert!(tried >= 40);
    // Uptime counts from when the word came; uptimes without end stay in the calendar.
    let mut t = trust();
    let hour = 3_600_000;
    let bytes = sealed(PayloadKind::Beacon, &json(&beacon(1)), &[BEACON]);
    t.accept_beacon(&bytes, hour).expect("the answer");
    assert_eq!(t.clock().low(hour), moment(T0 + 3_600), "an hour of uptime is later than the beacon's two minutes");
    assert_eq!(t.clock().low(0), t.clock().low(UP).min(moment(T0)), "before it came, less is certain");
    assert_eq!(t.clock().low(u64::MAX), moment(253_402_207_200));
    assert_eq!(t.clock_state(u64::MAX), ClockState::Expired);
    // Each turn of the state is foretold to the millisecond: fresh, stale, expired.
    let mut t = trust();
    beaconed(&mut t, 1, |_| {}).expect("the answer");
    let (mut uptime, mut states) = (UP, vec![t.clock_state(UP)]);
    while let Some(turn) = t.clock_turns(uptime) {
        assert_eq!(t.clock_state(turn - 1), t.clock_state(uptime));
        states.push(t.clock_state(turn));
        uptime = turn;
    }
    assert_eq!(states, [ClockState::Fresh, ClockState::Stale, ClockState::Expired]);
    vec![taken("T36", format!("{tried} clocks"), Ok(()))]
}
