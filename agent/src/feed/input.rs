//! What is in a file or a message, as an input for the engine.
//!
//! Decides which forms there are. A file that is no plain file (a link to the agent's own key, a pipe without end)
//! is not opened to the end of the world: it is refused.

use crate::fault::told;
use engine::{Data, Dtype, Input, Limits, Port, Table, Tensor};
use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// The largest file.
pub(super) const MAX_FILE_BYTES: u64 = 32 << 20;

/// A kind of file that a feed takes, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Table,
    Lines,
    Picture,
}

/// What a file of this name is, if it is for a feed: others, and those that begin with a dot, are left alone.
pub(super) fn kind(name: &str) -> Option<Kind> {
    let (stem, end) = name.rsplit_once('.')?;
    if stem.is_empty() || name.starts_with('.') {
        return None;
    }
    match end.to_ascii_lowercase().as_str() {
        "csv" => Some(Kind::Table),
        "txt" => Some(Kind::Lines),
        "png" | "jpg" | "jpeg" => Some(Kind::Picture),
        _ => None,
    }
}

/// Reads a file.
///
/// # Errors
/// In words, for the one who put it there.
pub(super) fn read(path: &Path, kind: Kind) -> Result<Input, String> {
    // A pipe would wait for a writer, and a link lead anywhere.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = rustix::fs::open(path, flags, Mode::empty());
    let file = File::from(opened.map_err(|why| match why {
        rustix::io::Errno::LOOP => "it is a link, and only files are read".to_owned(),
        other => format!("it cannot be read: {other}"),
    })?);
    let found = file.metadata().map_err(|why| format!("it cannot be read: {why}"))?;
    if !found.is_file() {
        return Err("it is no file".into());
    }
    let large = || format!("it has more than {} MiB", MAX_FILE_BYTES >> 20);
    let mut bytes = Vec::new();
    let read = file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes);
    read.map_err(|why| format!("it cannot be read: {why}"))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(large());
    }
    let limits = Limits::default();
    match kind {
        Kind::Table => Table::parse(&bytes[..], &limits).map(Input::Table).map_err(|why| told(&why)),
        Kind::Lines => Table::parse_lines(&bytes[..], &limits).map(Input::Table).map_err(|why| told(&why)),
        Kind::Picture => match bytes.starts_with(b"\x89PNG") || bytes.starts_with(b"\xff\xd8\xff") {
            true => Ok(Input::Image(bytes)),
            false => Err("it is neither PNG nor JPEG".into()),
        },
    }
}

/// The numbers of a message: a JSON array of them, an array of rows, or one line of CSV; several lines of CSV begin
/// with the names of the columns. `port` is what the model takes.
///
/// # Errors
/// In words, for the one who sent it.
pub(super) fn of_message(payload: &[u8], port: Option<&Port>) -> Result<Input, String> {
    let text = std::str::from_utf8(payload).map_err(|_| "the message is no text".to_owned())?.trim();
    if text.starts_with('[') {
        return numbers(json_rows(text)?, port);
    }
    if text.lines().count() > 1 {
        return Table::parse(text.as_bytes(), &Limits::default()).map(Input::Table).map_err(|why| told(&why));
    }
    let cell = |cell: &str| cell.trim().parse::<f64>().map_err(|_| format!("`{}` is no number", shown(cell)));
    let row = text.split(',').map(cell).collect::<Result<Vec<f64>, String>>()?;
    numbers(vec![row], port)
}

fn shown(cell: &str) -> String {
    cell.trim().chars().take(40).collect()
}

fn json_rows(text: &str) -> Result<Vec<Vec<f64>>, String> {
    match serde_json::from_str::<Vec<f64>>(text) {
        Ok(row) => Ok(vec![row]),
        Err(flat) => serde_json::from_str::<Vec<Vec<f64>>>(text)
            .map_err(|_| format!("the message is no array of numbers, and no array of such arrays: {flat}")),
    }
}

