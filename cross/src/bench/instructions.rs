//! How many instructions an answer costs on 64-bit ARM: the engine, and ONNX Runtime's own program for ARM beside it.
//!
//! Decides what is counted: a plugin of qemu tells the count each time a program says something, and a program says
//! something after each round of calls. Two rounds of different length leave nothing but calls.

use super::Row;
use crate::build::{output, python, run as finish, workspace};
use crate::cross::{Wanted, folder};
use crate::debian;
use crate::qemu::emulator;
use anyhow::{Context, bail, ensure};
use board::Target;
use serde::Deserialize;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The processor: that of a Raspberry Pi 3 and of a Zero 2 W. qemu is told, and so is the inference library, which asks the
/// system of the machine that counts.
const PROCESSOR: &str = "cortex-a53";
const KIND: (&str, &str) = ("TRACT_CPU_AARCH64_KIND", "a53");
/// What such a processor says of itself. qemu shows programs the machine that counts, and ONNX Runtime finds no processor for
/// ARM there and follows a null pointer; what lies in the folder of libraries comes before what the machine has.
const SAYS_OF_ITSELF: &str = "processor\t: 0\nBogoMIPS\t: 38.40\nFeatures\t: fp asimd evtstrm crc32 cpuid\nCPU implementer\t: 0x41\n\
CPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: 0xd03\nCPU revision\t: 4\n\n";
/// Calls of each round: the first one lets both sides get warm.
const ROUNDS: [u64; 3] = [3, 2, 12];
/// Of the greatest value of an output.
const DIFFERENCE: f64 = 1e-3;

/// The program that measures the engine.
pub(super) const PROGRAM: &str = "measure";

/// As `zoo.py` says it.
#[derive(Deserialize)]
struct Example {
    folder: String,
    name: String,
}

/// What counts.
struct Counter {
    qemu: PathBuf,
    plugin: PathBuf,
    told: PathBuf,
}

/// A row for each example model.
pub(super) fn rows() -> anyhow::Result<Vec<Row>> {
    // Beside the one that is shipped: the two are built from other sets of features.
    let measured = Wanted { name: "measured".to_owned(), ..Wanted::all(Target::Aarch64, false) };
    let (agent, ours) = measured.build_with(PROGRAM)?;
    let desk = Desk::ready()?;
    let theirs = Theirs::ready(&desk.place, &desk.maker)?;
    let mut rows = Vec::new();
    for (name, model) in desk.examples()? {
        eprintln!("{name}");
        let own = desk.counter.count(agent.tools.libraries(), Command::new(&ours).arg(&model).arg("1"))?;
        let beside = workspace().join("tests/models/beside.py");
        let other = desk.counter.count(&theirs.root, theirs.python().arg(beside).arg(&model).arg("1"))?;
        let beside = format!("{:.1} over {:.1} thousand", own / 1e3, other / 1e3);
        rows.push(Row::new(&format!("{name}, instructions an answer"), own / other, "x").beside(&beside));
    }
    Ok(rows)
}

/// Instructions an answer of each example model, by the program that measures the engine.
pub(super) fn of(ours: &Path, libraries: &Path) -> anyhow::Result<Vec<f64>> {
    let desk = Desk::ready()?;
    let count = |(_, model): (String, PathBuf)| desk.counter.count(libraries, Command::new(ours).arg(model).arg("1"));
    desk.examples()?.into_iter().map(count).collect()
}

/// What is counted with, and what it is counted on.
struct Desk {
    place: PathBuf,
    /// The Python that makes the example models.
    maker: PathBuf,
    counter: Counter,
}

impl Desk {
    fn ready() -> anyhow::Result<Self> {
        let place = folder().join("cross/instructions");
        fs::create_dir_all(&place)?;
        let place = std::path::absolute(place)?;
        let maker = python("bench/engine", "tests/models/zoo-requirements.txt")?;
        Ok(Self { counter: Counter::make(&place)?, maker, place })
    }

