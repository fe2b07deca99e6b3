//! Weights that a model keeps in files beside it.
//!
//! Decides which files those may be: plain siblings by name, nothing that leads elsewhere, no more bytes
//! than the tensor declares. Knows nothing of bundles; whether such a file may be believed has been decided
//! before the model is opened.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use tract_onnx::pb::tensor_proto::{DataLocation, DataType};
use tract_onnx::pb::{GraphProto, ModelProto, TensorProto};

use crate::Limits;
use crate::error::LoadError;
use crate::tensor::elements;

/// Bytes of a file's name.
const NAME: usize = 128;

/// The names of the files beside the model that hold its weights.
///
/// # Errors
/// `ExternalData` for a location that is no plain name.
pub(crate) fn names(proto: &ModelProto) -> Result<BTreeSet<String>, LoadError> {
    let mut names = BTreeSet::new();
    let mut note = |tensor: &TensorProto| {
        names.insert(location(tensor)?.to_owned());
        Ok(())
    };
    proto.graph.iter().try_for_each(|graph| each(graph, &mut note))?;
    Ok(names)
}

/// Brings the weights that lie in `dir` into the model, at most `limits.model_bytes` of them.
///
/// # Errors
/// `ExternalData` for a place that is none, `TooLarge`, and `Io`.
pub(crate) fn gather(proto: &mut ModelProto, dir: &Path, limits: &Limits) -> Result<(), LoadError> {
    let mut gather = Gather { dir, files: BTreeMap::new(), left: limits.model_bytes, limit: limits.model_bytes };
    proto.graph.iter_mut().try_for_each(|graph| each_mut(graph, &mut |tensor| gather.tensor(tensor)))
}

/// Whether a tensor's data are in another file.
pub(crate) fn is_external(tensor: &TensorProto) -> bool {
    tensor.data_location == Some(DataLocation::External as i32) || !tensor.external_data.is_empty()
}

/// Bytes of one element; `None` for text, and for what is not known.
pub(crate) fn element_bytes(kind: i32) -> Option<usize> {
    Some(match DataType::try_from(kind).ok()? {
        DataType::Bool | DataType::Int8 | DataType::Uint8 => 1,
        DataType::Int16 | DataType::Uint16 | DataType::Float16 | DataType::Bfloat16 => 2,
        DataType::Float | DataType::Int32 | DataType::Uint32 => 4,
        DataType::Double | DataType::Int64 | DataType::Uint64 => 8,
        _ => return None,
    })
}

/// Depth is bounded: the decoder refuses messages nested more than 100 deep.
fn each(graph: &GraphProto, visit: &mut dyn FnMut(&TensorProto) -> Result<(), LoadError>) -> Result<(), LoadError> {
    let attributes = || graph.node.iter().flat_map(|node| &node.attribute);
    let held = attributes().flat_map(|attribute| attribute.t.iter().chain(&attribute.tensors));
    graph.initializer.iter().chain(held).filter(|tensor| is_external(tensor)).try_for_each(&mut *visit)?;
    attributes().flat_map(|attribute| attribute.g.iter().chain(&attribute.graphs)).try_for_each(|g| each(g, visit))
}

/// As `each`, to change them.
fn each_mut(
    graph: &mut GraphProto,
    visit: &mut dyn FnMut(&mut TensorProto) -> Result<(), LoadError>,
) -> Result<(), LoadError> {
    graph.initializer.iter_mut().filter(|tensor| is_external(tensor)).try_for_each(&mut *visit)?;
    for attribute in graph.node.iter_mut().flat_map(|node| &mut node.attribute) {
        let held = attribute.t.iter_mut().chain(&mut attribute.tensors);
        held.filter(|tensor| is_external(tensor)).try_for_each(&mut *visit)?;
        attribute.g.iter_mut().chain(&mut attribute.graphs).try_for_each(|graph| each_mut(graph, visit))?;
    }
    Ok(())
}

struct Gather<'a> {
    dir: &'a Path,
    files: BTreeMap<String, (File, u64)>,
    left: u64,
    limit: u64,
}

