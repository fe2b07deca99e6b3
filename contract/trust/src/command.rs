//! The command: one thing that land asks of one device now, signed by the director.
//!
//! It answers a hello, as a beacon does, and is numbered: so a device takes each once without writing anything down.
//! What is asked is read apart from the rest, since a newer land may ask for what this build does not know: that is
//! refused by its name, and land hears of it.

use crate::dsse::{Envelope, PayloadKind};
use crate::root::{Role, Root};
use crate::strict::{self, Time, U53};
use crate::{Code, MAX_COMMAND_BYTES, Refusal, Trust, Verified, dsse};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The longest nonce, as text.
const MAX_NONCE: usize = 128;
/// The longest that a command may hold the log at another level, in seconds.
pub const MAX_LOG_LEVEL_S: u64 = 24 * 3_600;
/// The most labels of one command.
pub const MAX_LABELS: usize = 400;
/// The most bytes of the name of a stream.
const MAX_STREAM_BYTES: usize = 63;
/// The most bytes of an id, and of a label.
const MAX_LABEL_BYTES: usize = 128;
/// The most inputs that one command asks for.
pub const MAX_SAMPLES: u64 = 200;
/// In at most so many bytes: with everything around them they are one message.
pub const MAX_SAMPLES_BYTES: u64 = 128 * 1024;

/// What land asks of one device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// Version of the form: 1.
    pub spec: U53,
    /// The fleet.
    pub fleet: String,
    /// When it was signed.
    pub issued: Time,
    /// The one device that it is for.
    pub device_id: String,
    /// The director's epoch in the root.
    pub role_epoch: U53,
    /// The nonce of the latest hello that land heard of the device.
    pub nonce: String,
    /// When land heard it: a device that does not know the time counts from there.
    pub heard: Time,
    /// Grows with every command for this device.
    pub seq: U53,
    /// After this the device does nothing because of it.
    pub deadline: Time,
    /// What is asked: see [`Request`].
    pub request: Value,
}

/// What may be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, tag = "what")]
pub enum Request {
    /// Its log, its status and its configuration, without secrets.
    Diagnostics {},
    /// A new process for a stream's model.
    Restart {
        /// Which stream.
        stream: String,
    },
    /// Its report and its telemetry, again.
    Report {},
    /// What was right: it joins the answers that it remembers, and tells how many.
    Labels {
        /// Which stream.
        stream: String,
        /// At most [`MAX_LABELS`].
        labels: Vec<Labelled>,
    },
    /// Another level of the log, which goes back by itself.
    LogLevel {
        /// Which.
        level: LogLevel,
        /// For so many seconds, at most [`MAX_LOG_LEVEL_S`].
        for_s: U53,
    },
    /// Inputs that it keeps for people: somebody asked for them on land, and somebody else approved that.
    Samples {
        /// Which stream.
        stream: String,
        /// The number of what was approved.
        request: U53,
        /// At most so many, 1 to [`MAX_SAMPLES`].
        count: U53,
        /// In at most so many bytes, 1 to [`MAX_SAMPLES_BYTES`].
        bytes: U53,
        /// Who asked.
        by: String,
        /// Who approved.
        approved: String,
    },
}

/// What was right for one request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Labelled {
    /// The id that the request had.
    pub id: String,
    /// A class by its name or number, or a value, as text.
    pub label: String,
}

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// What is broken.
    Error,
    /// And what may be.
    Warn,
    /// And what happens.
    Info,
    /// And why.
    Debug,
    /// And everything else.
    Trace,
}

impl LogLevel {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            LogLevel::Error => "error",
            LogLevel::Warn => "warn",
            LogLevel::Info => "info",
            LogLevel::Debug => "debug",
            LogLevel::Trace => "trace",
        }
    }
}

impl Request {
    /// The words that name requests.
    const KNOWN: [&str; 6] = ["diagnostics", "restart", "report", "labels", "log-level", "samples"];

