//! The library: every bundle that was pushed, whole and verified, in a folder named by its digest.

use crate::bundle::{self, SEAL};
use crate::fault::Fault;
use anyhow::Context;
use drift::Baseline;
use protocol::{MAX_RETAINED_BYTES, Offer, spans};
use std::collections::HashMap;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use trust::{Code, Digest, Manifest, Refusal, Resource, Revocation, Role, Root, Statement, Verified};

/// Bundles whose cuts are remembered.
const MAX_CUT: usize = 16;
/// Bundles whose baselines are.
const MAX_BASELINES: usize = 64;

/// Holds bundles on disk.
#[derive(Debug)]
pub(crate) struct Library {
    folder: PathBuf,
    believed: RwLock<Believed>,
    cut: Mutex<HashMap<Digest, Arc<Parts>>>,
    baselines: Mutex<HashMap<Digest, Option<Arc<Baseline>>>>,
}

/// What bundles are verified with.
#[derive(Debug)]
struct Believed {
    root: Verified<Root>,
    revocation: Option<Verified<Revocation>>,
}

/// A bundle in the library.
#[derive(Debug)]
struct Shelved {
    dir: PathBuf,
    resources: Vec<Resource>,
}

/// Where a chunk lies.
#[derive(Debug, Clone)]
struct Place {
    file: usize,
    offset: u64,
    length: u64,
}

/// The parts of a bundle, ready to be published.
#[derive(Debug)]
pub(crate) struct Parts {
    /// The signed envelope.
    pub(crate) envelope: Vec<u8>,
    /// The unsigned offer, as JSON.
    pub(crate) offer: Vec<u8>,
    files: Vec<PathBuf>,
    order: Vec<Digest>,
    places: HashMap<Digest, Place>,
}

impl Library {
    /// In `data/bundles`.
    pub(crate) fn open(data: &Path, root: Verified<Root>) -> anyhow::Result<Self> {
        let folder = data.join("bundles");
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        // What an interrupted push left behind is nobody's.
        let staging = data.join("incoming");
        if staging.exists() {
            std::fs::remove_dir_all(&staging).with_context(|| format!("cannot clear {}", staging.display()))?;
        }
        std::fs::create_dir_all(&staging).with_context(|| format!("cannot make {}", staging.display()))?;
        Ok(Self {
            folder,
            believed: RwLock::new(Believed { root, revocation: None }),
            cut: Mutex::default(),
            baselines: Mutex::default(),
        })
    }

    /// Bundles are verified with these from now on.
    pub(crate) fn believe(&self, root: Verified<Root>, revocation: Option<Verified<Revocation>>) {
        *self.believed.write().unwrap_or_else(PoisonError::into_inner) = Believed { root, revocation };
    }

    /// What a folder holds, when enough publishers signed it who may still sign.
    fn verify(&self, dir: &Path) -> anyhow::Result<(Verified<Statement>, Verified<Manifest>)> {
        let believed = self.believed.read().unwrap_or_else(PoisonError::into_inner);
        let (statement, manifest) = bundle::verify(&believed.root, dir)?;
        let revoked = |key: &&String| believed.revocation.as_ref().is_some_and(|r| r.key_revoked(key, None));
        let left = statement.signers().iter().filter(|key| !revoked(key)).count() as u64;
        let threshold = believed.root.threshold(Role::Publisher);
        if left < threshold {
            let what = format!("{left} of {threshold} signatures are of keys that are not revoked");
            return Err(Refusal::new(Code::RevokedKey, what).into());
        }
        Ok((statement, manifest))
    }

    /// A new temporary file for an upload, removed when it is dropped.
    pub(crate) fn upload(&self) -> anyhow::Result<tempfile::NamedTempFile> {
        Ok(tempfile::NamedTempFile::new_in(self.staging())?)
    }

    fn staging(&self) -> PathBuf {
        self.folder.with_file_name("incoming")
    }

    /// Takes a bundle's tar: unpacked aside, verified, and only then moved to its place.
    ///
    /// # Errors
    /// A refusal when it is not what a publisher signed, or not `expected`.
    pub(crate) fn take(&self, archive: impl Read, expected: Digest) -> anyhow::Result<(Verified<Manifest>, u64)> {
        let staging = tempfile::tempdir_in(self.staging())?;
        let dir = staging.path().join("bundle");
        std::fs::create_dir(&dir)?;
        bundle::unpack(archive, &dir)?;
        let (statement, manifest) = self.verify(&dir)?;
        if statement.digest() != expected {
            let what = format!("the bundle is {}, announced was {}", statement.digest().short(), expected.short());
            return Err(Refusal::new(Code::Mismatch, what).into());
        }
        let place = self.place(expected);
        if place.exists() && self.verify(&place).is_err() {
            std::fs::remove_dir_all(&place).with_context(|| format!("cannot mend {}", place.display()))?;
        }
        if !place.exists() {
            let names = statement.resources().iter().map(|r| r.name.as_str()).chain([SEAL]);
            for path in names.map(|name| dir.join(name)) {
                File::open(&path)?.sync_all()?;
                path.parent().map(File::open).transpose()?.map(|folder| folder.sync_all()).transpose()?;
            }
            std::fs::rename(&dir, &place).with_context(|| format!("cannot keep {}", place.display()))?;
            File::open(&self.folder)?.sync_all()?;
        }
        Ok((manifest, statement.total_size()))
    }

    /// Bytes that are free where bundles are kept.
    pub(crate) fn disk_free(&self) -> anyhow::Result<u64> {
        let room =
            rustix::fs::statvfs(&self.folder).with_context(|| format!("cannot ask {}", self.folder.display()))?;
        Ok(room.f_bavail.saturating_mul(room.f_frsize))
    }

