//! A bundle's statement: an in-toto statement of the OpenSSF Model Signing specification v1.0.
//!
//! It lists every file of the bundle with size and digest. Its own digest names the bundle
//! everywhere: in assignments, topics, ledgers and on disk.

use crate::dsse::{Envelope, PayloadKind};
use crate::root::{Role, Root};
use crate::strict::U53;
use crate::{Code, Digest, MAX_DOCUMENT_BYTES, Refusal, Verified, dsse, strict};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeSet;

/// Files of a bundle's folder that are not signed, because they hold the signatures.
pub const SIGNED_OUTSIDE: [&str; 2] = ["bundle.dsse.json", "model.sig"];
/// The names that the specification's tool leaves aside, all of which we write.
const IGNORED: [&str; 6] = [".git", ".gitattributes", ".github", ".gitignore", "bundle.dsse.json", "model.sig"];
const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
const PREDICATE_TYPE: &str = "https://model_signing/signature/v1.0";
/// The most files of a bundle.
const MAX_RESOURCES: usize = 1024;

/// One signed file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resource {
    /// Path within the bundle, with `/`.
    pub name: String,
    algorithm: String,
    /// SHA-256 of the content.
    pub digest: Digest,
    /// Length in bytes.
    pub size: U53,
}

impl Resource {
    /// A file of `size` bytes.
    pub fn new(name: impl Into<String>, digest: Digest, size: U53) -> Self {
        Self { name: name.into(), algorithm: "sha256".into(), digest, size }
    }
}

