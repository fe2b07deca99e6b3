//! A folder as a feed: a file that appears is answered, and leaves the folder.
//!
//! Decides when a file is whole. One that was closed by its writer, or moved here, is so at once: the system says that
//! (inotify). Of others, that were there before or on a disk that says nothing, it is believed when they have not changed
//! for some seconds. One file is in memory at a time.

use super::answer::{self, Unanswered};
use super::input::{self, Kind};
use super::meant::Folder;
use super::output::Output;
use super::{Count, ended};
use crate::worker::{Question, Worker};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::net::unix::pipe::Receiver;
use tokio::sync::watch;

/// A file that did not change for so long is whole.
const SETTLED: Duration = Duration::from_secs(5);
/// One that was seen to be begun, and not to be closed: its writer may pause.
const BEGUN: Duration = Duration::from_secs(60);
/// Between two looks while nothing is heard.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// After something that may pass: a full disk, a model that is not loaded yet.
const PAUSE: Duration = Duration::from_secs(1);
/// Names that are remembered at a time; those beyond have their turn when these are gone.
const NAMES: usize = 256;

/// A file as it was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    size: u64,
    modified: Option<SystemTime>,
    /// No link, no pipe: something that a writer could be at.
    plain: bool,
}

/// What is known of the names in the folder.
#[derive(Debug, Default)]
struct Known {
    /// Closed by their writer, or moved here.
    whole: BTreeSet<String>,
    /// Made here, and not closed yet.
    begun: BTreeSet<String>,
    /// Of the others: how they were, and since when.
    seen: BTreeMap<String, (Seen, Instant)>,
}

impl Known {
    /// The files that are whole, the oldest first.
    fn ready(&mut self, mut found: Vec<(SystemTime, String, Seen)>, now: Instant) -> Vec<String> {
        found.sort();
        found.truncate(NAMES);
        let names: BTreeSet<&String> = found.iter().map(|(_, name, _)| name).collect();
        self.whole.retain(|name| names.contains(name));
        self.begun.retain(|name| names.contains(name));
        self.seen.retain(|name, _| names.contains(name));
        let mut ready = Vec::new();
        for (_, name, seen) in found {
            let (before, since) = *self.seen.entry(name.clone()).or_insert((seen, now));
            if before != seen {
                self.seen.insert(name.clone(), (seen, now));
            }
            let patience = if self.begun.contains(&name) { BEGUN } else { SETTLED };
            let settled = before == seen && now.duration_since(since) >= patience;
            if settled || !seen.plain || self.whole.contains(&name) {
                ready.push(name);
            }
        }
        ready
    }

    /// A file was made; or closed, or moved here: then it is whole.
    fn heard(&mut self, name: &str, whole: bool) {
        if whole {
            self.begun.remove(name);
        }
        let names = if whole { &mut self.whole } else { &mut self.begun };
        if names.len() < NAMES {
            names.insert(name.to_owned());
        }
    }

    /// It is dealt with: one of the same name is another one.
    fn forget(&mut self, name: &str) {
        self.whole.remove(name);
        self.begun.remove(name);
        self.seen.remove(name);
    }
}

impl PartialOrd for Seen {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Seen {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.modified, self.size, self.plain).cmp(&(other.modified, other.size, other.plain))
    }
}

/// The files of a folder that are for a feed, and what is known of them: the oldest, as many as are remembered.
fn look(path: &Path) -> io::Result<Vec<(SystemTime, String, Seen)>> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if input::kind(&name).is_none() {
            continue;
        }
        // It may have gone meanwhile. Links are not followed.
        let Ok(about) = entry.metadata() else { continue };
        if about.is_dir() {
            continue;
        }
        let seen = Seen { size: about.len(), modified: about.modified().ok(), plain: about.is_file() };
        found.insert((seen.modified.unwrap_or(SystemTime::UNIX_EPOCH), name, seen));
        if found.len() > NAMES {
            found.pop_last();
        }
    }
    Ok(found.into_iter().collect())
}

/// Listens to a folder.
fn listen(path: &Path) -> io::Result<Receiver> {
    let ears = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
    let words = WatchFlags::CREATE | WatchFlags::CLOSE_WRITE | WatchFlags::MOVED_TO | WatchFlags::ONLYDIR;
    inotify::add_watch(&ears, path, words)?;
    // No pipe, but read like one: all that is asked of it is to wait until it can be read.
    Receiver::from_owned_fd_unchecked(ears)
}

