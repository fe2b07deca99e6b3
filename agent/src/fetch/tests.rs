//! The pull against a broker in memory that keeps what is retained, or loses it, or lies.

mod admission;
mod arrivals;

use super::*;
use crate::store;
use crate::testing::Fixture;
use protocol::CHUNK_BYTES;
use std::collections::BTreeSet;
use std::fs;

const CHUNK: usize = CHUNK_BYTES as usize;

/// A device, and the broker beside it.
struct Bench {
    _state: tempfile::TempDir,
    bundles: Bundles,
    fetcher: Fetcher,
    fixture: Fixture,
    chunks: BTreeMap<Digest, Vec<u8>>,
    offer: Vec<u8>,
    subscribed: BTreeSet<Digest>,
    most_subscribed: usize,
    delivered: usize,
    /// Bytes of chunks that the broker sent.
    sent: u64,
    needs: Vec<(bool, Vec<Digest>)>,
    end: Option<Action>,
    /// What the core says to what is described.
    admits: bool,
    described: Vec<Described>,
    doubts: Vec<Code>,
}

fn flow(window: usize) -> Flow {
    Flow::new(window, None, "bench")
}

impl Bench {
    fn new(fixture: Fixture, window: usize) -> Self {
        let state = tempfile::tempdir().unwrap();
        let bundles = Bundles::open(store::host(), state.path()).unwrap();
        let fetcher = Fetcher::new(fixture.trust.clone(), bundles.clone(), flow(window));
        let (chunks, offer) = (fixture.chunks(), fixture.offer());
        Self {
            _state: state,
            bundles,
            fetcher,
            fixture,
            chunks,
            offer,
            subscribed: BTreeSet::new(),
            most_subscribed: 0,
            delivered: 0,
            sent: 0,
            needs: Vec::new(),
            end: None,
            admits: true,
            described: Vec::new(),
            doubts: Vec::new(),
        }
    }

    fn start(&mut self) {
        self.fetcher.start(0, self.fixture.digest, self.fixture.total_size, true);
    }

    fn connect(&mut self) {
        self.subscribed.clear();
        self.fetcher.connected(0, true);
    }

    /// A power cut: nothing is left but the disk.
    fn restart(&mut self) {
        self.fetcher = Fetcher::new(self.fixture.trust.clone(), self.bundles.clone(), flow(self.fetcher.flow.most()));
        self.end = None;
        self.delivered = 0;
    }

    /// Carries actions out until there are none, or `most` chunks were delivered.
    fn run(&mut self, now: Millis, most: usize) {
        while self.delivered < most {
            let actions = self.fetcher.actions();
            if actions.is_empty() {
                return;
            }
            actions.into_iter().for_each(|action| self.carry_out(now, action));
        }
    }

    fn carry_out(&mut self, now: Millis, action: Action) {
        match action {
            Action::AskDocuments(bundle) => {
                self.fetcher.envelope(now, bundle, &self.fixture.envelope);
                self.fetcher.offer(now, bundle, &self.offer);
            }
            Action::AskChunks(chunks) => {
                self.subscribed.extend(&chunks);
                self.most_subscribed = self.most_subscribed.max(self.subscribed.len());
                for chunk in chunks {
                    if let Some(bytes) = self.chunks.get(&chunk) {
                        self.delivered += 1;
                        self.sent += bytes.len() as u64;
                        self.fetcher.chunk(now, chunk, bytes, true);
                    }
                }
            }
            Action::LeaveChunk(chunk) => {
                self.subscribed.remove(&chunk);
            }
            Action::Described(bundle, described) => {
                self.described.push(*described);
                if self.admits {
                    self.fetcher.admit(now, bundle);
                }
            }
            Action::Need { documents, chunks, .. } => self.needs.push((documents, chunks)),
            Action::Doubted(doubt) => self.doubts.push(doubt.code),
            Action::LeaveDocuments(_) | Action::Progressed { .. } | Action::Slow(_) => {}
            end @ (Action::Stored(_) | Action::Refused(..) | Action::Stumbled(..)) => self.end = Some(end),
        }
    }

    fn fetch(&mut self) {
        self.start();
        self.connect();
        self.run(0, usize::MAX);
    }

    fn arrived(&self) -> bool {
        let dir = self.bundles.incoming(self.fixture.digest);
        self.end == Some(Action::Stored(self.fixture.digest))
            && store::known(&*store::host(), &dir, self.fixture.digest).is_ok()
    }

