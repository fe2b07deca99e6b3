//! `petrel revoke`: takes keys, bundles, devices and low releases away from a fleet.

use super::draft::{self, Signers};
use super::{Out, root};
use crate::authority;
use crate::ceremony::{self, Draft, Taken};
use crate::fault::Fault;
use serde_json::json;
use std::path::PathBuf;
use trust::{
    Digest, PayloadKind, Releases, Revocation, RevokedBundle, RevokedDevice, RevokedFrom, RevokedKey, Role, Severity,
    Time, U53, WhichBundle,
};

/// Take keys, bundles, devices or low releases away: the next revocation, signed by several in turn
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  petrel revoke --root root.json --out revocation-1.json --take-key keys/anna.pub --key safe/revocation.pem
  petrel revoke --root root.json --after revocation-1.json --out revocation-2.json \\
      --take-bundle digits:1002000-1003000 --severity fallback --reason 'wrong labels' --key safe/revocation.pem
  petrel revoke --root root.json --out revocation-1.json --key safe/revocation-2.pem     # one more signature

A stop needs two signatures. A newer revocation holds all that the one before it took away.")]
pub(crate) struct Args {
    /// The root that devices trust now
    #[arg(long, value_name = "root.json")]
    root: PathBuf,
    /// The revocation that it follows; none for the first
    #[arg(long, value_name = "revocation-N.json")]
    after: Option<PathBuf>,
    /// The root that --after was signed under, when the revocation role has another epoch since
    #[arg(long, value_name = "root.json", requires = "after")]
    after_root: Option<PathBuf>,
    /// The revocation: made, or changed further or signed where it is there already
    #[arg(long, value_name = "revocation-N.json")]
    out: PathBuf,
    /// A key that counts no more, or no more for what was issued after a time, KEY@2026-01-31T12:00:00Z
    #[arg(long, value_name = "KEY[@TIME]")]
    take_key: Vec<String>,
    /// A bundle, by its statement or as releases of a stream
    #[arg(long, value_name = "SHA256|STREAM:FIRST-LAST", value_parser = bundle, requires = "severity", requires = "reason")]
    take_bundle: Vec<WhichBundle>,
    /// What devices do about the bundles
    #[arg(long)]
    severity: Option<Harm>,
    /// Why, for people
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// A device, by its name or the SHA-256 of its certificate
    #[arg(long, value_name = "ID|sha256:HEX", value_parser = device)]
    take_device: Vec<RevokedDevice>,
    /// The lowest release of a stream that may be installed
    #[arg(long, value_name = "STREAM=N", value_parser = floor)]
    floor: Vec<(String, U53)>,
    #[command(flatten)]
    signers: Signers,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Harm {
    /// People are told
    Info,
    /// It is not newly installed
    NoNew,
    /// The previous good release takes over
    Fallback,
    /// It stops answering
    Stop,
}

impl Args {
    /// Makes, changes or signs the revocation.
    ///
    /// # Errors
    /// When a file cannot be used, or what would be made is refused.
    pub(crate) fn run(self, out: &Out) -> anyhow::Result<()> {
        let now = draft::now()?;
        let root = authority::read_root(&self.root)?;
        let root_bytes = authority::read_document(&self.root)?;
        let after_root = self.after_root.as_deref().map(authority::read_root).transpose()?;
        let after = self.after.as_deref().map(authority::read_document).transpose()?;
        let last = match &after {
            Some(bytes) => {
                Some(trust::verify_revocation(after_root.as_ref().unwrap_or(&root), bytes).map_err(|e| {
                    let fault = Fault::new("the revocation that this one follows is refused").because(e);
                    fault.remedy("where the role has a new epoch since, give the older root with --after-root")
                })?)
            }
            None => None,
        };
        let begun = draft::begun(PayloadKind::Revocation, &self.out)?;
        let taken = self.taken()?;
        if taken.is_empty() && (begun.is_none() || self.signers.is_empty()) && last.is_none() {
            return Err(Fault::new("nothing is taken away").remedy("`petrel revoke --help` lists what can be").into());
        }
        let mut dropped = 0;
        let mut draft = begun.clone().unwrap_or_else(|| Draft::new(PayloadKind::Revocation, Vec::new()));
        if begun.is_none() || !taken.is_empty() {
            let said: Option<Revocation> = begun.as_ref().map(Draft::says).transpose()?;
            let next = ceremony::next_revocation(&root, last.as_deref(), said, &taken, now)?;
            dropped = draft.say(serde_json::to_vec(&next)?);
        }
        self.signers.sign(&mut draft, Role::Revocation, &[&root])?;
        let known = last.as_deref().zip(after.as_deref());
        let standing = ceremony::revocation_standing((&root, &root_bytes), known, &draft, now)?;
        draft.write(&self.out)?;
        if dropped > 0 {
            out.note(format!("it was changed: {dropped} signatures on what it said before are gone"))?;
        }
        let said: Revocation = draft.says()?;
        let facts = json!({ "version": said.version, "role_epoch": said.role_epoch, "revocation": said });
        let what = format!(
            "revocation {} (keys {}, bundles {}, devices {}, floors {})",
            said.version,
            said.keys.len(),
            said.bundles.len(),
            said.devices.len(),
            said.floors.len()
        );
        draft::report(out, &what, &self.out, &draft, &standing, facts)
    }