impl Gather<'_> {
    fn tensor(&mut self, tensor: &mut TensorProto) -> Result<(), LoadError> {
        let name = location(tensor)?.to_owned();
        let (offset, length) = (number(tensor, "offset")?.unwrap_or(0), number(tensor, "length")?);
        let shape: Option<Vec<usize>> = tensor.dims.iter().map(|axis| usize::try_from(*axis).ok()).collect();
        let bytes = shape.and_then(|shape| elements(&shape)?.checked_mul(element_bytes(tensor.data_type)?));
        let Some(bytes) = bytes.map(|bytes| bytes as u64) else {
            return Err(misplaced(tensor, "its type and shape do not say how many bytes it has"));
        };
        if bytes > self.left {
            let (what, size) = ("bytes of the model's data files".to_owned(), self.limit - self.left + bytes);
            return Err(LoadError::TooLarge { what, size, limit: self.limit });
        }
        let (file, size) = match self.files.entry(name) {
            std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::btree_map::Entry::Vacant(entry) => {
                let opened = open(&self.dir.join(entry.key()), tensor)?;
                entry.insert(opened)
            }
        };
        let length = length.unwrap_or(size.saturating_sub(offset));
        if offset.checked_add(length).is_none_or(|end| end > *size) {
            return Err(misplaced(tensor, format!("{length} bytes from {offset} on are not in a file of {size}")));
        }
        if length != bytes {
            return Err(misplaced(tensor, format!("it is {length} bytes there, and {bytes} by its type and shape")));
        }
        let mut data = vec![0; usize::try_from(bytes).unwrap_or(usize::MAX)];
        let read = file.seek(SeekFrom::Start(offset)).and_then(|_| file.read_exact(&mut data));
        read.map_err(|error| misplaced(tensor, error))?;
        self.left -= bytes;
        tensor.raw_data = data;
        tensor.external_data.clear();
        tensor.data_location = None;
        Ok(())
    }
}

/// Opens a plain file and tells its size: a link may lead anywhere.
fn open(path: &Path, tensor: &TensorProto) -> Result<(File, u64), LoadError> {
    let found = fs::symlink_metadata(path).map_err(|error| misplaced(tensor, error))?;
    if !found.is_file() {
        return Err(misplaced(tensor, "it is no plain file"));
    }
    let file = File::open(path).map_err(|error| misplaced(tensor, error))?;
    let size = file.metadata().map_err(|error| misplaced(tensor, error))?.len();
    Ok((file, size))
}

/// The file's name: no path, nothing hidden, nothing that a person could not type.
fn location(tensor: &TensorProto) -> Result<&str, LoadError> {
    let Some(name) = entry(tensor, "location") else {
        return Err(misplaced(tensor, "it does not say in which file"));
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-+".contains(c);
    match !name.is_empty() && name.len() <= NAME && !name.starts_with('.') && name.chars().all(plain) {
        true => Ok(name),
        false => Err(misplaced(tensor, "that is no plain name of a file beside the model")),
    }
}

fn number(tensor: &TensorProto, key: &str) -> Result<Option<u64>, LoadError> {
    let number = |text: &str| text.parse().map_err(|_| misplaced(tensor, format!("its {key} is {text:?}")));
    entry(tensor, key).map(number).transpose()
}

fn entry<'a>(tensor: &'a TensorProto, key: &str) -> Option<&'a str> {
    tensor.external_data.iter().find(|entry| entry.key == key).map(|entry| &*entry.value)
}

