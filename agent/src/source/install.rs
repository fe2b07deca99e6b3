//! `petrel-agent install`: a bundle that a person brings, as a tar or a folder, goes to the running agent.
//!
//! Decides nothing of what is believed: it reads files, and the agent takes what it lacks of a bundle that land wants here.

use super::{Source, Taker, pour};
use crate::config::{self, Config};
use crate::fault::Fault;
use crate::fetch::{Gap, Part};
use crate::status;
use crate::store::ENVELOPE;
use clap::Args;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use trust::{Digest, MAX_DOCUMENT_BYTES};

const TIMEOUT: Duration = Duration::from_secs(120);
/// More files than any bundle has.
const MAX_FILES: usize = 2048;
/// The most bytes of an answer of the agent.
const MAX_ANSWER_BYTES: u64 = 64 * 1024;

/// Give the running agent a bundle from a stick: what it lacks of a release that land wants here
#[derive(Debug, Args)]
#[command(after_help = "\
The bundle is taken when land has assigned it to this device: then its bytes need not come over the network. They are
checked as those are. Cut off, it goes on where it stopped.

Example:
  petrel-agent install /media/usb/digits-1.2.0.tar")]
pub(crate) struct InstallArgs {
    /// A bundle: its tar, or its folder
    #[arg(value_name = "BUNDLE")]
    bundle: PathBuf,
    /// The configuration of the running agent
    #[arg(long, value_name = "FILE", default_value = config::DEFAULT_PATH)]
    config: PathBuf,
    /// Print JSON, for machines
    #[arg(long)]
    pub(crate) json: bool,
}

/// Does it; what it returns is to be printed.
pub(crate) fn install(args: &InstallArgs) -> anyhow::Result<String> {
    let unreadable = |why: io::Error| {
        Fault::new(format!("cannot read the bundle {}", args.bundle.display()))
            .because(why)
            .remedy("give the tar or the folder that `petrel pack` and `petrel sign` made")
    };
    let mut source = Brought::open(&args.bundle).map_err(unreadable)?;
    let envelope = source.read(ENVELOPE, 0, MAX_DOCUMENT_BYTES as u64).map_err(unreadable)?;
    let bundle = trust::statement_digest(&envelope).map_err(|refusal| {
        Fault::new(format!("{} is no signed bundle", args.bundle.display()))
            .because(refusal)
            .remedy("sign it with `petrel sign`, and bring all of its files")
    })?;
    let config = Config::read(&args.config)?;
    let mut agent = Agent::find(&config, bundle)?;
    let lost = |why: io::Error| {
        Fault::new("the bundle did not get to the agent")
            .because(why)
            .remedy("look at `petrel-agent status`; the same command goes on where it stopped")
    };
    if agent.gap().map_err(lost)?.is_none() {
        let what = format!("the agent lacks nothing of bundle {}", bundle.short());
        return Err(Fault::new(what)
            .because("it has all of it, or land has not assigned it to this device")
            .remedy("on land: petrel rollout start STREAM@VERSION; then repeat this command while the device fetches")
            .into());
    }
    let shown = io::stderr().is_terminal() && !args.json;
    let poured = pour(&mut agent, &mut source, |bytes| {
        if shown {
            // Whether a person sees it changes nothing.
            let _ = write!(io::stderr(), "\r{:.1} MB", bytes as f64 / 1e6);
        }
    });
    if shown {
        let _ = write!(io::stderr(), "\r\x1b[K");
    }
    let poured = poured.map_err(lost)?;
    Ok(match args.json {
        true => serde_json::json!({ "bundle": bundle.to_string(), "bytes": poured }).to_string(),
        false => format!(
            "bundle {} is on this device, {poured} bytes of it from {}\nIt is tested now: petrel-agent status",
            bundle.short(),
            args.bundle.display()
        ),
    })
}

/// The files of a bundle that lie in a folder, or in a tar.
#[derive(Debug)]
enum Brought {
    Folder(PathBuf),
    Tar { tar: File, files: BTreeMap<String, (u64, u64)> },
}

