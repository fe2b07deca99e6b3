//! Nothing but what describes a bundle comes over the link before it is admitted.

use super::*;

fn undecided() -> Bench {
    let mut bench = Bench::new(several(), 8);
    bench.admits = false;
    bench
}

#[test]
fn before_a_bundle_is_admitted_only_its_index_and_its_manifest_come() {
    let mut bench = undecided();
    bench.fetch();
    assert_eq!((bench.delivered, bench.end.as_ref()), (2, None));
    let [described] = &bench.described[..] else { panic!("described {} times", bench.described.len()) };
    let manifest: trust::Manifest = serde_json::from_slice(&described.manifest).unwrap();
    let both = (described.manifest.len() + manifest.files.len()) as u64;
    assert!(described.missing > 3 * CHUNK_BYTES && described.missing < bench.fixture.total_size - both);
    assert!(described.room > described.missing && described.envelope == bench.fixture.envelope);
    assert!(bench.fetcher.awaits_admission(bench.fixture.digest));
    bench.fetcher.tick(10 * SLOW);
    bench.run(10 * SLOW, usize::MAX);
    assert!(bench.needs.is_empty() && bench.doubts.is_empty(), "a decision that takes long is no slow link");
    bench.fetcher.admit(10 * SLOW, bench.fixture.digest);
    bench.run(10 * SLOW, usize::MAX);
    assert!(bench.arrived() && bench.delivered == bench.chunks.len(), "{:?}", bench.end);
}

#[test]
fn what_is_not_admitted_may_be_brought() {
    let mut bench = undecided();
    bench.fetch();
    let files = bench.fixture.files();
    assert!(pour(&mut bench, &files) > 0);
    bench.run(0, usize::MAX);
    assert!(bench.arrived() && bench.delivered == 2, "{:?}", bench.end);
}

#[test]
fn after_a_power_cut_the_core_is_asked_again_without_a_byte() {
    let mut bench = undecided();
    bench.fetch();
    bench.restart();
    bench.start();
    bench.run(0, usize::MAX);
    assert_eq!((bench.described.len(), bench.delivered), (2, 0));
}