    /// Reads what a command asks.
    ///
    /// # Errors
    /// `E_REQUEST` for what is not known here, or not said as it should be.
    pub fn read(asked: &Value) -> Result<Self, Refusal> {
        let refuse = |detail: String| Refusal::new(Code::Request, detail);
        let what = asked.get("what").and_then(Value::as_str).unwrap_or_default();
        if !Self::KNOWN.contains(&what) {
            let what: String = what.chars().take(40).collect();
            return Err(refuse(format!("the request `{what}` is not known here: update the agent")));
        }
        let request = Self::deserialize(asked).map_err(|e| refuse(format!("the request `{what}`: {e}")))?;
        if let Request::Restart { stream } | Request::Labels { stream, .. } | Request::Samples { stream, .. } = &request
            && stream.len() > MAX_STREAM_BYTES
        {
            return Err(refuse(format!("the name of a stream has at most {MAX_STREAM_BYTES} bytes")));
        }
        if let Request::LogLevel { for_s, .. } = request
            && !(1..=MAX_LOG_LEVEL_S).contains(&for_s.get())
        {
            return Err(refuse(format!("a level of the log holds for 1 to {MAX_LOG_LEVEL_S} seconds")));
        }
        if let Request::Labels { labels, .. } = &request {
            let long = |word: &str| word.len() > MAX_LABEL_BYTES;
            if labels.len() > MAX_LABELS || labels.iter().any(|l| long(&l.id) || long(&l.label)) {
                let most = format!("a command has at most {MAX_LABELS} labels of {MAX_LABEL_BYTES} bytes");
                return Err(refuse(most));
            }
        }
        if let Request::Samples { count, bytes, .. } = &request
            && !((1..=MAX_SAMPLES).contains(&count.get()) && (1..=MAX_SAMPLES_BYTES).contains(&bytes.get()))
        {
            let most = format!("a command asks for 1 to {MAX_SAMPLES} samples in 1 to {MAX_SAMPLES_BYTES} bytes");
            return Err(refuse(most));
        }
        Ok(request)
    }
}

/// Believes a command: signed by the director of `root`, for this fleet and this device; `revoked` says which keys may not
/// sign what was issued when.
fn believe(
    root: &Verified<Root>,
    revoked: impl Fn(&str, Time) -> bool,
    device: &str,
    bytes: &[u8],
) -> Result<Verified<Command>, Refusal> {
    let envelope = Envelope::parse(PayloadKind::Command, bytes, MAX_COMMAND_BYTES)?;
    let signers = envelope.require(PayloadKind::Command, root, Role::Director)?;
    let command: Command = strict::parse_versioned("command", &envelope.payload)?;
    dsse::unrevoked("command", signers, root.threshold(Role::Director), |key| revoked(key, command.issued))?;
    root.check_speaks_for("command", &command.fleet, Role::Director, command.role_epoch)?;
    if command.device_id != device {
        return Err(Refusal::new(Code::Device, format!("the command is not for `{device}`")));
    }
    if command.nonce.len() > MAX_NONCE {
        return Err(Refusal::new(Code::Limit, format!("a command's nonce has at most {MAX_NONCE} bytes")));
    }
    Ok(Verified::new(command, &envelope.payload))
}

impl Trust {
    /// A command for this device, signed by a director who is not revoked. Whether it is to be done now,
    /// [`Trust::take_command`] decides.
    ///
    /// # Errors
    /// A refusal when the form, the addressee or the signatures are wrong; `E_REVOKED_KEY`.
    pub fn verify_command(&self, bytes: &[u8]) -> Result<Verified<Command>, Refusal> {
        believe(&self.root, self.dated(), &self.device.id, bytes)
    }

    /// Takes a command once, while it counts. Nothing of it is to be saved: after a start there is another nonce.
    ///
    /// # Errors
    /// `E_REPLAY` when it answers another hello than the latest one, or its number was there before; `E_EXPIRED`,
    /// `E_EXPIRED_ROOT`, `E_ROOT_OLD`, `E_REVOKED_DEVICE`.
    pub fn take_command(&mut self, command: &Verified<Command>, uptime_ms: u64) -> Result<(), Refusal> {
        if self.nonce.as_ref() != Some(&command.nonce) {
            let detail = format!("command {} answers another hello than the latest one", command.seq);
            return Err(Refusal::new(Code::Replay, detail));
        }
        if command.seq.get() <= self.commanded {
            return Err(Refusal::new(Code::Replay, format!("command {} was there before", command.seq)));
        }
        self.commanded = command.seq.get();
        self.check_root_reached()?;
        self.check_root_valid(uptime_ms)?;
        self.check_device()?;
        self.check_not_expired("command", command.deadline, uptime_ms)?;
        // Land heard the hello after it was said, so that at least so much of its time has gone.
        let good_for = command.deadline.unix().saturating_sub(command.heard.unix());
        let gone = uptime_ms.saturating_sub(self.greeted_ms) / 1_000;
        if i64::try_from(gone).unwrap_or(i64::MAX) > good_for {
            let detail = format!("the command counted for {good_for} s after a hello that was said {gone} s ago");
            return Err(Refusal::new(Code::Expired, detail));
        }
        Ok(())
    }
}
