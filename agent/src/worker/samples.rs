//! Inputs that are kept for people: what may be kept of them, and where they wait.
//!
//! Decides what of an input may leave the device: the configuration names streams, columns that are dropped, and columns that
//! are hashed, before anything is kept; and how much leaves in a day, whoever asks. Everything is in memory alone, within the
//! room of its stream, and is forgotten when another release answers; beside it what the latest requests were given. Which inputs are kept is decided by
//! `agent_core::Samples`; who is given them, by land and by the signature of what it asks.

use super::process::Question;
use agent_core::{Samples, WantedSample};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use engine::{Answer, Column, Input, Observed, Tensor};
use protocol::{Cell, Chosen, Sample, SampledArray, SampledInput, StreamName, decode_json, encode_json};
use ring::hmac;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use trust::{Code, Refusal};

/// Rows of one request that are looked at.
const MOST_ROWS: usize = 4_096;
/// The largest request of which anything is kept, in bytes: it is read once more for that.
const MOST_BYTES: usize = 4 << 20;
/// The longest id of a request that is kept with its input, in bytes: as long as labels may name.
const MAX_ID_BYTES: usize = 128;
/// Hexadecimal digits of a hash: enough to tell values apart.
const HASH_DIGITS: usize = 16;
/// What an image is called among the columns that may be dropped, and the id of a request.
const IMAGE: &str = "image";
const ID: &str = "id";
/// The most bytes of inputs that leave the device in a day, whoever asks.
const A_DAY: usize = 1 << 20;
const DAY: Duration = Duration::from_secs(24 * 3_600);
/// Requests of land whose answers are remembered, to be said once more and not anew.
const REMEMBERED: usize = 8;

/// What may be kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Privacy {
    /// Of these streams; of others nothing.
    pub(crate) streams: BTreeSet<StreamName>,
    /// Bytes for the inputs of one of them.
    pub(crate) room: usize,
    /// Columns of which nothing is kept.
    pub(crate) dropped: BTreeSet<String>,
    /// Columns of which a hash is kept.
    pub(crate) hashed: BTreeSet<String>,
}

/// An input as JSON, which is smaller than in pieces.
type Written = Arc<[u8]>;

/// The inputs of every stream that are kept.
#[derive(Debug, Default)]
pub(super) struct Album {
    privacy: Privacy,
    /// Known to this process alone: who has a hash cannot find its value by trying all that there are.
    key: Option<hmac::Key>,
    kept: Mutex<Inside>,
}

#[derive(Debug, Default)]
struct Inside {
    pages: BTreeMap<StreamName, Page>,
    /// The latest requests of land and what each was given.
    given: VecDeque<(u64, Vec<(Chosen, Written)>)>,
    /// Bytes that left, and since when they are counted.
    spent: Option<(Instant, usize)>,
}

/// What is kept of one release.
#[derive(Debug)]
struct Page {
    release: u64,
    samples: Samples<Written>,
}