/// Rows as the tensor that the model takes: in the shape of its port where the count fits, else as rows of columns.
fn numbers(rows: Vec<Vec<f64>>, port: Option<&Port>) -> Result<Input, String> {
    let width = rows.first().map_or(0, Vec::len);
    if width == 0 || rows.iter().any(|row| row.len() != width) {
        return Err("rows must have equally many numbers, and at least one".into());
    }
    let inner = port.map(|port| port.shape.iter().skip(1).copied().collect::<Option<Vec<usize>>>());
    let fits = |shape: &Vec<usize>| !shape.is_empty() && shape.iter().product::<usize>() == width;
    let mut shape = vec![rows.len()];
    shape.extend(inner.flatten().filter(fits).unwrap_or_else(|| vec![width]));
    let values: Vec<f64> = rows.into_iter().flatten().collect();
    let whole = |most: f64| values.iter().all(|x| x.fract() == 0.0 && x.abs() <= most);
    // Whole numbers only where the model takes them, and only such as lose nothing.
    let data = match port.map(|port| port.dtype) {
        Some(Dtype::F64) => Data::F64(values),
        Some(Dtype::I64) if whole(9_007_199_254_740_992.0) => Data::I64(values.iter().map(|x| *x as i64).collect()),
        Some(Dtype::I32) if whole(f64::from(i32::MAX)) => Data::I32(values.iter().map(|x| *x as i32).collect()),
        Some(Dtype::F32) | None => Data::F32(values.iter().map(|x| *x as f32).collect()),
        Some(other) => return Err(format!("the model takes {other}: send a request of the Open Inference Protocol")),
    };
    let tensor = Tensor::new(shape, data).map_err(|why| why.to_string())?;
    Ok(Input::Tensors(vec![(String::new(), tensor)]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(dtype: Dtype, shape: &[Option<usize>]) -> Port {
        Port { name: "x".into(), dtype, shape: shape.to_vec() }
    }

    fn tensor(payload: &str, port: Option<&Port>) -> Result<Tensor, String> {
        match of_message(payload.as_bytes(), port)? {
            Input::Tensors(mut named) => Ok(named.remove(0).1),
            other => Err(format!("{other:?}")),
        }
    }

    #[test]
    fn names_say_what_is_for_a_feed() {
        assert_eq!(kind("a.CSV"), Some(Kind::Table));
        assert_eq!((kind("a.b.jpeg"), kind("a.png")), (Some(Kind::Picture), Some(Kind::Picture)));
        for other in ["a", "a.tmp", ".a.csv", ".csv", "a.csv.part"] {
            assert_eq!(kind(other), None, "{other}");
        }
    }

    #[test]
    fn numbers_take_the_shape_of_the_model() {
        let image = port(Dtype::F32, &[None, Some(1), Some(2), Some(2)]);
        let expected = Tensor::new(vec![1, 1, 2, 2], Data::F32(vec![1.0, 2.5, 3.0, 4.0])).unwrap();
        for payload in ["[1, 2.5, 3, 4]", "[[1,2.5,3,4]]", "1,2.5,3,4\n", " 1, 2.5, 3 ,4"] {
            assert_eq!(tensor(payload, Some(&image)).as_ref(), Ok(&expected), "{payload}");
        }
        assert_eq!(tensor("[1,2,3]", Some(&image)).unwrap().shape, [1, 3], "the engine says what it lacks");
        assert_eq!(tensor("[[1,2],[3,4]]", None).unwrap().shape, [2, 2]);
        let whole = port(Dtype::I64, &[None, Some(2)]);
        assert_eq!(tensor("[1,2]", Some(&whole)).unwrap().data, Data::I64(vec![1, 2]));
        let named = of_message(b"a,b\n1,2\n3,4\n", None).unwrap();
        assert!(matches!(named, Input::Table(table) if table.row_count() == 2));
    }

    #[test]
    fn what_is_no_number_is_told() {
        let whole = port(Dtype::I64, &[None, Some(2)]);
        for (payload, expected) in [
            ("[1,\"a\"]", "array of numbers"),
            ("[[1,2],[3]]", "equally many"),
            ("[]", "at least one"),
            ("1,x", "`x` is no number"),
            ("", "`` is no number"),
            ("[1.5,2]", "Open Inference Protocol"),
        ] {
            let fault = tensor(payload, Some(&whole)).unwrap_err();
            assert!(fault.contains(expected), "{payload}: {fault}");
        }
        assert!(of_message(&[0xff, 0xfe], None).unwrap_err().contains("no text"));
        assert!(tensor(&"[".repeat(10_000), None).is_err());
    }

    #[test]
    fn only_a_plain_file_of_a_fair_size_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path("a.csv"), "x\n1\n").unwrap();
        assert!(matches!(read(&path("a.csv"), Kind::Table), Ok(Input::Table(_))));
        std::os::unix::fs::symlink(path("a.csv"), path("link.csv")).unwrap();
        assert!(read(&path("link.csv"), Kind::Table).unwrap_err().contains("link"));
        std::fs::create_dir(path("folder.csv")).unwrap();
        assert!(read(&path("folder.csv"), Kind::Table).unwrap_err().contains("no file"));
        let large = File::create(path("large.csv")).unwrap();
        large.set_len(MAX_FILE_BYTES + 1).unwrap();
        assert!(read(&path("large.csv"), Kind::Table).unwrap_err().contains("32 MiB"));
        std::fs::write(path("a.png"), "x").unwrap();
        assert!(read(&path("a.png"), Kind::Picture).unwrap_err().contains("PNG"));
    }
}
