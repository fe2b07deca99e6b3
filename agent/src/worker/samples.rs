//! Inputs that are kept for people: what may be kept of them, and where they wait.
//!
//! Decides what of an input may leave the device: the configuration names columns that are dropped, and columns that are
//! hashed, before anything is kept. Everything is in memory alone, within the room of its stream, and is forgotten when
//! another release answers. Which inputs are kept is decided by `agent_core::Samples`; who is given them, by land and by
//! the signature of what it asks.

use super::process::Question;
use agent_core::{Samples, WantedSample};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use engine::{Answer, Column, Input, Observed, Tensor};
use protocol::{Cell, Chosen, Sample, SampledArray, SampledInput, StreamName, encode_json};
use ring::hmac;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// Rows of one request that are looked at.
const MOST_ROWS: usize = 256;
/// The longest id of a request that is kept with its input, in bytes: as long as labels may name.
const MAX_ID_BYTES: usize = 128;
/// Hexadecimal digits of a hash: enough to tell values apart.
const HASH_DIGITS: usize = 16;

/// What an image is called among the columns that may be dropped.
const IMAGE: &str = "image";

/// What may be kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Privacy {
    /// Bytes for the inputs of one stream; nothing is kept of any where there are none.
    pub(crate) room: usize,
    /// Columns of which nothing is kept.
    pub(crate) dropped: BTreeSet<String>,
    /// Columns of which a hash is kept.
    pub(crate) hashed: BTreeSet<String>,
}

/// The inputs of every stream that are kept.
#[derive(Debug, Default)]
pub(super) struct Album {
    privacy: Privacy,
    /// Known to this process alone: who has a hash cannot find its value by trying all that there are.
    key: Option<hmac::Key>,
    pages: Mutex<BTreeMap<StreamName, Page>>,
}

/// What is kept of one release.
#[derive(Debug)]
struct Page {
    release: u64,
    samples: Samples<Sample>,
}

impl Album {
    pub(super) fn new(privacy: Privacy) -> Result<Self, ring::error::Unspecified> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &ring::rand::SystemRandom::new())?;
        Ok(Self { privacy, key: Some(key), pages: Mutex::default() })
    }

    /// Whether anything is kept here.
    pub(super) fn keeps(&self) -> bool {
        self.privacy.room > 0
    }

    /// How many inputs of a stream are kept, and in how many bytes.
    pub(super) fn kept(&self, stream: &StreamName) -> (usize, usize) {
        self.pages().get(stream).map_or((0, 0), |page| page.samples.kept())
    }

    /// Nothing answers for a stream any more.
    pub(super) fn forget(&self, stream: &StreamName) {
        self.pages().remove(stream);
    }

    /// Keeps of a request what is wanted of it.
    pub(super) fn offer(&self, stream: &StreamName, release: u64, question: &Question, answer: &Answer) {
        let rows = answer.outputs.iter().map(|(_, tensor)| tensor.row_count()).max().unwrap_or(0).max(1);
        let by_row = question.rows() == rows;
        let count = if by_row { rows.min(MOST_ROWS) } else { 1 };
        let mut pages = self.pages();
        let fresh = || Page { release, samples: Samples::new(self.privacy.room) };
        let page = pages.entry(stream.clone()).or_insert_with(fresh);
        if page.release != release {
            *page = fresh();
        }
        // Evenly over a request with very many.
        let wanted: Vec<(usize, WantedSample)> = (0..count)
            .map(|row| row * rows / count)
            .map(|row| {
                let class = answer.classes.as_ref().and_then(|classes| classes.get(row));
                (row, page.samples.wants(fastrand::u64(..), class.map(|class| class.score)))
            })
            .filter(|(_, wanted)| wanted.is_wanted())
            .collect();
        if wanted.is_empty() || question.bytes() / count > page.samples.largest() {
            return;
        }
        let Some(input) = question.input() else { return };
        let told = Observed::of(answer);
        for (row, wanted) in wanted {
            let own = if by_row { &input.rows(row..row + 1) } else { &input };
            let Some(input) = self.told(own, page.samples.largest()) else { continue };
            let id = question.id().filter(|id| !id.is_empty() && id.len() <= MAX_ID_BYTES);
            let sample = Sample {
                at: unix_millis(),
                release,
                id: id.map(|id| if rows > 1 { format!("{id}#{}", row + 1) } else { id.to_owned() }),
                chosen: Chosen::Drawn,
                input,
                answer: cells(&told, row),
            };
            let size = encode_json(&sample).len();
            page.samples.put(wanted, size, sample);
        }
    }

    /// At most so many of what is kept of a stream, in so many bytes; `None` when nothing was kept.
    pub(super) fn give(&self, stream: &StreamName, count: usize, bytes: usize) -> Option<Vec<Sample>> {
        let pages = self.pages();
        let picked = pages.get(stream)?.samples.pick(count, bytes);
        Some(picked.into_iter().map(|(chosen, sample)| Sample { chosen, ..sample.clone() }).collect())
    }

    /// What may be kept of an input; nothing where nothing of it may, or it has more than so many values.
    fn told(&self, input: &Input, most: usize) -> Option<SampledInput> {
        let Privacy { dropped, hashed, .. } = &self.privacy;
        match input {
            Input::Table(table) => {
                let kept = table.columns.iter().filter(|column| !dropped.contains(&column.name));
                let texts = |column: &Column| match hashed.contains(&column.name) {
                    true => column.cells.texts().iter().map(|text| self.hash(&column.name, text)).collect(),
                    false => column.cells.texts(),
                };
                let columns: Vec<(String, Vec<String>)> = kept.map(|c| (c.name.clone(), texts(c))).collect();
                let rows = table.row_count();
                let cell = |(name, values): (String, Vec<String>)| Cell { name, value: values.concat() };
                let array =
                    |(name, values): (String, Vec<String>)| SampledArray { name, shape: vec![rows as u64], values };
                match rows {
                    _ if columns.is_empty() => None,
                    1 => Some(SampledInput::Fields(columns.into_iter().map(cell).collect())),
                    _ => Some(SampledInput::Arrays(columns.into_iter().map(array).collect())),
                }
            }
            Input::Image(_) if [dropped, hashed].iter().any(|names| names.contains(IMAGE)) => None,
            Input::Image(bytes) => Some(SampledInput::Image(STANDARD.encode(bytes))),
            // Their values have no names: nobody could say which of them are to be dropped.
            Input::Tensors(_) if !dropped.is_empty() || !hashed.is_empty() => None,
            Input::Tensors(tensors) if tensors.iter().map(|(_, tensor)| tensor.len()).sum::<usize>() > most => None,
            Input::Tensors(tensors) => {
                Some(SampledInput::Arrays(tensors.iter().map(|(name, tensor)| array(name, tensor)).collect()))
            }
        }
    }

    fn hash(&self, column: &str, value: &str) -> String {
        // The column's name goes in with its length, so that equal values of two columns are unlike.
        let text = format!("{}:{column}{value}", column.len());
        let tag = self.key.as_ref().map(|key| hmac::sign(key, text.as_bytes()));
        let digits = tag.iter().flat_map(|tag| tag.as_ref()).map(|byte| format!("{byte:02x}"));
        format!("hashed:{}", digits.collect::<String>().get(..HASH_DIGITS).unwrap_or_default())
    }

    // Poisoned only by a panic between two lines that leave nothing half done.
    fn pages(&self) -> MutexGuard<'_, BTreeMap<StreamName, Page>> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn array(name: &str, tensor: &Tensor) -> SampledArray {
    let shape = tensor.shape.iter().map(|n| *n as u64).collect();
    SampledArray { name: name.to_owned(), shape, values: tensor.texts() }
}

