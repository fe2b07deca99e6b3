//! Oracles: other people's programs that must agree with ours. Each makes its own virtual environment
//! and starts and ends its own servers.

use crate::build::{self, Profile, binaries, cargo, python, workspace};
use crate::postgres::Server;
use anyhow::{Context, bail};
use std::path::PathBuf;
use std::process::{Command, Stdio};

type Oracle = fn() -> anyhow::Result<()>;

const ORACLES: [(&str, Oracle); 10] = [
    ("reference", reference),
    ("onnx", onnx),
    ("sklearn", sklearn),
    ("drift", drift),
    ("tuf", tuf),
    ("oms", oms),
    ("mosquitto", mosquitto),
    ("postgres", postgres),
    ("triton", triton),
    ("rest", rest),
];

/// `cargo xtask oracles [NAME]`
pub(crate) fn run(args: &[String]) -> anyhow::Result<()> {
    match args {
        [] => agree(None),
        [name] => agree(Some(name)),
        _ => bail!("one oracle at a time, or none for all"),
    }
}

/// Runs one oracle, or all.
fn agree(name: Option<&str>) -> anyhow::Result<()> {
    let chosen: Vec<_> = ORACLES.iter().filter(|(known, _)| name.is_none_or(|n| n == *known)).collect();
    if chosen.is_empty() {
        let known: Vec<&str> = ORACLES.iter().map(|(name, _)| *name).collect();
        bail!("there is no oracle `{}`: known are {}", name.unwrap_or_default(), known.join(", "));
    }
    for (name, oracle) in chosen {
        println!("oracle {name}");
        oracle().with_context(|| format!("oracle {name}"))?;
        println!("oracle {name}: agrees");
    }
    Ok(())
}

/// The reference answers in tests/models, computed again by scikit-learn and ONNX Runtime.
fn reference() -> anyhow::Result<()> {
    let script = workspace().join("tests/oracles/reference.py");
    build::run(Command::new(python("oracles/python", "tests/oracles/requirements.txt")?).arg(script))
}

/// ONNX's conformance cases, against the inference library alone and against our engine, and what they say of each
/// operator against docs/operators.md (which `PETREL_WRITE=1` writes anew).
fn onnx() -> anyhow::Result<()> {
    let folder = workspace().join("target/oracles/onnx-cases");
    let script = workspace().join("tests/oracles/onnx_nodes.py");
    build::run(Command::new(python("oracles/python", "tests/oracles/requirements.txt")?).arg(script).arg(&folder))?;
    // Of the whole workspace, so that the inference library is not built again with other features.
    let mut build = cargo();
    build.args(["build", "--workspace", "--example", "conform"]);
    build::run(&mut build)?;
    let mut conform = Command::new(build::folder(Profile::Dev).join("examples/conform"));
    conform.arg(folder).arg(workspace().join("target/oracles/onnx.jsonl")).arg(workspace().join("docs/operators.md"));
    if std::env::var_os("PETREL_WRITE").is_some() {
        conform.arg("--write");
    }
    build::run(&mut conform)
}

/// Models of scikit-learn, packed and asked with the real binaries, against ONNX Runtime.
fn sklearn() -> anyhow::Result<()> {
    let script = workspace().join("tests/oracles/scikit_learn.py");
    let python = python("oracles/python", "tests/oracles/requirements.txt")?;
    let folder = binaries(Profile::Dev)?;
    build::run(Command::new(python).arg(script).arg("--json").arg("--bin").arg(folder))
}

/// Generated tables, compared by the real `petrel` and by scipy.
fn drift() -> anyhow::Result<()> {
    let script = workspace().join("tests/oracles/drift.py");
    let python = python("oracles/python", "tests/oracles/requirements.txt")?;
    build::run(Command::new(python).arg(script).arg("--bin").arg(binaries(Profile::Dev)?))
}

/// An example program of the trust crate.
fn trust_example(name: &str) -> anyhow::Result<PathBuf> {
    let mut build = cargo();
    build.args(["build", "--workspace", "--example", name]);
    build::run(&mut build)?;
    Ok(build::folder(Profile::Dev).join("examples").join(name))
}

/// 500 random chains of roots, against python-tuf.
fn tuf() -> anyhow::Result<()> {
    let script = workspace().join("tests/oracles/root_chains.py");
    let python = python("oracles/trust", "tests/oracles/requirements.txt")?;
    let mut chains = Command::new(trust_example("root_chains")?).arg("500").stdout(Stdio::piped()).spawn()?;
    let told = chains.stdout.take().context("the chains have no output")?;
    build::run(Command::new(python).arg(script).stdin(told))?;
    anyhow::ensure!(chains.wait()?.success(), "the chains were not made");
    Ok(())
}

/// `model.sig` both ways, against the tool of OpenSSF Model Signing.
fn oms() -> anyhow::Result<()> {
    let script = workspace().join("tests/oracles/model_signatures.py");
    let python = python("oracles/trust", "tests/oracles/requirements.txt")?;
    let (example, petrel) = (trust_example("model_signatures")?, binaries(Profile::Dev)?.join("petrel"));
    build::run(Command::new(python).arg(script).arg(example).arg(petrel))
}

/// An agent as people run it, asked by `tritonclient` for everything that the protocol has.
fn triton() -> anyhow::Result<()> {
    let python = python("oracles/python", "tests/oracles/requirements.txt")?;
    let folder = binaries(Profile::Dev)?;
    let mut measure = Command::new(folder.join("measure"));
    build::run(measure.arg(&folder).args(["device", "triton"]).env("MEASURE_PYTHON", python))
}

/// The REST API of a real bridge against its own OpenAPI document, by schemathesis, with a token of each role.
fn rest() -> anyhow::Result<()> {
    let script = workspace().join("tests/oracles/rest.py");
    let python = python("oracles/rest", "tests/oracles/rest-requirements.txt")?;
    build::run(Command::new(python).arg(script).arg("--bin").arg(binaries(Profile::Dev)?))
}

/// What end-to-end tests do with the broker inside, with a real Mosquitto as `petrel broker config` sets it up: the
/// conformance body, and devices that misuse their certificates or are thrown out.
fn mosquitto() -> anyhow::Result<()> {
    let program =
        ["/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto"].into_iter().find(|p| std::path::Path::new(p).exists());
    program.context("Mosquitto is not installed: apt-get install mosquitto")?;
    let mut test = cargo();
    build::run(test.args(["test", "--workspace", "--test", "end_to_end", "mosquitto"]))
}

/// What the bridge keeps, on a real PostgreSQL: the tests of the store, a random history that must be the same as in SQLite, and
/// a bridge whose server goes and comes.
fn postgres() -> anyhow::Result<()> {
    let server = Server::start(&binaries(Profile::Dev)?.join("petrel"))?;
    for which in [["--bin", "petrel", "store::"], ["--test", "end_to_end", "postgres"]] {
        let mut test = cargo();
        test.args(["test", "--workspace"]).args(which);
        server.introduce(&mut test);
        build::run(&mut test)?;
    }
    Ok(())
}
