//! Text: from sentences to the token ids, masks or counts that a model takes.
//!
//! Decides lengths, padding and which input gets what. How a text is cut into tokens
//! is decided by `tokenizer.json`, as Python's `tokenizers` writes and reads it.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use tokenizers::{Encoding, PaddingDirection, PostProcessor, Tokenizer, TruncationParams};

use super::{PRE, declaration, unfit, within, wrong};
use crate::Limits;
use crate::error::{LoadError, RunError};
use crate::guard::guard;
use crate::input::Input;
use crate::observed::numbers;
use crate::port::{Port, show};
use crate::table::{Column, Table};
use crate::tensor::{Data, Tensor};

const FILE: &str = "tokenizer.json";
/// Bytes of `tokenizer.json`.
const FILE_BYTES: u64 = 64 << 20;
/// Bytes of one text.
const TEXT: usize = 1 << 20;
/// Tokens of one text.
const LENGTH: usize = 1 << 16;
/// Tokens that a tokenizer knows.
const VOCABULARY: usize = 1 << 20;

/// From texts to tensors.
pub(crate) struct Tokenisation {
    tokenizer: Tokenizer,
    column: Option<String>,
    max_length: Option<usize>,
    pad: Pad,
    padding: Padding,
    special_tokens: bool,
    vocabulary: usize,
    /// By the names of the model's inputs.
    inputs: BTreeMap<String, Part>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Fields {
    column: Option<String>,
    max_length: Option<usize>,
    #[serde(default = "yes")]
    truncate: bool,
    #[serde(default)]
    pad: Pad,
    #[serde(default = "yes")]
    special_tokens: bool,
    inputs: BTreeMap<String, Part>,
}

fn yes() -> bool {
    true
}

/// To which length a text is padded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Pad {
    /// That of the longest text of the batch.
    #[default]
    Longest,
    MaxLength,
}

/// What an input of the model gets.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Part {
    Ids,
    Mask,
    Types,
    /// How often each token of the vocabulary occurs.
    Counts,
}

/// What stands where a text has ended.
#[derive(Debug, Clone, Copy)]
struct Padding {
    id: u32,
    kind: u32,
    left: bool,
}

/// Without the tokenizer: that would be every word.
impl std::fmt::Debug for Tokenisation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenisation").field("inputs", &self.inputs).finish_non_exhaustive()
    }
}

impl Tokenisation {
    pub(super) fn read(fields: Fields, dir: &Path, ports: &[Port]) -> Result<Tokenisation, LoadError> {
        let Some(bytes) = declaration(dir, FILE, FILE_BYTES)? else {
            return Err(wrong(PRE, format!("text needs {FILE} in the bundle; pack it with --tokenizer FILE")));
        };
        let broken = |reason: String| wrong(FILE, format!("this is no tokenizer: {reason}"));
        let tokenizer = guard(|| Tokenizer::from_bytes(&bytes)).map_err(broken)?;
        let mut tokenizer = tokenizer.map_err(|error| broken(error.to_string()))?;
        let counts = fields.inputs.values().any(|part| *part == Part::Counts);
        let padding = padding(&tokenizer);
        tokenizer.with_padding(None);
        let longest = limit_length(&mut tokenizer, &fields)?;
        let vocabulary = tokenizer.get_vocab(true).into_values().max().map_or(0, |id| id as usize + 1);
        if vocabulary > VOCABULARY {
            return Err(wrong(FILE, format!("it knows {vocabulary} tokens, and at most {VOCABULARY} are allowed")));
        }
        if padding.is_none() && !counts {
            return Err(wrong(FILE, "it names no token for padding; call enable_padding() before you save it"));
        }
        let read = Tokenisation {
            tokenizer,
            column: fields.column,
            max_length: longest,
            pad: fields.pad,
            padding: padding.unwrap_or(Padding { id: 0, kind: 0, left: false }),
            special_tokens: fields.special_tokens,
            vocabulary,
            inputs: fields.inputs,
        };
        read.check(ports, counts).map_err(|reason| wrong(PRE, reason))?;
        Ok(read)
    }

