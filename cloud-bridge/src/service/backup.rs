//! Backups: all that land has decided and holds, in one file, made beside a running bridge; and a data folder made of it.
//!
//! Decides what belongs to it, and believes nothing of a file that it did not count and hash. Keys do not belong to it: they
//! are kept where keys are. What land does with what it has forgotten is decided by `bridge_core`.

use super::config::BridgeConfig;
use super::store::copy::{self, Vacant};
use super::store::database::{Database, FILE as DATABASE};
use super::store::{Store, Words, unix_millis};
use crate::fault::Fault;
use anyhow::Context;
use bridge_core::audit::Deed;
use bridge_core::{Record, UnixMillis, put_back};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

/// The first entry of the file: what follows.
const INDEX: &str = "backup.json";
/// The bundles.
const BUNDLES: &str = "bundles";
/// The version of the form.
const SPEC: u32 = 1;
/// The most bytes of the index.
const MAX_INDEX: u64 = 64 << 20;
/// The most bytes of a file in it.
const MAX_FILE: u64 = 64 << 30;

/// What is in a backup.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Index {
    spec: u32,
    /// Whose.
    pub(crate) fleet: String,
    /// When it was made, milliseconds since 1970.
    pub(crate) made: UnixMillis,
    /// The version of the bridge that made it.
    pub(crate) bridge: String,
    /// Lines of the audit log.
    pub(crate) audit: u64,
    /// What it holds, in this order.
    pub(crate) files: Vec<Held>,
}

/// One file of a backup.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Held {
    path: String,
    bytes: u64,
    sha256: String,
}

impl Index {
    /// All bytes of its files.
    pub(crate) fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}

/// Writes a backup of a bridge that may be running to `out`.
///
/// # Errors
/// When there is nothing to back up, or `out` is there already or cannot be written.
pub(crate) async fn make(config: &BridgeConfig, out: &Path) -> anyhow::Result<Index> {
    if out.symlink_metadata().is_ok() {
        return Err(Fault::new(format!("{} is there already", out.display())).remedy("name another file").into());
    }
    if matches!(config.database, Database::File(_)) && !config.data.join(DATABASE).exists() {
        let none = Fault::new(format!("there is no {DATABASE} in {}", config.data.display()));
        return Err(none.remedy("has this bridge run before? Give its configuration with --config").into());
    }
    let unwritable = || format!("cannot write {}", out.display());
    let beside = out.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let room = tempfile::tempdir_in(beside).with_context(unwritable)?;
    let copy = room.path().join(DATABASE);
    // One moment of the database; bundles that it names do not change, and those that came since do no harm.
    let made = unix_millis();
    let audit = copy::take(&config.database, room.path()).await?;
    let files = tokio::task::block_in_place(|| hold(&config.data, &copy))?;
    let (files, sources): (Vec<Held>, Vec<PathBuf>) = files.into_iter().unzip();
    let fleet = config.fleet.to_string();
    let index = Index { spec: SPEC, fleet, made, bridge: env!("CARGO_PKG_VERSION").into(), audit, files };
    tokio::task::block_in_place(|| write(&index, &sources, &room.path().join("backup"), out))
        .with_context(unwritable)?;
    Ok(index)
}

/// Every file that belongs to it, and where it lies.
fn hold(data: &Path, copy: &Path) -> anyhow::Result<Vec<(Held, PathBuf)>> {
    let mut files = vec![held(DATABASE.into(), copy)?];
    let mut folders = vec![data.join(BUNDLES)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries {
            let (path, kind) = entry.and_then(|entry| Ok((entry.path(), entry.file_type()?)))?;
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_file() {
                let name = path.strip_prefix(data)?.to_str().context("a file of the library has no plain name")?;
                files.push(held(name.to_owned(), &path)?);
            }
        }
    }
    files[1..].sort_by(|(a, _), (b, _)| a.path.cmp(&b.path));
    Ok(files)
}

fn held(path: String, source: &Path) -> anyhow::Result<(Held, PathBuf)> {
    let read = File::open(source).and_then(|mut file| pour(&mut file, MAX_FILE, |_| Ok(())));
    let (bytes, sha256) = read.with_context(|| format!("cannot read {}", source.display()))?;
    Ok((Held { path, bytes, sha256 }, source.to_owned()))
}

/// Reads to the end, or a little beyond `most`, and gives each piece to `take`: how many bytes that were, and their SHA-256.
fn pour(from: &mut impl Read, most: u64, mut take: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<(u64, String)> {
    let (mut hash, mut bytes, mut buffer) = (Sha256::new(), 0, vec![0; 1 << 16]);
    loop {
        let read = from.read(&mut buffer)?;
        bytes += read as u64;
        if read == 0 || bytes > most {
            return Ok((bytes, hex::encode(hash.finalize())));
        }
        hash.update(&buffer[..read]);
        take(&buffer[..read])?;
    }
}

fn write(index: &Index, sources: &[PathBuf], part: &Path, out: &Path) -> anyhow::Result<()> {
    let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(part)?;
    let mut tar = tar::Builder::new(std::io::BufWriter::new(file));
    let head = |bytes: u64| {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes);
        header.set_mode(0o600);
        header.set_mtime(index.made / 1_000);
        header
    };
    let text = serde_json::to_vec_pretty(index)?;
    tar.append_data(&mut head(text.len() as u64), INDEX, text.as_slice())?;
    for (file, source) in index.files.iter().zip(sources) {
        tar.append_data(&mut head(file.bytes), &file.path, File::open(source)?.take(file.bytes))?;
    }
    let mut file = tar.into_inner()?;
    file.flush()?;
    file.get_ref().sync_all()?;
    std::fs::rename(part, out)?;
    Ok(())
}

