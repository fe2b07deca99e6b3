//! A client that other people wrote, `tritonclient` from PyPI, against a real agent: no figure, but whether it agrees.

use super::*;
use crate::python;

pub(crate) fn agrees(programs: &Path) -> anyhow::Result<Value> {
    let (fleet, bundle) = prepared(programs)?;
    let _agent = serving(&fleet, &bundle)?;
    let address = address(&fleet).context("the agent told no address")?;
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let script = tests.join("oracles/triton.py");
    let said = fleet.desk.done(&format!(
        "{} {} {address} {}",
        python("MEASURE_PYTHON")?.display(),
        script.display(),
        tests.join("models").display()
    ))?;
    Ok(said.trim().into())
}
