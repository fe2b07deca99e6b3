//! Models that somebody made to do harm: each ends in a code, in a process that nobody else feels, and what answered
//! before goes on.
//!
//! They are written byte by byte, since no tool would: the fields of ONNX's protobuf that are used are named here. What a
//! model cannot be written to do (to stop, to leak, to be killed) is done to its process in `falls`.

use super::falls::{fall, pid};
use super::*;
use rustix::process::{Pid, Resource, Rlimit, Signal, WaitId, WaitIdOptions, kill_process, prlimit, waitid};
use std::fs;

/// A field of protobuf whose value has a length.
fn field(number: u8, value: &[u8]) -> Vec<u8> {
    [vec![number << 3 | 2], varint(value.len() as u64), value.to_vec()].concat()
}

/// A field whose value is a number.
fn number(field: u8, value: u64) -> Vec<u8> {
    [vec![field << 3], varint(value)].concat()
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// A value of the graph's edge: FP32 of that shape.
fn value(name: &str, shape: &[u64]) -> Vec<u8> {
    let dims: Vec<u8> = shape.iter().flat_map(|n| field(1, &number(1, *n))).collect();
    let tensor = [number(1, 1), field(2, &dims)].concat();
    [field(1, name.as_bytes()), field(2, &field(1, &tensor))].concat()
}

fn node(operator: &str, inputs: &[&str], outputs: &[&str], attributes: &[Vec<u8>]) -> Vec<u8> {
    let inputs: Vec<u8> = inputs.iter().flat_map(|name| field(1, name.as_bytes())).collect();
    let outputs: Vec<u8> = outputs.iter().flat_map(|name| field(2, name.as_bytes())).collect();
    let attributes: Vec<u8> = attributes.iter().flat_map(|attribute| field(5, attribute)).collect();
    [inputs, outputs, field(4, operator.as_bytes()), attributes].concat()
}

/// Whole numbers as a constant.
fn numbers(name: &str, values: &[u64]) -> Vec<u8> {
    let data: Vec<u8> = values.iter().flat_map(|n| n.to_le_bytes()).collect();
    [number(1, values.len() as u64), number(2, 7), field(8, name.as_bytes()), field(9, &data)].concat()
}

fn graph(nodes: &[Vec<u8>], constants: &[Vec<u8>]) -> Vec<u8> {
    let nodes: Vec<u8> = nodes.iter().flat_map(|node| field(1, node)).collect();
    let constants: Vec<u8> = constants.iter().flat_map(|constant| field(5, constant)).collect();
    let edge = [field(11, &value("x", &[1, 4])), field(12, &value("y", &[1, 4]))].concat();
    [nodes, field(2, b"graph"), constants, edge].concat()
}

fn model(graph: &[u8]) -> Vec<u8> {
    [number(1, 8), field(8, &[field(1, b""), number(2, 17)].concat()), field(7, graph)].concat()
}

/// A graph in a graph in a graph, so deep: each is the branch of an If.
fn bomb(depth: usize) -> Vec<u8> {
    let floor = graph(&[node("Relu", &["x"], &["y"], &[])], &[]);
    let branch = |name: &str, graph: &[u8]| [field(1, name.as_bytes()), field(6, graph), vec![0xa0, 1, 5]].concat();
    (0..depth).fold(floor.clone(), |inner, _| {
        let branches = [branch("then_branch", &inner), branch("else_branch", &floor)];
        graph(&[node("If", &["x"], &["y"], &branches)], &[])
    })
}

/// Weights that lie in a file outside of the bundle.
fn elsewhere() -> Vec<u8> {
    let entry = |key: &str, value: &str| field(13, &[field(1, key.as_bytes()), field(2, value.as_bytes())].concat());
    let tensor = [
        number(1, 4),
        number(2, 1),
        field(8, b"w"),
        entry("location", "../../../../../../etc/passwd"),
        entry("length", "16"),
        number(14, 1),
    ];
    graph(&[node("Add", &["x", "w"], &["y"], &[])], &[tensor.concat()])
}

fn hostile() -> Vec<(&'static str, Vec<u8>)> {
    let relu = |input: &str, output: &str| node("Relu", &[input], &[output], &[]);
    let gigabyte = [node("ConstantOfShape", &["n"], &["c"], &[]), node("Add", &["x", "c"], &["y"], &[])];
    let body = field(6, &graph(&[relu("x", "y")], &[]));
    let endless = [field(1, b"body"), body, vec![0xa0, 1, 5]].concat();
    let mut vast = graph(&[relu("x", "y")], &[]);
    vast.extend(field(11, &value("z", &[u64::MAX >> 1, u64::MAX >> 1])));
    vec![
        ("a dimension without end", vast),
        ("a gigabyte of a few bytes", graph(&gigabyte, &[numbers("n", &[1 << 14, 1 << 14])])),
        (
            "a loop without end",
            graph(&[node("Loop", &["n", "", "x"], &["y"], &[endless])], &[numbers("n", &[u64::MAX >> 1])]),
        ),
        ("a graph without bottom", bomb(1_000)),
        ("an operator that nobody knows", graph(&[node("Quine", &["x"], &["y"], &[])], &[])),
        ("a circle", graph(&[relu("z", "y"), relu("y", "z")], &[])),
        ("weights outside", elsewhere()),
    ]
}

const ALONE: &str = "PETREL_TESTS_ALONE";

/// What is done to a model's process.
type Spoil = fn(Pid);

/// In a program of its own, whose memory is not that of other tests: this very test is started again.
#[test]
fn hostile_models_end_in_their_own_process_and_what_answered_before_goes_on() {
    if std::env::var_os(ALONE).is_none() {
        let mut alone = std::process::Command::new(std::env::current_exe().unwrap());
        let name = "worker::tests::hostile::hostile_models_end_in_their_own_process_and_what_answered_before_goes_on";
        let said = alone.args([name, "--exact", "--nocapture", "--test-threads=1"]).env(ALONE, "1").output().unwrap();
        let text = String::from_utf8_lossy(&said.stdout);
        assert!(said.status.success(), "{text}{}", String::from_utf8_lossy(&said.stderr));
        let (_, told) = text.split_once("hostile models:").unwrap_or_else(|| panic!("{text}"));
        return println!("hostile models:{}", told.lines().next().unwrap_or_default());
    }
    let (good, next) = (Fixture::digits(1), Fixture::digits(2));
    let mut shelf = Shelf::of(&[&good, &next]);
    shelf.serve(&good, None);
    let all: Vec<(&str, Fixture)> = hostile()
        .into_iter()
        .map(|(what, graph)| (what, Fixture::of_files(&[("model.onnx", model(&graph))])))
        .collect();
    // That the writer of these bytes writes models at all.
    let honest = Fixture::of_files(&[("model.onnx", model(&graph(&[node("Relu", &["x"], &["y"], &[])], &[])))]);
    for fixture in all.iter().map(|(_, fixture)| fixture).chain([&honest]) {
        fixture.install(&shelf.bundles);
    }
    let passed = shelf.run(Task::Probe(honest.digest));
    assert!(matches!(passed, Event::ProbePassed { .. }), "{passed:?}");
    assert_eq!(shelf.infer("digits", None, &row(0)).unwrap().by.release, 1);
    let before = memory();
    for (what, fixture) in &all {
        let event = shelf.run(Task::Probe(fixture.digest));
        let Event::ProbeFailed { refusal, .. } = event else { panic!("{what}: {event:?}") };
        assert_eq!(refusal.code, Code::Model, "{what}: {refusal}");
        assert_eq!(shelf.infer("digits", None, &row(0)).unwrap().by.release, 1, "{what}");
    }
    // What no file makes a model do is done to its process, while the one before stands in.
    let spoilt: [(&str, Spoil); 3] = [
        ("ends in its first answers", |pid| {
            kill_process(pid, Signal::ABORT).unwrap();
            // One of its threads could answer before another has taken the signal. Its minder may have seen the end first.
            let _ = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
        }),
        ("sleeps", |pid| {
            kill_process(pid, Signal::STOP).unwrap();
            waitid(WaitId::Pid(pid), WaitIdOptions::STOPPED | WaitIdOptions::NOWAIT).unwrap();
        }),
        ("leaks", |pid| {
            let limit = Rlimit { current: Some(1 << 20), maximum: Some(1 << 20) };
            prlimit(Some(pid), Resource::Data, limit).unwrap();
        }),
    ];
    let large = Tensor::stack((0..2).map(|_| heldout().rows(0..256).unwrap()).collect()).unwrap();
    let large = Input::Tensors(vec![("image".into(), large)]);
    for (what, spoil) in &spoilt {
        shelf.serve(&next, Some(&good));
        spoil(pid(&shelf.loaded()));
        let input = if *what == "leaks" { &large } else { &row(0) };
        assert_eq!(shelf.infer("digits", None, input).unwrap().by.release, 1, "{what}");
        fall(&mut shelf);
        shelf.serve(&good, None);
        shelf.worker().observe();
    }
    let grown = memory().saturating_sub(before);
    println!("hostile models: {} ended, the agent grew by {grown} KiB", all.len() + spoilt.len());
    assert!(grown < 4 << 10, "{grown} KiB more");
}

/// The most that this program ever took, KiB.
fn memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix("kB").unwrap().trim().parse::<u64>().unwrap()
}