impl Album {
    pub(super) fn new(privacy: Privacy) -> Result<Self, ring::error::Unspecified> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &ring::rand::SystemRandom::new())?;
        Ok(Self { privacy, key: Some(key), kept: Mutex::default() })
    }

    /// Whether anything of a stream is kept here.
    pub(super) fn keeps(&self, stream: &StreamName) -> bool {
        self.privacy.streams.contains(stream)
    }

    /// How many inputs of a stream are kept, and in how many bytes.
    pub(super) fn kept(&self, stream: &StreamName) -> (usize, usize) {
        self.inside().pages.get(stream).map_or((0, 0), |page| page.samples.kept())
    }

    /// Nothing answers for a stream any more.
    pub(super) fn forget(&self, stream: &StreamName) {
        self.inside().pages.remove(stream);
    }

    /// Keeps of a request what is wanted of it.
    pub(super) fn offer(&self, stream: &StreamName, release: u64, question: &Question, answer: &Answer) {
        let rows = answer.outputs.iter().map(|(_, tensor)| tensor.row_count()).max().unwrap_or(0).max(1);
        let by_row = question.rows() == rows;
        let (largest, wanted) = self.wanted(stream, release, if by_row { rows } else { 1 }, answer);
        let each = if by_row { question.bytes() / rows } else { question.bytes() };
        if wanted.is_empty() || each > largest || question.bytes() > MOST_BYTES {
            return;
        }
        let Some(input) = question.input() else { return };
        let answers = answers(answer);
        for (row, wanted) in wanted {
            // The first rows of a large request may have pushed out what its last ones would be kept for.
            let still =
                self.inside().pages.get(stream).is_some_and(|page| page.samples.still_wants(wanted).is_wanted());
            if !still {
                continue;
            }
            let own = if by_row { &input.rows(row..row + 1) } else { &input };
            let Some(input) = self.told(own, largest) else { continue };
            let sample = Sample {
                at: unix_millis(),
                release,
                id: self.id(question.id(), (rows > 1 && by_row).then_some(row)),
                // The longer word: what is given is no larger than what is counted.
                chosen: Chosen::Doubtful,
                input,
                answer: cells(&answers, row),
            };
            let written: Written = encode_json(&sample).into();
            let mut inside = self.inside();
            // Another release may answer by now.
            let page = inside.pages.get_mut(stream).filter(|page| page.release == release);
            page.into_iter().for_each(|page| page.samples.put(wanted, written.len(), written.clone()));
        }
    }

    /// The rows that would be kept, if they are no larger than the first says; of a request with very many some, evenly from
    /// one by lot.
    fn wanted(
        &self,
        stream: &StreamName,
        release: u64,
        rows: usize,
        answer: &Answer,
    ) -> (usize, Vec<(usize, WantedSample)>) {
        let mut inside = self.inside();
        let fresh = || Page { release, samples: Samples::new(self.privacy.room) };
        let page = inside.pages.entry(stream.clone()).or_insert_with(fresh);
        if page.release != release {
            *page = fresh();
        }
        let (count, first) = (rows.min(MOST_ROWS), fastrand::usize(..rows));
        let wants = |row: usize| {
            let class = answer.classes.as_ref().and_then(|classes| classes.get(row));
            (row, page.samples.wants(fastrand::u64(..), class.map(|class| class.score)))
        };
        let each = (0..count).map(|at| (first + at * rows / count) % rows);
        (page.samples.largest(), each.map(wants).filter(|(_, wanted)| wanted.is_wanted()).collect())
    }

    /// At most so many of what is kept of a stream, in so many bytes; for a request that was answered before, the same.
    ///
    /// # Errors
    /// `E_REQUEST` where nothing is kept of the stream, `E_RATE` where no more leaves today.
    pub(super) fn give(
        &self,
        stream: &StreamName,
        request: u64,
        count: usize,
        bytes: usize,
    ) -> Result<Vec<Sample>, Refusal> {
        if !self.keeps(stream) {
            let why =
                format!("this device keeps no inputs of `{stream}`: `samples` of its configuration says of which");
            return Err(Refusal::new(Code::Request, why));
        }
        let mut inside = self.inside();
        let now = Instant::now();
        let (since, spent) = inside.spent.filter(|(since, _)| now.duration_since(*since) < DAY).unwrap_or((now, 0));
        let left = A_DAY.saturating_sub(spent);
        let again = inside.given.iter().find(|(known, _)| *known == request).map(|(_, given)| given.clone());
        let page = inside.pages.get(stream);
        let given: Vec<(Chosen, Written)> = match (&again, page) {
            (Some(given), _) => given.clone(),
            (None, None) => Vec::new(),
            (None, Some(page)) => {
                let picked = page.samples.pick(count, bytes.min(left));
                picked.into_iter().map(|(chosen, written)| (chosen, written.clone())).collect()
            }
        };
        let size: usize = given.iter().map(|(_, written)| written.len()).sum();
        let could_be_more = given.is_empty() && page.is_some_and(|page| page.samples.kept().0 > 0);
        if size > left || (could_be_more && left < bytes) {
            let why = format!("no more than {A_DAY} bytes of inputs leave this device in a day");
            return Err(Refusal::new(Code::Rate, why));
        }
        inside.spent = Some((since, spent + size));
        if again.is_none() && !given.is_empty() {
            inside.given.push_back((request, given.clone()));
            let old = inside.given.len().saturating_sub(REMEMBERED);
            inside.given.drain(..old);
        }
        let read = |(chosen, written): &(Chosen, Written)| {
            let sample: Sample = decode_json(written, written.len()).ok()?;
            Some(Sample { chosen: *chosen, ..sample })
        };
        Ok(given.iter().filter_map(read).collect())
    }

    /// What may be kept of the id of a request.
    fn id(&self, id: Option<&str>, row: Option<usize>) -> Option<String> {
        let id = id.filter(|id| !id.is_empty() && id.len() <= MAX_ID_BYTES && !self.privacy.dropped.contains(ID))?;
        let id = if self.privacy.hashed.contains(ID) { self.hash(ID, id) } else { id.to_owned() };
        Some(row.map_or_else(|| id.clone(), |row| format!("{id}#{}", row + 1)))
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
    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn array(name: &str, tensor: &Tensor) -> SampledArray {
    let shape = tensor.shape.iter().map(|n| *n as u64).collect();
    SampledArray { name: name.to_owned(), shape, values: tensor.texts() }
}

/// What was answered, row by row, without the word that the watch on drift puts before its names.
fn answers(answer: &Answer) -> Vec<(String, Vec<String>)> {
    let column =
        |column: Column| (column.name.strip_prefix("answer.").unwrap_or(&column.name).to_owned(), column.cells.texts());
    Observed::of(answer).answers.into_iter().map(column).collect()
}

fn cells(answers: &[(String, Vec<String>)], row: usize) -> Vec<Cell> {
    let cell =
        |(name, values): &(String, Vec<String>)| Some(Cell { name: name.clone(), value: values.get(row)?.clone() });
    answers.iter().filter_map(cell).collect()
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
        let streams = ["digits".parse().unwrap()].into();
        Album::new(Privacy { streams, room, dropped: names(dropped), hashed: names(hashed) }).unwrap()
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
        given(album, &stream)
    }

    /// Everything that is kept, and as if nobody had asked.
    fn given(album: &Album, stream: &StreamName) -> Vec<Sample> {
        let samples = album.give(stream, 1, 100, 1 << 20).unwrap();
        let mut inside = album.inside();
        (inside.spent, inside.given) = (None, VecDeque::new());
        samples
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
        assert!(age.name == "age" && digits.len() == HASH_DIGITS, "{age:?}");
        assert!(digits.chars().all(|c| c.is_ascii_hexdigit()), "{age:?}");
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
        assert_eq!(keeper.give(&stream, 1, 1, 1), Ok(Vec::new()));
        for n in 0..2_000 {
            kept(&keeper, &table(&[("ann", f64::from(n))]), None, &[0.5 + n as f32 / 8_000.0]);
        }
        let (count, bytes) = keeper.kept(&stream);
        assert!(count > 10 && bytes <= 4_096, "{count} in {bytes}");
        let samples = given(&keeper, &stream);
        let doubtful: Vec<&Sample> = samples.iter().filter(|sample| sample.chosen == Chosen::Doubtful).collect();
        assert!(doubtful.iter().all(|sample| sample.answer[1].value.as_str() < "0.51"), "{doubtful:?}");
        keeper.offer(&stream, 4, &Question::of(&table(&[("eve", 1.0)])).unwrap(), &answer(&[0.9]));
        assert!(given(&keeper, &stream).iter().all(|sample| sample.release == 4));
        keeper.forget(&stream);
        assert_eq!(keeper.kept(&stream), (0, 0));
        // Nothing that is larger than its part of the room, whichever way it came.
        assert_eq!(kept(&keeper, &Input::Image(vec![0; 4_000]), None, &[0.5]), []);
        assert_eq!(kept(&keeper, &array(&[0.5; 600]), None, &[0.5]), []);
    }

    #[test]
    fn a_request_is_given_the_same_again_and_only_so_much_leaves_in_a_day() {
        let keeper = album(64 << 20, &["name"], &["id"]);
        let stream: StreamName = "digits".parse().unwrap();
        let text = "x".repeat(100_000);
        let wide = |n: f64| {
            let note = Column { name: "note".into(), cells: Cells::Text(vec![format!("{n}{text}")]) };
            Input::Table(Table { columns: vec![note] })
        };
        for n in 0..30 {
            keeper.offer(
                &stream,
                3,
                &Question::of(&wide(n.into())).unwrap().known_as(Some("jane.png")),
                &answer(&[0.5]),
            );
        }
        let first = keeper.give(&stream, 7, 1, 1 << 20).unwrap();
        assert!(first[0].id.as_ref().unwrap().starts_with("hashed:"), "the name of a file is an id");
        kept(&album(10_000, &["id"], &[]), &table(&[("ann", 1.0)]), Some("jane.png"), &[0.5])
            .iter()
            .for_each(|sample| assert_eq!(sample.id, None));
        assert_eq!(keeper.give(&stream, 7, 100, 1 << 20).unwrap(), first, "whatever was asked for");
        let more = keeper.give(&stream, 8, 100, 1 << 20).unwrap();
        assert!(more.len() >= 7 && more.len() < 10, "{}", more.len());
        let codes = [&stream, &"other".parse().unwrap()].map(|of| keeper.give(of, 9, 100, 1 << 20).unwrap_err().code);
        assert_eq!(codes, [Code::Rate, Code::Request]);
    }

    #[test]
    fn every_row_of_a_large_request_may_be_kept() {
        let rows: Vec<(&str, f64)> = (0..10_000).map(|n| ("ann", f64::from(n))).collect();
        let keeper = album(8_192, &[], &[]);
        let samples = kept(&keeper, &table(&rows), Some("r"), &vec![0.5; rows.len()]);
        assert!(samples.len() > 20, "{}", samples.len());
    }
}