impl Brought {
    fn open(path: &Path) -> io::Result<Self> {
        if path.is_dir() {
            return Ok(Self::Folder(path.to_owned()));
        }
        let (tar, mut files) = (File::open(path)?, BTreeMap::new());
        let mut archive = tar::Archive::new(&tar);
        for entry in archive.entries_with_seek()? {
            let entry = entry?;
            if files.len() == MAX_FILES {
                return Err(io::Error::other(format!("it holds more than {MAX_FILES} files")));
            }
            if let Some(name) = entry.path()?.to_str().filter(|_| entry.header().entry_type().is_file()) {
                files.insert(name.trim_start_matches("./").to_owned(), (entry.raw_file_position(), entry.size()));
            }
        }
        Ok(Self::Tar { tar, files })
    }
}

impl Source for Brought {
    fn read(&mut self, file: &str, offset: u64, length: u64) -> io::Result<Vec<u8>> {
        let missing = || io::Error::new(io::ErrorKind::NotFound, format!("it holds no {file}"));
        match self {
            // The name is of the signed statement, or one of ours: it stays in the folder.
            Self::Folder(dir) => {
                let mut bytes = Vec::new();
                let found =
                    File::open(dir.join(file)).map_err(|why| io::Error::new(why.kind(), format!("{file}: {why}")))?;
                io::copy(&mut Window { file: &found, at: offset }.take(length), &mut bytes)?;
                Ok(bytes)
            }
            Self::Tar { tar, files } => {
                let (begin, size) = files.get(file).ok_or_else(missing)?;
                let mut bytes = Vec::new();
                let length = length.min(size.saturating_sub(offset));
                io::copy(&mut Window { file: tar, at: begin + offset }.take(length), &mut bytes)?;
                Ok(bytes)
            }
        }
    }
}

/// A file from a place on.
struct Window<'a> {
    file: &'a File,
    at: u64,
}

impl Read for Window<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(bytes, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

/// The running agent, through its local API.
struct Agent {
    http: ureq::Agent,
    url: String,
}

impl Agent {
    fn find(config: &Config, bundle: Digest) -> Result<Self, Fault> {
        let address = status::address(config)?;
        let http = ureq::Agent::config_builder().timeout_global(Some(TIMEOUT)).proxy(None).build().into();
        Ok(Self { http, url: format!("http://{address}/bundles/{bundle}") })
    }
}

impl Taker for Agent {
    fn gap(&mut self) -> io::Result<Option<Gap>> {
        let mut response = self.http.get(&self.url).call().map_err(io::Error::other)?;
        response.body_mut().with_config().limit(MAX_ANSWER_BYTES).read_json().map_err(io::Error::other)
    }

    fn give(&mut self, part: Part, bytes: &[u8]) -> io::Result<()> {
        let url = format!("{}/{}", self.url, part.name());
        self.http.post(&url).send(bytes).map(drop).map_err(io::Error::other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_a_folder_and_of_its_tar_are_the_same() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("weights")).unwrap();
        std::fs::write(dir.path().join("weights/a.bin"), b"0123456789").unwrap();
        let path = dir.path().join("bundle.tar");
        let mut made = tar::Builder::new(File::create(&path).unwrap());
        made.append_path_with_name(dir.path().join("weights/a.bin"), "weights/a.bin").unwrap();
        made.finish().unwrap();
        for brought in [dir.path(), &path] {
            let mut brought = Brought::open(brought).unwrap();
            assert_eq!(brought.read("weights/a.bin", 0, 100).unwrap(), b"0123456789");
            assert_eq!(brought.read("weights/a.bin", 4, 3).unwrap(), b"456");
            assert_eq!(brought.read("weights/a.bin", 20, 3).unwrap(), b"");
            assert!(brought.read("weights/b.bin", 0, 1).unwrap_err().to_string().contains("b.bin"));
        }
    }
}
