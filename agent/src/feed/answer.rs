//! One question of a feed: it waits for its turn, and becomes lines of JSON.
//!
//! Decides where a feed works, and the form of its answers: the rows are those of `petrel-agent infer`.

use crate::infer::{Row, rows};
use crate::worker::{Answered, Failure, Question, Worker};
use protocol::StreamName;
use serde::Serialize;
use std::sync::Arc;

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Unanswered {
    /// Nothing is wrong with the question: nobody is there to answer it now.
    NotNow(String),
    /// It will never be answered.
    Never(String),
}

impl From<Failure> for Unanswered {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::UnknownModel(_) | Failure::UnknownRelease { .. } | Failure::Away | Failure::Busy => {
                Unanswered::NotNow(failure.to_string())
            }
            Failure::Request(_) | Failure::Model(_) | Failure::Broken => Unanswered::Never(failure.to_string()),
        }
    }
}

/// Reads a question, has it answered, and writes the answer; reading and writing are done on a thread that may take its
/// time.
pub(super) async fn ask<K: Send + 'static>(
    worker: &Arc<Worker>,
    model: &StreamName,
    read: impl FnOnce() -> Result<(K, Question), Unanswered> + Send + 'static,
    write: impl FnOnce(K, Answered) -> Result<Vec<u8>, Unanswered> + Send + 'static,
) -> Result<Vec<u8>, Unanswered> {
    let (kept, question) = worked(read).await?;
    let answered = worker.infer(model.as_str(), None, question).await?;
    worked(move || write(kept, answered)).await
}

async fn worked<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Unanswered> + Send + 'static,
) -> Result<T, Unanswered> {
    let fell = |_| Unanswered::Never(Failure::Broken.to_string());
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|lost| Err(fell(lost)))
}

/// One row of an answer.
#[derive(Debug, Serialize)]
struct Line<'a> {
    file: &'a str,
    /// Counted from 1.
    row: usize,
    model: &'a StreamName,
    /// The release that answered.
    release: u64,
    #[serde(flatten)]
    answer: &'a Row,
}

/// An answer to a file: a line of JSON for each row.
pub(super) fn lines(file: &str, model: &StreamName, answered: Answered) -> Result<Vec<u8>, Unanswered> {
    answered.note(file);
    let release = answered.by.release;
    let mut lines = Vec::new();
    for (at, answer) in rows(answered.answer, None, 1).iter().enumerate() {
        let line = Line { file, row: at + 1, model, release, answer };
        serde_json::to_writer(&mut lines, &line).map_err(|why| Unanswered::Never(why.to_string()))?;
        lines.push(b'\n');
    }
    Ok(lines)
}

/// An answer to a message.
#[derive(Debug, Serialize)]
struct Message<'a> {
    topic: &'a str,
    model: &'a StreamName,
    release: u64,
    rows: Vec<Row>,
}

/// An answer to a message: one JSON object.
pub(super) fn message(topic: &str, model: &StreamName, answered: Answered) -> Result<Vec<u8>, Unanswered> {
    let release = answered.by.release;
    let message = Message { topic, model, release, rows: rows(answered.answer, None, 1) };
    serde_json::to_vec(&message).map_err(|why| Unanswered::Never(why.to_string()))
}