    fn refused(&self) -> Option<Code> {
        match &self.end {
            Some(Action::Refused(_, refusal)) => Some(refusal.code),
            _ => None,
        }
    }
}

/// Two files with chunks in common, a short one, and an empty one in a folder.
fn several() -> Fixture {
    let numbered = |n: u8| vec![n; CHUNK];
    let large = [numbered(1), numbered(2), numbered(1), vec![9; 7]].concat();
    Fixture::of_files(&[
        ("a.bin", large),
        ("b.bin", [numbered(2), numbered(3)].concat()),
        ("c.txt", b"short".to_vec()),
        ("sub/empty", Vec::new()),
    ])
}

/// An index that is itself larger than a chunk, over content that is quickly made.
fn long_index() -> Fixture {
    Fixture::of_files(&[("zeros.bin", vec![0; CHUNK * 1_540])])
}

#[test]
fn a_bundle_arrives_whole_and_each_chunk_once() {
    let mut bench = Bench::new(several(), 8);
    bench.fetch();
    assert!(bench.arrived(), "{:?}", bench.end);
    assert_eq!(bench.delivered, bench.chunks.len());
    assert!(bench.subscribed.is_empty(), "left behind: {:?}", bench.subscribed);
}

/// 25 chunks in two files, of which the second fixture has 15 in common with the first, at other places.
fn alike() -> [Fixture; 2] {
    let file = |numbers: &[u8]| numbers.iter().flat_map(|n| vec![*n; CHUNK]).collect::<Vec<u8>>();
    let old: Vec<u8> = (0..25).collect();
    let new: Vec<u8> = (0..25).map(|n| if n < 10 { 100 + n } else { n }).collect();
    [
        Fixture::of_files(&[("a.bin", file(&old))]),
        Fixture::of_files(&[("b.bin", file(&new[15..])), ("c.bin", file(&new[..15]))]),
    ]
}

#[test]
fn what_an_installed_bundle_holds_is_copied_and_not_sent() {
    let [old, new] = alike();
    let mut bench = Bench::new(new, 8);
    old.install(&bench.bundles);
    bench.fetch();
    assert!(bench.arrived(), "{:?}", bench.end);
    assert!(bench.sent * 100 <= bench.fixture.total_size * 42, "{} of {}", bench.sent, bench.fixture.total_size);
}

#[test]
fn what_an_installed_bundle_does_not_hold_any_more_is_sent() {
    let [old, new] = alike();
    let mut bench = Bench::new(new, 8);
    old.install(&bench.bundles);
    let path = bench.bundles.complete(old.digest).join("a.bin");
    let mut bytes = fs::read(&path).unwrap();
    bytes[20 * CHUNK] ^= 1;
    bytes.truncate(24 * CHUNK + 7);
    fs::write(&path, bytes).unwrap();
    bench.fetch();
    assert!(bench.arrived(), "{:?}", bench.end);
    assert!(bench.sent > 12 * CHUNK_BYTES);
}

#[test]
fn no_more_chunks_are_on_their_way_than_the_window() {
    let many: Vec<u8> = (0..40u8).flat_map(|n| vec![n; CHUNK]).collect();
    let mut bench = Bench::new(Fixture::of_files(&[("a.bin", many)]), 4);
    bench.fetch();
    assert!(bench.arrived());
    assert!((2..=5).contains(&bench.most_subscribed), "{}", bench.most_subscribed);
}

#[test]
fn an_index_longer_than_a_chunk_is_led_to_by_the_offer() {
    let mut bench = Bench::new(long_index(), 8);
    bench.fetch();
    assert!(bench.arrived(), "{:?}", bench.end);
    assert!(bench.delivered < 10);
}

#[test]
fn a_wrong_offer_costs_time_and_nothing_else() {
    let foreign = [Digest::of(b"x"), Digest::of(b"y")];
    let lies: [Vec<String>; 3] = [
        vec![foreign[0].to_string()],
        foreign.iter().map(Digest::to_string).collect(),
        vec![Digest::of(&vec![0; CHUNK]).to_string(), foreign[1].to_string()],
    ];
    for lie in lies {
        let mut bench = Bench::new(long_index(), 8);
        let right = bench.offer.clone();
        bench.chunks.extend(foreign.iter().zip([b"x", b"y"]).map(|(d, b)| (*d, b.to_vec())));
        bench.offer = serde_json::to_vec(&serde_json::json!({ "spec": 1, "index": lie })).unwrap();
        bench.fetch();
        assert_eq!(bench.end, None, "{lie:?}");
        bench.offer = right;
        bench.fetcher.tick(100_000);
        bench.run(100_000, usize::MAX);
        assert!(bench.arrived(), "{lie:?}: {:?}", bench.end);
        assert!(bench.subscribed.is_empty());
    }
}

