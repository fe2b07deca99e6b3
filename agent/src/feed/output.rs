//! Where a folder's answers and files go: the file of the answers, and the subfolders `done` and `failed`.
//!
//! Decides what is durable when, and how much stays. An answer is on the disk before its file leaves the folder: a power
//! cut may let a file be answered twice, and never not at all.

use super::meant::{Done, Folder};
use serde_json::json;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

const DONE: &str = "done";
const FAILED: &str = "failed";
/// Behind the name of a file that failed: why it did.
const WHY: &str = ".why.json";

/// The places of one feed.
#[derive(Debug)]
pub(super) struct Output {
    path: PathBuf,
    out: PathBuf,
    out_bytes: u64,
    done: Option<Kept>,
    failed: Kept,
}

/// A subfolder in which the newest files stay.
#[derive(Debug)]
struct Kept {
    dir: PathBuf,
    most: usize,
    /// How many are there, as far as it is known.
    count: usize,
}

impl Output {
    /// Makes the folders that are missing.
    ///
    /// # Errors
    /// What the system said.
    pub(super) fn open(folder: &Folder) -> io::Result<Self> {
        fs::create_dir_all(&folder.path)?;
        if let Some(above) = folder.out.parent() {
            fs::create_dir_all(above)?;
        }
        let done = match folder.done {
            Done::Move => Some(Kept::open(folder.path.join(DONE), folder.keep)?),
            Done::Remove => None,
        };
        // A file that failed has a second one beside it.
        let failed = Kept::open(folder.path.join(FAILED), folder.keep * 2)?;
        Ok(Self { path: folder.path.clone(), out: folder.out.clone(), out_bytes: folder.out_bytes, done, failed })
    }

    /// A file was answered by these lines.
    ///
    /// # Errors
    /// What the system said; the file is still there then, and is answered again.
    pub(super) fn answered(&mut self, name: &str, lines: &[u8]) -> io::Result<()> {
        self.append(lines)?;
        let file = self.path.join(name);
        match &mut self.done {
            Some(done) => done.take(&file, name),
            None => match fs::remove_file(&file) {
                Err(why) if why.kind() == ErrorKind::NotFound => Ok(()),
                removed => removed,
            },
        }
    }

    /// A file has no answer, and why.
    ///
    /// # Errors
    /// What the system said; the file is still there then.
    pub(super) fn failed(&mut self, name: &str, model: &str, why: &str) -> io::Result<()> {
        let line = format!("{}\n", json!({ "file": name, "model": model, "error": why }));
        let mut told = OsString::from(name);
        told.push(WHY);
        self.failed.write(Path::new(&told), line.as_bytes())?;
        self.failed.count += 1;
        self.failed.take(&self.path.join(name), name)
    }

    fn append(&self, lines: &[u8]) -> io::Result<()> {
        let size = match fs::metadata(&self.out) {
            Ok(found) => found.len(),
            Err(why) if why.kind() == ErrorKind::NotFound => 0,
            Err(why) => return Err(why),
        };
        if size > 0 && size.saturating_add(lines.len() as u64) > self.out_bytes {
            let mut before = self.out.as_os_str().to_owned();
            before.push(".1");
            fs::rename(&self.out, before)?;
        }
        let mut out = OpenOptions::new().create(true).append(true).open(&self.out)?;
        out.write_all(lines)?;
        out.sync_data()?;
        if size == 0 || size.saturating_add(lines.len() as u64) > self.out_bytes {
            // The name is new.
            File::open(self.out.parent().unwrap_or(Path::new(".")))?.sync_all()?;
        }
        Ok(())
    }
}

impl Kept {
    /// Who may put files into a feed's folder must not lead the agent elsewhere: a folder of another owner, or a link, is
    /// none of its own.
    fn check(dir: &Path) -> io::Result<()> {
        let found = fs::symlink_metadata(dir)?;
        if found.is_dir() && found.uid() == rustix::process::geteuid().as_raw() {
            return Ok(());
        }
        Err(io::Error::new(ErrorKind::PermissionDenied, format!("{} is not the agent's own folder", dir.display())))
    }

    /// Writes a file anew, and through no link.
    fn write(&self, name: &Path, content: &[u8]) -> io::Result<()> {
        Self::check(&self.dir)?;
        let path = self.dir.join(name);
        match fs::remove_file(&path) {
            Err(why) if why.kind() != ErrorKind::NotFound => Err(why),
            _ => OpenOptions::new().write(true).create_new(true).open(&path)?.write_all(content),
        }
    }

