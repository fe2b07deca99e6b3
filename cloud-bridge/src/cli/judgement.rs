//! `petrel verify --explain`: every rule of an installation, with what came of it here.
//!
//! Decides what cannot be known away from a device: `trust` passes a rule about things of which it was
//! told nothing, and a person would take that for an answer.

use super::table::table;
use super::{Out, draft};
use crate::authority;
use crate::bundle::{MANIFEST, SEAL, read, read_bounded};
use crate::fault::Fault;
use serde_json::json;
use std::path::{Path, PathBuf};
use trust::{Device, Finding, MAX_DOCUMENT_BYTES, Offer, Outcome, Refusal, Rule, Time, Trust};

/// What is told of the device.
#[derive(Debug, clap::Args)]
pub(super) struct Known {
    /// The fleet's revocation
    #[arg(long, value_name = "revocation.json", requires = "explain")]
    revocation: Option<PathBuf>,
    /// The device's name
    #[arg(long, value_name = "ID", requires = "explain")]
    device: Option<String>,
    /// The release that the device runs now
    #[arg(long, value_name = "N", requires = "explain")]
    active: Option<u64>,
}

impl Known {
    /// Shows what came of every rule.
    ///
    /// # Errors
    /// The first refusal, when there is one, after all were shown.
    pub(super) fn explain(self, root: &Path, dir: &Path, out: &Out) -> anyhow::Result<()> {
        let fleet = authority::read_root(root)?.fleet.clone();
        let built = i64::try_from(draft::now()?).ok().and_then(Time::from_unix);
        let built = built.ok_or_else(|| Fault::new("this machine's clock is not set"))?;
        let id = self.device.clone().unwrap_or_default();
        let device = Device { id, class: String::new(), certificate: None, built };
        let mut trust = Trust::first(device, &fleet, &authority::read_document(root)?)?;
        if let Some(path) = &self.revocation {
            let refused = |e| Fault::new(format!("the revocation {} is refused", path.display())).because(e);
            trust.accept_revocation(&authority::read_document(path)?, 0).map_err(refused)?;
        }
        let file = |name: &str| match dir.join(name).symlink_metadata() {
            Ok(_) => read_bounded(&dir.join(name), MAX_DOCUMENT_BYTES as u64),
            Err(_) => Ok(Vec::new()),
        };
        let (envelope, manifest, files) = (file(SEAL)?, file(MANIFEST)?, read(dir)?);
        let offer = Offer {
            envelope: &envelope,
            manifest: &manifest,
            order: None,
            active: self.active,
            files: Some(&files),
            board: None,
            free_disk: None,
        };
        let findings: Vec<Finding> = trust.judge(&offer, 0).findings.into_iter().map(|f| self.honest(f)).collect();
        let mut refusals = findings.iter().filter_map(|f| match &f.outcome {
            Outcome::Refused(refusal) => Some(refusal.clone()),
            Outcome::Passed | Outcome::Unknown(_) => None,
        });
        let refusal = refusals.next();
        let machine = json!({ "refused": refusal.as_ref().map(|r| r.code.as_str()),
            "rules": findings.iter().map(row_for_machines).collect::<Vec<_>>() });
        let rows = findings.iter().map(row);
        out.result(&machine, table(["RULE", "", "WHY"], rows).trim_fmt())?;
        refusal.map_or(Ok(()), |refusal: Refusal| Err(refusal.into()))
    }

    /// What was not told was not asked.
    fn honest(&self, finding: Finding) -> Finding {
        let silent = match finding.rule {
            Rule::UpToDate | Rule::Fresh => Some("only the bridge can say so, to a device"),
            Rule::Assigned => Some("no assignment is at hand"),
            Rule::DeviceInFleet if self.device.is_none() || self.revocation.is_none() => {
                Some("give --device and --revocation")
            }
            Rule::NotRevoked if self.revocation.is_none() => Some("give --revocation"),
            Rule::RollbackDeclared if self.active.is_none() => Some("give --active"),
            Rule::AboveFloor if finding.outcome == Outcome::Passed => Some("only the device knows its own floor"),
            _ => None,
        };
        match silent {
            Some(why) => Finding { rule: finding.rule, outcome: Outcome::Unknown(why) },
            None => finding,
        }
    }
}

fn row(finding: &Finding) -> [String; 3] {
    let (what, why) = match &finding.outcome {
        Outcome::Passed => ("pass".to_owned(), String::new()),
        Outcome::Refused(refusal) => (refusal.code.as_str().to_owned(), refusal.to_string()),
        Outcome::Unknown(why) => ("not known here".to_owned(), (*why).to_owned()),
    };
    [finding.rule.to_string(), what, why]
}

fn row_for_machines(finding: &Finding) -> serde_json::Value {
    let rule = finding.rule.as_str();
    match &finding.outcome {
        Outcome::Passed => json!({ "rule": rule, "outcome": "pass" }),
        Outcome::Refused(refusal) => {
            json!({ "rule": rule, "outcome": "refused", "code": refusal.code.as_str(), "why": refusal.to_string() })
        }
        Outcome::Unknown(why) => json!({ "rule": rule, "outcome": "unknown", "why": why }),
    }
}