    /// Whether each input of the model gets what it takes.
    fn check(&self, ports: &[Port], counts: bool) -> Result<(), String> {
        if let Some(unknown) = self.inputs.keys().find(|name| ports.iter().all(|port| port.name != **name)) {
            return Err(format!("the model has no input {unknown:?}"));
        }
        if counts && self.inputs.len() > 1 {
            return Err("counts cannot go with other inputs".to_owned());
        }
        if !counts && self.max_length.is_none() {
            return Err("it must say a \"max_length\", in tokens".to_owned());
        }
        for port in ports {
            let part =
                self.inputs.get(&port.name).ok_or_else(|| format!("nothing is declared for input {:?}", port.name))?;
            let width = match (part, self.pad) {
                (Part::Counts, _) => Some(self.vocabulary),
                (_, Pad::MaxLength) => self.max_length,
                (_, Pad::Longest) => None,
            };
            let fits = match port.shape[..] {
                [_, None] => true,
                [_, takes] => takes == width,
                _ => false,
            };
            if !fits {
                let (made, takes) = (show(&[None, width]), show(&port.shape));
                return Err(format!("input {:?} gets {made}, and takes {takes}", port.name));
            }
        }
        Ok(())
    }

    /// The declared column, or the only one.
    pub(super) fn table(
        &self,
        table: &Table,
        ports: &[Port],
        limits: &Limits,
    ) -> Result<Vec<(String, Tensor)>, RunError> {
        self.texts(&self.column(table)?.cells.texts(), ports, limits)
    }

    fn column<'a>(&self, table: &'a Table) -> Result<&'a Column, RunError> {
        match (&table.columns[..], &self.column) {
            ([only], _) => Ok(only),
            (_, Some(name)) => table.column(name),
            (_, None) => {
                Err(unfit(format!("the table has several columns: {PRE} must say which \"column\" is the text")))
            }
        }
    }

    /// How long each text is.
    pub(super) fn observe(&self, input: &Input) -> Result<Vec<Column>, RunError> {
        let texts = match input {
            Input::Table(table) => self.column(table)?.cells.texts(),
            Input::Tensors(named) => match named.first().map(|(_, tensor)| &tensor.data) {
                Some(Data::Text(texts)) => texts.clone(),
                _ => return Ok(Vec::new()),
            },
            Input::Image(_) => return Ok(Vec::new()),
        };
        let characters = numbers("text.characters", texts.iter().map(|text| text.chars().count() as f64));
        let words = numbers("text.words", texts.iter().map(|text| text.split_whitespace().count() as f64));
        Ok(vec![characters, words])
    }

    /// A tensor of text is cut into tokens; others pass as they are.
    pub(super) fn tensors(
        &self,
        named: &[(String, Tensor)],
        ports: &[Port],
        limits: &Limits,
    ) -> Result<Vec<(String, Tensor)>, RunError> {
        match named {
            [(name, tensor)] => {
                tensor.check().map_err(|source| RunError::Tensor { name: name.clone(), source })?;
                match &tensor.data {
                    Data::Text(texts) => self.texts(texts, ports, limits),
                    _ => Ok(named.to_vec()),
                }
            }
            _ => Ok(named.to_vec()),
        }
    }

    fn texts(&self, texts: &[String], ports: &[Port], limits: &Limits) -> Result<Vec<(String, Tensor)>, RunError> {
        let mut encodings = Vec::with_capacity(within(&[texts.len()], limits)?);
        let mut tokens = 0;
        for (row, text) in texts.iter().enumerate() {
            let encoding = self.encode(row, text)?;
            tokens += encoding.len();
            within(&[tokens], limits)?;
            encodings.push(encoding);
        }
        let longest = encodings.iter().map(Encoding::len).max().unwrap_or(0).max(1);
        let width = match (self.pad, self.max_length) {
            (Pad::MaxLength, Some(length)) => length,
            _ => longest,
        };
        let made = |port: &Port| {
            let tensor = match self.inputs.get(&port.name) {
                Some(Part::Counts) => self.counts(&encodings, limits)?,
                Some(Part::Mask) => self.padded(&encodings, width, 0, Encoding::get_attention_mask, limits)?,
                Some(Part::Types) => {
                    self.padded(&encodings, width, self.padding.kind, Encoding::get_type_ids, limits)?
                }
                Some(Part::Ids) | None => self.padded(&encodings, width, self.padding.id, Encoding::get_ids, limits)?,
            };
            Ok((port.name.clone(), tensor))
        };
        ports.iter().map(made).collect()
    }

    fn encode(&self, row: usize, text: &str) -> Result<Encoding, RunError> {
        if text.len() > TEXT {
            return Err(unfit(format!("text {} has {} bytes; at most {TEXT} are allowed", row + 1, text.len())));
        }
        let failed = |reason: String| unfit(format!("text {} cannot be cut into tokens: {reason}", row + 1));
        let encoding = guard(|| self.tokenizer.encode_fast(text, self.special_tokens)).map_err(failed)?;
        let encoding = encoding.map_err(|error| failed(error.to_string()))?;
        match self.max_length {
            Some(most) if encoding.len() > most => {
                Err(unfit(format!("text {} has {} tokens, and the model takes {most}", row + 1, encoding.len())))
            }
            _ => Ok(encoding),
        }
    }

    fn padded(
        &self,
        encodings: &[Encoding],
        width: usize,
        pad: u32,
        part: impl Fn(&Encoding) -> &[u32],
        limits: &Limits,
    ) -> Result<Tensor, RunError> {
        let mut values = vec![i64::from(pad); within(&[encodings.len(), width], limits)?];
        for (encoding, row) in encodings.iter().zip(values.chunks_exact_mut(width)) {
            let part = part(encoding);
            let start = if self.padding.left { width - part.len() } else { 0 };
            row[start..].iter_mut().zip(part).for_each(|(place, value)| *place = i64::from(*value));
        }
        Ok(Tensor { shape: vec![encodings.len(), width], data: Data::I64(values) })
    }

    fn counts(&self, encodings: &[Encoding], limits: &Limits) -> Result<Tensor, RunError> {
        let width = self.vocabulary;
        let mut values = vec![0f32; within(&[encodings.len(), width], limits)?];
        for (encoding, row) in encodings.iter().zip(values.chunks_exact_mut(width.max(1))) {
            for id in encoding.get_ids() {
                row[*id as usize] += 1.0;
            }
        }
        Ok(Tensor { shape: vec![encodings.len(), width], data: Data::F32(values) })
    }
}

