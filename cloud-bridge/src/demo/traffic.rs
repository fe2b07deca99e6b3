//! Requests to the agents' local APIs: somebody needs answers all the time, whatever is rolled out.

use super::model::{HeldOut, STREAM};
use anyhow::Context;
use serde::Deserialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use ureq::Agent;

/// The pause between two requests to one agent.
const PAUSE: Duration = Duration::from_millis(4);
/// What another light adds to a pixel, and the most that a pixel may be.
const LIGHT: f32 = 2.0;
const WHITE: f32 = 16.0;
/// The longest that a request may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Answers to a batch.
#[derive(Debug)]
pub(crate) struct Answers {
    /// The class of each image.
    pub(crate) classes: Vec<i64>,
    /// The release that gave them.
    pub(crate) release: u64,
}

#[derive(Deserialize)]
struct Wire {
    outputs: Vec<Output>,
    parameters: Parameters,
}

#[derive(Deserialize)]
struct Output {
    name: String,
    data: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct Parameters {
    release: u64,
}

/// A client of local APIs that keeps its connections.
pub(crate) fn client() -> Agent {
    Agent::config_builder().timeout_global(Some(PATIENCE)).http_status_as_error(false).proxy(None).build().new_agent()
}

/// Asks one agent for the classes of some images; `None` when no model serves yet.
pub(crate) fn ask(client: &Agent, address: &str, images: &[Vec<f32>]) -> anyhow::Result<Option<Answers>> {
    let body = json!({
        "inputs": [{ "name": "image", "shape": [images.len(), 1, 8, 8], "datatype": "FP32", "data": images.concat() }]
    });
    let mut answer = client.post(format!("http://{address}/v2/models/{STREAM}/infer")).send_json(body)?;
    let status = answer.status().as_u16();
    let text = answer.body_mut().read_to_string()?;
    match status {
        200 => {
            let wire: Wire = serde_json::from_str(&text)?;
            let class = wire.outputs.iter().find(|o| o.name == "class").context("the answer names no class")?;
            let classes: Option<Vec<i64>> = class.data.iter().map(serde_json::Value::as_i64).collect();
            Ok(Some(Answers { classes: classes.context("a class is no number")?, release: wire.parameters.release }))
        }
        404 => Ok(None),
        _ => anyhow::bail!("{address} answered {status}: {text}"),
    }
}

/// What came of the requests to one agent, counted.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    asked: AtomicU64,
    failed: AtomicU64,
    other_class: AtomicU64,
    by_release: Mutex<BTreeMap<u64, u64>>,
}

/// A [`Tally`] at one moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Count {
    /// Requests made while a model served.
    pub(crate) asked: u64,
    /// Requests without an answer.
    pub(crate) failed: u64,
    /// Answers that differ from Python's.
    pub(crate) other_class: u64,
    /// Answers by release.
    pub(crate) by_release: BTreeMap<u64, u64>,
}

impl Count {
    /// What came after `before`.
    pub(crate) fn since(&self, before: &Count) -> Self {
        let by_release = self
            .by_release
            .iter()
            .map(|(release, count)| (*release, count - before.by_release.get(release).copied().unwrap_or_default()));
        Self {
            asked: self.asked - before.asked,
            failed: self.failed - before.failed,
            other_class: self.other_class - before.other_class,
            by_release: by_release.filter(|(_, count)| *count > 0).collect(),
        }
    }
}

impl Tally {
    /// What was counted up to now.
    pub(crate) fn count(&self) -> Count {
        Count {
            asked: self.asked.load(Ordering::SeqCst),
            failed: self.failed.load(Ordering::SeqCst),
            other_class: self.other_class.load(Ordering::SeqCst),
            by_release: self.by_release.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    fn add(&self, answer: anyhow::Result<Option<Answers>>, expected: i64) {
        match answer {
            Ok(None) => return,
            Ok(Some(answers)) => {
                *self.by_release.lock().unwrap_or_else(PoisonError::into_inner).entry(answers.release).or_default() +=
                    1;
                self.other_class.fetch_add(u64::from(answers.classes != [expected]), Ordering::SeqCst);
            }
            Err(_) => {
                self.failed.fetch_add(1, Ordering::SeqCst);
            }
        }
        self.asked.fetch_add(1, Ordering::SeqCst);
    }
}

/// Asks one agent all the time, until it is dropped.
pub(crate) struct Traffic {
    /// What came of it.
    pub(crate) tally: Arc<Tally>,
    stop: Arc<AtomicBool>,
    bright: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Traffic {
    /// One image after the other to the agent at `address`.
    pub(crate) fn start(address: String, heldout: Arc<HeldOut>) -> Self {
        let (tally, stop, bright) =
            (Arc::<Tally>::default(), Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let (counted, stopped, in_light) = (tally.clone(), stop.clone(), bright.clone());
        let thread = std::thread::spawn(move || {
            let client = client();
            for (image, class) in heldout.images.iter().zip(&heldout.python).cycle() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let image: Vec<f32> = match in_light.load(Ordering::SeqCst) {
                    true => image.iter().map(|pixel| (pixel + LIGHT).min(WHITE)).collect(),
                    false => image.clone(),
                };
                counted.add(ask(&client, &address, &[image]), *class);
                std::thread::sleep(PAUSE);
            }
        });
        Self { tally, stop, bright, thread: Some(thread) }
    }

    /// The images get brighter from now on.
    pub(crate) fn brighten(&self) {
        self.bright.store(true, Ordering::SeqCst);
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has said so already.
            let _ = thread.join();
        }
    }
}