/// What was answered in one row, without the word that the watch on drift puts before its names.
fn cells(told: &Observed, row: usize) -> Vec<Cell> {
    let cell = |column: &Column| {
        let name = column.name.strip_prefix("answer.").unwrap_or(&column.name).to_owned();
        let value = column.cells.texts().into_iter().nth(row)?;
        Some(Cell { name, value })
    };
    told.answers.iter().filter_map(cell).collect()
}

fn unix_millis() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::{Cells, Class, Data, Table};

    fn album(room: usize, dropped: &[&str], hashed: &[&str]) -> Album {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Album::new(Privacy { room, dropped: names(dropped), hashed: names(hashed) }).unwrap()
    }

    fn table(rows: &[(&str, f64)]) -> Input {
        let names = rows.iter().map(|(name, _)| (*name).to_owned()).collect();
        let columns = vec![
            Column { name: "name".into(), cells: Cells::Text(names) },
            Column { name: "age".into(), cells: Cells::Numbers(rows.iter().map(|(_, age)| *age).collect()) },
        ];
        Input::Table(Table { columns })
    }

    fn array(values: &[f32]) -> Input {
        Input::Tensors(vec![(String::new(), Tensor::new(vec![1, values.len()], Data::F32(values.to_vec())).unwrap())])
    }

    /// An answer with a class for each row, of which the model is so sure.
    fn answer(scores: &[f32]) -> Answer {
        let outputs = vec![("y".into(), Tensor::new(vec![scores.len(), 1], Data::F32(scores.to_vec())).unwrap())];
        let class = |score: &f32| Class { index: 1, label: Some("one".into()), score: *score };
        Answer { outputs, classes: Some(scores.iter().map(class).collect()), top: None, anomalies: None }
    }

    fn kept(album: &Album, input: &Input, id: Option<&str>, scores: &[f32]) -> Vec<Sample> {
        let stream: StreamName = "digits".parse().unwrap();
        album.offer(&stream, 3, &Question::of(input).unwrap().known_as(id), &answer(scores));
        album.give(&stream, 100, 1 << 20).unwrap()
    }

    fn cell(name: &str, value: &str) -> Cell {
        Cell { name: name.into(), value: value.into() }
    }

    #[test]
    fn each_row_is_kept_with_its_answer() {
        let input = table(&[("ann", 41.0), ("bob", f64::NAN)]);
        let mut samples = kept(&album(100_000, &[], &[]), &input, Some("order-7"), &[0.5, 0.75]);
        samples.sort_by_key(|sample| sample.id.clone());
        let [first, second] = &samples[..] else { panic!("{samples:?}") };
        assert_eq!((first.id.as_deref(), second.id.as_deref()), (Some("order-7#1"), Some("order-7#2")));
        assert_eq!(second.input, SampledInput::Fields(vec![cell("name", "bob"), cell("age", "")]));
        assert_eq!(second.answer, [cell("class", "one"), cell("score", "0.75")]);
        assert_eq!((first.release, first.at > 1_700_000_000_000), (3, true));
    }

    #[test]
    fn what_may_not_leave_is_never_kept() {
        let keeper = album(100_000, &["name"], &["age"]);
        let samples = kept(&keeper, &table(&[("ann", 41.0)]), None, &[0.5]);
        let SampledInput::Fields(cells) = &samples[0].input else { panic!("{samples:?}") };
        let [age] = &cells[..] else { panic!("{cells:?}") };
        let digits = age.value.strip_prefix("hashed:").unwrap();
        assert!(age.name == "age" && digits.len() == HASH_DIGITS && !digits.contains("41"), "{age:?}");
        // The same value has the same hash here, and another one elsewhere: nobody can make a list of all.
        assert_eq!(keeper.hash("age", "41"), age.value);
        assert_ne!(keeper.hash("height", "41"), age.value);
        assert_ne!(album(1, &[], &[]).hash("age", "41"), age.value);
        let never = |input: &Input, dropped: &[&str]| kept(&album(100_000, dropped, &[]), input, None, &[0.5]);
        assert_eq!(never(&table(&[("ann", 41.0)]), &["name", "age"]), []);
        assert_eq!(never(&Input::Image(vec![1, 2]), &["image"]), []);
        assert_eq!(never(&array(&[1.0]), &["name"]), [], "nobody knows which of its values is a name");
        assert_eq!(never(&Input::Image(vec![1, 2]), &["name"]).len(), 1);
        let arrays =
            vec![SampledArray { name: String::new(), shape: vec![1, 2], values: vec!["1.5".into(), "NaN".into()] }];
        assert_eq!(never(&array(&[1.5, f32::NAN]), &[])[0].input, SampledInput::Arrays(arrays));
    }

    #[test]
    fn a_series_is_one_input_and_hashed_cell_by_cell() {
        let keeper = album(100_000, &[], &["name"]);
        let samples = kept(&keeper, &table(&[("ann", 1.0), ("ann", 2.0), ("bob", 3.0)]), Some("s"), &[0.5]);
        let SampledInput::Arrays(arrays) = &samples[0].input else { panic!("{samples:?}") };
        assert_eq!((&arrays[1].shape[..], arrays[1].values.join(" ")), (&[3][..], "1 2 3".to_owned()));
        assert_eq!(arrays[0].values[0], keeper.hash("name", "ann"));
        assert_eq!(arrays[0].values.iter().collect::<BTreeSet<_>>().len(), 2);
        assert_eq!((samples.len(), samples[0].id.as_deref()), (1, Some("s")));
    }

    #[test]
    fn the_room_holds_and_another_release_begins_anew() {
        let keeper = album(4_096, &[], &[]);
        let stream: StreamName = "digits".parse().unwrap();
        assert_eq!(keeper.give(&stream, 1, 1), None);
        for n in 0..2_000 {
            kept(&keeper, &table(&[("ann", f64::from(n))]), None, &[0.5 + n as f32 / 8_000.0]);
        }
        let (count, bytes) = keeper.kept(&stream);
        assert!(count > 10 && bytes <= 4_096, "{count} in {bytes}");
        let samples = keeper.give(&stream, 100, 1 << 20).unwrap();
        let doubtful: Vec<&Sample> = samples.iter().filter(|sample| sample.chosen == Chosen::Doubtful).collect();
        assert!(doubtful.iter().all(|sample| sample.answer[1].value.as_str() < "0.51"), "{doubtful:?}");
        keeper.offer(&stream, 4, &Question::of(&table(&[("eve", 1.0)])).unwrap(), &answer(&[0.9]));
        assert!(keeper.give(&stream, 100, 1 << 20).unwrap().iter().all(|sample| sample.release == 4));
        keeper.forget(&stream);
        assert_eq!(keeper.kept(&stream), (0, 0));
        // Nothing that is larger than its part of the room, whichever way it came.
        assert_eq!(kept(&keeper, &Input::Image(vec![0; 4_000]), None, &[0.5]), []);
        assert_eq!(kept(&keeper, &array(&[0.5; 600]), None, &[0.5]), []);
    }
}
