//! Releases of the example model in their places: who answers, who is counted, what stays in memory.

mod falls;
mod hostile;

use super::loader::Bench;
use super::*;
use crate::store::{Bundles, host};
use crate::testing::{Fixture, models};
use agent_core::Event;
use engine::{Input, Limits, Tensor, read_npy};
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use trust::Code;

struct Shelf {
    _state: tempfile::TempDir,
    bench: Bench,
    bundles: Bundles,
    events: UnboundedReceiver<Event>,
    /// Where sockets are heard, whoever waits.
    runtime: Runtime,
}

/// The tests' own program is started as a model's process too, with this one test: the library under the tests reads its
/// arguments, and nobody else sets this variable.
#[test]
fn is_a_process_where_it_was_started_as_one() {
    if std::env::var_os("PETREL_TESTS_WORKER").is_some() {
        run().unwrap();
    }
}

impl Shelf {
    fn of(fixtures: &[&Fixture]) -> Self {
        let state = tempfile::tempdir().unwrap();
        let bundles = Bundles::open(host(), state.path()).unwrap();
        fixtures.iter().for_each(|fixture| fixture.install(&bundles));
        let worker = Arc::new(Worker::default());
        let (say, events) = unbounded_channel();
        let (program, patience) = (Program::of_tests(), Duration::from_secs(60));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let handle = runtime.handle().clone();
        let bench = Bench { bundles: bundles.clone(), worker, program, patience, runtime: handle, events: say };
        Self { _state: state, bench, bundles, events, runtime }
    }

    fn serve(&self, main: &Fixture, fallback: Option<&Fixture>) -> Event {
        let place = |fixture: &Fixture| Place { bundle: fixture.digest, row_us: 1_000 };
        self.run(Task::Serve { stream: stream(), main: place(main), fallback: fallback.map(place) })
    }

    /// Does something that has an outcome.
    fn run(&self, task: Task) -> Event {
        self.bench.run(task).unwrap().unwrap()
    }

    fn worker(&self) -> &Arc<Worker> {
        &self.bench.worker
    }

    fn infer(&self, model: &str, release: Option<&str>, input: &Input) -> Result<Answered, Failure> {
        self.runtime.block_on(self.worker().infer(model, release, Question::of(input).unwrap()))
    }

    fn loaded(&self) -> Arc<Loaded> {
        self.worker().find("digits").unwrap().1.main
    }
}

fn stream() -> StreamName {
    "digits".parse().unwrap()
}

fn heldout() -> Tensor {
    read_npy(&models().join("digits/heldout_x.npy"), &Limits::default()).unwrap()
}

fn row(n: usize) -> Input {
    Input::Tensors(vec![("image".into(), heldout().rows(n..n + 1).unwrap())])
}

/// Answers and errors by release, since the last call.
fn observed(worker: &Worker) -> BTreeMap<u64, (u64, u64)> {
    worker.observe().into_iter().map(|o| (o.release, (o.counts.answers(), o.counts.errors))).collect()
}

#[test]
fn the_fallback_answers_what_the_release_cannot_and_each_is_counted() {
    let (good, bad) = (Fixture::digits(1), Fixture::digits_bad(2));
    let shelf = Shelf::of(&[&good, &bad]);
    let served = shelf.serve(&bad, Some(&good));
    assert!(matches!(served, Event::Served { .. }), "{served:?}");
    let mut by = BTreeMap::new();
    for n in 0..30 {
        let answered = shelf.infer("digits", None, &row(n)).unwrap();
        assert!(answered.answer.classes.is_some());
        *by.entry(answered.by.release).or_insert(0u64) += 1;
    }
    let (failed, answered) = (by[&1], by[&2]);
    assert!(failed > 0 && answered > 0);
    assert_eq!(observed(shelf.worker()), BTreeMap::from([(1, (failed, 0)), (2, (answered, failed))]));
    assert!(shelf.worker().observe().is_empty());
}