    fn taken(&self) -> anyhow::Result<Taken> {
        let severity = self.severity.map(|harm| match harm {
            Harm::Info => Severity::Info,
            Harm::NoNew => Severity::NoNew,
            Harm::Fallback => Severity::Fallback,
            Harm::Stop => Severity::Stop,
        });
        let words = severity.zip(self.reason.clone());
        let bundles = self.take_bundle.iter().zip(std::iter::repeat(words)).filter_map(|(bundle, words)| {
            words.map(|(severity, reason)| RevokedBundle { bundle: bundle.clone(), severity, reason })
        });
        Ok(Taken {
            keys: self.take_key.iter().map(|text| key(text)).collect::<anyhow::Result<_>>()?,
            bundles: bundles.collect(),
            devices: self.take_device.clone(),
            floors: self.floor.clone(),
        })
    }
}

fn key(text: &str) -> anyhow::Result<RevokedKey> {
    let (key, from) = match text.rsplit_once('@') {
        None => (text, RevokedFrom::All),
        Some((key, time)) => {
            let time = Time::try_from(time.to_owned()).map_err(|e| Fault::new("--take-key KEY@TIME").because(e))?;
            (key, RevokedFrom::IssuedAfter(time))
        }
    };
    Ok(RevokedKey { keyid: root::key_id(key)?, from })
}

fn bundle(text: &str) -> Result<WhichBundle, String> {
    if let Ok(digest) = text.parse::<Digest>() {
        return Ok(WhichBundle::StatementSha256(digest));
    }
    let form = || "write a statement's SHA-256, or STREAM:FIRST-LAST such as digits:1002000-1003000".to_owned();
    let (stream, releases) = text.split_once(':').ok_or_else(form)?;
    let (first, last) = releases.split_once('-').ok_or_else(form)?;
    let (first, last) = (number(first)?, number(last)?);
    if stream.is_empty() || first > last {
        return Err(form());
    }
    Ok(WhichBundle::Releases(Releases { stream: stream.to_owned(), first, last }))
}

fn device(text: &str) -> Result<RevokedDevice, String> {
    match text.strip_prefix("sha256:") {
        Some(hex) => hex.parse().map(RevokedDevice::CertSha256).map_err(|e| format!("{e}")),
        None => match text.parse::<protocol::DeviceId>() {
            Ok(id) => Ok(RevokedDevice::DeviceId(id.to_string())),
            Err(e) => Err(e.to_string()),
        },
    }
}

fn floor(text: &str) -> Result<(String, U53), String> {
    let (stream, release) = text.split_once('=').ok_or("write STREAM=N, such as digits=1002000")?;
    Ok((stream.to_owned(), number(release)?))
}

fn number(text: &str) -> Result<U53, String> {
    let number: u64 = text.parse().map_err(|_| format!("`{text}` is no number"))?;
    U53::try_from(number)
}
