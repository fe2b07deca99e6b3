//! What is delivered: real bundles of any size. Their model is one product with a matrix of random numbers, which costs next
//! to nothing to run, and whose answers are known without running it: a row of zeros and one 1 gives a row of the matrix.
//!
//! Decides what is in the model's file, byte by byte (ONNX is a protobuf). Whether it is a model is for `petrel pack` to say.

use crate::programs::Desk;
use anyhow::Context;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use trust::Digest;

/// A row of the matrix has 20,000 bytes.
const COLUMNS: usize = 5_000;
/// `TensorProto.FLOAT`
const FLOAT: u64 = 1;
const OPSET: u64 = 17;
const IR: u64 = 8;

/// What a release is made of.
pub(crate) struct Release<'a> {
    /// Its stream.
    pub(crate) stream: &'a str,
    /// Its version.
    pub(crate) version: &'a str,
    /// Rows of its matrix.
    pub(crate) rows: usize,
    /// Rows at the beginning that every release of the same size has.
    pub(crate) same: usize,
}

/// A bundle that was packed, signed and pushed.
pub(crate) struct Bundle {
    /// Its folder.
    pub(crate) dir: PathBuf,
    /// `stream@version`
    pub(crate) name: String,
    /// The digest of its statement, as devices name its folder.
    pub(crate) statement: String,
    /// Bytes of its signed files.
    pub(crate) bytes: u64,
    /// Digests of its chunks, but those of the list itself.
    chunks: Vec<[u8; 32]>,
}

impl Release<'_> {
    /// Packs it as a person would, and hands it to land.
    pub(crate) fn push(&self, desk: &Desk) -> anyhow::Result<Bundle> {
        let Self { stream, version, rows, .. } = self;
        let weights = self.weights();
        let last = (rows - 1) * COLUMNS * 4;
        let hot = |row: usize| (0..*rows).flat_map(move |at| f32::from(u8::from(at == row)).to_le_bytes());
        let x: Vec<u8> = hot(0).chain(hot(rows - 1)).collect();
        let y = [&weights[..COLUMNS * 4], &weights[last..]].concat();
        desk.write("x.npy", npy(&[2, *rows], &x))?;
        desk.write("y.npy", npy(&[2, COLUMNS], &y))?;
        desk.write("model.onnx", model(*rows, &weights))?;
        let name = format!("{stream}-{version}");
        let packed = desk.json(&format!(
            "petrel pack model.onnx --stream {stream} --version {version} --golden x.npy y.npy -o {name}"
        ))?;
        fs::remove_file(desk.path("model.onnx"))?;
        desk.done(&format!("petrel sign {name} --key keys/publisher.pem"))?;
        desk.done(&format!("petrel push {name}"))?;
        let statement = packed["statement_sha256"].as_str().context("no digest was told")?.to_owned();
        Bundle::of(desk.path(&name), format!("{stream}@{version}"), statement)
    }

    fn weights(&self) -> Vec<u8> {
        let mut dice = fastrand::Rng::with_seed(7);
        let mut weights = Vec::with_capacity(self.rows * COLUMNS * 4);
        for row in 0..self.rows {
            if row == self.same {
                dice.seed(Digest::of(self.version.as_bytes()).0[0].into());
            }
            weights.extend((0..COLUMNS).flat_map(|_| (dice.f32() - 0.5).to_le_bytes()));
        }
        weights
    }
}

impl Bundle {
    /// The bundle in a folder.
    pub(crate) fn of(dir: PathBuf, name: String, statement: String) -> anyhow::Result<Self> {
        let mut bytes = 0;
        for (_, path) in files(&dir)? {
            bytes += fs::metadata(path)?.len();
        }
        let chunks = fs::read(dir.join("chunks.bin"))?.as_chunks().0.to_vec();
        Ok(Self { dir, name, statement, bytes, chunks })
    }

    /// What part of its chunks another one has too.
    pub(crate) fn shared_with(&self, other: &Bundle) -> f64 {
        let theirs: BTreeSet<_> = other.chunks.iter().collect();
        let shared = self.chunks.iter().filter(|chunk| theirs.contains(chunk)).count();
        shared as f64 / self.chunks.len() as f64
    }
}

/// The files of a bundle that a device must have, by name.
pub(crate) fn files(dir: &Path) -> anyhow::Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name != "model.sig" && name != "bundle.dsse.json" {
            found.push((name, path));
        }
    }
    found.sort();
    Ok(found)
}

/// An array of 32-bit floats, as numpy saves it.
pub(crate) fn npy(shape: &[usize], values: &[u8]) -> Vec<u8> {
    let shape: String = shape.iter().map(|n| format!("{n},")).collect();
    let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({shape}), }}");
    header.push_str(&" ".repeat(63 - (10 + header.len()) % 64));
    header.push('\n');
    let length = (header.len() as u16).to_le_bytes();
    [&b"\x93NUMPY\x01\x00"[..], &length, header.as_bytes(), values].concat()
}

/// `y = x w`, with any number of rows in `x`.
fn model(rows: usize, weights: &[u8]) -> Vec<u8> {
    let (rows, columns) = (rows as u64, COLUMNS as u64);
    let tensor = [number(1, rows), number(1, columns), number(2, FLOAT), text(8, "w"), field(9, weights)].concat();
    let node = [text(1, "x"), text(1, "w"), text(2, "y"), text(4, "MatMul")].concat();
    let ports = [field(11, &port("x", rows)), field(12, &port("y", columns))].concat();
    let graph = [field(1, &node), text(2, "graph"), field(5, &tensor), ports].concat();
    let opset = [text(1, ""), number(2, OPSET)].concat();
    [number(1, IR), field(7, &graph), field(8, &opset)].concat()
}

fn port(name: &str, width: u64) -> Vec<u8> {
    let shape = [field(1, &text(2, "n")), field(1, &number(1, width))].concat();
    let tensor = [number(1, FLOAT), field(2, &shape)].concat();
    [text(1, name), field(2, &field(1, &tensor))].concat()
}

/// A protobuf field that is a number.
fn number(tag: u64, value: u64) -> Vec<u8> {
    [varint(tag << 3), varint(value)].concat()
}

/// A protobuf field that has a length.
fn field(tag: u64, value: &[u8]) -> Vec<u8> {
    [&varint(tag << 3 | 2), &varint(value.len() as u64), value].concat()
}

fn text(tag: u64, value: &str) -> Vec<u8> {
    field(tag, value.as_bytes())
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value > 127 {
        bytes.push(value as u8 | 128);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}
