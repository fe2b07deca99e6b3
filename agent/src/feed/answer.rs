//! One question of a feed: it waits for its turn, and becomes lines of JSON.
//!
//! Decides how a feed waits, and the form of its answers: the rows are those of `petrel-agent infer`.

use super::Kitchen;
use crate::infer::{Row, rows};
use crate::worker::{Answered, Busy, Failure};
use protocol::StreamName;
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;

/// While the threads for inference are busy; the pause doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

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
            Failure::UnknownModel(_) | Failure::UnknownRelease { .. } | Failure::Away => {
                Unanswered::NotNow(failure.to_string())
            }
            Failure::Request(_) | Failure::Model(_) => Unanswered::Never(failure.to_string()),
        }
    }
}

/// Works on one of the threads for inference, after as long a wait as it takes.
pub(super) async fn ask<T: Send + 'static>(
    kitchen: &Kitchen,
    work: impl Fn(&Kitchen) -> Result<T, Unanswered> + Send + Sync + 'static,
) -> Result<T, Unanswered> {
    let work = Arc::new(work);
    let mut pause = FIRST_PAUSE;
    loop {
        let (job, here) = (work.clone(), kitchen.clone());
        match kitchen.pool.run(move || job(&here)) {
            Ok(outcome) => {
                let fell = |_| Unanswered::Never("the agent failed on it; please report it".into());
                return outcome.await.unwrap_or_else(|lost| Err(fell(lost)));
            }
            Err(Busy) => {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
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
