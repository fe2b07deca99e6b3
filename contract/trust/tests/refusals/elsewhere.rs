//! The rows of the catalogue that need hands, an engine, a ledger or a bridge: the tests that run them, by
//! name, and the rows that wait for the work that they belong to.
//!
//! A test that is named here must exist. Of T19-T26, T32-T38 and T41-T46 the cases beside this file prove
//! the decision; that the old model keeps answering is seen where one runs.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::Path;

/// A row, the file of its test from the root of the house, and the test.
type Witness = (&'static str, &'static str, &'static str);

/// Rows that run in the tests of other rooms.
const ELSEWHERE: &[Witness] = &[
    ("T45", "tests/agent_core/beliefs.rs", "t45_changes_that_come_too_fast_wait_and_the_newest_counts"),
    ("T54", "agent/engine/src/external.rs", "no_other_place_is_read"),
    ("T54", "cloud-bridge/tests/references.rs", "weights_beside_the_model_go_into_the_bundle"),
    ("T56", "agent/src/worker/tests.rs", "the_probe_passes_golden_vectors_and_refuses_other_answers"),
    ("T58", "cloud-bridge/src/bundle/baseline.rs", "a_baseline_that_nothing_can_be_measured_against_is_refused"),
    ("T58", "contract/drift/src/baseline.rs", "contradictions_are_found"),
    ("T59", "agent/src/fetch/tests/arrivals.rs", "no_arrivals_break_the_pull"),
    (
        "T60",
        "tests/end_to_end/hostile.rs",
        "poison_that_is_retained_everywhere_keeps_nobody_from_answering_or_from_the_next_release",
    ),
    ("T61", "agent/src/fetch/tests.rs", "t61_a_link_that_gives_nothing_is_told_of_each_minute_and_the_pull_resumes"),
    ("T62", "agent/src/fetch/tests.rs", "t62_chunks_without_end_change_nothing_and_are_told_of_seldom"),
    ("T63", "tests/end_to_end/hostile.rs", "a_flood_takes_no_memory_and_no_answer"),
    ("T64", "tests/bridge_core/twin.rs", "t64_two_agents_with_one_identity_are_noticed_once"),
    ("T64", "tests/end_to_end/impostors.rs", "two_agents_with_one_identity_raise_an_alarm"),
    ("T65", "agent/src/identity/tests.rs", "only_the_fleets_own_server_in_its_time_is_believed"),
    ("T66", "agent/src/mqtt.rs", "a_device_that_is_not_wanted_waits_for_a_minute_at_least"),
    ("T66", "tests/bridge_core/identity.rs", "a_device_whose_certificate_expired_comes_back_when_a_person_says_so"),
    ("T67", "tests/simulation.rs", "every_world_keeps_the_rules"),
    ("T68", "cloud-bridge/src/service/store/tests.rs", "a_token_lets_one_key_of_one_device_in_while_it_lasts"),
    ("T68", "tests/end_to_end/enrolling.rs", "every_way_to_fail_is_told_with_a_remedy_and_leaves_nothing"),
    ("T69", "cloud-bridge/src/certificates/tests.rs", "a_request_of_another_name_or_key_or_without_proof_is_not_taken"),
    ("T70", "tests/end_to_end/impostors.rs", "what_a_certificate_is_good_for_on_mosquitto"),
    ("T71", "tests/bridge_core/identity.rs", "a_retired_device_runs_nothing_and_frees_its_name"),
    ("T72", "agent/src/identity/tests.rs", "a_power_cut_at_any_step_of_a_renewal_leaves_an_old_or_a_new_identity"),
    ("T73", "tests/end_to_end/enrolling.rs", "a_device_without_its_key_goes_on_answering"),
    ("T74", "agent/src/store/sweep/power.rs", "t72_t74_the_power_may_go_at_every_moment_of_every_flow"),
    ("T75", "agent/src/store/sweep/faults.rs", "t75_every_operation_may_fail_in_every_way"),
    ("T76", "agent/src/store/sweep/faults.rs", "t76_what_a_sync_lost_is_written_anew"),
    ("T77", "agent/src/store/sweep/damage.rs", "t77_one_bit_flipped_in_any_stored_byte_is_found_and_mended"),
    ("T78", "agent/src/store/sweep/damage.rs", "t78_a_device_that_lost_both_slots_installs_nothing_until_it_is_fresh"),
    ("T80", "cloud-bridge/core/src/audit.rs", "whatever_is_done_to_a_log_its_line_is_named"),
    ("T80", "cloud-bridge/src/service/store/audit.rs", "whoever_edits_the_database_is_found"),
    ("T80", "tests/end_to_end/audit.rs", "who_did_what_is_told_and_cannot_be_changed_unseen"),
];

/// Rows of which this crate proves the decision, and a device that the old model keeps answering: real programs, but for
/// T32 and T38, where the clock is the test's, and T56, where the worker is asked.
const KEEPS_ANSWERING: &[Witness] = &[
    ("T01", "tests/end_to_end/hostile.rs", "the_old_model_answers_whatever_a_broker_says"),
    ("T14", "tests/end_to_end/hostile.rs", "after_the_root_has_expired_the_old_model_answers_until_a_newer_root_comes"),
    ("T19", "tests/end_to_end/hostile.rs", "what_was_taken_away_falls_back_within_seconds_and_installs_no_more"),
    ("T22", "tests/end_to_end/hostile.rs", "what_was_taken_away_falls_back_within_seconds_and_installs_no_more"),
    (
        "T32",
        "tests/agent_core/beliefs.rs",
        "t32_without_a_network_and_a_clock_the_old_model_answers_and_the_time_is_unset",
    ),
    (
        "T38",
        "tests/agent_core/beliefs.rs",
        "t38_after_thirty_days_of_silence_the_old_model_answers_and_the_report_says_stale",
    ),
    ("T56", "agent/src/worker/tests.rs", "the_probe_passes_golden_vectors_and_refuses_other_answers"),
    ("T63", "tests/end_to_end/hostile.rs", "a_flood_takes_no_memory_and_no_answer"),
    ("T73", "tests/end_to_end/enrolling.rs", "a_device_without_its_key_goes_on_answering"),
];

/// Rows that belong to other work, and to which.
const OWNED: &[(&str, &[&str])] = &[("the device: sandbox and limits of the worker, probation", &["T55", "T57"])];

/// Says on the test's own output, which `cargo test` shows without being asked, how many rows ran and where
/// the others are; fails when a row has no place, or a named test is not there.
pub(crate) fn tell(here: &BTreeSet<&str>, cases: usize) {
    let mut gone = Vec::new();
    for (row, file, test) in ELSEWHERE.iter().chain(KEEPS_ANSWERING) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(file);
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        if !text.contains(&format!("fn {test}()")) {
            gone.push(format!("{row}: {file} has no test {test}"));
        }
    }
    assert!(gone.is_empty(), "tests of the catalogue are not there:\n{}", gone.join("\n"));

    let mut rooms: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (row, file, _) in ELSEWHERE {
        rooms.entry(file).or_default().insert(row);
    }
    let elsewhere: BTreeSet<&str> = ELSEWHERE.iter().map(|(row, ..)| *row).collect();
    let owned: BTreeSet<&str> = OWNED.iter().flat_map(|(_, rows)| *rows).copied().collect();
    let both: BTreeSet<&str> = here.union(&elsewhere).copied().collect();
    let kept: BTreeSet<&str> = KEEPS_ANSWERING.iter().map(|(row, ..)| *row).collect();

    let list = |rows: &BTreeSet<&str>| rows.iter().copied().collect::<Vec<_>>().join(" ");
    let mut told = format!(
        "\nrefusal catalogue: {} of 80 rows ran, {} here in {cases} cases, {} in other rooms\n",
        both.len(),
        here.len(),
        elsewhere.difference(here).count(),
    );
    for (file, rows) in &rooms {
        told += &format!("  {file}: {}\n", list(rows));
    }
    told += &format!("  the old model keeps answering, seen where one runs: {}\n", list(&kept));
    for (owner, rows) in OWNED {
        told += &format!("  owned by {owner}: {}\n", rows.join(" "));
    }
    // Straight to the output: what is printed by macros is swallowed unless somebody asks.
    let mut out = std::io::stdout().lock();
    out.write_all(told.as_bytes()).and_then(|()| out.flush()).expect("the output of a test");

    assert_eq!(both.intersection(&owned).count(), 0, "what runs is owned by nobody else");
    let all: BTreeSet<String> = both.union(&owned).map(ToString::to_string).collect();
    let missing: Vec<String> = (1..=80).map(|n| format!("T{n:02}")).filter(|row| !all.contains(row)).collect();
    assert!(missing.is_empty(), "rows without a place: {missing:?}");
}