/// Makes the data folder of the configuration from a backup, and fills its database.
///
/// # Errors
/// When there is something already, or the file is not a whole backup of this fleet.
pub(crate) async fn put(config: &BridgeConfig, from: &Path) -> anyhow::Result<Index> {
    let data = &config.data;
    if std::fs::read_dir(data).is_ok_and(|mut entries| entries.next().is_some()) {
        let there = Fault::new(format!("{} holds something already", data.display()));
        return Err(there.remedy("stop the bridge and move that folder away: nothing is written over it").into());
    }
    let server = match &config.database {
        Database::File(_) => None,
        server @ Database::Server(_) => Some(Vacant::find(server).await?),
    };
    let unwritable = || format!("cannot write beside {}", data.display());
    let beside = data.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(beside).with_context(unwritable)?;
    let room = tempfile::tempdir_in(beside).with_context(unwritable)?;
    let (inside, fleet) = (room.path().join("data"), config.fleet.as_str());
    let index = tokio::task::block_in_place(|| read(from, fleet, &inside))?;
    let store = Store::open(&Database::File(inside.clone()), fleet).await?;
    let now = unix_millis();
    if now <= index.made {
        let clock = Fault::new("the clock of this machine is before the time of the backup");
        return Err(clock.remedy("set it: what land signs from now on must be newer than all that it signed").into());
    }
    let deed = Deed::new("bridge", "backup.restore", &format!("made at {}", index.made), "done");
    let records = put_back(store.records().await?, index.made, now).into_iter();
    let records: Vec<Record> = std::iter::once(Record::Deed(Box::new(deed))).chain(records).collect();
    store.save(&records, &Words::default()).await?;
    store.close().await;
    if let Some(server) = server {
        server.fill(&inside).await?;
        std::fs::remove_file(inside.join(DATABASE)).with_context(unwritable)?;
    }
    std::fs::set_permissions(&inside, std::fs::Permissions::from_mode(0o700)).with_context(unwritable)?;
    // In place of nothing, or of an empty folder.
    std::fs::rename(&inside, data).with_context(unwritable)?;
    File::open(beside).and_then(|folder| folder.sync_all()).with_context(unwritable)?;
    Ok(index)
}

/// Unpacks a backup into a new folder, if it is whole.
fn read(from: &Path, fleet: &str, into: &Path) -> anyhow::Result<Index> {
    let wrong = |why: String| {
        let fault = Fault::new(format!("{} is no backup that can be used", from.display())).because(why);
        anyhow::Error::from(fault.remedy("take another copy: nothing was changed"))
    };
    let file = File::open(from).map_err(|e| {
        Fault::new(format!("cannot read {}", from.display()))
            .because(e)
            .remedy("give the file that `petrel backup` made")
    })?;
    let mut tar = tar::Archive::new(std::io::BufReader::new(file));
    let mut entries = tar.entries().map_err(|e| wrong(e.to_string()))?;
    let mut next = |path: &str| match entries.next() {
        Some(Ok(entry)) if entry.path_bytes().as_ref() == path.as_bytes() && entry.header().entry_type().is_file() => {
            Ok(entry)
        }
        Some(Ok(_)) => Err(wrong(format!("another file stands in place of {path}"))),
        Some(Err(error)) => Err(wrong(error.to_string())),
        None => Err(wrong(format!("it ends before {path}"))),
    };
    let mut text = Vec::new();
    next(INDEX)?.take(MAX_INDEX).read_to_end(&mut text).map_err(|e| wrong(e.to_string()))?;
    let index: Index = serde_json::from_slice(&text).map_err(|e| wrong(e.to_string()))?;
    if index.spec != SPEC {
        return Err(wrong(format!("its form is {}, and this petrel reads {SPEC}", index.spec)));
    }
    if index.fleet != fleet {
        return Err(wrong(format!("it is of fleet `{}`, and the configuration of `{fleet}`", index.fleet)));
    }
    if index.files.first().is_none_or(|file| file.path != DATABASE) {
        return Err(wrong("it has no database".into()));
    }
    std::fs::create_dir_all(into.join(BUNDLES))?;
    for file in &index.files {
        let path = Path::new(&file.path);
        let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
        let known = file.path == DATABASE || path.starts_with(BUNDLES);
        if !plain || !known || file.bytes > MAX_FILE {
            return Err(wrong(format!("`{}` does not belong into it", file.path.escape_debug())));
        }
        let target = into.join(path);
        target.parent().map_or(Ok(()), std::fs::create_dir_all)?;
        let mut target = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&target)?;
        let poured = pour(&mut next(&file.path)?, file.bytes, |piece| target.write_all(piece));
        let (bytes, sha256) = poured.map_err(|e| wrong(e.to_string()))?;
        if bytes != file.bytes || sha256 != file.sha256 {
            return Err(wrong(format!("{} is not what was written", file.path)));
        }
        target.sync_all()?;
    }
    Ok(index)
}