#[test]
fn nonsense_instead_of_an_offer_is_passed_over() {
    let mut bench = Bench::new(long_index(), 8);
    bench.offer = b"nonsense".to_vec();
    bench.fetch();
    assert_eq!(bench.end, None);
    bench.offer = bench.fixture.offer();
    bench.fetcher.tick(6_000);
    bench.run(6_000, usize::MAX);
    assert!(bench.arrived());
}

#[test]
fn foreign_and_repeated_chunks_are_dropped_and_counted() {
    let mut bench = Bench::new(several(), 8);
    bench.start();
    bench.fetcher.connected(0, true);
    let wanted = bench.chunks.keys().next().copied().unwrap();
    bench.fetcher.chunk(0, Digest::of(b"never asked"), b"never asked", true);
    bench.fetcher.chunk(0, wanted, b"not of this digest", true);
    assert_eq!(bench.fetcher.foreign, 2);
    bench.run(0, usize::MAX);
    assert!(bench.arrived());
    let bytes = bench.chunks[&wanted].clone();
    bench.fetcher.chunk(0, wanted, &bytes, true);
    assert_eq!(bench.fetcher.foreign, 3);
}

/// T62: chunks without end are cut at the size that was signed, and told.
#[test]
fn t62_chunks_without_end_change_nothing_and_are_told_of_seldom() {
    let mut bench = Bench::new(several(), 8);
    bench.start();
    bench.fetcher.connected(0, true);
    for n in 0..2_000u64 {
        let endless = [n.to_le_bytes().to_vec(), vec![0; CHUNK - 8]].concat();
        bench.fetcher.chunk(0, Digest::of(&endless), &endless, true);
    }
    bench.run(0, usize::MAX);
    assert!(bench.arrived(), "{:?}", bench.end);
    assert!((1..8).contains(&bench.doubts.len()) && bench.doubts.iter().all(|code| *code == Code::Limit));
}

/// A slow link brings what was asked for twice twice: that is nobody's attack.
#[test]
fn what_comes_again_is_not_told_of() {
    let mut bench = Bench::new(several(), 1);
    bench.start();
    bench.connect();
    bench.run(0, 2);
    let first = bench.chunks.keys().copied().find(|chunk| bench.fetcher.came.contains(chunk)).unwrap();
    let bytes = bench.chunks[&first].clone();
    (0..200).for_each(|_| bench.fetcher.chunk(0, first, &bytes, true));
    bench.run(0, usize::MAX);
    assert!(bench.arrived() && bench.doubts.is_empty(), "{:?}", bench.doubts);
    (0..200).for_each(|_| bench.fetcher.chunk(0, first, &bytes, true));
    bench.run(0, usize::MAX);
    assert!(bench.doubts.is_empty() && bench.fetcher.came.is_empty());
}

/// T61: a link that gives nothing is told of after a minute, and the rest comes when it gives again.
#[test]
fn t61_a_link_that_gives_nothing_is_told_of_each_minute_and_the_pull_resumes() {
    let mut bench = Bench::new(several(), 1);
    bench.start();
    bench.connect();
    bench.run(0, 2);
    let (chunks, mut told) = (std::mem::take(&mut bench.chunks), Vec::new());
    for now in (0..200_000).step_by(500) {
        let before = bench.doubts.len();
        bench.fetcher.tick(now);
        bench.run(now, usize::MAX);
        told.extend((before < bench.doubts.len()).then_some(now / 1_000));
    }
    assert_eq!((told, bench.doubts.clone()), (vec![60, 120, 180], vec![Code::Slow; 3]));
    bench.fetcher.disconnected();
    bench.fetcher.tick(400_000);
    bench.chunks = chunks;
    bench.fetcher.connected(400_000, true);
    bench.run(400_000, usize::MAX);
    assert!(bench.arrived() && bench.doubts.len() == 3, "being offline is not slow");
}

#[test]
fn a_chunk_under_anothers_topic_never_reaches_the_disk() {
    let mut bench = Bench::new(several(), 8);
    let changed = Digest::of(&vec![3; CHUNK]);
    let right = bench.chunks.insert(changed, vec![4; CHUNK]).unwrap();
    bench.fetch();
    assert_eq!(bench.end, None);
    bench.chunks.insert(changed, right);
    bench.fetcher.tick(6_000);
    bench.run(6_000, usize::MAX);
    assert!(bench.arrived() && bench.needs.is_empty(), "the broker is asked before land is");
}