    /// Whether a bundle is there.
    pub(crate) fn holds(&self, bundle: Digest) -> bool {
        self.place(bundle).exists()
    }

    /// Takes a bundle away; its name is free at once.
    pub(crate) fn remove(&self, bundle: Digest) -> anyhow::Result<()> {
        self.cut.lock().unwrap_or_else(PoisonError::into_inner).remove(&bundle);
        let aside = tempfile::tempdir_in(self.staging())?;
        match std::fs::rename(self.place(bundle), aside.path().join("bundle")) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
            Ok(()) | Err(_) => Ok(aside.close()?),
        }
    }

    /// The envelope of a bundle, or a file that its statement names, with its size and digest; `None` when there is none.
    ///
    /// # Errors
    /// When the bundle is there and cannot be read.
    pub(crate) fn file(&self, bundle: Digest, name: &str) -> anyhow::Result<Option<(File, u64, Digest)>> {
        if !self.holds(bundle) {
            return Ok(None);
        }
        let shelved = self.shelved(bundle)?;
        let listed = shelved.resources.iter().find(|resource| resource.name == name);
        let (size, digest) = match listed {
            Some(resource) => (resource.size.get(), resource.digest),
            None if name == SEAL => {
                let sealed = bundle::read_bounded(&shelved.dir.join(SEAL), MAX_RETAINED_BYTES as u64)?;
                (sealed.len() as u64, Digest::of(&sealed))
            }
            None => return Ok(None),
        };
        let path = shelved.dir.join(name);
        let file = File::open(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Some((file, size, digest)))
    }

    /// The baseline of a bundle; `None` when the bundle is not there, or has none. It is remembered, since a bundle never
    /// changes.
    pub(crate) fn baseline(&self, bundle: Digest) -> Option<Arc<Baseline>> {
        let lock = || self.baselines.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = lock().get(&bundle) {
            return known.clone();
        }
        if !self.holds(bundle) {
            return None;
        }
        let read = bundle::read_baseline(&self.place(bundle).join(bundle::DRIFT)).ok().map(Arc::new);
        let mut known = lock();
        if known.len() >= MAX_BASELINES {
            known.clear();
        }
        known.insert(bundle, read.clone());
        read
    }

    fn place(&self, bundle: Digest) -> PathBuf {
        self.folder.join(bundle.to_string())
    }

    /// The parts of a bundle. They are remembered, since a bundle never changes.
    pub(crate) fn parts(&self, digest: Digest) -> anyhow::Result<Arc<Parts>> {
        let lock = || self.cut.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(parts) = lock().get(&digest) {
            return Ok(parts.clone());
        }
        let parts = Arc::new(self.shelved(digest)?.parts()?);
        let mut cut = lock();
        if cut.len() >= MAX_CUT {
            cut.clear();
        }
        cut.insert(digest, parts.clone());
        Ok(parts)
    }

    /// A bundle by its digest.
    fn shelved(&self, digest: Digest) -> anyhow::Result<Shelved> {
        let dir = self.place(digest);
        let sealed = bundle::read_bounded(&dir.join(SEAL), MAX_RETAINED_BYTES as u64)?;
        // It was verified when it was pushed; who has left since then takes nothing away.
        let statement = trust::known_statement(digest, &sealed)?;
        Ok(Shelved { dir, resources: statement.resources().to_vec() })
    }
}

impl Shelved {
    /// Cuts the bundle into its parts; hashes every file once.
    fn parts(&self) -> anyhow::Result<Parts> {
        let envelope = bundle::read_bounded(&self.dir.join(SEAL), MAX_RETAINED_BYTES as u64)?;
        let mut index = Vec::new();
        let mut order = Vec::new();
        let mut places = HashMap::new();
        let mut files = Vec::new();
        for resource in &self.resources {
            let path = self.dir.join(&resource.name);
            let file = File::open(&path).with_context(|| format!("cannot read {}", path.display()))?;
            for span in spans(resource.size.get()) {
                let mut bytes = vec![0; usize::try_from(span.length)?];
                file.read_exact_at(&mut bytes, span.offset)
                    .with_context(|| format!("cannot read {}", path.display()))?;
                let digest = Digest::of(&bytes);
                if resource.name == bundle::CHUNKS {
                    index.push(protocol::HexDigest(digest.0));
                }
                let place = Place { file: files.len(), offset: span.offset, length: span.length };
                if places.insert(digest, place).is_none() {
                    order.push(digest);
                }
            }
            files.push(path);
        }
        let offer = protocol::encode_json(&Offer { spec: 1, index });
        if envelope.len().max(offer.len()) > MAX_RETAINED_BYTES {
            let fault = Fault::new("the bundle's documents are too large to be retained by a broker")
                .remedy("pack fewer or smaller files into one bundle");
            return Err(fault.into());
        }
        Ok(Parts { envelope, offer, files, order, places })
    }
}

impl Parts {
    /// Every chunk once, in the order in which devices want them.
    pub(crate) fn chunks(&self) -> &[Digest] {
        &self.order
    }

    /// Bytes of one of its chunks; none of another's.
    pub(crate) fn length(&self, digest: &Digest) -> u64 {
        self.places.get(digest).map_or(0, |place| place.length)
    }

    /// The bytes of a chunk; `None` when it is not of this bundle.
    pub(crate) fn chunk(&self, digest: &Digest) -> Option<std::io::Result<Vec<u8>>> {
        let place = self.places.get(digest)?;
        let read = || {
            let mut bytes = vec![0; place.length as usize];
            File::open(&self.files[place.file])?.read_exact_at(&mut bytes, place.offset)?;
            Ok(bytes)
        };
        Some(read())
    }
}