    fn open(dir: PathBuf, most: usize) -> io::Result<Self> {
        match fs::create_dir(&dir) {
            Err(why) if why.kind() != ErrorKind::AlreadyExists => return Err(why),
            _ => Self::check(&dir)?,
        }
        let count = fs::read_dir(&dir)?.count();
        Ok(Self { dir, most, count })
    }

    /// Moves a file here; one of the same name is replaced. The oldest go when there are too many.
    fn take(&mut self, file: &Path, name: &str) -> io::Result<()> {
        Self::check(&self.dir)?;
        match fs::rename(file, self.dir.join(name)) {
            // Somebody took it away meanwhile.
            Err(why) if why.kind() == ErrorKind::NotFound => return Ok(()),
            moved => moved?,
        }
        self.count += 1;
        if self.count > self.most {
            self.thin()?;
        }
        Ok(())
    }

    /// Removes the oldest, and some more: the folder is not listed for every file.
    fn thin(&mut self) -> io::Result<()> {
        let kept = self.most - self.most / 10;
        let mut newest: BTreeSet<(SystemTime, OsString)> = BTreeSet::new();
        let mut gone = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            newest.insert((entry.metadata()?.modified()?, entry.file_name()));
            if newest.len() > kept {
                gone.extend(newest.pop_first());
            }
            // Never more names in memory than may stay.
            for (_, name) in gone.drain(..) {
                // What somebody else put there, a folder say, stays.
                let _ = fs::remove_file(self.dir.join(name));
            }
        }
        self.count = newest.len();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(dir: &Path, done: Done) -> Folder {
        let (path, out) = (dir.join("in"), dir.join("out.jsonl"));
        Folder { model: "digits".parse().unwrap(), path, out, done, keep: 3, out_bytes: 100 }
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn answers_are_appended_and_the_file_before_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let mut output = Output::open(&folder(dir.path(), Done::Remove)).unwrap();
        for n in 0..5 {
            fs::write(dir.path().join("in/a.csv"), "x").unwrap();
            output.answered("a.csv", format!("{}{n}\n", "-".repeat(40)).as_bytes()).unwrap();
        }
        let text = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
        assert!(text("out.jsonl").ends_with("4\n") && text("out.jsonl").lines().count() == 1);
        assert!(text("out.jsonl.1").lines().count() == 2 && text("out.jsonl.1").contains("3\n"));
        assert_eq!(names(&dir.path().join("in")), ["failed"]);
    }

    #[test]
    fn a_link_in_the_place_of_a_folder_or_of_a_reason_leads_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let (own, kept) = (dir.path().join("in/failed"), dir.path().join("ledger"));
        fs::write(&kept, "precious").unwrap();
        let mut output = Output::open(&folder(dir.path(), Done::Remove)).unwrap();
        fs::write(dir.path().join("in/a.csv"), "x").unwrap();
        std::os::unix::fs::symlink(&kept, own.join("a.csv.why.json")).unwrap();
        output.failed("a.csv", "digits", "no").unwrap();
        fs::remove_dir_all(&own).unwrap();
        std::os::unix::fs::symlink(dir.path(), &own).unwrap();
        fs::write(dir.path().join("in/b.csv"), "x").unwrap();
        assert_eq!(output.failed("b.csv", "digits", "no").unwrap_err().kind(), ErrorKind::PermissionDenied);
        assert!(Output::open(&folder(dir.path(), Done::Remove)).is_err());
        assert_eq!(fs::read_to_string(kept).unwrap(), "precious");
        assert_eq!(names(dir.path()), ["in", "ledger"]);
    }

    #[test]
    fn the_newest_files_stay() {
        let dir = tempfile::tempdir().unwrap();
        let mut output = Output::open(&folder(dir.path(), Done::Move)).unwrap();
        let old = SystemTime::UNIX_EPOCH;
        for n in 0..5_u64 {
            let file = File::create(dir.path().join(format!("in/{n}.csv"))).unwrap();
            file.set_modified(old + std::time::Duration::from_secs(n)).unwrap();
            output.answered(&format!("{n}.csv"), b"{}\n").unwrap();
        }
        assert_eq!(names(&dir.path().join("in/done")), ["2.csv", "3.csv", "4.csv"]);
        fs::write(dir.path().join("in/b.csv"), "x").unwrap();
        output.failed("b.csv", "digits", "no\nline").unwrap();
        assert_eq!(names(&dir.path().join("in/failed")), ["b.csv", "b.csv.why.json"]);
        let why = fs::read_to_string(dir.path().join("in/failed/b.csv.why.json")).unwrap();
        assert!(why.lines().count() == 1 && why.contains("\"error\":\"no\\nline\""), "{why}");
        // What began before counts.
        assert_eq!(Output::open(&folder(dir.path(), Done::Move)).unwrap().done.unwrap().count, 3);
    }
}