#[test]
fn a_new_process_takes_the_place_of_the_old_one_and_no_answer_is_lost() {
    let (one, two) = (Fixture::digits(1), Fixture::digits(2));
    let shelf = Shelf::of(&[&one, &two]);
    shelf.serve(&two, Some(&one));
    shelf.infer("digits", None, &row(0)).unwrap();
    let before = shelf.loaded();
    assert!(matches!(shelf.run(Task::Restart(stream())), Event::Restarted { outcome: Ok(()), .. }));
    let after = shelf.loaded();
    assert!(after.bundle == before.bundle && after.process.id() != before.process.id());
    // Who was asking the old one gets the answer.
    shelf.runtime.block_on(before.ask(&Question::of(&row(1)).unwrap())).unwrap();
    drop(before);
    shelf.infer("digits", Some("1"), &row(2)).unwrap();
    shelf.infer("digits", None, &row(3)).unwrap();
    let observed = shelf.worker().observe();
    let answers = |release| observed.iter().filter(|o| o.release == release).map(|o| o.counts.answers()).sum::<u64>();
    assert_eq!((answers(1), answers(2)), (1, 3), "{observed:?}");
    // Its own memory, which is some, and less than a process may take.
    let held: Vec<u64> = observed.iter().map(|o| o.resident).collect();
    assert!(held.iter().any(|held| (1 << 20..agent_core::most_memory(64)).contains(held)), "{held:?}");
    let nothing = shelf.run(Task::Restart("prime".parse().unwrap()));
    assert!(matches!(&nothing, Event::Restarted { outcome: Err(why), .. } if why.contains("prime")), "{nothing:?}");
}

#[test]
fn a_shadow_is_asked_what_was_answered_and_heard_by_nobody() {
    let (good, bad) = (Fixture::digits(1), Fixture::digits_bad(2));
    let shelf = Shelf::of(&[&good, &bad]);
    shelf.serve(&good, None);
    let place = Place { bundle: bad.digest, row_us: 1_000 };
    assert!(shelf.bench.run(Task::Shadow { stream: stream(), place }).unwrap().is_none());
    let (mut compared, mut others, mut asked) = (0, 0, 0);
    // It lets pass what comes while it is busy.
    while compared < 30 {
        assert_eq!(shelf.infer("digits", None, &row(asked % 100)).unwrap().by.release, 1);
        asked += 1;
        for (bundle, rows, differ) in shelf.worker().compared() {
            assert_eq!(bundle, bad.digest);
            (compared, others) = (compared + rows, others + differ);
        }
    }
    assert!(others > 0 && others < compared, "{others} of {compared}");
    assert_eq!(observed(shelf.worker()), BTreeMap::from([(1, (asked as u64, 0))]));
    assert!(shelf.infer("digits", Some("2"), &row(0)).is_err());
    // On trial it is the same process, and what answers next ends the shadow.
    let shadow = shelf.worker().find("digits").unwrap().1.shadow.unwrap().loaded.process.id();
    shelf.serve(&bad, Some(&good));
    assert_eq!(shelf.loaded().process.id(), shadow);
    assert!(shelf.worker().find("digits").unwrap().1.shadow.is_none());
}

#[test]
fn without_a_fallback_there_is_no_answer() {
    let bad = Fixture::digits_bad(2);
    let shelf = Shelf::of(&[&bad]);
    shelf.serve(&bad, None);
    let outcomes: Vec<bool> = (0..30).map(|n| shelf.infer("digits", None, &row(n)).is_ok()).collect();
    let errors = outcomes.iter().filter(|ok| !**ok).count() as u64;
    assert!(errors > 0);
    assert_eq!(observed(shelf.worker()), BTreeMap::from([(2, (30 - errors, errors))]));
}

#[test]
fn a_request_that_does_not_fit_is_nobodys_error() {
    let (good, bad) = (Fixture::digits(1), Fixture::digits_bad(2));
    let shelf = Shelf::of(&[&good, &bad]);
    shelf.serve(&bad, Some(&good));
    let wrong = Tensor::new(vec![1, 3], engine::Data::F32(vec![0.0; 3])).unwrap();
    let failure = shelf.infer("digits", None, &Input::Tensors(vec![("image".into(), wrong)])).unwrap_err();
    assert!(matches!(&failure, Failure::Request(why) if why.contains("must have the shape")), "{failure}");
    assert!(shelf.worker().observe().is_empty());
}