/// Checks the declared length and has the tokenizer cut at it, or nowhere.
fn limit_length(tokenizer: &mut Tokenizer, fields: &Fields) -> Result<Option<usize>, LoadError> {
    let special = tokenizer.get_post_processor().map_or(0, |processor| processor.added_tokens(false));
    if let Some(length) = fields.max_length
        && !(special + 1..=LENGTH).contains(&length)
    {
        return Err(wrong(PRE, format!("max_length is {length}; it may be {} to {LENGTH}", special + 1)));
    }
    let cut = fields.max_length.filter(|_| fields.truncate);
    let truncation = cut.map(|max_length| TruncationParams { max_length, ..TruncationParams::default() });
    tokenizer.with_truncation(truncation).map_err(|error| wrong(PRE, error))?;
    Ok(fields.max_length)
}

/// What the tokenizer pads with: as it says itself, or by the usual names.
fn padding(tokenizer: &Tokenizer) -> Option<Padding> {
    let declared = tokenizer.get_padding().map(|own| Padding {
        id: own.pad_id,
        kind: own.pad_type_id,
        left: matches!(own.direction, PaddingDirection::Left),
    });
    let usual = || ["[PAD]", "<pad>"].iter().find_map(|name| tokenizer.token_to_id(name));
    declared.or_else(|| Some(Padding { id: usual()?, kind: 0, left: false }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::Dtype;

    /// Words by white space: [PAD] 0, [UNK] 1, [CLS] 2, pump 3, hums 4.
    const WORDS: &str = r#"{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],"normalizer":null,
        "pre_tokenizer":{"type":"WhitespaceSplit"},"decoder":null,
        "post_processor":{"type":"TemplateProcessing",
            "single":[{"SpecialToken":{"id":"[CLS]","type_id":0}},{"Sequence":{"id":"A","type_id":0}}],
            "pair":[{"Sequence":{"id":"A","type_id":0}},{"Sequence":{"id":"B","type_id":1}}],
            "special_tokens":{"[CLS]":{"id":"[CLS]","ids":[2],"tokens":["[CLS]"]}}},
        "model":{"type":"WordLevel","unk_token":"[UNK]",
            "vocab":{"[PAD]":0,"[UNK]":1,"[CLS]":2,"pump":3,"hums":4}}}"#;

    fn port(name: &str, width: Option<usize>) -> Port {
        Port { name: name.to_owned(), dtype: Dtype::I64, shape: vec![None, width] }
    }

    fn read(fields: &str, tokenizer: Option<&str>, ports: &[Port]) -> Result<Tokenisation, String> {
        let dir = tempfile::tempdir().unwrap();
        if let Some(text) = tokenizer {
            std::fs::write(dir.path().join(FILE), text).unwrap();
        }
        let fields: Fields = serde_json::from_str(fields).map_err(|error| error.to_string())?;
        Tokenisation::read(fields, dir.path(), ports).map_err(|error| error.to_string())
    }

    fn lines(text: &str) -> Table {
        Table::parse_lines(text.as_bytes(), &Limits::default()).unwrap()
    }

    #[test]
    fn texts_become_ids_and_masks_of_one_length() {
        let ports = [port("ids", None), port("mask", None)];
        let fields = r#"{"max_length":3,"inputs":{"ids":"ids","mask":"mask"}}"#;
        let steps = read(fields, Some(WORDS), &ports).unwrap();
        let made = steps.table(&lines("pump hums pump\nwhistles\n\n"), &ports, &Limits::default()).unwrap();
        assert_eq!(made[0].1, Tensor::new(vec![3, 3], Data::I64(vec![2, 3, 4, 2, 1, 0, 2, 0, 0])).unwrap());
        assert_eq!(made[1].1.data, Data::I64(vec![1, 1, 1, 1, 1, 0, 1, 0, 0]));

        let fields =
            r#"{"max_length":4,"pad":"max_length","special_tokens":false,"inputs":{"ids":"ids","mask":"types"}}"#;
        let ports = [port("ids", Some(4)), port("mask", Some(4))];
        let steps = read(fields, Some(WORDS), &ports).unwrap();
        let text = Tensor::new(vec![1], Data::Text(vec!["hums".to_owned()])).unwrap();
        let made = steps.tensors(&[(String::new(), text)], &ports, &Limits::default()).unwrap();
        assert_eq!(made[0].1, Tensor::new(vec![1, 4], Data::I64(vec![4, 0, 0, 0])).unwrap());
        assert_eq!(made[1].1.data, Data::I64(vec![0; 4]));
    }

    #[test]
    fn tokens_are_counted() {
        let ports = [port("x", Some(5))];
        let steps = read(r#"{"special_tokens":false,"inputs":{"x":"counts"}}"#, Some(WORDS), &ports).unwrap();
        let table = Table::parse("id,note\n1,pump pump\n2,hums a\n".as_bytes(), &Limits::default()).unwrap();
        let error = steps.table(&table, &ports, &Limits::default()).unwrap_err().to_string();
        assert!(error.contains("\"column\""), "{error}");
        let fields = r#"{"column":"note","special_tokens":false,"inputs":{"x":"counts"}}"#;
        let made = read(fields, Some(WORDS), &ports).unwrap().table(&table, &ports, &Limits::default()).unwrap();
        assert_eq!(made[0].1.to_f64(), [0.0, 0.0, 0.0, 2.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0]);
    }

    #[test]
    fn a_text_that_is_too_long_is_refused_where_it_may_not_be_cut() {
        let ports = [port("ids", None)];
        let fields = r#"{"max_length":2,"truncate":false,"inputs":{"ids":"ids"}}"#;
        let steps = read(fields, Some(WORDS), &ports).unwrap();
        let error = steps.table(&lines("pump\npump pump\n"), &ports, &Limits::default()).unwrap_err().to_string();
        assert!(error.contains("text 2 has 3 tokens, and the model takes 2"), "{error}");
        let small = Limits { input_elements: 3, ..Limits::default() };
        let error = steps.table(&lines("pump\npump\n"), &ports, &small).unwrap_err();
        assert_eq!(error, RunError::TooLarge { elements: 4, limit: 3 });
        let long = Table::parse_lines("a".repeat(TEXT + 1).as_bytes(), &Limits::default()).unwrap();
        let error = steps.table(&long, &ports, &Limits::default()).unwrap_err().to_string();
        assert!(error.contains("at most 1048576"), "{error}");
    }

    #[test]
    fn declarations_that_do_not_suit_are_refused() {
        let unpadded = WORDS.replace("[PAD]", "[GAP]");
        let good = Some(WORDS);
        for (fields, tokenizer, width, expected) in [
            (r#"{"max_length":4,"inputs":{"x":"ids"}}"#, None, None, "--tokenizer"),
            (r#"{"max_length":4,"inputs":{"x":"ids"}}"#, Some("{}"), None, "this is no tokenizer"),
            (r#"{"max_length":4,"inputs":{"x":"ids"}}"#, Some(&*unpadded), None, "names no token for padding"),
            (r#"{"max_length":1,"inputs":{"x":"ids"}}"#, good, None, "it may be 2 to"),
            (r#"{"inputs":{"x":"ids"}}"#, good, None, "max_length"),
            (r#"{"max_length":4,"inputs":{"y":"ids"}}"#, good, None, "no input \"y\""),
            (r#"{"max_length":4,"inputs":{}}"#, good, None, "nothing is declared for input \"x\""),
            (r#"{"max_length":4,"inputs":{"x":"ids"}}"#, good, Some(4), "gets [?, ?], and takes [?, 4]"),
            (r#"{"inputs":{"x":"counts"}}"#, good, Some(4), "gets [?, 5], and takes [?, 4]"),
            (r#"{"max_length":4,"inputs":{"x":"embeddings"}}"#, good, None, "unknown variant `embeddings`"),
        ] {
            let error = read(fields, tokenizer, &[port("x", width)]).unwrap_err();
            assert!(error.contains(expected), "{fields}: {error}");
        }
    }
}
