//! Processes that are killed, stopped, or left without memory: what the one who asked hears, what the core is told, and
//! that another takes the place.

use super::*;
use rustix::process::{Pid, Resource, Rlimit, Signal, WaitId, WaitIdOptions, kill_process, prlimit, waitid};
use std::time::Instant;

const PATIENCE: Duration = Duration::from_secs(60);

pub(super) fn pid(loaded: &Loaded) -> Pid {
    let id = loaded.process.id().expect("a process");
    Pid::from_raw(i32::try_from(id).unwrap()).unwrap()
}

/// The next fall that the core hears of, in words.
pub(super) fn fall(shelf: &mut Shelf) -> String {
    match shelf.events.blocking_recv() {
        Some(Event::ProcessFell { stream, why, .. }) if stream == super::stream() => why,
        other => panic!("{other:?}"),
    }
}

/// Asks until there is an answer again.
fn answers_again(shelf: &Shelf) -> u64 {
    let until = Instant::now() + PATIENCE;
    loop {
        match shelf.infer("digits", None, &row(0)) {
            Ok(answered) => return answered.by.release,
            Err(Failure::Away) if Instant::now() < until => std::thread::yield_now(),
            Err(failure) => panic!("{failure}"),
        }
    }
}

#[test]
fn a_process_that_is_killed_is_told_of_and_another_takes_its_place() {
    let one = Fixture::digits(1);
    let mut shelf = Shelf::of(&[&one]);
    shelf.serve(&one, None);
    let loaded = shelf.loaded();
    for _ in 0..2 {
        let before = pid(&loaded);
        kill_process(before, Signal::KILL).unwrap();
        let why = fall(&mut shelf);
        assert!(why.contains("SIGKILL") && why.contains("memory is short"), "{why}");
        assert_eq!(answers_again(&shelf), 1);
        assert_ne!(pid(&loaded), before);
    }
}

#[test]
fn a_process_that_hangs_is_ended_in_its_time_and_the_fallback_answers() {
    let (one, two) = (Fixture::digits(1), Fixture::digits(2));
    let mut shelf = Shelf::of(&[&one, &two]);
    shelf.serve(&two, Some(&one));
    let process = pid(&shelf.loaded());
    kill_process(process, Signal::STOP).unwrap();
    // All of its threads, which takes a moment.
    waitid(WaitId::Pid(process), WaitIdOptions::STOPPED | WaitIdOptions::NOWAIT).unwrap();
    assert_eq!(shelf.infer("digits", None, &row(0)).unwrap().by.release, 1);
    assert_eq!(fall(&mut shelf), "its process gave no answer within 2s");
    assert_eq!(observed(shelf.worker()), BTreeMap::from([(1, (1, 0)), (2, (0, 1))]));
    assert!(shelf.infer("digits", Some("2"), &row(0)).is_ok_and(|a| a.by.release == 2) || answers_again(&shelf) > 0);
}

#[test]
fn a_process_that_runs_out_of_its_memory_falls_alone() {
    let one = Fixture::digits(1);
    let mut shelf = Shelf::of(&[&one]);
    shelf.serve(&one, None);
    let limit = Rlimit { current: Some(1 << 20), maximum: Some(1 << 20) };
    prlimit(Some(pid(&shelf.loaded())), Resource::Data, limit).unwrap();
    let rows = heldout().rows(0..256).unwrap();
    let large = Tensor::stack((0..40).map(|_| rows.clone()).collect()).unwrap();
    let failure = shelf.infer("digits", None, &Input::Tensors(vec![("image".into(), large)])).unwrap_err();
    assert!(matches!(failure, Failure::Model(_)), "{failure}");
    fall(&mut shelf);
    assert_eq!(answers_again(&shelf), 1);
}

#[test]
fn a_process_ends_with_the_last_who_needs_it() {
    let one = Fixture::digits(1);
    let shelf = Shelf::of(&[&one]);
    shelf.serve(&one, None);
    let process = rustix::process::pidfd_open(pid(&shelf.loaded()), rustix::process::PidfdFlags::empty()).unwrap();
    shelf.bench.run(Task::Stop(stream())).unwrap();
    shelf.worker().observe();
    // The descriptor of a process that has ended can be read from.
    let mut polled = [rustix::event::PollFd::new(&process, rustix::event::PollFlags::IN)];
    assert_eq!(rustix::event::poll(&mut polled, None).unwrap(), 1);
}

#[test]
fn many_ask_at_once_and_each_hears_its_own_answer() {
    let one = Fixture::digits(1);
    let shelf = Shelf::of(&[&one]);
    shelf.serve(&one, None);
    let class = |n: usize| shelf.infer("digits", None, &row(n)).unwrap().answer.classes.unwrap().remove(0).index;
    let alone: Vec<usize> = (0..12).map(class).collect();
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..12).map(|n| scope.spawn(move || (0..20).map(|_| class(n)).collect::<Vec<_>>())).collect();
        for (n, asked) in all.into_iter().enumerate() {
            assert_eq!(asked.join().unwrap(), vec![alone[n]; 20]);
        }
    });
}