fn misplaced(tensor: &TensorProto, reason: impl ToString) -> LoadError {
    let location = entry(tensor, "location").unwrap_or_default().chars().take(NAME).collect();
    LoadError::ExternalData { tensor: tensor.name.clone(), location, reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Model;
    use crate::testing::{floats, graph, node, weights};
    use prost::Message;
    use tract_onnx::pb::StringStringEntryProto;

    /// `y = x + b`, with `b` [1, 2] in another file.
    fn model(entries: &[(&str, &str)]) -> ModelProto {
        let mut tensor = weights("b", &[1, 2], &[]);
        tensor.data_location = Some(DataLocation::External as i32);
        let entry = |(key, value): &(&str, &str)| StringStringEntryProto { key: (*key).into(), value: (*value).into() };
        tensor.external_data = entries.iter().map(entry).collect();
        graph(vec![node("Add", &["x", "b"], &["y"])], vec![tensor])
    }

    /// A folder with `b.data`: four floats, 1 to 4; and links that lead elsewhere.
    fn folder() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let data: Vec<u8> = [1f32, 2.0, 3.0, 4.0].iter().flat_map(|x| x.to_le_bytes()).collect();
        fs::write(dir.path().join("b.data"), data).unwrap();
        std::os::unix::fs::symlink("b.data", dir.path().join("inside")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("outside")).unwrap();
        fs::create_dir(dir.path().join("folder")).unwrap();
        dir
    }

    fn load(dir: &Path, proto: &ModelProto, limits: &Limits) -> Result<Model, LoadError> {
        fs::write(dir.join("model.onnx"), proto.encode_to_vec()).unwrap();
        Model::load(&dir.join("model.onnx"), limits)
    }

    #[test]
    fn weights_beside_the_model_are_used() {
        let dir = folder();
        let place = |offset| model(&[("location", "b.data"), ("offset", offset), ("length", "8")]);
        assert_eq!(names(&place("0")).unwrap(), BTreeSet::from(["b.data".to_owned()]));
        for (offset, expected) in [("0", [1.0, 2.0]), ("4", [2.0, 3.0]), ("8", [3.0, 4.0])] {
            let model = load(dir.path(), &place(offset), &Limits::default()).unwrap();
            assert_eq!(model.run(&[floats(&[1, 2], &[0.0, 0.0])]).unwrap(), [floats(&[1, 2], &expected)]);
        }
        // Without a length it is the rest of the file.
        assert!(load(dir.path(), &model(&[("location", "b.data"), ("offset", "8")]), &Limits::default()).is_ok());
    }

    #[test]
    fn no_other_place_is_read() {
        let dir = folder();
        for (location, expected) in [
            ("/etc/passwd", "no plain name"),
            ("../x", "no plain name"),
            ("./b.data", "no plain name"),
            ("folder/b.data", "no plain name"),
            ("..", "no plain name"),
            (".hidden", "no plain name"),
            ("", "no plain name"),
            ("b\0.data", "no plain name"),
            ("inside", "no plain file"),
            ("outside", "no plain file"),
            ("folder", "no plain file"),
            ("missing.data", "No such file"),
        ] {
            let error = load(dir.path(), &model(&[("location", location)]), &Limits::default()).unwrap_err();
            let LoadError::ExternalData { tensor, location: told, reason } = &error else { panic!("{error:?}") };
            assert_eq!((&**tensor, &**told), ("b", location));
            assert!(reason.contains(expected), "{location}: {reason}");
        }
        let error = load(dir.path(), &model(&[]), &Limits::default());
        assert!(error.is_err() || names(&model(&[("offset", "0")])).is_err());
    }

    #[test]
    fn a_range_must_lie_in_the_file_and_fill_the_tensor() {
        let dir = folder();
        for (offset, length, expected) in [
            ("12", "8", "not in a file of 16"),
            ("17", "8", "not in a file of 16"),
            ("18446744073709551615", "8", "not in a file of 16"),
            ("-8", "8", "its offset is \"-8\""),
            ("0", "-8", "its length is \"-8\""),
            ("0", "8.0", "its length is"),
            ("0", "4", "8 by its type and shape"),
            ("0", "16", "8 by its type and shape"),
        ] {
            let proto = model(&[("location", "b.data"), ("offset", offset), ("length", length)]);
            let error = load(dir.path(), &proto, &Limits::default()).unwrap_err().to_string();
            assert!(error.contains(expected), "{offset}, {length}: {error}");
        }
    }

    #[test]
    fn there_is_a_limit_on_all_of_them_together_before_anything_is_read() {
        let dir = folder();
        let mut proto = model(&[("location", "b.data"), ("length", "8")]);
        let tensors = &mut proto.graph.as_mut().unwrap().initializer;
        // One place may serve many tensors, but each of them takes memory.
        for number in 0..200 {
            let copy = TensorProto { name: format!("b{number}"), ..tensors[0].clone() };
            tensors.push(copy);
        }
        let size = proto.encoded_len() as u64;
        let mut tight = proto.clone();
        let limits = Limits { model_bytes: 100 * 8, ..Limits::default() };
        let error = gather(&mut tight, dir.path(), &limits).unwrap_err();
        assert!(matches!(error, LoadError::TooLarge { size: 808, limit: 800, .. }), "{error:?} {size}");
        assert!(load(dir.path(), &proto, &Limits::default()).is_ok());
    }
}