/// The files of a bundle, sorted by name, and the publishers who signed them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    resources: Vec<Resource>,
    signers: Vec<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireStatement {
    #[serde(rename = "_type")]
    kind: String,
    subject: Vec<Subject>,
    #[serde(rename = "predicateType")]
    predicate_type: String,
    predicate: Predicate,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Subject {
    name: String,
    digest: SubjectDigest,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SubjectDigest {
    sha256: Digest,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Predicate {
    serialization: Serialization,
    resources: Vec<WireResource>,
}

/// As model signing has it: `size` is an addition of ours that its schema allows.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WireResource {
    pub(crate) name: String,
    algorithm: String,
    pub(crate) digest: Digest,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    size: Option<U53>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Serialization {
    method: String,
    hash_type: String,
    allow_symlinks: bool,
    ignore_paths: Vec<String>,
}

impl Statement {
    /// The payload of a statement over `resources`, in any order, for a bundle called `name`.
    ///
    /// # Panics
    /// Never: strings and numbers always have a JSON form.
    pub fn payload(name: &str, mut resources: Vec<Resource>) -> Vec<u8> {
        resources.sort_by(|a, b| a.name.cmp(&b.name));
        let root = root_digest(resources.iter().map(|r| r.digest));
        let wire = WireStatement {
            kind: STATEMENT_TYPE.into(),
            subject: vec![Subject { name: name.into(), digest: SubjectDigest { sha256: root } }],
            predicate_type: PREDICATE_TYPE.into(),
            predicate: Predicate {
                serialization: Serialization {
                    method: "files".into(),
                    hash_type: "sha256".into(),
                    allow_symlinks: false,
                    ignore_paths: IGNORED.map(str::to_owned).to_vec(),
                },
                resources: resources.into_iter().map(WireResource::from).collect(),
            },
        };
        serde_json::to_vec(&wire).expect("plain data has a JSON form")
    }

    /// The signed files, sorted by name.
    pub fn resources(&self) -> &[Resource] {
        &self.resources
    }

    /// The signed file `name`.
    pub fn resource(&self, name: &str) -> Option<&Resource> {
        self.resources.iter().find(|r| r.name == name)
    }

    /// Key ids of the publishers who signed.
    pub fn signers(&self) -> &[String] {
        &self.signers
    }

    /// The size of all files together.
    pub fn total_size(&self) -> u64 {
        self.resources.iter().map(|r| r.size.get()).fold(0, u64::saturating_add)
    }

    /// Refuses a folder that is not exactly what was signed. `found` lists every file of the folder
    /// but those of [`SIGNED_OUTSIDE`].
    pub fn check_files(&self, found: &[Resource]) -> Result<(), Refusal> {
        let signed: BTreeSet<&str> = self.resources.iter().map(|r| r.name.as_str()).collect();
        if let Some(extra) = found.iter().find(|f| !signed.contains(f.name.as_str())) {
            return Err(Refusal::new(Code::Extra, format!("`{}` is not among the signed files", extra.name)));
        }
        for resource in &self.resources {
            let missing = || Refusal::new(Code::Missing, format!("the signed file `{}` is not there", resource.name));
            let file = found.iter().find(|f| f.name == resource.name).ok_or_else(missing)?;
            resource.check(file)?;
        }
        if found.len() != self.resources.len() {
            return Err(Refusal::new(Code::Extra, "a signed file is there more than once"));
        }
        Ok(())
    }

    fn parse(payload: &[u8], signers: Vec<String>) -> Result<Self, Refusal> {
        let sized = |r: WireResource| {
            let missing = || Refusal::new(Code::Parse, format!("the statement gives no size of `{}`", r.name));
            Ok(Resource { size: r.size.ok_or_else(missing)?, name: r.name, algorithm: r.algorithm, digest: r.digest })
        };
        let resources = read_statement(payload)?.into_iter().map(sized).collect::<Result<Vec<_>, Refusal>>()?;
        // The specification's tool sorts by the parts of a path and checks no order: only ours is strict.
        if !resources.is_sorted_by(|a, b| a.name < b.name) {
            return Err(Refusal::new(Code::Statement, "the files of the statement are not sorted by name"));
        }
        Ok(Self { resources, signers })
    }
}

impl From<Resource> for WireResource {
    fn from(r: Resource) -> Self {
        Self { name: r.name, algorithm: r.algorithm, digest: r.digest, size: Some(r.size) }
    }
}

/// The files of a statement, ours or one that the specification's own tool made, when it keeps all rules.
pub(crate) fn read_statement(payload: &[u8]) -> Result<Vec<WireResource>, Refusal> {
    let wire: WireStatement = strict::parse("statement", payload)?;
    let fault = |detail: &str| Err(Refusal::new(Code::Statement, detail));
    let rules = &wire.predicate.serialization;
    if wire.kind != STATEMENT_TYPE || wire.predicate_type != PREDICATE_TYPE {
        return fault("the statement is not one of model signing v1.0");
    }
    if rules.method != "files" || rules.hash_type != "sha256" || rules.allow_symlinks {
        return fault("the statement must be over files, with sha256, without symbolic links");
    }
    if !rules.ignore_paths.iter().all(|p| IGNORED.contains(&p.as_str())) {
        return fault("the statement leaves out files that it must not");
    }
    let resources = wire.predicate.resources;
    if resources.is_empty() || resources.len() > MAX_RESOURCES {
        return Err(Refusal::new(Code::Limit, format!("a bundle has 1 to {MAX_RESOURCES} files")));
    }
    check_names(&resources)?;
    match wire.subject.as_slice() {
        [subject] if subject.digest.sha256 == root_digest(resources.iter().map(|r| r.digest)) => Ok(resources),
        _ => fault("the statement's subject is not the digest of its files"),
    }
}

/// Refuses names that would meet on some file system, or leave the folder.
fn check_names(resources: &[WireResource]) -> Result<(), Refusal> {
    let (mut names, mut twins) = (BTreeSet::new(), BTreeSet::new());
    for resource in resources {
        check_path(&resource.name)?;
        if resource.algorithm != "sha256" {
            return Err(Refusal::new(Code::Statement, "every digest of the statement must be sha256"));
        }
        if !names.insert(resource.name.as_str()) {
            return Err(Refusal::new(Code::Statement, format!("`{}` is listed twice", resource.name)));
        }
        if !twins.insert(resource.name.to_lowercase()) {
            let detail = format!("`{}` differs from another file in case only", resource.name);
            return Err(Refusal::new(Code::Path, detail));
        }
    }
    let inside_a_file = |name: &&String| name.match_indices('/').any(|(at, _)| twins.contains(&name[..at]));
    if let Some(name) = twins.iter().find(inside_a_file) {
        return Err(Refusal::new(Code::Path, format!("`{name}` would lie in a file")));
    }
    Ok(())
}

impl Resource {
    /// Refuses content that differs from what was signed: size first, then digest.
    pub fn check(&self, found: &Resource) -> Result<(), Refusal> {
        if found.size != self.size {
            let detail = format!("`{}` has {} bytes, signed were {}", self.name, found.size, self.size);
            return Err(Refusal::new(Code::Size, detail));
        }
        if found.digest != self.digest {
            return Err(Refusal::new(Code::Digest, format!("the content of `{}` is not what was signed", self.name)));
        }
        Ok(())
    }

    /// Refuses `bytes` that differ from what was signed.
    pub fn check_bytes(&self, bytes: &[u8]) -> Result<(), Refusal> {
        let size = U53::try_from(bytes.len() as u64).map_err(|e| Refusal::new(Code::Limit, e))?;
        self.check(&Resource::new(self.name.clone(), Digest::of(bytes), size))
    }
}

/// Believes a bundle's envelope when enough publishers of `root` signed it. Whether they may sign
/// for the bundle's stream is checked with its manifest ([`crate::verify_manifest`]).
///
/// # Errors
/// A refusal when the form, a path or the signatures are wrong.
pub fn verify_statement(root: &Verified<Root>, bytes: &[u8]) -> Result<Verified<Statement>, Refusal> {
    believe(root, |_| false, bytes)
}

/// The same, when `revoked` says which keys may not sign; they are not among the signers then.
pub(crate) fn believe(
    root: &Verified<Root>,
    revoked: impl Fn(&str) -> bool,
    bytes: &[u8],
) -> Result<Verified<Statement>, Refusal> {
    let envelope = Envelope::parse(PayloadKind::Bundle, bytes, MAX_DOCUMENT_BYTES)?;
    let signers = envelope.require(PayloadKind::Bundle, root, Role::Publisher)?;
    let signers = dsse::unrevoked("bundle envelope", signers, root.threshold(Role::Publisher), revoked)?;
    Ok(Verified::new(Statement::parse(&envelope.payload, signers)?, &envelope.payload))
}

/// The digest by which a bundle is known, as its envelope has it; whether anybody signed it is not asked.
///
/// # Errors
/// A refusal when the form is wrong.
pub fn statement_digest(bytes: &[u8]) -> Result<Digest, Refusal> {
    Ok(Digest::of(&Envelope::parse(PayloadKind::Bundle, bytes, MAX_DOCUMENT_BYTES)?.payload))
}

/// Reads the envelope of a bundle that was believed before and is known by its digest. Who signed it is
/// not asked again, so what runs goes on when its publisher leaves; nobody is among its signers.
///
/// # Errors
/// `E_MISMATCH` when it is another bundle's, or a refusal when the form is wrong.
pub fn known_statement(bundle: Digest, bytes: &[u8]) -> Result<Verified<Statement>, Refusal> {
    let envelope = Envelope::parse(PayloadKind::Bundle, bytes, MAX_DOCUMENT_BYTES)?;
    let found = Digest::of(&envelope.payload);
    if found != bundle {
        let detail = format!("the envelope is of bundle {}, asked was {}", found.short(), bundle.short());
        return Err(Refusal::new(Code::Mismatch, detail));
    }
    Ok(Verified::new(Statement::parse(&envelope.payload, Vec::new())?, &envelope.payload))
}

/// Digest over the raw digests in the order of the names.
fn root_digest(digests: impl Iterator<Item = Digest>) -> Digest {
    let mut hash = Sha256::new();
    for digest in digests {
        hash.update(digest.0);
    }
    Digest(hash.finalize().into())
}

/// A path that stays in its folder on every file system: ASCII words between single slashes.
fn check_path(path: &str) -> Result<(), Refusal> {
    let word = |part: &str| {
        part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
            && !part.starts_with(['.', '-'])
            && !part.ends_with('.')
    };
    let safe = path.len() <= 255 && path.split('/').all(|part| !part.is_empty() && word(part));
    if safe && !SIGNED_OUTSIDE.iter().any(|outside| path.eq_ignore_ascii_case(outside)) {
        return Ok(());
    }
    let shown: String = path.chars().take(80).collect();
    Err(Refusal::new(Code::Path, format!("{shown:?} is no path that a bundle may use")))
}