/// Waits for a file that is whole, or until it is time to look.
async fn hear(ears: Option<&Receiver>, known: &mut Known) {
    let Some(ears) = ears else { return tokio::time::sleep(LOOK_EVERY).await };
    let Ok(Ok(())) = tokio::time::timeout(LOOK_EVERY, ears.readable()).await else { return };
    let mut buffer = [0; 4_096];
    // An error is the end of what there is to read; what was lost in between is seen when it has settled.
    while let Ok(n @ 1..) = ears.try_read(&mut buffer) {
        for (name, whole) in told(&buffer[..n]) {
            known.heard(name, whole);
        }
    }
}

/// The names in what the system wrote, and whether the file is whole: after 16 bytes, of which the second word is
/// what happened and the fourth the length, comes the name.
fn told(mut bytes: &[u8]) -> Vec<(&str, bool)> {
    let mut names = Vec::new();
    while let Some((head, rest)) = bytes.split_first_chunk::<16>() {
        let word = |at: usize| u32::from_ne_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let Some((name, rest)) = rest.split_at_checked(word(12) as usize) else { break };
        bytes = rest;
        let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
        let whole = ReadFlags::from_bits_retain(word(4)).intersects(ReadFlags::CLOSE_WRITE | ReadFlags::MOVED_TO);
        let name = std::str::from_utf8(&name[..end]).ok().filter(|name| input::kind(name).is_some());
        names.extend(name.map(|name| (name, whole)));
    }
    names
}