#[test]
fn what_does_not_arrive_is_asked_for_with_growing_patience() {
    let mut bench = Bench::new(several(), 8);
    let lost = Digest::of(&vec![3; CHUNK]);
    bench.chunks.remove(&lost);
    bench.fetch();
    for now in (0..=60_000).step_by(500) {
        bench.fetcher.tick(now);
        bench.run(now, usize::MAX);
    }
    assert_eq!(
        bench.needs,
        vec![(false, vec![lost]); 3],
        "in a minute, the first time when the broker was asked twice"
    );
}

#[test]
fn offline_nothing_is_asked_for() {
    let mut bench = Bench::new(several(), 8);
    bench.start();
    bench.run(0, usize::MAX);
    bench.fetcher.tick(100_000);
    bench.run(100_000, usize::MAX);
    assert!(bench.needs.is_empty() && bench.delivered == 0);
}

#[test]
fn after_a_power_cut_only_the_rest_is_fetched() {
    let whole = Bench::new(several(), 1).chunks.len();
    for cut in 1..whole {
        let mut bench = Bench::new(several(), 1);
        bench.start();
        bench.connect();
        bench.run(0, cut);
        assert_eq!(bench.end, None);
        bench.restart();
        bench.fetch();
        assert!(bench.arrived(), "cut at {cut}");
        assert!(bench.delivered <= whole - cut + 1, "cut at {cut}: {} of {whole} again", bench.delivered);
    }
}

#[test]
fn what_rotted_on_the_disk_is_fetched_again() {
    let mut bench = Bench::new(several(), 8);
    bench.fetch();
    let path = bench.bundles.incoming(bench.fixture.digest).join("b.bin");
    let mut bytes = fs::read(&path).unwrap();
    bytes[CHUNK + 5] ^= 1;
    fs::write(&path, bytes).unwrap();
    bench.restart();
    bench.fetch();
    assert!(bench.arrived());
    assert_eq!(bench.delivered, 1);
}

#[test]
fn a_new_connection_asks_again_for_what_was_on_its_way() {
    let mut bench = Bench::new(several(), 8);
    let lost = Digest::of(&vec![3; CHUNK]);
    let bytes = bench.chunks.remove(&lost).unwrap();
    bench.fetch();
    bench.fetcher.disconnected();
    bench.chunks.insert(lost, bytes);
    bench.connect();
    bench.run(0, usize::MAX);
    assert!(bench.arrived() && bench.needs.is_empty());
}

#[test]
fn a_whole_bundle_is_there_at_once_without_a_connection() {
    let mut bench = Bench::new(several(), 8);
    bench.fixture.install(&bench.bundles);
    bench.start();
    assert_eq!(bench.fetcher.actions(), [Action::Stored(bench.fixture.digest)]);
}

#[test]
fn two_bundles_share_a_chunk_that_arrives_once() {
    let mut bench = Bench::new(several(), 16);
    let other = Fixture::of_files(&[("d.bin", vec![3; CHUNK])]);
    let shared = Digest::of(&vec![3; CHUNK]);
    bench.fetcher.connected(0, true);
    for fixture in [&bench.fixture, &other] {
        bench.fetcher.start(0, fixture.digest, fixture.total_size, true);
        bench.fetcher.envelope(0, fixture.digest, &fixture.envelope);
    }
    bench.fetcher.actions();
    let all: Vec<(Digest, Vec<u8>)> =
        bench.chunks.iter().chain(&other.chunks()).map(|(d, b)| (*d, b.clone())).collect();
    // The indexes first, then the manifests, then what they list; the shared chunk only once.
    let mut actions = Vec::new();
    for pass in 0..3 {
        for (digest, bytes) in all.iter().filter(|(d, _)| (*d == shared) <= (pass == 2)) {
            bench.fetcher.chunk(0, *digest, bytes, true);
        }
        for action in bench.fetcher.actions() {
            match action {
                Action::Described(bundle, _) => bench.fetcher.admit(0, bundle),
                other => actions.push(other),
            }
        }
    }
    let stored = actions.iter().filter(|a| matches!(a, Action::Stored(_))).count();
    let left = actions.iter().filter(|a| **a == Action::LeaveChunk(shared)).count();
    assert_eq!((stored, left), (2, 1), "{actions:?}");
}

