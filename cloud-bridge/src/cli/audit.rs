//! `petrel audit`: who did what on land, and whether the log still says what was written.
//!
//! The lines are checked here, on the person's machine: the bridge that is asked may be the one that lies.

use super::Out;
use super::client::Client;
use super::draft::now;
use super::table::table;
use crate::authority;
use crate::fault::Fault;
use crate::keyfile;
use crate::service::view::{AuditView, LineView};
use anyhow::Context;
use bridge_core::audit::{Entry, Head, Verifier};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use trust::{Checkpoint, Time, Verified};

/// Lines that are asked for at once.
const PAGE: u32 = 1_000;

/// How often a log is read anew whose beginning went meanwhile.
const TRIES: usize = 10;

/// Who did what, and whether the log still says what was written
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  petrel audit ls --since 24h --who admin
  petrel audit checkpoint --out 2026-11-28.checkpoint.json     keep it where the bridge cannot write
  petrel audit verify --checkpoint 2026-11-28.checkpoint.json --root root.json")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// The latest lines
    Ls {
        /// Not older than this: 90s, 30m, 24h, 7d
        #[arg(long, value_parser = seconds)]
        since: Option<u64>,
        /// By this name: a token's, a device, `director`, `nobody`
        #[arg(long)]
        who: Option<String>,
        /// This action, or all that begin with it: `device` or `device.approve`
        #[arg(long)]
        action: Option<String>,
        /// How many
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000))]
        last: u32,
    },
    /// Read the whole log, and name the first line that is not what was written
    Verify {
        /// A checkpoint that was kept elsewhere: without one nobody sees that the end was cut off [may be repeated]
        #[arg(long, value_name = "FILE", requires = "root")]
        checkpoint: Vec<PathBuf>,
        /// The root under which checkpoints were signed
        #[arg(long, value_name = "root.json")]
        root: Option<PathBuf>,
    },
    /// Let the bridge sign how far the log has come
    Checkpoint {
        /// The file to write
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
}

impl Args {
    /// Asks the bridge.
    pub(crate) fn run(self, out: &Out) -> anyhow::Result<()> {
        let client = Client::from_context()?;
        match self.command {
            Command::Ls { since, who, action, last } => {
                list(&client, out, since, &[("who", who), ("action", action)], last)
            }
            Command::Verify { checkpoint, root } => verify(&client, out, &checkpoint, root.as_deref()),
            Command::Checkpoint { out: path } => sign(&client, out, &path),
        }
    }
}

/// `90s`, `30m`, `24h`, `7d`
fn seconds(text: &str) -> Result<u64, String> {
    let (number, unit) = text.split_at(text.len() - text.chars().next_back().map_or(0, char::len_utf8));
    let of = match unit {
        "s" => Some(1),
        "m" => Some(60),
        "h" => Some(3_600),
        "d" => Some(86_400),
        _ => None,
    };
    let span = of.and_then(|of| number.parse::<u64>().ok()?.checked_mul(of));
    span.ok_or_else(|| format!("`{text}` is no span of time: write 90s, 30m, 24h or 7d"))
}

fn at(entry: &Entry) -> String {
    let seconds = i64::try_from(entry.at / 1_000).ok().and_then(Time::from_unix);
    seconds.map_or("?".into(), |time| time.to_string())
}

fn list(
    client: &Client,
    out: &Out,
    since: Option<u64>,
    words: &[(&str, Option<String>)],
    last: u32,
) -> anyhow::Result<()> {
    let mut query = format!("limit={last}");
    if let Some(span) = since {
        query += &format!("&since={}", now()?.saturating_sub(span) * 1_000);
    }
    for (key, value) in words {
        let Some(value) = value else { continue };
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if !value.chars().all(plain) {
            let fault = Fault::new(format!("`{value}` is no name of the log"));
            return Err(fault.remedy("use letters, digits, `-`, `_` and `.`").into());
        }
        query += &format!("&{key}={value}");
    }
    let view: AuditView = client.get(&format!("/audit?{query}"))?;
    let lines: Vec<Value> = view.items.iter().map(machine).collect();
    let row = |line: &LineView| match line.line().entry() {
        Some(entry) => {
            [entry.seq.to_string(), at(&entry), entry.who.clone(), entry.action, entry.subject, entry.outcome]
        }
        None => [
            "?".into(),
            "?".into(),
            "?".into(),
            "an unreadable line: run `petrel audit verify`".into(),
            "".into(),
            "".into(),
        ],
    };
    let people = if view.items.is_empty() {
        "no such line".into()
    } else {
        table(["LINE", "WHEN", "WHO", "ACTION", "WHAT", "OUTCOME"], view.items.iter().map(row)).to_string()
    };
    out.result(&lines, people)
}

/// What a line says, with its digest.
fn machine(line: &LineView) -> Value {
    let mut value = serde_json::from_str(&line.text).unwrap_or_else(|_| json!({ "unreadable": line.text }));
    if let Value::Object(fields) = &mut value {
        fields.insert("sha256".into(), json!(line.sha256));
    }
    value
}