/// Works until it shall end.
pub(super) async fn run(folder: &Folder, worker: &Arc<Worker>, count: &Count, mut stopped: watch::Receiver<bool>) {
    let mut known = Known::default();
    while !*stopped.borrow() {
        match opened(folder).await {
            Ok((output, ears)) => {
                let why = work(folder, output, ears, &mut known, worker, count, &mut stopped).await;
                let Some(why) = why else { return };
                count.troubled(format!("{}: {why}", folder.path.display()));
            }
            Err(why) => count.troubled(format!("{}: {why}", folder.path.display())),
        }
        tokio::select! {
            () = ended(&mut stopped) => {}
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}

async fn opened(folder: &Folder) -> io::Result<(Output, Option<Receiver>)> {
    let meant = folder.clone();
    let output = on_disk(move || Output::open(&meant)).await?;
    let ears = listen(&folder.path);
    if let Err(why) = &ears {
        tracing::info!("the system does not say when a file is whole, it is looked for every two seconds: {why}");
    }
    Ok((output, ears.ok()))
}

/// Until it shall end, or the disk refuses something: then with the reason.
async fn work(
    folder: &Folder,
    mut output: Output,
    ears: Option<Receiver>,
    known: &mut Known,
    worker: &Arc<Worker>,
    count: &Count,
    stopped: &mut watch::Receiver<bool>,
) -> Option<io::Error> {
    loop {
        let path = folder.path.clone();
        let found = match on_disk(move || look(&path)).await {
            Ok(found) => found,
            Err(why) => return Some(why),
        };
        let ready = known.ready(found, Instant::now());
        if ready.is_empty() {
            count.works();
        }
        for name in &ready {
            if *stopped.borrow() {
                return None;
            }
            let Some(kind) = input::kind(name) else { continue };
            let dealt = match answer(folder, worker, name, kind).await {
                Ok(lines) => {
                    count.answered();
                    put(output, name, move |output, name| output.answered(name, &lines)).await
                }
                Err(Unanswered::Never(why)) => {
                    count.failed();
                    tracing::warn!(file = name, "a file has no answer: {why}");
                    let model = folder.model.clone();
                    put(output, name, move |output, name| output.failed(name, model.as_str(), &why)).await
                }
                Err(Unanswered::NotNow(why)) => {
                    count.troubled(why);
                    break;
                }
            };
            match dealt {
                Ok(back) => output = back,
                Err(why) => return Some(why),
            }
            count.works();
            known.forget(name);
        }
        let pause = async {
            match ready.is_empty() {
                true => hear(ears.as_ref(), known).await,
                // More may be there already; but a model that is not there is not asked for all the time.
                false if count.lock().is_some() => tokio::time::sleep(PAUSE).await,
                false => {}
            }
        };
        tokio::select! {
            () = ended(stopped) => return None,
            () = pause => {}
        }
    }
}

async fn answer(folder: &Folder, worker: &Arc<Worker>, name: &str, kind: Kind) -> Result<Vec<u8>, Unanswered> {
    worker.find(folder.model.as_str())?;
    let (path, model, name) = (folder.path.join(name), folder.model.clone(), name.to_owned());
    let read = move || {
        let input = input::read(&path, kind).map_err(Unanswered::Never)?;
        Ok((name.clone(), Question::of(&input).map_err(Unanswered::Never)?.known_as(Some(&name))))
    };
    answer::ask(worker, &folder.model, read, move |name: String, answered| answer::lines(&name, &model, answered)).await
}

/// Does something with the places of a feed, on a thread that may wait for the disk.
async fn put(
    mut output: Output,
    name: &str,
    work: impl FnOnce(&mut Output, &str) -> io::Result<()> + Send + 'static,
) -> io::Result<Output> {
    let name = name.to_owned();
    on_disk(move || work(&mut output, &name).map(|()| output)).await
}

async fn on_disk<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(names: &[(&str, u64)]) -> Vec<(SystemTime, String, Seen)> {
        let one = |(n, (name, size)): (usize, &(&str, u64))| {
            let at = SystemTime::UNIX_EPOCH + Duration::from_secs(n as u64);
            (at, (*name).to_owned(), Seen { size: *size, modified: Some(at), plain: true })
        };
        names.iter().enumerate().map(one).collect()
    }

    #[test]
    fn a_file_is_ready_when_it_was_closed_or_has_settled() {
        let (mut known, start) = (Known::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let none: [&str; 0] = [];
        assert_eq!(known.ready(found(&[("a.csv", 1), ("b.csv", 1)]), at(0)), none);
        known.heard("b.csv", false);
        known.heard("b.csv", true);
        assert_eq!(known.ready(found(&[("a.csv", 1), ("b.csv", 1)]), at(1)), ["b.csv"]);
        known.forget("b.csv");
        // It grows: its time begins anew.
        assert_eq!(known.ready(found(&[("a.csv", 2)]), at(4)), none);
        assert_eq!(known.ready(found(&[("a.csv", 2)]), at(8)), none);
        assert_eq!(known.ready(found(&[("a.csv", 2)]), at(9)), ["a.csv"]);
        // One of the same name is another one.
        known.forget("a.csv");
        assert_eq!(known.ready(found(&[("a.csv", 2)]), at(20)), none);
        // A writer who pauses has more time.
        known.heard("a.csv", false);
        assert_eq!(known.ready(found(&[("a.csv", 2)]), at(79)), none);
        assert_eq!(known.ready(found(&[("a.csv", 2)]), at(80)), ["a.csv"]);
    }

    #[tokio::test]
    async fn the_system_says_when_a_file_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let (ears, mut known) = (listen(dir.path()).unwrap(), Known::default());
        let mut file = fs::File::create(dir.path().join("a.csv")).unwrap();
        io::Write::write_all(&mut file, b"x").unwrap();
        hear(Some(&ears), &mut known).await;
        assert!(known.begun.contains("a.csv") && known.whole.is_empty(), "{known:?}");
        drop(file);
        fs::write(dir.path().join("b.tmp"), "x").unwrap();
        fs::rename(dir.path().join("b.tmp"), dir.path().join("b.csv")).unwrap();
        fs::write(dir.path().join("c.other"), "x").unwrap();
        hear(Some(&ears), &mut known).await;
        assert_eq!(known.whole.iter().collect::<Vec<_>>(), ["a.csv", "b.csv"]);
        assert!(known.begun.is_empty());
        assert_eq!(told(&[1; 20]), [], "what is cut off is no name");
    }

    #[test]
    fn what_is_remembered_has_a_limit() {
        let mut known = Known::default();
        (0..1_000).for_each(|n| known.heard(&format!("{n}.csv"), true));
        assert_eq!(known.whole.len(), NAMES);
        assert_eq!(known.ready(Vec::new(), Instant::now()), Vec::<String>::new());
        assert!(known.whole.is_empty());
        let dir = tempfile::tempdir().unwrap();
        (0..NAMES + 50).for_each(|n| fs::write(dir.path().join(format!("{n}.csv")), "x").unwrap());
        fs::write(dir.path().join("other"), "x").unwrap();
        fs::create_dir(dir.path().join("folder.csv")).unwrap();
        assert_eq!(look(dir.path()).unwrap().len(), NAMES);
    }
}