    /// Name and folder of each example model.
    fn examples(&self) -> anyhow::Result<Vec<(String, PathBuf)>> {
        let script = workspace().join("tests/models/zoo.py");
        let listed = output(Command::new(&self.maker).arg(script).arg(&self.place).arg("examples"))?;
        let examples = listed.lines().map(serde_json::from_str::<Example>);
        examples.map(|example| example.map(|it| (it.name, self.place.join(it.folder))).map_err(Into::into)).collect()
    }
}

impl Counter {
    fn make(place: &Path) -> anyhow::Result<Self> {
        let plugin = place.join("count.so");
        let mut compile = Command::new("cc");
        compile.args(["-O2", "-Wall", "-fPIC", "-shared", "-o"]).arg(&plugin);
        finish(compile.arg(workspace().join("cross/qemu/count.c")))?;
        Ok(Self { qemu: emulator(Target::Aarch64)?, plugin, told: place.join("counts") })
    }

    /// Instructions a call of a program that is asked for rounds of calls, as `measure` and `beside.py` are.
    fn count(&self, libraries: &Path, program: &Command) -> anyhow::Result<f64> {
        let mut command = Command::new(&self.qemu);
        let plugin = format!("{},to={}", self.plugin.display(), self.told.display());
        command.args(["-cpu", PROCESSOR, "-plugin", &plugin, "-L"]).arg(libraries);
        command.arg(program.get_program()).args(program.get_args()).env(KIND.0, KIND.1);
        for (name, value) in program.get_envs() {
            command.env(name, value.unwrap_or_default());
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("cannot run qemu")?;
        let mut asked = child.stdin.take().context("no way in")?;
        for calls in ROUNDS {
            writeln!(asked, "{calls}")?;
        }
        drop(asked);
        let done = child.wait_with_output()?;
        ensure!(done.status.success(), "{command:?} ended with {}", done.status);
        let said = String::from_utf8(done.stdout)?;
        let start: serde_json::Value = serde_json::from_str(said.lines().next().context("it said nothing")?)?;
        let difference = start["difference"].as_f64().context("it did not say how right it is")?;
        ensure!(difference <= DIFFERENCE, "an answer is {difference:e} of its greatest value from the reference");
        let told = fs::read_to_string(&self.told)?;
        let counts = told.lines().map(str::parse).collect::<Result<Vec<u64>, _>>()?;
        // After the start, and after each round.
        let [_, warm, short, long] = counts[..] else {
            bail!("{} counts of a program that says four lines", counts.len())
        };
        let (short, long) = (short - warm, long - short);
        ensure!(long > short, "{long} instructions in {} calls, {short} in {}", ROUNDS[2], ROUNDS[1]);
        Ok((long - short) as f64 / (ROUNDS[2] - ROUNDS[1]) as f64)
    }
}

/// Python, numpy and ONNX Runtime as they are for ARM.
struct Theirs {
    root: PathBuf,
    wheels: PathBuf,
}

impl Theirs {
    fn ready(place: &Path, maker: &Path) -> anyhow::Result<Self> {
        let root = debian::python(&place.join("debian"))?;
        fs::create_dir_all(root.join("proc"))?;
        fs::write(root.join("proc/cpuinfo"), SAYS_OF_ITSELF)?;
        let wheels = place.join("wheels");
        let stamp = wheels.join("ready");
        if !stamp.exists() {
            // The very versions that made the answers.
            let listed = fs::read_to_string(workspace().join("tests/models/zoo-requirements.txt"))?;
            let wanted = |line: &&str| line.starts_with("numpy==") || line.starts_with("onnxruntime==");
            let mut pip = Command::new(maker);
            pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary=:all:"]);
            pip.args(["--python-version", "3.11", "--implementation", "cp", "--platform", "manylinux_2_28_aarch64"]);
            pip.args(["--platform", "manylinux_2_27_aarch64", "--platform", "manylinux2014_aarch64", "--target"]);
            finish(pip.arg(&wheels).args(listed.lines().filter(wanted)))?;
            fs::write(stamp, "")?;
        }
        Ok(Self { root, wheels })
    }

    fn python(&self) -> Command {
        let mut command = Command::new(self.root.join("usr/bin/python3.11"));
        command.env("PYTHONPATH", &self.wheels).env("PYTHONDONTWRITEBYTECODE", "1");
        command
    }
}
