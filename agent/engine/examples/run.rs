//! Runs a model on an archive of named arrays: `run MODEL.onnx IN.npz OUT.npz`.
//!
//! Every array of the first archive is an input by its name; every output of the
//! model becomes an array of the second.

use std::error::Error;
use std::path::Path;

use petrel_engine::{Limits, Model, read_archive, write_archive};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, input, output] = arguments.as_slice() else {
        return Err("give three files: MODEL.onnx IN.npz OUT.npz".into());
    };
    let limits = Limits::default();
    let model = Model::load(Path::new(model), &limits)?;
    let inputs = read_archive(Path::new(input), &limits)?;
    let outputs = model.run_rows(&model.arrange(&inputs)?)?;
    let names = model.outputs().iter().map(|port| port.name.clone());
    write_archive(Path::new(output), names.zip(&outputs))?;
    Ok(())
}
