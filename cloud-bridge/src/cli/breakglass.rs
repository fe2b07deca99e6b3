//! `petrel breakglass`: leave for devices to install one release under its floor, once.

use super::Out;
use super::draft::{self, Signers};
use crate::authority;
use crate::ceremony::{self, Allowed, Draft};
use crate::fault::Fault;
use protocol::{DeviceId, StreamName};
use serde_json::json;
use std::path::PathBuf;
use trust::{Breakglass, PayloadKind, Recipients, Role, U53};

/// Let devices install one release under its floor, once: signed by several in turn
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  petrel breakglass --root root.json --out glass.json --device edge-1 --stream digits --release 1001000 --key safe/breakglass.pem
  petrel breakglass --root root.json --out glass.json --key safe/breakglass-2.pem     # one more signature
  petrel publish glass.json, and then roll the release out")]
pub(crate) struct Args {
    /// The root that devices trust now
    #[arg(long, value_name = "root.json")]
    root: PathBuf,
    /// The breakglass: made, or signed where it is there already
    #[arg(long, value_name = "FILE.json")]
    out: PathBuf,
    /// A device that may [may be repeated]
    #[arg(long, value_name = "ID", conflicts_with = "class")]
    device: Vec<DeviceId>,
    /// Every device of a class of boards
    #[arg(long, value_name = "BOARD")]
    class: Option<String>,
    /// The stream
    #[arg(long)]
    stream: Option<StreamName>,
    /// The one release
    #[arg(long, value_name = "N")]
    release: Option<u64>,
    /// How long it is good for
    #[arg(long, value_name = "DAYS", default_value_t = 7, value_parser = clap::value_parser!(u64).range(1..=366))]
    days: u64,
    #[command(flatten)]
    signers: Signers,
}

impl Args {
    /// Makes or signs the breakglass.
    ///
    /// # Errors
    /// When a file cannot be used, or what would be made is refused.
    pub(crate) fn run(self, out: &Out) -> anyhow::Result<()> {
        let root = authority::read_root(&self.root)?;
        let mut draft = match draft::begun(PayloadKind::Breakglass, &self.out)? {
            Some(begun) if self.stream.is_none() && self.release.is_none() => begun,
            Some(_) => {
                let fault = Fault::new(format!("{} is there already", self.out.display()));
                return Err(fault.remedy("sign it with --key alone, or give another file with --out").into());
            }
            None => {
                let made = ceremony::breakglass(&root, &self.allowed()?)?;
                Draft::new(PayloadKind::Breakglass, serde_json::to_vec(&made)?)
            }
        };
        self.signers.sign(&mut draft, Role::Breakglass, &[&root])?;
        let standing = ceremony::breakglass_standing(&root, &draft)?;
        draft.write(&self.out)?;
        let said: Breakglass = draft.says()?;
        let what =
            format!("leave for {} release {} under its floor, until {}", said.stream, said.release, said.expires);
        draft::report(out, &what, &self.out, &draft, &standing, json!({ "breakglass": said }))
    }

    fn allowed(&self) -> anyhow::Result<Allowed> {
        let missing = |what: &str| {
            Fault::new(format!("{what} is missing")).remedy("say --device or --class, --stream and --release")
        };
        let to = match &self.class {
            Some(class) => Recipients::Class(class.clone()),
            None if self.device.is_empty() => return Err(missing("whom it is for").into()),
            None => Recipients::DeviceIds(self.device.iter().map(ToString::to_string).collect()),
        };
        let release = self.release.ok_or_else(|| missing("the release"))?;
        let mut name = [0; 16];
        getrandom::fill(&mut name).map_err(|e| Fault::new("the system gives no randomness").because(e))?;
        Ok(Allowed {
            to,
            stream: self.stream.as_ref().ok_or_else(|| missing("the stream"))?.to_string(),
            release: U53::try_from(release).map_err(|e| Fault::new("--release is too large").because(e))?,
            once_id: hex::encode(name),
            now: draft::now()?,
            good_for: self.days * 24 * 3_600,
        })
    }
}