fn verify(client: &Client, out: &Out, files: &[PathBuf], root: Option<&Path>) -> anyhow::Result<()> {
    let checkpoints = match root {
        None => vec![],
        Some(root) => files.iter().map(|file| read(file, root)).collect::<anyhow::Result<Vec<_>>>()?,
    };
    let moving = || {
        Fault::new("old lines of the log went while it was read, again and again").remedy("ask again in some minutes")
    };
    let log = (0..TRIES).find_map(|_| follow(client, &checkpoints).transpose()).ok_or_else(moving)??;
    let Log { fleet, gone, older, head, first, last } = log;
    let mut known: Vec<u64> = checkpoints.iter().map(|known| known.seq.get()).collect();
    known.sort_unstable();
    known.drain(..older);
    if older > 0 && known.is_empty() {
        let none = Fault::new("no checkpoint is of a line that is left: they say nothing of the log");
        let none = none.because(format!("the bridge says that lines up to {gone} were older than it keeps them"));
        return Err(none.remedy("give a newer checkpoint, of `petrel audit checkpoint`").into());
    }
    let lines = head.seq - gone;
    let span = last.map_or(String::new(), |last| format!(", from {} to {}", first.unwrap_or_default(), at(&last)));
    let people = match known.last() {
        Some(line) => format!("{lines} lines{span}: each is what was written; the checkpoint of line {line} is met"),
        None => format!("{lines} lines{span}: each holds the one before it"),
    };
    if gone > 0 {
        out.note(format!("the bridge says that lines up to {gone} were older than it keeps them: they are gone"))?;
    }
    if older > 0 {
        out.note(format!("{older} of the checkpoints are of lines that are gone"))?;
    }
    if known.is_empty() {
        out.note("without --checkpoint nobody sees that the end was cut off, or that all of it was written anew")?;
    }
    let machine = json!({
        "lines": lines, "gone": gone, "sha256": head.sha256, "fleet": fleet, "checkpoints": known, "checkpoints_of_lines_gone": older
    });
    out.result(&machine, people)
}

/// A log that was followed to its end.
struct Log {
    fleet: String,
    /// The last of the lines that are gone; 0 when none is.
    gone: u64,
    /// Checkpoints of those.
    older: usize,
    head: Head,
    /// When the first line that is left was written.
    first: Option<String>,
    last: Option<Entry>,
}

/// Reads it whole; nothing when lines went meanwhile that were not read yet.
fn follow(client: &Client, checkpoints: &[Verified<Checkpoint>]) -> anyhow::Result<Option<Log>> {
    let heads = checkpoints.iter().map(|known| Head { seq: known.seq.get(), sha256: known.sha256 });
    let page = |after: u64| client.get::<AuditView>(&format!("/audit?after={after}&limit={PAGE}"));
    let mut view = page(0)?;
    let fleet = checkpoints.first().map_or_else(|| view.fleet.clone(), |known| known.fleet.clone());
    let (mut verifier, mut older) = (Verifier::new(&fleet, heads), 0);
    let gone = view.base.map_or(0, |base| base.seq);
    if let Some(base) = view.base {
        (verifier, older) = verifier.behind(Head { seq: base.seq, sha256: base.sha256 }).map_err(damaged)?;
    }
    let (mut first, mut last) = (None, None::<Entry>);
    while !view.items.is_empty() {
        for line in &view.items {
            let entry = verifier.take(&line.line()).map_err(damaged)?;
            first.get_or_insert_with(|| at(&entry));
            last = Some(entry);
        }
        let read = last.as_ref().map_or(0, |entry| entry.seq);
        view = page(read)?;
        if view.base.is_some_and(|base| base.seq > read) {
            return Ok(None);
        }
    }
    Ok(Some(Log { fleet, gone, older, head: verifier.end().map_err(damaged)?, first, last }))
}

fn damaged(damage: bridge_core::audit::Damage) -> anyhow::Error {
    let fault = Fault::new("the audit log does not say what was written").because(damage);
    fault.remedy("keep a copy of bridge.db as it is, and compare it with a backup from before that line").into()
}

/// A checkpoint that was kept, believed under the root that it was signed under.
fn read(path: &Path, root: &Path) -> anyhow::Result<Verified<Checkpoint>> {
    let root = authority::read_root(root)?;
    let refused = |refusal| {
        let fault = Fault::new(format!("the checkpoint {} is refused", path.display())).because(refusal);
        fault.remedy("give a file of `petrel audit checkpoint`, and the root that was in use when it was signed")
    };
    Ok(trust::verify_checkpoint(&root, &authority::read_document(path)?).map_err(refused)?)
}

fn sign(client: &Client, out: &Out, path: &Path) -> anyhow::Result<()> {
    let signed: Value = client.post("/audit/checkpoint", &json!({}))?.context("the bridge's answer was empty")?;
    keyfile::write_new(path, &serde_json::to_vec(&signed)?, 0o644)?;
    let envelope = trust::Envelope::parse(
        trust::PayloadKind::Checkpoint,
        &serde_json::to_vec(&signed)?,
        trust::MAX_RETAINED_BYTES,
    )?;
    let said: Value = serde_json::from_slice(&envelope.payload)?;
    let people = format!(
        "line {} of the audit log, signed, in {}\nkeep it where the bridge cannot write",
        said["seq"],
        path.display()
    );
    out.result(&json!({ "file": path.display().to_string(), "line": said["seq"], "sha256": said["sha256"] }), people)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_of_time_have_a_unit() {
        assert_eq!(["90s", "30m", "24h", "7d"].map(seconds), [Ok(90), Ok(1_800), Ok(86_400), Ok(604_800)]);
        for bad in ["", "h", "24", "-1h", "1.5h", "24 h", "1y", "99999999999999999999d", "3\u{fc}"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