#[test]
fn refusals_before_and_after_the_first_byte() {
    let mut bench = Bench::new(several(), 8);
    bench.fetcher.start(0, bench.fixture.digest, u64::MAX / 2, true);
    bench.run(0, usize::MAX);
    assert_eq!(bench.refused(), Some(Code::Disk));

    let mut bench = Bench::new(several(), 8);
    bench.fixture.total_size += 1;
    bench.fetch();
    assert_eq!(bench.refused(), Some(Code::Mismatch), "another size than was assigned");
}

#[test]
fn a_forged_envelope_is_waited_past() {
    let mut bench = Bench::new(several(), 8);
    let right = std::mem::replace(&mut bench.fixture.envelope, Fixture::digits(1).envelope);
    bench.fetch();
    assert_eq!(bench.doubts, [Code::Mismatch], "the envelope of another bundle");
    bench.fixture.envelope.clone_from(&right);
    let at = right.windows(4).position(|w| w == b"sig\"").unwrap() + 8;
    bench.fixture.envelope[at] ^= 1;
    bench.fetcher.tick(6_000);
    bench.run(6_000, usize::MAX);
    assert!(matches!(bench.doubts[1..], [Code::Sig | Code::Parse]), "{:?}", bench.doubts);
    assert_eq!(bench.end, None);
    bench.fixture.envelope = right;
    bench.fetcher.tick(20_000);
    bench.run(20_000, usize::MAX);
    assert!(bench.arrived(), "{:?}", bench.end);
}

#[test]
fn a_stopped_pull_leaves_no_subscription_and_keeps_its_bytes() {
    let mut bench = Bench::new(several(), 2);
    bench.start();
    bench.connect();
    bench.run(0, 2);
    bench.fetcher.stop(bench.fixture.digest);
    bench.run(0, usize::MAX);
    assert!(bench.fetcher.is_idle() && bench.subscribed.is_empty());
    assert!(bench.bundles.arrived(bench.fixture.digest) > 0);
}

/// Gives what is lacking out of `files`, as a source does; gives how many parts that were.
fn pour(bench: &mut Bench, files: &BTreeMap<String, Vec<u8>>) -> usize {
    let (bundle, mut given, mut last) = (bench.fixture.digest, 0, None);
    while let Some(gap) = bench.fetcher.gap(bundle).filter(|gap| last.as_ref() != Some(gap)) {
        let file = if gap.part == Part::Envelope { &bench.fixture.envelope } else { &files[&gap.file] };
        let end = file.len().min((gap.offset + gap.length) as usize);
        let bytes = file[gap.offset as usize..end].to_vec();
        for piece in bytes.chunks(if gap.part == Part::Chunk { CHUNK } else { bytes.len() }) {
            bench.fetcher.given(0, bundle, gap.part, piece);
            given += 1;
        }
        last = Some(gap);
    }
    bench.run(0, usize::MAX);
    given
}

#[test]
fn a_source_gives_what_is_lacking_without_a_broker() {
    for fixture in [several(), long_index()] {
        let files = fixture.files();
        let mut bench = Bench::new(fixture, 8);
        assert_eq!(bench.fetcher.gap(bench.fixture.digest), None, "it is not wanted yet");
        bench.start();
        assert!(pour(&mut bench, &files) > 4);
        assert!(bench.arrived(), "{:?}", bench.end);
        assert_eq!(bench.fetcher.gap(bench.fixture.digest), None);
    }
}

#[test]
fn what_a_source_has_otherwise_than_it_was_signed_is_lacking_still() {
    let right = several().files();
    let mut wrong = right.clone();
    wrong.get_mut("a.bin").unwrap()[CHUNK + 1] ^= 1;
    let mut bench = Bench::new(several(), 8);
    bench.start();
    pour(&mut bench, &wrong);
    let gap = bench.fetcher.gap(bench.fixture.digest).unwrap();
    assert_eq!((gap.file.as_str(), gap.offset), ("a.bin", CHUNK_BYTES));
    assert_eq!(bench.end, None);
    pour(&mut bench, &right);
    assert!(bench.arrived(), "{:?}", bench.end);
}

#[test]
fn what_a_source_gave_is_not_asked_of_the_broker() {
    let mut bench = Bench::new(several(), 2);
    bench.start();
    bench.connect();
    bench.run(0, 2);
    let files = bench.fixture.files();
    pour(&mut bench, &files);
    assert!(bench.arrived() && bench.subscribed.is_empty(), "{:?}", bench.subscribed);
}