#[test]
fn a_release_can_be_asked_by_its_number_while_it_serves() {
    let (one, two) = (Fixture::digits(1), Fixture::digits(2));
    let shelf = Shelf::of(&[&one, &two]);
    shelf.serve(&two, Some(&one));
    assert_eq!(shelf.infer("digits", Some("1"), &row(0)).unwrap().by.release, 1);
    assert!(matches!(shelf.infer("digits", Some("3"), &row(0)), Err(Failure::UnknownRelease { .. })));
    assert!(matches!(shelf.infer("other", None, &row(0)), Err(Failure::UnknownModel(_))));
    assert!(matches!(shelf.infer("No Name", None, &row(0)), Err(Failure::UnknownModel(_))));
}

#[test]
fn a_release_in_memory_only_changes_its_place() {
    let (one, two) = (Fixture::digits(1), Fixture::digits(2));
    let shelf = Shelf::of(&[&one, &two]);
    shelf.serve(&one, None);
    let first = shelf.loaded();
    shelf.serve(&two, Some(&one));
    // Taken back: not even the disk is needed.
    shelf.bundles.discard(one.digest).unwrap();
    assert!(matches!(shelf.serve(&one, None), Event::Served { .. }));
    assert!(Arc::ptr_eq(&first, &shelf.loaded()));
}

#[test]
fn what_answered_before_goes_on_when_the_next_is_damaged() {
    let (one, two) = (Fixture::digits(1), Fixture::digits(2));
    let shelf = Shelf::of(&[&one, &two]);
    shelf.serve(&one, None);
    std::fs::write(shelf.bundles.complete(two.digest).join("labels.txt"), "x").unwrap();
    let Event::ServeFailed { refusal, .. } = shelf.serve(&two, Some(&one)) else { panic!("it served") };
    assert_eq!(refusal.code, Code::Size);
    assert_eq!(shelf.infer("digits", None, &row(0)).unwrap().by.release, 1);
}

#[test]
fn what_a_retired_release_did_last_is_still_told() {
    let one = Fixture::digits(1);
    let shelf = Shelf::of(&[&one]);
    shelf.serve(&one, None);
    shelf.infer("digits", None, &row(0)).unwrap();
    shelf.bench.run(Task::Stop(stream())).unwrap();
    assert!(shelf.worker().find("digits").is_err());
    assert_eq!(observed(shelf.worker()), BTreeMap::from([(1, (1, 0))]));
    assert!(shelf.worker().retired().is_empty());
}

#[test]
fn the_probe_passes_golden_vectors_and_refuses_other_answers() {
    let (good, bad) = (Fixture::digits(1), Fixture::digits_bad(2));
    let shelf = Shelf::of(&[&good, &bad]);
    for fixture in [&good, &bad] {
        let passed = shelf.run(Task::Probe(fixture.digest));
        assert!(matches!(passed, Event::ProbePassed { .. }), "{passed:?}");
    }
    shelf.serve(&good, None);
    let wrong = Fixture::digits_with_golden_of_others(3);
    wrong.install(&shelf.bundles);
    let Event::ProbeFailed { refusal, .. } = shelf.run(Task::Probe(wrong.digest)) else { panic!("it passed") };
    assert_eq!(refusal.code, Code::Golden);
    assert_eq!(shelf.infer("digits", None, &row(0)).unwrap().by.release, 1);
    let files = Fixture::of_files(&[("model.onnx", b"no model".to_vec())]);
    files.install(&shelf.bundles);
    let Event::ProbeFailed { refusal, .. } = shelf.run(Task::Probe(files.digest)) else { panic!("it passed") };
    assert_eq!(refusal.code, Code::Model);
}
